"""The members of a record by which its partners are found: those of its own call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from whyops_trace._reading.record import Head, StoredRecord, order, tool_name
from whyops_trace._recording.line import NO_SPAN
from whyops_trace._shapes import text_of

#: Kinds of calls.
Kind = Literal["tool", "llm", "embedding", "step"]
#: Roles of a record in its call: an ``error`` names its tool; ``thought`` is a model's.
Part = Literal["request", "response", "error", "thought"]

_PARTS: Final[Mapping[str, tuple[Kind, Part]]] = {
    "tool_call_request": ("tool", "request"),
    "tool_call_response": ("tool", "response"),
    "user_message": ("llm", "request"),
    "tool_result": ("llm", "request"),
    "llm_response": ("llm", "response"),
    "embedding_request": ("embedding", "request"),
    "embedding_response": ("embedding", "response"),
    "llm_thinking": ("llm", "thought"),
    "step_end": ("step", "response"),
    "error": ("llm", "response"),
}
#: The types of the records that make calls.
TYPES: Final = frozenset(_PARTS)
_NO_SPAN: Final = NO_SPAN.decode()


class Half(msgspec.Struct, array_like=True, gc=False):
    """
    The members of a record by which its partners are found.

    Attributes:
        kind: Kind of its call.
        part: Its role in that call.
        step: Its step.
        parent: The step of its request, if it is told by its parent; 0 if it names none.
        within: The step of the enclosing call.
        run: The numbering that the steps belong to.
        span: Its span, "" for none.
        name: The tool, or the traced function; "" for what was recorded by hand.
        timestamp: Time of recording.
        fails: True for an error that names no tool; it may stand in the place of an answer.
        counts: False if its call only repeats that of a client.
        place: Its place among the records, for the caller.
        failed: True if it tells of an error, for the caller.
        said_failed: True if it is the end of a tool that says that it failed, for the caller.
    """

    kind: Kind
    part: Part
    step: int
    parent: int
    within: int
    run: str
    span: str
    name: str
    timestamp: str
    fails: bool = False
    counts: bool = True
    place: int = -1
    failed: bool = False
    said_failed: bool = False

    @property
    def order(self) -> tuple[float, int, bool]:
        """Sort key: by time, then by step, the end of a step after its beginning."""
        return order(self.timestamp, self.step, self.kind == "step")

    @property
    def by_hand(self) -> bool:
        """True for a call of a model that no traced function recorded."""
        return self.kind == "llm" and not self.name


def half_of(record: StoredRecord, place: int = -1) -> Half | None:
    """Return what of a decoded record tells which others it belongs to, None if it is part of no call."""
    found = _PARTS.get(record.kind)
    if found is None:
        return None
    about = record.metadata.get
    half = Half(
        *found, record.step, record.parent, record.within, record.run, record.span, text_of(about("function")),
        record.timestamp, False, about("wraps") is not True, place,
    )  # fmt: skip
    return _named(half, record.kind, about("tool"), about("step"), record)


def half_of_head(head: Head, place: int = -1) -> Half | None:
    """Return what :func:`half_of` does, of a record that was not decoded beyond its head."""
    found = _PARTS.get(head.event_type)
    if found is None:
        return None
    about = head.metadata
    half = Half(
        *found, head.step_id, head.parent_step_id or 0, about.within, head.run or "", head.span_id or "",
        text_of(about.function), head.timestamp, False, about.wraps is not True, place,
    )  # fmt: skip
    return _named(half, head.event_type, about.tool, about.step, head)


def _named(half: Half, type: str, tool: object, step: object, record: StoredRecord | Head) -> Half | None:
    """Return a half under the name of its call and without a span that is none, None if it is part of no call."""
    if half.span == _NO_SPAN:
        half.span = ""
    if half.kind == "tool":
        half.name = tool if isinstance(tool, str) and tool else tool_name(tool, record.plain)
    elif type == "step_end":
        half.parent, half.span, half.name = half.step, "", ""  # it repeats the step of its beginning
    elif type == "llm_thinking":
        if isinstance(step, str):
            half.kind, half.part, half.span, half.name = "step", "request", "", ""
        elif half.name:
            return None  # it stands in the call that recorded it
    elif type == "error":
        half.fails = True
        if not half.name and isinstance(tool, str) and tool:
            half.kind, half.part, half.name = "tool", "error", tool
    return half
