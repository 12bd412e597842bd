"""The application on a socket, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from whyops_trace.server.app import Application

#: Seconds that open requests have to end when the server stops.
_GRACE: Final = 3
#: Number of open files to request from the system, if it allows that many.
_FILES: Final = 10_240
#: Connections accepted at a time. A few times as many are open before the first of them can be closed.
_BACKLOG: Final = 64
#: Connections that may wait to be accepted. One more waits a second before it tries again.
_WAITING: Final = 1_024
#: Files kept free when the number of connections is at its limit.
_SPARE: Final = 6 * _BACKLOG


class _Connection(H11Protocol):
    """A connection. One above the limit is closed at once, so that files are left to answer the others."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to answer."""
        super().connection_made(transport)
        if len(self.connections) > _most_connections():
            transport.abort()


class Server(uvicorn.Server):
    """
    The server of an application. It ends quietly on SIGINT and SIGTERM, which uvicorn would raise again afterwards.

    Args:
        application: The application that answers.
        on_ready: Function called when it begins to answer.
    """

    def __init__(self, application: Application, on_ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=_Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._application = application
        self._on_ready = on_ready

    def stop(self) -> None:
        """Stop, from any thread: no new requests are accepted, and open ones have 3 seconds to end."""
        self.force_exit: bool = self.should_exit  # a second request to stop does not wait
        self.should_exit = True
        self._application.end_streams()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when a signal comes."""
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING)
        if self.started:
            self._on_ready()


@functools.cache
def _most_connections() -> int:
    """Return the limit of connections, after requesting their files from the system."""
    files = _FILES
    with contextlib.suppress(ModuleNotFoundError):  # not every system has such a limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < _FILES:  # some systems write "no limit" as -1
            files = _FILES if hard < 0 else min(hard, _FILES)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            except (OSError, ValueError):
                files = soft
    return max(files - _SPARE, _BACKLOG)
