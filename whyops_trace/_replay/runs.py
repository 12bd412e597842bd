"""Runs of an agent in tests that are no replays: their records are collected, and may be written as a recording."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from whyops_trace._recording import recorders
from whyops_trace._replay.checks import Run, check_same_tree, tree_of
from whyops_trace._replay.fixture import read_fixture, save_fixture
from whyops_trace._replay.recording import read_calls
from whyops_trace.testing import capture_events


class LiveRun(Run):
    """
    A run whose calls are made, and assertions about it; it is open in a ``with`` block.

    Attributes:
        divergence: None, as of a replay without any.
        drift: Empty, as of such a replay.
        unused: Empty likewise.
        notes: Empty likewise.

    Args:
        path: The file of the recording that it stands for, None if there is none.
        writes: True to write that file if the block ends without an exception.
    """

    def __init__(self, path: Path | None = None, *, writes: bool = False) -> None:
        self._path = path
        self._writes = writes
        self._captured = ExitStack()
        self.events: list[dict[str, Any]] = []
        self.divergence: None = None
        self.drift: list[str] = []
        self.unused: list[str] = []
        self.notes: list[str] = []

    def matches_tree(self) -> None:
        """Assert that the calls are those of the recording, each within the same one."""
        __tracebackhide__ = True
        if self._path is not None and not self._writes:
            check_same_tree(tree_of(read_fixture(self._path).calls), self.tree, self._fail)

    def __enter__(self) -> Self:
        recorders.forget_traces()  # another test may have used the same id
        self._captured.callback(recorders.forget_traces)
        self.events = self._captured.enter_context(capture_events(local=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._captured.close()
        if self._writes and self._path is not None and error is None:
            save_fixture(read_calls(self.events), self._path)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
