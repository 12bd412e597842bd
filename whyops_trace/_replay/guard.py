"""
A guard that lets nothing out of the process by Python's own means while a replay is open.

An audit hook sees new connections, look-ups of names and new processes. What goes out on a connection that is open
already raises no event, nor do the processes of multiprocessing, so the functions for these are replaced as well. The
hook stays for the life of the process, since Python takes none back; it does nothing while no replay is open.
"""

from __future__ import annotations

import _posixsubprocess
import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

_LEAVES: Final = frozenset(
    {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
     "socket.gethostbyaddr", "socket.getnameinfo", "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"}
)  # fmt: skip
#: Beginnings of the names of threads that do not run the program: the library's own, and those of debuggers.
_OTHERS: Final = ("whyops-", "pydevd.")
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Guard:
    """
    Refuses what leaves the process.

    Args:
        refuse: Raises, given what was tried.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._lifted = 0
        self._lock = threading.Lock()
        self._undo = contextlib.ExitStack()

    def start(self) -> None:
        """Refuse from now on."""
        if _Hook.guard is None and not _Hook.is_there:
            sys.addaudithook(_on_event)
            _Hook.is_there = True
        for owner in (socket.socket, ssl.SSLSocket):
            for name in ("send", "sendall", "sendfile"):
                self._undo.callback(_replace_sending(owner, name))
        self._undo.callback(_replace_starting())
        _Hook.guard = self

    def stop(self) -> None:
        """Refuse no more."""
        _Hook.guard = None
        self._undo.close()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let everything out while the block runs, whatever thread does it."""
        with self._lock:
            self._lifted += 1
        try:
            yield
        finally:
            with self._lock:
                self._lifted -= 1

    def check(self, event: str, where: object) -> None:
        """Refuse one thing that leaves the process, unless it may."""
        if not self._lifted and not threading.current_thread().name.startswith(_OTHERS):
            self._refuse(f"{event} {where!r:.120}")


class _Hook:
    """Holds the guard that is on, None if none is."""

    guard: Guard | None = None
    is_there = False


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    guard = _Hook.guard
    if guard is None or event not in _LEAVES:
        return
    if isinstance(arguments[0], socket.socket):
        if arguments[0].family in _FAMILIES:
            guard.check(event, arguments[1:])
    else:
        guard.check(event, arguments)


def _replace_starting() -> Callable[[], None]:
    """Replace the function by which multiprocessing starts a program. Return what brings it back."""
    real = _posixsubprocess.fork_exec

    def fork_exec(*args: Any) -> int:
        if _Hook.guard is not None:
            _Hook.guard.check("multiprocessing", args[0])
        return real(*args)

    _posixsubprocess.fork_exec = fork_exec
    return lambda: setattr(_posixsubprocess, "fork_exec", real)


def _replace_sending(owner: Any, name: str) -> Callable[[], None]:
    """Replace a method that sends. Return what brings it back."""
    real, own = getattr(owner, name), vars(owner).get(name)

    def send(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        guard = _Hook.guard
        if guard is not None and self.family in _FAMILIES:
            guard.check(f"socket.{name}", self.getpeername())
        return real(self, *args, **kwargs)

    setattr(owner, name, send)
    return lambda: delattr(owner, name) if own is None else setattr(owner, name, own)
