"""The agents registered with the collector, in every version."""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from typing import Final, NamedTuple

#: SQL that selects the columns of :class:`AgentVersion`.
AGENTS: Final = "SELECT version_id, agent_id, name, hash, metadata, made_at FROM agents"


class AgentVersion(NamedTuple):
    """
    One version of an agent.

    Attributes:
        version_id: Its own id.
        agent_id: The id of the agent, the same in all its versions.
        name: The name of the agent.
        hash: Hash of its metadata, different in each version.
        metadata: Its prompt, tools and description, as JSON.
        made_at: Time of its first registration, in seconds since the epoch.
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
    Return the version of an agent with this metadata, and True if it is new, in an open transaction.

    A registered version stays known, even after other versions.
    """
    digest = hashlib.sha256(metadata).hexdigest()[:32]
    versions = [AgentVersion(*row) for row in connection.execute(AGENTS + " WHERE name = ?", (name,))]
    for version in versions:
        if version.hash == digest:
            return version, False
    agent_id = versions[0].agent_id if versions else str(uuid.uuid4())
    new = AgentVersion(str(uuid.uuid4()), agent_id, name, digest, metadata.decode(), now)
    connection.execute("INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?)", new)
    return new, True
