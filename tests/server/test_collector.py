"""The local collector as clients of any language see it: what it takes, what it refuses, what it tells."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import json
import socket
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from local import JSON, LocalCollector, collecting, event, process
from wire import PATIENCE

from whyops_trace.server.bodies import MAX_BODY
from whyops_trace.server.wire import MAX_DEPTH, MAX_VIOLATIONS
from whyops_trace.settings import Retention

ANSWER = {"model": "gpt-4o", "provider": "openai"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalCollector]:
    """A collector with a home of its own."""
    with collecting(tmp_path / "home") as collector:
        yield collector


def refused(answer: httpx.Response, status: int = 400) -> list[tuple[str, str]]:
    """Return the field and code of everything that is wrong with a body, each with a sentence."""
    assert answer.status_code == status, answer.text
    details = answer.json()["details"]

    assert all(detail["message"].endswith(".") for detail in details), details
    return [(detail["field"], detail["code"]) for detail in details]


# What is taken


@pytest.mark.parametrize("key", [{}, {"Authorization": "Bearer whyops_x"}, {"x-api-key": "YOPS-x"}])
def test_any_key_will_do_and_none_as_well(server: LocalCollector, key: dict[str, str]) -> None:
    """A collector on one's own machine asks nobody who they are."""
    assert server.post("/api/events", event(), **key).status_code == 201


def test_an_event_is_answered_by_an_object_and_an_array_by_an_array(server: LocalCollector) -> None:
    """In order, each with what became of it; what there is no value for is left out."""
    one = server.post("/api/events", event(spanId="s", idempotencyKey="k"))
    several = server.post("/api/events", [event(idempotencyKey="k"), event()])

    assert one.status_code == several.status_code == 201
    assert one.headers["content-type"] == "application/json"
    assert one.json() == {"id": one.json()["id"], "status": "saved", "stepId": 1, "spanId": "s"}
    assert several.json()[0] == {
        "id": one.json()["id"],
        "status": "skipped",
        "stepId": 1,
        "parentStepId": None,
        "spanId": "s",
        "message": "Event already exists (idempotency check)",
    }
    assert several.json()[1]["parentStepId"] == 1
    assert server.post("/api/events", []).json() == []


def test_what_was_accepted_is_stored(server: LocalCollector) -> None:
    """The answer 202 comes when the events are in the store, not before."""
    answer = server.post("/api/events/ingest", [event(), event()])

    assert (answer.status_code, answer.json()) == (
        202,
        {"success": True, "accepted": True, "queuedCount": 2},
    )
    assert server.store.trace("t").event_count == 2
    assert server.post("/api/events/ingest", event()).json()["queuedCount"] == 1
    assert server.post("/api/events/ingest", []).json()["queuedCount"] == 0


def test_the_address_of_tool_results_says_their_type(server: LocalCollector) -> None:
    """Whatever the body says, or if it says none."""
    body = {"traceId": "t", "agentName": "shop", "metadata": {"tool": "f"}, "content": {}}

    assert server.post("/api/events/tool-result", body).status_code == 201
    assert server.post("/api/events/tool-result", [{**body, "eventType": "error"}]).status_code == 201
    assert {record["eventType"] for record in server.store.events("t")} == {"tool_call_response"}


def test_the_user_of_a_request_is_that_of_its_events(server: LocalCollector) -> None:
    """Unless an event names its own."""
    server.post("/api/events", [event(), event(externalUserId="mine")], **{"X-External-User-Id": "theirs"})

    assert [record["externalUserId"] for record in server.store.events("t")] == ["theirs", "mine"]


def test_unknown_members_are_passed_over(server: LocalCollector) -> None:
    """As on a WhyOps server."""
    assert server.post("/api/events", event(entityName="x", note=None)).status_code == 201


@pytest.mark.parametrize("level", [1, 9])
def test_bodies_may_be_packed_with_gzip(server: LocalCollector, level: int) -> None:
    """Which a large batch gains from."""
    events = [event(content="x" * 5_000, idempotencyKey=str(n)) for n in range(1_000)]
    packed = gzip.compress(json.dumps(events).encode(), level)

    assert len(server.post("/api/events", packed, **{"Content-Encoding": "gzip"}).json()) == 1_000


def test_many_requests_at_the_same_time_are_numbered_in_turns(server: LocalCollector) -> None:
    """Whatever they share a transaction with."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda n: server.post("/api/events", event(idempotencyKey=str(n))), range(200))
        )

    assert sorted(answer.json()["stepId"] for answer in answers) == list(range(1, 201))
    assert [record["stepId"] for record in server.store.events("t")] == list(range(1, 201))


def test_old_traces_go_where_it_is_asked_for(tmp_path: Path) -> None:
    """A collector keeps what it is told to keep."""
    with collecting(tmp_path, Retention(max_age_seconds=-1)) as server:
        assert server.post("/api/events", event()).status_code == 201
        assert server.store.traces() == []


# What a WhyOps server answers

EXCHANGES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("exchanges.json").read_text())


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange["name"] for exchange in EXCHANGES])
def test_the_answer_is_what_a_whyops_server_was_seen_to_answer(
    server: LocalCollector, exchange: dict[str, Any]
) -> None:
    """But for ids, which are made, and sentences; where the server names no field, ours says more."""
    if exchange["before"]:
        server.add(*exchange["before"])
    answer = server.http.request(
        exchange["method"],
        exchange["path"],
        content=json.dumps(exchange["body"]) if exchange["method"] == "POST" else None,
        headers=JSON,
    )

    assert answer.status_code == exchange["status"]
    assert has(answer.json(), exchange["answer"])


#: Members that differ each time or with the prices that are known; what a model has room for nobody here knows.
MADE = {"id", "agentId", "agentVersionId", "entityId", "userId", "providerId", "message"}
MADE |= {"totalCost", "contextWindowUsed"}


def has(told: Any, seen: Any) -> bool:
    """Tell whether an answer has all that another was seen to have."""
    if isinstance(seen, dict) and isinstance(told, dict):
        if seen.get("code") == "invalid_union":
            return bool(told["field"])
        wanted = seen.keys() - MADE
        return wanted <= told.keys() and all(has(told[name], seen[name]) for name in wanted)
    if isinstance(seen, list) and isinstance(told, list):
        return len(seen) == len(told) and all(map(has, told, seen))
    made = isinstance(seen, str) and seen.startswith("span_")
    return bool(told == seen or (made and str(told).startswith("span_")))


# What is refused


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"eventType": "foo"}, [("eventType", "invalid_enum_value")]),
        ({"eventType": None}, [("eventType", "invalid_type")]),
        ({"traceId": ""}, [("traceId", "too_small")]),
        ({"traceId": "x" * 129}, [("traceId", "too_big")]),
        ({"traceId": "\U0001f600" * 65}, [("traceId", "too_big")]),
        ({"traceId": 7}, [("traceId", "invalid_type")]),
        ({"agentName": ""}, [("agentName", "too_small")]),
        ({"agentName": "x" * 256}, [("agentName", "too_big")]),
        ({"spanId": "x" * 129}, [("spanId", "too_big")]),
        ({"spanId": None}, [("spanId", "invalid_type")]),
        ({"stepId": 0}, [("stepId", "too_small")]),
        ({"stepId": 1.5}, [("stepId", "invalid_type")]),
        ({"stepId": "1"}, [("stepId", "invalid_type")]),
        ({"stepId": True}, [("stepId", "invalid_type")]),
        ({"stepId": 2**31}, [("stepId", "too_big")]),
        ({"stepId": 2**80}, [("stepId", "too_big")]),
        ({"parentStepId": 0, "stepId": None}, [("stepId", "invalid_type"), ("parentStepId", "too_small")]),
        ({"timestamp": "2026-01-01T00:00:00+00:00"}, [("timestamp", "invalid_string")]),
        ({"timestamp": "2026-02-30T00:00:00Z"}, [("timestamp", "invalid_string")]),
        ({"timestamp": 1_700_000_000}, [("timestamp", "invalid_type")]),
        ({"metadata": [1]}, [("metadata", "invalid_type")]),
        ({"metadata": None}, [("metadata", "invalid_type")]),
        ({"idempotencyKey": "x" * 129}, [("idempotencyKey", "too_big")]),
        ({"externalUserId": "x" * 256}, [("externalUserId", "too_big")]),
        ({"userId": "me"}, [("userId", "invalid_string")]),
        ({"eventType": "tool_call_request"}, [("metadata.tool", "custom")]),
        ({"eventType": "tool_call_response", "metadata": {"tool": None}}, [("metadata.tool", "custom")]),
        ({"content": json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))}, [("content", "custom")]),
    ],
)
def test_an_event_that_cannot_be_stored_is_refused_with_the_reason(
    server: LocalCollector, members: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    """From the address that only accepts, too; nothing of its array is stored, and the answer names its place."""
    bad = {**event(), **members}
    for path in ("/api/events", "/api/events/ingest"):
        placed = [(f"1.{field}", code) for field, code in expected]

        assert refused(server.post(path, bad)) == expected
        assert refused(server.post(path, [event(), bad, event()])) == placed
    assert server.store.traces() == []


@pytest.mark.parametrize("wrong", [{}, event(traceId="\N{PILE OF POO}" * 100)], ids=["missing", "long"])
def test_not_all_of_many_mistakes_are_said(server: LocalCollector, wrong: dict[str, Any]) -> None:
    """An answer must not be larger than what it refuses."""
    answer = server.post("/api/events", [wrong] * 1_000)

    assert len(refused(answer)) == MAX_VIOLATIONS


@pytest.mark.parametrize("name", ["eventType", "traceId", "agentName"])
def test_what_every_event_must_have(server: LocalCollector, name: str) -> None:
    """A missing member is named."""
    body = event()
    del body[name]

    assert refused(server.post("/api/events", body)) == [(name, "invalid_type")]


def test_everything_that_is_wrong_is_said_at_once(server: LocalCollector) -> None:
    """Of every event of an array."""
    answer = server.post("/api/events", [event(stepId=0, spanId=1), 7, event(traceId="")])

    assert refused(answer) == [
        ("0.spanId", "invalid_type"),
        ("0.stepId", "too_small"),
        ("1", "invalid_type"),
        ("2.traceId", "too_small"),
    ]


@pytest.mark.parametrize("kind", ["llm_response", "embedding_response"])
@pytest.mark.parametrize("name", ["model", "provider"])
def test_an_answer_without_its_model_is_refused(server: LocalCollector, kind: str, name: str) -> None:
    """In the words of the server, and at both addresses."""
    body = event(kind, metadata={**ANSWER, name: ""})
    for path in ("/api/events", "/api/events/ingest"):
        answer = server.post(path, body)

        assert refused(answer) == [(f"metadata.{name}", "custom")]
        assert answer.json()["error"] == f'MISSING_{name.upper()}: {kind} events require "{name}" in metadata'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{bad",
        b'"text"',
        b"7",
        b"null",
        b'{"eventType":"error","traceId":"t","agentName":"a","content":NaN}',
        b'{"eventType":"error","traceId":"t","agentName":"a","content":"\xff"}',
        b'{"eventType":"error","traceId":"t","agentName":"a","content":"\n"}',
        b'{"eventType":"error","traceId":"t","agentName":"a"} {}',
        b"[" * 100_000,
        b'{"eventType":"error","traceId":"t","agentName":"a","content":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_the_clients_mistake(server: LocalCollector, body: bytes) -> None:
    """A client that tries again after a 500 would never stop."""
    assert len(refused(server.post("/api/events", body))) == 1


@pytest.mark.parametrize("text", [r"half \ud83d", r"\ude00 half", r"\ud83dx", r"\uD83D\uD83D\uDE00"])
def test_half_a_character_is_refused_and_a_whole_one_is_kept(server: LocalCollector, text: str) -> None:
    """No page and no file could show it; what merely looks like one is text."""
    whole = json.dumps(event(content="TEXT")).replace("TEXT", r"\ud83d\ude00 \\ud83d").encode()
    answer = server.post("/api/events", json.dumps(event(content="TEXT")).replace("TEXT", text).encode())

    assert refused(answer) == [("", "invalid_string")]
    assert "surrogate" in answer.json()["details"][0]["message"]
    assert server.post("/api/events", whole).status_code == 201
    assert server.store.events("t")[0]["content"] == "\U0001f600 \\ud83d"


def test_deep_but_not_too_deep(server: LocalCollector) -> None:
    """Brackets in texts are none, and as deep as a reader can follow is stored."""
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)

    assert server.post("/api/events", event(content=deep)).status_code == 201
    assert server.post("/api/events", event(content=['"\\[' * 5_000])).status_code == 201
    assert server.post("/api/events", event(content=[{}] * 5_000)).status_code == 201
    assert server.store.events("t")[0]["content"] == deep


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_type_of_body_is_refused(server: LocalCollector, content_type: str) -> None:
    """Any web page may make a browser send those types, wherever it comes from."""
    answer = server.http.post(
        "/api/events", content=json.dumps(event()), headers={"Content-Type": content_type}
    )

    assert refused(answer, 415) == [("", "invalid_body")]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"]
)
def test_the_types_of_json(server: LocalCollector, content_type: str) -> None:
    """With or without parameters."""
    headers = {"Content-Type": content_type}

    assert server.http.post("/api/events", content=json.dumps(event()), headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("encoding", "pack", "status"),
    [
        ("br", lambda body: body, 415),
        ("gzip", lambda body: body, 400),
        ("gzip", lambda body: gzip.compress(body)[:-9], 400),
        ("gzip", lambda body: gzip.compress(body) * 2, 400),
        ("gzip", lambda body: gzip.compress(body) + b"more", 400),
        ("gzip", zlib.compress, 400),
    ],
)
def test_a_body_that_is_not_packed_as_it_says(
    server: LocalCollector, encoding: str, pack: Callable[[bytes], bytes], status: int
) -> None:
    """It is refused, with nothing of it stored."""
    answer = server.post("/api/events", pack(json.dumps(event()).encode()), **{"Content-Encoding": encoding})

    assert refused(answer, status) == [("", "invalid_body")]
    assert server.store.traces() == []


def test_a_body_that_is_too_long_is_refused(server: LocalCollector) -> None:
    """By what it promises, by what it sends, and by what it unpacks to; a bomb costs little."""
    bomb = gzip.compress(b'"' + b"x" * (MAX_BODY + 1) + b'"')

    assert refused(server.post("/api/events", bomb, **{"Content-Encoding": "gzip"}), 413) == [
        ("", "invalid_body")
    ]
    with socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), PATIENCE) as connection:
        head = "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        connection.sendall(f"{head}{MAX_BODY + 1}\r\n\r\n".encode())

        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_goes_away_stores_nothing(server: LocalCollector) -> None:
    """Half a body is no event."""
    body = json.dumps(event()).encode()
    with socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), PATIENCE) as connection:
        head = f"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:-5])

    assert server.add(event()) != []
    assert server.store.trace("t").event_count == 1


def test_a_store_that_cannot_be_written_is_said(server: LocalCollector) -> None:
    """The client may try again; nothing is accepted meanwhile."""
    server.store.path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(server.store.path)) as connection:
        connection.executescript("CREATE TABLE traces (id); PRAGMA user_version = 99")

    for path in ("/api/events", "/api/events/ingest"):
        answer = server.post(path, event())

        assert answer.status_code == 503
        assert "is a store of format 99" in answer.json()["error"]
    assert server.http.get("/api/threads").status_code == 503


def test_a_damaged_store_is_said_once(server: LocalCollector) -> None:
    """It is set aside, and what is sent again is stored."""
    server.store.path.parent.mkdir()
    server.store.path.write_bytes(b"no database, but quite long enough to be one" * 100)
    answers = [server.post("/api/events", event()) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 201]
    assert "It is kept as" in answers[0].json()["error"]


def test_an_event_that_cannot_be_stored_is_refused_alone(server: LocalCollector) -> None:
    """Others that wait for the same transaction are stored, and so is what comes later."""
    server.add(event(), event(trace="full"))
    with (
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        contextlib.closing(sqlite3.connect(server.store.path, isolation_level=None)) as other,
    ):
        other.execute("UPDATE traces SET last_step = ? WHERE trace_id = 'full'", (2**63 - 1,))
        other.execute("BEGIN IMMEDIATE")
        bodies = [event(), event(), event(trace="full"), event()]
        waiting = [pool.submit(server.post, "/api/events", body) for body in bodies]
        server.get("/api/threads/t")  # is answered when they have come
        other.execute("ROLLBACK")
        answers = [each.result(PATIENCE) for each in waiting]

    assert [answer.status_code for answer in answers] == [201, 201, 400, 201]
    assert "cannot be stored" in answers[2].json()["error"]
    assert server.get("/api/threads/t")["eventCount"] == 4
    assert list(server.store.path.parent.glob("*.bad")) == []


def test_pages_are_answered_while_a_transaction_waits(server: LocalCollector) -> None:
    """Another process may hold the store for seconds; whoever reads does not notice."""
    server.add(event())
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        sqlite3.connect(server.store.path, isolation_level=None) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(server.post, "/api/events", event())
        threads = [server.get("/api/threads/t")["eventCount"] for _ in range(10)]
        done = waiting.done()
        other.execute("ROLLBACK")

        assert threads == [1] * 10
        assert not done
        assert waiting.result(PATIENCE).status_code == 201
    other.close()


# Agents


def test_an_agent_is_registered_once_for_each_version(server: LocalCollector) -> None:
    """A version that comes back is the one it was; the order of members does not matter."""
    paths = ["/api/entities/init", "/v1/agents/init", "/api/v1/agents/init"]
    tool = {"name": "f", "inputSchema": "{}", "outputSchema": "{}", "description": "d"}
    versions = [
        {"systemPrompt": "A", "tools": []},
        {"systemPrompt": "B", "tools": [tool], "description": "shop"},
        {"tools": [], "systemPrompt": "A", "note": "unknown"},
        {"systemPrompt": "B", "description": "shop", "tools": [dict(reversed(tool.items()))]},
    ]
    answers = [
        server.post(path, {"agentName": "shop", "metadata": metadata})
        for path, metadata in zip([*paths, paths[0]], versions, strict=True)
    ]
    told = [answer.json() for answer in answers]

    assert [answer.status_code for answer in answers] == [201, 201, 200, 200]
    assert [each["status"] for each in told] == ["created", "created", "existing", "existing"]
    assert told[0]["versionHash"] == "334872d17686d2bf33e4032470381344"
    assert len({each["agentId"] for each in told}) == 1
    assert told[0]["agentVersionId"] == told[2]["agentVersionId"] != told[1]["agentVersionId"]
    assert [version.name for version in server.store.agents()] == ["shop"] * 2
    assert server.add(event())[0]["status"] == "saved"
    assert server.get("/api/threads/t")["agentId"] == told[0]["agentId"]


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"agentName": "a"}, ["metadata"], "invalid_type"),
        ({"agentName": "", "metadata": {"systemPrompt": "s", "tools": []}}, ["agentName"], "too_small"),
        ({"agentName": "x" * 256, "metadata": {"systemPrompt": "s", "tools": []}}, ["agentName"], "too_big"),
        (
            {"agentName": "a", "metadata": {"systemPrompt": 1, "tools": []}},
            ["metadata", "systemPrompt"],
            "invalid_type",
        ),
        (
            {"agentName": "a", "metadata": {"systemPrompt": "s", "tools": [{"name": "f"}]}},
            ["metadata", "tools", 0, "inputSchema"],
            "invalid_type",
        ),
        (b"{", [], "invalid_json"),
        (b'{"note":' + b"[" * 100_000, [], "invalid_json"),
    ],
)
def test_an_agent_that_is_not_defined_is_refused(
    server: LocalCollector, body: Any, path: list[str | int], code: str
) -> None:
    """In the form of the server."""
    answer = server.post("/api/entities/init", body)
    (issue,) = answer.json()["error"]["issues"]

    assert answer.status_code == 400
    assert (issue["path"], issue["code"]) == (path, code)


def test_everything_is_kept_whatever_the_rate(server: LocalCollector) -> None:
    """The collector says so to who asks for less."""
    init = {"agentName": "shop", "metadata": {"systemPrompt": "A", "tools": []}}
    agent = server.post("/api/entities/init", init).json()["agentId"]

    def ask(rate: Any, who: str = agent) -> httpx.Response:
        return server.http.patch(f"/api/entities/{who}/sampling-rate", json={"samplingRate": rate})

    assert ask(1).json()["samplingRate"] == ask(0.2).json()["samplingRate"] == 1.0
    assert "message" not in ask(1).json()
    assert "not obeyed" in ask(0.2).json()["message"]
    assert (ask(1.5).status_code, ask("x").status_code, ask(1, "nobody").status_code) == (400, 400, 404)


# What is told


def conversation(server: LocalCollector) -> None:
    """Store a trace of a turn and a call."""
    times = [f"2026-01-01T00:00:0{n}.000Z" for n in range(4)]
    call = [{"name": "f", "arguments": {"x": 1}}]
    usage = {
        "promptTokens": 1,
        "completionTokens": 2,
        "totalTokens": 3,
        "cacheReadTokens": 1,
        "cacheCreationTokens": 4,
    }
    answer = {**ANSWER, "usage": usage, "latencyMs": 12}
    server.add(
        event(timestamp=times[0], content=[{"role": "user", "content": "q"}], idempotencyKey="k1"),
        event(
            "llm_response",
            timestamp=times[1],
            content={"content": "a", "finishReason": "stop"},
            metadata=answer,
        ),
        event(
            "tool_call_request",
            timestamp=times[2],
            content={"toolCalls": call},
            metadata={"tool": "f"},
            spanId="s",
        ),
        event(
            "tool_call_response",
            timestamp=times[3],
            content={"toolCalls": call, "toolResults": {"r": 1}},
            metadata={"tool": "f"},
            spanId="s",
        ),
    )


def test_a_thread_is_told(server: LocalCollector) -> None:
    """Sums, times, models, and its events in the order of their time."""
    conversation(server)
    thread = server.get("/api/threads/t", eventInclude="content,metadata")
    first, second, _, last = thread["events"]

    assert thread["success"] is True
    assert (thread["eventCount"], thread["duration"], thread["totalTokens"]) == (4, 3000, 3)
    assert (thread["totalLatency"], thread["avgLatency"], thread["errorCount"]) == (1012, 253, 0)
    assert thread["eventsPagination"] == {"total": 4, "limit": 200, "offset": 0, "hasMore": False}
    assert (first["content"], first["metadata"]) == (
        [{"role": "user", "content": "q"}],
        {"idempotencyKey": "k1"},
    )
    assert (second["model"], second["finishReason"], second["cacheWriteTokens"]) == ("gpt-4o", "stop", 4)
    assert (last["latencyMs"], last["timeSinceStart"], last["parentStepId"]) == (1000, 3000, 3)
    assert "duration" not in last
    assert thread["models"][0]["isLastModel"] is True
    page = server.get("/api/threads/t", eventLimit=2, eventOffset=1)

    assert [each["stepId"] for each in page["events"]] == [2, 3]
    assert page["eventsPagination"]["hasMore"] is True
    assert "content" not in page["events"][0]


def test_threads_are_listed(server: LocalCollector) -> None:
    """Page by page, of one agent or user."""
    for n in range(5):
        server.add(event(trace=f"a/b {n}", externalUserId=f"u{n % 2}"))
    page = server.get("/api/threads", count=2, page=2)

    assert [thread["threadId"] for thread in page["threads"]] == ["a/b 2", "a/b 1"]
    assert page["pagination"] == {"total": 5, "count": 2, "page": 2, "totalPages": 3, "hasMore": True}
    assert len(server.get("/api/threads", externalUserId="u1")["threads"]) == 2
    assert server.get("/api/threads", agentName="nobody")["threads"] == []
    assert server.get("/api/threads/a%2Fb%202")["threadId"] == "a/b 2"


def test_an_id_may_be_like_an_address(server: LocalCollector) -> None:
    """What is quoted in it belongs to it; a slash that is not quoted may belong to it as well."""
    ids = ["x", "x/graph", "a\nb", "%2F", "a/b"]
    server.add(*(event(traceId=trace_id) for trace_id in ids))
    told = [server.get(f"/api/threads/{quote(trace_id, safe='')}") for trace_id in ids]

    assert [thread.get("threadId") for thread in told] == ids
    assert ["graph" in thread for thread in told] == [False] * len(ids)
    assert server.get("/api/threads/a/b")["threadId"] == "a/b"


def test_a_graph_says_what_follows_from_what(server: LocalCollector) -> None:
    """An edge for each parent that exists."""
    server.add(event(), event("error"), event(stepId=9, parentStepId=1), event(stepId=12, parentStepId=11))
    graph = server.get("/api/threads/t/graph")["graph"]
    ids = {node["stepId"]: node["id"] for node in graph["nodes"]}

    assert [node["hasError"] for node in graph["nodes"]] == [False, True, False, False]
    assert graph["edges"] == [{"from": ids[1], "to": ids[2]}, {"from": ids[1], "to": ids[9]}]


def test_events_are_listed_the_latest_first(server: LocalCollector) -> None:
    """Of a trace or of all; each can be asked for by its id."""
    conversation(server)
    server.add(event(trace="other"))
    page = server.get("/api/events", traceId="t", limit=3, offset=1, include="metadata")
    everything = server.get("/api/events")

    assert [each["stepId"] for each in page["events"]] == [3, 2, 1]
    assert page["pagination"] == {"total": 4, "limit": 3, "offset": 1, "hasMore": False}
    assert page["events"][2]["metadata"] == {"idempotencyKey": "k1"}
    assert everything["pagination"]["total"] == 5
    one = page["events"][0]

    assert server.get(f"/api/events/{one['id']}", include="metadata") == one
    assert server.get("/api/events", traceId="nowhere")["events"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/events/00000000-0000-8000-8000-000000000009",
        "/api/events/x",
        "/api/events/0_000000-0000-8000-8000-000000000001",
        "/api/threads/nowhere",
        "/api/threads/nowhere/graph",
        "/api/threads/half%ED%A0%80",
        "/api/analyses/x",
        "/api/analyses/trace/nowhere",
    ],
)
def test_what_is_not_there_is_not_found(server: LocalCollector, path: str) -> None:
    """With a sentence, as JSON."""
    server.add(event())
    answer = server.http.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]


def test_strange_queries_are_taken_as_usual_ones(server: LocalCollector) -> None:
    """A limit that is no number is the usual limit."""
    server.add(event())
    for query in ("limit=x&offset=-1", "limit=0&offset=9", "limit=99999999999999999999", "limit=%EF%BC%91"):
        assert server.http.get(f"/api/events?{query}").status_code == 200


def test_a_trace_is_analysed(server: LocalCollector) -> None:
    """By the rules of the server; an analysis can be asked for again."""
    server.add(event(stepId=1), event(stepId=2, parentStepId=99), event(stepId=2, parentStepId=1))
    answer = server.post("/api/analyses", {"traceId": "t", "mode": "deep"})
    analysis = answer.json()["analysis"]

    assert answer.status_code == 201
    assert (analysis["status"], analysis["mode"]) == ("completed", "deep")
    assert analysis["summary"]["findingCount"] == 2
    assert analysis["summary"]["bySeverity"] == {"medium": 1, "high": 1}
    assert analysis["summary"]["byDimension"] == {"trace_integrity": 2}
    assert {each["evidence"]["issue"] for each in analysis["findings"]} == {
        "DUPLICATE_STEP_ID",
        "MISSING_PARENT_STEP",
    }
    assert server.get(f"/api/analyses/{analysis['id']}")["analysis"] == analysis
    assert server.get("/api/analyses/trace/t")["analyses"] == [analysis]
    assert server.post("/api/analyses", {"traceId": "nowhere"}).status_code == 404
    assert server.post("/api/analyses", {"traceId": "t", "mode": "x"}).status_code == 400


def test_the_latest_analyses_are_remembered(server: LocalCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one can be made again."""
    monkeypatch.setattr("whyops_trace.server.analyses._REMEMBERED", 2)
    server.add(event())
    made = [server.post("/api/analyses", {"traceId": "t"}).json()["analysis"]["id"] for _ in range(3)]

    assert [each["id"] for each in server.get("/api/analyses/trace/t")["analyses"]] == [made[2], made[1]]
    assert server.http.get(f"/api/analyses/{made[0]}").status_code == 404


@pytest.mark.parametrize("number", ["1e999", "-1e400", "7" * 5_000])
def test_a_number_that_nothing_can_hold_is_refused(server: LocalCollector, number: str) -> None:
    """Hardly a reader would take it; large ones are kept to the last digit."""
    refusal = server.post("/api/events", json.dumps(event(content="N")).replace('"N"', number).encode())

    assert refused(refusal) == [("", "invalid_number")]
    assert server.post("/api/events", event(content=2**300)).status_code == 201
    assert server.get("/api/events", include="content")["events"][0]["content"] == 2**300


def test_a_recorded_number_beyond_every_float_is_told_as_it_is(server: LocalCollector) -> None:
    """What would be computed from it is not known."""
    record = {**event(), "stepId": 1, "idempotencyKey": "k", "content": ["N"], "metadata": {"own": "N"}}
    server.store.ingest(("9f2c41aa01be", [json.dumps(record).replace('"N"', "1e999").encode()]))

    told = server.http.get("/api/threads/t?eventInclude=content,metadata").text

    assert '"content":[1e999]' in told
    assert '"own":1e999' in told
    assert server.get("/api/threads/t")["events"][0]["latencyMs"] is None


def test_its_health_names_its_home(server: LocalCollector) -> None:
    """Whoever looks for the server of a home finds out which one it is."""
    health = server.get("/api/health")

    assert (health["status"], health["home"]) == ("healthy", str(server.store.path.parent))


def test_what_is_recorded_is_told_as_well(server: LocalCollector) -> None:
    """The traces of this machine's own programs are in the same store."""
    from lines import Process, tool_request, tool_response

    recorder = Process(run="9f2c41aa01be-1")
    lines = [
        tool_request(recorder, 1),
        tool_response(recorder, 2, 1),
        recorder.event("trace_end", 1, 1, end=True),
    ]
    server.store.ingest(("9f2c41aa01be", [json.dumps(line).encode() for line in lines]))
    thread = server.get("/api/threads/checkout-8841")

    assert [each["eventType"] for each in thread["events"]] == ["tool_call_request", "tool_call_response"]
    assert server.get("/api/events", traceId="checkout-8841")["pagination"]["total"] == 2


@pytest.mark.parametrize(
    "odd", [None, "12", 12, [1], {"model": [1], "usage": {"promptTokens": -1}, "latencyMs": "x"}]
)
def test_what_is_recorded_may_hold_anything(server: LocalCollector, odd: Any) -> None:
    """Records that no client of ours would write are told as well."""
    kinds = ["llm_response", "embedding_response", "tool_call_request", "tool_call_response", "error"]
    lines = []
    for step, kind in enumerate(kinds, 1):
        metadata = {"within": 0, "x": odd, **(odd if isinstance(odd, dict) else {"usage": odd, "model": odd})}
        members = {"timestamp": "never", "spanId": None, "agentName": "", "metadata": metadata}
        key = {"eventType": kind, "traceId": "t", "stepId": step, "idempotencyKey": str(step)}
        lines.append(json.dumps({**key, **members, "content": odd}).encode())

    assert server.store.ingest(("9f2c41aa01be", lines)) == [True] * len(kinds)
    thread = server.get("/api/threads/t", eventInclude="content,metadata")

    assert [each["content"] for each in thread["events"]] == [odd] * len(kinds)
    assert len(server.get("/api/threads/t/graph")["graph"]["nodes"]) == len(kinds)
    assert len(server.get("/api/events", traceId="t", include="content,metadata")["events"]) == len(kinds)
    assert server.post("/api/analyses", {"traceId": "t"}).status_code == 201


# Several processes


def test_two_collectors_on_one_home_number_a_trace_in_turns(tmp_path: Path) -> None:
    """Each event has a step of its own, and a key is stored once, whichever of them it came to."""
    with process(tmp_path) as (_, one), process(tmp_path) as (_, two), httpx.Client(timeout=PATIENCE) as http:

        def post(n: int) -> list[dict[str, Any]]:
            bodies = [[event(idempotencyKey=f"{n}-{k}") for k in range(5)] for _ in range(2)]
            urls = (one, two) if n % 2 else (two, one)
            return [
                told
                for url, body in zip(urls, bodies, strict=True)
                for told in http.post(f"{url}/api/events", content=json.dumps(body), headers=JSON).json()
            ]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            told = [each for group in pool.map(post, range(40)) for each in group]
        listed = [
            http.get(f"{url}/api/events", params={"traceId": "t", "limit": 200}).json()["events"]
            for url in (one, two)
        ]
    saved = sorted(each["stepId"] for each in told if each["status"] == "saved")

    assert saved == list(range(1, 201))
    assert [each["status"] for each in told].count("skipped") == 200
    assert listed[0] == listed[1]
    assert sorted(each["stepId"] for each in listed[0]) == saved


def test_a_collector_that_is_killed_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """In the middle of its work; what was sent again to the next one is there once."""
    acknowledged: dict[str, int] = {}

    def send(url: str, client: int) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE) as http:
            for n in range(10_000):
                keys = [f"{client}-{n}-{k}" for k in range(3)]
                body = json.dumps([event(trace=f"t{client % 2}", idempotencyKey=key) for key in keys])
                answer = http.post("/api/events", content=body, headers=JSON)
                acknowledged.update(
                    {key: told["stepId"] for key, told in zip(keys, answer.json(), strict=True)}
                )
                if len(acknowledged) > 600:
                    program.kill()

    with process(tmp_path) as (program, url), concurrent.futures.ThreadPoolExecutor(6) as pool:
        senders = [pool.submit(send, url, client) for client in range(6)]
        errors = [sender.exception(PATIENCE) for sender in senders]
    with collecting(tmp_path) as server:
        again = server.add(*(event(trace=f"t{int(key[0]) % 2}", idempotencyKey=key) for key in acknowledged))
        stored = [record for trace in ("t0", "t1") for record in server.store.events(trace)]

    assert all(isinstance(error, httpx.HTTPError) for error in errors)
    assert len(acknowledged) > 600
    assert {told["status"] for told in again} == {"skipped"}
    assert [told["stepId"] for told in again] == list(acknowledged.values())
    assert len({(record["traceId"], record["idempotencyKey"]) for record in stored}) == len(stored)
    assert len({(record["traceId"], record["stepId"]) for record in stored}) == len(stored)
