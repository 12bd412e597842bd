"""The application on a socket, until it is told to stop."""

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

#: Seconds that requests have to end when the server stops.
_GRACE: Final = 3
#: Files that may be open at the same time, if the system allows as many to a process that asks for them.
_FILES: Final = 10_240
#: Connections that are taken at a time; a few times as many are open before the first of them can be closed.
_BACKLOG: Final = 64
#: Connections that wait meanwhile; one more waits a second before it tries again.
_WAITING: Final = 1_024
#: Files that are left where there are as many connections as there may be.
_SPARE: Final = 6 * _BACKLOG


class _Connection(H11Protocol):
    """A connection; one too many is closed at once, while there are files left to answer the others with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to answer."""
        super().connection_made(transport)
        if len(self.connections) > _most_connections():
            transport.abort()


class Server(uvicorn.Server):
    """
    Serves an application, and ends quietly on SIGINT and SIGTERM: uvicorn would raise them again afterwards.

    Args:
        application: What answers.
        on_ready: Called when it does.
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
        """Stop, from any thread: no new requests, and those under way have a moment to end."""
        self.force_exit = self.should_exit  # whoever asks twice does not want to wait
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
    """Return how many connections there may be, after asking the system for the files that they take."""
    files = _FILES
    with contextlib.suppress(ModuleNotFoundError):  # there is no such bound on every system
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < _FILES:  # some systems write "no bound" as -1
            files = _FILES if hard < 0 else min(hard, _FILES)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            except (OSError, ValueError):
                files = soft
    return max(files - _SPARE, _BACKLOG)
