"""An event that is safe to set in a signal handler or a finaliser."""

from __future__ import annotations

import threading


class Flag:
    """An event that may be set, by a signal handler or a finaliser, while its own thread is setting it."""

    def __init__(self) -> None:
        # Re-entrant, which that of threading.Event is not. Entered by itself: an interrupt inside Condition.__enter__
        # would leave it locked for good.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake the threads that wait for it."""
        with self._lock:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        with self._lock:
            self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, so many seconds at most; return whether it was, even if it is taken back already."""
        with self._lock:
            return self._is_set or self._changed.wait(timeout)
