"""The connections of the server: what takes too long is closed, and who comes late is answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from browser import record, served, tool_call
from wire import PATIENCE

from whyops_trace.server import connections
from whyops_trace.server.app import Application

HALF = b"POST /login HTTP/1.1\r\nHost: 127"
BODY = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[{"
ALL = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of a server."""
    with served(tmp_path / "home") as url:
        yield "127.0.0.1", int(url.rpartition(":")[2])


@contextlib.contextmanager
def connected(address: tuple[str, int], sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(sent)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other end closes, or says something."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", HALF, BODY, b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("before", [b"", ALL])
def test_what_takes_too_long_is_closed(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, sent: bytes, before: bytes
) -> None:
    """A request that does not come, one without an end, and one whose body does not come; the first and any later."""
    with connected(address, before) as connection:
        if before:
            while not connection.recv(4096).endswith(b"}"):
                pass
        connection.sendall(sent)
        for name in ("HEADERS_TIME", "BODY_TIME"):
            monkeypatch.setattr(connections, name, 0.0)

        assert is_closed(connection)


def test_who_does_not_read_the_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time in which nothing of it was taken."""
    record(tmp_path / "home", tool_call("t", results={"text": "x" * 20_000_000}))
    request = b"GET /api/events?include=content HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with served(tmp_path / "home") as url:
        there = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect(there)
            connection.sendall(request)
            connection.recv(1)
            monkeypatch.setattr(connections, "ANSWER_TIME", 0.0)
            monkeypatch.setattr(connections, "HEADERS_TIME", 0.0)
            received = 1
            with connected(there, HALF) as other:
                assert is_closed(other)  # so it has looked at all of them
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(1 << 16):
                    received += len(piece)

    assert received < 20_000_000


def test_a_slow_body_that_comes_is_read(address: tuple[str, int]) -> None:
    """Piece by piece, with an answer at the end."""
    with connected(address, BODY) as connection:
        for piece in (b"}", b" " * 5, b"]"):
            connection.sendall(piece)

        assert connection.recv(12) == b"HTTP/1.1 400"


def test_many_half_requests_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection takes the place of the oldest one that has not asked anything; one that has keeps its own."""
    monkeypatch.setattr(connections, "most_connections", lambda: 40)
    with (
        served(tmp_path / "home") as url,
        httpx.Client(base_url=url) as first,
        contextlib.ExitStack() as held,
    ):
        before = first.get("/api/health")
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        crowd = [held.enter_context(connected(address, HALF)) for _ in range(60)]
        closed = is_closed(crowd[0])
        with httpx.Client(base_url=url) as late:
            answers = [before, first.get("/api/health"), late.get("/api/health")]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert closed


def test_one_peer_has_half_of_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of a network of IPv6 are one peer, and its own connections are closed for those it opens."""
    closed: list[str] = []

    class Transport(asyncio.Transport):
        def __init__(self, host: str) -> None:
            super().__init__({"peername": (host, 1), "sockname": ("::1", 2)})
            self.host = host

        def abort(self) -> None:
            closed.append(self.host)

    crowd = connections.Crowd(most=6)
    state: Any = type("State", (), {"connections": set(), "tasks": set()})()
    config = uvicorn.Config(
        Application(Path("nowhere"), "", (), None), loop="none", ws="none", log_config=None
    )
    loop = asyncio.new_event_loop()
    made = []
    for host in ("10.0.0.1", "10.0.0.2", *(f"2001:db8::{n}" for n in range(5))):
        connection = connections.Connection(
            crowd, config=config, server_state=state, app_state={}, _loop=loop
        )
        connection.connection_made(Transport(host))
        made.append(connection)
    loop.close()

    assert closed == ["2001:db8::0", "2001:db8::1"]


@pytest.mark.parametrize(
    ("sent", "advice"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 40 + b"\r\n\r\n",
            b"use http:// instead of https://",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"not HTTP/2 or gRPC"),
        (b"hello\r\n\r\n", b"Invalid HTTP request"),
    ],
)
def test_another_protocol_is_told_what_to_do(address: tuple[str, int], sent: bytes, advice: bytes) -> None:
    """Before the connection is closed."""
    with connected(address, sent) as connection:
        answer = b""
        while piece := connection.recv(4096):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 4")
    assert advice in answer
