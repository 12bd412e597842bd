"""A ClickHouse server with the table ``otel_traces`` of the collector's exporter: HTTP around the engine of chDB."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wire import Answer, Request, Server

from whyops_trace._otel.span import Span

_COLUMNS = (
    "Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String, TraceState String,"
    " SpanName LowCardinality(String), SpanKind LowCardinality(String), ServiceName LowCardinality(String),"
    " ResourceAttributes Map(LowCardinality(String), String), ScopeName String, ScopeVersion String,"
    " SpanAttributes {attributes}, Duration UInt64, StatusCode LowCardinality(String), StatusMessage String,"
    " Events Nested (Timestamp DateTime64(9), Name LowCardinality(String), Attributes {attributes}),"
    " Links Nested (TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))"
)
#: The types of the columns with attributes: the usual one, and the one that the exporter makes if it is told to.
MAP = "Map(LowCardinality(String), String)"
JSON = "JSON"
_KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUSES = ("Unset", "Ok", "Error")


class ClickHouse(Server):
    """
    The server; use it in a with-block. There is one engine in a process.

    Args:
        folder: An empty folder for its data.
        attributes: The type of the columns with attributes.
    """

    def __init__(self, folder: Path, attributes: str = MAP) -> None:
        super().__init__()
        from chdb import session

        self._folder = folder
        self._session = session.Session(str(folder / "data"))
        self._session.query("CREATE DATABASE IF NOT EXISTS telemetry ENGINE = Atomic")
        self._session.query(
            f"CREATE TABLE telemetry.otel_traces ({_COLUMNS.format(attributes=attributes)})"
            " ENGINE = MergeTree ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))"
        )

    def add(self, spans: Iterable[Span]) -> None:
        """Store spans, each attribute as a text, as the exporter does."""
        rows = self._folder / "rows.jsonl"
        rows.write_text("\n".join(json.dumps(_row(span)) for span in spans))
        self._session.query(f"INSERT INTO telemetry.otel_traces SELECT * FROM file('{rows}', JSONEachRow)")

    def stop(self) -> None:
        """Stop the server, and its engine."""
        super().stop()
        self._session.close()

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Run the query of a request, with its parameters."""
        self.receive(request)
        names = {name: value for name, value in request.query.items() if name.startswith("param_")}
        try:
            rows = self._session.query(
                request.query["query"],
                params={name.removeprefix("param_"): value for name, value in names.items()},
            )
            answer = Answer(200, bytes(rows.bytes()), content_type="application/x-ndjson")
        except Exception as error:
            answer = Answer(404, str(error), content_type="text/plain")
        return answer.send(connection) and request.lasting


def _row(span: Span) -> dict[str, Any]:
    return {
        "Timestamp": _time(span.start_ns),
        "TraceId": span.trace_id,
        "SpanId": span.span_id,
        "ParentSpanId": span.parent_id,
        "TraceState": "",
        "SpanName": span.name,
        "SpanKind": _KINDS[span.kind],
        "ServiceName": span.service,
        "ResourceAttributes": {"service.name": span.service},
        "ScopeName": span.scope,
        "ScopeVersion": "",
        "SpanAttributes": _texts(span.attributes),
        "Duration": span.end_ns - span.start_ns,
        "StatusCode": _STATUSES[span.status],
        "StatusMessage": span.message,
        "Events.Timestamp": [_time(event.time_ns) for event in span.events],
        "Events.Name": [event.name for event in span.events],
        "Events.Attributes": [_texts(event.attributes) for event in span.events],
        "Links.TraceId": [],
        "Links.SpanId": [],
        "Links.TraceState": [],
        "Links.Attributes": [],
    }


def _time(time_ns: int) -> str:
    return f"{time_ns // 10**9}.{time_ns % 10**9:09d}"


def _texts(attributes: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in attributes.items()
    }
