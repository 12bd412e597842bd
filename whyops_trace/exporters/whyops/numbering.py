"""How records are numbered on a WhyOps server, which goes on counting where a trace id that comes back has got to."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, cast

import msgspec

from whyops_trace._checks import MAX_STEP
from whyops_trace._recording.line import LOCAL, USUAL, ending_of, is_usual
from whyops_trace._recording.numbers import Head, plain_head, read_head, without_numbering
from whyops_trace.exporters.base import Outcome
from whyops_trace.exporters.whyops.state import NumberingKey, ServerState

#: Seconds a forked child leaves to its parent to find out how the trace they share is numbered: longer than the
#: parent waits between two tries, and than it takes to find out that it is dead and to deliver what it left.
PATIENCE: Final = 45.0
#: Answers of models that are remembered, so that tool calls may name them.
REMEMBERED_ANSWERS: Final = 10_000

#: The start of a record that a server gets as it is, as nearly all are: nobody renumbers it, and it is no answer.
_PLAIN: Final = plain_head("llm_response", *LOCAL)
#: What stands for the start of a line that is no record.
_NO_HEAD: Final = cast("Head", read_head(b'{"eventType":"","traceId":"","stepId":0,"metadata":{"within":0'))


def is_plain(line: bytes) -> bool:
    """Tell whether a record needs no number and no change: the server gets it as it is."""
    return _PLAIN.match(line) is not None and is_usual(line)


class Event(msgspec.Struct, eq=False):
    """
    A record on its way.

    A struct, because one is made for each record, in a third of the time that ``__init__`` takes.

    Attributes:
        line: The record.
        plain: Whether the server gets it as it is, whatever it has got before.
        sent: What the server gets; empty until its numbers are known.
        key: Its numbering and the process that recorded it; None if it is never renumbered.
        outcome: What became of it; None if it has to come again.
        offset: The offset of its numbering, as the server's answer shows it; None if it shows none.
    """

    line: bytes
    plain: bool = False
    sent: bytes = b""
    key: NumberingKey | None = None
    outcome: Outcome | None = None
    offset: int | None = None
    _head: Head | None = None

    @property
    def head(self) -> Head:
        """Its start, read when somebody asks for it."""
        if self._head is None:
            self._head = read_head(self.line) or _NO_HEAD
        return self._head

    @property
    def is_record(self) -> bool:
        """Whether it is one, of this version."""
        return self.head is not _NO_HEAD

    def go_as(self, text: bytes) -> None:
        """Send it as this text, without what is only said to this side."""
        self.sent = text if is_usual(text) else text.removesuffix(ending_of(text).text) + USUAL.text

    def number(self, offset: int, *, requested: bool) -> None:
        """
        Number it as the offset of its numbering says.

        Args:
            offset: The offset.
            requested: Whether the server has the answer that asked for it.
        """
        numbers = self.head.numbers.moved(offset, self.head.given, begins=self.head.numbers.parent is None)
        known = numbers if 0 < numbers.step <= MAX_STEP else None
        self.go_as(without_numbering(self.line, self.head, known, requested=requested))

    def leave_to_server(self) -> None:
        """Have the server number it, after the last step of its trace."""
        self.go_as(without_numbering(self.line, self.head, None, requested=False))


class Renumbering:
    """
    Numbers events as their trace is numbered on the server.

    The first event of a numbering goes to the server without a number. What it is given there tells the offset of all
    others, which is on disk before they leave.

    Args:
        state: Where offsets are kept.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        #: The answers of models that the server gets from here: those that the proxy reports have other numbers there.
        self._answers: OrderedDict[tuple[bytes, str, int], None] = OrderedDict()
        #: Until when to wait for a parent's numbering.
        self._patience: dict[NumberingKey, float] = {}

    def number(self, events: Iterable[Event], process: str, ahead: Iterable[Event] = ()) -> list[Event]:
        """
        Number events as far as is possible now, and return those that the server has to number first.

        These are the first event of each numbering whose offset is not known yet, ready to be sent. The others of it
        wait, and so do all events after one that cannot go yet.

        Args:
            events: In the order they were recorded.
            process: The token of the process that recorded them.
            ahead: What comes after them, of which the numberings begin along: one request is enough for many.
        """
        begins: dict[NumberingKey, Event] = {}
        #: The numbering that each trace is in.
        current: dict[bytes, str] = {}
        for event in events:
            if not self._number_one(event, process, begins, current):
                return list(begins.values())
        for event in ahead if begins else ():
            if not self._number_one(event, process, begins, current):
                break
        return list(begins.values())

    def _number_one(
        self, event: Event, process: str, begins: dict[NumberingKey, Event], current: dict[bytes, str]
    ) -> bool:
        """Number an event, or let it begin its numbering, or wait; return whether those after it can go on."""
        if event.plain:
            event.sent = event.line
            return True
        head = event.head
        requested = self._note_answer(head)
        if event.outcome is not None:
            return True
        if not head.numbering:
            is_final = requested and not head.given
            line = event.line
            event.go_as(
                line if is_final else without_numbering(line, head, head.numbers, requested=requested)
            )
            return True
        key = event.key = (head.numbering, process)
        offset = self._offset(key)
        if offset is None and key not in begins and "stepId" in head.given:
            offset = 0
            self._state.keep_offsets({key: offset})
        numbering = current.setdefault(head.trace, head.numbering)
        if offset is not None:
            event.number(offset, requested=requested)
        elif numbering != head.numbering:
            return False  # it goes on with a trace whose events before it have to be stored first
        elif key not in begins:
            if not self._may_begin(head, key):
                return False
            begins[key] = event
            event.leave_to_server()
        return True

    def _note_answer(self, head: Head) -> bool:
        """Remember an answer of a model; tell whether an event names none that the server does not get from here."""
        if head.type == "llm_response":
            self._answers[head.trace, head.numbering, head.numbers.step] = None
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        asked = head.numbers.requested_by
        return not asked or (head.trace, head.numbering, asked) in self._answers

    def learn(self, begun: Iterable[Event]) -> None:
        """Keep the offsets that the server's answers show and that were not known; it is on disk when this returns."""
        offsets = {event.key: event.offset for event in begun if event.key and event.offset is not None}
        new = {key: offset for key, offset in offsets.items() if self._state.offset(key) is None}
        if new:
            self._state.keep_offsets(new)
        for key in new:
            self._patience.pop(key, None)

    def _offset(self, key: NumberingKey) -> int | None:
        numbering, process = key
        offset = self._state.offset(key)
        origin = numbering.partition("-")[0]
        if offset is None and origin != process:  # a forked child goes on with its parent's trace
            offset = self._state.offset((numbering, origin))
            if offset is not None:
                self._state.keep_offsets({key: offset})
        return offset

    def _may_begin(self, head: Head, key: NumberingKey) -> bool:
        """Tell whether an event may begin its numbering: what a child's events follow from has to come first."""
        numbering, process = key
        if numbering.startswith(process) or head.numbers.parent is None:
            return True
        now = time.monotonic()
        return now >= self._patience.setdefault(key, now + PATIENCE)
