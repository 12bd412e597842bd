"""
A WhyOps server for tests, on a real socket, that can misbehave by script.

It answers as the real server was seen to answer, traps included, and keeps all that it was sent.
Not done: the rewriting of the contents that clients send, and every endpoint that no client of ours calls.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from proxy import Proxy
from wire import Answer, Request, Row, Stream


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


class Collector(Proxy):
    """
    A WhyOps server, its proxy included, on a socket of this machine; it takes ``Backend``'s options.

    Use it in a with-block. ``stop()`` and ``start()`` within it are a restart: what is stored stays.

    Attributes:
        script: Decides for each request, in its connection's thread, what goes wrong with it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.script: Script | None = None
        self._faults: deque[Fault | None] = deque()
        self._releases = 0
        self.proxy_url = self.root
        self.url = f"{self.root}/api"

    def fail(self, *faults: Fault | None) -> None:
        """Let the next requests of ``POST /events`` meet these faults, one each; None is a good answer."""
        self._faults.extend(faults)

    def calm(self) -> None:
        """Forget the faults that no request has met yet."""
        self._faults.clear()

    def release(self) -> None:
        """Let the requests that hang now go on."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def seen(self) -> str:
        """Return how far things got, for a test that fails."""
        return f"{len(self.requests)} requests came, {len(self.stored)} events are stored"

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Treat one request as the script says, and return whether the connection goes on."""
        fault = self._fault(request)
        if fault == Reset("request"):
            request.read_half()
        else:
            _ = request.body
        with self._changed:
            self.receive(request)
            releases = self._releases  # from here on a test may see that the request hangs, and release it
        answer = self._treat(connection, request, fault, releases)
        if answer is None:
            return False
        if isinstance(fault, Drip):
            assert isinstance(answer, Answer)

            return self._drip(connection, b"".join(answer.encoded()), fault.size) and request.lasting
        return answer.send(connection) and request.lasting

    def _drip(self, connection: socket.socket, data: bytes, size: int) -> bool:
        """Send some data slowly, and return whether the collector still runs at its end."""
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
            if self._stopping.wait(0.001):
                return False
        return True

    def _treat(
        self, connection: socket.socket, request: Request, fault: Fault | None, releases: int
    ) -> Answer | Stream | None:
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
                done = self.act(request) if stored else Answer(201, [{}])
                assert isinstance(done, Answer)

                head, body = done.encoded()
                if when == "answer":
                    connection.sendall(head + body[: len(body) // 2])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None

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
