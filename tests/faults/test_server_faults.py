"""A WhyOps server that misbehaves in every way, and what becomes of the events of real processes meanwhile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Hang, Reset
from faults.arrivals import TOOL_TYPES, Report, check_traces, count_arrivals, key, keys_in_store
from faults.outages import OUTAGES, Agent, Outage, live_through, on_all, on_events, well


@pytest.fixture
def begin(collector: Collector, tmp_path: Path) -> Iterator[Any]:
    """Start agents that do not outlive the test."""
    agents: list[Agent] = []

    def begin_one(label: str, calls: int, **more: str) -> Agent:
        agents.append(Agent(collector, tmp_path, label, calls, **more))
        return agents[-1]

    yield begin_one
    for agent in agents:
        agent.kill()


def unexpected(report: Report) -> list[str]:
    """Return what the processes said on stderr beside what is wrong with the server, and what stays behind."""
    meant = re.compile(
        r"Cannot deliver to whyops; [^:]*: (registering the agent 'shop'|http://127\.0\.0\.1:\d+/api)[ :]"
        r"|The server refuses an event for good"
        r"|whyops: \d+ records are not delivered yet"
    )
    return [line for line in report.said() if not meant.match(line)]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
def test_every_event_arrives_once_whatever_the_server_did(tmp_path: Path, outage: Outage) -> None:
    """What a process leaves at its exit, the next one delivers; the ledger is right; each cause is said once."""
    report = live_through(outage, tmp_path)

    assert (report.lost, report.twice, report.unsound, report.ledger) == ([], [], [], [])
    assert report.recorded == 2 * (2 * 500 + 25)
    assert report.refused == (4 if outage.name.startswith("400") else 0)
    assert [len(set(said)) for said in report.complaints] == [len(said) for said in report.complaints]
    assert all(
        line.startswith(("Cannot deliver", "The server refuses", "whyops: ")) for line in report.said()
    )


def test_no_call_waits_for_the_server(collector: Collector, begin: Any) -> None:
    """A process makes all its calls, and ends, while the server has answered nothing at all."""
    on_all(Hang())(collector)
    agent = begin("calls", 500)
    collector.wait_for(lambda: collector.requests)
    agent.go()
    made = agent.made
    agent.end()

    assert collector.stored == []
    assert made == 2 * 500 + 25
    assert agent.said["ledger"]["whyops"]["delivered"] == 0


def test_the_local_store_does_not_wait_for_the_server(
    collector: Collector, begin: Any, tmp_path: Path
) -> None:
    """Where records go to both, a server that hangs delays nobody else, and at the end both have the same."""
    on_all(Hang())(collector)
    first = begin("first", 500, WHYOPS_STORE="on")
    first.go()
    first.end()
    well(collector)
    second = begin("second", 20, WHYOPS_STORE="on")
    second.flush()
    second.end()
    local = first.said["ledger"]["local"]

    assert (local["pending"], local["delivered"]) == (0, local["emitted"])
    assert local["emitted"] == first.made + 2 * first.said["groups"]
    assert len(collector.stored) == first.made + second.made
    assert keys_in_store(tmp_path) == sorted(map(key, collector.stored))


def test_what_is_sent_again_is_not_stored_again(collector: Collector, begin: Any) -> None:
    """Where only the answer was lost the server has the events, the ones it numbered too, and keeps their numbers."""
    on_events(Reset("answer", stored=True))(collector)
    first = begin("first", 100)
    first.go()
    first.end()
    stored = {key(row): row["stepId"] for row in collector.stored}
    well(collector)
    second = begin("second", 20)
    second.flush()
    again = {key(row): row["stepId"] for row in collector.stored}
    deliveries = [request for request in collector.requests if request.path == "/api/events"]
    sent = Counter(event["idempotencyKey"] for request in deliveries for event in request.json)

    assert stored
    assert first.said["ledger"]["whyops"]["delivered"] == 0
    assert all(sent[one] > 1 and again[one] == step for one, step in stored.items())
    assert len(again) == len(collector.stored) == first.made + second.made


def test_these_checks_see_a_loss_a_double_and_a_broken_trace(collector: Collector, begin: Any) -> None:
    """They would fail, if there was anything to find."""
    agent = begin("one", 20)
    agent.flush()
    rows = collector.stored[:]
    expected = {(call, "work", kind) for call in agent.calls for kind in TOOL_TYPES}
    response = next(row for row in rows if row["eventType"] == "tool_call_response")
    request = next(row for row in rows if row["stepId"] == response["parentStepId"])

    def found() -> tuple[int, int]:
        report = Report("tampered with")
        count_arrivals(report, collector, expected)
        return len(report.lost), len(report.twice)

    def unsound(*changed: dict[str, Any]) -> str:
        report = Report("tampered with")
        others = [row for row in rows if row["id"] not in {row["id"] for row in changed}]
        collector.traces[response["traceId"]].rows[:] = [*others, *(row for row in changed if len(row) > 1)]
        check_traces(report, collector, lambda event: False)
        return "".join(report.unsound)

    assert found() == (0, 0)
    assert unsound() == ""
    assert "was not answered" in unsound({"id": response["id"]})
    assert "no parent" in unsound({"id": request["id"]})
    assert "do not rise" in unsound({**response, "stepId": request["stepId"]})
    assert "not the span" in unsound({**response, "spanId": "span_9999"})
    assert "not within" in unsound({**response, "metadata": {**response["metadata"], "within": 9999}})

    collector.stored.remove(response)

    assert found() == (1, 0)

    collector.stored += [response, response]

    assert found() == (0, 2)
    assert agent.ledger_errors(rows, delivers_all=True) == []
    assert len(agent.ledger_errors(rows[1:], delivers_all=True)) == 1
