"""What the servers of the tests stand on: a socket, the requests that come in, and the answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader
from typing import Any, NoReturn, Self
from urllib.parse import parse_qsl, unquote, urlsplit

Row = dict[str, Any]
Event = dict[str, Any]
#: How long a test waits for what must happen at all, in seconds.
PATIENCE = 30.0


@dataclass(frozen=True)
class Answer:
    """This answer and nothing else: what the request carried is forgotten."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def encoded(self) -> tuple[bytes, bytes]:
        """Return the head and the body as they go over the wire."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        body = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        members = {"Content-Type": self.content_type, "Content-Length": str(len(body)), **self.headers}
        return _head(self.status, members), body

    def send(self, connection: socket.socket) -> bool:
        """Send it, and return whether the connection may go on."""
        connection.sendall(b"".join(self.encoded()))
        return True


class CutError(Exception):
    """An answer ends here, in the middle, and its connection with it."""


@dataclass(frozen=True)
class Stream:
    """An answer whose body goes out piece by piece, each when it is there; ``CutError`` cuts it off."""

    status: int
    pieces: Generator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream; charset=utf-8"

    def send(self, connection: socket.socket) -> bool:
        """Send it, and return whether the connection may go on; the pieces are closed if the client goes."""
        members = {"Content-Type": self.content_type, "Transfer-Encoding": "chunked", **self.headers}
        with contextlib.closing(self.pieces):
            connection.sendall(_head(self.status, members))
            try:
                for piece in self.pieces:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            except CutError:
                return False
        connection.sendall(b"0\r\n\r\n")
        return True


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    phrase = http.client.responses.get(status, "Unknown")
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


class Request:
    """
    A request as it came in.

    The body is read from the connection when it is first asked for, so a script that looks only at the head
    decides before the client has sent everything.
    """

    def __init__(self, reader: BufferedReader, method: str, target: str) -> None:
        self.method = method
        parts = urlsplit(target)
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query))
        self.headers = http.client.parse_headers(reader)
        self._reader = reader

    @classmethod
    def read(cls, reader: BufferedReader) -> Self | None:
        """Read the head of the next request; None at the end, and for what is not HTTP (a TLS handshake)."""
        line = re.fullmatch(r"([A-Z]+) (\S+) HTTP/1\.[01]\r\n", reader.readline().decode("latin-1"))
        return cls(reader, line[1], line[2]) if line else None

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"

    @property
    def lasting(self) -> bool:
        """Whether the client keeps the connection for another request."""
        return str(self.headers.get("connection", "")).lower() != "close"

    @cached_property
    def body(self) -> bytes:
        """The raw body, without its framing."""
        return b"".join(self._chunks()) if self._chunked else self._read(self._length)

    @property
    def json(self) -> Any:
        """The body as the server's JSON parser reads it; ``ValueError`` where that is not possible."""
        return json.loads(self.body.decode(errors="replace"), parse_constant=_refuse, parse_int=_number)

    def read_half(self) -> None:
        """Read half of the body, of a chunked one half of its first chunk, and let that stand for all of it."""
        if "body" not in self.__dict__:
            size = int(self._reader.readline(), 16) if self._chunked else self._length
            self.__dict__["body"] = self._read(size // 2)

    @property
    def _chunked(self) -> bool:
        return str(self.headers.get("transfer-encoding", "")).lower() == "chunked"

    @property
    def _length(self) -> int:
        return int(self.headers.get("content-length", 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._reader.readline(), 16):
            yield self._read(size)
            self._reader.readline()
        self._reader.readline()

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError("The client went away in the middle of its request.")
        return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON.")


def _number(digits: str) -> float:
    """Return an integer as JavaScript holds it: beyond 2^53 it is another one."""
    if len(digits) < 16:
        return int(digits)
    number = float(digits)
    return int(number) if number.is_integer() else number


class Server:
    """
    A server on a socket of this machine, its threads in this process; use it in a with-block.

    ``stop()`` and ``start()`` within it are a restart: while it is stopped connections are refused.

    Attributes:
        requests: Every request received, in order.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._changed = threading.Condition(threading.RLock())
        self._stopping = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._listener: socket.socket | None = None
        # Bound and never listening: the port stays ours, and refuses, while the server is stopped.
        self._reserved = self._bind(0)
        self.port: int = self._reserved.getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._reserved.close()

    @staticmethod
    def _bind(port: int) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    def start(self) -> None:
        """Listen."""
        self._stopping.clear()
        self._listener = self._bind(self.port)
        self._listener.listen(128)
        self._acceptor = threading.Thread(target=self._accept, args=[self._listener], daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Cut every connection, end every thread, and refuse new connections."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)
        listener.close()
        with self._changed:
            connections = list(self._connections.items())
        for connection, _ in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in connections:
            if thread is not threading.current_thread():
                thread.join(PATIENCE)

    def wait_for(self, predicate: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until something holds, looking again after every request; fail after *timeout* seconds."""
        with self._changed:
            held = self._changed.wait_for(predicate, timeout)
            seen = self.seen()

        assert held, f"It did not happen within {timeout} s: {seen}."

    def seen(self) -> str:
        """Return how far things got, for a test that fails."""
        return f"{len(self.requests)} requests came"

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Treat one request, and return whether its connection goes on."""
        raise NotImplementedError

    def receive(self, request: Request) -> None:
        """Keep a request, and tell those who wait."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was shut down
            while True:
                connection, _ = listener.accept()
                thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
                with self._changed:
                    self._connections[connection] = thread
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until either side ends it."""
        try:
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (request := Request.read(reader)) and self.exchange(connection, request):
                    pass
        finally:
            with self._changed:
                del self._connections[connection]
