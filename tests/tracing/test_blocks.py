"""``with trace(...)`` and ``with step(...)``: what belongs to which trace, and what their blocks record."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import Recorded, tool

from whyops_trace import InvalidEventError, WhyOps, current_trace, step, trace, traced_tool
from whyops_trace.context import get_scope, set_scope


@traced_tool
def leaf() -> None:
    """Do nothing."""


def test_a_trace_records_what_runs_in_its_block(events: Recorded) -> None:
    """Under its id, and how it ended for the local destinations."""
    with trace("checkout-8841") as checkout:
        leaf()

    assert checkout.id == "checkout-8841"
    assert events.traces == ["checkout-8841"]
    assert events.all_rows == [
        *tool("leaf", {}, {"result": None}),
        ("trace_end", 1, None, 0, None, {}),
    ]
    assert events.records[-1]["end"] is True
    assert get_scope() is None


def test_a_trace_without_an_id_gets_one() -> None:
    """Thirty-two hexadecimal digits, each its own."""
    first, second = trace(), trace()

    assert first.id != second.id
    assert len(first.id) == 32
    assert int(first.id, 16)


def test_an_empty_block_records_nothing(events: Recorded) -> None:
    """There is no trace without an event."""
    with trace("empty"):
        pass

    assert events.records == []


@pytest.mark.anyio
async def test_trace_and_step_work_under_async_with(events: Recorded) -> None:
    """As under ``with``."""
    async with trace("t") as outer:
        async with step("plan", input=[1]) as plan:
            leaf()
            plan.set_output({"ok": True})

    assert outer.id == "t"
    assert plan.step_id == 1
    assert events.all_rows == [
        ("llm_thinking", 1, None, 0, "plan", {"type": "thinking", "thinking": "plan"}, {"input": [1]}),
        ("tool_call_request", 2, 1, 1, "leaf", {}),
        ("tool_call_response", 3, 2, 2, "leaf", {"result": None}),
        ("step_end", 1, None, 0, "plan", {"output": {"ok": True}}),
        ("trace_end", 1, None, 0, None, {}),
    ]


def test_a_trace_without_an_id_joins_the_open_one_as_a_step(events: Recorded) -> None:
    """A workflow may call another one."""
    with trace("outer") as outer:
        leaf()
        with trace() as inner:
            leaf()
        leaf()

    assert inner.id == outer.id
    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "leaf"),
        ("tool_call_response", 2, 1, 1, "leaf"),
        ("llm_thinking", 3, 2, 0, "trace"),
        ("tool_call_request", 4, 3, 3, "leaf"),
        ("tool_call_response", 5, 4, 4, "leaf"),
        ("tool_call_request", 6, 3, 0, "leaf"),
        ("tool_call_response", 7, 6, 6, "leaf"),
    ]


def test_a_joined_trace_is_the_same_one_wherever_it_is_entered(events: Recorded) -> None:
    """After the block, and inside another trace."""
    with trace("outer"):
        joined = trace()
    with joined:
        leaf()
    with trace("other"), joined:
        leaf()

    assert joined.id == "outer"
    assert [row[:5] for row in events.of("outer")] == [
        ("tool_call_request", 1, None, 0, "leaf"),
        ("tool_call_response", 2, 1, 1, "leaf"),
        ("tool_call_request", 3, 2, 0, "leaf"),
        ("tool_call_response", 4, 3, 3, "leaf"),
    ]
    assert events.of("other") == []


def test_another_id_inside_is_a_trace_of_its_own(events: Recorded) -> None:
    """The outer one is back on exit and goes on where it was."""
    with trace("outer"):
        leaf()
        with trace("inner"):
            leaf()
        leaf()

    leaf_after = tool("leaf", {}, {"result": None}, step=3, parent=2)

    assert events.of("inner") == tool("leaf", {}, {"result": None})
    assert events.of("outer") == [*tool("leaf", {}, {"result": None}), *leaf_after]


def test_the_same_id_inside_goes_on_with_the_trace(events: Recorded) -> None:
    """There is one trace, and it ends once."""
    with trace("same"):
        leaf()
        with trace("same"):
            leaf()
        leaf()

    assert [row[:4] for row in events.all_rows] == [
        ("tool_call_request", 1, None, 0),
        ("tool_call_response", 2, 1, 1),
        ("tool_call_request", 3, 2, 0),
        ("tool_call_response", 4, 3, 3),
        ("tool_call_request", 5, 4, 0),
        ("tool_call_response", 6, 5, 5),
        ("trace_end", 1, None, 0),
    ]


def test_the_same_id_inside_a_call_stays_nested_in_it(events: Recorded) -> None:
    """The block changes nothing there."""

    @traced_tool
    def outer() -> None:
        with trace("same"):
            leaf()

    with trace("same"):
        outer()

    assert events.wheres()[1] == ("tool_call_request", 2, 1, 1, "leaf")


def test_a_trace_that_comes_back_goes_on(events: Recorded) -> None:
    """The next turn of a conversation follows the last event of the one before."""
    for _ in range(2):
        with trace("conversation"):
            leaf()

    assert events.rows == [
        *tool("leaf", {}, {"result": None}),
        *tool("leaf", {}, {"result": None}, step=3, parent=2),
    ]
    assert len({record["run"] for record in events.records}) == 1


def test_a_handle_can_be_entered_again(events: Recorded) -> None:
    """One after the other, and inside itself."""
    handle = trace("again")
    with handle:
        leaf()
    with handle, handle:
        leaf()

    assert get_scope() is None
    assert [row[:4] for row in events.all_rows] == [
        ("tool_call_request", 1, None, 0),
        ("tool_call_response", 2, 1, 1),
        ("trace_end", 1, None, 0),
        ("tool_call_request", 3, 2, 0),
        ("tool_call_response", 4, 3, 3),
        ("trace_end", 1, None, 0),
    ]


def test_an_exception_passes_through_blocks_and_is_told(events: Recorded) -> None:
    """The same object, with no frame of ours."""
    error = ValueError("bad")

    with pytest.raises(ValueError, match="bad") as caught:
        with trace("t"), step("plan") as plan:
            plan.set_output("half")
            raise error

    told = {"error": {"type": "ValueError", "message": "bad"}}

    assert caught.value is error
    assert get_scope() is None
    assert events.all_rows[1:] == [
        ("step_end", 1, None, 0, "plan", {"output": "half", **told}, {"outcome": "error"}),
        ("trace_end", 1, None, 0, None, told, {"outcome": "error"}),
    ]


def test_a_cancelled_block_says_so(events: Recorded) -> None:
    """It is no failure."""

    async def main() -> None:
        async with trace("t"), step("wait"):
            await asyncio.Event().wait()

    async def cancel() -> None:
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    assert [row[5:] for row in events.all_rows[1:]] == [({}, {"outcome": "cancelled"})] * 2


def test_a_block_can_be_left_in_another_context(events: Recorded) -> None:
    """As pytest fixtures and some frameworks do."""
    outer, inner = trace("t"), step("plan")
    outer.__enter__()
    inner.__enter__()
    elsewhere = contextvars.Context()
    elsewhere.run(inner.__exit__, None, None, None)
    elsewhere.run(outer.__exit__, None, None, None)

    assert elsewhere.run(get_scope) is None
    assert [row[0] for row in events.all_rows] == ["llm_thinking", "step_end", "trace_end"]
    set_scope(None)


@pytest.mark.parametrize("make", [lambda: trace("t"), lambda: step("s")])
def test_leaving_what_was_not_entered_does_nothing(events: Recorded, make: Callable[[], Any]) -> None:
    """No error of ours reaches the program."""
    make().__exit__(None, None, None)

    assert events.records == []
    assert get_scope() is None


def test_events_after_the_block_are_recorded(events: Recorded) -> None:
    """They chain on the handle, from the last event of the block."""
    with trace("t") as handle:
        leaf()
    handle.user_message_sync([{"role": "user", "content": "late"}])
    handle.error_sync("later")

    assert [row[:4] for row in events.rows[2:]] == [("user_message", 3, 2, 0), ("error", 4, 3, 0)]


def test_decorated_calls_record_to_the_client_whose_trace_is_open(tmp_path: Path, events: Recorded) -> None:
    """Two clients in one process never mix."""
    first = WhyOps(agent_name="first", home=tmp_path / "a")
    second = WhyOps(agent_name="second", home=tmp_path / "b")

    @traced_tool
    def outer() -> None:
        with step("plan"):
            leaf()
        with trace("module level"):
            leaf()

    with first.trace("one"):
        with second.trace("two"):
            outer()
        leaf()
    leaf()
    with second.step("alone"):
        leaf()

    agents = {record["traceId"]: record["agentName"] for record in events.records}

    assert agents["one"] == "first"
    assert agents["two"] == "second"
    assert agents["module level"] == "second"
    assert [agents[trace_id] for trace_id in events.traces[3:]] == ["first", "second"]
    assert all(agents[record["traceId"]] == record["agentName"] for record in events.records)
    assert len(events.of("two")) == 5
    assert len(events.of("one")) == 2


def test_a_trace_without_an_id_does_not_join_another_clients(tmp_path: Path, events: Recorded) -> None:
    """It is a trace of its own client."""
    first = WhyOps(agent_name="first", home=tmp_path / "a")
    second = WhyOps(agent_name="second", home=tmp_path / "b")

    with first.trace("one"), second.trace() as two:
        leaf()

    assert two.id != "one"
    assert [(record["agentName"], record["traceId"]) for record in events.records] == [("second", two.id)] * 3


def test_equal_ids_of_two_clients_are_two_traces(tmp_path: Path, events: Recorded) -> None:
    """Each counts its own steps."""
    clients = [WhyOps(agent_name=name, home=tmp_path / name) for name in ("first", "second")]
    for client in clients:
        with client.trace("same"):
            leaf()
    events.checked = False

    assert [(record["agentName"], record["stepId"]) for record in events.records] == [
        ("first", 1), ("first", 2), ("first", 1), ("second", 1), ("second", 2), ("second", 1),
    ]  # fmt: skip


def test_the_first_client_made_is_the_default_one(events: Recorded) -> None:
    """Module-level traces, steps and calls outside any trace use it."""
    WhyOps(agent_name="first")
    WhyOps(agent_name="second")
    leaf()
    with step("plan"):
        pass
    trace("t").error_sync("x")

    assert {record["agentName"] for record in events.records} == {"first"}


def test_current_trace_is_the_open_one(events: Recorded) -> None:
    """Something deep inside can record on it without being handed it."""
    assert current_trace() is None
    with trace("t") as handle, step("plan"):
        here = current_trace()
        assert here is not None
        here.error_sync("noted")
        with here:
            leaf()
    assert current_trace() is None

    assert here.id == handle.id
    assert events.wheres()[1:] == [
        ("error", 2, 1, 1, None),
        ("tool_call_request", 3, 1, 1, "leaf"),
        ("tool_call_response", 4, 3, 3, "leaf"),
    ]


def test_metadata_tags_and_user_of_a_trace_are_recorded(events: Recorded) -> None:
    """Metadata and tags with its first event, the user with every one."""
    with trace("t", external_user_id="u1", metadata={"tenant": "acme"}, tags=["vip"]):
        leaf()

    about = {"metadata": {"tenant": "acme"}, "tags": ["vip"]}

    assert [row[6:] for row in events.rows] == [
        ({"trace": about, "externalUserId": "u1"},),
        ({"externalUserId": "u1"},),
    ]


WRONG_TRACES = [
    ({"trace_id": ""}, "trace_id is ''; it must be text of 1 to 128 characters"),
    ({"trace_id": "x" * 129}, "trace_id has 129 characters"),
    ({"trace_id": 5}, "trace_id is 5"),
    ({"external_user_id": "u" * 256}, "external_user_id has 256 characters"),
    ({"metadata": 5}, "metadata is int 5"),
    ({"metadata": {1: 2}}, "a metadata key is int 1"),
    ({"tags": [1]}, "tags are"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG_TRACES)
def test_a_trace_refuses_what_cannot_be_recorded(
    events: Recorded, arguments: dict[str, Any], text: str
) -> None:
    """At the call, saying what it takes."""
    with pytest.raises(InvalidEventError, match=text):
        trace(**arguments)

    assert events.records == []


def test_a_trace_opened_again_inside_another_goes_on_and_ends_once(events: Recorded) -> None:
    """The inner block continues after the event before it, and only the last block to close ends the trace."""
    with trace("x"):
        leaf()
        with trace("y"):
            leaf()
            with trace("x"):
                leaf()
        leaf()
    x = [
        (record["eventType"], record["stepId"], record.get("parentStepId"))
        for record in events.records
        if record["traceId"] == "x"
    ]

    assert x == [
        ("tool_call_request", 1, None), ("tool_call_response", 2, 1),
        ("tool_call_request", 3, 2), ("tool_call_response", 4, 3),
        ("tool_call_request", 5, 2), ("tool_call_response", 6, 5),
        ("trace_end", 1, None),
    ]  # fmt: skip
