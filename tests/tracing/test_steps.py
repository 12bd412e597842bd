"""``with step(...)``: what is nested in it, what it came to, and that it can be entered anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import InvalidEventError, WhyOps, step, trace, traced_tool
from whyops_trace.context import get_scope
from whyops_trace.testing import ManualClock


@traced_tool
def leaf() -> None:
    """Do nothing."""


def test_a_step_can_be_entered_again(events: Recorded) -> None:
    """One after the other, and inside itself; each time is a step of its own."""
    plan = step("plan")
    with trace():
        with plan:
            leaf()
        with plan:
            plan.set_output("outer")
            with plan:
                leaf()
                plan.set_output("inner")
            leaf()

    assert get_scope() is None
    assert [(row[:4], row[5]) for row in events.all_rows if row[4] == "plan"] == [
        (("llm_thinking", 1, None, 0), {"type": "thinking", "thinking": "plan"}),
        (("step_end", 1, None, 0), {}),
        (("llm_thinking", 4, 1, 0), {"type": "thinking", "thinking": "plan"}),
        (("llm_thinking", 5, 4, 4), {"type": "thinking", "thinking": "plan"}),
        (("step_end", 5, 4, 4), {"output": "inner"}),
        (("step_end", 4, 1, 0), {"output": "outer"}),
    ]


def test_steps_nest(events: Recorded) -> None:
    """A step's end repeats where it stood; the event after it follows it."""
    with trace():
        with step("outer"):
            with step("first"):
                leaf()
            with step("second"):
                pass
        leaf()

    assert [row[:5] for row in events.all_rows[:-1]] == [
        ("llm_thinking", 1, None, 0, "outer"),
        ("llm_thinking", 2, 1, 1, "first"),
        ("tool_call_request", 3, 2, 2, "leaf"),
        ("tool_call_response", 4, 3, 3, "leaf"),
        ("step_end", 2, 1, 1, "first"),
        ("llm_thinking", 5, 1, 1, "second"),
        ("step_end", 5, 1, 1, "second"),
        ("step_end", 1, None, 0, "outer"),
        ("tool_call_request", 6, 1, 0, "leaf"),
        ("tool_call_response", 7, 6, 6, "leaf"),
    ]


def test_a_step_outside_any_trace_makes_one(events: Recorded) -> None:
    """What runs inside belongs to it, and its end is the trace's."""
    with step("alone", metadata={"owner": "ada"}):
        leaf()

    assert len(events.traces) == 1
    assert events.all_rows == [
        ("llm_thinking", 1, None, 0, "alone", {"type": "thinking", "thinking": "alone"}, {"owner": "ada"}),
        ("tool_call_request", 2, 1, 1, "leaf", {}),
        ("tool_call_response", 3, 2, 2, "leaf", {"result": None}),
        ("step_end", 1, None, 0, "alone", {}),
    ]
    assert [record.get("end") for record in events.records] == [None, None, None, True]


def test_input_and_output_of_a_step_are_encoded_at_once(events: Recorded) -> None:
    """A later mutation changes nothing; the last output counts; secrets are taken out."""
    seen: dict[str, Any] = {"api_key": "k", "n": 1}
    with trace(), step("plan", input=seen) as plan:
        seen["n"] = 2
        plan.set_output("first")
        plan.set_output(seen)
        seen["n"] = 3

    assert events.rows[0][6] == {"input": {"api_key": "[redacted]", "n": 1}}
    assert events.all_rows[1][5] == {"output": {"api_key": "[redacted]", "n": 2}}


def test_an_output_outside_the_block_is_nobodys(events: Recorded) -> None:
    """Neither before it nor after it."""
    plan = step("plan")
    plan.set_output(1)
    with trace(), plan:
        pass
    plan.set_output(2)

    assert [row[5] for row in events.all_rows if row[0] == "step_end"] == [{}]


WRONG_STEPS = [
    ({"name": ""}, "name is ''"),
    ({"name": 5}, "name is 5"),
    ({"name": "x" * 256}, "name has 256 characters"),
    ({"name": "x", "metadata": {"within": 1}}, "within"),
    ({"name": "x", "metadata": {"step": "y"}}, "step"),
    ({"name": "x", "metadata": {"input": "y"}}, "input"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG_STEPS)
def test_a_step_refuses_what_cannot_be_recorded(arguments: dict[str, Any], text: str) -> None:
    """At the call, saying what it takes."""
    with pytest.raises(InvalidEventError, match=text):
        step(**arguments)


def test_the_record_of_a_step_and_its_end(tmp_path: Path, events: Recorded) -> None:
    """Word for word, with a clock that is moved by hand."""
    clock = ManualClock()
    sdk = WhyOps(agent_name="shop", home=tmp_path, clock=clock)

    with sdk.trace("t"):
        with sdk.step("plan"):
            clock.advance(1.5)

    first, end, last = events.records
    key, number = first["idempotencyKey"].rsplit("-", 1)

    assert number == "1"
    assert json.dumps(first) == json.dumps(
        {
            "eventType": "llm_thinking",
            "traceId": "t",
            "run": f"{key}-1",
            "stepId": 1,
            "metadata": {"within": 0, "step": "plan"},
            "spanId": "span_0",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "idempotencyKey": f"{key}-1",
            "agentName": "shop",
            "content": {"type": "thinking", "thinking": "plan"},
        }
    )
    assert end["metadata"] == {
        "within": 0, "step": "plan", "startedAt": "2026-01-01T00:00:00.000Z", "latencyMs": 1500,
    }  # fmt: skip
    assert (end["stepId"], end["timestamp"]) == (1, "2026-01-01T00:00:01.500Z")
    assert last["metadata"] == {"within": 0, "latencyMs": 1500}
    assert list(last)[-2:] == ["content", "end"]
