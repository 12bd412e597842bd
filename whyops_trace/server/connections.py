"""
The connections of the server: how many there may be, and how long each may take.

Anybody who reaches the port can open connections without a key. So a request has to come within a time, one peer has at
most half of the connections, and a new connection takes the place of the oldest one that has not sent a request yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Number of open files to request from the system, if it allows that many.
_FILES: Final = 10_240
#: Connections accepted at a time. A few times as many are open before the first of them can be closed.
BACKLOG: Final = 64
#: Files kept free when the number of connections is at its limit.
_SPARE: Final = 6 * BACKLOG
#: Seconds in which the headers of a request have to come, after the connection was made or the last answer was sent.
HEADERS_TIME: Final = 10.0
#: Seconds in which a body has to come, and bytes of it that give another second.
BODY_TIME: Final = 20.0
BODY_RATE: Final = 16_384
#: Seconds in which a peer has to take something of an answer.
ANSWER_TIME: Final = 60.0


class _Peer:
    """The connections of one address."""

    def __init__(self) -> None:
        self.count = 0
        #: Those without a request so far, the oldest first.
        self.strangers: dict[Connection, None] = {}


class Crowd:
    """
    All connections of a server, by their peers.

    Args:
        most: Largest number of them; as many as the system has files for, if left out.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._peers: dict[str, _Peer] = {}
        self._connections: set[Connection] = set()

    def enter(self, connection: Connection) -> None:
        """Take one more connection; close another one, or this one, if they are too many."""
        peer = self._peers.setdefault(connection.peer, _Peer())
        peer.count += 1
        peer.strangers[connection] = None
        self._connections.add(connection)
        most = self._most or most_connections()
        if peer.count > max(1, most // 2):
            crowded = peer
        elif len(self._connections) > most:
            crowded = max(self._peers.values(), key=lambda each: len(each.strangers))
        else:
            return
        next(iter(crowded.strangers)).abort()

    def asked(self, connection: Connection) -> None:
        """Note that a connection has sent a request."""
        if connection in self._connections:
            self._peers[connection.peer].strangers.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.remove(connection)
            peer = self._peers[connection.peer]
            peer.count -= 1
            peer.strangers.pop(connection, None)
            if not peer.count:
                del self._peers[connection.peer]

    def sweep(self, now: float) -> None:
        """Close the connections that take too long."""
        for connection in [each for each in self._connections if each.is_overdue(now)]:
            connection.abort()


class Connection(H11Protocol):
    """
    One connection.

    Args:
        crowd: The connections that it is one of.
        **options: Those of the base.

    Attributes:
        peer: The address at its other end; for IPv6 the network, as each has many.
    """

    def __init__(self, crowd: Crowd, **options: Any) -> None:
        super().__init__(**options)
        self._crowd = crowd
        self.peer: str = ""
        self._known_cycle: object = None
        #: When it began to wait for headers or a body, and when its peer took nothing more of an answer.
        self._since = self.loop.time()
        self._stuck: float | None = None
        self._received = 0
        self._first = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to answer."""
        super().connection_made(transport)
        self.peer = _peer(transport)
        self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes of a request."""
        self._first = self._first or data[:16]
        self._received += len(data)
        super().data_received(data)
        if self.cycle is not self._known_cycle:
            self._known_cycle, self._since, self._received = self.cycle, self.loop.time(), 0
            self._crowd.asked(self)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._since, self._received = self.loop.time(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the peer to take the answer."""
        self._stuck = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        self._stuck = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, and say what to do if it is of another protocol."""
        if self._first.startswith(b"\x16\x03"):
            msg = "This port speaks HTTP without encryption: use http:// instead of https://, or a proxy before it."
        elif self._first.startswith(b"PRI * HTTP/2"):
            msg = "This port speaks HTTP/1.1, not HTTP/2 or gRPC."
        super().send_400_response(msg)

    def is_overdue(self, now: float) -> bool:
        """Return True if its peer takes too long, *now* in the time of the event loop."""
        if self._stuck is not None:
            return now - self._stuck > ANSWER_TIME
        if self.cycle is None or self.cycle.response_complete:
            return now - self._since > HEADERS_TIME
        if not self.cycle.more_body:
            return False
        if self.flow.read_paused:  # the server is behind, not the peer
            self._since = now
        return now - self._since > BODY_TIME + self._received / BODY_RATE

    def abort(self) -> None:
        """Close it without a word."""
        self._crowd.leave(self)
        self.transport.abort()


def _peer(transport: asyncio.Transport) -> str:
    address = transport.get_extra_info("peername")
    host = str(address[0]).partition("%")[0] if isinstance(address, tuple) else ""
    try:
        return str(ipaddress.ip_network((host, 64), strict=False)) if ":" in host else host
    except ValueError:
        return host


@functools.cache
def most_connections() -> int:
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
    return max(files - _SPARE, BACKLOG)
