"""
What a WhyOps server has said that must outlive the process: the offsets of numberings, and which agents it knows.

Both are in the SQLite file ``server.db`` of the home. Where that cannot be written they are kept in memory, with a
warning: a process that is killed then may leave a trace whose steps do not line up.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from whyops_trace._database import Database
from whyops_trace._guard import warn_once
from whyops_trace.exceptions import StoreError

#: Numberings whose offsets are remembered in memory: more than the traces whose numbering a recorder remembers.
REMEMBERED_NUMBERINGS: Final = 20_000
#: Seconds an offset is kept on disk: long after the journal has forgotten its records.
KEPT: Final = 30 * 24 * 3600

_SCHEMA: Final = """
CREATE TABLE runs (
    run TEXT NOT NULL,
    process TEXT NOT NULL,
    shift INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (run, process)
) WITHOUT ROWID;
CREATE TABLE agents (
    agent TEXT PRIMARY KEY,
    registered TEXT NOT NULL,
    refused TEXT NOT NULL,
    refusals INTEGER NOT NULL
) WITHOUT ROWID;
"""

#: A numbering and the process that counts: usually the one the numbering is named after, else a fork of that.
NumberingKey = tuple[str, str]


class Agent(NamedTuple):
    """
    What is known of an agent.

    Attributes:
        registered: Fingerprint of the metadata it was registered with last, "" if never.
        refused: Fingerprint of the metadata the server failed to register last, "" if none.
        refusals: How many times in a row.
    """

    registered: str = ""
    refused: str = ""
    refusals: int = 0


class ServerState:
    """
    The file, and what of it is in memory.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, _SCHEMA)
        self._offsets: OrderedDict[NumberingKey, int] = OrderedDict()
        self._agents: dict[str, Agent] = {}
        self._pruned = False

    def offset(self, key: NumberingKey) -> int | None:
        """Return the offset of a numbering; None if it is not known."""
        offset = self._offsets.get(key)
        if offset is None:
            rows = self._rows("SELECT shift FROM runs WHERE run = ? AND process = ?", *key)
            if rows:
                offset = rows[0][0]
                self._remember(key, offset)
        else:
            self._offsets.move_to_end(key)
        return offset

    def keep_offsets(self, offsets: Mapping[NumberingKey, int]) -> None:
        """Keep the offsets of numberings; it is on disk when this returns."""
        now = int(time.time())
        rows = [(*key, offset, now) for key, offset in offsets.items()]
        try:
            with self._database.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", rows)
                if not self._pruned:
                    connection.execute("DELETE FROM runs WHERE made_at < ?", (now - KEPT,))
                    self._pruned = True
        except StoreError as error:
            self._complain(error)
        for key, offset in offsets.items():
            self._remember(key, offset)

    def agent(self, key: str) -> Agent:
        """Return what is known of an agent."""
        known = self._agents.get(key)
        if known is None:
            rows = self._rows("SELECT registered, refused, refusals FROM agents WHERE agent = ?", key)
            known = self._agents[key] = Agent(*rows[0]) if rows else Agent()
        return known

    def keep_agent(self, key: str, agent: Agent) -> None:
        """Keep what is known of an agent."""
        self._agents[key] = agent
        try:
            with self._database.transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?)", (key, *agent))
        except StoreError as error:
            self._complain(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _remember(self, key: NumberingKey, offset: int) -> None:
        self._offsets[key] = offset
        if len(self._offsets) > REMEMBERED_NUMBERINGS:
            self._offsets.popitem(last=False)

    def _rows(self, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.rows(statement, *parameters)
        except StoreError as error:
            self._complain(error)
            return []

    def _complain(self, error: StoreError) -> None:
        warn_once(
            f"server state: {self._database.path}",
            "What the server said of the numbering of traces is kept in memory only, and lost with the process: %s",
            error,
        )
