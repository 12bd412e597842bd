"""The gate before the calls and records of a trace: limits that refuse a call, requests held back from a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from whyops_trace.types import Audience

if TYPE_CHECKING:
    from whyops_trace._recording.line import Content, Ending


class Watcher(Protocol):
    """A counter of the records of a trace, which may refuse its next call."""

    def note(self, kind: bytes, metadata: bytes, content: Content, span: bytes, opens: int) -> None:
        """Take a record, before it is written."""
        ...

    def admit(self, name: str, parent: int, within: int) -> None:
        """
        Let a call or step begin, or raise.

        Args:
            name: Its name.
            parent: The step that its request would follow from.
            within: The step of the call around it.
        """
        ...


class Gate:
    """
    The gate before the calls and records of one trace.

    Attributes:
        held_requests: Functions that record the requests held back from a server, as long as the server has nothing of
            the trace. They are called before the next event that is not held back.
        watchers: The limits of its open blocks, the outermost first.
    """

    __slots__ = ("held_requests", "watchers")

    def __init__(self) -> None:
        self.held_requests: list[Callable[[], None]] = []
        self.watchers: tuple[Watcher, ...] = ()

    def admit(self, name: str, parent: int, within: int) -> None:
        """
        Let a call or step begin, or raise; see :meth:`Watcher.admit`.

        The innermost block is asked first, so that what it refuses is counted by none.
        """
        for watcher in reversed(self.watchers):
            watcher.admit(name, parent, within)

    def pass_record(
        self, kind: bytes, metadata: bytes, content: Content, span: bytes, ending: Ending, opens: int
    ) -> None:
        """Let a record be written. What repeats one for the server alone is counted already."""
        if ending.audience is not Audience.LOCAL and self.held_requests:
            held_requests, self.held_requests = self.held_requests, []
            for record in held_requests:
                record()
        if ending.audience is not Audience.SERVER:
            for watcher in self.watchers:
                watcher.note(kind, metadata, content, span, opens)
