"""Locks that a signal handler or a finaliser may come upon, in the thread that holds them."""

from __future__ import annotations

import threading


def is_held_here(lock: threading.RLock) -> bool:
    """Tell whether this thread holds a lock, which a condition on it knows."""
    try:
        threading.Condition(lock).notify()
    except RuntimeError:
        return False
    return True
