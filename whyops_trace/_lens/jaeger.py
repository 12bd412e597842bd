"""Jaeger: its page ``/trace/ID``, its API ``/api/v3/traces/ID``, and ``/api/traces/ID``, which its page asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from whyops_trace._lens.otlp import read_answers
from whyops_trace._lens.place import Address, Place, Reading, Request
from whyops_trace._lens.spans import batch_of, id_of, kind_of, status_of
from whyops_trace._otel.span import ERROR, Span, SpanEvent
from whyops_trace._shapes import dict_of, dicts_of, text_of

TITLE: Final = "Jaeger"
EXAMPLE: Final = "http://localhost:16686/trace/TRACE"
_PATH: Final = re.compile(r"(?P<base>.*?)(?:/trace|(?P<api>/api/traces|/api/v3/traces))/(?P<id>[^/]+)")


def find(address: Address) -> Place | None:
    """Return the place that an address of its pages or its API names, None if it is no such."""
    match = address.match(_PATH)
    return address.place(match) if match else None


def read(place: Place) -> Reading:
    """Read a trace. Tempo has one of the paths too, and answers in OTLP there."""
    answers = yield Request(f"{place.api or '/api/traces'}/{place.trace_id}")
    traces = [trace for answer in answers for trace in dicts_of(dict_of(answer).get("data"))]
    return batch_of(_items(traces), _span) if traces else read_answers(answers)


def _items(traces: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each span, with the process that it ran in."""
    for trace in traces:
        processes = dict_of(trace.get("processes"))
        for item in dicts_of(trace.get("spans")):
            yield item, dict_of(processes.get(text_of(item.get("processID")))) or dict_of(item.get("process"))


def _span(item: tuple[dict[str, Any], dict[str, Any]]) -> Span:
    span, process = item
    tags = _values(span.get("tags"))
    scope = text_of(tags.pop("otel.scope.name", None)) or text_of(tags.pop("otel.library.name", None))
    has_failed = tags.pop("error", None) in (True, "true")
    status = status_of(text_of(tags.pop("otel.status_code", None)))
    start_ns = int(span["startTime"]) * 1_000
    return Span(
        trace_id=id_of(text_of(span.get("traceID")), 32),
        span_id=id_of(text_of(span.get("spanID")), 16),
        parent_id=id_of(_parent(span), 16),
        scope=scope,
        name=text_of(span.get("operationName")),
        kind=kind_of(text_of(tags.pop("span.kind", None))),
        start_ns=start_ns,
        end_ns=start_ns + int(span["duration"]) * 1_000,
        status=status or (ERROR if has_failed else 0),
        message=text_of(tags.pop("otel.status_description", None)),
        attributes=tags,
        events=[_event(log) for log in dicts_of(span.get("logs"))],
        service=text_of(process.get("serviceName")),
    )


def _parent(span: dict[str, Any]) -> str:
    """Return the id of a span's parent in its trace, which a reference names; "" for none."""
    references = [
        each for each in dicts_of(span.get("references")) if each.get("traceID") == span.get("traceID")
    ]
    references.sort(key=lambda each: each.get("refType") != "CHILD_OF")
    return text_of(references[0].get("spanID")) if references else text_of(span.get("parentSpanID"))


def _event(log: dict[str, Any]) -> SpanEvent:
    fields = _values(log.get("fields"))
    return SpanEvent(text_of(fields.pop("event", None)), int(log["timestamp"]) * 1_000, fields)


def _values(pairs: Any) -> dict[str, Any]:
    """Return the values of tags by their keys. A list is the text of its JSON, which readers of attributes take."""
    return {text_of(pair.get("key")): pair.get("value") for pair in dicts_of(pairs)}
