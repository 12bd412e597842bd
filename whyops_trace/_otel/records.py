"""Events of a trace as lines of the store, without secrets and within the size of a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from whyops_trace._clock import iso
from whyops_trace._otel.events import Event
from whyops_trace._values import encoding
from whyops_trace._values.processor import Processor

#: The form of a line, with the members in the order of the recorder's.
_FORM: Final = (
    b'{"eventType":"%b","traceId":%b,"stepId":%d%b,"metadata":{"within":%d%b},"spanId":%b,"timestamp":"%b",'
    b'"idempotencyKey":%b,"agentName":%b%b,"content":%b%b}'
)


def lines_of(trace_id: str, agent: str, events: Iterable[Event], processor: Processor) -> list[bytes]:
    """
    Return the lines of the events of a trace.

    Args:
        trace_id: The trace.
        agent: The name of its agent.
        events: The events, numbered.
        processor: Redaction and truncation.
    """
    trace, name = encoding.string(trace_id), encoding.string(agent)
    return [_line(trace, name, event, processor) for event in events]


def _line(trace: bytes, agent: bytes, event: Event, processor: Processor) -> bytes:
    metadata = b"," + processor.encode(event.metadata)[1:-1] if event.metadata else b""
    metadata, content = processor.fit(metadata, processor.encode(event.content), event.type.encode())
    return _FORM % (
        event.type.encode(), trace, event.step, b',"parentStepId":%d' % event.parent if event.parent else b"",
        event.within, metadata, encoding.string(event.span), iso(event.time_ns).encode(),
        encoding.string(event.key), agent,
        b',"externalUserId":' + encoding.string(event.user) if event.user else b"",
        content, b',"for":"local"' if event.is_local else b',"end":true' if event.is_last else b"",
    )  # fmt: skip
