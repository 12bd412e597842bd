"""
A WhyOps server for tests, on a real socket, that can misbehave by script.

It answers as the real server was seen to answer, traps included, and keeps all that it was sent.
Not done: the rewriting of contents, the proxy's own events, and every endpoint that no client of ours calls.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from backend import Backend
from wire import Answer, Request, Row

#: How long a test waits for what must happen at all, in seconds.
PATIENCE = 30.0


@dataclass(frozen=True)
class Hang:
    """
    No answer until ``release()``, then the normal one; none at all if the collector stops first.

    Args:
        stored: Whether the events are stored before the wait and not after it.
    """

    stored: bool = False


@dataclass(frozen=True)
class Reset:
    """
    The connection is reset.

    Args:
        when: Instead of an answer ("request"), or in the middle of its body ("answer").
        stored: Whether the events are stored first; a request that is not is read only by half.
    """

    when: Literal["request", "answer"] = "request"
    stored: bool = False


@dataclass(frozen=True)
class Drip:
    """The normal answer, *size* bytes at a time, a millisecond apart."""

    size: int = 1


@dataclass(frozen=True)
class Close:
    """The request is read, forgotten, and the connection closed without an answer."""


@dataclass(frozen=True)
class Stored:
    """The server does its work, but the client is told something else."""

    answer: Answer


Fault = Answer | Hang | Reset | Drip | Close | Stored
Script = Callable[["Request"], Fault | None]


class Collector(Backend):
    """
    A WhyOps server on a socket of this machine, its threads in this process; it takes ``Backend``'s options.

    Use it in a with-block. ``stop()`` and ``start()`` within it are a restart: what is stored stays, and
    while it is stopped connections are refused.

    Attributes:
        requests: Every request received, in order.
        script: Decides for each request, in its connection's thread, what goes wrong with it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requests: list[Request] = []
        self.script: Script | None = None
        self._faults: deque[Fault | None] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._stopping = threading.Event()
        self._releases = 0
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._listener: socket.socket | None = None
        # Bound and never listening: the port stays ours, and refuses, while the collector is stopped.
        self._reserved = self._bind(0)
        self.port: int = self._reserved.getsockname()[1]
        self.proxy_url = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.proxy_url}/api"

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

    def fail(self, *faults: Fault | None) -> None:
        """Let the next requests of ``POST /events`` meet these faults, one each; None is a good answer."""
        self._faults.extend(faults)

    def release(self) -> None:
        """Let the requests that hang now go on."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until something holds, looking again after every request; fail after *timeout* seconds."""
        with self._changed:
            held = self._changed.wait_for(predicate, timeout)
            seen = f"{len(self.requests)} requests came, {len(self.stored)} events are stored"

        assert held, f"It did not happen within {timeout} s: {seen}."

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
                while (request := Request.read(reader)) and self._exchange(connection, request):
                    pass
        finally:
            with self._changed:
                del self._connections[connection]

    def _exchange(self, connection: socket.socket, request: Request) -> bool:
        """Treat one request as the script says, and return whether the connection goes on."""
        fault = self._fault(request)
        if fault == Reset("request"):
            request.read_half()
        else:
            _ = request.body
        with self._changed:
            self.requests.append(request)
            releases = self._releases  # from here on a test may see that the request hangs, and release it
            self._changed.notify_all()
        answer = self._treat(connection, request, fault, releases)
        if answer is None:
            return False
        head, body = answer.encoded()
        size = fault.size if isinstance(fault, Drip) else len(head) + len(body)
        for piece in _pieces(head + body, size):
            connection.sendall(piece)
            if isinstance(fault, Drip) and self._stopping.wait(0.001):
                return False
        return request.lasting

    def _treat(
        self, connection: socket.socket, request: Request, fault: Fault | None, releases: int
    ) -> Answer | None:
        """Return the answer to send, None where the connection is to end without one."""
        match fault:
            case None | Drip():
                return self.act(request)
            case Answer():
                return fault
            case Stored(answer):
                self.act(request)
                return answer
            case Hang(stored):
                done = self.act(request) if stored else None
                released = self._hang(releases)
                return (done or self.act(request)) if released else None
            case Reset(when, stored):
                head, body = (self.act(request) if stored else Answer(201, [{}])).encoded()
                if when == "answer":
                    connection.sendall(head + body[: len(body) // 2])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None

    def act(self, request: Request) -> Answer:
        """Do what a request asks for, alone, and tell those who wait."""
        with self._changed:
            try:
                return super().act(request)
            finally:
                self._changed.notify_all()

    def _fault(self, request: Request) -> Fault | None:
        fault = self.script(request) if self.script else None
        if fault is None and self._faults and (request.method, request.path) == ("POST", "/api/events"):
            return self._faults.popleft()
        return fault

    def _hang(self, releases: int) -> bool:
        """Wait for a release after the first *releases*; False if the end of the collector came before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._releases > releases or self._stopping.is_set())
            return self._releases > releases


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def check(rows: list[Row]) -> None:
    """Fail if the rows of one trace are not a sound trace: steps, parents, and tools with their responses."""
    ordered = sorted(rows, key=lambda row: (row["timestamp"], row["stepId"]))
    steps = [row["stepId"] for row in ordered]
    by_step = {row["stepId"]: row for row in ordered}
    answered = []
    for row in ordered:
        step, parent = row["stepId"], row["parentStepId"]

        assert not parent or parent in by_step, f"step {step}: its parent {parent} does not exist"
        assert not parent or parent < step, f"step {step}: its parent {parent} is above it"

        if row["eventType"] == "tool_call_response":
            request = by_step.get(parent, {"eventType": None})

            assert request["eventType"] == "tool_call_request", f"step {step}: parent {parent} is no request"
            assert request["spanId"] == row["spanId"], f"step {step}: not the span of its request {parent}"

            answered.append(parent)
    requests = [row["stepId"] for row in ordered if row["eventType"] == "tool_call_request"]

    assert steps == sorted(set(steps)), f"steps do not rise in time: {steps}"
    assert sorted(answered) == requests, f"requests {requests}, but these were answered: {sorted(answered)}"
