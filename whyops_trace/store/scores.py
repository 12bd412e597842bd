"""The table of scores: the latest of each name on each step of a trace, and on the trace as a whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from whyops_trace._reading.score import Score

#: The columns of a score, for a statement, in the order of :func:`~whyops_trace._reading.score.score_from`.
SCORE_COLUMNS: Final = "name, step, value, is_thumb, label, comment, source, time"

# A score may come twice, and one that waited in a journal after one that was given later.
_WRITE: Final = (
    "INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (trace_id, step, name) DO UPDATE SET"
    " value = excluded.value, is_thumb = excluded.is_thumb, label = excluded.label, comment = excluded.comment,"
    " source = excluded.source, time = excluded.time, stored_at = excluded.stored_at"
    " WHERE excluded.time >= time"
)
_OFFSET: Final = (
    "SELECT shift FROM runs JOIN traces ON traces.id = runs.trace WHERE runs.run = ? AND traces.trace_id = ?"
)


class NewScore(NamedTuple):
    """
    A score on its way into the table.

    Attributes:
        trace_id: The id of its trace, which need not be in the store.
        score: The score.
        numbering: The numbering that its step belongs to, None if the step is as the store has it.
    """

    trace_id: str
    score: Score
    numbering: str | None = None


def write(connection: sqlite3.Connection, scores: Iterable[NewScore], now: int) -> None:
    """Store scores in an open transaction, *now* in seconds since the epoch."""
    for trace_id, score, numbering in scores:
        step = score.step
        if step and numbering is not None:
            row = connection.execute(_OFFSET, (numbering, trace_id)).fetchone()
            step += row[0] if row else 0
        is_thumb = isinstance(score.value, bool)
        connection.execute(
            _WRITE,
            (
                trace_id,
                step,
                score.name,
                score.value,
                is_thumb,
                score.label,
                score.comment,
                score.source,
                score.time,
                now,
            ),
        )


def remove(connection: sqlite3.Connection, trace_id: str, name: str, step: int) -> bool:
    """Delete a score in an open transaction; return False if there is none."""
    statement = "DELETE FROM scores WHERE trace_id = ? AND name = ? AND step = ?"
    return connection.execute(statement, (trace_id, name, step)).rowcount > 0
