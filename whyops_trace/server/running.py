"""The application on a socket, until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from whyops_trace.server.app import Application

#: Seconds that requests have to end when the server stops.
_GRACE: Final = 3


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
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
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
        if self.started:
            self._on_ready()
