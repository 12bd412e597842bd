"""A record as an exporter reads it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from whyops_trace._recording.line import NO_SPAN, ending_of
from whyops_trace.types import Audience


class _Members(msgspec.Struct, rename="camel"):
    """The members that every record has, and those that only some records have."""

    event_type: str
    trace_id: str
    step_id: int
    metadata: dict[str, Any]
    span_id: str
    timestamp: str
    idempotency_key: str
    agent_name: str
    content: Any
    parent_step_id: int | None = None
    run: str | None = None
    external_user_id: str | None = None


_decoder: Final = msgspec.json.Decoder(_Members)


class Record:
    """
    An event with its numbers and its time, as it is in the journal.

    The line is decoded when the first attribute is read that needs it; :attr:`raw`, :attr:`process`, :attr:`audience`
    and :attr:`ends_trace` do not. A record is read-only, and may be kept.

    Args:
        raw: The line.
        process: The name of the process that recorded it.

    Attributes:
        raw: The whole record, one JSON object in UTF-8, without a newline.
        process: The name of the process that recorded it: twelve hexadecimal digits.

    Raises:
        ValueError: by every attribute that has to be decoded, if the line is no record of this version.
    """

    __slots__ = ("_decoded", "process", "raw")

    def __init__(self, raw: bytes, process: str) -> None:
        self.raw: bytes = raw
        self.process: str = process
        self._decoded: _Members | None = None

    def __repr__(self) -> str:
        return f"<Record {self.raw!r:.80}>"

    @property
    def _members(self) -> _Members:
        if self._decoded is None:
            try:
                self._decoded = _decoder.decode(self.raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{self.raw[:200]!r} is no record: {error}") from error
        return self._decoded

    @property
    def type(self) -> str:
        """The event type, such as ``tool_call_request``. ``step_end`` and ``trace_end`` record an end."""
        return self._members.event_type

    @property
    def trace_id(self) -> str:
        """The trace, 1 to 128 characters."""
        return self._members.trace_id

    @property
    def numbering(self) -> str | None:
        """
        The name of the count that its steps belong to; None if the trace has a single count.

        A trace id that the user chose may come back, in another process too. Then its steps are counted from 1 again,
        under another name.
        """
        return self._members.run

    @property
    def step(self) -> int:
        """Its number in the trace, from 1. ``step_end`` repeats that of its step, ``trace_end`` that of the first."""
        return self._members.step_id

    @property
    def parent(self) -> int | None:
        """The step that it follows from: the request of a response. None if it is the first of its trace."""
        return self._members.parent_step_id

    @property
    def within(self) -> int:
        """The step of the enclosing call; 0 at the top of the trace."""
        within: int = self._members.metadata.get("within", 0)
        return within

    @property
    def span_id(self) -> str | None:
        """The id that a request and its response share; None if the event is not one of a pair."""
        span_id = self._members.span_id
        return None if span_id == NO_SPAN.decode() else span_id

    @property
    def timestamp(self) -> str:
        """The time of recording, ISO 8601 in UTC to the millisecond, unless the user gave another one."""
        return self._members.timestamp

    @property
    def metadata(self) -> dict[str, Any]:
        """Further facts about the event, by its type: model, tokens, ``latencyMs``; and ``within``."""
        return self._members.metadata

    @property
    def content(self) -> Any:
        """The event itself, by its type: messages, arguments, results. Secrets are replaced."""
        return self._members.content

    @property
    def agent_name(self) -> str:
        """The name of the agent."""
        return self._members.agent_name

    @property
    def external_user_id(self) -> str | None:
        """The user that the agent acts for; None if none was named."""
        return self._members.external_user_id

    @property
    def idempotency_key(self) -> str:
        """The key that no other event has, at most 128 characters. A record that comes again has the same one."""
        return self._members.idempotency_key

    @property
    def audience(self) -> Audience:
        """The destinations that it is for."""
        return ending_of(self.raw).audience

    @property
    def ends_trace(self) -> bool:
        """True if it finishes its trace, as far as the process knows that recorded it."""
        return ending_of(self.raw).ends_trace
