"""How a run ended: with an answer, after a call, out of rounds, in circles; the list and the page say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lines import encoded
from tales import USER, Agent, called

from whyops_trace._reading.excerpt import both_ends
from whyops_trace._reading.verdict import last_traceback
from whyops_trace.store import Filter, Store, TraceSummary
from whyops_trace.story.asking import asks_user

TOKEN = "9f2c41aa01be"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with closing(Store(tmp_path / "traces.db")) as store:
        yield store


def listed(store: Store, agent: Agent, size: int = 1) -> TraceSummary:
    """Return the summary of what an agent recorded, so many records at a time."""
    lines = [encoded(event) for event in agent.events]
    for start in range(0, len(lines), size):
        store.ingest((TOKEN, lines[start : start + size]))
    (summary,) = store.traces()
    return summary


@pytest.mark.parametrize(
    ("tool", "results", "ended"),
    [
        ("find", "order 7", "stopped after find"),
        ("find", [], "stopped after find, which came back empty"),
        (
            "find",
            "Error: no such order",
            "stopped after find, which said that it failed: Error: no such order",
        ),
        ("transfer_to_human", "ok", "ended by transfer_to_human"),
        ("transferToHuman", "ok", "ended by transferToHuman"),
        ("send_mail", "ok", "stopped after send_mail"),
        ("appendRow", "ok", "stopped after appendRow"),
        ("get_endpoint", "ok", "stopped after get_endpoint"),
    ],
)
@pytest.mark.parametrize("size", [1, 50])
def test_a_run_that_stops_after_a_call_is_not_answered(
    store: Store, size: int, tool: str, results: object, ended: str
) -> None:
    """Though the model said something when it asked for the call; whether the block ended or not."""
    agent = Agent()
    answer = agent.turn([USER], "One moment.", called(tool))
    agent.tool(tool, {}, results, asked_by=answer)
    agent.end()
    story, summary = agent.story(), listed(store, agent, size)

    assert story.status.startswith(ended.partition(", which said")[0])
    assert (story.ended, story.ended_reason) == (ended, "stopped")
    assert (summary.ending, summary.ended_with, summary.failed) == (
        "call",
        ended[:119] + "…" * (len(ended) > 120),
        False,
    )
    assert [trace.trace_id for trace in store.traces(where=Filter(unanswered=True))] == [summary.trace_id]


@pytest.mark.parametrize(
    ("command", "ended"),
    [
        ("submit", "ended by bash, which submits"),
        ("submit flag{7}\n", "ended by bash, which submits"),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "ended by bash, which submits"),
        ("echo MINI_SWE_AGENT_FINAL_OUTPUT && git diff --cached", "ended by bash, which submits"),
        ("python submit.py", "stopped after bash, which came back empty"),
        ("submit\nls", "stopped after bash, which came back empty"),
        ("echo submit", "stopped after bash, which came back empty"),
    ],
)
def test_a_command_may_hand_in_the_work(store: Store, command: str, ended: str) -> None:
    """Agents of a shell end so, with a tool whose name tells nothing; another call after it counts."""
    agent = Agent()
    answer = agent.turn([USER], None, called("bash"))
    agent.tool("bash", {"command": command}, "", asked_by=answer)
    agent.end()

    assert agent.story().ended == listed(store, agent).ended_with == ended
    agent.tool("bash", {"command": "ls"}, "", asked_by=answer)
    assert agent.story().ended == "stopped after bash, which came back empty"


@pytest.mark.parametrize(
    ("said", "arguments", "ended"),
    [
        ("All five are sorted.", {}, "All five are sorted."),
        ("I know enough.", {"answer": "Dedham"}, "Dedham"),
        (None, {"answer": "Dedham"}, "Dedham"),
        (None, {"answer": 42}, "42"),
        ("Sorted.", {"answer": None}, "Sorted."),
    ],
)
@pytest.mark.parametrize("tool", ["final_answer", "claim_done", "claimDone"])
def test_what_is_said_with_the_last_call_is_the_answer(
    store: Store, tool: str, said: str | None, arguments: dict[str, Any], ended: str
) -> None:
    """Beside the call or in its arguments; that of a call which hands over is none."""
    agent = Agent()
    answer = agent.turn([USER], said, called(tool, 0, **arguments))
    agent.tool(tool, arguments, "ok", asked_by=answer)
    agent.end()
    story, summary = agent.story(), listed(store, agent)

    assert story.status == f"answered and ended by {tool}: no failures"
    assert story.ended == summary.ended_with == ended
    assert summary.ending == "answer"


def test_a_call_that_raised_at_the_end_is_told_with_its_error() -> None:
    """The program caught it, and left its block."""
    agent = Agent()
    answer = agent.turn([USER], None, called("find"))
    agent.tool("find", {}, error=("OSError", "no"), asked_by=answer)
    agent.end()

    assert agent.story().status == "stopped after find: 1 call failed, not recovered"


def test_a_program_may_call_tools_after_the_answer(store: Store) -> None:
    """As one does that saves it; only a call that went wrong is told as the end."""
    agent = Agent()
    agent.turn([USER], "Refunded.")
    agent.tool("save", {}, "ok")
    agent.end()

    assert agent.story().status == "answered: no failures"
    assert listed(store, agent).ending == "answer"
    agent.tool("save", {}, "Error: disk full")
    assert agent.story().status.startswith("stopped after save: ")


def test_an_answer_without_a_call_after_it_is_one_though_it_asks_for_tools() -> None:
    """As structured output is."""
    agent = Agent()
    agent.turn([USER], "Here it is.", called("Answer", amount=1))

    assert agent.story().ended == "Here it is."


@pytest.mark.parametrize("sentinel", ["TERMINATE", "**TERMINATE**", "Done.", "FINAL ANSWER"])
def test_a_sentinel_is_told_apart_from_the_answer_before_it(store: Store, sentinel: str) -> None:
    """What a reader wants is what was said before it."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "The fee was refunded.")
    agent.turn(messages, sentinel)
    agent.end()
    story, summary = agent.story(), listed(store, agent)

    assert story.status == f"answered and ended by {sentinel}: no failures"
    assert (story.ended, story.ended_by) == ("The fee was refunded.", sentinel)
    assert (summary.ended_with, summary.ending) == ("The fee was refunded.", "answer")


def test_a_sentinel_alone_is_the_answer() -> None:
    """There is nothing before it."""
    agent = Agent()
    agent.turn([USER], "TERMINATE")
    story = agent.story()

    assert (story.ended, story.ended_by, story.status) == ("TERMINATE", "", "answered: no failures")


@pytest.mark.parametrize(
    "said",
    [
        "Max rounds (30) reached.",
        "Agent stopped due to max iterations reached.",
        "Agent stopped due to iteration limit or time limit.",
        "Reached max steps.",
        "Maximum number of turns exceeded",
        "I have hit the limit of 20 calls reached",
    ],
)
def test_a_run_that_used_up_its_rounds_is_not_answered(store: Store, said: str) -> None:
    """As its last message says."""
    agent = Agent()
    agent.turn([USER], said)
    agent.end()

    assert agent.story().status == "used up its rounds: no failures"
    assert listed(store, agent).ending == "limit"


@pytest.mark.parametrize(
    "said", ["The maximum is 30.", "You have 3 steps to go.", "The turn was limited to one."]
)
def test_other_answers_about_limits_are_answers(said: str) -> None:
    """They say nothing of the run."""
    agent = Agent()
    agent.turn([USER], said)

    assert agent.story().status == "answered: no failures"


TRACEBACK = (
    'Stalled.\nTraceback (most recent call last):\n  File "a.py", line 3\nValueError: bad\nFINAL ANSWER: 3'
)


def test_a_last_message_with_a_traceback_is_an_error(store: Store) -> None:
    """It was written by the program, where the model's answer should be."""
    agent = Agent()
    agent.turn([USER], TRACEBACK)
    agent.end()
    summary = listed(store, agent)

    assert agent.story().status == "failed: ValueError: bad"
    assert (summary.failed, summary.ended_with) == (True, "ValueError: bad")


def test_a_traceback_that_is_quoted_is_none() -> None:
    """In a block of code."""
    assert last_traceback(TRACEBACK) == "ValueError: bad"
    assert last_traceback(TRACEBACK.replace("Stalled.", "You see:\n```")) == ""
    assert last_traceback("A traceback tells where an error was raised.") == ""


def test_a_run_that_went_round_in_circles_is_not_answered() -> None:
    """Whatever it said in the end."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        answer = agent.turn(messages, None, called("poll", number, order=1))
        agent.tool("poll", {"order": 1}, "wait", asked_by=answer)
    agent.turn(messages, "I gave up.")

    assert agent.story().status == "went round in circles: no failed calls, but 1 problem"


def test_a_run_that_its_leader_did_not_take_up_again_was_cut() -> None:
    """The agent that opens, and speaks every other turn, has the last word otherwise."""

    def status(*last: str) -> str:
        agent, messages = Agent(), [USER]
        for place, name in enumerate([*(3 * ["Leader", "Surfer"]), *last]):
            text = f"{'abcdefg'[place] * 9}: next speaker Surfer" if name == "Leader" else 9 * "hijklm"[place]
            agent.turn(messages, text, within=agent.step(name))
        agent.end()
        return agent.story().status

    assert status() == "stopped in a turn of Surfer, not taken up by Leader: no failures"
    assert status("Leader") == "answered: no failures"


def test_phases_of_one_agent_lead_nobody() -> None:
    """They follow one another, or share a system prompt."""
    agent, messages = Agent(), [USER]
    for place, name in enumerate(["look", "look", "answer"]):
        agent.turn(messages, 9 * "abc"[place], within=agent.step(name), systemPrompt="Be kind.")
    agent.end()
    story = agent.story()

    assert (story.status, story.whys) == ("answered: no failures", [])


def test_a_trace_of_the_store_goes_on_after_a_call(store: Store) -> None:
    """What it stopped after is kept until more comes."""
    agent, messages = Agent(), [USER]
    answer = agent.turn(messages, None, called("find"))
    agent.tool("find", {}, "order 7", asked_by=answer)
    agent.end()
    stopped = listed(store, agent).ending
    began = len(agent.events)
    agent.turn(messages, "It is order 7.")
    store.ingest((TOKEN, [encoded(event) for event in agent.events[began:]]))
    (summary,) = store.traces()

    assert (stopped, summary.ending, summary.ended_with) == ("call", "answer", "It is order 7.")


def test_a_long_text_is_told_by_both_ends() -> None:
    """An answer often has its point at the end."""
    text = both_ends("Well. " * 100 + "It is 42.", 60)

    assert text.startswith("Well. Well.")
    assert text.endswith("It is 42.")
    assert "… " in text
    assert len(text) <= 62
    assert both_ends("It is\n42.", 60) == "It is 42."
    assert json.dumps(text)


@pytest.mark.parametrize(
    "said",
    [
        "You've hit your limit \u00b7 resets 3pm (Europe/Berlin)",
        "Weekly usage limit reached \u2219 resets Mon 9:00",
        "Claude AI usage limit reached|1764600000",
        'API Error: 529 {"type":"error","error":{"type":"overloaded_error"}}',
        "API Error (Connection error.)",
        "Error code: 429 - {'error': {'message': 'Slow down.'}}",
        "litellm.RateLimitError: AnthropicException - too many",
        "Credit balance is too low",
        "Invalid API key \u00b7 Please run /login",
        "Prompt is too long",
    ],
)
def test_the_notice_of_a_service_is_an_error_and_no_answer(store: Store, said: str) -> None:
    """Some programs hand on as an answer why there is none; the line names it, and the list shows it as failed."""
    agent = Agent()
    agent.turn([USER], said)
    agent.end()
    story, summary = agent.story(), listed(store, agent)

    assert story.status.startswith("failed: ")
    assert [(why.kind, why.step, why.bad) for why in story.whys] == [("failed", 2, True)]
    assert (summary.failed, summary.ending) == (True, "error")


@pytest.mark.parametrize(
    "said",
    [
        "You have exceeded your data limit for this month.",
        "Your credit card has reached its limit.",
        "The prompt is too long for the banner; shorten it to ten words.",
        "API errors are logged with their code.",
        "Error handling is done in main().",
        "The usage limit resets each month. " * 30,
        "ValueError: that is what int('x') raises.",
    ],
)
def test_an_answer_about_limits_and_errors_is_one(said: str) -> None:
    """As an agent gives it that is asked for them."""
    agent = Agent()
    agent.turn([USER], said)

    assert agent.story().status == "answered: no failures"


@pytest.mark.parametrize(
    "said",
    [
        "Which of the two orders do you mean?",
        "What is the number of the order?",
        "I found two orders.\n\n- 7\n- 8\n\nPlease tell me which one it is. It is on the receipt.",
        "To go on, could you confirm the new address?",
    ],
)
def test_a_run_may_end_with_a_question_to_the_user(said: str) -> None:
    """Nothing is answered then: the run waits for what nobody said."""
    agent = Agent()
    answer = agent.turn([USER], None, called("find"))
    agent.tool("find", {}, "two orders", asked_by=answer)
    agent.turn([USER], said)

    assert agent.story().status == "ended with a question to the user: no failures"


@pytest.mark.parametrize(
    "said",
    [
        "Done. Is there anything else I can help you with?",
        "The fee is refunded. Please let me know if you have any questions.",
        "See [what may I return?](https://shop.example/returns).",
        "Why does it fail? The key is missing. Add it to the file.",
        "Send the form to the bank. If you like, tell me how it went.",
        "What happened? " + "The carrier lost it, and sends another one. " * 3,
    ],
)
def test_an_offer_of_more_help_is_no_question(said: str) -> None:
    """The run is over without a reply."""
    agent = Agent()
    answer = agent.turn([USER], None, called("find"))
    agent.tool("find", {}, "two orders", asked_by=answer)
    agent.turn([USER], said)

    assert agent.story().status == "answered: no failures"


def test_a_question_is_looked_for_in_the_whole_answer_if_nothing_was_done() -> None:
    """Without any call of a tool all that is left is what it asks for."""
    agent = Agent()
    agent.turn([USER], "Please share the number of the order. I will look it up. Then I tell you the date.")

    assert agent.story().status == "ended with a question to the user: no failures"


@pytest.mark.parametrize(
    "text", ["[" * 3_000, "please " * 3_000, "what " * 3_000, "a?" * 3_000, "you " * 3_000]
)
def test_no_answer_is_slow_to_look_at(text: str) -> None:
    """Whatever it repeats: a test that hangs has failed."""
    assert asks_user(text, anywhere=True) in (True, False)
