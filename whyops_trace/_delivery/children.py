"""The forked children of a process: what they leave is delivered while it lives, though it records nothing itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from whyops_trace._delivery.flag import Flag
from whyops_trace._forks import at_fork
from whyops_trace._guard import attempt, guarded

#: Seconds between two looks for what children left.
LOOK_EVERY: Final = 10.0


class Children:
    """
    A watch over the forked children of this process.

    It begins with the first fork: a thread looks every ten seconds, and for the last time when there are no children
    any more. A process that never forks has no such thread.

    Args:
        look: Function that delivers what dead processes left.
    """

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._renew()
        at_fork(before=self._before_fork, after_in_parent=self._watch, after_in_child=self._renew)

    def _renew(self) -> None:
        """Start as a process that has no children."""
        #: Held during a look, and by a fork: a child must not be made while a thread that it lacks imports a module.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        #: Set to end the watch.
        self._stop = Flag()
        #: True if there may be something to deliver that no look has seen.
        self._expected = False

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _watch(self) -> None:
        """Begin the watch after a fork, unless it has begun."""
        self._expected = True
        if self._thread is None:
            self._stop = Flag()
            self._thread = thread = threading.Thread(
                target=self._run, args=(self._stop,), name="whyops-children", daemon=True
            )
            if attempt(thread.start)[1] is not None:  # the process ends
                self._thread = None
        self._lock.release()

    def _run(self, stop: Flag) -> None:
        watching = True
        while watching and not stop.wait(LOOK_EVERY):
            with self._lock:
                watching = self._expected = _has_children()
                self._guarded_look()
                if not watching:
                    self._thread = None

    @guarded("looking for what child processes left")
    def _guarded_look(self) -> None:
        self._look()

    def end(self) -> None:
        """End the watch, with a last look if anything may be left."""
        with self._lock:
            expected, self._expected = self._expected, False
            thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join()
        if expected:
            self._guarded_look()


def _has_children() -> bool:
    """Tell whether this process has children, without taking their exit status from who waits for it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
