"""
Langfuse: its page ``/project/PROJECT/traces/ID``, and its API ``/api/public/traces/ID``.

Newer servers have what is in a trace in pages of ``/api/public/v2/observations`` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from whyops_trace._lens.place import Address, Place, Reading, Request
from whyops_trace._lens.spans import add_score, batch_of, id_of, time_ns
from whyops_trace._otel.span import ERROR, Batch, Span
from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of

TITLE: Final = "Langfuse"
EXAMPLE: Final = "https://cloud.langfuse.com/project/PROJECT/traces/TRACE"
_PAGE: Final = re.compile(r"(?P<base>.*?)/project/(?P<within>[^/]+)/traces(?:/(?P<id>[^/]+))?")
_API: Final = re.compile(r"(?P<base>.*?)/api/public/traces/(?P<id>[^/]+)")
#: The attributes of its SDK, as which its observations are read.
_PREFIX: Final = "langfuse.observation."
#: Attributes that it takes the input and the output of an observation from, by the attribute that tells the kind.
_CONTENT: Final = {
    ("openinference.span.kind", ""): ("input.value", "output.value"),
    ("gen_ai.operation.name", "execute_tool"): ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    ("gen_ai.operation.name", ""): ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("traceloop.span.kind", ""): ("traceloop.entity.input", "traceloop.entity.output"),
    ("mlflow.spanType", ""): ("mlflow.spanInputs", "mlflow.spanOutputs"),
}
#: Members of an observation, by the attribute that its SDK writes them to.
_MEMBERS: Final = {
    "model.name": "model",
    "model.parameters": "modelParameters",
    "level": "level",
}


def find(address: Address) -> Place | None:
    """Return the place that an address of its pages or its API names, None if it is no such."""
    match = address.match(_API) or address.match(_PAGE)
    trace_id = quote(address.query.get("peek", ""), safe="")
    if match is None or not (match["id"] or trace_id):
        return None
    return address.place(match, match["id"] or trace_id)


def read(place: Place) -> Reading:
    """Read a trace."""
    answers = yield Request(f"/api/public/traces/{place.trace_id}", is_optional=True)
    trace = dict_of(next(iter(answers), None))
    items = dicts_of(trace.get("observations"))
    if not items:
        items = yield from _observations(unquote(place.trace_id))
        trace = {"id": unquote(place.trace_id), **trace}
    trace_id = id_of(text_of(trace.get("id")), 32)
    batch = batch_of(items, lambda item: _span(trace_id, item))
    roots = [span for span in batch.spans if not span.parent_id]
    if len(roots) > 1:
        _add_root(batch, trace, trace_id, roots)
    about = {
        attribute: trace.get(name) or next(filter(None, (item.get(name) for item in items)), None)
        for attribute, name in (("session.id", "sessionId"), ("user.id", "userId"))
    }
    for span in batch.spans:
        span.attributes |= _about(about)
    for score in dicts_of(trace.get("scores")) if batch.spans else ():
        _add_score(batch, score)
    return batch


def _observations(trace_id: str) -> Generator[Request, list[Any], list[dict[str, Any]]]:
    """Read the observations of a trace, page by page."""
    query: dict[str, Any] = {
        "traceId": trace_id,
        "fields": "core,basic,io,metadata,model,usage",
        "expandMetadata": "attributes,scope,resourceAttributes",
        "limit": 1_000,
    }
    items: list[dict[str, Any]] = []
    while True:
        (answer,) = yield Request("/api/public/v2/observations", query)
        page = dicts_of(dict_of(answer).get("data"))
        items += [{"model": item.get("providedModelName"), **item} for item in page]
        query["cursor"] = text_of(dict_of(dict_of(answer).get("meta")).get("cursor"))
        if not (page and query["cursor"]):
            return items


def _add_score(batch: Batch, score: dict[str, Any]) -> None:
    """Add a score: a number, a truth, or a category with a number of its own, which says nothing without its scale."""
    kind, value, label = text_of(score.get("dataType")), score.get("value"), text_of(score.get("stringValue"))
    if kind == "BOOLEAN":
        value, label = bool(value), ""
    elif kind not in ("", "NUMERIC"):
        value, label = None, label or text_of(value)
    span_id = id_of(text_of(score.get("observationId")), 16)
    add_score(batch, span_id, score.get("timestamp"), score.get("name"), value, label, score.get("comment"))


def _add_root(batch: Batch, trace: dict[str, Any], trace_id: str, roots: list[Span]) -> None:
    """Put the observations of a trace below the trace itself, which is none of them."""
    end_ns = 0 if any(not span.end_ns for span in batch.spans) else max(span.end_ns for span in batch.spans)
    content = {_PREFIX + "type": "span"} | _content(trace, _PREFIX + "input", _PREFIX + "output")
    root = Span(
        trace_id=trace_id,
        span_id=id_of(f"trace {trace.get('id')}", 16),
        parent_id="",
        scope="",
        name=text_of(trace.get("name")) or "trace",
        kind=0,
        start_ns=min(span.start_ns for span in batch.spans),
        end_ns=end_ns,
        status=0,
        message="",
        attributes=content,
        events=[],
    )
    batch.spans.append(root)
    for span in roots:
        span.parent_id = root.span_id


def _span(trace_id: str, item: dict[str, Any]) -> Span:
    metadata = dict_of(parsed(item.get("metadata")))
    sent = dict_of(parsed(metadata.get("attributes")))
    start_ns, kind = time_ns(item.get("startTime")), text_of(item.get("type")).lower()
    return Span(
        trace_id=trace_id,
        span_id=id_of(text_of(item.get("id")), 16),
        parent_id=id_of(text_of(item.get("parentObservationId")), 16),
        scope=text_of(dict_of(parsed(metadata.get("scope"))).get("name")),
        name=text_of(item.get("name")),
        kind=0,
        start_ns=start_ns,
        end_ns=start_ns if kind == "event" else time_ns(item.get("endTime")),
        status=ERROR if item.get("level") == "ERROR" else 0,
        message=text_of(item.get("statusMessage")),
        attributes=sent | _told(item, kind, sent),
        events=[],
        service=text_of(dict_of(parsed(metadata.get("resourceAttributes"))).get("service.name")),
    )


def _told(item: dict[str, Any], kind: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an observation tells, as attributes of those who sent the span, else as those of Langfuse's SDK."""
    for (name, value), names in _CONTENT.items():
        if value in ("", sent.get(name)) and name in sent:
            return _content(item, *names)
    if sent and kind == "span" and item.get("input") is None and item.get("output") is None:
        return {}
    members = {_PREFIX + name: item.get(member) for name, member in _MEMBERS.items()}
    members[_PREFIX + "usage_details"] = _usage(dict_of(item.get("usageDetails")))
    return _about(
        {_PREFIX + "type": kind, **members, **_content(item, _PREFIX + "input", _PREFIX + "output")}
    )


def _usage(details: dict[str, Any]) -> dict[str, Any]:
    """Return counts of tokens in the words of this protocol. Each of its counts has a price, so none is in another."""
    counts = {name: count for name, count in details.items() if isinstance(count, int)}
    if not counts.keys() & {"input", "output"}:
        return details
    cached = {name: count for name, count in counts.items() if "cache" in name}
    written = sum(count for name, count in cached.items() if "creat" in name or "write" in name)
    reasoning = sum(count for name, count in counts.items() if "reasoning" in name)
    optional = {
        "cacheReadTokens": sum(cached.values()) - written,
        "cacheCreationTokens": written,
        "reasoningTokens": reasoning,
    }
    return {
        "promptTokens": counts.get("input", 0),
        "completionTokens": counts.get("output", 0) + reasoning,
        **{name: count for name, count in optional.items() if count},
    }


def _content(item: dict[str, Any], asked: str, told: str) -> dict[str, Any]:
    return _about({asked: item.get("input"), told: item.get("output")})


def _about(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members that are there, those with structure as JSON."""
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        for name, value in members.items()
        if value not in (None, "", {}, [])
    }
