"""
A batch of records on its way into the store: which are new, which numbers they get, what they change.

A trace id that the user chose may come back: in the next turn of a conversation, in another process, on
another day. Each time its steps are counted from 1 again, in a *numbering* of its own. The store adds a constant
*offset* to the steps of each: the highest step that the trace had when the first record of the numbering arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._reading.halves import TYPES, half_of_head
from whyops_trace._reading.ongoing import Ongoing
from whyops_trace._reading.prices import is_billed
from whyops_trace._reading.record import Head
from whyops_trace._reading.summary import SUMMARY_COLUMNS, TraceSummary, call_of, columns, from_columns
from whyops_trace._recording.numbers import read_head, renumbered

#: Records that one statement inserts. Each step of a statement gives up the GIL, and a busy thread then
#: keeps it for 5 ms: a step for each record would store 500 a second beside such a thread. Many more than
#: this would hold the GIL for a millisecond while they are decoded, or have more values than a statement takes.
SLICE: Final = 90
#: Parameters of a statement that every build of SQLite takes.
_MAX_PARAMETERS: Final = 999

#: Numbers of traces and events that were deleted are not used again: somebody may still hold one.
_NEXT_NUMBERS: Final = (
    "SELECT max((SELECT coalesce(max(id), 0) FROM traces), trace) + 1,"
    " max((SELECT coalesce(max(id), 0) FROM events), event) + 1 FROM deleted"
)

#: Characters of what a turn is priced by; a longer one is none that any price is known of.
_TURN: Final = 4_096
_NO_PRICE: Final = "[null,null,null,null]"

_decoder = msgspec.json.Decoder(Head)


def read(line: bytes) -> Head | None:
    """Return what the store needs of a record, None if the line is no record."""
    try:
        line.decode()  # what is skipped is not checked to be UTF-8
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        warn_once("store: not a record", "Left out what is not a record (%s): %r", error, line[:200])
        return None


def marks(n: int) -> str:
    """Return *n* places for parameters: ``(?,?,?)``."""
    return "(" + ",".join("?" * n) + ")"


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows with as few statements as possible; return how many were taken."""
    taken = 0
    size = _MAX_PARAMETERS // len(rows[0]) if rows else 1
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        places = ",".join([marks(len(part[0]))] * len(part))
        taken += connection.execute(f"{statement} VALUES {places}", list(chain.from_iterable(part))).rowcount
    return taken


def turn_of(record: Head) -> str | None:
    """Return what a turn of a model is priced by, as JSON; None for what is not billed."""
    metadata = record.metadata
    if not is_billed(record.event_type, metadata.wraps):
        return None
    turn = msgspec.json.encode((metadata.model, metadata.provider, metadata.usage, record.timestamp)).decode()
    return turn if len(turn) <= _TURN else _NO_PRICE


class StoredTrace:
    """
    A trace's row while a batch is taken in.

    Attributes:
        number: Its number in the store.
        last_step: The highest step in it.
        made_at: When its first record was stored, in seconds since the epoch.
        summary: Its summary, brought up to date.
        last_call: The number of its latest tool call, as :func:`~whyops_trace._reading.summary.call_of` gives it.
        alike: Number of calls in a row that were equal to that one.
        ongoing: The calls of it that may still change.
        changed: True if the row has to be written.
    """

    __slots__ = ("alike", "changed", "last_call", "last_step", "made_at", "number", "ongoing", "summary")

    def __init__(
        self,
        number: int,
        last_step: int,
        made_at: int,
        summary: TraceSummary,
        last_call: int | None = None,
        alike: int = 0,
        ongoing: Ongoing | None = None,
    ) -> None:
        self.number: int = number
        self.last_step: int = last_step
        self.made_at: int = made_at
        self.summary: TraceSummary = summary
        self.last_call: int | None = last_call
        self.alike: int = alike
        self.ongoing: Ongoing = ongoing or Ongoing()
        self.changed: bool = False

    def add(self, record: Head) -> None:
        """Take one more record into account."""
        self.summary.add(record)
        self.changed = True
        if (half := half_of_head(record)) is not None:
            self.ongoing.add(half)
        if record.event_type == "tool_call_request":
            call = call_of(record)
            self.alike = self.alike + 1 if call is not None and call == self.last_call else 1
            self.last_call = call
            self.summary.repeated = max(self.summary.repeated, self.alike)


class StoredTraces:
    """
    The rows of the traces that a batch belongs to, inside one transaction.

    Args:
        connection: Connection with an open transaction.
        now: Seconds since the epoch.

    Attributes:
        next_event: The number that the next event gets; none was ever used before.
    """

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self._connection = connection
        self._now = now
        self._traces: dict[str, StoredTrace] = {}
        self.next_event: int
        ((self._next_trace, self.next_event),) = connection.execute(_NEXT_NUMBERS)

    def __getitem__(self, trace_id: str) -> StoredTrace:
        return self._traces[trace_id]

    def load(self, trace_ids: Iterable[str]) -> None:
        """Read the rows of traces, in this order where they are new: they are listed in it."""
        ids = [trace_id for trace_id in dict.fromkeys(trace_ids) if trace_id not in self._traces]
        if not ids:
            return
        found = self._connection.execute(
            f"SELECT id, last_step, made_at, last_call, alike, ongoing, {SUMMARY_COLUMNS} FROM traces"  # noqa: S608 - no values
            f" WHERE trace_id IN {marks(len(ids))}",
            ids,
        )
        for number, last_step, made_at, last_call, alike, kept, *values in found.fetchall():
            summary = from_columns(values)
            ongoing = Ongoing(kept)
            if summary.open_calls and not kept:
                self._read_anew(number, summary, ongoing)
            self._traces[summary.trace_id] = StoredTrace(
                number, last_step, made_at, summary, last_call, alike, ongoing
            )
        for trace_id in ids:
            if trace_id not in self._traces:
                self._traces[trace_id] = StoredTrace(self._next_trace, 0, self._now, TraceSummary(trace_id))
                self._next_trace += 1

    def _read_anew(self, number: int, summary: TraceSummary, ongoing: Ongoing) -> None:
        """Count the calls of a trace of an earlier format, which did not keep which of them are open."""
        lines = self._connection.execute(
            f"SELECT payload FROM events WHERE trace = ? AND type IN {marks(len(TYPES))} ORDER BY id",  # noqa: S608
            (number, *TYPES),
        )
        for (line,) in lines:
            record = read(line.encode())
            if record is not None and (half := half_of_head(record)) is not None:
                ongoing.add(half)
        summary.tool_calls = summary.llm_responses = summary.open_calls = 0
        ongoing.count(summary)

    def write(self, token: str) -> None:
        """Write those that got new records, recorded by the process of that token."""
        changed = [trace for trace in self._traces.values() if trace.changed]
        for trace in changed:
            trace.ongoing.count(trace.summary)
        rows = [
            (
                *(trace.number, trace.last_step, token, trace.made_at, self._now),
                *columns(trace.summary),
                *(trace.last_call, trace.alike, trace.ongoing.keep()),
            )
            for trace in changed
        ]
        insert(self._connection, "INSERT OR REPLACE INTO traces", rows)


class Intake:
    """
    One batch, inside one transaction.

    Args:
        connection: Connection with an open transaction.
        token: The process that recorded the batch.
        now: Seconds since the epoch.
    """

    def __init__(self, connection: sqlite3.Connection, token: str, now: int) -> None:
        self._connection = connection
        self._token = token
        self._traces = StoredTraces(connection, now)
        self._offsets: dict[tuple[int, str], int] = {}
        self._new_numberings: list[tuple[str, int, int]] = []

    def take(self, lines: Sequence[bytes]) -> list[bool]:
        """Store up to :data:`SLICE` records; return which of the lines were records."""
        records = [read(line) for line in lines]
        known = [record for record in records if record is not None]
        self._traces.load(record.trace_id for record in known)
        self._load_offsets({record.run for record in known if record.run is not None})
        rows: list[tuple[Any, ...]] = []
        taken: list[tuple[StoredTrace, Head]] = []
        for position, (line, record) in enumerate(zip(lines, records, strict=True)):
            if record is not None:
                trace = self._traces[record.trace_id]
                try:
                    rows.append(self._row(self._traces.next_event + len(rows), trace, record, line))
                    taken.append((trace, record))
                except ValueError as error:
                    warn_once("store: not numbered", "Left out a record of unknown form: %s", error)
                    records[position] = None
        self._store(rows, taken)
        return [record is not None for record in records]

    def finish(self) -> None:
        """Write the new numberings, and the summaries of all traces that got new records."""
        insert(self._connection, "INSERT INTO runs", self._new_numberings)
        self._traces.write(self._token)

    def _load_offsets(self, numberings: set[str]) -> None:
        unknown = numberings - {numbering for _, numbering in self._offsets}
        if unknown:
            found = self._connection.execute(
                f"SELECT trace, run, shift FROM runs WHERE run IN {marks(len(unknown))}",  # noqa: S608
                list(unknown),
            )
            self._offsets.update(((trace, numbering), offset) for trace, numbering, offset in found)

    def _row(self, number: int, trace: StoredTrace, record: Head, line: bytes) -> tuple[Any, ...]:
        """Return the row of a record, numbered as the trace wants it."""
        if record.run is not None:
            line = self._renumber(trace, record, record.run, line)
        trace.last_step = max(trace.last_step, record.step_id)
        # The end of a trace repeats the step of its beginning, and stands behind everything before it.
        step = trace.last_step if record.event_type == "trace_end" else record.step_id
        return (
            number,
            trace.number,
            step,
            record.parent_step_id,
            record.metadata.within,
            record.event_type,
            record.span_id,
            record.timestamp,
            record.idempotency_key,
            line.decode(),
            turn_of(record),
        )

    def _renumber(self, trace: StoredTrace, record: Head, numbering: str, line: bytes) -> bytes:
        """
        Add the offset of its numbering to the numbers of *record*, and return its line with them.

        Raises:
            ValueError: if the line does not start as the recorder writes it.
        """
        offset = self._offsets.get((trace.number, numbering))
        begins = offset is None
        if offset is None:
            offset = self._begin_numbering(trace, record, numbering)
        if not offset:
            return line
        head = read_head(line)
        if head is None:
            raise ValueError(line[:200])
        numbers = head.numbers.moved(offset, head.given, begins=begins)
        record.step_id, record.parent_step_id, record.metadata.within, _ = numbers
        return renumbered(line, numbers)

    def _begin_numbering(self, trace: StoredTrace, record: Head, numbering: str) -> int:
        offset = 0 if "stepId" in record.given else self._offset(trace, record)
        self._offsets[trace.number, numbering] = offset
        self._new_numberings.append((numbering, trace.number, offset))
        trace.summary.ended = False
        return offset

    def _offset(self, trace: StoredTrace, record: Head) -> int:
        """Return the offset of the numbering *record* begins, which may be here already: a collector took it first."""
        if trace.last_step and record.step_id:
            found = self._connection.execute(
                "SELECT step FROM events WHERE trace = ? AND key = ?", (trace.number, record.idempotency_key)
            ).fetchall()
            if found:
                return int(found[0][0]) - record.step_id
        return trace.last_step

    def _store(self, rows: list[tuple[Any, ...]], taken: Iterable[tuple[StoredTrace, Head]]) -> None:
        """Insert the rows that are new, and let only those count."""
        first = self._traces.next_event
        self._traces.next_event += len(rows)
        stored: range | set[int] = range(first, first + len(rows))
        if insert(self._connection, "INSERT OR IGNORE INTO events", rows) < len(rows):
            found = self._connection.execute("SELECT id FROM events WHERE id >= ?", (first,))
            stored = {number for (number,) in found}
        for number, (trace, record) in enumerate(taken, first):
            if number in stored:
                trace.add(record)
