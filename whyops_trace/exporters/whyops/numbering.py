"""Numbers records for a WhyOps server. A trace id that comes back continues from the last step that the server has."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final, cast

import msgspec

from whyops_trace._checks import MAX_STEP
from whyops_trace._recording.line import LOCAL, USUAL, ending_of, is_usual
from whyops_trace._recording.numbers import Head, plain_head, read_head, without_numbering
from whyops_trace.exporters.base import Outcome
from whyops_trace.exporters.whyops.state import NumberingKey, ServerState

#: Seconds that a forked child leaves its parent to learn the numbering of the trace they share. They are more than the
#: parent waits between two tries, and more than it takes to notice that it died and to deliver the records it left.
PATIENCE: Final = 45.0
#: Seconds between two looks for the first event of a numbering of another process on the server.
PAUSE: Final = 0.25
#: Most seconds by which a record is dated later than it was made. That much may it wait for the proxy.
LONGEST_DELAY: Final = 5.0
#: Number of remembered answers of models, so that tool calls may name them.
REMEMBERED_ANSWERS: Final = 10_000

#: The start of a record that a server gets unchanged, as it gets most: no numbering to apply, and no model's answer.
_PLAIN: Final = plain_head("llm_response", *LOCAL)
#: Stands in for the start of a line that is no record.
_NO_HEAD: Final = cast("Head", read_head(b'{"eventType":"","traceId":"","stepId":0,"metadata":{"within":0'))


def is_plain(line: bytes) -> bool:
    """Return True if a record needs no number and no change: the server gets it as it is."""
    return _PLAIN.match(line) is not None and is_usual(line)


class _Metadata(msgspec.Struct, rename="camel"):
    raw_response: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct):
    """The part of a model's answer that the server gets only if a setting says so."""

    metadata: _Metadata


_answers: Final = msgspec.json.Decoder(_Answer)


class _Dated(msgspec.Struct, rename="camel"):
    """The time and the key of a record, which follow each other."""

    timestamp: str
    idempotency_key: str

    def text(self, timestamp: str) -> bytes:
        """Return both as they are in a record with that time."""
        return b'"timestamp":%b,"idempotencyKey":%b' % (
            msgspec.json.encode(timestamp),
            msgspec.json.encode(self.idempotency_key),
        )


_dates: Final = msgspec.json.Decoder(_Dated)


class Event(msgspec.Struct, eq=False):
    """
    A record on its way to the server.

    A struct, because one is made for each record, in a third of the time that ``__init__`` takes.

    Attributes:
        line: The record.
        plain: True if the server gets it as it is, regardless of earlier records.
        with_raw: True to send a model's answer with the response as the provider had it.
        sent: The text that the server gets; empty until its numbers are known.
        key: Its numbering and the process that recorded it; None if it is never renumbered.
        outcome: Its fate; None if it has to come again.
        offset: The offset of its numbering, as the server's answer shows it; None if it shows none.
        held: True if it has to wait for events of the proxy.
    """

    line: bytes
    plain: bool = False
    with_raw: bool = False
    sent: bytes = b""
    key: NumberingKey | None = None
    outcome: Outcome | None = None
    offset: int | None = None
    held: bool = False
    _head: Head | None = None

    @property
    def head(self) -> Head:
        """The start of the record, read on first use."""
        if self._head is None:
            self._head = read_head(self.line) or _NO_HEAD
        return self._head

    @property
    def is_record(self) -> bool:
        """True if the line is a record of this version."""
        return self.head is not _NO_HEAD

    def go_as(self, text: bytes) -> None:
        """Send it as this text, without what is for the local destinations only."""
        if self.head.type == "llm_response" and not self.with_raw:
            text = _without_raw(text)
        self.sent = text if is_usual(text) else text.removesuffix(ending_of(text).text) + USUAL.text

    def number(self, offset: int, *, requested: bool) -> None:
        """
        Number it by the offset of its numbering.

        Args:
            offset: The offset.
            requested: True if the server has the answer that asked for it.
        """
        numbers = self.head.numbers.moved(offset, self.head.given, begins=self.head.numbers.parent is None)
        accepted = numbers if 0 < numbers.step <= MAX_STEP else None
        self.go_as(without_numbering(self.line, self.head, accepted, requested=requested))

    def leave_to_server(self) -> None:
        """Have the server number it, after the last step of its trace."""
        self.go_as(without_numbering(self.line, self.head, None, requested=False))

    @property
    def step(self) -> int | None:
        """The step that it is sent with, None if the server numbers it."""
        head = read_head(self.sent)
        return None if head is None else head.numbers.step

    def date_from(self, earliest: str) -> None:
        """
        Date it no earlier than another event, if that is later by no more than :data:`LONGEST_DELAY`.

        Args:
            earliest: Time of the other event, "" for none.
        """
        with suppress(msgspec.DecodeError, ValueError):  # a user's own time may be any
            dated = _dates.decode(self.sent)
            delay = datetime.fromisoformat(earliest) - datetime.fromisoformat(dated.timestamp)
            if 0 < delay.total_seconds() <= LONGEST_DELAY:
                self.sent = self.sent.replace(dated.text(dated.timestamp), dated.text(earliest), 1)


def _without_raw(text: bytes) -> bytes:
    """Return a model's answer without the response as the provider had it."""
    with suppress(msgspec.DecodeError):  # a user's own metadata may be anything
        raw = bytes(_answers.decode(text).metadata.raw_response)
        return text.replace(b',"rawResponse":' + raw, b"", 1) if raw else text
    return text


class Renumbering:
    """
    Numbers events as their trace is numbered on the server.

    The first event of a numbering goes to the server without a number. The number that it gets there tells the offset
    of all others, which is on disk before they leave.

    Args:
        state: The file that keeps the offsets.
        look: Function from a trace id and an idempotency key to the step that the server has for that event, None if it
            shows none.
    """

    def __init__(
        self, state: ServerState, look: Callable[[str, str], int | None] = lambda trace, key: None
    ) -> None:
        self._state = state
        self._look = look
        #: Answers of models that the server gets from here. Those that the proxy reports have other numbers there.
        self._answers: OrderedDict[tuple[bytes, str, int], None] = OrderedDict()
        #: Time of :func:`time.monotonic` until which to wait for a parent's numbering.
        self._patience: dict[NumberingKey, float] = {}
        #: The same from which to look again for the first event of a numbering on the server.
        self._looked: dict[NumberingKey, float] = {}

    def number(self, events: Iterable[Event], process: str, ahead: Iterable[Event] = ()) -> list[Event]:
        """
        Number events as far as is possible now, and return those that the server has to number first.

        These are the first events of numberings whose offset is not known yet, ready to be sent. The other events of
        those numberings wait, and so do all events after one that cannot go yet.

        Args:
            events: The events, in the order they were recorded.
            process: The token of the process that recorded them.
            ahead: The events after them. If any numbering has to begin, those that begin among these events are
                returned as well: one request is enough for many.
        """
        first_events: dict[NumberingKey, Event] = {}
        #: The numbering of each trace at this event.
        current: dict[bytes, str] = {}
        for event in events:
            if not self._number_one(event, process, first_events, current):
                return list(first_events.values())
        for event in ahead if first_events else ():
            if not self._number_one(event, process, first_events, current):
                break
        return list(first_events.values())

    def number_known(self, event: Event, process: str) -> bool:
        """
        Number one event of this process, whatever comes before it. Any thread may call this.

        Returns:
            False if the offset of its numbering is not known yet.
        """
        head = event.head
        answer = head.numbers.requested_by
        requested = not answer or (head.trace, head.numbering, answer) in self._answers
        if not head.numbering:
            event.go_as(without_numbering(event.line, head, head.numbers, requested=requested))
            return True
        offset = self._offset((head.numbering, process))
        if offset is not None:
            event.number(offset, requested=requested)
        return offset is not None

    def _number_one(
        self, event: Event, process: str, first_events: dict[NumberingKey, Event], current: dict[bytes, str]
    ) -> bool:
        """Number an event, let it begin its numbering, or have it wait. Return True if those after it can go on."""
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
        if offset is None and key not in first_events:
            offset = self._found(key, head)
        if offset is None and key not in first_events and "stepId" in head.given:
            offset = 0
            self._state.keep_offsets({key: offset})
        numbering = current.setdefault(head.trace, head.numbering)
        if offset is not None:
            event.number(offset, requested=requested)
        elif numbering != head.numbering:
            return False  # the earlier events of its trace have to be stored first
        elif key not in first_events:
            if not self._may_begin(head, key):
                return False
            first_events[key] = event
            event.leave_to_server()
        return True

    def _note_answer(self, head: Head) -> bool:
        """Remember a model's answer. Return False if the event names an answer that the server gets from elsewhere."""
        if head.type == "llm_response":
            self._answers[head.trace, head.numbering, head.numbers.step] = None
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        answer = head.numbers.requested_by
        return not answer or (head.trace, head.numbering, answer) in self._answers

    def learn(self, first_events: Iterable[Event]) -> None:
        """Keep the new offsets that the server's answers show. They are on disk when this returns."""
        offsets = {
            event.key: event.offset for event in first_events if event.key and event.offset is not None
        }
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

    def _found(self, key: NumberingKey, head: Head) -> int | None:
        """Return the offset of another process's numbering by its first event, if the server shows that."""
        expected = self._state.expected(key[0])
        now = time.monotonic()
        if expected is None or now < self._looked.get(key, now):
            return None
        if len(self._looked) > REMEMBERED_ANSWERS:
            self._looked.clear()
        self._looked[key] = now + PAUSE
        step = self._look(msgspec.json.decode(head.trace), expected[0])
        if step is None:
            return None
        offset = step - expected[1]
        self._state.keep_offsets({key: offset})
        return offset

    def _may_begin(self, head: Head, key: NumberingKey) -> bool:
        """Return True if an event may begin its numbering. The events that a child's event follows from come first."""
        numbering, process = key
        if numbering.startswith(process) or head.numbers.parent is None:
            return True
        now = time.monotonic()
        return now >= self._patience.setdefault(key, now + PATIENCE)
