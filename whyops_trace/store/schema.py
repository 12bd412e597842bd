"""The tables of the store, and the upgrades from earlier formats."""

from __future__ import annotations

from typing import Final

# The tables added by format 3.
_OF_FORMAT_3: Final = """
CREATE TABLE deleted (
    trace INTEGER NOT NULL,
    event INTEGER NOT NULL
);
INSERT INTO deleted VALUES (0, 0);
CREATE TABLE agents (
    version_id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    metadata TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    UNIQUE (name, hash)
) WITHOUT ROWID;
"""

# The columns of `traces` between the first five and the last three are the fields of TraceSummary, in their order.
# `last_call` and `alike` are the last tool call and the length of its row of equal calls; `ongoing` has the calls that
# may still change.
#
# `turn` holds the data that prices a turn of a model, and the index `turns` holds all of it, so that pricing a trace
# reads no payloads. `deleted` keeps the highest deleted numbers, so that they are not used again.
#
# Each format has more columns in a table that every batch is inserted into by position. So a process that opened the
# file with an earlier format can no longer insert. Its records wait in its journal for a process of a newer version.
SCHEMA: Final = (
    """
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    last_step INTEGER NOT NULL,
    process TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    trace_id TEXT NOT NULL UNIQUE,
    tags TEXT NOT NULL,
    metadata TEXT NOT NULL,
    agent_name TEXT NOT NULL,
    external_user_id TEXT,
    started_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    event_count INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    llm_responses INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    asked TEXT NOT NULL,
    ended_with TEXT NOT NULL,
    failed INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    repeated INTEGER NOT NULL,
    open_calls INTEGER NOT NULL,
    last_call INTEGER,
    alike INTEGER NOT NULL,
    ongoing TEXT
);
CREATE INDEX traces_by_time ON traces (last_at);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    trace INTEGER NOT NULL,
    step INTEGER NOT NULL,
    parent INTEGER,
    within INTEGER NOT NULL,
    type TEXT NOT NULL,
    span TEXT,
    timestamp TEXT NOT NULL,
    key TEXT NOT NULL,
    payload TEXT NOT NULL,
    turn TEXT
);
CREATE UNIQUE INDEX events_by_key ON events (trace, key);
CREATE INDEX turns ON events (trace, turn) WHERE turn IS NOT NULL;
CREATE TABLE runs (
    run TEXT NOT NULL,
    trace INTEGER NOT NULL,
    shift INTEGER NOT NULL,
    PRIMARY KEY (run, trace)
) WITHOUT ROWID;
CREATE INDEX runs_by_trace ON runs (trace);
CREATE TABLE processes (
    token TEXT PRIMARY KEY,
    ended_at INTEGER NOT NULL
) WITHOUT ROWID;
"""
    + _OF_FORMAT_3
)

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

#: SQL from format 1 to format 2, from there to format 3, and so on.
UPGRADES: Final = (_ADD_TURNS, _ADD_LOOPS + _OF_FORMAT_3, _ADD_ONGOING)
