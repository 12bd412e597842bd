"""
The first page of a segment: who recorded it, for whom, and how far each destination is.

::

    0      JSON of the Header, then zeros
    2048   a slot for each destination: its cursor, then its counters, 8 bytes each

The records come after it, see :mod:`whyops_trace._journal.segment`.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final, Literal, NamedTuple

import msgspec

from whyops_trace.exceptions import ConfigurationError, JournalError

#: Bytes of the page, and the offset of the first record.
PAGE: Final = 4096
#: Where the slots begin.
SLOTS: Final = 2048
SLOT: Final = struct.Struct("<6Q")


class Counts(NamedTuple):
    """
    What a destination did with records: one that its cursor has passed is in exactly one of these.

    Attributes:
        withheld: Records that are not for the destination, such as the end of a step for a server.
    """

    delivered: int = 0
    sampled_out: int = 0
    rejected: int = 0
    dropped: int = 0
    withheld: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a segment says about itself.

    Attributes:
        version: Of the format.
        stream: Name of the account, server, agent and destinations that the records belong to.
        token: Name of the process that recorded them: twelve hexadecimal digits.
        agent: The agent's name, for people.
        destinations: Where the records go; the order of the slots.
        ephemeral: Those of them that only the recording process can serve, such as its console.
        created: When the file was made; ISO 8601.
    """

    version: Literal[1] = 1
    stream: str
    token: str
    agent: str
    destinations: list[str]
    ephemeral: list[str] = []
    created: str

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
            header.page()  # as long as it may be
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
        """Return where the slot of each destination is."""
        return {name: SLOTS + SLOT.size * index for index, name in enumerate(self.destinations)}


def read_slot(page: bytes | mmap.mmap, offset: int) -> tuple[int, Counts]:
    """Return the cursor in a slot, the first record's if nothing stands there yet, and the counts."""
    # A slice, as unpack_from() would lend the memory out, and without the global lock another thread may close it.
    cursor, *counts = SLOT.unpack(page[offset : offset + SLOT.size])
    return cursor or PAGE, Counts(*counts)
