"""ClickHouse over HTTP: ``/DATABASE/otel_traces/ID``, of the table that the collector's exporter makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from whyops_trace._lens.place import Address, Place, Reading, Request
from whyops_trace._lens.spans import batch_of, kind_of, status_of
from whyops_trace._otel.span import Span, SpanEvent
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of

TITLE: Final = "ClickHouse"
EXAMPLE: Final = "http://localhost:8123/default/otel_traces/TRACE"
_PATH: Final = re.compile(r"(?P<base>.*?)/(?P<within>(?:[\w-]+/)?[\w-]*otel_traces[\w-]*)/(?P<id>[^/]+)")
# All columns, since older tables lack some, and the times as numbers, since texts are in the time zone of the server.
_QUERY: Final = (
    "SELECT *, toUnixTimestamp64Nano(Timestamp) AS start_ns,"
    " arrayMap(t -> toUnixTimestamp64Nano(t), `Events.Timestamp`) AS event_ns"
    " FROM {table} WHERE TraceId = {{trace:String}} LIMIT {limit} FORMAT JSONEachRow"
)
#: Spans of a trace that are asked for.
_LIMIT: Final = 100_001


def find(address: Address) -> Place | None:
    """Return the place of a trace whose id stands below a table's name, None if none does."""
    match = address.match(_PATH)
    return address.place(match) if match else None


def read(place: Place) -> Reading:
    """Read a trace."""
    table = ".".join(f"`{name}`" for name in place.within.split("/"))
    query = {"query": _QUERY.format(table=table, limit=_LIMIT), "param_trace": place.trace_id}
    return batch_of(dicts_of((yield Request("/", query))), _span)


def _span(row: dict[str, Any]) -> Span:
    start_ns = int(row["start_ns"])
    return Span(
        trace_id=text_of(row.get("TraceId")),
        span_id=text_of(row.get("SpanId")),
        parent_id=text_of(row.get("ParentSpanId")),
        scope=text_of(row.get("ScopeName")),
        name=text_of(row.get("SpanName")),
        kind=kind_of(text_of(row.get("SpanKind"))),
        start_ns=start_ns,
        end_ns=start_ns + int(row["Duration"]),
        status=status_of(text_of(row.get("StatusCode"))),
        message=text_of(row.get("StatusMessage")),
        attributes=dict(_flat(row.get("SpanAttributes"))),
        events=[
            SpanEvent(text_of(name), int(time), dict(_flat(attributes)))
            for name, time, attributes in zip(
                list_of(row.get("Events.Name")),
                list_of(row.get("event_ns")),
                list_of(row.get("Events.Attributes")),
                strict=False,
            )
        ],
        service=text_of(row.get("ServiceName")),
    )


def _flat(attributes: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a map, or those that a column of JSON nests at each dot of their names."""
    for name, value in dict_of(attributes).items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value
