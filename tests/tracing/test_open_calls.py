"""Calls and steps that begin in one place and end in another, as callbacks of a framework tell of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from provider import Provider
from recorded import Recorded

from whyops_trace import InvalidEventError, MessageItem, WhyOps, step, trace, traced_tool
from whyops_trace.context import UNSETTLED
from whyops_trace.open_calls import OpenCall
from whyops_trace.store import Store
from whyops_trace.testing import ManualClock, capture_events
from whyops_trace.tree import build, render

MESSAGES: list[MessageItem] = [{"role": "user", "content": "Where is parcel 7?"}]
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "track", "arguments": '{"parcel": 7}'},
                    }
                ],
            },
        }
    ],
    "usage": {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38},
}


@traced_tool
def look(place: str) -> str:
    """Look somewhere."""
    return place


def metadata(events: Recorded, kind: str) -> list[dict[str, Any]]:
    """Return the metadata of the records of a type."""
    return [record["metadata"] for record in events.records if record["eventType"] == kind]


def steps(events: Recorded) -> list[tuple[str, int, int, int]]:
    """Return type, step, parent and enclosing step of each record that a server sees."""
    return [
        (one["eventType"], one["stepId"], one.get("parentStepId", 0), one["metadata"]["within"])
        for one in events.records
        if one["eventType"] not in ("step_end", "trace_end")
    ]


def test_a_run_of_an_agent_told_by_callbacks_is_a_tree(tmp_path: Path) -> None:
    """Steps, turns and tools stand where they were said to stand, with what each knew."""
    with WhyOps(agent_name="shop", home=tmp_path) as sdk:
        run = sdk.trace("t")
        agent = run.start_step("Clerk", kind="agent", input="Where is parcel 7?")
        turn = run.start_llm_call("gpt-4o", "openai", MESSAGES, parent=agent, request={"temperature": 0})
        turn.end(ANSWER)
        tool = run.start_tool_call("track", {"parcel": 7}, call_id="c1", parent=agent)
        tool.end({"place": "Bonn"})
        run.start_step("Writer", kind="handoff", parent=agent).end()
        agent.end("It is in Bonn.")
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        tree = build(store.events("t"))

    (top,) = tree.nodes
    assert (top.kind, top.name, top.arguments, top.result) == (
        "step",
        "agent Clerk",
        '"Where is parcel 7?"',
        '"It is in Bonn."',
    )
    asked, tracked, passed = top.children
    assert (asked.kind, asked.model, asked.calls) == ("llm", "gpt-4o-2024-08-06", "track")
    assert asked.tokens is not None
    assert (asked.tokens.prompt, asked.tokens.completion) == (30, 8)
    assert (tracked.name, tracked.arguments, tracked.result) == ("track", "parcel=7", '{"place": "Bonn"}')
    assert tracked.asked_by is asked
    assert (passed.kind, passed.name) == ("step", "handoff Writer")
    assert (tree.running, tree.errors) == (0, 0)
    assert "agent Clerk" in render(tree, width=80)


def test_a_request_has_all_that_is_known_before_it_runs(events: Recorded) -> None:
    """If the process dies in the call, its arguments are there."""
    with trace("t") as run:
        run.start_tool_call("track", {"parcel": 7}, call_id="c1", metadata={"try": 1})
        run.start_llm_call(
            "m", "p", MESSAGES, name="planner", request={"tools": [{"name": "track"}], "seed": 1}
        )

    (tool,) = metadata(events, "tool_call_request")
    assert (tool["tool"], tool["callId"], tool["try"]) == ("track", "c1", 1)
    (turn,) = metadata(events, "user_message")
    assert (turn["function"], turn["tools"], turn["params"]) == ("planner", [{"name": "track"}], {"seed": 1})
    assert [one["content"] for one in events.records if one["eventType"] == "tool_call_request"] == [
        {"toolCalls": [{"name": "track", "arguments": {"parcel": 7}}]}
    ]


def test_a_call_belongs_where_the_code_stands_unless_told(events: Recorded) -> None:
    """At the top a call follows the event before it; in a step it follows from the step."""
    with trace("t") as run:
        look("a")
        run.start_tool_call("b").end()
        with step("inside") as inside:
            call = run.start_tool_call("c")
            run.start_tool_call("d", parent=call).end()
            run.start_tool_call("e", parent=inside).end()
            call.end()
        look("f")

    assert steps(events) == [
        ("tool_call_request", 1, 0, 0),
        ("tool_call_response", 2, 1, 1),
        ("tool_call_request", 3, 2, 0),
        ("tool_call_response", 4, 3, 3),
        ("llm_thinking", 5, 4, 0),
        ("tool_call_request", 6, 5, 5),
        ("tool_call_request", 7, 6, 6),
        ("tool_call_response", 8, 7, 7),
        ("tool_call_request", 9, 5, 5),
        ("tool_call_response", 10, 9, 9),
        ("tool_call_response", 11, 6, 6),
        ("tool_call_request", 12, 5, 0),
        ("tool_call_response", 13, 12, 12),
    ]


def test_outside_the_block_of_its_trace_a_call_follows_what_was_recorded_before(events: Recorded) -> None:
    """As events by hand do, and those follow from its end."""
    run = trace("t")
    run.user_message_sync(MESSAGES)
    call = run.start_tool_call("a")
    other = run.start_step("b")
    call.end(1)
    other.end()
    run.llm_thinking_sync("done")

    assert steps(events) == [
        ("user_message", 1, 0, 0),
        ("tool_call_request", 2, 1, 0),
        ("llm_thinking", 3, 1, 0),
        ("tool_call_response", 4, 2, 2),
        ("llm_thinking", 5, 3, 0),
    ]


def test_the_end_of_a_call_changes_nothing_where_it_comes(events: Recorded) -> None:
    """A callback may run in any block, of this trace or of another."""
    run = trace("t")
    agent = run.start_step("agent")
    with run:
        call = run.start_tool_call("a", parent=agent)
        look("first")
        with trace("other"):
            call.end(1)
            look("second")
        look("third")

    places = {
        record["content"]["toolCalls"][0].get("arguments", {}).get("place"): record
        for record in events.records
        if record["eventType"] == "tool_call_request"
    }
    assert {place: places[place]["traceId"] for place in ("first", "second", "third")} == {
        "first": "t",
        "second": "other",
        "third": "t",
    }
    assert "parentStepId" not in places["second"]
    assert places["third"]["parentStepId"] == places["first"]["stepId"] + 1  # its response


def test_code_may_run_in_an_open_call(events: Recorded) -> None:
    """What it calls is nested in it; afterwards the code stands where it stood."""
    with trace("t") as run:
        call = run.start_tool_call("a")
        with call.current(), step("s"):
            look("inside")
        look("outside")
        call.end()

    within = {row[4]: row[3] for row in events.rows if row[0] == "tool_call_request"}
    inside, outside = metadata(events, "tool_call_request")[1:]
    assert within["a"] == 0
    assert inside["within"] == 2
    assert outside["within"] == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad"), {"error": {"type": "ValueError", "message": "bad"}}),
        ("out of order", {"error": {"message": "out of order"}}),
        (asyncio.CancelledError(), {"cancelled": True}),
    ],
)
def test_a_tool_ends_with_its_failure(events: Recorded, error: Any, expected: dict[str, Any]) -> None:
    """An exception, words, or what is no failure."""
    with trace("t") as run:
        run.start_tool_call("a").end(error=error)

    (response,) = (one for one in events.records if one["eventType"] == "tool_call_response")
    assert response["content"]["toolResults"] == expected
    assert response["metadata"]["outcome"] == ("cancelled" if "cancelled" in expected else "error")
    errors = [one["content"] for one in events.records if one["eventType"] == "error"]
    assert errors == ([expected["error"]] if "error" in expected else [])


def test_a_turn_and_a_step_end_with_their_failures(events: Recorded) -> None:
    """In words, as a callback may know no more."""
    with trace("t") as run:
        run.start_llm_call("m", "p", MESSAGES).end(error="overloaded")
        run.start_step("s").end("half", error="broke off")

    (error,) = (one["content"] for one in events.records if one["eventType"] == "error")
    assert error["message"] == "overloaded"
    (end,) = (one["content"] for one in events.records if one["eventType"] == "step_end")
    assert end == {"output": "half", "error": {"message": "broke off"}}


def test_only_the_first_end_counts(events: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """A framework that tells of an end twice is named."""
    with trace("t") as run:
        call = run.start_tool_call("a")
        call.end(1)
        call.end(2)

    results = [
        one["content"]["toolResults"] for one in events.records if one["eventType"] == "tool_call_response"
    ]
    assert results == [{"result": 1}]
    assert "only its first end counts" in caplog.text


def test_any_thread_may_begin_and_end_calls(events: Recorded) -> None:
    """They are nested as they were told to be."""
    run = trace("t")
    agent = run.start_step("agent", kind="agent")
    begun: list[OpenCall] = []

    def begin(number: int) -> None:
        begun.append(run.start_tool_call("work", {"number": number}, parent=agent))

    for target in [
        *(lambda n=n: begin(n) for n in range(8)),
        *(lambda n=n: begun[n].end(n) for n in range(8)),
    ]:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    agent.end()

    rows = [row for row in events.rows if row[0].startswith("tool_call")]
    assert [row[3] for row in rows[:8]] == [agent.step_id] * 8
    assert len(rows) == 16


@pytest.mark.parametrize(
    "begin",
    [
        lambda run, other: run.start_step("a", parent=other),
        lambda run, _: run.start_step(""),
        lambda run, _: run.start_step("a", kind="team"),
        lambda run, _: run.start_step("a", metadata={"latencyMs": 1}),
        lambda run, _: run.start_tool_call(7),
        lambda run, _: run.start_tool_call("a", ["x"]),
        lambda run, _: run.start_tool_call("a", call_id="c" * 256),
        lambda run, _: run.start_llm_call("", "p", []),
        lambda run, _: run.start_llm_call("m", "p", [], request="x"),
        lambda run, _: run.start_llm_call("m", "p", [], name=""),
        lambda run, _: run.start_step("a", parent=step("never entered")),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(events: Recorded, begin: Callable[..., Any]) -> None:
    """Nothing of it is recorded."""
    other = trace("other").start_step("other")
    count = len(events.records)
    with pytest.raises(InvalidEventError):
        begin(trace("t"), other)

    assert len(events.records) == count


def test_with_tracing_off_an_open_call_does_nothing(tmp_path: Path) -> None:
    """It has no step, and its code runs."""
    with WhyOps(agent_name="x", home=tmp_path, tracing="off") as sdk:
        run = sdk.trace("t")
        call = run.start_tool_call("a", {"n": 1})
        child = run.start_step("b", parent=call)
        with child.current():
            assert look("here") == "here"
        child.end()
        call.end(error="no")

        assert (call.step_id, child.step_id) == (0, 0)
    assert not (tmp_path / "journal").exists()


def test_secrets_of_an_open_call_are_hidden(events: Recorded) -> None:
    """In its name, its arguments, its result and its error."""
    token = "sk-" + "ant-" + "a1B2" * 12
    with trace("t") as run:
        run.start_tool_call(f"a {token}", {"password": "hunter2", "text": token}).end({"text": token})
        run.start_step("b", input=token, metadata={"api_key": "hunter2"}).end(token, error=f"no {token}")

    assert not [one for one in events.records if token in str(one) or "hunter2" in str(one)]


def test_a_traced_client_in_an_open_call_of_a_model_makes_one_turn(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call of the framework wraps it, and its tokens are not counted twice."""
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    provider.say("Bonn.")
    with WhyOps(agent_name="x", home=tmp_path) as sdk:
        client = sdk.openai(openai.OpenAI())
        run = sdk.trace("t")
        call = run.start_llm_call("gpt-4o", "openai", MESSAGES, name="ChatOpenAI")
        with call.current():
            answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)  # type: ignore[arg-type]
        call.end(answer)
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        summary, tree = store.trace("t"), build(store.events("t"))

    assert summary.llm_responses == tree.llm_responses == 1
    assert answer.usage is not None
    assert tree.tokens.total == answer.usage.total_tokens


def test_a_call_that_is_entered_has_inside_what_the_code_calls_next(events: Recorded) -> None:
    """Until it is left or ends, and calls in it may be entered as well."""
    with trace("t") as run:
        agent = run.start_step("agent")
        agent.enter()
        tool = run.start_tool_call("a")
        tool.enter()
        look("in the tool")
        tool.end()
        look("in the agent")
        agent.leave()
        look("outside")
        agent.end()
        agent.enter()  # it is over
        look("after")

    assert [(row[5]["place"], row[3]) for row in events.rows if row[0] == "tool_call_request" and row[5]] == [
        ("in the tool", 2),
        ("in the agent", 1),
        ("outside", 0),
        ("after", 0),
    ]


def test_calls_that_were_entered_in_turn_may_end_in_any_order(events: Recorded) -> None:
    """As those of a batch do, of which a framework tells before it runs the first."""
    with trace("t") as run:
        first, second = run.start_step("first"), run.start_step("second")
        first.enter()
        second.enter()
        first.end()
        look("in the second")
        second.end()
        look("outside")

    assert [row[3] for row in events.rows if row[0] == "tool_call_request"] == [2, 0]


def test_a_call_may_end_in_another_task_than_the_one_that_entered_it(events: Recorded) -> None:
    """The code there is no longer inside, nor is a task that it starts."""

    async def main() -> None:
        async def finish() -> None:
            call.end()
            look("in the task")

        with trace("t") as run:
            call = run.start_tool_call("a")
            call.enter()
            await asyncio.create_task(finish())
            look("outside")
            await asyncio.to_thread(look, "in a thread")

    asyncio.run(main())
    within = {row[5]["place"]: row[3] for row in events.rows if row[0] == "tool_call_request" and row[5]}

    assert within == {"in the task": 0, "outside": 0, "in a thread": 0}
    assert UNSETTLED == {}


def test_the_first_output_of_a_stream_is_timed_once(tmp_path: Path) -> None:
    """From the begin of the call; what is no call of a model has none."""
    clock = ManualClock()
    with capture_events() as events, WhyOps(agent_name="x", home=tmp_path, clock=clock) as sdk:
        run = sdk.trace("t")
        turn, tool = run.start_llm_call("m", "p", MESSAGES), run.start_tool_call("a")
        for _ in range(2):
            clock.advance(0.25)
            turn.note_output()
            tool.note_output()
        turn.end("Hello")
        tool.end()

    (answer,) = (one["metadata"] for one in events if one["eventType"] == "llm_response")
    assert (answer["timeToFirstTokenMs"], answer["latencyMs"]) == (250, 500)


@pytest.mark.parametrize("kind", ["step", "tool", "turn"])
def test_a_trace_may_end_with_a_call(tmp_path: Path, kind: str) -> None:
    """If the call is all there is of it."""
    with capture_events(local=True) as events, WhyOps(agent_name="x", home=tmp_path) as sdk:
        run = sdk.trace("t")
        call = {
            "step": lambda: run.start_step("s"),
            "tool": lambda: run.start_tool_call("a"),
            "turn": lambda: run.start_llm_call("m", "p", MESSAGES),
        }[kind]()
        call.ends_trace = True
        call.end("done")

    assert [one.get("end", False) for one in events] == [False, True]
