"""What products answer that were sent the spans of a trace, in the forms that their documentation has."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from whyops_trace._otel.span import Span

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")


def of_jaeger(spans: list[Span]) -> dict[str, Any]:
    """Return the answer of Jaeger to ``/api/traces/ID``, which its page asks: tags, microseconds and processes."""
    services = {span.service: f"p{place}" for place, span in enumerate(spans)}
    return {
        "data": [
            {
                "traceID": spans[0].trace_id,
                "spans": [_jaeger_span(span, services[span.service]) for span in spans],
                "processes": {
                    name: {"serviceName": service, "tags": []} for service, name in services.items()
                },
                "warnings": None,
            }
        ],
        "total": 0,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }


def _jaeger_span(span: Span, process: str) -> dict[str, Any]:
    about = {"otel.scope.name": span.scope, "span.kind": _KINDS[span.kind]}
    if span.status:
        about["otel.status_code"] = _STATUSES[span.status].upper()
    if span.message:
        about["otel.status_description"] = span.message
    failed = {"error": True} if span.status == 2 else {}
    parents = [{"refType": "CHILD_OF", "traceID": span.trace_id, "spanID": span.parent_id}]
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "operationName": span.name,
        "references": parents if span.parent_id else [],
        "startTime": span.start_ns // 1_000,
        "duration": (span.end_ns - span.start_ns) // 1_000,
        "tags": _tags({**span.attributes, **about, **failed}),
        "logs": [
            {"timestamp": event.time_ns // 1_000, "fields": _tags({"event": event.name, **event.attributes})}
            for event in span.events
        ],
        "processID": process,
        "warnings": None,
    }


def _tags(values: dict[str, Any]) -> list[dict[str, Any]]:
    types = {bool: "bool", int: "int64", float: "float64"}
    return [
        {
            "key": name,
            "type": types.get(type(value), "string"),
            "value": json.dumps(value) if isinstance(value, (dict, list)) else value,
        }
        for name, value in values.items()
    ]


def of_jaeger_3(spans: list[Span]) -> bytes:
    """Return the answer of Jaeger to ``/api/v3/traces/ID``: OTLP, in two parts of a stream."""
    half = len(spans) // 2
    parts = [{"result": {"resourceSpans": _resources(some)}} for some in (spans[:half], spans[half:])]
    return "\n".join(map(json.dumps, parts)).encode()


def of_tempo(spans: list[Span]) -> dict[str, Any]:
    """Return the answer of Tempo to ``/api/traces/ID``: OTLP with ids in base64."""
    return {"batches": in_base64(_resources(spans))}


def of_tempo_2(spans: list[Span]) -> dict[str, Any]:
    """Return the answer of Tempo to ``/api/v2/traces/ID``."""
    return {"trace": {"resourceSpans": in_base64(_resources(spans))}, "metrics": {}}


def _resources(spans: Iterable[Span]) -> list[dict[str, Any]]:
    return [
        {
            "resource": {"attributes": _pairs({"service.name": span.service})},
            "scopeSpans": [{"scope": {"name": span.scope}, "spans": [_otlp_span(span)]}],
        }
        for span in spans
    ]


def _otlp_span(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": f"SPAN_KIND_{_KINDS[span.kind].upper()}",
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _pairs(span.attributes),
        "events": [
            {"timeUnixNano": str(event.time_ns), "name": event.name, "attributes": _pairs(event.attributes)}
            for event in span.events
        ],
        "status": {"code": f"STATUS_CODE_{_STATUSES[span.status].upper()}", "message": span.message},
    }


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _wrapped(value)} for name, value in values.items()]


def _wrapped(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_wrapped(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _pairs(value)}}
    return {"stringValue": value}


def in_base64(value: Any) -> Any:
    """Return OTLP/JSON with its ids as the JSON of protobuf has them."""
    if isinstance(value, list):
        return [in_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64encode(bytes.fromhex(each)).decode() if name in ids else in_base64(each)
        for name, each in value.items()
    }


#: Attributes that Langfuse takes as the input and the output of an observation, the first that is there. It keeps none.
_INPUTS = (
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.tool_call_args",
    "mlflow.spanInputs",
    "traceloop.entity.input",
    "input.value",
    "input",
    "pydantic_ai.all_messages",
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
)
_OUTPUTS = (
    "gcp.vertex.agent.llm_response",
    "gcp.vertex.agent.tool_response",
    "mlflow.spanOutputs",
    "traceloop.entity.output",
    "output.value",
    "output",
    "final_result",
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
)
#: Beginnings of names of attributes that it leaves out.
_SPREAD = ("llm.input_messages", "llm.output_messages", "gen_ai.prompt", "gen_ai.completion")
_OBSERVATIONS = {"chat": "GENERATION", "execute_tool": "TOOL", "invoke_agent": "AGENT"}


def of_langfuse(spans: list[Span]) -> dict[str, Any]:
    """Return the answer of Langfuse to ``/api/public/traces/ID``, which was sent the spans by OTLP."""
    root = next(span for span in spans if not span.parent_id)
    return {
        "id": root.trace_id,
        "timestamp": _iso(root.start_ns),
        "name": root.name,
        "input": None,
        "output": None,
        "sessionId": "desk-3",
        "userId": "user-9",
        "metadata": {},
        "tags": [],
        "public": False,
        "environment": "default",
        "htmlPath": f"/project/shop/traces/{root.trace_id}",
        "latency": 1.0,
        "totalCost": 0.0,
        "scores": [],
        "observations": [_observation(span) for span in spans],
    }


def _observation(span: Span) -> dict[str, Any]:
    content = {name for name in span.attributes if name in (*_INPUTS, *_OUTPUTS)}
    sent = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in span.attributes.items()
        if name not in content and not name.startswith(_SPREAD)
    }
    asked, told = (
        next((_decoded(span.attributes[name]) for name in names if name in content), None)
        for names in (_INPUTS, _OUTPUTS)
    )
    return {
        "id": span.span_id,
        "traceId": span.trace_id,
        "type": _OBSERVATIONS.get(str(span.attributes.get("gen_ai.operation.name")), "SPAN"),
        "name": span.attributes.get("gen_ai.tool.name", span.name),
        "startTime": _iso(span.start_ns),
        "endTime": _iso(span.end_ns),
        "completionStartTime": None,
        "model": span.attributes.get("gen_ai.response.model"),
        "modelParameters": {},
        "input": asked,
        "output": told,
        "metadata": {
            "attributes": sent,
            "resourceAttributes": {"service.name": span.service},
            "scope": {"name": span.scope, "attributes": {}},
        },
        "level": "ERROR" if span.status == 2 else "DEFAULT",
        "statusMessage": span.message or None,
        "parentObservationId": span.parent_id or None,
        "usageDetails": {},
        "costDetails": {},
    }


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _iso(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 10**6 % 1_000:03d}Z"
