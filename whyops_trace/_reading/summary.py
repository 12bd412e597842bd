"""The summary of a trace, and its change by each record."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._clock import iso
from whyops_trace._reading.excerpt import (
    Tokens,
    excerpt,
    get,
    milliseconds,
    number,
    question,
)
from whyops_trace._reading.halves import Half
from whyops_trace._reading.pairing import Call
from whyops_trace._reading.prices import is_billed
from whyops_trace._reading.record import Head, decoded
from whyops_trace._reading.score import Score
from whyops_trace._recording.line import LOCAL

#: Characters kept of a question, an answer or an error.
EXCERPT: Final = 120
#: Tags of a trace that are kept in its summary, and bytes of its metadata, as JSON: every list of traces reads them.
TAGS: Final = 100
METADATA_BYTES: Final = 64 << 10
#: So many equal calls of a tool one after the other are a loop; a WhyOps server draws the line here as well.
LOOP: Final = 3


class Tally(NamedTuple):
    """
    Numbers of calls.

    Attributes:
        tools: Of tools.
        turns: Of models, as far as they were answered or failed.
        open: Those, and steps, that have not ended.
        errors: Those that failed, and errors that belong to none.
        said_failed: Those of tools that did not fail, but say that they did.
    """

    tools: int = 0
    turns: int = 0
    open: int = 0
    errors: int = 0
    said_failed: int = 0

    @classmethod
    def of(cls, halves: Iterable[Half], calls: Iterable[Call]) -> Tally:
        """Count the calls that halves make."""
        tools = turns = open_ = said = 0
        errors = sum(half.failed and half.kind != "step" for half in halves)
        for call in calls:
            kind = call.first.kind
            if call.error is not None and call.response is not None and call.response.failed:
                errors -= 1  # both tell of the same
            if kind == "tool":
                tools += 1
                said += call.said_failed
            elif kind == "llm":
                turns += call.is_turn
            if call.response is None:
                open_ += call.is_open
        return cls(tools, turns, open_, errors, said)


class TraceSummary(msgspec.Struct, rename="camel"):
    """
    A trace in one line.

    Attributes:
        trace_id: Its id.
        tags: Tags of every ``trace(tags=...)``, the first 100 of them.
        metadata: Metadata of every ``trace(metadata=...)``, with the later value of a key that came twice. Members that
            would make it larger than 64 KiB are left out.
        agent_name: The agent that recorded it.
        external_user_id: The user it acted for last, if that was told.
        started_at: When it began, ISO 8601.
        last_at: When the latest record of it was made, ISO 8601.
        event_count: Its events, as a WhyOps server counts them.
        tool_calls: Calls of tools, each a request with its response, or one of the two that is there alone.
        llm_responses: Calls of models that were answered or failed, without what only repeats those of clients.
        errors: Calls that failed, and errors that belong to none; at least 1 if anything failed.
        prompt_tokens: Tokens of prompts that were not cached.
        completion_tokens: Tokens of answers.
        cache_read_tokens: Tokens of prompts that came from a cache.
        cache_creation_tokens: Tokens of prompts that were written to one.
        asked: The beginning of what the user asked first.
        ended_with: The beginning of what it ended with so far, an answer or an error.
        failed: True if that is an error.
        ended: True once its block was left; a trace recorded on by hand never ends.
        repeated: Largest number of calls in a row of one tool with the same arguments.
        open_calls: Calls and steps in it that have not ended.
        forgotten: Number of its earlier events, which the store deleted for their age or for room before it went on.
        said_failed: Calls of tools that did not raise, but whose results say that they failed.
        ending: Kind of what it ended with: ``answer``, ``error``, ``call`` if nothing came after a call of a tool,
            ``limit`` if its rounds were used up, "" if nothing was said.
        running: True if more may come: it has not ended, and no one saw its process end. Of a trace that was sent
            to the collector nobody knows; it counts as running while its last event is a few minutes old at most.
        cost: Cost of all calls of models in US dollars; None if one of them is unknown.
        scores: Scores of the trace and of its steps, the first 100 of them.
    """

    trace_id: str
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    agent_name: str = ""
    external_user_id: str | None = None
    started_at: str = ""
    last_at: str = ""
    event_count: int = 0
    tool_calls: int = 0
    llm_responses: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    asked: str = ""
    ended_with: str = ""
    failed: bool = False
    ended: bool = False
    repeated: int = 0
    open_calls: int = 0
    forgotten: int = 0
    said_failed: int = 0
    ending: str = ""
    running: bool = False
    cost: float | None = None
    scores: list[Score] = []

    @property
    def stopped(self) -> bool:
        """True if its process went in the middle of it: something was going on, and nobody saw it end."""
        return self.open_calls > 0 and not (self.ended or self.running)

    @property
    def tokens(self) -> Tokens:
        """The token counts as one value."""
        return Tokens(
            self.prompt_tokens, self.completion_tokens, self.cache_read_tokens, self.cache_creation_tokens
        )

    def add(self, record: Head) -> None:
        """Take one more record into account."""
        kind, metadata = record.event_type, record.metadata
        self._add_time(kind, record.timestamp, metadata.latency_ms)
        self.agent_name = self.agent_name or record.agent_name
        self.external_user_id = record.external_user_id or self.external_user_id
        if metadata.trace is not None:
            self._add_about(metadata.trace)
        if kind not in LOCAL:
            self.event_count += 1
        if record.metadata.usage is not None and is_billed(kind, record.metadata.wraps):
            self._add_tokens(record.metadata.usage)
        if kind == "user_message" and not self.asked:
            self.asked = excerpt(question(decoded(record.content)), EXCERPT)
        self.ended = self.ended or record.end

    @property
    def beginning(self) -> str:
        """A sentence that says that its beginning is not there any more, "" if it is."""
        events = f"{self.forgotten:,} earlier event{'' if self.forgotten == 1 else 's'}"
        return f"The beginning is missing: {events} went with the limits of the store." * (self.forgotten > 0)

    def count(self, before: Tally, after: Tally) -> None:
        """Count the calls of the trace anew, after some records that made of those of *before* those of *after*."""
        self.tool_calls = max(0, self.tool_calls + after.tools - before.tools)
        self.llm_responses = max(0, self.llm_responses + after.turns - before.turns)
        self.open_calls = max(0, self.open_calls + after.open - before.open)
        self.said_failed = max(0, self.said_failed + after.said_failed - before.said_failed)

    def _add_time(self, kind: str, timestamp: str, latency_ms: object) -> None:
        started = timestamp
        if kind == "trace_end":  # the block began before the first event in it
            end, latency = milliseconds(timestamp), number(latency_ms)
            if end is not None and latency is not None and latency <= end:
                started = iso(round(end - latency) * 1_000_000)
        self.started_at = min(self.started_at or started, started)
        self.last_at = max(self.last_at, timestamp)

    def _add_about(self, about: object) -> None:
        tags, metadata = get(about, "tags"), get(about, "metadata")
        if isinstance(tags, list):
            tags = [*self.tags, *(tag for tag in tags[:TAGS] if isinstance(tag, str))]
            self.tags = list(dict.fromkeys(tags))[:TAGS]
        if isinstance(metadata, dict):
            together = {**self.metadata, **metadata}
            if len(msgspec.json.encode(together)) <= METADATA_BYTES:
                self.metadata = together

    def _add_tokens(self, usage: object) -> None:
        counts = Tokens.of(usage)
        self.prompt_tokens += counts.prompt
        self.completion_tokens += counts.completion
        self.cache_read_tokens += counts.cache_read
        self.cache_creation_tokens += counts.cache_creation


class _Call(msgspec.Struct, gc=False):
    name: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b""))
    arguments: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b""))


class _Calls(msgspec.Struct, rename="camel", gc=False):
    tool_calls: list[_Call]


_calls: Final = msgspec.json.Decoder(_Calls)


def call_of(record: Head) -> int | None:
    """
    Return a number that tells the call of a ``tool_call_request`` from others, None if it is not exactly one.

    One whose arguments were not captured may be any. Equal arguments have the same number if they are written alike,
    which those of one program are.
    """
    if record.metadata.captured is False:
        return None
    try:
        calls = _calls.decode(record.content).tool_calls
    except msgspec.DecodeError:
        return None
    return zlib.crc32(calls[0].arguments, zlib.crc32(calls[0].name)) if len(calls) == 1 else None


_tags: Final = msgspec.json.Decoder(list[str])
_metadata: Final = msgspec.json.Decoder(dict[str, Any])
#: The types that the columns of a summary have, but for tags and metadata: with and without a user, and ``running``.
_SHAPES: Final = frozenset(
    (str, str, user, str, str, *[int] * 8, str, str, *[int] * 6, str, *running)
    for user in (str, type(None))
    for running in ((), (int,))
)
#: The columns of a summary, for a statement.
SUMMARY_COLUMNS: Final = ", ".join(TraceSummary.__struct_fields__[:-3])


def columns(summary: TraceSummary) -> list[Any]:
    """Return the columns of a summary up to ``open_calls``, which follow one another in the table."""
    trace_id, tags, metadata, *rest, _, _, _, _, _, _ = msgspec.structs.astuple(summary)
    return [trace_id, msgspec.json.encode(tags).decode(), msgspec.json.encode(metadata).decode(), *rest]


def from_columns(row: Sequence[Any]) -> TraceSummary:
    """
    Return the summary in the columns of a row, with or without ``running`` as the last one.

    Raises:
        TypeError: if they are not those of a summary.
        msgspec.MsgspecError: likewise.
    """
    trace_id, tags, metadata, *rest = row
    summary = TraceSummary(trace_id, _tags.decode(tags), _metadata.decode(metadata), *rest)
    if (type(trace_id), *map(type, rest)) not in _SHAPES:  # a damaged file may hold anything
        raise TypeError(f"The row of the trace {trace_id!r} has columns of other types.")
    for name in ("failed", "ended", "running"):
        setattr(summary, name, bool(getattr(summary, name)))  # SQLite knows no booleans
    return summary
