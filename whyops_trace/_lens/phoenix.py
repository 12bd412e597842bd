"""Arize Phoenix: its page ``/projects/PROJECT/traces/ID``, and its API ``/v1/projects/PROJECT/spans?trace_id=ID``."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

from whyops_trace._lens.makers import KIND, name_makers
from whyops_trace._lens.place import Address, Place, Reading, Request
from whyops_trace._lens.spans import add_score, batch_of, status_of, time_ns
from whyops_trace._otel.span import Batch, Span, SpanEvent
from whyops_trace._shapes import dict_of, dicts_of, text_of

TITLE: Final = "Phoenix"
EXAMPLE: Final = "http://localhost:6006/projects/PROJECT/traces/TRACE"
_PAGE: Final = re.compile(r"(?P<base>.*?)/projects/(?P<within>[^/]+)/(?:traces|spans)/(?P<id>[^/]+)")
_API: Final = re.compile(r"(?P<base>.*?)/v1/projects/(?P<within>[^/]+)/spans")
#: Spans of an answer.
_PAGE_SIZE: Final = "200"
#: Spans whose annotations one request asks for: their ids are in its address.
_ASKED: Final = 100
#: Largest number of spans whose annotations are asked for.
_JUDGED: Final = 10_000


def find(address: Address) -> Place | None:
    """Return the place that an address of its pages or its API names, None if it is no such."""
    if (match := address.match(_API)) and (trace_id := address.query.get("trace_id")):
        return address.place(match, trace_id)
    match = address.match(_PAGE)
    return address.place(match) if match else None


def read(place: Place) -> Reading:
    """Read a trace, page by page."""
    items: list[dict[str, Any]] = []
    query = {"trace_id": place.trace_id, "limit": _PAGE_SIZE}
    while True:
        (answer,) = yield Request(f"/v1/projects/{place.within}/spans", query)
        items += dicts_of(dict_of(answer).get("data"))
        cursor = text_of(dict_of(answer).get("next_cursor"))
        if not cursor or cursor == query.get("cursor"):
            break
        query["cursor"] = cursor
    batch = batch_of(items, _span)
    name_makers(batch.spans)
    if batch.spans:
        yield from _read_scores(place, batch)
    return batch


def _read_scores(place: Place, batch: Batch) -> Generator[Request, list[Any], None]:
    """Add the annotations of the trace and of its spans, if the server is one that tells them."""
    ids = [span.span_id for span in batch.spans[:_JUDGED]]
    asked = [("trace", [batch.spans[0].trace_id])]
    asked += [("span", ids[start : start + _ASKED]) for start in range(0, len(ids), _ASKED)]
    for what, some in asked:
        query: dict[str, Any] = {f"{what}_ids": some, "limit": "1000"}
        while True:
            answers = yield Request(
                f"/v1/projects/{place.within}/{what}_annotations", query, is_optional=True
            )
            answer = dict_of(answers[0]) if answers else {}
            for item in dicts_of(answer.get("data")):
                result = dict_of(item.get("result"))
                told = (result.get(name) for name in ("score", "label", "explanation"))
                add_score(
                    batch, text_of(item.get("span_id")), item.get("updated_at"), item.get("name"), *told
                )
            cursor = text_of(answer.get("next_cursor"))
            if not cursor or cursor == query.get("cursor"):
                break
            query["cursor"] = cursor


def _span(item: dict[str, Any]) -> Span:
    context, attributes = dict_of(item.get("context")), _attributes(dict_of(item.get("attributes")))
    kind = text_of(item.get("span_kind"))
    # It keeps the kind apart, and finds one for spans of GenAI too, which tell more by themselves.
    if kind not in ("", "UNKNOWN") and "gen_ai.operation.name" not in attributes:
        attributes = {KIND: kind, **attributes}
    return Span(
        trace_id=text_of(context.get("trace_id")),
        span_id=text_of(context.get("span_id")),
        parent_id=text_of(item.get("parent_id")),
        scope="",
        name=text_of(item.get("name")),
        kind=0,
        start_ns=time_ns(item.get("start_time")),
        end_ns=time_ns(item.get("end_time")),
        status=status_of(text_of(item.get("status_code"))),
        message=text_of(item.get("status_message")),
        attributes=attributes,
        events=[
            SpanEvent(
                text_of(event.get("name")), time_ns(event.get("timestamp")), dict_of(event.get("attributes"))
            )
            for event in dicts_of(item.get("events"))
        ],
    )


def _attributes(flat: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with the object in ``metadata`` again, which it spreads over names as ``metadata.tenant``."""
    prefix = "metadata."
    metadata = {name.removeprefix(prefix): flat[name] for name in flat if name.startswith(prefix)}
    others = {name: value for name, value in flat.items() if not name.startswith(prefix)}
    return {"metadata": metadata, **others} if metadata else flat
