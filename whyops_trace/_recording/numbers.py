"""
The numbers of a record: its own step and the steps that it names, and their change in a trace that continues.

A trace id that the user chose may come back: in the next turn of a conversation, in another process, on another day.
Each time its steps are counted from 1 again, in a *numbering* of its own. A store or server adds to them the *offset*
of their numbering: the step that the trace had reached before. Numbers that the user chose stay.

On disk a numbering is called ``run``, and its offset ``shift``.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final, NamedTuple

#: The start of a record, as the recorder writes it. A trace id may hold escaped quotes.
_HEAD: Final = re.compile(
    rb'\{"eventType":"([^"]*)","traceId":("[^"\\]*(?:\\.[^"\\]*)*")(?:,"run":"([^"]*)")?,"stepId":(\d+)'
    rb'(?:,"parentStepId":(\d+))?(?:,"given":\[([^\]]*)\])?,"metadata":\{"within":(\d+)'
    rb'(?:,"requestedBy":(\d+)(?=[,}]))?'
)


class Numbers(NamedTuple):
    """
    The numbers of one record.

    Attributes:
        step: Its own step; 0 if it takes none.
        parent: The step that it follows from; None if it is the first of its trace.
        within: The step of the enclosing call; 0 at the top.
        requested_by: The step of the model's answer that asked for the call; 0 if none is known.
    """

    step: int
    parent: int | None
    within: int
    requested_by: int = 0

    def moved(self, offset: int, given: Container[str], *, begins: bool) -> Numbers:
        """
        Return the numbers in a trace that had reached *offset* steps before their numbering.

        A parent or enclosing call that would come before the trace's first step is left out: a forked child whose
        parent's events are lost goes on alone.

        Args:
            offset: The offset of their numbering.
            given: Those of ``stepId`` and ``parentStepId`` that the user chose.
            begins: True if the record is the first of its numbering, and so follows from the step before that.
        """
        step = self.step + offset if self.step and "stepId" not in given else self.step
        parent = self.parent
        if parent:
            parent += 0 if "parentStepId" in given else offset
        elif begins and self.step:
            parent = offset
        within = self.within + offset if self.within else 0
        requested_by = self.requested_by + offset if self.requested_by else 0
        return Numbers(step, parent if parent and parent > 0 else None, max(within, 0), max(requested_by, 0))


class Head:
    """
    The start of a record. Its numbers are read on first use, since most records are passed on as they are.

    Attributes:
        type: The event type.
        trace: The trace id as it is in the line: JSON text with its quotes.
        numbering: The name of the numbering that its numbers belong to; "" if they are final.

    Args:
        match: The match of the start of a line.
    """

    __slots__ = ("_match", "_numbers", "numbering", "trace", "type")

    type: str
    trace: bytes
    numbering: str

    def __init__(self, match: re.Match[bytes]) -> None:
        kind, self.trace, numbering = match.group(1, 2, 3)
        self.type = kind.decode()
        self.numbering = numbering.decode() if numbering else ""
        self._match = match
        self._numbers: Numbers | None = None

    @property
    def numbers(self) -> Numbers:
        """Its numbers."""
        if self._numbers is None:
            step, parent, within, requested_by = self._match.group(4, 5, 7, 8)
            self._numbers = Numbers(
                int(step), int(parent) if parent else None, int(within), int(requested_by or 0)
            )
        return self._numbers

    @property
    def given(self) -> frozenset[str]:
        """Those of its numbers that the user chose."""
        given: bytes | None = self._match[6]
        return frozenset(given.decode().replace('"', "").split(",")) if given else frozenset()

    @property
    def end(self) -> int:
        """Number of bytes in the start of the line."""
        return self._match.end()


def plain_head(*others: str) -> re.Pattern[bytes]:
    """
    Return a pattern for the start of a record that is never renumbered.

    Such a record is in no named numbering, has no number that the user chose, and names no answer that asked for it.

    Args:
        *others: Event types that the pattern does not match.
    """
    return re.compile(
        rb'\{"eventType":"(?!(?:%b)")\w+","traceId":"[^"\\]*","stepId":\d+(?:,"parentStepId":\d+)?,'
        rb'"metadata":\{"within":\d++(?!,"requestedBy")' % "|".join(others).encode()
    )


def read_head(line: bytes) -> Head | None:
    """Return the start of a record, None if the line does not start as the recorder writes it."""
    match = _HEAD.match(line)
    return None if match is None else Head(match)


def renumbered(line: bytes, numbers: Numbers) -> bytes:
    """
    Return a line with these numbers in place of its own.

    Raises:
        ValueError: if the line does not start as the recorder writes it.
    """
    match = _HEAD.match(line)
    if match is None:
        raise ValueError(line[:200])
    parent = b"" if numbers.parent is None else b',"parentStepId":%d' % numbers.parent
    # The text between the parent and `within`.
    middle = line[max(match.end(4), match.end(5)) : match.start(7)]
    return b"%b%d%b%b%b%b" % (
        line[: match.start(4)], numbers.step, parent, middle, _from_within(numbers), line[match.end() :],
    )  # fmt: skip


def without_numbering(line: bytes, head: Head, numbers: Numbers | None, *, requested: bool = True) -> bytes:
    """
    Return a line for a server, which knows nothing of numberings.

    Args:
        line: The record.
        head: Its start.
        numbers: The numbers that it gets; None to have the server number it, after the last step of the trace.
        requested: True to name the answer that asked for it, False if the server does not know that answer.
    """
    own = b"" if numbers is None else b',"stepId":%d' % numbers.step
    if numbers is not None and numbers.parent:
        own += b',"parentStepId":%d' % numbers.parent
    others = head.numbers if numbers is None else numbers
    if not requested:
        others = others._replace(requested_by=0)
    return b'{"eventType":"%b","traceId":%b%b,"metadata":{"within":%b%b' % (
        head.type.encode(), head.trace, own, _from_within(others), line[head.end :],
    )  # fmt: skip


def _from_within(numbers: Numbers) -> bytes:
    """Return the text after ``"within":``: the enclosing step, and the answer that asked for the call."""
    member = b',"requestedBy":%d' % numbers.requested_by if numbers.requested_by else b""
    return b"%d%b" % (numbers.within, member)
