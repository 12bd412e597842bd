"""The upgrades of a store from earlier formats."""

from __future__ import annotations

import re
import sqlite3
import time
from typing import Any, Final

from whyops_trace._database import Upgrade
from whyops_trace._reading.ongoing import Ongoing
from whyops_trace._reading.summary import TraceSummary
from whyops_trace.store.lifting import Lifted
from whyops_trace.store.packing import Facts, foreign
from whyops_trace.store.records import Records, Row
from whyops_trace.store.rows import readable_heads
from whyops_trace.store.schema import OF_FORMAT_3, OF_FORMAT_5, OF_FORMAT_7, OF_FORMAT_8, OF_FORMAT_10
from whyops_trace.store.statements import SLICE

#: Seconds that a transaction takes at most, about: other processes wait for it, and go on with the upgrade themselves.
_SECONDS: Final = 0.5
#: Bytes of records that are read at a time, at least; each may have a megabyte.
_BYTES: Final = 4 << 20
#: Free pages that are given back in one transaction.
_PAGES: Final = 2_000

# In SQL alone: a Python function would need the GIL for each record, which a busy thread gives up slowly.
_ADD_TURNS: Final = """
ALTER TABLE events ADD COLUMN turn TEXT;
UPDATE events SET turn = CASE WHEN json_valid(payload) THEN json_array(
    json_extract(payload, '$.metadata.model'),
    json_extract(payload, '$.metadata.provider'),
    json_extract(payload, '$.metadata.usage'),
    timestamp
) ELSE '[null,null,null,null]' END WHERE type IN ('llm_response', 'embedding_response');
CREATE INDEX turns ON events (trace, turn) WHERE turn IS NOT NULL;
"""

# Calls are numbered among all and among equal ones. Equal calls with the same difference follow one another.
_ADD_LOOPS: Final = """
ALTER TABLE traces ADD COLUMN repeated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN open_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN last_call INTEGER;
ALTER TABLE traces ADD COLUMN alike INTEGER NOT NULL DEFAULT 0;
CREATE TABLE loops (trace INTEGER PRIMARY KEY, longest INTEGER NOT NULL);
INSERT INTO loops SELECT trace, max(length) FROM (
    SELECT trace, count(*) AS length FROM (
        SELECT trace, calls,
            row_number() OVER (PARTITION BY trace ORDER BY id)
            - row_number() OVER (PARTITION BY trace, calls ORDER BY id) AS row
        FROM (
            SELECT id, trace, CASE WHEN json_valid(payload)
                AND json_array_length(payload, '$.content.toolCalls') = 1
                THEN json_array(
                    json_extract(payload, '$.content.toolCalls[0].name'),
                    json_extract(payload, '$.content.toolCalls[0].arguments')
                ) ELSE id END AS calls
            FROM events WHERE type = 'tool_call_request'
        )
    ) GROUP BY trace, calls, row
) GROUP BY trace;
UPDATE traces SET repeated = coalesce((SELECT longest FROM loops WHERE loops.trace = traces.id), 0);
DROP TABLE loops;
UPDATE traces SET open_calls = max(0, (SELECT coalesce(sum(CASE
    WHEN type IN ('tool_call_request', 'embedding_request') THEN 1
    WHEN type IN ('tool_call_response', 'embedding_response', 'step_end') THEN -1
    WHEN type = 'llm_thinking' THEN json_type(payload, '$.metadata.step') IS 'text'
    WHEN json_extract(payload, '$.metadata.function') IS NULL THEN 0
    WHEN type IN ('user_message', 'tool_result') THEN 1
    WHEN type IN ('llm_response', 'error') THEN -1
    ELSE 0
END), 0) FROM events WHERE trace = traces.id AND json_valid(payload)));
"""

# The calls that may still change are found when a trace that has open ones goes on: to pair all of them in SQL would
# take a statement for each way in which they pair. A call of a model that failed counts from here on.
_ADD_ONGOING: Final = """
ALTER TABLE traces ADD COLUMN ongoing TEXT;
CREATE TABLE failed (trace INTEGER PRIMARY KEY, turns INTEGER NOT NULL);
INSERT INTO failed SELECT trace, count(*) FROM events
    WHERE type = 'error' AND json_valid(payload)
    AND json_type(payload, '$.metadata.function') = 'text' AND json_extract(payload, '$.metadata.function') <> ''
    AND json_type(payload, '$.metadata.wraps') IS NOT 'true'
    AND (trace, coalesce(parent, 0)) NOT IN (SELECT trace, step FROM events WHERE type = 'embedding_request')
    GROUP BY trace;
UPDATE traces SET llm_responses = llm_responses + (SELECT turns FROM failed WHERE failed.trace = traces.id)
    WHERE id IN (SELECT trace FROM failed);
DROP TABLE failed;
"""

# Records are moved to another table by the next upgrade. A process that opened the file before finds none to write to.
_BEGIN_MOVE: Final = """
DROP INDEX turns;
DROP INDEX events_by_key;
ALTER TABLE events RENAME TO earlier;
"""

#: Characters that no JSON contains as they are.
_CONTROL: Final = re.compile("[\x00-\x1f]")
_EARLIER: Final = (
    "SELECT earlier.id, trace, payload, turn, step, parent, within, type, span, timestamp, key, trace_id, agent_name"
    " FROM earlier JOIN traces ON traces.id = trace WHERE earlier.id > ? ORDER BY earlier.id LIMIT ?"
)


def move(connection: sqlite3.Connection) -> bool:
    """
    Move records to their new table for half a second, in an open transaction, then give the room of the old one back.

    The records that were moved stay so if the process is killed.

    Returns:
        True if there is more to do.
    """
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'earlier'").fetchone() == (0,):
        before = _free(connection)
        for _ in range(min(before, _PAGES)):
            connection.execute("PRAGMA incremental_vacuum")  # takes one step, which frees one page
        return 0 < _free(connection) < before
    deadline = time.monotonic() + _SECONDS
    records, last = Records(connection), 0
    while True:
        rows = _some(connection.execute(_EARLIER, (last, SLICE)))
        if not rows:
            connection.execute("DROP TABLE earlier")
            return True
        records.insert([_row(records, *row) for row in rows])
        last = rows[-1][0]
        if time.monotonic() > deadline:
            connection.execute("DELETE FROM earlier WHERE id <= ?", (last,))
            return True


def read_outcomes(connection: sqlite3.Connection) -> bool:
    """
    Count the calls that say that they failed, and find how traces ended, for half a second, in an open transaction.

    Returns:
        True if there is more to do.
    """
    deadline = time.monotonic() + _SECONDS
    for (number,) in connection.execute("SELECT id FROM traces WHERE said_failed < 0").fetchall():
        if time.monotonic() > deadline:
            return True
        ongoing = Ongoing(summary := TraceSummary(""))
        for head in readable_heads(connection, number):
            ongoing.add(head)
        ongoing.count()
        outcome = (
            summary.said_failed,
            summary.ending,
            summary.ended_with,
            summary.failed,
            ongoing.keep(),
            number,
        )
        connection.execute(
            "UPDATE traces SET said_failed = ?, ending = ?, ended_with = ?, failed = ?, ongoing = ? WHERE id = ?",
            outcome,
        )
    return False


def _some(rows: sqlite3.Cursor) -> list[Any]:
    """Return rows until they are large enough."""
    taken, size = [], 0
    for row in rows:
        taken.append(row)
        size += len(row[2])
        if size > _BYTES:
            break
    return taken


def _row(records: Records, number: int, trace: int, payload: str, turn: str | None, *facts: Any) -> Row:
    lifted = Lifted(foreign(payload)) if _CONTROL.search(payload) else records.lift(payload.encode())
    return Row(number, trace, Facts(*facts), lifted, turn)


def _free(connection: sqlite3.Connection) -> int:
    """Return the number of free pages."""
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


#: The steps from format 1 to format 2, from there to format 3, and so on.
UPGRADES: Final[tuple[Upgrade, ...]] = (
    _ADD_TURNS,
    _ADD_LOOPS + OF_FORMAT_3,
    _ADD_ONGOING,
    _BEGIN_MOVE + OF_FORMAT_5,
    move,
    OF_FORMAT_7,
    OF_FORMAT_8,
    read_outcomes,
    OF_FORMAT_10,
)
