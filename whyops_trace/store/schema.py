"""The tables of the store."""

from __future__ import annotations

from typing import Final

#: The tables added by format 3.
OF_FORMAT_3: Final = """
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

# The columns of `traces` between the first five and the last four are the fields of TraceSummary, in their order.
# `last_call` and `alike` are the last tool call and the length of its row of equal calls; `ongoing` has the calls that
# may still change. `forgotten` is the number of events of earlier times, which were deleted for their age or for room;
# the table of that name has it of traces that were deleted whole, by a hash of their ids.
#
# `line` is what :mod:`~whyops_trace.store.packing` makes of a record, `refs` says which blobs belong into it. `uses`
# has the blobs of each trace. `turns` has the data that prices a turn of a model, so that pricing a trace reads no
# records. `deleted` has the highest deleted numbers, so that they are not used again, and the number of deletions.
#
# Each format up to 9 has other columns in a table that every batch is inserted into by position, or another table. So
# a process
# that opened the file with an earlier format can no longer insert. Its records wait in its journal for a process of a
# newer version.
OF_FORMAT_5: Final = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    trace INTEGER NOT NULL,
    step INTEGER NOT NULL,
    parent INTEGER,
    within INTEGER NOT NULL,
    type TEXT NOT NULL,
    span TEXT,
    timestamp TEXT NOT NULL,
    key TEXT NOT NULL,
    line NOT NULL,
    refs TEXT
);
CREATE UNIQUE INDEX records_by_key ON records (trace, key);
CREATE TABLE turns (
    trace INTEGER NOT NULL,
    record INTEGER NOT NULL,
    turn TEXT NOT NULL,
    PRIMARY KEY (trace, record)
) WITHOUT ROWID;
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    message INTEGER NOT NULL,
    data NOT NULL
);
CREATE TABLE uses (
    trace INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    PRIMARY KEY (trace, blob)
) WITHOUT ROWID;
CREATE INDEX uses_by_blob ON uses (blob);
ALTER TABLE deleted ADD COLUMN blob INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deleted ADD COLUMN times INTEGER NOT NULL DEFAULT 0;
"""

#: The column and the table added by format 7.
OF_FORMAT_7: Final = """
ALTER TABLE traces ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
CREATE TABLE forgotten (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    events INTEGER NOT NULL
);
"""

#: The columns added by format 8. The number is -1 in traces that the upgrade has not read yet.
OF_FORMAT_8: Final = """
ALTER TABLE traces ADD COLUMN said_failed INTEGER NOT NULL DEFAULT -1;
ALTER TABLE traces ADD COLUMN ending TEXT NOT NULL DEFAULT '';
"""

#: The table added by format 10: the latest score of each name on a step of a trace, whether the trace is here or not.
#: A process of an earlier format does not know it, and need not: the scores of a trace that it deletes are forgotten
#: with the next ones that are too old.
OF_FORMAT_10: Final = """
CREATE TABLE scores (
    trace_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    is_thumb INTEGER NOT NULL,
    label TEXT NOT NULL,
    comment TEXT NOT NULL,
    source TEXT NOT NULL,
    time TEXT NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (trace_id, step, name)
) WITHOUT ROWID;
CREATE INDEX scores_by_name ON scores (name, value);
"""

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
    + OF_FORMAT_3
    + OF_FORMAT_5
    + OF_FORMAT_7
    + OF_FORMAT_8
    + OF_FORMAT_10
)
