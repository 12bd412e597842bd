"""
Events from clients of any language, on their way into the store: their limits and their numbers.

The library's own records come numbered, but such events often do not. They get numbers as from a WhyOps server, in
the transaction that stores them, so that two collectors on one store number one trace in turns.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from whyops_trace._checks import MAX_ID, MAX_NAME, MAX_STEP
from whyops_trace._clock import iso
from whyops_trace._reading.record import About, Head
from whyops_trace.store.intake import StoredTrace, StoredTraces
from whyops_trace.store.records import Records, Row
from whyops_trace.store.statements import SLICE, slices
from whyops_trace.types import EventType

_Id = Annotated[str, Meta(max_length=MAX_ID)]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
_Step = Annotated[int, Meta(ge=1, le=MAX_STEP)]
_Time = Annotated[
    str,
    Meta(pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z$"),
]


class SentEvent(msgspec.Struct, rename="camel", kw_only=True, gc=False):
    """
    An event as a client sends it, within the limits of a WhyOps server. Optional members are left out, never null.

    Attributes:
        event_type: Type of the event.
        trace_id: Id of its trace.
        agent_name: Name of its agent.
        span_id: Id that pairs a request with its response; "" to have one made.
        step_id: Its number in the trace; left out to have it counted.
        parent_step_id: The step of its parent; obeyed only beside a step of its own.
        timestamp: Its time, ISO 8601 ending in Z; the time of arrival if left out.
        metadata: An object, as written by the client.
        idempotency_key: Unique for each event of a trace; "" for an event that is new each time.
        external_user_id: The user that the agent acts for.
        user_id: Stored unchanged, like the next three members.
        content: Any JSON, as written by the client.
    """

    event_type: EventType
    trace_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
    agent_name: _Name
    span_id: _Id = ""
    step_id: _Step | UnsetType = UNSET
    parent_step_id: _Step | UnsetType = UNSET
    timestamp: _Time | UnsetType = UNSET
    metadata: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))
    idempotency_key: _Id = ""
    external_user_id: Annotated[str, Meta(max_length=MAX_NAME)] | UnsetType = UNSET
    user_id: UUID | UnsetType = UNSET
    project_id: UUID | UnsetType = UNSET
    environment_id: UUID | UnsetType = UNSET
    provider_id: UUID | UnsetType = UNSET
    content: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))


class SentMetadata(About, rename="camel", gc=False):
    """The members of an event's metadata that the store uses; each may hold anything."""

    within: Any = 0


class Stored(NamedTuple):
    """
    The result of storing an event.

    Attributes:
        status: ``skipped`` if the trace has an event of that key already, which stays as it is.
        number: Its number in the store.
        step: Its step.
        parent: The step of its parent, None if there is none.
        span: Its span id.
    """

    status: Literal["saved", "skipped"]
    number: int
    step: int
    parent: int | None
    span: str


class _Line(msgspec.Struct, rename="camel", gc=False):
    """A record of the store, with its members in the recorder's order."""

    event_type: str
    trace_id: str
    step_id: int
    parent_step_id: int | UnsetType
    metadata: Raw
    span_id: str
    timestamp: str
    idempotency_key: str
    agent_name: str
    content: Raw
    external_user_id: str | UnsetType = UNSET
    user_id: UUID | UnsetType = UNSET
    project_id: UUID | UnsetType = UNSET
    environment_id: UUID | UnsetType = UNSET
    provider_id: UUID | UnsetType = UNSET


metadata_decoder: Final = msgspec.json.Decoder(SentMetadata)
_encode: Final = msgspec.json.Encoder().encode
#: The first part of a key that the store makes. It is random, so that no client's key is mistaken for one.
_MADE: Final = f"collected-{secrets.token_hex(4)}-"


class Collection:
    """
    Events of any traces, inside one transaction.

    Args:
        records: The records, with an open transaction.
        now_ns: Nanoseconds since the epoch.
    """

    def __init__(self, records: Records, now_ns: int) -> None:
        self._records = records
        self._now = iso(now_ns)
        self._traces = StoredTraces(records.connection, now_ns // 1_000_000_000)
        #: Events stored already, by the number of the trace and the key.
        self._stored: dict[tuple[int, str], Stored] = {}

    def take(self, events: Sequence[SentEvent]) -> list[Stored]:
        """Store events, and return the result for each."""
        results: list[Stored] = []
        for some in slices(events, SLICE // 2):  # each may become two records
            results += self._take(some)
        return results

    def finish(self) -> None:
        """Write the summaries of all traces that got new records."""
        self._traces.write("")  # their process is not known here

    def _take(self, events: Sequence[SentEvent]) -> list[Stored]:
        halves = [_halves(event) for event in events]
        self._traces.load(event.trace_id for event in events)
        self._look_up([event for several in halves for event in several if event.idempotency_key])
        rows: list[Row] = []
        results: list[Stored] = []
        for event, *more in halves:
            result = self._add(event, rows)
            results.append(result)
            for half in more:
                half.step_id, half.parent_step_id, half.span_id = result.step + 1, result.step, result.span
                if result.status == "saved":
                    self._add(half, rows)
        self._records.insert(rows)
        return results

    def _look_up(self, events: Sequence[SentEvent]) -> None:
        """Load the events that are stored already."""
        keys = [(self._traces[event.trace_id].number, event.idempotency_key) for event in events]
        if not keys:
            return
        places = ",".join(["(?,?)"] * len(keys))
        rows = self._records.connection.execute(
            f"WITH wanted (t, k) AS (VALUES {places}) SELECT trace, key, id, step, parent, span"  # noqa: S608
            " FROM wanted CROSS JOIN records ON trace = t AND key = k",
            [value for pair in keys for value in pair],
        )
        for trace, key, number, step, parent, span in rows:
            self._stored[trace, key] = Stored("skipped", number, step, parent, span or "")

    def _add(self, event: SentEvent, rows: list[Row]) -> Stored:
        """Number an event and add its row, unless it is stored already."""
        trace = self._traces[event.trace_id]
        earlier = self._stored.get((trace.number, event.idempotency_key)) if event.idempotency_key else None
        if earlier is not None:
            return earlier._replace(status="skipped")
        number = self._records.number()
        step, parent = _numbers(event, trace.last_step)
        trace.last_step = max(trace.last_step, step)
        result = Stored("saved", number, step, parent, event.span_id or f"span_{secrets.token_urlsafe(16)}")
        if event.idempotency_key:
            self._stored[trace.number, event.idempotency_key] = result
        rows.append(self._row(event, trace, result))
        return result

    def _row(self, event: SentEvent, trace: StoredTrace, result: Stored) -> Row:
        """Return the row of an event, and count it in its trace."""
        time = self._now if event.timestamp is UNSET else _milliseconds(event.timestamp)
        key = event.idempotency_key or f"{_MADE}{result.number}"
        metadata = metadata_decoder.decode(event.metadata)
        metadata.within = (
            metadata.within if type(metadata.within) is int and 0 <= metadata.within <= MAX_STEP else 0
        )
        metadata.step = None  # no server learns of the end of a step
        record = Head(
            event_type=event.event_type,
            trace_id=event.trace_id,
            step_id=result.step,
            idempotency_key=key,
            parent_step_id=result.parent,
            metadata=metadata,
            span_id=result.span,
            timestamp=time,
            agent_name=event.agent_name,
            external_user_id=event.external_user_id or None,
            content=event.content,
        )
        trace.add(record)
        line = _Line(
            event_type=event.event_type,
            trace_id=event.trace_id,
            step_id=result.step,
            parent_step_id=result.parent or UNSET,
            metadata=_on_one_line(event.metadata),
            span_id=result.span,
            timestamp=time,
            idempotency_key=key,
            agent_name=event.agent_name,
            content=_on_one_line(event.content),
            external_user_id=event.external_user_id,
            user_id=event.user_id,
            project_id=event.project_id,
            environment_id=event.environment_id,
            provider_id=event.provider_id,
        )
        return trace.row(result.number, result.step, record, self._records.lift(_encode(line)))


def _halves(event: SentEvent) -> tuple[SentEvent, ...]:
    """Return the request and the response for an event of the old type ``tool_call``, any other event as it is."""
    if event.event_type != "tool_call":
        return (event,)
    members = msgspec.json.decode(event.metadata, type=dict[str, Raw])
    metadata = Raw(_encode({**members, "autoGenerated": True}))
    halves = []
    for kind in ("tool_call_request", "tool_call_response"):
        half = copy.copy(event)
        half.event_type, half.metadata = kind, metadata
        if event.idempotency_key:
            half.idempotency_key = f"{event.idempotency_key}_{kind.removeprefix('tool_call_')}"
        halves.append(half)
    return tuple(halves)


def _numbers(event: SentEvent, last: int) -> tuple[int, int | None]:
    """Return the step of an event and that of its parent, in a trace whose highest step is *last*."""
    if event.step_id is UNSET:
        return last + 1, last or None
    if event.parent_step_id is UNSET:
        return event.step_id, event.step_id - 1 or None
    return event.step_id, event.parent_step_id


def _milliseconds(timestamp: str) -> str:
    """Return a timestamp to the millisecond, as in all records, so that timestamps sort as texts."""
    seconds, _, fraction = timestamp[:-1].partition(".")
    return f"{seconds}.{fraction[:3]:0<3}Z"


def _on_one_line(raw: Raw) -> Raw:
    """Return JSON without line breaks, so that a record is one line. Those inside texts are escaped already."""
    data = bytes(raw)
    return Raw(data.replace(b"\n", b" ").replace(b"\r", b" ")) if b"\n" in data or b"\r" in data else raw
