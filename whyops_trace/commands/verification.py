"""Comparison of a trace in a home with the same trace on a WhyOps server: what is missing or wrong there."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._home import STORE_FILE
from whyops_trace._journal.header import Header
from whyops_trace._journal.survey import SERVER, records_in
from whyops_trace._reading.halves import Half, half_of, half_of_head
from whyops_trace._reading.pairing import pair
from whyops_trace._reading.record import Head, StoredRecord, head_of, moment, process_of
from whyops_trace._recording.line import LOCAL
from whyops_trace.exporters.whyops.dead_letters import read_letters
from whyops_trace.exporters.whyops.listing import CONTENT_KEY
from whyops_trace.exporters.whyops.turns import ANSWERS, PROMPTS
from whyops_trace.store import Store

#: Metadata under which an event names what it is about.
_NAMES: Final = ("tool", "step", "function", "model")
#: Distance of numbers that leave the proxy of WhyOps room for its own: 1, 1001, 2001, ... or 1, 1367, 2367, ...
_SPACING: Final = 1000
#: Steps that are named one by one in a finding.
_NAMED: Final = 10
#: Types of the events with which the proxy of WhyOps reports the end of a turn.
_ENDS: Final = ANSWERS | {"error"}


class Known(NamedTuple):
    """
    An event that this home recorded, and that a server gets from here or from the proxy.

    Attributes:
        step: Its step, as far as it is known here: a trace that was gone on with may have other numbers there.
        type: The event type.
        name: The tool, step, function or model it is about.
        key: Its idempotency key.
        span: Its span id.
        timestamp: When it was recorded.
        waits: The segment it waits in, and whether a running process holds that; None if it does not wait.
        refused: Why a server refused it, in the server's words.
        said: Its type and a hash of its content, which equal events have in common.
    """

    step: int
    type: str
    name: str
    key: str
    span: str
    timestamp: str
    waits: tuple[Header, bool] | None = None
    refused: str = ""
    said: tuple[str, int] = ("", 0)

    @property
    def moment(self) -> int:
        """Time of recording in whole milliseconds since the epoch."""
        return moment(self.timestamp) or 0


class Turn(NamedTuple):
    """A call of a model through the proxy of WhyOps, as this home recorded it: a server gets it from the proxy."""

    prompt: Known
    answer: Known


class Recorded(NamedTuple):
    """
    The events of a trace that this home knows and a server gets.

    Attributes:
        events: Those that it gets from here, by idempotency key.
        turns: Those that it gets from the proxy.
    """

    events: dict[str, Known]
    turns: list[Turn]

    @property
    def total(self) -> int:
        """Number of all events."""
        return len(self.events) + 2 * len(self.turns)


class _Letter(msgspec.Struct):
    reason: str
    event: Head


def _known(record: Head) -> Known:
    """Return what is kept of a record."""
    names = (getattr(record.metadata, name) for name in _NAMES)
    return Known(
        step=record.step_id,
        type=record.event_type,
        name=next((name for name in names if isinstance(name, str)), ""),
        key=record.idempotency_key,
        span=record.span_id or "",
        timestamp=record.timestamp,
        said=(record.event_type, hash(bytes(record.content))),
    )


def recorded_events(home: Path, trace_id: str) -> Recorded:
    """
    Return the events of a trace that this home knows, but for those that no server gets.

    Raises:
        StoreError: if the local store cannot be read.
        OSError: if the journal or the file of refused events cannot be read.
    """
    known: dict[str, Known] = {}
    proxied: dict[str, tuple[Half, Known]] = {}
    decoder = msgspec.json.Decoder(Head)
    with contextlib.closing(Store(home / STORE_FILE)) as store:
        for line in store.lines(trace_id):
            with contextlib.suppress(msgspec.ValidationError):
                _add(known, proxied, trace_id, head_of(line))
    for segment, waits, record in records_in(home, SERVER):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event = _add(known, proxied, trace_id, decoder.decode(record))
            if event and waits:
                known[event.key] = event._replace(waits=(segment.header, segment.in_use))
    for letter in read_letters(home, _Letter):
        event = _add(known, proxied, trace_id, letter.event)
        if event:
            known[event.key] = event._replace(refused=letter.reason)
    return Recorded(known, list(_turns(proxied)))


def _add(
    known: dict[str, Known], proxied: dict[str, tuple[Half, Known]], trace_id: str, record: Head
) -> Known | None:
    """Return what is known of a record, which now includes that it exists; None if it does not go to a server."""
    if record.trace_id != trace_id or record.event_type in LOCAL:
        return None
    if record.audience != "local":
        return known.setdefault(record.idempotency_key, _known(record))
    half = half_of_head(record, len(proxied))
    if half is not None:
        proxied.setdefault(record.idempotency_key, (half, _known(record)))
    return None


def _turns(proxied: Mapping[str, tuple[Half, Known]]) -> Iterator[Turn]:
    """
    Yield the turns among records that no server gets from here.

    The request of any call of a model is among them, as nobody knows yet who reports the call. The answer is if the
    proxy reports it, or if the call only repeats those of clients.
    """
    events = [event for _, event in proxied.values()]
    for call in pair(half for half, _ in proxied.values()):
        if call.request and call.end and call.counts:
            yield Turn(events[call.request.place], events[call.end.place])


class Row(msgspec.Struct, rename="camel"):
    """An event as a server lists it."""

    id: str
    event_type: str
    step_id: int | None = None
    parent_step_id: int | None = None
    span_id: str | None = None
    timestamp: str | None = None
    metadata: dict[str, Any] | None = None


class There:
    """
    The events of a trace on a server: numbers and keys only, so that a trace may be long.

    Attributes:
        ids: Of the events, as the server names them.
        keys: Their idempotency keys.
        spans: Their span ids.
        prompts: Times of the prompts that the proxy reported, in milliseconds since the epoch.
        answers: Times of the answers that it reported, and of the errors in place of one.
    """

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.keys: set[str] = set()
        self.spans: set[str] = set()
        self.prompts: list[int] = []
        self.answers: list[int] = []
        self._steps: Counter[int] = Counter()
        self._parents: dict[int, int] = {}
        self._halves: list[Half] = []

    def add(self, row: Row) -> None:
        """Note an event, which may come twice."""
        if row.id in self.ids:
            return
        self.ids.add(row.id)
        metadata, span = row.metadata or {}, row.span_id or ""
        key = metadata.get("idempotencyKey")
        if isinstance(key, str):
            self.keys.add(key)
            if key.startswith(CONTENT_KEY):
                self._add_proxied(row)
        self.spans.add(span)
        step, parent = row.step_id or 0, row.parent_step_id or 0
        self._steps[step] += 1
        if parent:
            self._parents.setdefault(parent, step)
        half = half_of(StoredRecord.of(_as_recorded(row, metadata)))
        if half is not None:
            self._halves.append(half)

    def _add_proxied(self, row: Row) -> None:
        for types, moments in ((PROMPTS, self.prompts), (_ENDS, self.answers)):
            if row.event_type in types:
                moments.append(moment(row.timestamp or "") or 0)

    def findings(self, *, gaps: bool) -> Iterator[tuple[str, str]]:
        """
        Yield what is wrong with the trace in itself: the kind of the finding, and a sentence.

        Args:
            gaps: True if missing steps are findings, because nothing else tells which events there should be.
        """
        twice = sorted(step for step, count in self._steps.items() if count > 1)
        if twice:
            yield (
                "duplicate_steps",
                f"{_steps(twice)} there more than once: two processes recorded on this trace at the same time.",
            )
        if gaps:
            missing = list(self._gaps())
            if missing:
                yield "missing_steps", f"{_listed(missing)}: nothing is there; some events may be missing."
        for parent, child in sorted(self._parents.items()):
            if parent not in self._steps:
                yield "missing_parent", f"Step {child} follows from step {parent}, which is not there."
        kinds = {"tool": "tool_call_request", "embedding": "embedding_request"}
        calls = (call for call in pair(self._halves) if call.response is None)
        # The server wants a response also of a tool that failed.
        requests = (call.first for call in calls if call.error is None or call.first.kind == "tool")
        for request in sorted(requests, key=lambda request: request.step):
            kind = kinds.get(request.kind)
            if kind:
                yield (
                    "missing_response",
                    f"Step {request.step} ({f'{kind} {request.name}'.strip()}) has no response.",
                )

    def _gaps(self) -> Iterator[str]:
        before = 0
        is_proxied = bool(self.prompts or self.answers)
        for step in sorted(self._steps):
            has_room = step % _SPACING == 1 or (is_proxied and step - before > _SPACING // 2)
            if step > before + 1 and not has_room:
                yield f"Step {step - 1}" if step == before + 2 else f"Steps {before + 1} to {step - 1}"
            before = step


def _as_recorded(row: Row, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of a server as the record it was; whose numbering it belongs to, only its key tells there."""
    key = metadata.get("idempotencyKey")
    return {
        "eventType": row.event_type,
        "stepId": row.step_id,
        "parentStepId": row.parent_step_id,
        "spanId": row.span_id,
        "timestamp": row.timestamp,
        "run": process_of(key) if isinstance(key, str) else "",
        "metadata": metadata,
    }


def _steps(steps: list[int]) -> str:
    return f"{'Step' if len(steps) == 1 else 'Steps'} {_listed(map(str, steps))} {'is' if len(steps) == 1 else 'are'}"


def _listed(items: Iterable[str]) -> str:
    names = list(items)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
