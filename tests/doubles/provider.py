"""
OpenAI and Anthropic for tests, on a real socket, saying what the test has them say.

The wire formats are those of the real services, streams included; the model is not.
"""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any

from forms import CREATED, Chat, Embeddings, Form, Messages, Responses
from replies import Cut, Failure, Gate, Incident, Json, Reply, ToolCall
from wire import PATIENCE, Answer, CutError, Request, Server, Stream

FORMS: dict[str, type[Form]] = {
    "/v1/chat/completions": Chat,
    "/v1/responses": Responses,
    "/v1/embeddings": Embeddings,
    "/v1/messages": Messages,
}
MODELS = ("gpt-4o", "text-embedding-3-small", "claude-test")


class Provider(Server):
    """
    Both services on one socket; use it in a with-block.

    Each request gets the next reply of those that the test has given, then ``default`` again and again.

    Attributes:
        openai_url: The base URL for clients of OpenAI.
        anthropic_url: The base URL for clients of Anthropic.
        default: The reply when no other is left.
        script: Decides the reply to a request, in its connection's thread; None leaves it to the others.
    """

    openai_key = "sk-test"
    anthropic_key = "sk-ant-test"

    def __init__(self) -> None:
        super().__init__()
        self.openai_url = f"{self.root}/v1"
        self.anthropic_url = self.root
        self.default = Reply("Hello, how can I help?")
        self.script: Callable[[Request], Reply | Failure | None] | None = None
        self._replies: deque[Reply | Failure] = deque()
        self._serial = itertools.count(1)
        self._gates: list[Gate] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the packages' clients come here by themselves."""
        return {
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": self.openai_key,
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "ANTHROPIC_API_KEY": self.anthropic_key,
        }

    def reply(self, *replies: Reply | Failure) -> None:
        """Answer the next requests with these, one each."""
        self._replies.extend(replies)

    def say(self, text: str, *incidents: Incident, **about: Any) -> None:
        """Answer the next request with a text; *about* are further arguments of ``Reply``."""
        self.reply(Reply(text, incidents=incidents, **about))

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | str,
        *incidents: Incident,
        id: str = "call_1",
        **about: Any,
    ) -> None:
        """Answer the next request by asking for a tool; *about* are further arguments of ``Reply``."""
        self.reply(Reply(tool_calls=(ToolCall(name, arguments, id),), incidents=incidents, **about))

    def fail(self, status: int, **about: Any) -> None:
        """Answer the next request with an error; *about* are further arguments of ``Failure``."""
        self.reply(Failure(status, **about))

    def stop(self) -> None:
        """Stop, and let nothing hang at a gate."""
        with self._changed:
            self._stopping.set()
            for gate in self._gates:
                gate.open()
        super().stop()

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer one request."""
        _ = request.body
        self.receive(request)
        try:
            answer = self._answer(request)
        except CutError:
            return False
        return answer.send(connection) and request.lasting

    def _answer(self, request: Request) -> Answer | Stream:
        serial = next(self._serial)
        if failure := self._objection(request):
            return self._failed(request, failure, serial)
        if request.method == "GET":
            return _answered(200, _models(request), serial)
        reply = self._reply(request)
        if isinstance(reply, Failure):
            return self._failed(request, reply, serial)
        form = FORMS[request.path](reply, request.json, serial)
        if request.json.get("stream"):
            return Stream(200, self._stream(form), _headers(serial))
        for incident in sorted(reply.incidents, key=lambda incident: incident.after):
            if isinstance(incident, Failure):
                return self._failed(request, incident, serial)
            self._meet(incident)
        return _answered(200, form.whole(), serial)

    def _objection(self, request: Request) -> Failure | None:
        """Return what is wrong with a request, whatever the model would say."""
        route = (request.method, request.path)
        if route != ("GET", "/v1/models") and not (request.method == "POST" and request.path in FORMS):
            return Failure(404, f"Invalid URL ({request.method} {request.path})")
        bearer = request.headers.get("authorization")
        if _is_anthropic(request):
            # Its package sends the key as a bearer token from 2.x on.
            keys = (request.headers.get("x-api-key"), (bearer or "").removeprefix("Bearer "))
            if self.anthropic_key not in keys:
                return Failure(401, "invalid x-api-key")
            if "anthropic-version" not in request.headers:
                return Failure(400, "anthropic-version: header is required")
        elif bearer != f"Bearer {self.openai_key}":
            return Failure(401, f"Incorrect API key provided: {bearer}.", code="invalid_api_key")
        if request.method == "POST" and not request.json.get("model"):
            return Failure(400, "you must provide a model parameter")
        return None

    def _reply(self, request: Request) -> Reply | Failure:
        scripted = self.script(request) if self.script else None
        if scripted is None and self._replies:
            return self._replies.popleft()
        return scripted or self.default

    def _failed(self, request: Request, failure: Failure, serial: int) -> Answer:
        body = failure.anthropic if _is_anthropic(request) else failure.openai
        return _answered(failure.status, body, serial, failure.headers)

    def _stream(self, form: Form) -> Generator[bytes]:
        """Yield the frames of a stream, with what happens between them."""
        incidents = deque(sorted(form.reply.incidents, key=lambda incident: incident.after))
        pieces = 0
        for sent, frame in enumerate(form.frames()):
            while incidents and incidents[0].after <= pieces:
                incident = incidents.popleft()
                if isinstance(incident, Failure):
                    yield from (broken.encoded for broken in form.broken(incident, sent))
                    return
                self._meet(incident)
            yield frame.encoded
            pieces += frame.piece

        assert not incidents, f"The answer has only {pieces} pieces: {list(incidents)} cannot happen."

    def _meet(self, incident: Gate | Cut) -> None:
        """Wait at a gate until it opens; raise ``CutError`` for a cut, and where the provider stops meanwhile."""
        if isinstance(incident, Cut):
            raise CutError
        with self._changed:
            self._gates.append(incident)
            stopping = self._stopping.is_set()
            incident.reached.set()
        if stopping or not incident.opened.wait(PATIENCE) or self._stopping.is_set():
            raise CutError


def _is_anthropic(request: Request) -> bool:
    return request.path == "/v1/messages" or "anthropic-version" in request.headers


def _answered(status: int, body: Json, serial: int, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, body, {**_headers(serial), **(headers or {})})


def _headers(serial: int) -> dict[str, str]:
    """Return the number of a request as each provider tells it."""
    return {"x-request-id": f"req_{serial}", "request-id": f"req_{serial}"}


def _models(request: Request) -> Json:
    if not _is_anthropic(request):
        about = {"object": "model", "created": CREATED, "owned_by": "system"}
        return {"object": "list", "data": [{"id": name, **about} for name in MODELS]}
    made = {"type": "model", "created_at": "2026-11-21T22:30:00Z", "lifecycle": "active"}
    data = [{"id": name, "display_name": name.title(), **made} for name in MODELS]
    return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
