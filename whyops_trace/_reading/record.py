"""
A stored record as it is read: the members that readers need, each of a type that can be relied on.

:class:`StoredRecord` is a decoded record, whose strange values became empty ones. :class:`Head` is a line that is not
decoded beyond its head, for those who read very many: of a record with 5 KB of messages it takes a tenth of the time,
of a small one a quarter.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from whyops_trace._reading.excerpt import failure, get, number, problem
from whyops_trace._reading.verdict import Verdict, verdict_of
from whyops_trace._recording.line import LOCAL
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: The highest step number; the sum of as many as one trace can have runs still fits into 64 bits.
_MAX_STEP: Final = 2**40
Step = Annotated[int, msgspec.Meta(ge=0, le=_MAX_STEP)]
#: A key made by the recorder, or the name of a run: the token of its process, and a number.
_OWN_KEY: Final = re.compile(r"([0-9a-f]{12})-\d+")


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """
    A record.

    The garbage collector does not look at it: decoded JSON holds no circles, and readers keep very many at a time.

    Attributes:
        kind: The event type.
        step: Its number, 0 if it has none.
        parent: The step it follows from, 0 if it has none.
        within: The step of the enclosing call, 0 at the top. It is told, or known by when the process ran.
        span: Its span id.
        run: The numbering it belongs to.
        process: The token of the process of this library that recorded it, "" if another program did.
        timestamp: Time of recording, as it was written.
        trace_id: The trace it belongs to.
        agent_name: The agent that recorded it.
        metadata: Its metadata.
        content: Its content, which may be anything.
        ends: True for the last record of its trace.
    """

    kind: str
    step: int
    parent: int
    within: int
    span: str
    run: str
    process: str
    timestamp: str
    trace_id: str
    agent_name: str
    metadata: dict[str, Any]
    content: Any
    ends: bool

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> StoredRecord:
        """Return a decoded record."""
        member = event.get
        metadata = dict_of(member("metadata"))
        run = text_of(member("run"))
        return cls(
            text_of(member("eventType")),
            _step(member("stepId")),
            _step(member("parentStepId")),
            _step(metadata.get("within")) or _step(metadata.get("ranIn")),
            text_of(member("spanId")),
            run,
            _process_of_run(run) or process_of(text_of(member("idempotencyKey"))),
            text_of(member("timestamp")),
            text_of(member("traceId")),
            text_of(member("agentName")),
            metadata,
            member("content"),
            member("end") is True,
        )

    def plain(self) -> Any:
        """Return its content."""
        return self.content

    @property
    def moment(self) -> int | None:
        """Time of recording in whole milliseconds since the epoch, None if unknown."""
        return moment(self.timestamp)

    @property
    def error(self) -> str:
        """The error that it tells of as the end of a call, in words; "" if it tells of none."""
        return error_of(self.kind, self.metadata.get("outcome"), self.content)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of a tool's results on its call, None if there is none or the call ended in another way."""
        about = self.metadata.get
        if self.kind != "tool_call_response" or about("outcome") is not None or self.error:
            return None
        return verdict_of(about("failed"), get(self.content, "toolResults"))

    @property
    def is_captured(self) -> bool:
        """True unless it says that its content was left out."""
        return self.metadata.get("captured") is not False

    @property
    def is_local(self) -> bool:
        """True if no WhyOps server sees it."""
        return self.kind in LOCAL

    @property
    def order(self) -> tuple[float, int, bool]:
        """Sort key for the order in which a WhyOps server reads records."""
        return order(self.timestamp, self.step, self.is_local)


class About(msgspec.Struct, rename="camel", gc=False):
    """The members of a record's metadata that readers of many records look at; all but the first may hold anything."""

    within: Step = 0
    outcome: Any = None
    model: Any = None
    provider: Any = None
    usage: Any = None
    wraps: Any = None
    doubles: Any = None
    latency_ms: Any = None
    ran_at: Any = None
    trace: Any = None
    function: Any = None
    step: Any = None
    tool: Any = None
    failed: Any = None
    source: Any = None
    captured: Any = None


class Head(msgspec.Struct, rename="camel", gc=False):
    """
    A record as far as one has to understand it who reads very many; the rest is skipped, not decoded.

    Decoding one that is not of this form raises ``msgspec.ValidationError``; :func:`head_of` takes what is stored.

    Attributes:
        content: Its content as it stands in the line.
        audience: Destinations it is for, "" for all.
    """

    event_type: str
    trace_id: str
    step_id: Step
    idempotency_key: str
    parent_step_id: Step | None = None
    run: str | None = None
    given: list[str] = []
    metadata: About = msgspec.field(default_factory=About)
    span_id: str | None = None
    timestamp: str = ""
    agent_name: str = ""
    external_user_id: str | None = None
    content: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    end: bool = False
    audience: str = msgspec.field(default="", name="for")

    def plain(self) -> Any:
        """Return its content as plain values, None where it holds numbers that no float can hold."""
        return decoded(self.content)

    @property
    def error(self) -> str:
        """The error that it tells of as the end of a call, in words; "" if it tells of none."""
        if self.event_type == "error" or b'"error"' in bytes(self.content):  # most need not be decoded
            content = self.plain()
            if content is None:  # an error may stand beside a number that no float can hold
                # or beside one with thousands of digits, which Python refuses to read
                with contextlib.suppress(RecursionError, ValueError):
                    content = json.loads(bytes(self.content))
            return error_of(self.event_type, self.metadata.outcome, content)
        return "failed" if self.metadata.outcome == "error" else ""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of a tool's results on its call, None if there is none or the call ended in another way."""
        if self.event_type != "tool_call_response" or self.metadata.outcome is not None or self.error:
            return None
        return verdict_of(self.metadata.failed, get(self.plain(), "toolResults"))


class _AboutStored(About, rename="camel", gc=False):
    within: Any = 0


class _Stored(Head, rename="camel", gc=False):
    metadata: _AboutStored = msgspec.field(  # pyright: ignore[reportIncompatibleVariableOverride] - what it decodes
        default_factory=_AboutStored
    )


_as_recorded: Final = msgspec.json.Decoder(Head)
_as_stored: Final = msgspec.json.Decoder(_Stored)


def head_of(line: str) -> Head:
    """
    Return a stored line that is not decoded beyond its head, of whatever client.

    Raises:
        msgspec.DecodeError: if it is no record.
        UnicodeEncodeError: if it holds half a surrogate pair.
        RecursionError: if it is nested too deeply.
    """
    try:
        return _as_recorded.decode(line)
    except msgspec.ValidationError:
        head = _as_stored.decode(line)
        head.metadata.within = _step(head.metadata.within)
        return head


def process_of(key: str) -> str:
    """Return the token of the process of this library that made an idempotency key or a run, "" if none did."""
    own = _OWN_KEY.fullmatch(key)
    return own[1] if own else ""


#: A trace has few runs.
_process_of_run: Final = lru_cache(256)(process_of)


def tool_name(tool: object, content: Callable[[], Any]) -> str:
    """
    Return the name of the tool that a record is about, of several all of them; "" if it tells none.

    Args:
        tool: Member ``tool`` of its metadata.
        content: Returns its content, which is looked at only where the metadata says nothing.
    """
    calls = () if isinstance(tool, str) and tool else dicts_of(get(content(), "toolCalls"))
    return text_of(tool) or ", ".join(text_of(call.get("name")) for call in calls)


def error_of(kind: str, outcome: object, content: object) -> str:
    """
    Return the error that the end of a call, a step or a trace tells of, in words; "" if it tells of none.

    It is what an ``error`` event holds, what a tool's results consist of, or a member ``error`` of the content. An end
    whose outcome or finish reason is ``error`` failed as well, whatever else it holds. Words that are missing are
    "failed".
    """
    if kind == "error":
        return problem(content) or "failed"
    if isinstance(content, dict):
        results = content.get("toolResults")
        error = (results and failure(results)) or content.get("error")
        if error and isinstance(error, (dict, str)):
            return problem(error) or "failed"
        if content.get("finishReason") == "error":
            return "failed"
    return "failed" if outcome == "error" else ""


def moment(timestamp: str) -> int | None:
    """Return a timestamp to the millisecond, as a server keeps it: what is finer is cut off."""
    try:
        time = datetime.fromisoformat(timestamp)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        # Half a microsecond mends what the float lost.
        return math.floor(time.timestamp() * 1000 + 0.0005)
    except (ValueError, OverflowError):
        return None


def order(timestamp: str, step: int, is_local: bool) -> tuple[float, int, bool]:
    """Return the sort key for the order in which a WhyOps server reads records: by time, then by step."""
    when = moment(timestamp)
    # The end of a step or trace repeats the step of its beginning.
    return (-math.inf if when is None else when, step, is_local)


def latency(measured: object, began: str, ended: str, ran_at: object) -> float | None:
    """
    Return the milliseconds of a call: as they were measured, else between two timestamps; None without either.

    Args:
        measured: Member ``latencyMs`` of the metadata of its end.
        began: The timestamp of its request, "" without one.
        ended: The timestamp of its end.
        ran_at: Member ``ranAt`` of the same metadata. A tool that ran at the provider is recorded when its turn ends,
            so its timestamps tell nothing.
    """
    took = number(measured)
    if took is not None:
        return took
    first, last = moment(began), moment(ended)
    return None if ran_at is not None or first is None or last is None else float(max(0, last - first))


def decoded(raw: msgspec.Raw) -> Any:
    """Return a part of a record as plain values, None where it holds numbers that no float can hold."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _step(thing: object) -> int:
    return thing if type(thing) is int and 0 < thing <= _MAX_STEP else 0
