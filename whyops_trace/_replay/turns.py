"""The order in which calls of a replay end that run at the same time: the one in which they ended when recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

import anyio
import anyio.lowlevel

from whyops_trace._replay.recording import RecordedCall

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

#: Turns of the event loop in which calls that are started together come to wait.
_LOOPS: Final = 3
#: Seconds that a call in a thread waits for those that ended before it.
_PATIENCE: Final = 1.0
#: Seconds that a thread whose call has ended is given to hand its result on, before the call of another one ends.
_HANDOVER: Final = 0.002


class Turns:
    """
    Lets calls end in turn.

    Args:
        calls: The recorded calls.
        lock: The lock of the session, which the caller of :meth:`note_end` holds.
        notes: Takes that the order is not kept.
    """

    def __init__(self, calls: list[RecordedCall], lock: threading.RLock, notes: list[str]) -> None:
        self._calls = calls
        self._notes = notes
        self._changed = threading.Condition(lock)
        self._ended: set[int] = set()
        #: Recorded calls that answer an asynchronous one at present.
        self._flying: set[int] = set()
        #: The thread that opened the replay, in which calls come one after the other.
        self._opener = threading.get_ident()
        self._last = (0, 0.0)
        self._is_kept = True

    def note_end(self, found: RecordedCall) -> None:
        """Note that the call which a recorded one answers has ended."""
        self._ended.add(found.ended)
        self._last = threading.get_ident(), time.monotonic()
        self._changed.notify_all()

    def wait(self, found: RecordedCall | None) -> None:
        """
        Wait in a thread until the calls have ended that did so while this one ran.

        One second without them ends all waiting: the program is another one.
        """
        here = threading.get_ident()
        if found is None or not found.ended or not self._is_kept or here == self._opener or in_event_loop():
            return
        before = {
            call.ended: call
            for call in self._calls
            if call.parent is found.parent
            and max(found.began, 0) < call.ended < found.ended
            and call.outcome != "cancelled"
        }
        with self._changed:
            if not self._changed.wait_for(lambda: before.keys() <= self._ended, _PATIENCE):
                self._is_kept = False
                missing = before[min(before.keys() - self._ended)]
                self._notes.append(
                    f"{missing} ended before {found} when it was recorded, and does not now: calls in threads no "
                    "longer wait for each other"
                )
            by, ended = self._last
        if by != here and (rest := ended + _HANDOVER - time.monotonic()) > 0:
            time.sleep(rest)

    def flow(self) -> Hashable | None:
        """
        Return what tells the task that runs, or the thread that opened the replay, from all others.

        None in other threads: which one of a pool makes a call is chance.
        """
        if in_event_loop():
            task = anyio.get_current_task()
            return task.id, task.name  # an id alone comes again
        here = threading.get_ident()
        return here if here == self._opener else None

    async def wait_in_loop(self, found: RecordedCall | None) -> None:
        """
        Wait until the calls in flight that ended before this one have ended.

        One that was cancelled waits to be cancelled.
        """
        if found is None or not found.ended or not in_event_loop():
            return
        self._flying.add(found.ended)
        try:
            for _ in range(_LOOPS):  # others that are started at the same time come
                await anyio.lowlevel.checkpoint()
            while min(self._flying) < found.ended:
                await anyio.lowlevel.checkpoint()
            if found.outcome == "cancelled" and found.raw is None:  # else a stream that was left
                self._flying.discard(found.ended)
                await anyio.sleep_forever()
        finally:
            self._flying.discard(found.ended)


def in_event_loop() -> bool:
    """Tell whether the code that runs is in a task of an event loop."""
    try:
        anyio.current_time()
    except RuntimeError:  # of all versions, whatever class of it
        return False
    return True
