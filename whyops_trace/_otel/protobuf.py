"""The reader of OTLP in protobuf. It needs ``opentelemetry-proto``, the extra ``[otel]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from whyops_trace._otel.span import (
    Batch,
    Link,
    LogRecord,
    MalformedError,
    Source,
    Span,
    SpanEvent,
    checked,
    checked_log,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as SentLog
    from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
    from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan

#: Deepest nesting of a value in an attribute.
_MAX_DEPTH: Final = 64


def read_spans(body: bytes) -> Batch:
    """
    Read an ``ExportTraceServiceRequest``.

    Raises:
        MalformedError: if the body is none.
        ModuleNotFoundError: if ``opentelemetry-proto`` is not installed.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    batch = Batch()
    for resource in _parsed(ExportTraceServiceRequest, body).resource_spans:
        attributes = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            source = _source(attributes, scope, resource.schema_url)
            for item in scope.spans:
                try:
                    batch.spans.append(_span(item, source))
                except ValueError as error:
                    batch.refused.append(str(error))
    return batch


def read_logs(body: bytes) -> Batch:
    """
    Read an ``ExportLogsServiceRequest``.

    Raises:
        MalformedError: if the body is none.
        ModuleNotFoundError: if ``opentelemetry-proto`` is not installed.
    """
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    batch = Batch()
    for resource in _parsed(ExportLogsServiceRequest, body).resource_logs:
        attributes = _attributes(resource.resource.attributes)
        for scope in resource.scope_logs:
            source = _source(attributes, scope, resource.schema_url)
            for item in scope.log_records:
                try:
                    batch.logs.append(_log(item, source))
                except ValueError as error:
                    batch.refused.append(str(error))
    return batch


def _parsed(message: Any, body: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(body)
    except DecodeError as error:
        raise MalformedError(f"The body is no {message.DESCRIPTOR.name}: {error}") from None


def _source(attributes: dict[str, Any], scope: ScopeSpans | ScopeLogs, schema: str) -> Source:
    return Source(attributes, scope.scope.name, scope.scope.version, scope.schema_url or schema)


def _span(item: SentSpan, source: Source) -> Span:
    return checked(
        Span(
            trace_id=item.trace_id.hex(),
            span_id=item.span_id.hex(),
            parent_id=item.parent_span_id.hex(),
            scope=source.scope,
            name=item.name,
            kind=item.kind,
            start_ns=item.start_time_unix_nano,
            end_ns=item.end_time_unix_nano,
            status=item.status.code,
            message=item.status.message,
            attributes=_attributes(item.attributes),
            events=[
                SpanEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
                for event in item.events
            ],
            service=source.service,
            source=source,
            links=[
                Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
                for link in item.links
                if len(link.trace_id) == 16 and len(link.span_id) == 8
            ],
            state=item.trace_state,
        )
    )


def _log(item: SentLog, source: Source) -> LogRecord:
    return checked_log(
        LogRecord(
            trace_id=item.trace_id.hex(),
            span_id=item.span_id.hex(),
            name=item.event_name,
            time_ns=item.time_unix_nano or item.observed_time_unix_nano,
            attributes=_attributes(item.attributes),
            body=_value(item.body),
            severity=item.severity_number,
            severity_text=item.severity_text,
            source=source,
        )
    )


def _attributes(pairs: Iterable[KeyValue], depth: int = 0) -> dict[str, Any]:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(wrapped: AnyValue, depth: int = 0) -> Any:
    """Return the plain value of an attribute; bytes are left out."""
    kind = wrapped.WhichOneof("value")
    if kind is None or kind == "bytes_value":
        return None
    if kind in ("array_value", "kvlist_value"):
        if depth > _MAX_DEPTH:
            raise ValueError(f"An attribute is nested deeper than {_MAX_DEPTH}.")
        if kind == "array_value":
            return [_value(each, depth + 1) for each in wrapped.array_value.values]
        return _attributes(wrapped.kvlist_value.values, depth + 1)
    return getattr(wrapped, kind)
