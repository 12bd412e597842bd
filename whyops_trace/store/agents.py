"""The agents that were registered with the collector, in every version they had."""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from typing import Final, NamedTuple

#: Reads versions, as :class:`AgentVersion` has them.
AGENTS: Final = "SELECT version_id, agent_id, name, hash, metadata, made_at FROM agents"


class AgentVersion(NamedTuple):
    """
    One version of an agent.

    Attributes:
        version_id: Its own id.
        agent_id: The id of the agent, the same in all its versions.
        name: The name of the agent.
        hash: What tells its metadata from that of other versions.
        metadata: The prompt, the tools and the description of it, as JSON.
        made_at: When it was registered first, in seconds since the epoch.
    """

    version_id: str
    agent_id: str
    name: str
    hash: str
    metadata: str
    made_at: int


def register(
    connection: sqlite3.Connection, name: str, metadata: bytes, now: int
) -> tuple[AgentVersion, bool]:
    """
    Return the version of an agent that has this metadata, and whether it was made now, in an open transaction.

    A version that was registered once is known for good, whichever others came after it.
    """
    digest = hashlib.sha256(metadata).hexdigest()[:32]
    versions = [AgentVersion(*row) for row in connection.execute(AGENTS + " WHERE name = ?", (name,))]
    for version in versions:
        if version.hash == digest:
            return version, False
    agent_id = versions[0].agent_id if versions else str(uuid.uuid4())
    made = AgentVersion(str(uuid.uuid4()), agent_id, name, digest, metadata.decode(), now)
    connection.execute("INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?)", made)
    return made, True
