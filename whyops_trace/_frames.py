"""
Frames on the stack: the generator that a block stands in, and the task or thread that runs.

A generator has no context of its own. A block that is open in one is found again by the generator's frame, which is on
the stack while its body runs and not while its consumer does.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Flags of the functions whose frame leaves the stack while it is not over, and stays in the context of its reader.
SUSPENDS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
#: Names of functions that leave a block open for the function that called them, those of contextlib's stacks included.
ENTERS: Final = frozenset(
    {
        "__enter__",
        "__aenter__",
        "enter_context",
        "enter_async_context",
        "_enter_context",
        "_run_tests_and_fixtures",
    }
)
#: Modules that run a generator up to its first item as contextlib does: what comes then is inside its blocks.
_PROVIDERS: Final = frozenset(
    {"_pytest.fixtures", "litestar._kwargs.dependencies", "litestar.utils.compat", "pytest_asyncio.plugin"}
)
#: Modules that run a job in a thread, in a copy of the context that is gone after the job.
_WORKERS: Final = frozenset({"anyio._backends._asyncio", "concurrent.futures.thread", "trio._threads"})


def generator_around(frame: FrameType | None) -> tuple[FrameType | None, bool]:
    """
    Return the frame of the generator that a block stands in.

    A generator that a context manager or a fixture is made of hands its blocks on to whoever enters it, unless that is
    a worker thread: nobody else can be inside them then.

    Args:
        frame: The frame of the ``with`` statement.

    Returns:
        The frame, None if the block stands in no generator, or one that hands it on; and True if it was entered for a
        worker thread.
    """
    generator = None
    while frame is not None:
        if frame.f_code.co_flags & SUSPENDS:
            generator, frame = frame, _reader(frame)
            if not _hands_on(frame):
                return generator, False
        elif frame.f_code.co_name in ENTERS:
            frame = frame.f_back
        else:
            break
    is_lost = generator is not None and frame is not None and _module(frame) in _WORKERS
    return generator if is_lost else None, is_lost


def _reader(frame: FrameType) -> FrameType | None:
    """Return the frame that reads a generator, past generators that pass its items on."""
    reader = frame.f_back
    while reader is not None and reader.f_code.co_flags & SUSPENDS:
        reader = reader.f_back
    return reader


def _hands_on(reader: FrameType | None) -> bool:
    return reader is not None and (reader.f_code.co_name in ENTERS or _module(reader) in _PROVIDERS)


def _module(frame: FrameType) -> Any:
    return frame.f_globals.get("__name__")


def nearest(frame: FrameType | None, among: Mapping[FrameType, T]) -> T | None:
    """Return the value of the nearest frame on the stack, from *frame* on, that a mapping has; None if it has none."""
    while frame is not None:
        if frame in among:
            return among[frame]
        frame = frame.f_back
    return None


def running() -> object:
    """Return the task that runs, or the thread outside any: whatever shares one context with the code that asks."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if asyncio is not None and (loop := asyncio._get_running_loop()) is not None:
        return asyncio.current_task(loop) or threading.current_thread()
    if trio is not None:
        with contextlib.suppress(AttributeError, RuntimeError):  # it is being imported, or does not run here
            return trio.lowlevel.current_task()
    return threading.current_thread()
