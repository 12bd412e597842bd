"""Lines about habits of agents: what they repeat, never use, say of themselves, and claim to have done."""

from __future__ import annotations

from typing import Any

import pytest
from tales import USER, Agent, called, result

from whyops_trace.analysis import findings
from whyops_trace.story import Story


def lines(story: Story, *kinds: str) -> list[str]:
    """Return the lines of some kinds, those that nothing made good with a mark."""
    return [f"{'! ' if why.bad else ''}{why.text}" for why in story.whys if why.kind in kinds]


def act(agent: Agent, messages: list[Any], name: str, number: int, answered: Any, **arguments: Any) -> None:
    """Let a model ask for a call, and make it."""
    call = called(name, number, **arguments)
    answer = agent.turn(messages, None, call)
    agent.tool(name, arguments, answered, asked_by=answer)
    messages.append(result(call, "done"))


@pytest.mark.parametrize(("rounds", "told"), [(1, []), (2, ["4 calls"]), (3, ["! 6 calls"])])
def test_calls_in_turn_are_a_cycle(rounds: int, told: list[str]) -> None:
    """From the second round with the same results on; it is a bad one from the third on."""
    agent, messages = Agent(), [USER]
    for number in range(rounds):
        act(agent, messages, "open", 2 * number, "menu", item=1)
        act(agent, messages, "close", 2 * number + 1, "page", item=1)
    found = lines(agent.story(), "cycle")

    assert [line.partition(" were called")[0] + line.partition("in turn, ")[2][:7] for line in found] == [
        f"{'! ' if '!' in one else ''}open(item=1) and close(item=1){one.removeprefix('! ')}" for one in told
    ]


def test_a_cycle_with_new_results_is_told_after_three_rounds() -> None:
    """A program may wait for something."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        act(agent, messages, "poll", 2 * number, number, job=1)
        act(agent, messages, "sleep", 2 * number + 1, "ok", seconds=9)
        if number == 1:
            assert lines(agent.story(), "cycle") == []
    (line,) = lines(agent.story(), "cycle")

    assert line == "poll(job=1) and sleep(seconds=9) were called in turn, 6 calls in all (turns 1 to 6)"


def test_a_cycle_of_four_calls_is_told_once() -> None:
    """And not as four calls that came again."""
    agent, messages = Agent(), [USER]
    for number in range(12):
        act(agent, messages, "look", number, number % 4, page=number % 4)
    story = agent.story()

    assert len(lines(story, "cycle")) == 1
    assert lines(story, "again") == []


def test_pages_of_a_book_are_no_cycle() -> None:
    """Each call has arguments of its own."""
    agent, messages = Agent(), [USER]
    for number in range(12):
        act(agent, messages, "look", number, f"text {number}", page=number)

    assert lines(agent.story(), "cycle", "again", "loop") == []


def test_the_same_call_again_is_told_though_others_came_between() -> None:
    """If it brings the same each time."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        act(agent, messages, "find", 10 * number, "order 7", who="Ada")
        for other in range(number + 1):
            act(agent, messages, "other", 10 * number + other + 1, other, place=10 * number + other)

    assert lines(agent.story(), "again") == [
        'find(who="Ada") was called 3 times (turns 1 to 6), and brought the same each time'
    ]


def test_the_same_call_with_other_results_is_no_repetition() -> None:
    """As the state of an order that is on its way."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        act(agent, messages, "track", 2 * number, f"at stop {number}", order=7)
        act(agent, messages, "other", 2 * number + 1, number, place=number)

    assert lines(agent.story(), "again", "cycle") == []


def test_answers_nearly_alike_are_told_once() -> None:
    """With the first of them; a bad one if the run ended so."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        agent.turn(messages, f"I am sorry, but I cannot refund it as the rules say, attempt {number}.")
        messages.append({"role": "user", "content": f"Please try once more, {number}."})
    story = agent.story()

    assert lines(story, "alike") == [
        '! turns 1 to 4: 4 answers nearly alike: "I am sorry, but I cannot refund it as the rules say, attempt 0."'
    ]
    assert story.status == "went round in circles: no failed calls, but 1 problem"


def test_answers_alike_to_different_questions_are_no_habit() -> None:
    """As those of a program that asks a model about each of many texts."""
    agent = Agent()
    for number in range(4):
        asked = {"role": "user", "content": f"Is review {number} a friendly one?"}
        agent.turn([asked], "The review is a friendly one, and praises the tea.")
    story = agent.story()

    assert lines(story, "alike") == []
    assert story.status == "answered: no failures"


def test_answers_alike_to_one_question_are_told_whatever_else_the_prompt_has() -> None:
    """As those of an agent that writes its prompt anew in each turn."""
    agent = Agent()
    for number in range(4):
        state = {"role": "user", "content": f"The page was loaded {number} times."}
        agent.turn([USER, state], "I wait until the page of the order has been loaded.")

    assert len(lines(agent.story(), "alike")) == 1


def test_short_answers_tell_nothing() -> None:
    """A model may say yes to different questions."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        agent.turn(messages, "Yes.")
        messages.append({"role": "user", "content": f"And {number}?"})

    assert lines(agent.story(), "alike") == []


def test_answers_that_ask_for_other_calls_are_not_alike() -> None:
    """A model often says the same before each call."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        call = called("look", number, page=number)
        answer = agent.turn(messages, "Let me look at the next page of the document.", call)
        agent.tool("look", {"page": number}, f"text {number}", asked_by=answer)
        messages.append(result(call, "text"))

    assert lines(agent.story(), "alike") == []


@pytest.mark.parametrize(
    "said",
    [
        'Ledger: {"is_in_loop": {"reason": "we repeat the same", "answer": true}}',
        "I seem to be stuck in a loop. Let me plan anew.",
        "We are going around in circles here.",
        "I keep repeating the same search.",
    ],
)
def test_an_agent_that_says_that_it_loops_is_quoted(said: str) -> None:
    """Once; how often it said so is counted."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        agent.turn(messages, f"{said} ({number})")
    (line,) = lines(agent.story(), "stuck")

    assert line.startswith("! turn 1 says itself that it goes round in circles, and 2 more times: ")


@pytest.mark.parametrize(
    "said", ['{"is_in_loop": {"reason": "no", "answer": false}}', "A for loop repeats the same lines."]
)
def test_other_words_about_loops_are_none(said: str) -> None:
    """Nor is a ledger that says no."""
    agent = Agent()
    agent.turn([USER], said)

    assert lines(agent.story(), "stuck") == []


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {}}}
    for name in ("get_user", "cancel_reservation", "update_baggage")
]


@pytest.mark.parametrize(
    ("said", "tool"),
    [
        ("I have cancelled your reservation.", "cancel_reservation"),
        ("Your reservation has been successfully cancelled.", "cancel_reservation"),
        ("I've added one bag to it.", "update_baggage"),
    ],
)
def test_a_claim_of_what_no_call_did_is_a_question(said: str, tool: str) -> None:
    """It names the tool that could have done it."""
    agent = Agent()
    agent.turn([USER], said, tools=TOOLS)
    (line,) = lines(agent.story(), "claim")

    assert line.startswith('! turn 1 says "')
    assert line.endswith(f'": was it done? {tool} was never called')


def test_a_claim_is_none_where_a_call_did_it() -> None:
    """A call that failed did not."""
    agent, messages = Agent(), [USER]
    act(agent, messages, "cancel_reservation", 1, "Error: no such reservation", id=1)
    agent.turn(messages, "I have cancelled your reservation.", tools=TOOLS)
    claimed = lines(agent.story(), "claim")
    act(agent, messages, "cancel_reservation", 2, "ok", id=2)
    agent.turn(messages, "I have cancelled your other reservation.", tools=TOOLS)

    assert [line.rpartition("? ")[2] for line in claimed] == ["cancel_reservation did not succeed before"]
    assert len(lines(agent.story(), "claim")) == 1


@pytest.mark.parametrize(
    "said",
    [
        "Shall I cancel your reservation?",
        "I will have it cancelled.",
        "I have found your reservation.",
        "I have sent a letter.",
    ],
)
def test_other_answers_claim_nothing(said: str) -> None:
    """Plans, finds, and what no tool could have done."""
    agent = Agent()
    agent.turn([USER], said, tools=TOOLS)

    assert lines(agent.story(), "claim") == []


def test_tools_that_are_never_called_are_named() -> None:
    """In a conversation of some length; in a short one none may be needed."""
    agent, messages = Agent(), [USER]
    for number in range(4):
        assert lines(agent.story(), "unused") == []
        agent.turn(messages, f"No, {number} times no, and here is why: {number * 'x'}", tools=TOOLS)
        messages.append({"role": "user", "content": f"But {number}?"})

    assert lines(agent.story(), "unused") == [
        "get_user, cancel_reservation, update_baggage were on offer, and none was called in 4 turns"
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("That doesn't add up. It was one bag.", "That doesn't add up."),
        ("Wait. I never asked for two bags.", "I never asked for two bags."),
        ("Yes, that is right.", ""),
        ("Is that the right gate?", ""),
    ],
)
def test_a_user_who_contradicts_is_quoted(said: str, told: str) -> None:
    """With the turn that is contradicted."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "That makes two bags.")
    messages.append({"role": "user", "content": said})
    agent.turn(messages, "Let me see.")

    assert [line.partition(': "')[0] for line in lines(agent.story(), "contradicted")] == (
        ["turn 2: the user contradicts turn 1"] if told else []
    )
    assert told in "".join(lines(agent.story(), "contradicted"))


def test_habits_are_findings_too() -> None:
    """With a severity, a reason and a remedy."""
    agent = Agent()
    agent.turn([USER], "I have cancelled your reservation.", tools=TOOLS)
    (finding,) = [one for one in findings(agent.events) if one.code == "UNDONE_CLAIM"]

    assert (finding.severity, finding.steps) == ("medium", [2])
    assert "cancel_reservation was never called" in finding.title


def test_a_program_without_models_that_polls_has_finished() -> None:
    """The row of equal calls is told; that it went round in circles would take a model that does not see it."""
    agent = Agent()
    for _ in range(6):
        agent.tool("status", {"job": 7}, {"state": "queued"})

    story = agent.story()

    assert story.status.startswith("finished: ")
    assert [why.kind for why in story.whys] == ["loop"]
