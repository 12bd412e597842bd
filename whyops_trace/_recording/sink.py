"""The journal, as a recorder sees it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol


class Sink(Protocol):
    """
    The part of a journal that takes finished lines.

    Attributes:
        token: Name of the recording process: twelve hexadecimal digits.
        lock: Lock that is held while files are opened and closed, and during a fork.
    """

    token: str
    lock: threading.RLock

    def append(self, line: bytes) -> None:
        """Take one line that ends in a newline. The caller holds the recorder's lock."""
        ...

    def append_pieces(self, pieces: Sequence[bytes]) -> None:
        """Take one line in pieces that follow each other, likewise."""
        ...

    def renew(self) -> None:
        """Start over in a forked child."""
        ...
