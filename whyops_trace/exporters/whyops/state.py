"""
Answers of a WhyOps server that must outlive the process: the offsets of numberings, and the agents that it knows.

Both are in the SQLite file ``server.db`` of the home. If that cannot be written, a warning is logged and they are kept
in memory. A process that is killed then may leave a trace whose steps do not line up.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from whyops_trace._database import MachineClock
from whyops_trace.exporters._state_file import StateFile

#: Number of numberings whose offsets are remembered in memory: more than the traces that a recorder remembers.
REMEMBERED_NUMBERINGS: Final = 20_000
#: Number of numberings of other processes whose offsets are looked for.
EXPECTED: Final = 1_000
#: Seconds that an offset is kept on disk: 30 days, long after the journal has forgotten its records.
OFFSET_LIFETIME: Final = 30 * 24 * 3600
#: Seconds after which the time of an offset is believed, and the age of others counts from it.
SEEN_AGO: Final = 24 * 3600

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
    refusals INTEGER NOT NULL,
    id TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE sampled_out (
    agent TEXT PRIMARY KEY,
    events INTEGER NOT NULL,
    since INTEGER NOT NULL
) WITHOUT ROWID;
"""

#: The change from format 1 to 2.
_UPGRADES: Final = (
    """
CREATE TABLE sampled_out (
    agent TEXT PRIMARY KEY,
    events INTEGER NOT NULL,
    since INTEGER NOT NULL
) WITHOUT ROWID;
ALTER TABLE agents ADD COLUMN id TEXT NOT NULL DEFAULT '';
""",
)

#: A numbering and the process that counts in it: usually the one that the numbering is named after, else a fork of it.
NumberingKey = tuple[str, str]


class Agent(NamedTuple):
    """
    The registration of an agent.

    Attributes:
        registered: Fingerprint of the metadata that it was registered with last, "" if never.
        refused: Fingerprint of the metadata that the server failed to register last, "" if none.
        refusals: Number of those failures in a row.
        id: The server's id of the agent, "" if that is not known.
    """

    registered: str = ""
    refused: str = ""
    refusals: int = 0
    id: str = ""


class SampledOut(NamedTuple):
    """
    The events of an agent that a server did not keep.

    Attributes:
        events: Their number.
        since: The time of the first of them, in seconds since the epoch.
    """

    events: int = 0
    since: int = 0


class ServerState:
    """
    The file, with a cache of it in memory.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = StateFile(
            path,
            _SCHEMA,
            _UPGRADES,
            without="What the server said of the numbering of traces is kept in memory only, and lost with the process",
        )
        self._offsets: OrderedDict[NumberingKey, int] = OrderedDict()
        self._expected: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._agents: dict[str, Agent] = {}
        self._pruned = False

    def offset(self, key: NumberingKey) -> int | None:
        """Return the offset of a numbering; None if it is not known."""
        offset = self._offsets.get(key)
        if offset is None:
            rows = self._file.rows("SELECT shift FROM runs WHERE run = ? AND process = ?", *key)
            if rows:
                offset = rows[0][0]
                self._remember(key, offset)
        else:
            self._offsets.move_to_end(key)
        return offset

    def remembered(self, numbering: str, process: str) -> int | None:
        """Return the offset of a numbering if it is in memory, None if it is not. It never waits."""
        return self._offsets.get((numbering, process))

    def remember(self, numbering: str, process: str, offset: int) -> None:
        """Remember an offset that another process tells. It is on disk before a record with it leaves."""
        self._remember((numbering, process), offset)

    def expect(self, numbering: str, key: str, step: int) -> None:
        """Remember the key and the step of the first event of a numbering that another process tells."""
        self._expected[numbering] = (key, step)
        while len(self._expected) > EXPECTED:
            with suppress(KeyError):  # another thread was faster
                self._expected.popitem(last=False)

    def expected(self, numbering: str) -> tuple[str, int] | None:
        """Return the key and the step of the first event of a numbering, None if nobody has told them."""
        return self._expected.get(numbering)

    def keep_offsets(self, offsets: Mapping[NumberingKey, int]) -> None:
        """Keep the offsets of numberings. They are on disk when this returns."""
        now = MachineClock.time_ns() // 1_000_000_000
        rows = [(*key, offset, now) for key, offset in offsets.items()]
        # As in the store, one wrong reading of the clock deletes nothing.
        prune = (
            "DELETE FROM runs WHERE made_at < (SELECT max(made_at) FROM runs WHERE made_at < ?) - ?",
            [] if self._pruned else [(now - SEEN_AGO, OFFSET_LIFETIME)],
        )
        if self._file.write(("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", rows), prune):
            self._pruned = True
        for key, offset in offsets.items():
            self._remember(key, offset)

    def agent(self, key: str) -> Agent:
        """Return the registration of an agent."""
        agent = self._agents.get(key)
        if agent is None:
            rows = self._file.rows(
                "SELECT registered, refused, refusals, id FROM agents WHERE agent = ?", key
            )
            agent = self._agents[key] = Agent(*rows[0]) if rows else Agent()
        return agent

    def keep_agent(self, key: str, agent: Agent) -> None:
        """Keep the registration of an agent."""
        self._agents[key] = agent
        self._file.write(("INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?, ?)", [(key, *agent)]))

    def sampled_out(self, key: str) -> SampledOut:
        """Return the events of an agent that the server did not keep, over all processes."""
        rows = self._file.rows("SELECT events, since FROM sampled_out WHERE agent = ?", key)
        return SampledOut(*rows[0]) if rows else SampledOut()

    def count_sampled_out(self, key: str, events: int) -> None:
        """Count further events of an agent that the server did not keep."""
        self._file.write(
            (
                "INSERT INTO sampled_out VALUES (?, ?, ?)"
                " ON CONFLICT (agent) DO UPDATE SET events = events + excluded.events",
                [(key, events, int(time.time()))],
            )
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _remember(self, key: NumberingKey, offset: int) -> None:
        self._offsets[key] = offset
        if len(self._offsets) > REMEMBERED_NUMBERINGS:
            self._offsets.popitem(last=False)
