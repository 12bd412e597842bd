"""Our own client, pointed at the local collector as at a WhyOps server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import served
from click.testing import CliRunner
from local import JSON, LocalCollector, collecting, event

from whyops_trace import WhyOps, traced_tool
from whyops_trace.cli import main
from whyops_trace.store import Store

TRACE = "checkout-8841"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalCollector]:
    """A collector, whose home is not that of the clients."""
    with collecting(tmp_path / "server") as collector:
        yield collector


def client(server: LocalCollector, home: Path, **options: Any) -> WhyOps:
    """Return a client of the collector."""
    return WhyOps(
        "whyops_test", "shop", analyse_base_url=server.url, proxy_base_url=server.root, home=home, **options
    )


@traced_tool
def charge(amount: int) -> dict[str, int]:
    """Charge something; nothing is an error."""
    return {"share": 100 // amount}


def turn(sdk: WhyOps, trace_id: str = TRACE) -> None:
    """Record a turn of a conversation: a question, two calls of which one fails, and an answer."""
    with sdk.trace(trace_id) as trace:
        trace.user_message_sync([{"role": "user", "content": "Charge me."}])
        charge(4)
        with pytest.raises(ZeroDivisionError):
            charge(0)
        trace.llm_response_sync("gpt-4o", "openai", "Done.")


def numbers(store: Store) -> list[tuple[str, int, int | None]]:
    """Return the type, step and parent of each event."""
    return [(r["eventType"], r["stepId"], r.get("parentStepId")) for r in store.events(TRACE)]


def test_everything_our_client_records_arrives(
    server: LocalCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation of three turns, two of them in another process' client: delivered, numbered on, verified."""
    home = tmp_path / "client"
    for turns in (1, 2):
        with client(server, home, store=True) as sdk:
            for _ in range(turns):
                turn(sdk)
            ledger = sdk.flush_sync(30.0)["whyops"]

            assert ledger.delivered == ledger.emitted > 0
            assert ledger[2:6] == (0, 0, 0, 0)
    monkeypatch.setenv("WHYOPS_ANALYSE_URL", server.url)
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")
    said = CliRunner().invoke(main, ["verify", TRACE, "--json", "--home", str(home)])
    stored = numbers(server.store)

    assert [step for _, step, _ in stored] == list(range(1, len(stored) + 1))
    assert [kind for kind, _, _ in stored] == [
        *("user_message", "tool_call_request", "tool_call_response", "tool_call_request"),
        *("error", "tool_call_response", "llm_response"),
    ] * 3
    assert said.exit_code == 0, said.output
    assert json.loads(said.output)["missing"] == []
    with contextlib.closing(Store(home / "traces.db")) as recorded:
        assert [each for each in numbers(recorded) if each[0] != "trace_end"] == stored


def test_a_client_that_records_into_the_home_of_its_collector(tmp_path: Path) -> None:
    """It stores each event itself and reports it as well; there is one of each all the same."""
    home = tmp_path / "home"
    with collecting(home) as server:
        for _ in range(3):
            with client(server, home, store=True) as sdk:
                turn(sdk)
        stored = [each for each in numbers(server.store) if each[0] != "trace_end"]
        summary = server.store.trace(TRACE)

    assert [step for _, step, _ in stored] == list(range(1, 22))
    assert (summary.event_count, summary.tool_calls, summary.llm_responses) == (21, 6, 3)
    assert summary.ended


def test_steps_that_leave_room_for_those_of_a_proxy(server: LocalCollector) -> None:
    """A client numbers 1, 1001, 2001 and so on, the proxy's events have no numbers: nothing is wrong with the trace."""
    answer = {"model": "gpt-4o", "provider": "openai"}
    tool = {"tool": "f"}
    called = event("llm_response", content={"toolCalls": [{"function": {"name": "f"}}]}, metadata=answer)
    server.add(event(stepId=1))
    server.add(event(), called)
    server.add(
        event("tool_call_request", stepId=1001, parentStepId=3, spanId="s", metadata=tool, content={}),
        event("tool_call_response", stepId=2001, parentStepId=1001, spanId="s", metadata=tool, content={}),
    )
    server.add(event("tool_result"), event("llm_response", content={"content": "Done."}, metadata=answer))
    analysis = server.post("/api/analyses", {"traceId": "t"}).json()["analysis"]

    assert [record["stepId"] for record in server.store.events("t")] == [1, 2, 3, 1001, 2001, 2002, 2003]
    assert analysis["findings"] == []


def test_the_application_collects_and_asks_for_its_key(tmp_path: Path) -> None:
    """With a key of its own only who shows it may report or read, whatever they are."""
    with served(tmp_path, key="whyops_mine") as url, httpx.Client(base_url=url, timeout=30) as http:
        body = json.dumps(event())

        def post(**headers: str) -> httpx.Response:
            return http.post("/api/events", content=body, headers={**JSON, **headers})

        refusals = [
            post(),
            post(Authorization="Bearer whyops_other"),
            post(Authorization="bearer whyops_mine"),
        ]
        taken = [post(Authorization="Bearer whyops_mine"), post(**{"x-api-key": "whyops_mine"})]
        unread = http.get("/api/threads")

    assert [answer.status_code for answer in refusals] == [401] * 3
    assert refusals[0].json() == {"error": "Unauthorized: Authentication required"}
    assert [answer.status_code for answer in taken] == [201, 201]
    assert unread.status_code == 401
