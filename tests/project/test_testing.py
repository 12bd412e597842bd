"""The testing kit: what users see of their traced code, with time that stands still."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from whyops_trace import WhyOps, step, trace, traced_tool
from whyops_trace.testing import ManualClock, capture_events


@traced_tool
def leaf(x: int) -> int:
    """Return a number."""
    return x


def test_events_are_as_a_server_gets_them() -> None:
    """Without local records, and without members that no server reads."""
    with capture_events() as events:
        with trace("t"), step("plan"):
            leaf(1)

    assert [event["eventType"] for event in events] == [
        "llm_thinking",
        "tool_call_request",
        "tool_call_response",
    ]
    assert list(events[1]) == [
        "eventType", "traceId", "stepId", "parentStepId", "metadata", "spanId", "timestamp", "idempotencyKey",
        "agentName", "content",
    ]  # fmt: skip
    assert events[1]["content"] == {"toolCalls": [{"name": "leaf", "arguments": {"x": 1}}]}
    assert events[2]["content"] == {"toolCalls": [{"name": "leaf"}], "toolResults": {"result": 1}}


def test_local_records_are_there_on_request() -> None:
    """How steps and traces ended."""
    with capture_events(local=True) as events:
        with trace("t"), step("plan"):
            pass

    assert [event["eventType"] for event in events] == ["llm_thinking", "step_end", "trace_end"]
    assert all("run" in event for event in events)


def test_captures_nest() -> None:
    """The inner one has its own events; afterwards the outer one goes on."""
    with capture_events() as outer:
        leaf(1)
        with capture_events() as inner:
            leaf(2)
        leaf(3)

    assert [event["content"]["toolCalls"][0]["arguments"]["x"] for event in outer[::2]] == [1, 3]
    assert [event["content"]["toolCalls"][0]["arguments"]["x"] for event in inner[::2]] == [2]


def test_events_of_other_threads_and_clients_are_captured(tmp_path: Path) -> None:
    """Of clients made before and during the block."""
    before = WhyOps(agent_name="before", home=tmp_path / "a")
    with capture_events() as events:
        during = WhyOps(agent_name="during", home=tmp_path / "b")
        before.trace("a").error_sync("x")
        thread = threading.Thread(target=lambda: during.trace("b").error_sync("x"))
        thread.start()
        thread.join()

    assert [event["agentName"] for event in events] == ["before", "during"]
    assert before.stats()["local"].emitted == 0


def test_what_is_captured_is_not_delivered() -> None:
    """Events after the block are."""
    sdk = WhyOps()
    with capture_events():
        leaf(1)
    leaf(2)

    assert sdk.flush_sync()["local"].delivered == 2


def test_a_failing_block_ends_the_capture() -> None:
    """The next events go where they went before."""
    sdk = WhyOps()
    with pytest.raises(KeyError):
        with capture_events() as events:
            raise KeyError("x")
    leaf(1)

    assert events == []
    assert sdk.stats()["local"].emitted == 2


def test_a_manual_clock_moves_only_when_told_to() -> None:
    """Timestamps and latencies are what the test says, and time never falls in a trace."""
    clock = ManualClock()
    sdk = WhyOps(clock=clock)

    @traced_tool
    def slow() -> None:
        clock.advance(2)

    with capture_events() as events, sdk.trace("t"):
        slow()
        clock.advance(-60)
        leaf(1)

    assert [event["timestamp"][14:] for event in events] == [
        "00:00.000Z",
        "00:02.000Z",
        "00:02.000Z",
        "00:02.000Z",
    ]
    assert events[1]["metadata"]["latencyMs"] == 2000
