"""What a WhyOps server keeps and how it answers, without the socket."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rules import MODEL_TYPES, TOOL_PARTS, TOOL_TYPES, init_issues, unstorable, violations
from wire import Answer, Event, Request, Row, Stream


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
        break_on: Callable[[Event], bool | None] | None = None,
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

    def act(self, request: Request) -> Answer | Stream:
        """Do what a request asks for, and return the answer."""
        if self.max_body is not None and len(request.body) > self.max_body:
            return TOO_LARGE
        route = f"{request.method} {request.path}"
        if route == "GET /api/health":
            about = {"status": "healthy", "service": "whyops-analyse", "version": "1.0.0"}
            return Answer(200, {**about, "database": "connected", "timestamp": now()})
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

    def _provider(self) -> str | None:
        """Return the provider of the account, which every row names."""
        return None

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
                self._take_time()
                results.append(self._process(event, tenant))
            except RefusedError as refusal:
                refusals.append(refusal.answer)
        if refusals:  # the real server names the first to fail in time: a missing model before all else
            return min(refusals, key=lambda answer: answer.status)
        return Answer(201, results if isinstance(data, list) else results[0])

    def _take_time(self) -> None:
        """Wait as long as an event of ``POST /events`` takes."""

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
            "timestamp": _milliseconds(event["timestamp"]) if "timestamp" in event else now(),
            "userId": tenant,
            "providerId": self._provider(),
            "createdAt": now(),
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
            "timestamp": before["timestamp"] if before else now(),
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


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(timestamp: str) -> str:
    seconds, _, fraction = timestamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction[:3]:0<3}Z"


def _leading_int(text: str) -> int:
    found = re.match(r"\s*[+-]?\d+", text)
    return int(found[0]) if found else 0
