"""
A WhyOps server for tests, on a real socket, that can misbehave by script.

It answers as the real server was seen to answer, traps included, and keeps all that it was sent.
Not done: the rewriting of contents, the proxy's own events, and every endpoint that no client of ours calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from io import BufferedReader
from typing import Any, Literal, NoReturn, Self
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
        phrase = http.client.responses.get(self.status, "Unknown")
        members = {"Content-Type": self.content_type, "Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {text}" for name, text in members.items())]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1"), body


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


Issues = tuple[tuple[str, str], ...]
TOOL_TYPES = frozenset({"tool_call_request", "tool_call_response"})
MODEL_TYPES = frozenset({"llm_response", "embedding_response"})
OTHER_TYPES = {"user_message", "embedding_request", "llm_thinking", "tool_call", "tool_result", "error"}
TYPES = TOOL_TYPES | MODEL_TYPES | OTHER_TYPES
UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
TIMESTAMP = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z", re.ASCII
)


class _MistypedError(Exception):
    """A value of the wrong type: the validator then only says that its union fits nowhere."""


def _enum(value: Any) -> Issues:
    if not isinstance(value, str) or value not in TYPES:
        raise _MistypedError
    return ()


def _string(most: int, long: str = "", least: int = 0, short: str = "") -> Callable[[Any], Issues]:
    long = long or f"String must contain at most {most} character(s)"
    short = short or f"String must contain at least {least} character(s)"

    def check(value: Any) -> Issues:
        if not isinstance(value, str):
            raise _MistypedError
        if len(value) < least:
            return ((short, "too_small"),)
        if len(value.encode("utf-16-le", "surrogatepass")) > 2 * most:
            return ((long, "too_big"),)
        return ()

    return check


def _matching(pattern: re.Pattern[str], message: str) -> Callable[[Any], Issues]:
    def check(value: Any) -> Issues:
        if not isinstance(value, str):
            raise _MistypedError
        return () if pattern.fullmatch(value) else ((message, "invalid_string"),)

    return check


def _step(name: str) -> Callable[[Any], Issues]:
    def check(value: Any) -> Issues:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _MistypedError
        issues: Issues = ()
        if isinstance(value, float) and not value.is_integer():
            issues += (("Expected integer, received float", "invalid_type"),)
        if value < 1:
            issues += ((f"{name} must be a positive integer", "too_small"),)
        return issues

    return check


def _object(value: Any) -> Issues:
    if not isinstance(value, dict):
        raise _MistypedError
    return ()


CHECKS: dict[str, Callable[[Any], Issues]] = {
    "eventType": _enum,
    "traceId": _string(128, "Trace ID must be between 1 and 128 characters", 1),
    "spanId": _string(128, "Span ID must be at most 128 characters"),
    "stepId": _step("Step ID"),
    "parentStepId": _step("Parent Step ID"),
    "userId": _matching(UUID, "Invalid User ID format (UUID required)"),
    "externalUserId": _string(255),
    "projectId": _matching(UUID, "Invalid Project ID format (UUID required)"),
    "environmentId": _matching(UUID, "Invalid Environment ID format (UUID required)"),
    "providerId": _matching(UUID, "Invalid Provider ID format (UUID required)"),
    "agentName": _string(255, least=1, short="agentName is required"),
    "timestamp": _matching(TIMESTAMP, "Invalid timestamp format (ISO 8601 required)"),
    "metadata": _object,
    "idempotencyKey": _string(128, "Idempotency Key must be at most 128 characters"),
}


def violations(data: Any) -> list[dict[str, str]]:
    """Return what the schema has against an event or a list of them, as the ``details`` of a 400."""
    found = []
    try:
        for index, event in enumerate(data if isinstance(data, list) else [data]):
            prefix = f"{index}." if isinstance(data, list) else ""
            for name, message, code in _violations_of(event):
                found.append({"field": prefix + name, "message": message, "code": code})
    except _MistypedError:
        return [{"field": "", "message": "Invalid input", "code": "invalid_union"}]
    return found


def _violations_of(event: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(event, dict) or not event.keys() >= {"eventType", "traceId", "agentName"}:
        raise _MistypedError
    for name, check in CHECKS.items():
        if name in event:
            for message, code in check(event[name]):
                yield name, message, code
    if event["eventType"] in TOOL_TYPES and event.get("metadata", {}).get("tool") is None:
        types = "tool_call_request and tool_call_response"
        yield "metadata.tool", f"metadata.tool is required for {types}. See /api/events/help.", "custom"


TOOL_PARTS = ("name", "inputSchema", "outputSchema", "description")
#: The schema of an agent's init: objects, arrays, and strings, each by what is said of an empty one.
AGENT = {
    "agentName": "Agent name is required",
    "metadata": {
        "systemPrompt": "metadata.systemPrompt is required",
        "tools": [{part: f"tool.{part} is required" for part in TOOL_PARTS}],
    },
}
_ABSENT = object()
JAVASCRIPT = {
    str: "string",
    list: "array",
    dict: "object",
    bool: "boolean",
    type(None): "null",
    object: "undefined",
}


def init_issues(
    value: Any, schema: Any = AGENT, path: tuple[str | int, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Yield what the schema of an agent's init has against a body, as the ``issues`` of a 400."""
    expected, received = JAVASCRIPT[type(schema)], JAVASCRIPT.get(type(value), "number")
    issue = {"type": "string", "inclusive": True, "exact": False, "path": path}
    if received != expected:
        message = "Required" if value is _ABSENT else f"Expected {expected}, received {received}"
        types = {"expected": expected, "received": received}
        yield {"code": "invalid_type", **types, "path": path, "message": message}
    elif isinstance(schema, dict):
        for name, part in schema.items():
            yield from init_issues(value.get(name, _ABSENT), part, (*path, name))
    elif isinstance(schema, list):
        for index, item in enumerate(value):
            yield from init_issues(item, schema[0], (*path, index))
    elif value == "":
        yield {"code": "too_small", "minimum": 1, **issue, "message": schema}
    elif path == ("agentName",) and len(value) > 255:
        message = "String must contain at most 255 character(s)"
        yield {"code": "too_big", "maximum": 255, **issue, "message": message}


UNSTORABLE = re.compile("[\0\ud800-\udfff]")
DIGITS = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


def unstorable(event: Event) -> str | None:
    """Return what the database has against an event, or None."""
    stored = [event.get(name) for name in ("traceId", "spanId", "idempotencyKey", "content", "metadata")]
    if any(UNSTORABLE.search(text) for text in _strings(stored)):
        return "unsupported Unicode escape sequence"
    for name in ("userId", "projectId", "environmentId", "providerId"):
        if name in event:
            return f"{name} violates foreign key constraint"
    metadata = event.get("metadata", {})
    content = event.get("content")
    finish = content.get("finishReason") if isinstance(content, dict) else None
    for value, most in ((metadata.get("model"), 200), (finish, 100)):
        if value is not None and (not isinstance(value, str) or len(value) > most):
            return f"value too long for type character varying({most})"
    for value in (event.get("stepId"), event.get("parentStepId"), *_counts(metadata)):
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if whole is not None and not DIGITS.fullmatch(str(whole)):
            return f'invalid input syntax for type integer: "{value}"'
        if whole is not None and not -(2**31) <= int(whole) < 2**31:
            return f'value "{whole}" is out of range for type integer'
    return None


def _counts(metadata: Event) -> Iterator[Any]:
    """Return what goes into a column for integers, in the server's order of preference for each."""
    usage = metadata.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    yield metadata.get("latencyMs")
    for names in (
        ("promptTokens", "inputTokens"),
        ("completionTokens", "outputTokens"),
        ("cacheReadTokens",),
        ("cacheWrite5mTokens", "cacheCreationTokens", "cacheWriteTokens"),
    ):
        yield next((usage[name] for name in names if usage.get(name) is not None), None)


def _strings(value: Any) -> Iterator[str]:
    """Yield every string within a JSON value, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


@dataclass
class Version:
    """One version of an agent: a hash of its metadata."""

    id: str
    hash: str
    metadata: dict[str, Any]


@dataclass
class Agent:
    """An agent of one tenant, its versions in the order they were made, and the spans it ever had."""

    id: str
    tenant: str
    name: str
    versions: list[Version] = field(default_factory=list)
    spans: set[str] = field(default_factory=set)


@dataclass
class Trace:
    """A trace, bound to the version its agent had at its first event."""

    id: str
    version: Version
    rows: list[Row] = field(default_factory=list)
    keys: dict[str, Row] = field(default_factory=dict)
    last: Row | None = None


class RefusedError(Exception):
    """
    The answer to an event that the server does not store.

    Args:
        status: The HTTP status.
        error: What the client is told.
        cause: What the server's own log says, where that is something else.
    """

    def __init__(self, status: int, error: str, cause: str | None = None) -> None:
        super().__init__(error)
        self.answer = Answer(status, {"error": error})
        self.cause = cause or error


NOT_FOUND = Answer(404, {"error": "Not Found"})
UNAUTHORIZED = Answer(401, {"error": "Unauthorized: Authentication required"})
BROKEN = Answer(500, {"error": "Internal server error"})
TOO_LARGE = Answer(
    413,
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    "<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n"
    "</body>\r\n</html>\r\n",
    content_type="text/html",
)
NOT_SAVED = "Failed to save event(s)"
JSON_TYPE = re.compile(r"application/([a-z.-]+\+)?json(;\s*[a-zA-Z0-9-]+=[^;]+)*")


class Backend:
    """
    The server behind the socket: from a request to its answer, one at a time.

    Every option is an attribute of the same name, which a test may change at any moment.

    Args:
        keys: The API keys, and the tenant of each.
        queue: Whether ``/events/ingest`` has a queue; without one it answers as ``/events`` does.
        sampling_rate: The part of the traces that an agent keeps, once it exists.
        max_spans: How many distinct span ids an agent may have in its life.
        max_agents: How many agents a tenant may have.
        max_body: The longest request body that the load balancer in front lets through, in bytes.
        reject: Returns why an event is refused with a 400, or None; the others of its call are stored.
        break_on: Whether an event makes its call a 500; the others of it are stored.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str] | None = None,
        queue: bool = True,
        sampling_rate: float = 1.0,
        max_spans: int | None = None,
        max_agents: int | None = None,
        max_body: int | None = None,
        reject: Callable[[Event], str | None] | None = None,
        break_on: Callable[[Event], bool] | None = None,
    ) -> None:
        self.keys = dict(keys or {"whyops_test": "tenant"})
        self.queue = queue
        self.sampling_rate = sampling_rate
        self.max_spans = max_spans
        self.max_agents = max_agents
        self.max_body = max_body
        self.reject = reject
        self.break_on = break_on
        #: Every row, in the order stored, as ``GET /events`` shows it, and as it was ``sent``.
        self.stored: list[Row] = []
        #: What the queue took and could not store: ``lastError`` and the ``event``.
        self.dead_letters: list[dict[str, Any]] = []
        #: The bodies of the inits that passed validation, each with its tenant and the answer's ``status``.
        self.inits: list[dict[str, Any]] = []
        self.agents: dict[tuple[str, str], Agent] = {}
        self.traces: dict[str, Trace] = {}
        self._serial = itertools.count(1)

    def trace(self, trace_id: str) -> list[Row]:
        """Return the rows of a trace in the order of the server's thread view."""
        rows = self.traces[trace_id].rows if trace_id in self.traces else []
        return sorted(rows, key=lambda row: (row["timestamp"], row["stepId"]))

    def act(self, request: Request) -> Answer:
        """Do what a request asks for, and return the answer."""
        if self.max_body is not None and len(request.body) > self.max_body:
            return TOO_LARGE
        route = f"{request.method} {request.path}"
        if route == "GET /api/health":
            about = {"status": "healthy", "service": "whyops-analyse", "version": "1.0.0"}
            return Answer(200, {**about, "database": "connected", "timestamp": _now()})
        if not request.path.startswith("/api/") and request.path != "/v1/agents/init":
            return NOT_FOUND
        tenant = self._tenant(request)
        if tenant is None:
            return UNAUTHORIZED
        if route == "GET /api/events":
            return self._list(request.query)
        handler = {
            "POST /api/events": self._events,
            "POST /api/events/ingest": self._ingest,
            "POST /api/events/tool-result": self._tool_result,
            "POST /api/entities/init": self._init,
            "POST /v1/agents/init": self._init,
        }.get(route)
        if handler is None:
            return NOT_FOUND
        try:
            typed = JSON_TYPE.fullmatch(request.headers.get("content-type", ""))
            return handler(request.json if typed else {}, tenant)
        except ValueError:
            return BROKEN
        except RecursionError:
            return Answer(500, {"error": NOT_SAVED})

    def _tenant(self, request: Request) -> str | None:
        header = request.headers.get("authorization")
        if header is None:
            key = request.headers.get("x-api-key", "")
        else:  # with another scheme, or in lower case, it is no key at all
            key = header.removeprefix("Bearer ") if header.startswith("Bearer ") else ""
        return self.keys.get(key) if key.startswith(("whyops_", "YOPS-")) else None

    def _events(self, data: Any, tenant: str) -> Answer:
        if details := violations(data):
            return Answer(400, {"error": "Validation failed", "details": details})
        results, refusals = [], []
        for event in data if isinstance(data, list) else [data]:
            try:
                results.append(self._process(event, tenant))
            except RefusedError as refusal:
                refusals.append(refusal.answer)
        if refusals:  # the real server names the first to fail in time: a missing model before all else
            return min(refusals, key=lambda answer: answer.status)
        return Answer(201, results if isinstance(data, list) else results[0])

    def _tool_result(self, data: Any, tenant: str) -> Answer:
        """Do as for events, whose type the endpoint knows."""
        for event in data if isinstance(data, list) else [data]:
            if isinstance(event, dict):
                event["eventType"] = "tool_call_response"
        return self._events(data, tenant)

    def _ingest(self, data: Any, tenant: str) -> Answer:
        if not self.queue:
            return self._events(data, tenant)
        if details := violations(data):
            return Answer(400, {"error": "Validation failed", "details": details})
        events = data if isinstance(data, list) else [data]
        for event in events:
            try:
                self._process(event, tenant)
            except RefusedError as refusal:
                self.dead_letters.append({"lastError": refusal.cause, "event": event})
        return Answer(202, {"success": True, "accepted": True, "queuedCount": len(events)})

    def _process(self, event: Event, tenant: str) -> dict[str, Any]:
        """Store one event and return its result, in the order of the real server's steps."""
        self._check_item(event)
        agent = self.agents.get((tenant, event["agentName"]))
        if reason := self._sampled_out(agent, event):
            return {"id": None, "status": "sampled_out", "message": reason}
        agent, trace = self._bound(agent, event, tenant)
        span, count = event.get("spanId"), len(agent.spans)
        if span and span not in agent.spans and self.max_spans is not None and count >= self.max_spans:
            reason = f"Span rejected by agent limit ({count}/{self.max_spans})"
            return {"id": None, "status": "sampled_out", "spanId": span, "message": reason}
        key = event.get("idempotencyKey") or _content_key(event, tenant)
        if key in trace.keys:
            return {
                **{name: trace.keys[key][name] for name in ("id", "stepId", "parentStepId", "spanId")},
                "status": "skipped",
                "message": "Event already exists (idempotency check)",
            }
        if why := unstorable(event):
            raise RefusedError(500, NOT_SAVED, why)
        row = self._row(event, key, tenant, trace)
        rows = self._split(row, trace) if row["eventType"] == "tool_call" else [row]
        for each in rows:
            self._store(each, agent, trace)
        names = ("stepId", "parentStepId", "spanId")
        known = {name: rows[0][name] for name in names if rows[0][name] is not None}
        return {"id": rows[0]["id"], "status": "saved", **known}

    def _check_item(self, event: Event) -> None:
        """Raise what concerns an event alone, whatever the server knows."""
        kind = event["eventType"]
        for name in ("model", "provider") if kind in MODEL_TYPES else ():
            if not event.get("metadata", {}).get(name):
                error = f'MISSING_{name.upper()}: {kind} events require "{name}" in metadata'
                raise RefusedError(400, error)
        if self.reject and (reason := self.reject(event)):
            raise RefusedError(400, reason)
        if self.break_on and self.break_on(event):
            raise RefusedError(500, NOT_SAVED)

    def _sampled_out(self, agent: Agent | None, event: Event) -> str | None:
        """Return why a trace is not kept: never that of an agent not known yet, nor one that has begun."""
        if agent is None or event["traceId"] in self.traces or self.sampling_rate >= 1:
            return None
        members = {"traceId": event["traceId"], "userId": agent.tenant, "agentName": agent.name}
        share = int(_digest(members)[:8], 16) / 0xFFFFFFFF
        if share <= self.sampling_rate:
            return None
        return f"Trace rejected by sampling (rate: {self.sampling_rate:.2f}, hash: {share:.4f})"

    def _bound(self, agent: Agent | None, event: Event, tenant: str) -> tuple[Agent, Trace]:
        """Return the agent and the trace of an event, made where there are none yet."""
        metadata = event.get("metadata", {})
        prompt = metadata.get("systemPrompt")
        if agent is None:
            tools = metadata.get("tools")
            about = {
                "systemPrompt": prompt if isinstance(prompt, str) else "(made by an event)",
                "tools": tools if isinstance(tools, list) else [],
            }
            try:
                agent, _, _ = self._version(tenant, event["agentName"], about)
            except RefusedError as refusal:
                raise RefusedError(500, NOT_SAVED, refusal.cause) from None
        trace = self.traces.get(event["traceId"])
        if trace is None:
            if prompt is not None and not isinstance(prompt, str):
                raise RefusedError(500, NOT_SAVED, "the system prompt is not a string")
            trace = self.traces[event["traceId"]] = Trace(event["traceId"], agent.versions[-1])
        if trace.version is not agent.versions[-1]:
            error = "Trace is already bound to a different agent/version for this traceId"
            raise RefusedError(409, error, "TRACE_AGENT_CONFLICT")
        return agent, trace

    def _row(self, event: Event, key: str | None, tenant: str, trace: Trace) -> Row:
        """Return an event as it is stored: numbered, with a span and a time."""
        step, parent = event.get("stepId"), event.get("parentStepId")
        if step is None:
            last = trace.last["stepId"] if trace.last else 0
            step, parent = last + 1, last or None
        elif parent is None and step > 1:
            parent = step - 1
        serial = next(self._serial)
        return {
            "id": _uuid(serial),
            "traceId": trace.id,
            "spanId": event.get("spanId") or f"span_{serial:021d}",
            "stepId": int(step),
            "parentStepId": parent if parent is None else int(parent),
            "eventType": event["eventType"],
            "timestamp": _milliseconds(event["timestamp"]) if "timestamp" in event else _now(),
            "userId": tenant,
            "providerId": None,
            "createdAt": _now(),
            "content": event.get("content"),
            "metadata": {**event.get("metadata", {}), **({"idempotencyKey": key} if key else {})},
            "sent": event,
        }

    def _split(self, row: Row, trace: Trace) -> list[Row]:
        """Return the two rows that the old ``tool_call`` becomes, under a new span and keys of their own."""
        step, key = row["stepId"], row["metadata"]["idempotencyKey"]
        before = max((r for r in trace.rows if r["stepId"] < step), key=lambda r: r["stepId"], default=None)
        metadata = {**row["metadata"], "autoGenerated": True}
        both = {**row, "spanId": f"span_{next(self._serial):021d}"}
        request = {
            **both,
            "eventType": "tool_call_request",
            "parentStepId": row["parentStepId"] or step - 1,
            "timestamp": before["timestamp"] if before else _now(),
            "metadata": {**metadata, "idempotencyKey": f"{key}_request"},
        }
        response = {
            **both,
            "id": _uuid(next(self._serial)),
            "eventType": "tool_call_response",
            "stepId": step + 1,
            "parentStepId": step,
            "metadata": {**metadata, "idempotencyKey": f"{key}_response"},
        }
        return [request, response]

    def _store(self, row: Row, agent: Agent, trace: Trace) -> None:
        self.stored.append(row)
        trace.rows.append(row)
        agent.spans.add(row["spanId"])
        if trace.last is None or row["stepId"] > trace.last["stepId"]:
            trace.last = row
        key = row["metadata"].get("idempotencyKey")
        if isinstance(key, str):
            trace.keys.setdefault(key, row)

    def _list(self, query: Mapping[str, str]) -> Answer:
        """Answer with a page of rows, latest first; as on the real server, of whatever tenant."""
        limit = min(max(_leading_int(query.get("limit", "")) or 100, 1), 200)
        offset = max(_leading_int(query.get("offset", "")), 0)
        included = {name.strip() for name in query.get("include", "").split(",")}
        hidden = {"sent"} | ({"content", "metadata"} - included)
        trace_id = query.get("traceId") or query.get("threadId")
        rows = [row for row in self.stored if trace_id in (None, row["traceId"])]
        rows.sort(key=lambda row: row["timestamp"], reverse=True)
        page = rows[offset : offset + limit]
        events = [{name: value for name, value in row.items() if name not in hidden} for row in page]
        more = offset + limit < len(rows)
        pagination = {"total": len(rows), "limit": limit, "offset": offset, "hasMore": more}
        return Answer(200, {"events": events, "pagination": pagination})

    def _init(self, data: Any, tenant: str) -> Answer:
        if issues := list(init_issues(data)):
            return Answer(400, {"success": False, "error": {"issues": issues, "name": "ZodError"}})
        given = data["metadata"]
        tools = [{part: tool[part] for part in TOOL_PARTS} for tool in given["tools"]]
        metadata = {"systemPrompt": given["systemPrompt"], "tools": tools}
        metadata |= {"description": given["description"]} if "description" in given else {}
        init = {"agentName": data["agentName"], "metadata": metadata, "tenant": tenant}
        try:
            agent, version, status = self._version(tenant, data["agentName"], metadata)
        except RefusedError as refusal:
            self.inits.append({**init, "status": "refused"})
            return Answer(refusal.answer.status, {"success": False, **refusal.answer.body})
        self.inits.append({**init, "status": status})
        ids = {"agentId": agent.id, "agentVersionId": version.id}
        about = {"success": True, **ids, "status": status, "versionHash": version.hash}
        return Answer(201 if status == "created" else 200, about)

    def _version(self, tenant: str, name: str, metadata: dict[str, Any]) -> tuple[Agent, Version, str]:
        """Return an agent, its latest version, and whether that was "created" now or is an "existing" one."""
        agent = self.agents.get((tenant, name))
        if agent is None:
            count = sum(each.tenant == tenant for each in self.agents.values())
            if self.max_agents is not None and count >= self.max_agents:
                reason = f"Agent limit reached for account (max: {self.max_agents})"
                raise RefusedError(409, f"Account agent limit reached ({reason})", reason)
            agent = self.agents[tenant, name] = Agent(_uuid(next(self._serial)), tenant, name)
        version = Version(_uuid(next(self._serial)), _digest(metadata)[:32], metadata)
        if agent.versions and agent.versions[-1].hash == version.hash:
            return agent, agent.versions[-1], "existing"
        if any(older.hash == version.hash for older in agent.versions):
            raise RefusedError(500, "Failed to initialize agent", "duplicate key value")
        agent.versions.append(version)
        return agent, version, "created"


def _content_key(event: Event, tenant: str) -> str | None:
    """Return the key that the server makes for an event without one, None for a tool's."""
    if event["eventType"] in TOOL_TYPES:
        return None
    sent = ("traceId", "eventType", "parentStepId", "content")
    return "hash_" + _digest({"userId": tenant, **{name: event[name] for name in sent if name in event}})


def _digest(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _uuid(serial: int) -> str:
    return f"{serial:08x}-0000-4000-8000-000000000000"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(timestamp: str) -> str:
    seconds, _, fraction = timestamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction[:3]:0<3}Z"


def _leading_int(text: str) -> int:
    found = re.match(r"\s*[+-]?\d+", text)
    return int(found[0]) if found else 0


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
