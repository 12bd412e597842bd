"""The application on a socket, until it is stopped."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from whyops_trace.server.app import Application
from whyops_trace.server.connections import BACKLOG, Connection, Crowd

#: Seconds that open requests have to end when the server stops.
_GRACE: Final = 3
#: Connections that may wait to be accepted. One more waits a second before it tries again.
_WAITING: Final = 1_024
#: Ticks between two looks for connections that take too long, each a tenth of a second.
_TICKS: Final = 10


class Server(uvicorn.Server):
    """
    The server of an application. It ends quietly on SIGINT and SIGTERM, which uvicorn would raise again afterwards.

    Args:
        application: The application that answers.
        on_ready: Function called when it begins to answer.
    """

    def __init__(self, application: Application, on_ready: Callable[[], None] = lambda: None) -> None:
        self._crowd = Crowd()
        super().__init__(
            uvicorn.Config(
                application,
                http=functools.partial(Connection, self._crowd),  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
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

    async def on_tick(self, counter: int) -> bool:
        """Close the connections that take too long; return True to stop."""
        if counter % _TICKS == 0:
            self._crowd.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)
