"""Many threads, many tasks and many events: each arrives once, and memory does not grow."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, check
from programs import start

from whyops_trace.store import Store

AGENT = Path(__file__).with_name("stress_agent.py")
SOAK_AGENT = Path(__file__).with_name("soak_agent.py")
CONVERSING_AGENT = Path(__file__).with_name("conversing_agent.py")
COUNTING_SERVER = Path(__file__).with_name("counting_server.py")

#: How often each task of the agent makes its five events; its threads make as many together.
ROUNDS = 25
EVENTS = ROUNDS * 200 * 2 * 5

asked_for = pytest.mark.skipif(
    not os.environ.get("WHYOPS_SOAK"),
    reason="takes minutes: run it with `nox -s soak`, or WHYOPS_SOAK=1 pytest -s tests/faults/test_stress.py",
)


@contextlib.contextmanager
def running(*arguments: str | Path, home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Lend a process that does not outlive the block."""
    with start(*arguments, home=home, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def check_rounds(traces: dict[str, list[dict[str, Any]]]) -> None:
    """Check that every trace is sound, and every call of every round is there, in the right one of the others."""
    calls: Counter[str] = Counter()
    for rows in traces.values():
        check(rows)
        by_step = {row["stepId"]: row for row in rows}
        for row in rows:
            within = by_step.get(row["metadata"]["within"])
            if row["eventType"] == "llm_thinking":
                assert within is None
            elif row["eventType"] == "tool_call_response":
                request = by_step[row["parentStepId"]]
                arguments = request["content"]["toolCalls"][0]["arguments"]

                assert row["content"]["toolResults"] == {"result": arguments["n"]}
                calls[f"{request['metadata']['tool']} {arguments['n']}"] += 1
            elif row["metadata"]["tool"].endswith("outer"):
                assert within is not None
                assert within["eventType"] == "llm_thinking"
            else:
                assert within is not None
                outer, inner = (event["content"]["toolCalls"][0]["arguments"] for event in (within, row))

                assert outer == inner
    rounds = [f"task {who} {number}" for who in range(200) for number in range(ROUNDS)]
    threads = [f"thread {who} {number}" for who in range(8) for number in range(ROUNDS * 25)]

    assert calls == Counter(
        [f"{tool} {name}" for tool in ("async_outer", "async_inner") for name in rounds]
        + [f"{tool} {name}" for tool in ("outer", "inner") for name in threads]
    )


def test_threads_and_tasks_that_record_at_once(tmp_path: Path) -> None:
    """50,000 events of 8 threads and 200 tasks arrive once, at the server and in the store, each where it belongs."""
    with Collector() as server:
        urls = {"WHYOPS_ANALYSE_URL": server.url, "WHYOPS_PROXY_URL": server.proxy_url}
        more = {"WHYOPS_API_KEY": "whyops_test", "WHYOPS_AGENT_NAME": "shop", "WHYOPS_STORE": "on", **urls}
        with running(AGENT, str(ROUNDS), home=tmp_path, **more) as process:
            out, err = process.communicate(timeout=110)

    assert (process.returncode, err) == (0, "")

    ledger = json.loads(out)
    whyops, local = ledger["whyops"], ledger["local"]
    at_server = defaultdict(list)
    for row in server.stored:
        at_server[row["traceId"]].append(row)
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        in_store = {
            trace: [row for row in store.events(trace) if row["eventType"] not in ("step_end", "trace_end")]
            for trace in at_server
        }

    assert (whyops["emitted"], whyops["delivered"]) == (EVENTS, EVENTS)
    assert local["emitted"] == local["delivered"] > EVENTS
    assert len({row["metadata"]["idempotencyKey"] for row in server.stored}) == len(server.stored) == EVENTS
    assert sum(map(len, in_store.values())) == EVENTS
    check_rounds(at_server)
    check_rounds(
        {
            trace: [{**row, "parentStepId": row.get("parentStepId")} for row in rows]
            for trace, rows in in_store.items()
        }
    )
    assert list((tmp_path / "journal").rglob("*.seg")) == []


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("events", [20_000, pytest.param(1_000_000, marks=asked_for)])
def test_an_agent_that_records_for_a_long_time(tmp_path: Path, events: int) -> None:
    """Memory is as flat after a million events as after 200,000, and nothing stays on disk."""
    with running(COUNTING_SERVER, home=tmp_path) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        more = {"WHYOPS_API_KEY": "whyops_test", "WHYOPS_ANALYSE_URL": url, "WHYOPS_PROXY_URL": url}
        with running(SOAK_AGENT, str(events), home=tmp_path, **more) as process:
            out, err = process.communicate(timeout=1700)
        counted, complaints = server.communicate(timeout=60)
    figures = json.loads(out)
    distinct, came = counted.split()
    print(figures)

    assert (process.returncode, err) == (0, "")
    assert figures["emitted"] == figures["delivered"] == events
    assert (int(distinct), complaints) == (events, "")
    assert int(came) < events * 1.1  # the first event of a run may come ahead, and again in its turn
    assert figures["journal_most_mb"] < 16
    assert list((tmp_path / "journal").rglob("*.*")) == []
    if events >= 1_000_000:
        assert figures["rss_late_mb"] - figures["rss_early_mb"] < 8


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["ended", "by hand", "endless"])
@pytest.mark.parametrize(("conversations", "most_mb"), [(400, 8), pytest.param(20_000, 16, marks=asked_for)])
def test_conversations_leave_nothing_in_memory(
    tmp_path: Path, conversations: int, most_mb: int, way: str
) -> None:
    """The arguments that models asked for are not kept, 100 KB of them in each; 10,000 numberings are."""
    with running(CONVERSING_AGENT, str(conversations), way, home=tmp_path) as process:
        out, err = process.communicate(timeout=3500)
    figures = json.loads(out)
    print(figures)

    assert (process.returncode, err) == (0, "")
    assert figures["late_mb"] - figures["early_mb"] < most_mb
