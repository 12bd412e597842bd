"""Lines about where a run may have fallen short: stand-ins, searches in vain, results read in part."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tales import USER, Agent, called, result

from whyops_trace.analysis import findings
from whyops_trace.story import Story


def lines(story: Story, kind: str) -> list[str]:
    """Return the lines of a kind, those that nothing made good with a mark."""
    return [f"{'! ' if why.bad else ''}{why.text}" for why in story.whys if why.kind == kind]


def act(agent: Agent, messages: list[Any], name: str, number: int, answered: Any, **arguments: Any) -> None:
    """Let a model ask for a call, and make it."""
    call = called(name, number, **arguments)
    answer = agent.turn(messages, None, call)
    agent.tool(name, arguments, answered, asked_by=answer)
    messages.append(result(call, "done"))


@pytest.mark.parametrize(
    "said",
    [
        "The shop has no customers yet. Let me create some sample data to show how it works",
        "I'll create a mock result file in the right format",
        "I need to create placeholder values that follow the pattern",
        "I will simulate the API responses",
    ],
)
def test_a_turn_that_says_that_it_makes_data_up_is_told(said: str) -> None:
    """In its own words, as what follows rests on them."""
    agent = Agent()
    agent.turn([USER], f"{said}.")
    agent.turn([USER], "All is well with sample data of the month.")
    story = agent.story()

    quote = said.rpartition(". ")[2]
    assert lines(story, "standin") == [f'! turn 1 works with a stand-in: "{quote}."']
    assert story.status == "answered: no failed calls, but 1 problem"
    assert [one.code for one in findings(agent.events) if one.code == "STAND_IN_DATA"] == ["STAND_IN_DATA"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("# Simulate order data (in a real scenario, this would come from the API)\norders = []", True),
        ("// In a real implementation, we would parse the file\nint i;", True),
        ("# Mock API classes - replace with actual clients", True),
        ("def test_total():\n    orders = [1]  # using mock data", False),
        ("print('Sample data:', rows[:3])", False),
        ("# check some sample data from the stream\nread(5)", False),
        ("# Simulate the game\nfor i in range(1000): play()", False),
    ],
)
def test_code_that_makes_data_up_is_told(code: str, told: bool) -> None:
    """Where a model wrote it into a call; that of a test has such data for a reason."""
    agent, messages = Agent(), [USER]
    act(agent, messages, "run", 0, "ok", code=code)
    found = [why for why in agent.story().whys if why.kind == "standin"]

    assert [why.step for why in found] == ([3] if told else [])


def test_stand_ins_that_the_user_asked_for_are_none() -> None:
    """That is the task."""
    agent = Agent()
    agent.turn([{"role": "user", "content": "Fill the table with sample data."}], "I am using sample data.")

    assert lines(agent.story(), "standin") == []


def test_searches_in_vain_are_told() -> None:
    """With their number beside that of all calls, from three on."""
    agent, messages = Agent(), [USER]
    for number, found in enumerate(["no results found", "three hits", "[]"]):
        act(agent, messages, "search", number, found, words=f"tea {number}")
    assert lines(agent.story(), "vain") == []
    act(agent, messages, "search", 3, "Could not find [Te]. Similar: ['Tea']", words="Te")

    assert lines(agent.story(), "vain") == [
        'search found nothing in 3 of 4 calls, such as search(words="tea 0")'
    ]
    assert "SEARCHED_IN_VAIN" in {one.code for one in findings(agent.events)}


@pytest.mark.parametrize(
    ("answered", "calls"),
    [("", 4), (None, 4), ("<returncode>0</returncode>\n<output>\n</output>", 6), ("no results found", 3)],
)
def test_tools_that_return_nothing_at_all_search_for_nothing(answered: str | None, calls: int) -> None:
    """As one that notes thoughts; nor is one told that finds something most of the time."""
    agent, messages = Agent(), [USER]
    for number in range(12):
        act(agent, messages, "note", number, answered if number < calls else "noted", text=f"note {number}")

    assert lines(agent.story(), "vain") == []


@pytest.mark.parametrize(
    ("found", "quote"),
    [
        ("Row 1: tea\n... and 15 more rows", "... and 15 more"),
        ({"rows": [1, 2], "has_more": True}, 'has_more": true'),
        ({"rows": [1, 2], "next_cursor": "abc123"}, 'next_cursor": "abc123'),
        ("Page 1 of 3\ntea", "Page 1 of 3"),
        ({"rows": [1, 2], "has_more": False, "next_cursor": None}, ""),
        ("Page 3 of 3\ntea", ""),
        ("tea, coffee and more", ""),
    ],
)
def test_a_result_of_which_only_a_part_was_read_is_told(found: Any, quote: str) -> None:
    """If it says so itself, and its tool was not called again."""
    agent, messages = Agent(), [USER]
    act(agent, messages, "query", 0, found, table="teas")
    act(agent, messages, "other", 1, "ok")
    line = f'query(table="teas") brought only a part, "{quote}", and query was not called again'

    assert lines(agent.story(), "partial") == [line] * bool(quote)
    act(agent, messages, "query", 2, "the rest", table="teas", page=2)
    assert lines(agent.story(), "partial") == []


def test_pages_that_a_call_without_arguments_turns_are_no_loop() -> None:
    """Each brings something else; the same each time is one."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        act(agent, messages, "next_page", number, f"page {number}")
    assert lines(agent.story(), "loop") == []
    for number in range(4, 8):
        act(agent, messages, "poll", number, "waiting")

    assert len(lines(agent.story(), "loop")) == 1


def test_agents_who_speak_with_one_another_have_lines_of_their_own() -> None:
    """Their turns are judged by other rules."""
    agent = Agent()
    for name in ("Planner", "Coder"):
        agent.turn(
            [USER], "I am using sample data.", within=agent.step(name), systemPrompt=f"You are {name}."
        )

    assert [one.agent for one in (section.turn for section in agent.story().sections) if one] == [
        "Planner",
        "Coder",
    ]
    assert lines(agent.story(), "standin") == []


@pytest.mark.parametrize(
    "filling",
    ["using a ", "simulate a b ", "# mock ", "in a real version ", "next_page:", "has more ", "and 1 more"],
)
def test_no_text_takes_long(filling: str) -> None:
    """Only so much of each is looked at."""
    agent, messages = Agent(), [USER]
    text = "sample " + filling * (200_000 // len(filling))
    act(agent, messages, "run", 0, text, code=text)
    agent.turn(messages, text)
    began = time.process_time()
    agent.story()

    assert time.process_time() - began < 5
