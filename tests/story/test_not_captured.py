"""Runs whose contents were not captured: what is not known is not told."""

from __future__ import annotations

from typing import Any

from tales import Agent, called

from whyops_trace.analysis import findings
from whyops_trace.story import Story


def call(agent: Agent, *, error: str = "") -> None:
    """Record a call of a tool whose arguments and result were not captured."""
    agent.tool("get_weather", {}, {}, error=("ToolError", error) if error else None)
    for event in agent.events[-2:]:
        if event["eventType"].startswith("tool_call") and "outcome" not in event["metadata"]:
            event["metadata"]["captured"] = False
    request = next(event for event in reversed(agent.events) if event["eventType"] == "tool_call_request")
    request["metadata"]["captured"] = False


def turn(agent: Agent, finish: str) -> None:
    """Record a turn of which only the end is known."""
    request: dict[str, Any] = {"captured": False}
    step = agent.request(**request)
    agent.answer(step, finish=finish, captured=False)


def lines(story: Story) -> list[str]:
    """Return the lines of a story."""
    return [line.text for line in story.whys]


def test_calls_whose_arguments_are_not_known_are_no_loop_and_no_retry() -> None:
    """They may have been any calls of that tool."""
    agent = Agent()
    for error in ("", "no such city", "", ""):
        turn(agent, "tool_calls")
        call(agent, error=error)
    turn(agent, "stop")
    agent.end()

    story = agent.story()

    assert lines(story) == ["turn 2: get_weather(…) failed: ToolError: no such city"]
    assert story.status == "ended in a turn whose answer was not captured: 1 call failed, not recovered"
    assert findings(agent.events) == []


def test_a_run_whose_results_are_not_known_is_not_told_to_be_without_failures() -> None:
    """A failure may be in what was not captured."""
    agent = Agent()
    turn(agent, "tool_calls")
    call(agent)
    turn(agent, "stop")
    agent.end()

    assert agent.story().status == (
        "ended in a turn whose answer was not captured: no call raised, and not all results were captured"
    )


def test_a_run_that_ends_with_a_request_for_a_tool_is_not_answered() -> None:
    """Though it said something beside the request, no record tells that the tool ran."""
    agent = Agent()
    agent.turn(
        [{"role": "user", "content": "How is the weather?"}], "I look.", called("get_weather", city="Riga")
    )
    agent.end()

    story = agent.story()

    assert story.status == "ended with a request for get_weather: no failures"
    assert lines(story) == ['turn 1 asked for get_weather({"city": "Riga"}), and no record tells that it ran']
