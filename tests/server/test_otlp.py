"""The receiver of OpenTelemetry as exporters see it, and what is stored of what they send."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from browser import record, served, tool_call
from programs import run as run_module
from spans import ARGUMENTS, RESULT, TRACE, raised, span, tool, turn

from whyops_trace._home import SPANS_FILE
from whyops_trace._otel.span import Batch, Span
from whyops_trace._values.processor import Processor
from whyops_trace.server.inbox import Inbox
from whyops_trace.settings import MAX_EVENT_BYTES
from whyops_trace.store import Store

JSON, PROTOBUF = "application/json", "application/x-protobuf"
#: Seconds that a test waits for what must come.
PATIENCE = 30.0


class Server(NamedTuple):
    """
    A server that listens.

    Attributes:
        url: Its address.
        store: What it stores to.
        home: Its home.
    """

    url: str
    store: Store
    home: Path

    def post(self, path: str, content: bytes, media_type: str = JSON, **headers: str) -> httpx.Response:
        """Send a body."""
        return httpx.post(
            self.url + path,
            content=content,
            headers={"Content-Type": media_type, **headers},
            timeout=PATIENCE,
        )

    def send(self, *spans: Span) -> None:
        """Send spans in one request in JSON, which must be taken whole."""
        answer = self.post("/v1/traces", as_json(spans))

        assert (answer.status_code, answer.json()) == (200, {})

    def outline(self, trace: str = TRACE) -> list[tuple[str, int, int]]:
        """Return type, step and enclosing step of each record of a trace."""
        return [
            (event["eventType"], event["stepId"], event["metadata"]["within"])
            for event in self.store.events(trace)
        ]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        version = self.store.version()
        while not is_so():
            assert time.monotonic() < deadline
            while self.store.version() == version and time.monotonic() < deadline:
                time.sleep(0.01)
            version = self.store.version()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with a home of its own."""
    home = tmp_path / "home"
    with served(home) as url:
        yield Server(url, Store(home / "traces.db"), home)


def value_of(value: Any) -> dict[str, Any]:
    """Return a value as OTLP wraps it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [value_of(each) for each in value]}}
    return {"stringValue": value}


def attributes_of(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return attributes as OTLP writes them."""
    return [{"key": key, "value": value_of(value)} for key, value in values.items()]


def wire(told: Span) -> dict[str, Any]:
    """Return a span in OTLP/JSON."""
    return {
        "traceId": told.trace_id,
        "spanId": told.span_id,
        "parentSpanId": told.parent_id,
        "name": told.name,
        "kind": told.kind,
        "startTimeUnixNano": str(told.start_ns),
        "endTimeUnixNano": str(told.end_ns),
        "status": {"code": told.status, "message": told.message},
        "attributes": attributes_of(told.attributes),
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_ns),
                "attributes": attributes_of(event.attributes),
            }
            for event in told.events
        ],
    }


def request_of(spans: Sequence[Span]) -> dict[str, Any]:
    """Return a request in OTLP/JSON, as a value."""
    resource = {"attributes": attributes_of({"service.name": "shop"})}
    return {
        "resourceSpans": [
            {
                "resource": resource,
                "scopeSpans": [{"scope": {"name": each.scope}, "spans": [wire(each)]} for each in spans],
            }
        ]
    }


def as_json(spans: Sequence[Span]) -> bytes:
    """Return a request in OTLP/JSON."""
    return json.dumps(request_of(spans)).encode()


def as_protobuf(spans: Sequence[Span]) -> bytes:
    """Return a request in protobuf."""
    json_format = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    request = request_of(spans)
    for scope in request["resourceSpans"][0]["scopeSpans"]:
        for each in scope["spans"]:  # JSON of protobuf has bytes in base64
            for name in ("traceId", "spanId", "parentSpanId"):
                each[name] = base64.b64encode(bytes.fromhex(each[name])).decode()
    message: bytes = json_format.ParseDict(request, service.ExportTraceServiceRequest()).SerializeToString()
    return message


def run() -> list[Span]:
    """Return an agent that asks for a tool, each child before its parent, as they end."""
    root = span(
        "invoke_agent guide",
        took=100,
        attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"},
    )
    call = {"id": "call_1", "name": "depth", "arguments": ARGUMENTS}
    about = {
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": json.dumps(ARGUMENTS),
        "gen_ai.tool.call.result": json.dumps(RESULT),
    }
    return [turn(root, at=1, calls=[call]), tool(root, at=20, attributes=about), turn(root, at=40), root]


#: Type, step and enclosing step of the records of a run.
RUN = [
    ("llm_thinking", 1, 0),
    ("step_end", 1, 0),
    ("user_message", 2, 1),
    ("llm_response", 3, 2),
    ("tool_call_request", 4, 1),
    ("tool_call_response", 5, 4),
    ("user_message", 6, 1),
    ("llm_response", 7, 6),
    ("trace_end", 1, 0),
]


# What is taken


def test_spans_in_json_are_in_the_store_when_they_are_answered(server: Server) -> None:
    """The trace is whole, with the agent's name, who asked, and the tokens."""
    server.send(*run())

    assert server.outline() == RUN
    summary = server.store.trace(TRACE)
    assert (summary.agent_name, summary.running, summary.tool_calls, summary.llm_responses) == (
        "guide",
        False,
        1,
        2,
    )
    request = server.store.events(TRACE)[4]
    assert (request["metadata"]["requestedBy"], request["metadata"]["callId"]) == (3, "call_1")


def test_spans_in_protobuf_are_the_same(server: Server) -> None:
    """The answer is of the same form: an empty message."""
    answer = server.post("/v1/traces", as_protobuf(run()), PROTOBUF)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == PROTOBUF
    assert server.outline() == RUN


def test_a_text_that_was_cut_in_an_emoji_costs_no_span(server: Server) -> None:
    """JavaScript writes half of a surrogate pair then, which is no text elsewhere."""
    sent = as_json(run()).replace(b"guide", b"guide \\ud83d")

    assert server.post("/v1/traces", sent).json() == {}
    (trace_id,) = (summary.trace_id for summary in server.store.traces())
    assert server.store.events(trace_id)[0]["content"]["thinking"].startswith("guide ")


def test_a_body_may_be_packed(server: Server) -> None:
    """With gzip, as most exporters can."""
    answer = server.post("/v1/traces", gzip.compress(as_json(run())), **{"Content-Encoding": "gzip"})

    assert answer.status_code == 200
    assert server.outline() == RUN


def test_each_span_may_come_in_a_request_of_its_own(server: Server) -> None:
    """A child before its parent: what it was in is known later, and the trace is mended."""
    for each in run():
        server.send(each)

    assert server.outline() == RUN


def test_the_same_spans_again_change_nothing(server: Server) -> None:
    """An exporter sends them again if it did not hear the answer."""
    spans = run()
    server.send(*spans)
    before = server.store.lines(TRACE)
    server.send(*spans)
    server.send(spans[0])

    assert server.store.lines(TRACE) == before


def test_a_span_whose_parent_has_not_come_is_shown_and_its_trace_runs(server: Server) -> None:
    """Until the parent comes."""
    first, *_, root = run()
    server.send(first)

    assert server.outline() == [("user_message", 1, 0), ("llm_response", 2, 1)]
    assert not any(event["eventType"] == "trace_end" for event in server.store.events(TRACE))
    server.send(root)
    assert server.outline()[0] == ("llm_thinking", 1, 0)
    assert server.outline()[-1] == ("trace_end", 1, 0)


def test_a_span_that_ends_later_than_before_is_taken_anew(server: Server) -> None:
    """Some send a span when it starts, and again when it ends."""
    server.send(tool(took=None, number=5))
    assert [kind for kind, *_ in server.outline()] == ["tool_call_request"]

    server.send(tool(took=10, number=5, error="deep", events=[raised("deep")]))
    assert [kind for kind, *_ in server.outline()] == [
        "tool_call_request",
        "error",
        "tool_call_response",
        "trace_end",
    ]


def test_log_records_complete_the_turn_that_they_belong_to(server: Server) -> None:
    """They may come before it."""
    bare = turn(attributes={"gen_ai.output.messages": ""})
    told = {
        "traceId": bare.trace_id,
        "spanId": bare.span_id,
        "timeUnixNano": "1",
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": attributes_of(
            {
                "gen_ai.output.messages": json.dumps(
                    [{"role": "assistant", "parts": [{"type": "text", "content": "310 metres"}]}]
                )
            }
        ),
    }
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [told]}]}]}).encode()

    assert server.post("/v1/logs", body).status_code == 200
    server.send(bare)
    assert server.store.events(TRACE)[1]["content"]["content"] == "310 metres"


def test_metrics_are_answered_and_dropped(server: Server) -> None:
    """An exporter that is told of an error sends them again and again."""
    answer = server.post("/v1/metrics", b"{}")

    assert (answer.status_code, answer.json()) == (200, {})


def test_spans_of_many_traces_in_a_large_request_are_all_stored(server: Server) -> None:
    """They are answered when they are safe, and in the traces a moment later."""
    spans = [
        turn(trace=f"{number:032x}", number=1000 * number + each, at=each)
        for number in range(1, 41)
        for each in range(1, 26)
    ]
    server.send(*spans)
    server.until(lambda: len(list(server.store.each())) == 40)

    assert {trace.llm_responses for trace in server.store.each()} == {25}


# What is refused


def test_spans_that_cannot_be_stored_are_counted_with_the_reason(server: Server) -> None:
    """In JSON and in protobuf; the others are stored."""
    wrong, right = tool(number=1), tool(number=2)
    wrong.start_ns = wrong.end_ns = 0
    answer = server.post("/v1/traces", as_json([wrong, right]))

    assert answer.status_code == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert "no start" in partial["errorMessage"]
    assert len(server.outline()) == 3

    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    answer = server.post("/v1/traces", as_protobuf([wrong] * 300), PROTOBUF)
    message = service.ExportTraceServiceResponse.FromString(answer.content)
    assert message.partial_success.rejected_spans == 300
    assert "no start" in message.partial_success.error_message


@pytest.mark.parametrize("time", [2**63, 2**64 - 1])
def test_a_time_beyond_all_calendars_costs_no_other_span(server: Server, time: int) -> None:
    """It starts too late to be shown, or is said to end so late."""
    pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    endless, late, right = tool(number=1), tool(number=2), tool(number=3)
    endless.end_ns = late.start_ns = late.end_ns = time
    answer = server.post("/v1/traces", as_protobuf([endless, late, right]), PROTOBUF)

    assert answer.status_code == 200
    assert b"no start that can be shown" in answer.content
    assert len(server.outline()) == 5


@pytest.mark.parametrize("media_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_a_malformed_body_is_refused_for_good(server: Server, path: str, media_type: str) -> None:
    """With 400, which no exporter sends again."""
    pytest.importorskip("opentelemetry.proto")
    answer = server.post(path, b"\xff\xff\xff", media_type)

    assert answer.status_code == 400
    assert b"The body is no" in answer.content


def test_another_content_type_is_refused(server: Server) -> None:
    """It says which are understood."""
    answer = server.post("/v1/traces", b"x", "text/plain")

    assert answer.status_code == 415
    assert b"JSON or protobuf" in answer.content


def test_protobuf_without_its_library_says_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Send JSON, or install the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None)
    answer = server.post("/v1/traces", b"", PROTOBUF)

    assert answer.status_code == 415
    assert b"OTEL_EXPORTER_OTLP_PROTOCOL=http/json" in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/traces/v1/traces",
        "/api/v1/traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ],
)
def test_another_path_of_an_exporter_says_what_to_set(server: Server, path: str) -> None:
    """The address that was set has a path too many, too few, or is for gRPC."""
    answer = server.post(path, b"", PROTOBUF)

    assert answer.status_code == (405 if path == "/" else 404)
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT={server.url}" in answer.json()["message"]


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer whyops_0123456789abcdef"},
        {"x-api-key": "whyops_0123456789abcdef"},
        {"Authorization": "Basic " + base64.b64encode(b"any:whyops_0123456789abcdef").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"whyops_0123456789abcdef:").decode()},
    ],
)
def test_the_key_may_be_shown_in_any_way_that_exporters_know(tmp_path: Path, header: dict[str, str]) -> None:
    """Without it nothing is taken."""
    home = tmp_path / "home"
    with served(home, key="whyops_0123456789abcdef") as url:
        server = Server(url, Store(home / "traces.db"), home)

        assert server.post("/v1/traces", as_json(run())).status_code == 401
        wrong = {"Authorization": "Basic " + base64.b64encode(b"\xff:x").decode()}
        assert server.post("/v1/traces", as_json(run()), **wrong).status_code == 401
        assert server.post("/v1/traces", as_json(run()), **header).status_code == 200


# What is kept


def test_no_secret_reaches_the_disk(server: Server) -> None:
    """Neither under an attribute's name, nor in JSON in a text, nor in JSON in that."""
    arguments = json.dumps(
        {"lake": "Geneva", "api_key": "hunter2-a", "inner": json.dumps({"password": "hunter2-b"})}
    )
    about = {
        "gen_ai.tool.call.arguments": arguments,
        "http.request.header.authorization": "hunter2-c",
        "note": "sk-ant-api03-" + "hunter2d" * 12,
    }
    server.send(tool(attributes=about))
    stored = b"".join(path.read_bytes() for path in server.home.iterdir() if path.is_file())

    assert b"hunter2" not in stored
    (call,) = server.store.events(TRACE)[0]["content"]["toolCalls"]
    assert call["arguments"]["lake"] == "Geneva"


def test_a_very_large_attribute_is_cut(server: Server) -> None:
    """By its members if it is JSON, so that the rest can still be read."""
    messages = [{"role": "user", "parts": [{"type": "text", "content": "x" * 5_000_000}]}]
    server.send(turn(attributes={"gen_ai.input.messages": json.dumps(messages), "note": "y" * 5_000_000}))
    request, answer, *_ = server.store.events(TRACE)

    assert len(json.dumps(request)) < MAX_EVENT_BYTES
    assert request["content"]["messages"][0]["role"] == "user"
    assert answer["content"]["content"] == "310 metres"


def test_a_trace_that_others_record_under_that_id_stays_as_it_is(server: Server) -> None:
    """The spans are beside it."""
    record(server.home, tool_call(TRACE))
    before = server.store.lines(TRACE)
    server.send(*run())

    assert server.store.lines(TRACE) == before
    assert server.outline(f"{TRACE}-otel") == RUN


def test_a_deleted_trace_does_not_come_back_with_a_later_span(server: Server) -> None:
    """What comes later begins it anew."""
    *earlier, root = run()
    server.send(*earlier)
    server.store.delete(TRACE)
    server.send(root)

    assert server.outline() == [("llm_thinking", 1, 0), ("step_end", 1, 0), ("trace_end", 1, 0)]


def test_removing_a_trace_removes_its_spans(server: Server) -> None:
    """Nothing that they told is left on the disk, while the server goes on."""
    server.send(tool(attributes={"gen_ai.tool.call.result": "a peculiar result"}))
    server.send(tool(trace="a" * 32, attributes={"gen_ai.tool.call.result": "another result"}))
    run_module("-m", "whyops_trace", "rm", TRACE, "--yes", home=server.home)
    stored = b"".join(path.read_bytes() for path in server.home.glob(f"{SPANS_FILE}*"))

    assert b"peculiar" not in stored
    assert b"another" in stored


def test_what_an_earlier_server_did_not_bring_into_the_store_the_next_one_does(tmp_path: Path) -> None:
    """It was answered, so it is there."""
    home = tmp_path / "home"
    home.mkdir(0o700)
    inbox = Inbox(home, Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1))
    inbox.add(Batch(spans=run()))
    inbox.close()
    with served(home) as url:
        server = Server(url, Store(home / "traces.db"), home)
        server.until(lambda: bool(server.store.events(TRACE)))

        assert server.outline() == RUN


def test_the_spans_are_readable_by_their_owner_only(server: Server) -> None:
    """As all files of the home."""
    server.send(*run())

    assert (server.home / SPANS_FILE).stat().st_mode & 0o777 == 0o600
