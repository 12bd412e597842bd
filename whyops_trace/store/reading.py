"""Reading of the local store: the traces that are listed, and their records. Nothing here writes."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from whyops_trace._clock import Clock, SystemClock
from whyops_trace._database import Database
from whyops_trace._reading.excerpt import Tokens
from whyops_trace._reading.prices import cost, total
from whyops_trace._reading.summary import LOOP, SUMMARY_COLUMNS, TraceSummary, from_columns
from whyops_trace._recording.line import LOCAL
from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.store.agents import AGENTS, AgentVersion
from whyops_trace.store.intake import SLICE, marks
from whyops_trace.store.schema import SCHEMA, UPGRADES
from whyops_trace.store.selection import (
    Counts,
    Filter,
    conditions,
    running,
    seconds,
    stopped,
    unanswered,
)

T = TypeVar("T")

# As a JSON array, so that they are decoded at once.
_TURNS_OF_TRACE: Final = (
    "SELECT '[' || group_concat(turn) || ']' FROM events WHERE trace = traces.id AND turn IS NOT NULL"
)

#: The records of a trace, and the order they are read in.
_RECORDS: Final = "FROM events WHERE trace = (SELECT id FROM traces WHERE trace_id = ?)"
_LOCAL: Final = f"({', '.join(map(repr, sorted(LOCAL)))})"
_ORDER: Final = f"ORDER BY step, type IN {_LOCAL}, id"
#: The columns of a :class:`StoredEvent`.
_STORED_EVENT: Final = "events.id, trace_id, step, type, key, payload"


class StoredEvent(NamedTuple):
    """
    A record with what the store knows it by.

    Attributes:
        number: Its number: higher than that of any record stored before it.
        trace_id: The trace it belongs to.
        step: Its step there.
        type: The event type.
        key: Its idempotency key, unique in its trace.
        line: The record as JSON.
    """

    number: int
    trace_id: str
    step: int
    type: str
    key: str
    line: str


class Reader:
    """
    A SQLite file of traces, as far as it is read; see :class:`~whyops_trace.store.Store`.

    Args:
        path: The file.
        clock: Tells how long ago something was stored.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._database = Database(path, SCHEMA, UPGRADES)
        self._clock: Clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def close(self) -> None:
        """Close the file; whatever is called next opens it again."""
        self._database.close()

    def ended_processes(self) -> set[str]:
        """
        Return the tokens of processes that are known to be gone.

        Raises:
            StoreError: if the file cannot be read.
        """
        return {token for (token,) in self._database.rows("SELECT token FROM processes")}

    def ended_in(self, trace_id: str) -> Callable[[str], bool]:
        """
        Return what tells of a process, by its token, whether it will not go on with a trace.

        Of one that reported to the collector nobody knows: it has ended when the trace is not running any more.

        Raises:
            StoreError: if the file cannot be read.
        """
        quiet = f"SELECT process = '' AND NOT {running(self._now())} FROM traces WHERE trace_id = ?"  # noqa: S608
        if self._database.rows(quiet, trace_id) == [(1,)]:
            return lambda _: True
        return self.ended_processes().__contains__

    def traces(
        self, limit: int = 50, after: str | None = None, *, where: Filter | None = None
    ) -> list[TraceSummary]:
        """
        Return summaries of the traces, the one that was last recorded on first.

        A page takes as long as any other, however many there are before it.

        Args:
            limit: Largest number of them.
            after: The id of the trace that the page comes after, which is the last one of the page before.
            where: Filter of the traces; all of them if it is left out.

        Raises:
            TraceNotFoundError: if there is no trace of the id *after*.
            StoreError: if the file cannot be read.
        """
        condition, values = conditions(where, self._now())
        if after is not None:
            found = self._database.rows("SELECT last_at, id FROM traces WHERE trace_id = ?", after)
            if not found:
                raise TraceNotFoundError(f"There is no trace {after!r}.")
            condition = f"(last_at, id) < (?, ?) AND {condition}"
            values = [*found[0], *values]
        return self._summaries(f"WHERE {condition} ORDER BY last_at DESC, id DESC LIMIT ?", *values, limit)

    def counts(self, where: Filter | None = None, *, slow: float | None = None) -> Counts:
        """
        Return how many traces there are, and how many of them deserve a look.

        Args:
            where: Filter of the traces that are counted; all of them if it is left out.
            slow: Result of :meth:`slow_seconds`, if that is known: with very many traces it takes longest.

        Raises:
            StoreError: if the file cannot be read.
        """
        now = self._now()
        condition, values = conditions(where, now)
        slow = self.slow_seconds() if slow is None else slow
        flags = ("failed", f"repeated >= {LOOP}", stopped(now), unanswered(now), f"{seconds()} > {slow!r}")
        sums = ", ".join(f"coalesce(sum({flag}), 0)" for flag in flags)
        rows = self._database.rows(f"SELECT count(*), {sums} FROM traces WHERE {condition}", *values)  # noqa: S608
        return Counts(*rows[0]) if rows else Counts()

    def slow_seconds(self) -> float:
        """
        Return the seconds that 95 of 100 traces take at most; a trace that takes longer is a slow one.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            f"SELECT {seconds()} AS seconds FROM traces WHERE seconds IS NOT NULL ORDER BY seconds LIMIT 1 OFFSET"  # noqa: S608
            f" (SELECT max(0, (count({seconds()}) * 95 + 99) / 100 - 1) FROM traces)"
        )
        return float(rows[0][0]) if rows else 0.0

    def trace(self, trace_id: str) -> TraceSummary:
        """
        Return the summary of one trace.

        Raises:
            TraceNotFoundError: if there is none of that id.
            StoreError: if the file cannot be read.
        """
        found = self._summaries("WHERE trace_id = ?", trace_id)
        if not found:
            raise TraceNotFoundError(f"There is no trace {trace_id!r}.")
        return found[0]

    def resolve(self, name: str) -> str:
        """
        Return the id of the trace a user means.

        Args:
            name: An id, the beginning of only one id, or ``latest``.

        Raises:
            TraceNotFoundError: if no trace, or more than one, can be meant; the message says what to type.
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows("SELECT trace_id FROM traces ORDER BY last_at DESC, id DESC")
        ids: list[str] = [trace_id for (trace_id,) in rows]
        if name in ids:
            return name
        if name == "latest" and ids:
            return ids[0]
        begins = [trace_id for trace_id in ids if name and trace_id.startswith(name)]
        if len(begins) == 1:
            return begins[0]
        raise TraceNotFoundError(_not_found(name, ids, begins))

    def events(self, trace_id: str) -> list[dict[str, Any]]:
        """
        Return the records of a trace, decoded, by step; the end of a step directly after its beginning.

        Raises:
            StoreError: if the file cannot be read.
        """
        return [json.loads(line) for line in self.lines(trace_id)]

    def lines(self, trace_id: str) -> list[str]:
        """
        Return the records of a trace in the order of :meth:`events`, each as one line of JSON.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(f"SELECT payload {_RECORDS} {_ORDER}", trace_id)
        return [line for (line,) in rows]

    def event(self, trace_id: str, step: int) -> list[dict[str, Any]]:
        """
        Return the records of one step, in the order of :meth:`events`; none if there are none.

        A step that ended has two, and so has a number that two processes used at the same time.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(f"SELECT payload {_RECORDS} AND step = ? {_ORDER}", trace_id, step)
        return [json.loads(line) for (line,) in rows]

    def events_after(self, trace_id: str, number: int) -> list[tuple[int, dict[str, Any]]]:
        """
        Return what a trace has grown by: its records with their numbers in the store, in the order they were stored.

        Args:
            trace_id: The trace.
            number: The number of the last record that is known already, 0 for none.

        Raises:
            StoreError: if the file cannot be read.
        """
        return [(number, json.loads(line)) for number, line in self.lines_after(trace_id, number)]

    def lines_after(self, trace_id: str, number: int, limit: int = -1) -> list[tuple[int, str]]:
        """
        Return what :meth:`events_after` does, each record as one line of JSON.

        Args:
            trace_id: The trace.
            number: The number of the last record that is known already, 0 for none.
            limit: Largest number of them; all of them if it is negative.

        Raises:
            StoreError: if the file cannot be read.
        """
        found = f"SELECT id, payload {_RECORDS} AND id > ? ORDER BY id LIMIT ?"
        return self._database.rows(found, trace_id, number, limit)

    def all_after(self, number: int, limit: int = 1000) -> list[StoredEvent]:
        """
        Return records of all traces in the order they were stored, for an index of them.

        Args:
            number: The number of the last record that is known already, 0 for none.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            f"SELECT {_STORED_EVENT} FROM events JOIN traces ON traces.id = trace"  # noqa: S608 - no values in it
            " WHERE events.id > ? ORDER BY events.id LIMIT ?",
            number,
            limit,
        )
        return [StoredEvent(*row) for row in rows]

    def latest(self, trace_id: str | None, limit: int, offset: int) -> tuple[list[StoredEvent], int]:
        """
        Return a page of the events of a trace, the latest first, and how many there are; none of the local types.

        Args:
            trace_id: The trace; None for all of them, in the order they were stored.
            limit: Largest number of them.
            offset: Number of them to leave out first.

        Raises:
            StoreError: if the file cannot be read.
        """
        which = "TRUE" if trace_id is None else "trace = (SELECT id FROM traces WHERE trace_id = ?)"
        values = () if trace_id is None else (trace_id,)
        order = "id DESC" if trace_id is None else "timestamp DESC, step DESC, id DESC"
        events = f"FROM events WHERE {which} AND type NOT IN {_LOCAL}"
        rows = self._database.rows(
            f"SELECT {_STORED_EVENT}"  # noqa: S608 - no values in it
            f" FROM (SELECT id AS number {events} ORDER BY {order} LIMIT ? OFFSET ?)"
            " CROSS JOIN events ON events.id = number CROSS JOIN traces ON traces.id = trace",
            *values,
            limit,
            offset,
        )
        count = self._database.rows(f"SELECT count(*) {events}", *values)
        return [StoredEvent(*row) for row in rows], count[0][0] if count else 0

    def agents(self) -> list[AgentVersion]:
        """
        Return the versions of agents that were registered with the collector, the latest first.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(f"{AGENTS} ORDER BY made_at DESC")
        return [AgentVersion(*row) for row in rows]

    def known(self, numbers: Sequence[int]) -> set[int]:
        """
        Return which of these numbers of records are in the store; those of deleted traces are not, nor will be.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT id FROM events WHERE id IN (SELECT value FROM json_each(?))", json.dumps(list(numbers))
        )
        return {number for (number,) in rows}

    def turn_tokens(self, trace_ids: Sequence[str]) -> dict[str, list[int]]:
        """
        Return the tokens that each turn of a model took, in the order of time, for some traces.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            f"SELECT trace_id, ({_TURNS_OF_TRACE}) FROM traces"  # noqa: S608 - no values in it
            " WHERE trace_id IN (SELECT value FROM json_each(?))",
            json.dumps(list(trace_ids)),
        )
        return {trace_id: _tokens_of(turns) for trace_id, turns in rows if turns}

    def each(self, where: Filter | None = None) -> Iterator[TraceSummary]:
        """
        Yield summaries of all traces, the one that was stored first at the beginning, a few in memory at a time.

        Traces that are stored meanwhile are not among them.

        Raises:
            StoreError: if the file cannot be read.
        """
        condition, values = conditions(where, self._now())
        found = self._database.rows(f"SELECT id FROM traces WHERE {condition} ORDER BY id", *values)  # noqa: S608
        numbers = [number for (number,) in found]
        for start in range(0, len(numbers), SLICE):
            some = numbers[start : start + SLICE]
            yield from self._summaries(f"WHERE id IN {marks(len(some))} ORDER BY id", *some)

    def select(self, trace_id: str, types: Collection[str], read: Callable[[str], T]) -> list[T]:
        """
        Return what *read* makes of each record of some types, in no order; one line is in memory at a time.

        Args:
            trace_id: The trace.
            types: The event types.
            read: Makes something of a line; it must not use the store.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return []
        with self._database.session() as connection:
            statement = f"SELECT payload {_RECORDS} AND type IN {marks(len(types))}"
            return [read(line) for (line,) in connection.execute(statement, (trace_id, *types))]

    def version(self) -> int:
        """
        Return a number that is another one whenever anything was written, by any process; it costs microseconds.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._database.version()

    def _now(self) -> int:
        return self._clock.time_ns() // 1_000_000_000

    def _summaries(self, rest: str, *parameters: object) -> list[TraceSummary]:
        rows = self._database.rows(
            f"SELECT ({_TURNS_OF_TRACE}), {SUMMARY_COLUMNS}, {running(self._now())} FROM traces {rest}",  # noqa: S608
            *parameters,
        )
        return [_summary(*row) for row in rows]


def _tokens_of(turns: str) -> list[int]:
    """Return the tokens of turns, a JSON array, in the order of time."""
    decoded = msgspec.json.decode(turns, type=list[tuple[Any, Any, Any, str]])
    return [Tokens.of(usage).total for _, _, usage, _ in sorted(decoded, key=itemgetter(3))]


def _summary(turns: str | None, *columns: Any) -> TraceSummary:
    """Return a trace's summary, with what its *turns*, a JSON array, cost together."""
    summary = from_columns(columns)
    costs = (cost(*turn) for turn in msgspec.json.decode(turns or "[]", type=list[tuple[Any, Any, Any, Any]]))
    amount = total(costs)
    summary.cost = None if amount is None else float(amount)
    return summary


def _not_found(name: str, ids: list[str], begins: list[str]) -> str:
    if not ids:
        return "There are no traces yet."
    if begins:
        some = ", ".join([*map(repr, begins[:5]), *(["..."] if begins[5:] else [])])
        return f"{len(begins)} traces begin with {name!r}: {some}. Type more of the id."
    near = difflib.get_close_matches(name, ids[:1000], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "whyops-trace ls lists what there is."
    return f"There is no trace {name!r}: {hint}"
