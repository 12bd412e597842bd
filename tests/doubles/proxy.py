"""
The WhyOps proxy for tests: it passes LLM requests on to a provider, edits the answers, and reports both.

It does so as the real one was seen to, odd behaviours included.
Not done: the unwrapping of user texts that look like JSON, and references to earlier items of ``/responses``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from backend import BROKEN, NOT_FOUND, UNAUTHORIZED, Backend, RefusedError, now
from provider import Provider
from proxied import ROUTES, Route, Said, datas, given, rewritten, signature, unsigned
from replies import Json, compact
from rules import violations
from wire import PATIENCE, Answer, CutError, Event, Request, Server, Stream

from whyops_trace._clock import iso

#: The account's provider, as it stands in what the proxy reports.
PROVIDER_ID = "aaaaaaaa-0000-4000-8000-000000000003"
NO_AGENT = Answer(400, {"error": "Missing required header: X-Agent-Name"})
NO_PROVIDER = Answer(
    400,
    {"error": "No provider configured for this API key. Add a provider or use a provider-slug/model format."},
)
#: How long a key's share of requests has to last, in seconds.
WINDOW = 60
CHUNK = 65_536
UPSTREAM_ERRORS = (OSError, http.client.HTTPException)


def _span() -> str:
    return f"span_{secrets.token_urlsafe(12)}"


@dataclass
class Call:
    """A request on its way through the proxy."""

    route: Route
    path: str
    body: Json
    tenant: str
    agent: str
    trace: str
    user: str | None
    upstream: Provider
    slug: str | None
    custom: bool
    span: str = field(default_factory=_span)
    began: float = field(default_factory=time.monotonic)

    @property
    def provider(self) -> str:
        """The provider as the events of this call name it."""
        return "custom" if self.custom else self.route.provider

    @property
    def about(self) -> Json:
        """The metadata of every event of a request that goes well."""
        return given(model=self.body["model"], provider=self.provider, providerSlug=self.slug)

    def event(self, kind: str, content: Any, metadata: Json, *, span: str, user: bool = True) -> Event:
        """Return an event of this call."""
        about = {"traceId": self.trace, "spanId": span, "eventType": kind, "agentName": self.agent}
        users = {"externalUserId": self.user} if user and self.user else {}
        return {**about, **users, "content": content, "metadata": metadata, "timestamp": now()}

    def request(self) -> Event:
        """Return what the proxy reports before it asks upstream."""
        kind = self.route.kind(self.body)
        metadata = self.about | self.route.about(self.body)
        named = kind != "embedding_request"
        return self.event(kind, self.route.content(self.body), metadata, span=self.span, user=named)

    def answer(self, said: Said, *, streamed: bool) -> list[Event]:
        """Return what the proxy reports of a good answer."""
        metadata = self.about | given(model=said.model, usage=said.usage, latencyMs=self.latency())
        span, user = _span(), not streamed
        if self.route.paired:
            asked = self.route.about(self.body)
            names = ("systemPrompt", "tools", "temperature", "maxTokens")
            metadata |= {name: asked[name] for name in names if name in asked}
            metadata["provider"] = self.route.provider  # whatever the request's event says
            metadata.pop("providerSlug", None)
            span, user = self.span, True
        events = [self.event(self.route.kinds[1], said.content, metadata, span=span, user=user)]
        thought = {"provider": self.route.provider, "model": self.body["model"]}
        events += [self.event("llm_thinking", block, thought, span=_span()) for block in said.thinking]
        return events

    def error(self, content: Any) -> Event:
        """Return what the proxy reports of a failure."""
        known = {"provider": self.route.provider, "model": self.body["model"]} if self.route.paired else {}
        return self.event("error", content, {**known, "latencyMs": self.latency()}, span=_span())

    def latency(self) -> int:
        """Return how long it has taken so far, in milliseconds."""
        return round((time.monotonic() - self.began) * 1000)

    def names(self, *, always: bool) -> dict[str, str]:
        """Return the headers that name the trace, where the proxy sends them."""
        return {"X-Trace-ID": self.trace, "X-Thread-ID": self.trace} if always or self.route.named else {}


class Relay:
    """A stream on its way through the proxy, unchanged."""

    def push(self, piece: bytes) -> bytes:
        """Take some bytes of the stream, and return those to send on."""
        return piece

    def end(self, call: Call) -> bytes:
        """Return what is sent after all others."""
        return b""


class ChatRelay(Relay):
    """A stream of chat chunks: framed anew, and signed before its end."""

    def __init__(self) -> None:
        self._rest = b""
        self._done = False

    def push(self, piece: bytes) -> bytes:
        complete, end, self._rest = (self._rest + piece).rpartition(b"\n\n")
        carried = list(datas(complete + end))
        self._done |= "[DONE]" in carried
        return "".join(f"data: {data}\n\n" for data in carried if data != "[DONE]").encode()

    def end(self, call: Call) -> bytes:
        if not self._done:
            return b""
        choice = {"index": 0, "delta": {"content": signature(call.trace)}, "finish_reason": None}
        about = {"object": "chat.completion.chunk", "created": time.time_ns() // 1_000_000}
        chunk = {"id": "gen-signature", **about, "model": call.body["model"], "choices": [choice]}
        return f"data: {compact(chunk)}\n\ndata: [DONE]\n\n".encode()


class Proxy(Server, Backend):
    """
    The proxy in front of a backend, on the same socket; it takes ``Backend``'s options.

    Attributes:
        upstream: The account's provider; without one the proxy refuses every request.
        slugs: Further providers, which a model "slug/model" picks.
        proxied: The requests that the proxy got, in order.
        rate_limit: How many requests each key has, None for no limit; the window never ends.
        lag: Seconds until an event that the proxy reports is stored, as it goes through a queue.
        event_seconds: Seconds that each event of ``POST /events`` takes; other requests are answered meanwhile.
        stream_late: Seconds from the end of a stream to the report of it; at 0 it comes before the end.
        emit_late: Whether what the proxy reports of answers waits for ``let_emit()``.
        held: What waits, each event with its tenant.
    """

    def __init__(self, **options: Any) -> None:
        Server.__init__(self)
        Backend.__init__(self, **options)
        self.upstream: Provider | None = None
        self.slugs: dict[str, Provider] = {}
        self.proxied: list[Request] = []
        self.rate_limit: int | None = None
        self.lag = 0.0
        self.event_seconds = 0.0
        self.stream_late = 0.0
        self.emit_late = False
        self.held: list[tuple[Event, str]] = []
        self._used: Counter[str] = Counter()
        self._queue: deque[tuple[float, Event, str]] = deque()
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and store what is reported in the order of the queue."""
        super().start()
        self._reader = threading.Thread(target=self._read_queue, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Cut every connection, and leave what waits in the queue until the next start."""
        super().stop()
        if self._reader is not None:
            self._reader.join(PATIENCE)

    def _read_queue(self) -> None:
        with self._changed:
            while not self._stopping.is_set():
                left = self._queue[0][0] - time.monotonic() if self._queue else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                _, event, tenant = self._queue.popleft()
                self._store_reported(event, tenant)

    def let_emit(self) -> None:
        """Report what waits; what comes later waits again."""
        with self._changed:
            held, self.held = self.held, []
            for event, tenant in held:
                self._emit(event, tenant)

    def act(self, request: Request) -> Answer | Stream:
        """Do what a request asks for, and tell those who wait; the backend does it alone."""
        if request.path in (*ROUTES, "/v1/models"):
            return self._limited(request, self._forward)
        if request.path == "/v1/agents/init":
            return self._limited(request, self._back)
        return self._back(request)

    def _back(self, request: Request) -> Answer | Stream:
        with self._changed:
            try:
                return Backend.act(self, request)
            finally:
                self._changed.notify_all()

    def _limited(self, request: Request, act: Callable[[Request], Answer | Stream]) -> Answer | Stream:
        """Act on a request if its key has not had its share of them."""
        key = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
        if self.rate_limit is None or self._tenant(request) is None:
            return act(request)
        with self._changed:
            self._used[key] += 1
            left = self.rate_limit - self._used[key]
        end = iso(time.time_ns() + WINDOW * 1_000_000_000)
        headers = {
            "X-RateLimit-Limit": str(self.rate_limit),
            "X-RateLimit-Remaining": str(max(left, 0)),
            "X-RateLimit-Reset": end,
        }
        message = f"Too many requests. Limit: {self.rate_limit} requests per {WINDOW} seconds"
        refusal = Answer(429, {"error": "Rate limit exceeded", "message": message, "retryAfter": end})
        answer = act(request) if left >= 0 else refusal
        return replace(answer, headers={**answer.headers, **headers})

    def _forward(self, request: Request) -> Answer | Stream:
        """Answer a request for the provider."""
        with self._changed:
            self.proxied.append(request)
        tenant = self._tenant(request)
        if tenant is None:
            return UNAUTHORIZED
        route = ROUTES.get(request.path)
        if request.method != ("POST" if route else "GET"):
            return NOT_FOUND
        if route is None:
            return self._models()
        try:
            body = request.json
        except ValueError:
            return BROKEN
        slug, slash, model = body["model"].partition("/")
        own = self.slugs.get(slug) if slash else None
        upstream = own or self.upstream
        agent = request.headers.get("x-agent-name")
        if not agent:
            return NO_AGENT
        if upstream is None:
            return NO_PROVIDER
        named = request.headers.get("x-trace-id") or request.headers.get("x-thread-id")
        call = Call(
            route=route,
            path=request.path,
            body=unsigned(body) | {"model": model if slash else slug},
            tenant=tenant,
            agent=agent,
            trace=named or route.trace_id(body) or f"thread_{secrets.token_urlsafe(12)}",
            user=request.headers.get("x-external-user-id"),
            upstream=upstream,
            slug=slug if slash else None,
            custom=own is not None,
        )
        return self._ask(call)

    def _models(self) -> Answer:
        if self.upstream is None:
            return NO_PROVIDER
        with self._connected(self.upstream) as connection:
            key = {"Authorization": f"Bearer {self.upstream.openai_key}"}
            connection.request("GET", "/v1/models", headers=key)
            return Answer(200, json.loads(connection.getresponse().read()))

    def _ask(self, call: Call) -> Answer | Stream:
        """Report a request, ask upstream, report the answer, and hand it on."""
        self._emit(call.request(), call.tenant)
        streamed = call.body.get("stream") is True
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._connected(call.upstream))
                connection.request("POST", call.path, compact(call.body).encode(), _headers(call))
                response = stack.enter_context(connection.getresponse())
                if streamed and response.status == 200:
                    return self._streamed(call, response, stack.pop_all())
                raw = response.read()
            except UPSTREAM_ERRORS as error:
                self._report(call, call.error({"message": str(error)}))
                return Answer(500, {"error": str(error)}, call.names(always=False))
        if response.status != 200:
            return self._failed(call, response, raw, streamed=streamed)
        answer = json.loads(raw)
        call.route.edit(answer, call.trace)
        self._report(call, *call.answer(call.route.read(unsigned(answer)), streamed=False))
        return Answer(200, compact(answer), call.names(always=False))

    def _failed(
        self, call: Call, response: http.client.HTTPResponse, raw: bytes, *, streamed: bool
    ) -> Answer:
        """Report an error, and hand it on with its status."""
        kind = response.headers.get("content-type", "application/json")
        if streamed or "embeddings" in call.path:
            self._report(call, call.error({"error": raw.decode(), "status": response.status}))
            return Answer(response.status, raw, content_type=kind)
        self._report(call, call.error(json.loads(raw)))
        return Answer(response.status, raw, call.names(always=False))

    def _streamed(self, call: Call, response: http.client.HTTPResponse, stack: ExitStack) -> Stream:
        framing = ("content-length", "content-type", "transfer-encoding")
        headers = {name: text for name, text in response.headers.items() if name.lower() not in framing}
        pieces = self._relayed(call, response, stack)
        next(pieces)  # begun, so that all is closed even where the client goes away before the first piece
        return Stream(200, pieces, headers | call.names(always=True), response.headers["content-type"])

    def _relayed(self, call: Call, response: http.client.HTTPResponse, stack: ExitStack) -> Generator[bytes]:
        """Yield a stream as its client gets it; where the client goes away, it is read to its end all the same."""
        relay = ChatRelay() if call.path == "/v1/chat/completions" else Relay()
        heard = bytearray()
        with stack:
            yield b""
            try:
                while piece := response.read1(CHUNK):
                    heard += piece
                    if relayed := relay.push(piece):
                        yield relayed
            except GeneratorExit:
                with contextlib.suppress(*UPSTREAM_ERRORS):
                    self._report_stream(call, bytes(heard) + response.read())
                return
            except UPSTREAM_ERRORS:
                if isinstance(relay, ChatRelay):
                    return  # as if it ended here, and nothing is reported
                raise CutError from None
            if not self.stream_late:
                self._report_stream(call, bytes(heard))
            if end := relay.end(call):
                yield end
            if self.stream_late:
                self._stopping.wait(self.stream_late)  # the client has the end by now, and goes on
                self._report_stream(call, bytes(heard))

    def _report_stream(self, call: Call, heard: bytes) -> None:
        events = [json.loads(data) for data in datas(heard) if data != "[DONE]"]
        self._report(call, *call.answer(call.route.heard(events), streamed=True))

    @contextlib.contextmanager
    def _connected(self, upstream: Provider) -> Iterator[http.client.HTTPConnection]:
        """Connect to a provider; ``stop()`` cuts that connection too."""
        connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.connect()
            connected: socket.socket = connection.sock
            with self._changed:
                self._connections[connected] = threading.current_thread()
                stopping = self._stopping.is_set()
            try:
                if stopping:
                    raise ConnectionAbortedError("The proxy stops.")
                yield connection
            finally:
                with self._changed:
                    del self._connections[connected]

    def _report(self, call: Call, *events: Event) -> None:
        """Report what came of a request, now or when the test lets it."""
        with self._changed:
            for event in events:
                if self.emit_late:
                    self.held.append((event, call.tenant))
                else:
                    self._emit(event, call.tenant)
            self._changed.notify_all()

    def _provider(self) -> str | None:
        return PROVIDER_ID if self.upstream is not None else None

    def _take_time(self) -> None:
        until = time.monotonic() + self.event_seconds
        self._changed.wait_for(
            lambda: self._stopping.is_set() or time.monotonic() >= until, self.event_seconds
        )

    def _emit(self, event: Event, tenant: str) -> None:
        """Put an event into the backend's queue."""
        with self._changed:
            if self.lag:
                self._queue.append((time.monotonic() + self.lag, event, tenant))
                self._changed.notify_all()
            else:
                self._store_reported(event, tenant)

    def _store_reported(self, event: Event, tenant: str) -> None:
        """Let the backend process an event as if it came from its queue."""
        with self._changed:
            try:
                if details := violations(event):
                    raise RefusedError(400, "Validation failed", str(details))
                result = self._process(event, tenant)
            except RefusedError as refusal:
                self.dead_letters.append({"lastError": refusal.cause, "event": event})
            else:
                if result["status"] == "saved":
                    provider = event["metadata"].get("provider")
                    content = rewritten(event["eventType"], event["content"], provider)
                    self.stored[-1]["content"] = content
            self._changed.notify_all()


def _headers(call: Call) -> dict[str, str]:
    """Return all the headers that go upstream; nothing of the client's own is among them."""
    keys = {"Authorization": f"Bearer {call.upstream.openai_key}"}
    if call.route.provider == "anthropic":
        keys = {"x-api-key": call.upstream.anthropic_key, "anthropic-version": "2023-06-01"}
    return {**keys, "Content-Type": "application/json", "User-Agent": "WhyOps-Proxy/1.0"}
