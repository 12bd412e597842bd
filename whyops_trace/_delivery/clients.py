"""The clients of a process: the default one, those that end with it, and one for what forked children left."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from whyops_trace._delivery.children import Children
from whyops_trace._forks import at_fork
from whyops_trace._home import JOURNAL, home_directory


class Client(Protocol):
    """A client, as far as its process looks after it."""

    def close_sync(self) -> Any:
        """Deliver what is recorded, and end."""

    def take_over(self) -> None:
        """Deliver what dead processes of its agent left in the journal."""

    def exit(self, started: float) -> None:
        """Close as the process ends, which began at *started*."""


C = TypeVar("C", bound=Client)


class Clients(Generic[C]):
    """
    The clients of this process that are not closed.

    Args:
        make: Function that makes a client, which adds itself.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.RLock()
        #: The first one is the default for good.
        self._clients: list[C] = []
        #: A client that only delivers what forked children left, in a process that has no other.
        self._stewards: list[C] = []
        self._children = Children(self._take_over)
        atexit.register(self._close_at_exit)
        at_fork(after_in_child=self._renew_lock)

    def add(self, client: C) -> None:
        """Add a client. The first one is the default."""
        with self._lock:
            self._clients.append(client)

    def remove(self, client: C) -> None:
        """Remove a client that is closed, unless it is the default."""
        with self._lock:
            if client in self._clients[1:]:
                self._clients.remove(client)

    def default(self) -> C:
        """Return the first client made, or one made now."""
        if not self._clients:
            with self._lock:
                if not self._clients:
                    self._make()
        return self._clients[0]

    def first(self) -> C | None:
        """Return the first client made, None if there is none."""
        return self._clients[0] if self._clients else None

    @property
    def has_steward(self) -> bool:
        """True if there is a client that only delivers what forked children left."""
        return bool(self._stewards)

    def forget(self) -> None:
        """Close every client, so that the next one is the default."""
        self._children.end()
        with self._lock:
            for client in (self._clients + self._stewards)[::-1]:
                client.close_sync()
            self._clients.clear()
            self._stewards.clear()

    def _take_over(self) -> None:
        """Deliver what children left: by the clients, or by one like those that the children made by default."""
        if not self._clients and not self._stewards and any((home_directory() / JOURNAL).glob("*/*.seg")):
            with self._lock:
                self._stewards.append(self._make())
                self._clients.remove(self._stewards[0])  # the default one is yet to be made
        for client in self._clients + self._stewards:
            client.take_over()

    def _close_at_exit(self) -> None:
        self._children.end()
        started = time.monotonic()
        for client in self._clients + self._stewards:
            client.exit(started)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # a thread the child does not have may hold it
