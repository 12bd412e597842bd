"""
A batch of records on its way into the store: which are new, which numbers they get, what they change.

A trace id that the user chose may come back: in the next turn of a conversation, in another process, on
another day. Each time its steps are counted from 1 again, in a *numbering* of its own. The store adds a constant
*offset* to the steps of each: the highest step that the trace had when the first record of the numbering arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._reading.ongoing import Ongoing
from whyops_trace._reading.prices import is_billed
from whyops_trace._reading.record import Head
from whyops_trace._reading.score import SCORE, score_of
from whyops_trace._reading.summary import SUMMARY_COLUMNS, TraceSummary, call_of, columns, from_columns
from whyops_trace._recording.numbers import read_head, renumbered
from whyops_trace.store.faults import stored
from whyops_trace.store.lifting import Lifted
from whyops_trace.store.packing import Facts
from whyops_trace.store.pruning import recall, writing_time
from whyops_trace.store.records import Records, Row
from whyops_trace.store.rows import readable_heads
from whyops_trace.store.scores import NewScore
from whyops_trace.store.scores import write as write_scores
from whyops_trace.store.statements import insert, marks

#: Numbers of traces that were deleted are not used again: somebody may still hold one.
_NEXT_TRACE: Final = "SELECT max((SELECT coalesce(max(id), 0) FROM traces), trace) + 1 FROM deleted"

#: Characters of what a turn is priced by; a longer one is none that any price is known of.
_TURN: Final = 4_096
_NO_PRICE: Final = "[null,null,null,null]"

#: The start of the line of a score, which shares nothing with other records.
_SCORE_START: Final = b'{"eventType":"score",'
_decoder: Final = msgspec.json.Decoder(Head)


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
        self.ongoing: Ongoing = ongoing or Ongoing(summary, last_step)
        self.changed: bool = False

    def row(self, number: int, step: int, record: Head, lifted: Lifted) -> Row:
        """Return the row of a record."""
        # Its line is restored with the name of the agent that the trace has from now on.
        self.summary.agent_name = self.summary.agent_name or record.agent_name
        facts = Facts(
            step, record.parent_step_id, record.metadata.within, record.event_type, record.span_id, record.timestamp,
            record.idempotency_key, record.trace_id, self.summary.agent_name,
        )  # fmt: skip
        return Row(number, self.number, facts, lifted, turn_of(record))

    def readable(self, record: Head, lifted: Lifted, line: bytes) -> Head:
        """Return a record for :meth:`add`: with its messages, if the question of the trace may be in them."""
        if lifted.places and record.event_type == "user_message" and not self.summary.asked:
            record.content = _decoder.decode(line).content
        return record

    def add(self, record: Head) -> None:
        """Take one more record into account."""
        self.summary.add(record)
        self.changed = True
        self.ongoing.add(record)
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

    """

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self._connection = connection
        self._now = writing_time(connection, now)
        self._traces: dict[str, StoredTrace] = {}
        ((self._next_trace,),) = connection.execute(_NEXT_TRACE)

    def __getitem__(self, trace_id: str) -> StoredTrace:
        return self._traces[trace_id]

    def load(self, trace_ids: Iterable[str]) -> None:
        """Read the rows of traces, in this order where they are new: they are listed in it."""
        ids = [trace_id for trace_id in dict.fromkeys(trace_ids) if trace_id not in self._traces]
        if not ids:
            return
        with stored():
            found = self._connection.execute(
                f"SELECT id, last_step, made_at, last_call, alike, ongoing, {SUMMARY_COLUMNS} FROM traces"  # noqa: S608 - no values
                f" WHERE trace_id IN {marks(len(ids))}",
                ids,
            ).fetchall()
        for number, last_step, made_at, last_call, alike, kept, *values in found:
            with stored():
                summary = from_columns(values)
                ongoing = Ongoing(summary, last_step, kept)
            if summary.open_calls and not kept:
                self._read_anew(number, summary, ongoing)
            self._traces[summary.trace_id] = StoredTrace(
                number, last_step, made_at, summary, last_call, alike, ongoing
            )
        for trace_id in ids:
            if trace_id not in self._traces:
                summary = TraceSummary(trace_id, forgotten=recall(self._connection, trace_id))
                self._traces[trace_id] = StoredTrace(self._next_trace, 0, self._now, summary)
                self._next_trace += 1

    def _read_anew(self, number: int, summary: TraceSummary, ongoing: Ongoing) -> None:
        """Count the calls of a trace of an earlier format, which did not keep which of them are open."""
        for head in readable_heads(self._connection, number):
            ongoing.add(head)
        summary.tool_calls = summary.llm_responses = summary.open_calls = summary.errors = 0
        ongoing.count()

    def write(self, token: str) -> None:
        """Write those that got new records, recorded by the process of that token."""
        changed = [trace for trace in self._traces.values() if trace.changed]
        for trace in changed:
            trace.ongoing.count()
        rows = [
            (
                *(trace.number, trace.last_step, token, trace.made_at, self._now),
                *columns(trace.summary),
                *(trace.last_call, trace.alike, trace.ongoing.keep(), trace.summary.forgotten),
                *(trace.summary.said_failed, trace.summary.ending),
            )
            for trace in changed
        ]
        insert(self._connection, "INSERT OR REPLACE INTO traces", rows)


class Intake:
    """
    One batch, inside one transaction.

    Args:
        records: The records, with an open transaction.
        token: The process that recorded the batch.
        now: Seconds since the epoch.
    """

    def __init__(self, records: Records, token: str, now: int) -> None:
        self._records = records
        self._connection = records.connection
        self._token = token
        self._now = now
        self._traces = StoredTraces(self._connection, now)
        self._offsets: dict[tuple[int, str], int] = {}
        self._new_numberings: list[tuple[str, int, int]] = []
        self._scores: list[NewScore] = []

    def take(self, lines: Sequence[bytes]) -> list[bool]:
        """Store up to :data:`SLICE` records; return which of the lines were records."""
        read = [self._read(line) for line in lines]
        known = [each[1] for each in read if each is not None and each[1].event_type != SCORE]
        self._traces.load(record.trace_id for record in known)
        self._load_offsets({record.run for record in known if record.run is not None})
        rows: list[Row] = []
        refused: list[tuple[int, Lifted]] = []
        taken: list[tuple[StoredTrace, Head]] = []
        for position, (line, each) in enumerate(zip(lines, read, strict=True)):
            if each is not None and each[1].event_type == SCORE:
                self._note_score(each[1])
            elif each is not None:
                lifted, record = each
                trace = self._traces[record.trace_id]
                try:
                    rows.append(self._row(trace, record, lifted))
                    taken.append((trace, trace.readable(record, lifted, line)))
                except ValueError as error:
                    warn_once("store: not numbered", "Left out a record of unknown form: %s", error)
                    read[position] = None
                    refused.append((trace.number, lifted))
        new = self._records.insert(rows, refused)
        for row, (trace, record) in zip(rows, taken, strict=True):
            if row.number in new:
                trace.add(record)
        return [each is not None for each in read]

    def _read(self, line: bytes) -> tuple[Lifted, Head] | None:
        """Return a line without its large members, and the record; None if it is none."""
        try:
            lifted = Lifted(line.decode()) if line.startswith(_SCORE_START) else self._records.lift(line)
            return lifted, _decoder.decode(lifted.light)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._records.forget()  # its messages are not stored
            warn_once("store: not a record", "Left out what is not a record (%s): %r", error, line[:200])
            return None

    def _note_score(self, record: Head) -> None:
        score = score_of(record)
        if score is not None:  # else the program's own processor left nothing of it
            numbering = None if "stepId" in record.given else record.run
            self._scores.append(NewScore(record.trace_id, score, numbering))

    def finish(self) -> None:
        """Write the new numberings, the summaries of all traces that got new records, and the scores."""
        insert(self._connection, "INSERT INTO runs", self._new_numberings)
        self._traces.write(self._token)
        write_scores(self._connection, self._scores, self._now)

    def _load_offsets(self, numberings: set[str]) -> None:
        unknown = numberings - {numbering for _, numbering in self._offsets}
        if unknown:
            found = self._connection.execute(
                f"SELECT trace, run, shift FROM runs WHERE run IN {marks(len(unknown))}",  # noqa: S608
                list(unknown),
            )
            self._offsets.update(((trace, numbering), offset) for trace, numbering, offset in found)

    def _row(self, trace: StoredTrace, record: Head, lifted: Lifted) -> Row:
        """
        Return the row of a record, numbered as the trace wants it.

        Raises:
            ValueError: if the line does not start as the recorder writes it.
        """
        if record.run is not None:
            lifted = lifted._replace(text=self._renumbered(trace, record, record.run, lifted.text))
        trace.last_step = max(trace.last_step, record.step_id)
        # The end of a trace repeats the step of its beginning, and stands behind everything before it.
        step = trace.last_step if record.event_type == "trace_end" else record.step_id
        return trace.row(self._records.number(), step, record, lifted)

    def _renumbered(self, trace: StoredTrace, record: Head, numbering: str, text: str) -> str:
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
            return text
        line = text.encode()
        head = read_head(line)
        if head is None:
            raise ValueError(text[:200])
        numbers = head.numbers.moved(offset, head.given, begins=begins)
        record.step_id, record.parent_step_id, record.metadata.within, _ = numbers
        return renumbered(line, numbers).decode()

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
                "SELECT step FROM records WHERE trace = ? AND key = ?", (trace.number, record.idempotency_key)
            ).fetchall()
            if found:
                return int(found[0][0]) - record.step_id
        return trace.last_step
