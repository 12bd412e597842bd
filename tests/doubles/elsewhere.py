"""A product that keeps traces: the answers that a test gives it, on a socket."""

from __future__ import annotations

import socket
from typing import Any

from wire import Answer, Request, Server, Stream


class Elsewhere(Server):
    """
    The product; use it in a with-block.

    Attributes:
        answers: The answers by path, and by path and query in the order of names where several differ by that.
    """

    def __init__(self, answers: dict[str, Answer | Stream | Any] | None = None) -> None:
        super().__init__()
        self.answers: dict[str, Answer | Stream | Any] = answers or {}

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer a request; what is no answer is the body of one."""
        _ = request.body
        self.receive(request)
        query = "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
        found = self.answers.get(f"{request.path}?{query}", self.answers.get(request.path))
        if found is None:
            found = Answer(404, {"error": "no such trace"})
        answer = found if isinstance(found, (Answer, Stream)) else Answer(200, found)
        return answer.send(connection) and request.lasting
