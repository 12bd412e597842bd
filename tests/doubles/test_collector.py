"""The collector answers as the recorded answers of a real WhyOps server, and misbehaves as told."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from collector import Close, Collector, Drip, Fault, Hang, Reset, Stored, check
from wire import Answer, Request, Row

AUTH = {"Authorization": "Bearer whyops_test"}
CONFLICT = {"error": "Trace is already bound to a different agent/version for this traceId"}
TOOL_MISSING = "metadata.tool is required for tool_call_request and tool_call_response. See /api/events/help."
QUEUED = (202, {"success": True, "accepted": True, "queuedCount": 1})
SKIPPED = "Event already exists (idempotency check)"


@pytest.fixture
def http(collector: Collector) -> Iterator[httpx.Client]:
    """A client of the collector, with its key."""
    with httpx.Client(base_url=collector.proxy_url, headers=AUTH) as http:
        yield http


def event(content: Any = "hello", /, **members: Any) -> dict[str, Any]:
    """Return an event; a member of None is left out."""
    members = {
        "eventType": "user_message",
        "traceId": "t",
        "agentName": "probe",
        "content": content,
        **members,
    }
    return {name: value for name, value in members.items() if value is not None}


def post(http: httpx.Client, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Post a body as JSON, and return the status and the answer without what is made up for each row."""
    answer = http.post(path, json=body, headers=headers)
    return answer.status_code, without_ids(answer.json())


def without_ids(value: Any) -> Any:
    """Return an answer with its ids as "?" where the server made them up."""
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name for name in ("id", "agentId", "agentVersionId") if value.get(name)}
    made |= {"spanId"} if str(value.get("spanId")).startswith("span_0") else set()
    return {name: "?" if name in made else without_ids(item) for name, item in value.items()}


def saved(step: int, parent: int | None, span: str = "?") -> dict[str, Any]:
    """Return the result of an event that was stored."""
    parents = {} if parent is None else {"parentStepId": parent}
    return {"id": "?", "status": "saved", "stepId": step, **parents, "spanId": span}


def refused(field: str, message: str, code: str) -> tuple[int, Any]:
    """Return the answer to a body that the schema refuses."""
    details = [{"field": field, "message": message, "code": code}]
    return 400, {"error": "Validation failed", "details": details}


NO_UNION = refused("", "Invalid input", "invalid_union")
NO_ISO = refused("timestamp", "Invalid timestamp format (ISO 8601 required)", "invalid_string")


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"traceId": None}, NO_UNION),
        ({"eventType": "foo"}, NO_UNION),
        (
            {"traceId": "x" * 129},
            refused("traceId", "Trace ID must be between 1 and 128 characters", "too_big"),
        ),
        ({"traceId": "x" * 128}, QUEUED),
        ({"spanId": "s" * 129}, refused("spanId", "Span ID must be at most 128 characters", "too_big")),
        ({"spanId": ""}, QUEUED),
        ({"stepId": 0}, refused("stepId", "Step ID must be a positive integer", "too_small")),
        ({"stepId": 1.5}, refused("stepId", "Expected integer, received float", "invalid_type")),
        ({"stepId": 1.0}, QUEUED),
        ({"stepId": "1"}, NO_UNION),
        ({"stepId": True}, NO_UNION),
        (
            {"parentStepId": 0},
            refused("parentStepId", "Parent Step ID must be a positive integer", "too_small"),
        ),
        ({"agentName": ""}, refused("agentName", "agentName is required", "too_small")),
        (
            {"agentName": "a" * 256},
            refused("agentName", "String must contain at most 255 character(s)", "too_big"),
        ),
        ({"timestamp": "2026-01-01T00:00:00+00:00"}, NO_ISO),
        ({"timestamp": "2026-01-01T00:00:00"}, NO_ISO),
        ({"timestamp": "2026-01-01T00:00:00.123456Z"}, QUEUED),
        ({"timestamp": "2026-01-01T00:00:00Z"}, QUEUED),
        ({"timestamp": 1700000000}, NO_UNION),
        ({"metadata": [1]}, NO_UNION),
        ({"idempotencyKey": ""}, QUEUED),
        (
            {"idempotencyKey": "i" * 129},
            refused("idempotencyKey", "Idempotency Key must be at most 128 characters", "too_big"),
        ),
        (
            {"externalUserId": "u" * 256},
            refused("externalUserId", "String must contain at most 255 character(s)", "too_big"),
        ),
        ({"userId": "bob"}, refused("userId", "Invalid User ID format (UUID required)", "invalid_string")),
        ({"eventType": "tool_call_request"}, refused("metadata.tool", TOOL_MISSING, "custom")),
        ({"eventType": "tool_call_request", "metadata": {"tool": ""}}, QUEUED),
        (
            {"eventType": "tool_call_response", "metadata": {}},
            refused("metadata.tool", TOOL_MISSING, "custom"),
        ),
        ({"eventType": "llm_response"}, QUEUED),
        ({"foo": "bar"}, QUEUED),
        ({"agentName": None, "entityName": "probe"}, NO_UNION),
    ],
)
def test_the_schema_answers_as_recorded(
    http: httpx.Client, members: dict[str, Any], answer: tuple[int, Any]
) -> None:
    """Each way to fill a field gets the status and the words that the real server gave."""
    assert post(http, "/api/events/ingest", event(**members)) == answer


@pytest.mark.parametrize(
    "name", ["metadata", "spanId", "stepId", "parentStepId", "timestamp", "idempotencyKey"]
)
def test_null_is_not_absent(http: httpx.Client, name: str) -> None:
    """A null where a value may be left out is refused."""
    assert post(http, "/api/events", event() | {name: None}) == NO_UNION


def test_one_invalid_event_refuses_its_whole_array(collector: Collector, http: httpx.Client) -> None:
    """The details name the event by its index, and nothing is stored."""
    bad = event(eventType="tool_call_request")

    assert post(http, "/api/events", [event(), bad]) == refused("1.metadata.tool", TOOL_MISSING, "custom")
    assert post(http, "/api/events", [event(), bad, event(stepId="1")]) == NO_UNION
    assert collector.stored == []


def test_an_array_is_stored_in_order_with_a_result_for_each(collector: Collector, http: httpx.Client) -> None:
    """Without steps the server numbers them, each the child of the one before; a single event gets no array."""
    assert post(http, "/api/events", [event("one"), event("two")]) == (201, [saved(1, None), saved(2, 1)])
    assert post(http, "/api/events", event("three", spanId="s")) == (201, saved(3, 2, "s"))
    assert [row["content"] for row in collector.stored] == ["one", "two", "three"]


def test_an_empty_array_is_queued(http: httpx.Client) -> None:
    """It carries nothing, and is no error."""
    answer = {"success": True, "accepted": True, "queuedCount": 0}

    assert post(http, "/api/events/ingest", []) == (202, answer)


def test_a_missing_model_is_a_400_but_the_neighbours_are_stored(
    collector: Collector, http: httpx.Client
) -> None:
    """The answer is of one event, the work of all the others is done."""
    bad = event(eventType="llm_response")
    half = event(eventType="llm_response", metadata={"model": "m"})
    error = 'llm_response events require "{}" in metadata'

    answer = post(http, "/api/events", [event("good"), bad, event("good2")])

    assert answer == (400, {"error": f"MISSING_MODEL: {error.format('model')}"})
    assert post(http, "/api/events", half) == (
        400,
        {"error": f"MISSING_PROVIDER: {error.format('provider')}"},
    )
    assert [(row["stepId"], row["content"]) for row in collector.stored] == [(1, "good"), (2, "good2")]


def test_what_the_queue_cannot_store_is_a_dead_letter(collector: Collector, http: httpx.Client) -> None:
    """The client is told 202 all the same."""
    bad = [event(eventType="llm_response"), event("x\0y"), event(metadata={"latencyMs": 12.5})]

    answer = post(http, "/api/events/ingest", [*bad, event("good")])

    assert answer == (202, {"success": True, "accepted": True, "queuedCount": 4})
    assert [letter["lastError"] for letter in collector.dead_letters] == [
        'MISSING_MODEL: llm_response events require "model" in metadata',
        "unsupported Unicode escape sequence",
        'invalid input syntax for type integer: "12.5"',
    ]
    assert [row["content"] for row in collector.stored] == ["good"]


def test_without_a_queue_ingest_answers_as_events() -> None:
    """The 201 of the synchronous endpoint, with its result."""
    with Collector(queue=False) as collector, httpx.Client(base_url=collector.url, headers=AUTH) as http:
        assert post(http, "/events/ingest", event()) == (201, saved(1, None))


@pytest.mark.parametrize(
    "members",
    [
        {"content": {"a": ["x\0y"]}},
        {"content": {"\0": 1}},
        {"content": "\ud800"},
        {"metadata": {"x": "\udfff"}},
        {"metadata": {"latencyMs": 12.5}},
        {"metadata": {"latencyMs": "12ms"}},
        {"metadata": {"usage": {"inputTokens": 1.5}}},
        {"metadata": {"usage": {"cacheCreationTokens": 2**31}}},
        {"metadata": {"model": "m" * 201}},
        {"metadata": {"model": ["m"]}},
        {"metadata": {"systemPrompt": [{"type": "text", "text": "s"}]}},
        {"content": {"finishReason": "f" * 101}},
        {"stepId": 2**31},
        {"providerId": "00000000-0000-4000-8000-000000000000"},
    ],
)
def test_what_the_database_refuses_is_a_500_for_its_call(
    collector: Collector, http: httpx.Client, members: dict[str, Any]
) -> None:
    """It passes validation, is not stored, and its neighbours are."""
    body = json.dumps([event(**{"content": "bad", **members}), event("good"), event("better")])

    answer = http.post("/api/events", content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()) == (500, {"error": "Failed to save event(s)"})
    assert [row["content"] for row in collector.stored] == ["good", "better"]


def test_what_the_database_takes_is_stored(collector: Collector, http: httpx.Client) -> None:
    """Whole numbers however they are written, an emoji, and the longest model name."""
    usage = {"promptTokens": "12", "completionTokens": 3.0}
    metadata = {"latencyMs": 12.0, "usage": usage, "model": "m" * 200, "provider": "p"}
    body = event("\U0001f600 \\u0000", eventType="llm_response", metadata=metadata)

    status, _ = post(http, "/api/events", body)

    assert status == 201
    assert collector.stored[0]["content"] == "\U0001f600 \\u0000"


def test_integers_beyond_2_53_come_back_changed(collector: Collector, http: httpx.Client) -> None:
    """They are JavaScript's numbers."""
    post(http, "/api/events", event([2**53 + 1, -(2**53) - 1, 10**400, 2**53 - 1]))

    assert collector.stored[0]["content"] == [2**53, -(2**53), float("inf"), 2**53 - 1]


@pytest.mark.parametrize(
    "body",
    [b"{bad", b"", b'{"eventType":NaN}', gzip.compress(b"{}", mtime=0)],
)
def test_what_is_not_json_is_a_500(http: httpx.Client, body: bytes) -> None:
    """The real server says so, although it is the client's fault."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = http.post("/api/events", content=body, headers=headers)

    assert (answer.status_code, answer.json()) == (500, {"error": "Internal server error"})


def test_what_is_nested_too_deep_is_a_500(http: httpx.Client) -> None:
    """It fails in storing, not in parsing."""
    body = json.dumps(event("?")).replace('"?"', "[" * 100_000 + "]" * 100_000).encode()
    answer = http.post("/api/events", content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()) == (500, {"error": "Failed to save event(s)"})


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("text/plain", 400), ("application/json; charset=utf-8", 201), ("application/x-ndjson", 400)],
)
def test_the_content_type_must_be_json(http: httpx.Client, content_type: str, status: int) -> None:
    """Any other is a body without fields."""
    body = json.dumps(event()).encode()
    answer = http.post("/api/events", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer whyops_nope"}, 401),
        ({"Authorization": "bearer whyops_test"}, 401),
        ({"Authorization": "whyops_test"}, 401),
        ({"Authorization": "Bearer sk-known"}, 401),
        ({"Authorization": "Bearer whyops_test"}, 201),
        ({"x-api-key": "whyops_test"}, 201),
        ({"x-api-key": "whyops_nope"}, 401),
        ({"Authorization": "Bearer whyops_nope", "X-API-Key": "whyops_test"}, 401),
    ],
)
def test_a_request_needs_a_key(headers: dict[str, str], status: int) -> None:
    """As a bearer token in exact case or, without any Authorization, as x-api-key; only WhyOps keys count."""
    with Collector(keys={"whyops_test": "a", "sk-known": "b"}) as collector:
        answer = httpx.post(f"{collector.url}/events", json=event(), headers=headers)

    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"error": "Unauthorized: Authentication required"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/events/"),
        ("POST", "/events"),
        ("PUT", "/api/events"),
        ("GET", "/api/entities/init"),
        ("POST", "/v1/events"),
    ],
)
def test_unknown_paths_are_not_found(http: httpx.Client, method: str, path: str) -> None:
    """Trailing slashes, wrong methods and the wrong base url included."""
    answer = http.request(method, path, json=event())

    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


def test_health_needs_no_key(collector: Collector) -> None:
    """Anyone may ask."""
    answer = httpx.get(f"{collector.url}/health")

    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")


def test_a_supplied_parent_is_ignored_without_a_step(http: httpx.Client) -> None:
    """The parent is the last step; a step without a parent is the child of the number before it."""
    post(http, "/api/events", [event("0"), event("1"), event("2")])

    assert post(http, "/api/events", event("p1", parentStepId=1)) == (201, saved(4, 3))
    assert post(http, "/api/events", event("x", stepId=9)) == (201, saved(9, 8))
    assert post(http, "/api/events", event("y")) == (201, saved(10, 9))
    assert post(http, "/api/events", event("z", stepId=2, parentStepId=77)) == (201, saved(2, 77))
    assert post(http, "/api/events", event("r", stepId=1, traceId="u")) == (201, saved(1, None))


def test_a_key_that_comes_again_is_skipped_whatever_it_carries(
    collector: Collector, http: httpx.Client
) -> None:
    """The answer is the first one's, with its parent even if that is null; another trace has its own keys."""
    post(http, "/api/events", event("a", idempotencyKey="K"))
    again = event({"message": "different"}, eventType="error", idempotencyKey="K", stepId=7)
    skipped = {
        "id": "?",
        "stepId": 1,
        "parentStepId": None,
        "spanId": "?",
        "status": "skipped",
        "message": SKIPPED,
    }

    assert post(http, "/api/events", again) == (201, skipped)
    assert post(http, "/api/events", again | {"traceId": "u"}) == (201, saved(7, 6))
    assert [row["metadata"] for row in collector.trace("t")] == [{"idempotencyKey": "K"}]


def test_without_a_key_the_content_is_the_key_but_for_tools(http: httpx.Client) -> None:
    """The type, the parent as sent and the content count; step, span, time and metadata do not."""
    tool = event({"n": 1}, eventType="tool_call_request", metadata={"tool": "f"})
    yes, later = (
        event("yes"),
        event("yes", stepId=7, spanId="s", timestamp="2026-01-01T00:00:00Z", metadata={"a": 1}),
    )
    batch = [yes, later, event("yes", parentStepId=1), event("yes", eventType="error"), tool, tool]

    _, results = post(http, "/api/events", batch)

    assert [result["status"] for result in results] == ["saved", "skipped", *["saved"] * 4]


def test_the_old_tool_call_becomes_a_pair_that_no_key_protects(
    collector: Collector, http: httpx.Client
) -> None:
    """The answer is the request's; the same key stores a second pair."""
    call = event(
        {"toolCalls": [{"name": "f", "arguments": {}}], "toolResults": {"r": 1}},
        eventType="tool_call",
        metadata={"tool": "f"},
        idempotencyKey="L",
    )

    first, second = post(http, "/api/events", call), post(http, "/api/events", call)
    rows = [
        (row["stepId"], row["parentStepId"], row["metadata"]["idempotencyKey"]) for row in collector.stored
    ]

    assert (first, second) == ((201, saved(1, 0)), (201, saved(3, 2)))
    assert rows == [(1, 0, "L_request"), (2, 1, "L_response"), (3, 2, "L_request"), (4, 3, "L_response")]


def test_a_tool_result_is_a_response(collector: Collector, http: httpx.Client) -> None:
    """The endpoint knows the type."""
    result = event({"toolResults": {"a": 1}}, eventType=None, spanId="s", metadata={"tool": "f"})

    assert post(http, "/api/events/tool-result", result) == (201, saved(1, None, "s"))
    assert collector.stored[0]["eventType"] == "tool_call_response"
    assert post(http, "/api/events/tool-result", [event(eventType=None)])[0] == 400
    assert post(http, "/api/events/tool-result", "what") == NO_UNION


def test_events_are_listed_latest_first_in_pages(collector: Collector, http: httpx.Client) -> None:
    """By time and not by step, without content and metadata unless asked for."""
    batch = [event(str(n), stepId=n + 1, timestamp=f"2026-01-01T00:00:{59 - n}.1239Z") for n in range(5)]
    post(http, "/api/events", [*batch[::-1], event(traceId="u")])

    first = http.get("/api/events", params={"traceId": "t", "limit": 2}).json()
    last = http.get(
        "/api/events", params={"traceId": "t", "offset": 4, "include": "content, metadata"}
    ).json()
    everything = http.get("/api/events", params={"limit": 1000, "offset": "x"}).json()
    latest = collector.stored[4]

    assert [row["stepId"] for row in first["events"]] == [1, 2]
    assert first["pagination"] == {"total": 5, "limit": 2, "offset": 0, "hasMore": True}
    assert first["events"][0] == {
        "id": latest["id"],
        "traceId": "t",
        "spanId": latest["spanId"],
        "stepId": 1,
        "parentStepId": None,
        "eventType": "user_message",
        "timestamp": "2026-01-01T00:00:59.123Z",
        "userId": "tenant",
        "providerId": None,
        "createdAt": latest["createdAt"],
    }
    assert [(row["content"], row["metadata"]["idempotencyKey"][:5]) for row in last["events"]] == [
        ("4", "hash_")
    ]
    assert last["pagination"] == {"total": 5, "limit": 100, "offset": 4, "hasMore": False}
    assert everything["pagination"] == {"total": 6, "limit": 200, "offset": 0, "hasMore": False}
    assert [row["stepId"] for row in collector.trace("t")] == [5, 4, 3, 2, 1]
    assert latest["sent"] == batch[0]
    assert collector.trace("unknown") == []


def about(prompt: str = "A", **members: Any) -> dict[str, Any]:
    """Return the body of an init."""
    return {"agentName": "probe", "metadata": {"systemPrompt": prompt, "tools": [], **members}}


@pytest.mark.parametrize("path", ["/api/entities/init", "/v1/agents/init"])
def test_an_init_is_compared_with_the_latest_version_only(
    collector: Collector, http: httpx.Client, path: str
) -> None:
    """A is created, then exists; after B it can never come back, and unknown keys do not count."""
    created = {"success": True, "agentId": "?", "agentVersionId": "?", "status": "created"}
    existing = {**created, "status": "existing", "versionHash": "334872d17686d2bf33e4032470381344"}
    failed = {"success": False, "error": "Failed to initialize agent"}

    assert post(http, path, about()) == (201, {**existing, "status": "created"})
    assert post(http, path, about(extra=1) | {"more": 2}) == (200, existing)
    assert post(http, path, about("A", description="d"))[0] == 201
    assert post(http, path, about("B"))[0] == 201
    assert post(http, path, about()) == (500, failed)
    assert [init["status"] for init in collector.inits] == [
        "created",
        "existing",
        "created",
        "created",
        "refused",
    ]
    assert len(collector.agents["tenant", "probe"].versions) == 3


TOOL = {"name": "f", "description": "d", "inputSchema": "{}", "outputSchema": "{}"}


@pytest.mark.parametrize(
    ("body", "issue"),
    [
        (
            about(tools=[TOOL, {name: TOOL[name] for name in ("name", "description", "inputSchema")}]),
            {
                "code": "invalid_type",
                "expected": "string",
                "received": "undefined",
                "path": ["metadata", "tools", 1, "outputSchema"],
                "message": "Required",
            },
        ),
        (
            about(tools=[{**TOOL, "inputSchema": {}}]),
            {
                "code": "invalid_type",
                "expected": "string",
                "received": "object",
                "path": ["metadata", "tools", 0, "inputSchema"],
                "message": "Expected string, received object",
            },
        ),
        (
            about(""),
            {
                "code": "too_small",
                "minimum": 1,
                "type": "string",
                "inclusive": True,
                "exact": False,
                "path": ["metadata", "systemPrompt"],
                "message": "metadata.systemPrompt is required",
            },
        ),
        (
            about() | {"agentName": "a" * 256},
            {
                "code": "too_big",
                "maximum": 255,
                "type": "string",
                "inclusive": True,
                "exact": False,
                "path": ["agentName"],
                "message": "String must contain at most 255 character(s)",
            },
        ),
    ],
)
def test_an_init_is_validated_in_the_validator_s_own_shape(
    collector: Collector, http: httpx.Client, body: Any, issue: dict[str, Any]
) -> None:
    """All four parts of a tool are required, and every schema is a string."""
    error = {"issues": [issue], "name": "ZodError"}

    assert post(http, "/api/entities/init", body) == (400, {"success": False, "error": error})
    assert collector.inits == []


def test_a_new_version_closes_the_traces_of_the_old_one(collector: Collector, http: httpx.Client) -> None:
    """A trace stays bound to the version of its first event, here one made by that event itself."""
    post(http, "/api/events", event("1"))
    post(http, "/api/entities/init", about("B"))

    assert post(http, "/api/events", event("2")) == (409, CONFLICT)
    assert post(http, "/api/events/ingest", event("2")) == QUEUED
    assert [letter["lastError"] for letter in collector.dead_letters] == ["TRACE_AGENT_CONFLICT"]
    assert post(http, "/api/events", event("2", traceId="u")) == (201, saved(1, None))
    assert post(http, "/api/events", event("3", traceId="u", agentName="other")) == (409, CONFLICT)


def test_trace_ids_are_global_over_tenants() -> None:
    """Another tenant's trace is a conflict, even under the same agent name."""
    with Collector(keys={"whyops_a": "a", "YOPS-b": "b"}) as collector:
        with httpx.Client(base_url=collector.url) as http:
            assert post(http, "/events", event(), Authorization="Bearer whyops_a")[0] == 201
            assert post(http, "/events", event(), Authorization="Bearer YOPS-b") == (409, CONFLICT)
            assert post(http, "/events", event(traceId="u"), Authorization="Bearer YOPS-b")[0] == 201


def test_sampling_keeps_or_drops_whole_traces() -> None:
    """The decision is the trace id's, and holds from an agent's first init on."""
    with (
        Collector(sampling_rate=0.2) as collector,
        httpx.Client(base_url=collector.url, headers=AUTH) as http,
    ):
        post(http, "/entities/init", about())
        batch = [event(str(n), traceId=f"t{n % 50}") for n in range(100)]
        _, results = post(http, "/events", batch)
        statuses = [result["status"] for result in results]
        dropped = next(result for result in results if result["status"] == "sampled_out")
        collector.sampling_rate = 0.0

        assert statuses[:50] == statuses[50:]
        assert 2 <= statuses[:50].count("saved") <= 20
        assert dropped["id"] is None
        assert dropped["message"].startswith("Trace rejected by sampling (rate: 0.20, hash: 0.")
        assert (
            post(http, "/events", event("more", traceId=collector.stored[0]["traceId"]))[1]["status"]
            == "saved"
        )


def test_an_agent_has_a_limited_number_of_spans() -> None:
    """Those made up by the server count too; a known one passes, as does an event without any."""
    with Collector(max_spans=2) as collector, httpx.Client(base_url=collector.url, headers=AUTH) as http:
        post(http, "/events", [event("1", spanId="s1"), event("2")])
        message = "Span rejected by agent limit (2/2)"
        rejected = {"id": None, "status": "sampled_out", "spanId": "s3", "message": message}

        assert post(http, "/events", event("3", spanId="s3")) == (201, rejected)
        assert post(http, "/events", event("4", spanId="s1")) == (201, saved(3, 2, "s1"))
        assert post(http, "/events", event("5")) == (201, saved(4, 3))


def test_a_tenant_has_a_limited_number_of_agents() -> None:
    """An init beyond it is a 409, an event that would make an agent a 500."""
    with Collector(max_agents=1) as collector, httpx.Client(base_url=collector.url, headers=AUTH) as http:
        post(http, "/entities/init", about())
        error = "Account agent limit reached (Agent limit reached for account (max: 1))"
        other = about() | {"agentName": "other"}

        assert post(http, "/entities/init", other) == (409, {"success": False, "error": error})
        assert post(http, "/events", event(agentName="other"))[0] == 500
        assert post(http, "/events", event())[0] == 201


def test_events_are_refused_as_the_options_say() -> None:
    """The call is a 400 or a 500 that names nobody, and the others of it are stored."""
    with Collector() as collector, httpx.Client(base_url=collector.url, headers=AUTH) as http:
        collector.reject = lambda event: "I do not like one of them" if event["content"] == "bad" else None
        collector.break_on = lambda event: event["content"] == "worse"

        assert post(http, "/events", [event("bad"), event("a")]) == (
            400,
            {"error": "I do not like one of them"},
        )
        assert post(http, "/events", [event("worse"), event("b")]) == (
            500,
            {"error": "Failed to save event(s)"},
        )
        assert [row["content"] for row in collector.stored] == ["a", "b"]


def test_a_body_too_long_is_the_load_balancer_s_413() -> None:
    """Its answer is HTML."""
    with Collector(max_body=300) as collector, httpx.Client(base_url=collector.url, headers=AUTH) as http:
        answer = http.post("/events", json=event("x" * 300))

        assert (answer.status_code, answer.headers["content-type"]) == (413, "text/html")
        assert "nginx" in answer.text
        assert post(http, "/events", event())[0] == 201


def test_requests_are_kept_as_they_came(collector: Collector, http: httpx.Client) -> None:
    """In order, whatever became of them, chunked bodies put together."""
    http.get("/api/events?traceId=a%20b&limit=1")
    http.post("/api/events", content=iter([b"{", b'"a": 1', b"}"]), headers={"X-Mixed": "Case"})

    listing, sent = collector.requests

    assert (listing.method, listing.path, listing.query) == (
        "GET",
        "/api/events",
        {"traceId": "a b", "limit": "1"},
    )
    assert (sent.method, sent.path, sent.headers["x-mixed"]) == ("POST", "/api/events", "Case")
    assert (sent.body, sent.json, repr(sent)) == (b'{"a": 1}', {"a": 1}, "<POST /api/events>")


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends the connection, in whatever way."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def test_one_connection_serves_many_requests_until_the_client_closes(collector: Collector) -> None:
    """The client says when it does not want to keep it."""
    with socket.create_connection(("127.0.0.1", collector.port)) as connection:
        connection.sendall(b"GET /api/health HTTP/1.1\r\n\r\n" * 2)
        connection.sendall(b"GET /api/health HTTP/1.1\r\nConnection: close\r\n\r\n")

        assert received(connection).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, {"error": "slow down"}, {"Retry-After": "2"}),
        Answer(503, "<html></html>", content_type="text/html"),
        Answer(301, headers={"Location": "https://elsewhere.example/"}),
        Answer(202, {"success": True}),
        Answer(201, b"[{]"),
        Answer(529),
    ],
)
def test_an_answer_is_given_instead_of_the_work(
    collector: Collector, http: httpx.Client, answer: Answer
) -> None:
    """Once, to a request of POST /events; nothing of it is stored."""
    collector.fail(None, answer)

    assert http.post("/api/entities/init", json=about()).status_code == 201
    assert http.post("/api/events", json=event("1")).status_code == 201
    given = http.post("/api/events", json=event("2"))

    assert (given.status_code, given.headers["content-type"]) == (answer.status, answer.content_type)
    assert given.content == answer.encoded()[1]
    assert answer.headers.items() <= {name.title(): text for name, text in given.headers.items()}.items()
    assert http.post("/api/events", json=event("3")).status_code == 201
    assert [row["content"] for row in collector.stored] == ["1", "3"]


def test_work_done_can_be_denied(collector: Collector, http: httpx.Client) -> None:
    """The events are stored, the client hears of a failure."""
    collector.fail(Stored(Answer(503)))

    assert http.post("/api/events", json=event()).status_code == 503
    assert len(collector.stored) == 1


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        (Close(), httpx.RemoteProtocolError, 0),
        (Reset("request"), httpx.TransportError, 0),
        (Reset("request", stored=True), httpx.ReadError, 1),
        (Reset("answer"), httpx.ReadError, 0),
        (Reset("answer", stored=True), httpx.ReadError, 1),
    ],
)
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_connection_ends_before_its_answer_does(
    collector: Collector, http: httpx.Client, fault: Fault, error: type[Exception], stored: int, size: int
) -> None:
    """The client is told by its socket, and the next request is served."""
    collector.fail(fault)

    with pytest.raises(error):
        http.post("/api/events", json=event("x" * size))

    assert len(collector.stored) == stored
    assert len(collector.requests) == 1
    assert http.post("/api/events", json=event()).status_code == 201


def test_a_reset_request_was_read_by_half(collector: Collector, http: httpx.Client) -> None:
    """Of a chunked body it is half of the first chunk; a script that read the body has it all."""
    collector.fail(Reset(), Reset())
    for content in (b"0123456789", iter([b"0123", b"456789"])):
        with pytest.raises(httpx.TransportError):
            http.post("/api/events", content=content)
    collector.script = lambda request: Reset() if b"9" in request.body else None
    with pytest.raises(httpx.TransportError):
        http.post("/api/events", content=b"0123456789")

    assert [request.body for request in collector.requests] == [b"01234", b"01", b"0123456789"]


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (None, b'{"error":"Not Found"}'),
        (Drip(), b'{"error":"Not Found"}'),
        (Drip(size=50), b'{"error":"Not Found"}'),
        (Reset("answer", stored=True), b'{"error":"'),
        (Reset("answer"), b"[{"),
    ],
)
def test_an_answer_gets_as_far_as_its_fault_lets_it(
    collector: Collector, fault: Fault | None, body: bytes
) -> None:
    """One that drips arrives whole in the end, one that is reset gets to its middle."""
    collector.script = lambda request: fault
    with socket.create_connection(("127.0.0.1", collector.port)) as connection:
        connection.sendall(b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")

        assert received(connection).partition(b"\r\n\r\n")[2] == body


def test_an_answer_that_drips_is_on_its_way_for_long(collector: Collector, http: httpx.Client) -> None:
    """So long that the end of the collector cuts it off."""
    post(http, "/api/events", [event(str(n)) for n in range(200)])
    collector.script = lambda request: Drip()
    with socket.create_connection(("127.0.0.1", collector.port)) as connection:
        connection.sendall(b"GET /api/events?limit=200 HTTP/1.1\r\nx-api-key: whyops_test\r\n\r\n")
        first = connection.recv(1)
        collector.stop()

        assert first == b"H"
        assert not received(connection).endswith(b'"hasMore":false}}')


@pytest.mark.parametrize("stored", [False, True])
def test_a_request_hangs_until_released(collector: Collector, http: httpx.Client, stored: bool) -> None:
    """Then it is answered normally; another connection is served meanwhile."""
    collector.fail(Hang(stored=stored))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(http.post, "/api/events", json=event("slow"))
        collector.wait_for(lambda: len(collector.requests) == 1 and len(collector.stored) == stored)
        quick = http.post("/api/events", json=event("quick"))
        collector.release()
        slow = hanging.result(timeout=30)

    assert (slow.status_code, quick.status_code) == (201, 201)
    assert [row["content"] for row in collector.stored] == (
        ["slow", "quick"] if stored else ["quick", "slow"]
    )


def test_a_release_counts_from_the_moment_the_request_is_seen(
    collector: Collector, http: httpx.Client
) -> None:
    """It is not lost where it comes just before the wait: here while the events are being stored."""
    collector.break_on = lambda event: collector.release()
    collector.fail(Hang(stored=True))

    assert http.post("/api/events", json=event()).status_code == 201


@pytest.mark.parametrize("fault", [Hang(), Drip()])
def test_a_slow_request_ends_with_the_collector(
    collector: Collector, http: httpx.Client, fault: Fault
) -> None:
    """It gets no answer, or none to the end."""
    collector.fail(fault)
    batch = [event(str(n)) for n in range(1000)]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(http.post, "/api/events", json=batch)
        collector.wait_for(lambda: collector.requests and (fault == Hang() or collector.stored))
        collector.stop()

        assert isinstance(slow.exception(timeout=30), httpx.TransportError)


def test_a_script_sees_every_request_before_the_server_acts(collector: Collector, http: httpx.Client) -> None:
    """It goes before the queue of faults, which stays for the requests it lets pass."""
    seen: list[str] = []

    def script(request: Request) -> Fault | None:
        seen.append(request.path)
        return Answer(500) if request.path.endswith("init") or len(seen) == 2 else None

    collector.script = script
    collector.fail(Answer(429))

    assert http.post("/api/entities/init", json=about()).status_code == 500
    assert [http.post("/api/events", json=event()).status_code for _ in range(3)] == [500, 429, 201]
    assert seen == ["/api/entities/init", *["/api/events"] * 3]


def test_a_restart_keeps_the_port_and_what_is_stored(collector: Collector) -> None:
    """In between connections are refused, and kept ones are cut."""
    with httpx.Client(base_url=collector.url, headers=AUTH) as http:
        post(http, "/events", event("1"))
        collector.stop()
        with pytest.raises(httpx.TransportError):
            http.post("/events", json=event("2"))
        with pytest.raises(httpx.ConnectError):
            http.post("/events", json=event("2"))
        collector.stop()
        collector.start()

        assert post(http, "/events", event("2")) == (201, saved(2, 1))


def test_a_script_can_stop_the_collector(collector: Collector, http: httpx.Client) -> None:
    """The request at hand is lost with it."""
    collector.script = lambda request: collector.stop()
    with pytest.raises(httpx.TransportError):
        http.post("/api/events", json=event())
    collector.script = None
    collector.start()

    assert http.post("/api/events", json=event()).status_code == 201


def test_nothing_is_left_of_a_stopped_collector() -> None:
    """No thread, however many connections were open, and nobody is surprised by what is not HTTP."""
    before = set(threading.enumerate())
    context = ssl.create_default_context()
    with Collector() as collector:
        idle = [socket.create_connection(("127.0.0.1", collector.port)) for _ in range(10)]
        with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", collector.port)) as plain:
            context.wrap_socket(plain, server_hostname="localhost")
        idle[0].sendall(b"POST /api/events HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        idle[1].sendall(b"POST /api/ev")
    for connection in idle:
        connection.close()

    assert set(threading.enumerate()) == before
    assert collector.requests == []


def test_many_connections_at_once_lose_nothing(collector: Collector) -> None:
    """Events of one trace get steps of their own, from however many threads they come."""

    def send(thread: int) -> None:
        with httpx.Client(base_url=collector.url, headers=AUTH) as http:
            for n in range(20):
                http.post("/events", json=[event(f"{thread}-{n}-{m}") for m in range(5)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))

    assert sorted(row["stepId"] for row in collector.stored) == list(range(1, 801))
    assert len(collector.requests) == 160


def test_what_does_not_happen_is_said(collector: Collector, http: httpx.Client) -> None:
    """The failure says how far things got."""
    http.post("/api/events", json=event())

    with pytest.raises(AssertionError, match="1 requests came, 1 events are stored"):
        collector.wait_for(lambda: len(collector.stored) == 2, timeout=0)


def rows(*events: tuple[str, int, int | None]) -> list[Row]:
    """Return rows of ``(type, step, parent)``, a millisecond apart, all on one span."""
    return [
        {"eventType": kind, "stepId": step, "parentStepId": parent, "spanId": "s", "timestamp": f"{time:03d}"}
        for time, (kind, step, parent) in enumerate(events)
    ]


ASK, REPLY, SAY = "tool_call_request", "tool_call_response", "user_message"


def test_a_sound_trace_passes_the_check() -> None:
    """Gaps, branches and nested tools are no fault, nor is the order in which the rows are given."""
    sound = rows((SAY, 1, None), (ASK, 1001, 1), (ASK, 1002, 1001), (REPLY, 1003, 1002), (REPLY, 1004, 1001))

    check(sound)
    check(sound[::-1])
    check([])


@pytest.mark.parametrize(
    ("unsound", "complaint"),
    [
        (rows((SAY, 1, None), (SAY, 1, None)), "steps do not rise"),
        (rows((SAY, 2, None), (SAY, 1, None)), "steps do not rise"),
        (rows((SAY, 1, None), (SAY, 3, 2)), "its parent 2 does not exist"),
        (rows((SAY, 1, 2), (SAY, 2, 1)), "its parent 2 is above it"),
        (rows((SAY, 1, 1)), "its parent 1 is above it"),
        (rows((ASK, 1, None)), "these were answered"),
        (rows((ASK, 1, None), (REPLY, 2, 1), (REPLY, 3, 1)), "these were answered"),
        (rows((SAY, 1, None), (REPLY, 2, 1)), "parent 1 is no request"),
        (rows((REPLY, 1, None)), "parent None is no request"),
        (
            [row | {"spanId": row["eventType"]} for row in rows((ASK, 1, None), (REPLY, 2, 1))],
            "not the span of its request 1",
        ),
    ],
)
def test_an_unsound_trace_fails_the_check(unsound: list[Row], complaint: str) -> None:
    """Each of the analysis's complaints, in words that name the step."""
    with pytest.raises(AssertionError, match=complaint):
        check(unsound)
