"""
Calls and traces that are open: what of their records is needed until they end.

Both are plain data, so that they can be kept on disk while a call lasts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

from whyops_trace._recording.places import span_id_bytes, w3c_trace_id

Kind: TypeAlias = Literal["tool", "llm", "embedding", "step"]

#: Number of a trace's latest answers that asked for tools.
ANSWERS: Final = 32


class Record(msgspec.Struct, rename="camel", gc=False):
    """A record, with its content as it is."""

    event_type: str
    trace_id: str
    step_id: int
    metadata: dict[str, Any]
    span_id: str
    timestamp: str
    agent_name: str
    content: msgspec.Raw
    parent_step_id: int = 0
    run: str = ""
    external_user_id: str = ""
    idempotency_key: str = ""

    @property
    def time_ns(self) -> int:
        """Its time, in nanoseconds since the epoch."""
        return nanoseconds(self.timestamp)


class Asked(msgspec.Struct):
    """
    An answer that asked for tools.

    Attributes:
        span_id: The span of its turn.
        calls: The id, name and arguments, as JSON text, of each tool call that none was made for yet.
    """

    span_id: bytes
    calls: list[tuple[str, str, str]]


class OpenCall(msgspec.Struct, gc=False):
    """
    A call that has begun.

    Attributes:
        kind: Kind of call.
        step: The step of its request.
        within: The step of the enclosing call; 0 at the top.
        start_ns: Time of its request, in nanoseconds since the epoch.
        span: The span id of its records.
        metadata: That of its request.
        content: That of its request, as JSON.
        thoughts: Contents of what the model thought, as JSON.
        error: Content of the error that was recorded of it, as JSON; empty for none.
        by_hand: It is a message that was recorded by hand, and may stay without an answer.
    """

    kind: Kind
    step: int
    within: int
    start_ns: int
    span: str
    metadata: dict[str, Any]
    content: bytes
    thoughts: list[bytes] = []
    error: bytes = b""
    by_hand: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.content) + sum(map(len, self.thoughts)) + 500


class OpenTrace(msgspec.Struct):
    """
    A numbering of a trace, as far as its process recorded it.

    Attributes:
        id: The trace id of the user.
        run: The name of the numbering, "" if there is one only.
        own: True if it began in that process, which then tells of it as a whole.
        first: The step of its first record.
        start_ns: Time of its first record.
        last_ns: Time of its latest record.
        agent: The name of the agent.
        user: The user that the agent acts for, "" if none was named.
        about: Metadata and tags of the trace.
        remote: The span of another service that it is in, 16 hex digits; "" for none.
        tops: Number of ended calls at the top.
        told: True if the span of the whole has been made.
        input: What the agent was asked.
        input_step: The step of the request that said so; 0 for none.
        output: What the agent answered.
        asked: The latest answers that asked for tools, by their steps.
        thoughts: Times and texts of what was thought at the top.
        error: The latest error at the top that no call had, as JSON.
        by_hand: Messages were recorded by hand in it.
        seen: When its latest record was read, in seconds since the epoch.
    """

    id: str
    run: str
    own: bool
    first: int
    start_ns: int
    last_ns: int
    agent: str
    user: str = ""
    about: dict[str, Any] = {}
    remote: str = ""
    tops: int = 0
    told: bool = False
    input: str = ""
    input_step: int = 0
    output: str = ""
    asked: dict[int, Asked] = {}
    thoughts: list[tuple[int, str]] = []
    error: bytes = b""
    by_hand: bool = False
    seen: float = 0.0

    @property
    def trace_id(self) -> bytes:
        """Its id in W3C."""
        return _trace_id(self.id)

    def span_id(self, step: int) -> bytes:
        """Return the id in W3C of the call of a step; 0 is the trace as a whole."""
        return span_id_bytes(self.id, self.run or None, step)

    def enclosing_id(self, step: int) -> bytes:
        """Return the same of a step that encloses others: it is asked for by each of them."""
        return _enclosing_id(self.id, self.run, step)

    def note_asked(self, step: int, answer: Asked) -> None:
        """Remember an answer that asked for tools."""
        self.asked = {**self.asked, step: answer}
        if len(self.asked) > ANSWERS:
            self.asked.pop(next(iter(self.asked)))


@lru_cache(1_024)
def _trace_id(trace: str) -> bytes:
    return bytes.fromhex(w3c_trace_id(trace))


@lru_cache(4_096)
def _enclosing_id(trace: str, run: str, step: int) -> bytes:
    return span_id_bytes(trace, run or None, step)


@lru_cache(64)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


@lru_cache(256)
def nanoseconds(timestamp: str) -> int:
    """
    Return a time as nanoseconds since the epoch.

    Args:
        timestamp: ISO 8601; records have it in UTC with milliseconds.

    Raises:
        ValueError: if it is no time.
    """
    if len(timestamp) == 24 and timestamp[23] == "Z":
        return _second(timestamp[:19]) + int(timestamp[20:23]) * 1_000_000
    moment = datetime.fromisoformat(timestamp)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000) * 1_000
