"""A seller of models at any host, that answers in whatever dialect and media type the test has it speak."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any

from replies import Json
from wire import Answer, Request, Server


def sse(*events: Json, done: bool = True) -> bytes:
    """Return the body of a stream of events, as OpenAI and those who follow it end one."""
    frames = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*frames, "data: [DONE]\n\n" if done else ""]).encode()


def chat(message: Json, usage: Json | None = None, **more: Any) -> Json:
    """Return a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    about = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {**about, **({} if usage is None else {"usage": usage}), **more}


def chunks(deltas: Iterable[Json], **last: Any) -> list[Json]:
    """Return the chunks of a chat completion, the last of them with further members."""
    about = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    made: list[Json] = [{**about, "choices": [choice]} for choice in choices]
    made[-1] |= last
    return made


class Seller(Server):
    """
    A seller of models; use it in a with-block.

    Attributes:
        body: The answer to each request: JSON, or bytes as they are.
        media_type: Its media type.
    """

    def __init__(self, body: Json | bytes = b"", media_type: str = "application/json") -> None:
        super().__init__()
        self.body = body
        self.media_type = media_type

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer one request."""
        _ = request.body
        self.receive(request)
        return Answer(200, self.body, content_type=self.media_type).send(connection) and request.lasting

    def lead_here(self, request: Any) -> None:
        """Lead a request for any host to this server, as an event hook of a client's HTTP library."""
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self.port)
