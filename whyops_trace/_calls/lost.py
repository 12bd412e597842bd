"""
Signs that a call outside any trace was to be in one: its thread, greenlet or process did not inherit the scope.

That a block is open somewhere else is no sign. A server's thread begins work of its own while others have blocks open.
The signs looked for are certain: code in an open trace starts this thread, or waits for it or for what it works on; or
this process was forked there. Code that does neither at that moment is not found.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any, Final

from whyops_trace._calls.call import Call
from whyops_trace._guard import attempt, warn_once
from whyops_trace._recording.recorder import Recorder
from whyops_trace.context import SCOPE, forget_fork, forked_in

#: Packages whose functions start threads and greenlets, and wait for them.
_WAITING: Final = frozenset({"concurrent", "eventlet", "gevent", "multiprocessing", "queue", "threading"})
#: Seconds between two looks of one thread.
_EVERY: Final = 0.01
#: Largest number of things in a collection that is looked through.
_MANY: Final = 10_000

_REMEDIES: Final = {
    "thread": "Start it with whyops_trace.propagate(function) as its target",
    "pool": "Submit whyops_trace.propagate(function), or call whyops_trace.propagate_threads() once",
    "greenlet": "Spawn whyops_trace.propagate(function)",
    "process": "Give it whyops_trace.propagate(function)",
}

#: The time until which each thread does not look again, as :func:`time.monotonic` tells it.
_looked = threading.local()


def warn_if_lost(name: str, recorder: Recorder) -> None:
    """
    Warn once of each kind of place that lost the scope, if there is a sign that this one did.

    Args:
        name: The name of the callable that is called outside any trace.
        recorder: The recorder of the call.
    """
    now = time.monotonic()
    if now < getattr(_looked, "until", 0.0):
        return
    _looked.until = now + _EVERY
    kind, _ = attempt(_kind_of_loss, recorder)
    if kind:
        warn_once(
            f"lost scope: {kind}",
            "%s was called in %s, which does not know the trace that is open, and makes a trace of its own. %s.",
            name,
            f"a forked process of trace {forked_in()!r}"
            if kind == "process"
            else f"{'greenlet' if kind == 'greenlet' else 'thread'} {threading.current_thread().name!r}",
            _REMEDIES[kind],
        )
    if kind == "process":
        forget_fork()


def _kind_of_loss(recorder: Recorder) -> str:
    """Return the kind of what lost the scope here, "" if nothing shows that anything did."""
    if forked_in() is not None:
        return "process"
    if _is_lost_greenlet():
        return "greenlet"
    thread = threading.current_thread()
    work = list(_work(sys._getframe()))
    if any(_is_awaited_in_trace(each) for each in work):
        return "pool"
    own = threading.get_ident()
    for ident, frame in sys._current_frames().items():
        if ident != own and _waits_for(frame, (thread, *work)) and _is_open(ident, frame, recorder):
            return "pool" if work else "thread"
    return ""


def _work(frame: FrameType | None) -> Iterator[Any]:
    """Yield the futures, and the jobs of a pool of threads, that a thread works on."""
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == "concurrent.futures.thread" and frame.f_code.co_name == "run":
            yield frame.f_locals["self"].future
        elif module == "multiprocessing.pool" and frame.f_code.co_name == "worker":
            yield ("job", frame.f_locals["job"])
        frame = frame.f_back


def _waits_for(frame: FrameType | None, wanted: Collection[Any]) -> bool:
    """Return True if the innermost functions of a stack start one of these things, or wait for one."""
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _WAITING:
        if any(_holds(value, wanted) for value in tuple(frame.f_locals.values())):
            return True
        frame = frame.f_back
    return False


def _holds(value: Any, wanted: Collection[Any]) -> bool:
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return len(value) < _MANY and any(each is one for each in tuple(value) for one in wanted)
    job = getattr(value, "_job", None) if type(value).__module__ == "multiprocessing.pool" else None
    return any(value is one or (job is not None and one == ("job", job)) for one in wanted)


def _is_open(ident: int, frame: FrameType | None, recorder: Recorder) -> bool:
    """Return True if the code that a thread runs is in a trace."""
    calls = False
    while frame is not None:
        module, local = frame.f_globals.get("__name__"), frame.f_locals
        if module == "asyncio.events" and "self" in local and hasattr(local["self"], "_context"):
            return local["self"]._context.get(SCOPE) is not None
        calls = calls or any(isinstance(value, Call) for value in local.values())
        frame = frame.f_back
    return calls or ident in recorder.open_blocks


def _is_awaited_in_trace(work: Any) -> bool:
    """Return True if a task that is in a trace awaits a future of another thread, as of ``run_in_executor``."""
    for callback in tuple(getattr(work, "_done_callbacks", ())):
        for cell in getattr(callback, "__closure__", None) or ():
            for _, context in getattr(cell.cell_contents, "_callbacks", None) or ():
                if context.get(SCOPE) is not None:
                    return True
    return False


def _is_lost_greenlet() -> bool:
    """Return True if a greenlet in a trace starts this one or waits for it."""
    greenlets = sys.modules.get("greenlet")
    if greenlets is None:
        return False
    current = made = greenlets.getcurrent()
    waiting = list(
        getattr(getattr(current, "_exit_event", None), "_waiters", None) or ()
    )  # as eventlet has them
    wanted = (current, threading.current_thread())
    is_near = True
    while (maker := getattr(made, "spawning_greenlet", _nobody)()) is not None:  # as gevent has them
        is_near = is_near and _is_where_it_made(maker, made)
        if is_near or _waits_for(maker.gr_frame, wanted):
            waiting.append(maker)
        made = maker
    contexts = (getattr(each, "gr_context", None) for each in waiting)
    return any(context is not None and context.get(SCOPE) is not None for context in contexts)


def _is_where_it_made(maker: Any, made: Any) -> bool:
    """Return True if a greenlet of gevent is still at the line that made another, as it is in ``spawn().join()``."""
    origin = getattr(made, "spawning_stack", None)
    while origin is not None and f"{os.sep}gevent{os.sep}" in origin.f_code.co_filename:
        origin = origin.f_back
    frame = maker.gr_frame
    while origin is not None and frame is not None:
        if frame.f_code is origin.f_code and frame.f_lineno == origin.f_lineno:
            return True
        frame = frame.f_back
    return origin is None


def _nobody() -> None:
    """Stand for the maker of a greenlet that does not tell it."""
