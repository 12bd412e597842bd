"""Reading of the traces in the local store. Nothing here writes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from whyops_trace._guard import attempt
from whyops_trace._reading.excerpt import Tokens
from whyops_trace._reading.prices import cost, total
from whyops_trace._reading.score import Score, score_from
from whyops_trace._reading.summary import LOOP, SUMMARY_COLUMNS, TraceSummary, from_columns
from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.store.agents import AGENTS, AgentVersion
from whyops_trace.store.lines import RecordReader
from whyops_trace.store.scores import SCORE_COLUMNS
from whyops_trace.store.selection import (
    Counts,
    Filter,
    Session,
    conditions,
    running,
    seconds,
    session_value,
    stopped,
    unanswered,
)
from whyops_trace.store.statements import SLICE, marks, slices

#: Largest number of scores of a trace in its summary.
SCORES: Final = 100
# As a JSON array, so that they are decoded at once.
_TURNS_OF_TRACE: Final = "SELECT '[' || group_concat(turn) || ']' FROM turns WHERE trace = traces.id"

_SCORES_OF_TRACE: Final = (
    f"SELECT json_group_array(json_array({SCORE_COLUMNS})) FROM (SELECT * FROM scores"  # noqa: S608
    f" WHERE scores.trace_id = traces.trace_id ORDER BY step, name LIMIT {SCORES})"
)
#: The parts of a summary that are in other tables.
_PARTS: Final = f"({_TURNS_OF_TRACE}), ({_SCORES_OF_TRACE})"


class Reader(RecordReader):
    """
    A SQLite file of traces, as far as it is read; see :class:`~whyops_trace.store.Store`.

    Args:
        path: The file.
        clock: Tells how long ago something was stored.
    """

    def ended_processes(self) -> set[str]:
        """
        Return the tokens of processes that are known to be gone.

        Raises:
            StoreError: if the file cannot be read.
        """
        return {token for (token,) in self._database.rows("SELECT token FROM processes")}

    def ended_in(self, *trace_ids: str) -> Callable[[str], bool]:
        """
        Return what tells of a process, by its token, whether it will not go on with any of some traces.

        Of one that reported to the collector nobody knows: it has ended when the trace is not running any more.

        Raises:
            StoreError: if the file cannot be read.
        """
        quiet = f"SELECT process = '' AND NOT {running(self._now())} FROM traces WHERE trace_id = ?"  # noqa: S608
        if all(self._database.rows(quiet, trace_id) == [(1,)] for trace_id in trace_ids):
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

    def sessions(self, by: str, limit: int = 200) -> list[Session]:
        """
        Return the users, threads or values that traces belong to, the one that was last recorded on first.

        Args:
            by: ``user``, ``thread``, or a key of the metadata of traces.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        value, parameters = session_value(by)
        rows = self._database.rows(
            f"SELECT value, count(*), sum(failed), min(started_at), max(last_at) AS last FROM"  # noqa: S608
            f" (SELECT {value} AS value, failed, started_at, last_at FROM traces)"
            " WHERE value <> '' GROUP BY value ORDER BY last DESC, value LIMIT ?",
            *parameters,
            limit,
        )
        return [Session(*row) for row in rows]

    def metadata_keys(self, limit: int = 20) -> list[str]:
        """
        Return the keys in the metadata of traces whose values are texts or numbers, the most frequent first.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT key FROM traces, json_each(traces.metadata) WHERE type IN ('text', 'integer')"
            " GROUP BY key ORDER BY count(*) DESC, key LIMIT ?",
            limit,
        )
        return [key for (key,) in rows]

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

    def replays(self, trace_id: str, limit: int = 20) -> list[str]:
        """
        Return the ids of the replays of a trace, the latest first.

        Args:
            trace_id: The trace.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT trace_id FROM traces WHERE instr(metadata, '\"replayOf\"')"
            " AND json_extract(metadata, '$.replayOf') = ? ORDER BY last_at DESC, id DESC LIMIT ?",
            trace_id,
            limit,
        )
        return [replay for (replay,) in rows]

    def agents(self) -> list[AgentVersion]:
        """
        Return the versions of agents that were registered with the collector, the latest first.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(f"{AGENTS} ORDER BY made_at DESC")
        return [AgentVersion(*row) for row in rows]

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
        with self._understanding():
            return {trace_id: _tokens_of(turns) for trace_id, turns in rows if turns}

    def scores(self, trace_id: str) -> list[Score]:
        """
        Return the scores of a trace, those of the trace as a whole first, then by step and name.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            f"SELECT {SCORE_COLUMNS} FROM scores WHERE trace_id = ? ORDER BY step, name",  # noqa: S608
            trace_id,
        )
        with self._understanding():
            return list(map(score_from, rows))

    def score_names(self, limit: int = 50) -> list[str]:
        """
        Return the names of scores, the most frequent first.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT name FROM scores GROUP BY name ORDER BY count(*) DESC, name LIMIT ?", limit
        )
        return [name for (name,) in rows]

    def known(self, trace_ids: Sequence[str]) -> set[str]:
        """
        Return those of some ids that are of traces in the store.

        Raises:
            StoreError: if the file cannot be read.
        """
        return {
            trace_id
            for some in slices(trace_ids)
            for (trace_id,) in self._database.rows(
                f"SELECT trace_id FROM traces WHERE trace_id IN {marks(len(some))}",  # noqa: S608 - no values in it
                *some,
            )
        }

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
        for some in slices(numbers, SLICE):
            yield from self._summaries(f"WHERE id IN {marks(len(some))} ORDER BY id", *some)

    def _summaries(self, rest: str, *parameters: object) -> list[TraceSummary]:
        rows = self._database.rows(
            f"SELECT {_PARTS}, {SUMMARY_COLUMNS}, {running(self._now())} FROM traces {rest}",  # noqa: S608
            *parameters,
        )
        with self._understanding():
            return [_summary(*row) for row in rows]


def _tokens_of(turns: str) -> list[int]:
    """Return the tokens of turns, a JSON array, in the order of time."""
    decoded = msgspec.json.decode(turns, type=list[tuple[Any, Any, Any, str]])
    return [Tokens.of(usage).total for _, _, usage, _ in sorted(decoded, key=itemgetter(3))]


def _summary(turns: str | None, scores: str, *columns: Any) -> TraceSummary:
    """Return a trace's summary, with its *scores*, and what its *turns* cost together; both are JSON arrays."""
    summary = from_columns(columns)
    if scores != "[]":
        summary.scores = list(map(score_from, msgspec.json.decode(scores)))
    decoded = msgspec.json.decode(turns or "[]", type=list[tuple[Any, Any, Any, Any]])
    amount, _error = attempt(total, (cost(*turn) for turn in decoded))
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
