"""Spans as they come over the wire, in JSON and in protobuf."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whyops_trace._otel import protobuf
from whyops_trace._otel.span import Batch, MalformedError, read_json

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
SENT: dict[str, Any] = {
    "traceId": TRACE,
    "spanId": SPAN,
    "parentSpanId": "eee19b7ec3c1b173",
    "name": "chat",
    "kind": 3,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": "1544712661000000000",
    "status": {"code": 2, "message": "deep"},
    "attributes": [
        {"key": "text", "value": {"stringValue": "x"}},
        {"key": "number", "value": {"intValue": "9007199254740993"}},
        {"key": "share", "value": {"doubleValue": 0.5}},
        {"key": "flag", "value": {"boolValue": True}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "a"}]}}},
        {"key": "object", "value": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}}},
        {"key": "nothing", "value": {}},
    ],
    "events": [{"timeUnixNano": "1544712660500000000", "name": "exception", "attributes": []}],
}


def batch(*spans: dict[str, Any]) -> Batch:
    """Read spans from JSON."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    scopes = [{"scope": {"name": "lib"}, "spans": list(spans)}]
    return read_json(json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}).encode())


def test_a_span_in_json_is_read_whole() -> None:
    """Ids are hex, and numbers of 64 bits are texts."""
    (span,) = batch(SENT).spans

    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, SPAN, "eee19b7ec3c1b173")
    assert (span.service, span.scope, span.name, span.kind) == ("shop", "lib", "chat", 3)
    assert (span.start_ns, span.end_ns) == (1544712660000000000, 1544712661000000000)
    assert (span.status, span.message) == (2, "deep")
    assert span.attributes == {
        "text": "x",
        "number": 9007199254740993,
        "share": 0.5,
        "flag": True,
        "list": [1, "a"],
        "object": {"a": 1},
        "nothing": None,
    }
    assert [event.name for event in span.events] == ["exception"]


def test_a_span_in_protobuf_is_the_same() -> None:
    """Both forms are of one message."""
    json_format = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    sent = json.loads(json.dumps(SENT))
    message = service.ExportTraceServiceRequest()
    json_format.ParseDict(
        {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "lib"}, "spans": [sent]}]}]}, message
    )
    item = message.resource_spans[0].scope_spans[0].spans[0]
    item.trace_id, item.span_id = bytes.fromhex(TRACE), bytes.fromhex(SPAN)
    item.parent_span_id = bytes.fromhex("eee19b7ec3c1b173")
    (span,) = protobuf.read_spans(message.SerializeToString()).spans
    (same,) = batch(SENT).spans

    span.service, span.source = "shop", same.source
    assert span == same


def test_names_of_enumerations_and_ids_in_base64_are_read_too() -> None:
    """Some write JSON as protobuf has it."""
    (span,) = batch(
        {
            **SENT,
            "traceId": "W47/95gDgQPSabYzgT/GDA==",
            "spanId": "7uGbfsPBsXQ=",
            "kind": "SPAN_KIND_CLIENT",
            "status": {"code": "STATUS_CODE_ERROR"},
        }
    ).spans

    assert (span.trace_id, span.span_id, span.kind, span.status) == (TRACE, SPAN, 3, 2)


@pytest.mark.parametrize("parent", ["", "0000000000000000", SPAN])
def test_a_parent_of_zeros_or_the_span_itself_is_none(parent: str) -> None:
    """It is a root."""
    assert batch({**SENT, "parentSpanId": parent}).spans[0].parent_id == ""


def test_an_end_before_the_start_is_the_start() -> None:
    """Clocks are set back."""
    (span,) = batch({**SENT, "endTimeUnixNano": "1"}).spans

    assert span.end_ns == span.start_ns


@pytest.mark.parametrize(
    "wrong",
    [
        {"traceId": "abc"},
        {"traceId": "0" * 32},
        {"spanId": ""},
        {"spanId": "zz"},
        {"startTimeUnixNano": "0"},
        {"startTimeUnixNano": "18446744073709551615"},
        {"startTimeUnixNano": "9223372036854775808"},
    ],
)
def test_a_span_that_cannot_be_shown_is_refused_with_the_reason(wrong: dict[str, Any]) -> None:
    """The others are taken."""
    result = batch({**SENT, **wrong}, SENT)

    assert len(result.spans) == 1
    assert len(result.refused) == 1
    assert result.refused[0]


def test_an_attribute_that_is_nested_very_deep_is_refused() -> None:
    """It would not fit into any record."""
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}
    result = batch({**SENT, "attributes": [{"key": "deep", "value": value}]})

    assert result.spans == []
    assert "nested" in result.refused[0]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_malformed(body: bytes) -> None:
    """It says so."""
    with pytest.raises(MalformedError):
        read_json(body)


def test_a_body_that_is_no_protobuf_is_malformed() -> None:
    """It says so."""
    pytest.importorskip("opentelemetry.proto")
    with pytest.raises(MalformedError):
        protobuf.read_spans(b"\xff\xff\xff\xff")


def test_log_records_belong_to_spans() -> None:
    """Others are refused. The name of the event was an attribute before."""
    record = {"traceId": TRACE, "spanId": SPAN, "timeUnixNano": "5", "body": {"stringValue": "x"}}
    named = {**record, "attributes": [{"key": "event.name", "value": {"stringValue": "gen_ai.choice"}}]}
    logs = [{**record, "eventName": "e"}, named, {"body": {"stringValue": "y"}}]
    result = read_json(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}).encode())

    assert [(log.name, log.body) for log in result.logs] == [("e", "x"), ("gen_ai.choice", "x")]
    assert len(result.refused) == 1
