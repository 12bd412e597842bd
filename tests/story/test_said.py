"""Calls that did not raise, but whose results say that they failed: how a story tells of them."""

from __future__ import annotations

import json

from lines import Process
from tales import USER, Agent, called, result

from whyops_trace.story import tell
from whyops_trace.tree import build, render


def test_a_call_that_says_that_it_failed_is_told_like_one_that_raised() -> None:
    """With its words, how it was tried again and what changed, and whether that went well."""
    agent, messages = Agent(), [USER]
    for number, (card, said) in enumerate([(5, "Error: not enough money"), (9, "paid")]):
        call = called("pay", number, card=card)
        answer = agent.turn(messages, None, call)
        agent.tool("pay", {"card": card}, said, asked_by=answer)
        messages.append(result(call, said))
    agent.turn(messages, "Paid.")
    story = agent.story()

    assert story.status == "answered: 1 call said that it failed, recovered"
    assert (story.failed, story.said_failed, story.tree.errors, story.tree.said_failed) == (1, 1, 0, 1)
    assert [(why.kind, why.text, why.then) for why in story.whys] == [
        (
            "retried",
            "turn 1: pay(card=5) said that it failed: Error: not enough money",
            "turn 2 tried again with card=9 (was 5): ok",
        )
    ]


def test_a_call_that_keeps_saying_the_same_is_told_once() -> None:
    """The first one stands for its retries."""
    agent, messages = Agent(), [USER]
    for number in range(2):
        call = called("pay", number, card=number)
        answer = agent.turn(messages, None, call)
        agent.tool("pay", {"card": number}, {"success": False, "message": "no"}, asked_by=answer)
        messages.append(result(call, "no"))
    agent.turn(messages, "I give up.")
    (why,) = agent.story().whys

    assert why.text == "turn 1: pay(card=0) said that it failed: no"
    assert why.then == "turn 2 tried again with card=1 (was 0): said the same again"
    assert why.bad


def test_failures_of_both_kinds_are_counted_apart() -> None:
    """The outcome says how many only said so."""
    agent = Agent()
    agent.turn([USER], "Let me see.")
    agent.tool("look", {}, error=("OSError", "no"))
    agent.tool("find", {}, "Error: no such order")
    agent.tool("list", {}, [])
    agent.turn([USER, {"role": "user", "content": "And?"}], "Nothing.")
    story = agent.story()

    assert story.status == "answered: 2 calls failed, 1 only said so, none recovered"
    assert [use.node.is_empty for section in story.sections for use in section.uses] == [False, False, True]


def test_a_tool_around_another_one_that_says_the_same_only_passes_it_on() -> None:
    """It is one failure to read about, though both calls are counted."""
    agent = Agent()
    outer = agent.begin_tool("outer", {})
    agent.tool("inner", {}, "Error: no such order", within=outer)
    response = agent.process.event(
        "tool_call_response", 4, outer, metadata={"tool": "outer"},
        content={"toolCalls": [{"name": "outer"}], "toolResults": {"result": "Error: no such order"}},
    )  # fmt: skip
    agent.events.append(response)
    story = agent.story()

    assert (story.failed, story.tree.said_failed) == (1, 2)


def test_a_call_is_tried_again_however_much_comes_between() -> None:
    """The agent thinks, calculates and asks the user before it calls again."""
    agent, messages = Agent(), [USER]

    def act(name: str, number: int, answered: object) -> None:
        call = called(name, number, amount=number)
        answer = agent.turn(messages, None, call)
        agent.tool(name, {"amount": number}, answered, asked_by=answer)
        messages.append(result(call, json.dumps(answered)))

    act("book", 1, {"error": "it costs 30, 25 were paid"})
    for number in range(4):
        act("calculate", number, number)
    agent.turn(messages, "It is 30. Is that all right?")
    messages.append({"role": "user", "content": "Yes."})
    act("book", 2, {"reservation": "R1"})
    agent.turn(messages, "Booked.")

    assert agent.story().status == "answered: 1 call said that it failed, recovered"


def test_a_failure_recorded_by_hand_after_its_result_is_a_failure() -> None:
    """And not one that only says so."""
    process = Process(run="9f2c41aa01be-1")
    agent = Agent(process)
    step = agent.begin_tool("look", {})
    agent.event("error", step, metadata={"tool": "look"}, content={"message": "down"}, within=step)
    agent.event(
        "tool_call_response",
        step,
        metadata={"tool": "look"},
        content={"toolResults": {"result": "Error: down"}},
    )
    tree = tell(agent.events).tree

    assert (tree.errors, tree.said_failed) == (1, 0)


def test_a_tree_shows_which_calls_say_that_they_failed() -> None:
    """With their words in the place of the result, and never "no errors"."""
    agent = Agent()
    agent.tool("pay", {"card": 5}, "Error: not enough money")
    header, line = render(build(agent.events), width=100).splitlines()

    assert header.endswith("1 tool, 1 said failed")
    assert line.startswith("└─ ✗ pay(card=5)  said failed: Error: not enough money")
