"""
The first page of a segment: its process, its destinations, and the progress of each.

::

    0      JSON of the Header, then zeros
    2048   a slot for each destination: its cursor, then its counters, 8 bytes each

The records come after it, see :mod:`whyops_trace._journal.segment`.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

import msgspec

from whyops_trace.exceptions import ConfigurationError, JournalError

#: Bytes of the page, and the offset of the first record.
PAGE: Final = 4096
#: The offset of the first slot.
SLOTS: Final = 2048
SLOT: Final = struct.Struct("<6Q")


class Counts(NamedTuple):
    """
    Records by their outcome at a destination: one that its cursor has passed is in exactly one of these.

    Attributes:
        delivered: Records it took.
        sampled_out: Records that its own sampling left out.
        rejected: Records it refused.
        dropped: Records that were lost before it got them.
        withheld: Records that are not for the destination, such as the end of a step for a server.
        waiting: Records that wait elsewhere until it is known whether it gets them. It stands in no slot: the file
            that they wait in tells.
    """

    delivered: int = 0
    sampled_out: int = 0
    rejected: int = 0
    dropped: int = 0
    withheld: int = 0
    waiting: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """
    The description of a segment, at the beginning of its first page.

    Attributes:
        version: The version of the format: 1, or 2 if each record has a sum.
        stream: Name of the account, server, agent and destinations that the records belong to.
        token: Name of the process that recorded them: twelve hexadecimal digits.
        agent: The agent's name, for people.
        destinations: The destinations of the records, in the order of the slots.
        ephemeral: Those of them that only the recording process can serve, such as its console.
        created: The time the file was made; ISO 8601.
        seed: The number that the sums of its records begin with, so that no record of another segment passes.
    """

    version: Literal[1, 2] = 1
    stream: str
    token: str
    agent: str
    destinations: list[str]
    ephemeral: list[str] = []
    created: str
    seed: int = 0

    @classmethod
    def decode(cls, page: bytes) -> Header:
        """
        Return the header that a page begins with.

        Raises:
            JournalError: if there is none that this version can read.
        """
        if len(page) < PAGE:
            raise JournalError("its first page is cut")
        try:
            header = msgspec.json.decode(page[:SLOTS].partition(b"\0")[0], type=cls)
            header.page()  # raises if it is too long
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise JournalError(f"its header cannot be read: {error}") from error
        return header

    def page(self) -> bytes:
        """
        Return the page as it stands in a new file.

        Raises:
            ConfigurationError: if it does not fit, or a name is not valid Unicode.
        """
        try:
            text = msgspec.json.encode(self)
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"A name in the journal is not valid Unicode: {error}.") from error
        if len(text) >= SLOTS or SLOTS + SLOT.size * len(self.destinations) > PAGE:
            raise ConfigurationError(
                "The names of the agent and its destinations are too long for the journal."
            )
        return text.ljust(PAGE, b"\0")

    def slots(self) -> dict[str, int]:
        """Return the offset of each destination's slot."""
        return {name: SLOTS + SLOT.size * index for index, name in enumerate(self.destinations)}


def read_slot(page: bytes, offset: int) -> tuple[int, Counts]:
    """Return the cursor in a slot and its counts; if nothing stands there yet, the first record's and none."""
    cursor, *counts = SLOT.unpack_from(page, offset)
    return cursor or PAGE, Counts(*counts)
