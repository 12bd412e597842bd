"""The order of a hybrid trace on a server that is slow, lags behind, and stores what it gets when it likes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from findings import findings
from programs import Program, start
from provider import Provider
from replies import Reply, Thinking
from serving import KEY
from wire import Row

PROGRAM = Path(__file__).with_name("hybrid_program.py")
#: What depends on nothing but the time that calls took.
OUTLIERS = ("LATENCY_OUTLIER", "TOKEN_OUTLIER")


@pytest.fixture
def lagging(collector: Collector, provider: Provider) -> Collector:
    """A server whose events take 20 ms each, with a proxy to a provider that never says the same twice."""
    numbers = itertools.count(1)
    collector.upstream = provider
    collector.event_seconds = 0.02
    provider.script = lambda request: Reply(
        f"Answer {next(numbers)}.", thinking=(Thinking(f"Hm {next(numbers)}"),)
    )
    return collector


def begin(server: Collector, home: Path, kind: str, *numbers: int, trace: str = "t", **more: str) -> Program:
    """Start a process that takes turns; *numbers* are the first and last turn, the tools and their milliseconds."""
    urls = {"WHYOPS_ANALYSE_URL": server.url, "WHYOPS_PROXY_URL": server.proxy_url}
    about = {"WHYOPS_API_KEY": KEY, "WHYOPS_AGENT_NAME": "shop", **urls, **more}
    return start(PROGRAM, kind, trace, *map(str, numbers), home=home, **about)


def ended(process: Program) -> list[float]:
    """The milliseconds that each request waited, once a process has ended well."""
    with process:
        out, err = process.communicate(timeout=120)

    assert (process.returncode, err) == (0, "")
    waits: list[float] = json.loads(out)
    return waits


def sound(server: Collector, trace: str = "t") -> list[Row]:
    """The rows of a trace, in which the server's analysis finds nothing wrong."""
    rows = server.trace(trace)
    found = [finding for finding in findings(rows) if finding[0] not in OUTLIERS]

    assert server.dead_letters == []
    assert found == [], [(row["timestamp"][14:], row["stepId"], row["eventType"]) for row in rows]
    return rows


@pytest.mark.parametrize("tools", [1, 8])
@pytest.mark.parametrize("tool_ms", [0, 5, 200])
@pytest.mark.parametrize("lag", [0.0, 0.05, 0.5])
def test_a_conversation_of_three_processes_is_in_order(
    lagging: Collector, tmp_path: Path, lag: float, tool_ms: int, tools: int
) -> None:
    """Whatever the tools take, however many there are, and however late the proxy's events are stored."""
    lagging.lag = lag
    waits = [
        wait
        for first in (1, 3, 5)
        for wait in ended(begin(lagging, tmp_path, "openai", first, first + 1, tools, tool_ms))
    ]
    lagging.wait_for(lambda: len(lagging.trace("t")) == 6 * (2 + 2 * tools))
    sound(lagging)

    assert len(waits) == 6


@pytest.mark.parametrize("lag", [0.05, 0.5])
@pytest.mark.parametrize("kind", ["openai async", "openai stream", "anthropic", "anthropic async"])
def test_every_client_keeps_the_order(lagging: Collector, tmp_path: Path, kind: str, lag: float) -> None:
    """Tools that run at once, streams, and thoughts that the proxy reports after an answer."""
    lagging.lag = lag
    ended(begin(lagging, tmp_path, kind, 1, 3, 3, 0))
    events = 3 + kind.startswith("anthropic")
    lagging.wait_for(lambda: len(lagging.trace("t")) == 3 * (events - 1 + 2 * 3))
    sound(lagging)


def test_conversations_beside_each_other_keep_their_order(lagging: Collector, tmp_path: Path) -> None:
    """Several processes, each with a trace of its own."""
    lagging.lag = 0.2
    traces = [f"t{number}" for number in range(3)]
    programs = [begin(lagging, tmp_path, "openai", 1, 3, 2, 0, trace=trace) for trace in traces]
    for program in programs:
        ended(program)
    lagging.wait_for(lambda: len(lagging.stored) == 3 * 3 * 6)
    for trace in traces:
        sound(lagging, trace)


def test_two_processes_in_one_trace_never_share_a_step(lagging: Collector, tmp_path: Path) -> None:
    """Though their order cannot be kept."""
    programs = [
        begin(lagging, tmp_path, "openai", first, first + 4, 3, 0, WHYOPS_HOME=str(tmp_path / str(first)))
        for first in (1, 11)
    ]
    for program in programs:
        ended(program)
    lagging.wait_for(lambda: len(lagging.trace("t")) == 2 * 5 * (2 + 2 * 3))
    steps = [row["stepId"] for row in lagging.trace("t")]

    assert len(set(steps)) == len(steps)


def test_a_request_never_waits_longer_than_its_setting(lagging: Collector, tmp_path: Path) -> None:
    """It says so, once, that the order may be wrong from then on."""
    lagging.lag = 30.0
    with begin(lagging, tmp_path, "openai", 1, 4, 1, 0, WHYOPS_PROXY_WAIT="0.1") as process:
        out, err = process.communicate(timeout=120)
    waits: list[Any] = json.loads(out)

    assert len(waits) == 4
    assert err.count("WHYOPS_PROXY_WAIT") == 1
    assert len([row for row in lagging.trace("t") if row["eventType"].startswith("tool")]) == 8
