"""The story of a trace: its turns, what each added, which tools ran because of it, what failed and what followed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tales import USER, Agent, called, result, said

from whyops_trace.story import Change, Story, Turn, tell


def turns(story: Story) -> list[Turn]:
    """Return the turns of a story."""
    return [section.turn for section in story.sections if section.turn is not None]


def explained(story: Story) -> list[str]:
    """Return the lines that explain a story, those that nothing made good with a mark."""
    return [
        f"{'! ' if why.bad else ''}{why.text}{f' -> {why.then}' if why.then else ''}" for why in story.whys
    ]


def refund() -> Agent:
    """Return an agent whose refund is refused, and which tries again with another amount."""
    agent, messages = Agent(), [USER]
    first, second = called("refund", 1, amount=129.0), called("refund", 2, amount=12.9)
    answer = agent.turn(messages, "I refund it.", first)
    refused = ("PolicyError", "amount exceeds express fee")
    agent.tool("refund", {"amount": 129.0}, asked_by=answer, error=refused)
    messages.append(result(first, "refused"))
    answer = agent.turn(messages, None, second)
    agent.tool("refund", {"amount": 12.9}, {"id": 7}, asked_by=answer)
    messages.append(result(second, '{"id": 7}'))
    agent.turn(messages, "I refunded the fee.")
    agent.end()
    return agent


def test_a_story_has_what_was_asked_how_it_ended_and_what_failed() -> None:
    """And never says a bare "ok"."""
    story = refund().story()

    assert (story.asked, story.ended, story.ended_reason) == (USER["content"], "I refunded the fee.", "stop")
    assert (story.turns, story.failed, story.recovered) == (3, 1, 1)
    assert story.status == "answered: 1 call failed, recovered"


def test_a_failure_is_told_with_the_retry_that_followed() -> None:
    """With what changed in its arguments, and what became of it."""
    story = refund().story()
    (why,) = story.whys

    assert explained(story) == [
        "turn 1: refund(amount=129.0) was refused: PolicyError: amount exceeds express fee"
        " -> turn 2 tried again with amount=12.9 (was 129.0): ok"
    ]
    assert (why.kind, why.step, why.then_step, why.bad) == ("retried", 3, 8, False)


def test_a_retry_and_the_failed_call_name_each_other() -> None:
    """By their steps, with the arguments that changed."""
    first, second = (turn.tools[0] for turn in turns(refund().story())[:2])

    assert (first.node.step, first.retried_by, first.error) == (
        3,
        8,
        "PolicyError: amount exceeds express fee",
    )
    assert (first.stack, first.result, first.response) == ("File agent.py", None, 5)
    assert (second.retry_of, second.changes) == (3, [Change("amount", "129.0", "12.9")])
    assert (second.arguments, second.result, second.error) == ({"amount": 12.9}, {"id": 7}, "")


def test_each_step_leads_to_the_section_that_shows_it() -> None:
    """That of a tool's events to the turn that asked for it."""
    story = refund().story()

    assert story.steps == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 1, 7: 1, 8: 1, 9: 1, 10: 2, 11: 2}


def test_a_call_that_was_asked_for_names_the_one_that_was_made() -> None:
    """By its step; decoded arguments."""
    call = turns(refund().story())[0].calls[0]

    assert (call.id, call.name, call.arguments, call.step) == (
        "call_refund_1",
        "refund",
        {"amount": 129.0},
        3,
    )


def test_tools_without_a_mark_go_to_the_turn_that_asked_for_them() -> None:
    """By their name and arguments, which may have had defaults; each asked call is made once."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, None, called("track", 1, order=1), called("track", 2, order=2))
    other = [{"role": "user", "content": "Something else."}]
    agent.turn(other, None, called("look", 1))
    agent.tool("track", {"order": 2, "fast": False})
    agent.tool("track", {"order": 1, "fast": False})
    first, second = turns(agent.story())

    assert [call.step for call in first.calls] == [7, 5]
    assert [use.arguments["order"] for use in first.tools] == [2, 1]
    assert second.tools == []


def test_tools_that_nobody_asked_for_go_to_the_turn_before_them() -> None:
    """In the same enclosing call; where there is none they are in a section of their own."""
    agent = Agent()
    plan = agent.step("plan")
    agent.tool("look", {}, within=plan)
    agent.tool("look again", {}, within=plan)
    agent.turn([USER], "Hello.", within=plan)
    agent.tool("act", {}, within=plan)
    agent.tool("outside", {})
    heading, before, turn, after = agent.story().sections

    assert (heading.node is not None, heading.path) == (True, [])
    assert ([use.node.name for use in before.tools], before.path) == (["look", "look again"], ["plan"])
    assert turn.turn is not None
    assert ([use.node.name for use in turn.turn.tools], turn.path) == (["act"], ["plan"])
    assert ([use.node.name for use in after.tools], after.path) == (["outside"], [])


def test_the_turns_of_a_tool_stand_in_its_path() -> None:
    """A sub-agent that runs in a tool."""
    agent, messages = Agent(), [USER]
    answer = agent.turn(messages, None, called("research"))
    tool = agent.begin_tool("research", {})
    agent.events[-1]["metadata"]["requestedBy"] = answer
    agent.turn([{"role": "user", "content": "Find it."}], "Found.", within=tool)
    sections = agent.story().sections

    assert [section.path for section in sections] == [[], ["research"]]


def test_a_turn_that_only_repeats_those_of_clients_is_none() -> None:
    """What asks for tools is then the turn inside."""
    agent = Agent()
    outer = agent.request(USER)
    inner = agent.answer(agent.request(USER, within=outer, function="openai"), None, called("look"))
    wrapped = agent.event(
        "llm_response",
        outer,
        within=outer,
        metadata={"function": "ask", "wraps": True},
        content={"toolCalls": [called("look")]},
    )
    agent.tool("look", {}, asked_by=wrapped)
    agent.answer(agent.request(USER, said(None, called("look")), result(called("look"), "found")), "Found.")
    story = agent.story()
    turn, following = turns(story)

    assert (turn.node.answer, turn.number, turn.continues) == (inner, 1, 0)
    assert (following.number, following.continues, following.earlier) == (2, 1, 2)
    assert (turn.messages[0].text, [use.node.name for use in turn.tools]) == (USER["content"], ["look"])
    assert turn.calls[0].step == 5
    assert [story.steps[step] for step in range(1, 9)] == [0] * 6 + [1] * 2


@pytest.mark.parametrize("distance", [1, 4, 50, 51])
def test_the_next_call_of_the_same_tool_is_a_retry_for_fifty_turns(distance: int) -> None:
    """Turns of the same conversation."""
    agent, messages = Agent(), [USER]
    for number in range(distance + 1):
        call = called("look" if number in (0, distance) else "wait", number)
        answer = agent.turn(messages, None, call)
        failed = ("OSError", "no") if number == 0 else None
        agent.tool(call["function"]["name"], {}, asked_by=answer, error=failed)
        messages.append(result(call, "done"))
    first = turns(agent.story())[0].tools[0]

    assert bool(first.retried_by) == (distance < 51)


def test_calls_asked_for_together_are_no_retries_of_each_other() -> None:
    """Of two parcels that are looked up at once, each is tried again with its own number."""
    agent, messages = Agent(), [USER]
    for number in (1, 2):
        calls = [called("track", number, order=1), called("track", number + 2, order=2)]
        answer = agent.turn(messages, None, *calls)
        failed = ("TimeoutError", "") if number == 1 else None
        steps = [agent.tool("track", {"order": n}, asked_by=answer, error=failed) for n in (2, 1)]
        messages += [result(call, "done") for call in calls]
    first, second = turns(agent.story())

    assert [use.retried_by for use in first.tools] == steps
    assert [use.changes for use in second.tools] == [[], []]


def test_a_call_tries_one_failed_call_again_at_most() -> None:
    """The one that was called with the same arguments here; the other one stays without."""
    agent, messages = Agent(), [USER]
    calls = [called("look", number, n=number) for number in (1, 2)]
    answer = agent.turn(messages, None, *calls)
    for number in (1, 2):
        agent.tool("look", {"n": number}, asked_by=answer, error=("OSError", "no"))
    messages += [result(call, "no") for call in calls]
    answer = agent.turn(messages, None, called("look", 3, n=1))
    again = agent.tool("look", {"n": 1}, asked_by=answer)

    assert [use.retried_by for use in turns(agent.story())[0].tools] == [again, 0]


def test_identical_calls_asked_for_together_are_made_once_each() -> None:
    """In their order."""
    agent = Agent()
    agent.turn([USER], None, called("look", 1), called("look", 2))
    steps = [agent.tool("look", {}) for _ in range(2)]

    assert [call.step for call in turns(agent.story())[0].calls] == steps


def test_a_call_that_is_made_again_at_once_is_a_retry() -> None:
    """By the program, without another turn."""
    agent = Agent()
    answer = agent.turn([USER], None, called("look"))
    agent.tool("look", {}, asked_by=answer, error=("OSError", "no"))
    agent.tool("look", {})

    assert explained(agent.story()) == [
        "turn 1: look() failed: OSError: no -> turn 1 tried again with the same arguments: ok"
    ]


def test_without_turns_a_retry_is_among_the_next_ten_calls() -> None:
    """Of any tool."""
    stories = []
    for between in (9, 10):
        agent = Agent()
        agent.tool("look", {"n": 1}, error=("OSError", "no"))
        for number in range(between):
            agent.tool("wait", {"n": number})
        agent.tool("look", {"n": 1})
        stories.append(agent.story())

    assert [story.recovered for story in stories] == [1, 0]
    assert [story.status for story in stories] == [
        "finished: 1 call failed, recovered",
        "finished: 1 call failed, not recovered",
    ]


ROWS = [{"row": f"{name}, {price}"} for name, price in (("tea", 1), ("milk", 2), ("salt", 3))]
PAGES = [{"book": 7, "page": page} for page in (9, 10, 11)]
FILES = [{"path": path} for path in ("src/a.py", "b.py", "src/b.py")]
QUERIES = [
    {"sql": sql} for sql in ("SELECT id FROM orders", "SELECT nam FROM users", "SELECT name FROM users")
]


@pytest.mark.parametrize(
    ("calls", "retried"),
    [(ROWS, False), (PAGES, False), ([PAGES[0], PAGES[0], PAGES[1]], False), (FILES, True), (QUERIES, True)],
)
def test_the_next_call_of_a_series_is_no_retry(calls: list[dict[str, Any]], retried: bool) -> None:
    """A retry is closer to the failed call than those that worked before are; nothing else has recovered."""
    agent = Agent()
    agent.tool("read", calls[0])
    agent.tool("read", calls[1], error=("OSError", "no"))
    agent.tool("read", calls[2])

    assert agent.story().recovered == retried


def test_a_call_of_a_series_that_is_made_again_is_a_retry() -> None:
    """Also after the next ones."""
    agent = Agent()
    for page in PAGES:
        agent.tool("read", page, error=("OSError", "no") if page is PAGES[1] else None)
    agent.tool("read", PAGES[1])

    assert explained(agent.story()) == [
        "read(book=7, page=10) failed: OSError: no -> a later call tried again with the same arguments: ok"
    ]


@pytest.mark.parametrize("between", [9, 10])
def test_ten_calls_of_a_turn_are_compared(between: int) -> None:
    """Of more the right one may be further away."""
    agent = Agent()
    agent.turn([USER], "I look.")
    agent.tool("look", {"n": -1})
    agent.tool("look", {"n": 0}, error=("OSError", "no"))
    for number in range(between):
        agent.tool("look", {"n": number + 1})
    agent.tool("look", {"n": 0})

    assert agent.story().recovered == (between < 10)


def test_of_several_retries_the_last_one_counts() -> None:
    """They are one line."""
    agent, messages = Agent(), [USER]
    for number in (1, 2, 3):
        call = called("look", number, n=number)
        answer = agent.turn(messages, None, call)
        agent.tool("look", {"n": number}, asked_by=answer, error=("OSError", "no") if number < 3 else None)
        messages.append(result(call, "done"))
    story = agent.story()

    assert (story.failed, story.recovered) == (2, 2)
    assert explained(story) == [
        "turn 1: look(n=1) failed: OSError: no -> tried again 2 times, at last in turn 3, with n=3 (was 2): ok"
    ]


def test_a_failure_that_nothing_follows_says_what_the_agent_did_instead() -> None:
    """The next turn called another tool, or answered."""
    agent, messages = Agent(), [USER]
    call = called("look")
    answer = agent.turn(messages, None, call)
    agent.tool("look", {}, asked_by=answer, error=("OSError", "no"))
    messages.append(result(call, "no"))
    agent.turn(messages, "I could not look.")

    assert explained(agent.story()) == [
        '! turn 1: look() failed: OSError: no -> turn 2 answered "I could not look."'
    ]


def test_a_failed_turn_is_told_with_its_retry() -> None:
    """It goes on from it with nothing new."""
    agent, messages = Agent(), [USER]
    agent.breaks(messages, "slow down")
    agent.turn(messages, "Hello.")
    story = agent.story()
    first, second = turns(story)

    assert (first.error, first.retried_by, second.retry_of) == ("RateLimitError: slow down", 2, 1)
    assert (second.continues, second.earlier, second.messages) == (1, 1, [])
    assert explained(story) == [
        "turn 1: the model (gpt-4o) was rate limited: RateLimitError: slow down -> turn 2 tried again: ok"
    ]


def test_a_failure_that_was_only_passed_on_counts_once() -> None:
    """The step around the tool ended with the same error."""
    agent = Agent()
    step = agent.step("plan")
    agent.tool("look", {}, error=("OSError", "no"), within=step)
    content = {"error": {"type": "OSError", "message": "no"}}
    agent.events.append(
        agent.process.event("step_end", step, metadata={"step": "plan", "outcome": "error"}, content=content)
    )
    agent.end(outcome="error", content=content)
    story = agent.story()

    assert (story.failed, story.status, story.ended_reason) == (1, "failed: OSError: no", "error")
    assert explained(story) == ["! look() failed: OSError: no"]


def test_a_failure_around_another_one_counts_if_it_is_a_different_one() -> None:
    """The step failed for a reason of its own."""
    agent = Agent()
    step = agent.step("plan")
    agent.tool("look", {}, error=("OSError", "no"), within=step)
    content = {"error": {"type": "PlanError", "message": "no plan"}}
    about = {"step": "plan", "outcome": "error"}
    agent.events.append(agent.process.event("step_end", step, metadata=about, content=content))

    assert explained(agent.story()) == [
        "! step plan failed: PlanError: no plan",
        "! look() failed: OSError: no",
    ]


def test_a_trace_that_ended_with_an_error_of_its_own_says_so() -> None:
    """After an answer, in the code of the block."""
    agent = Agent()
    agent.turn([USER], "Hello.")
    agent.end(outcome="error", content={"error": {"type": "KeyError", "message": "'name'"}})
    story = agent.story()

    assert (story.status, story.ended) == ("failed: KeyError: 'name'", "KeyError: 'name'")
    assert explained(story) == ["! the trace ended with KeyError: 'name'"]


def test_a_trace_that_went_on_after_it_failed_may_end_well() -> None:
    """As a conversation does whose next turn is in another process."""
    agent = Agent()
    agent.end(outcome="error", content={"error": {"type": "KeyError", "message": "'name'"}})
    agent.turn([USER], "Hello.")
    agent.end()

    assert agent.story().status == "answered: no failures"


def test_identical_calls_in_a_row_are_a_loop() -> None:
    """Three or more; that they brought nothing new makes it a bad one."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        call = called("poll", number, order=1)
        answer = agent.turn(messages, None, call)
        agent.tool("poll", {"order": 1}, "wait", asked_by=answer)
        messages.append(result(call, "wait"))
    agent.turn(messages, "I gave up.")
    story = agent.story()

    assert [use.repeats for turn in turns(story) for use in turn.tools] == [0, 1, 2]
    assert explained(story) == [
        "! poll(order=1) was called 3 times in a row (turns 1 to 3), each time with the same result"
        ' -> turn 4 answered "I gave up."'
    ]


def test_a_call_that_was_asked_for_and_never_made_is_told() -> None:
    """Not if its result was sent to the model: then a tool ran that is not traced."""
    agent, messages = Agent(), [USER]
    lost, untraced = called("lost", order=1), called("untraced")
    agent.turn(messages, None, lost, untraced)
    messages.append(result(untraced, "done"))
    agent.turn(messages, "Done.")

    assert explained(agent.story()) == [
        '! turn 1 asked for lost({"order": 1}), never called -> turn 2 answered "Done."'
    ]


@pytest.mark.parametrize(
    ("reason", "told", "status"),
    [
        ("length", "cut off at the token limit", "cut off at the token limit: no failures"),
        ("MAX_TOKENS", "cut off at the token limit", "cut off at the token limit: no failures"),
        (
            "content_filter",
            "stopped by a refusal or a filter",
            "stopped by a refusal or a filter: no failures",
        ),
    ],
)
def test_an_answer_that_was_cut_off_is_told(reason: str, told: str, status: str) -> None:
    """It is bad if nothing came after it."""
    agent = Agent()
    agent.turn([USER], "Once upon a", finish=reason)
    story = agent.story()

    assert explained(story) == [f"! turn 1 was {told} ({reason})"]
    assert story.status == status


def test_a_prompt_that_jumped_is_told_with_what_made_it_long() -> None:
    """By more than half and 2,000 tokens; how much each turn added stands in it."""
    agent, messages = Agent(), [USER]
    call = called("read")
    answer = agent.turn(messages, None, call, usage={"promptTokens": 3000, "completionTokens": 9})
    agent.tool("read", {}, asked_by=answer)
    messages.append(result(call, "x" * 9000))
    agent.turn(
        messages, "Done.", usage={"promptTokens": 1000, "cacheReadTokens": 4500, "completionTokens": 9}
    )
    story = agent.story()

    assert [turn.grown for turn in turns(story)] == [None, 2500]
    assert explained(story) == [
        "turn 2: the prompt grew by 2,500 to 5,500 tokens"
        " -> the longest of what is new: the result of read, 9,000 characters"
    ]


def test_a_changed_prompt_is_told_with_what_it_did_to_the_cache() -> None:
    """The system prompt here."""
    agent, messages = Agent(), [USER]
    usage = {"promptTokens": 100, "cacheReadTokens": 900, "completionTokens": 9}
    agent.turn(messages, "Hello.", systemPrompt="Be kind.", usage=usage)
    messages.append({"role": "user", "content": "And?"})
    agent.turn(
        messages, "Bye.", systemPrompt="Be brief.", usage={"promptTokens": 1000, "completionTokens": 9}
    )

    assert explained(agent.story()) == [
        "turn 2 changed the prompt: the system prompt was edited"
        " -> cached share of the prompt fell from 90 % to 0 %"
    ]


def test_a_cache_that_lost_little_is_not_the_price_of_a_change() -> None:
    """The share falls a little by itself, when much is new."""
    agent, messages = Agent(), [USER]
    agent.turn(
        messages, "Hello.", systemPrompt="Be kind.", usage={"promptTokens": 100, "cacheReadTokens": 900}
    )
    messages.append({"role": "user", "content": "And?"})
    agent.turn(
        messages, "Bye.", systemPrompt="Be brief.", usage={"promptTokens": 150, "cacheReadTokens": 900}
    )

    assert explained(agent.story()) == ["turn 2 changed the prompt: the system prompt was edited"]


def test_a_turn_says_whether_the_cache_lost_something() -> None:
    """Where both turns were counted, and the share fell by a tenth or more."""
    agent, messages = Agent(), [USER]
    for cached in (0, 900, 880, 100):
        usage = {"promptTokens": 1000 - cached, "cacheReadTokens": cached, "completionTokens": 9}
        agent.turn(messages, "Hello.", usage=usage)
        messages.append({"role": "user", "content": "And?"})
    agent.turn(messages, "Bye.")

    assert [turn.lost for turn in turns(agent.story())] == [None, False, False, True, None]


@pytest.mark.parametrize(
    ("window", "removes"),
    [
        ([{"role": "user", "content": "And then?"}], True),
        ([{"role": "user", "content": "In short: refunded."}, {"role": "user", "content": "And?"}], False),
    ],
    ids=["removed", "replaced"],
)
def test_messages_that_went_are_told_from_those_that_were_replaced(
    window: list[dict[str, str]], removes: bool
) -> None:
    """Where only the latest messages are sent, some go at each turn."""
    agent, messages = Agent(), [USER]
    for number in range(3):
        agent.turn(messages, f"Hello {number}.")
        messages.append({"role": "user", "content": f"And {number}?"})
    agent.turn(messages[:1] + window[:-1] + messages[4:] + window[-1:], "Bye.")
    (change,) = turns(agent.story())[-1].changes

    assert (change.part, change.only_removes) == ("history", removes)


def test_each_turn_says_what_was_done_next() -> None:
    """So that a failure which nobody tried to make good has its line at its place."""
    agent, messages = Agent(), [USER]
    call = called("search", q="order")
    answer = agent.turn(messages, None, call)
    agent.tool("search", {"q": "order"}, asked_by=answer, error=("OSError", "no"))
    messages.append(result(call, "no"))
    agent.turn(messages, None, called("look_up", order=1))
    messages.append(result(called("look_up", order=1), "teapot"))
    agent.turn(messages, "It is a teapot.")

    assert [(turn.continued_by, turn.next) for turn in turns(agent.story())] == [
        (2, "turn 2 went on with look_up"),
        (3, 'turn 3 answered "It is a teapot."'),
        (0, ""),
    ]


def test_the_longest_call_is_told_if_it_took_a_third_of_the_time() -> None:
    """And a second."""
    agent = Agent()
    agent.turn([USER], "Hello.")
    agent.tool("wait", {}, took=1500)
    agent.tool("short", {}, took=900)

    assert explained(agent.story()) == ["turn 1: wait() took 1.5 s of 2.4 s"]


def test_calls_of_a_process_that_is_gone_are_told() -> None:
    """Of calls inside each other the innermost; while it goes on they are open."""
    agent = Agent()
    step = agent.step("plan")
    agent.begin_tool("look", {"n": 1}, within=step)
    going_on, gone = tell(agent.events), tell(agent.events, lambda token: token == "9f2c41aa01be")

    assert (going_on.status, going_on.ended_reason) == ("running: 1 call open", "running")
    assert going_on.whys == []
    assert gone.status == "stopped: the process ended in the middle"
    assert explained(gone) == ["! look(n=1) never ended: its process is gone"]


def test_a_cancelled_call_is_told() -> None:
    """It did not fail."""
    agent = Agent()
    step = agent.begin_tool("look", {})
    about = {"tool": "look", "latencyMs": 30, "outcome": "cancelled"}
    content = {"toolCalls": [{"name": "look"}], "toolResults": {"cancelled": True}}
    agent.event("tool_call_response", step, within=step, metadata=about, content=content)
    story = agent.story()

    assert (story.failed, explained(story)) == (0, ["look() was cancelled after 30 ms"])


def test_a_retry_that_failed_too_is_not_a_recovery() -> None:
    """With the same error or another one, of tools and of models."""
    agent = Agent()
    messages = [USER]
    agent.breaks(messages, "slow down")
    agent.breaks(messages, "slower")
    agent.breaks(messages, "slowest")
    for name, errors in (("same", ["no", "no"]), ("other", ["no", "never"])):
        for error in errors:
            agent.tool(name, {}, error=("OSError", error), within=agent.step(name))

    assert explained(agent.story()) == [
        "! turn 1: the model (gpt-4o) was rate limited: RateLimitError: slow down"
        " -> tried again 2 times, at last in turn 3: failed: RateLimitError: slowest",
        "! same() failed: OSError: no -> a later call tried again with the same arguments:"
        " failed with the same error",
        "! other() failed: OSError: no -> a later call tried again with the same arguments:"
        " failed: OSError: never",
    ]


def test_a_turn_may_be_tried_again_with_another_model() -> None:
    """Or by another function, as long as it goes on from it."""
    agent = Agent()
    agent.breaks([USER], "slow down", function="ask")
    agent.turn([USER], "Hello.", function="ask_other")

    assert explained(agent.story()) == [
        "turn 1: the model (gpt-4o) was rate limited: RateLimitError: slow down"
        " -> turn 2 tried again with ask_other: ok"
    ]


def test_a_failed_turn_without_messages_is_tried_again_by_the_same_function() -> None:
    """In the same place."""
    agent = Agent()
    agent.breaks([], "slow down")
    agent.turn([], "Other.", function="other")
    agent.turn([], "Hello.")
    story = agent.story()

    assert [turn.retry_of for turn in turns(story)] == [0, 0, 1]


def test_changed_arguments_are_told_by_their_paths() -> None:
    """Members that came, went or differ, inside of others too; the first of many."""
    agent = Agent()
    before = {"a": 1, "gone": True, "items": [{"price": 1, "id": 7}], "list": [1]}
    after = {"a": 1, "items": [{"price": 2, "id": 7}], "list": [1, 2], "new": "x", "more": 1}
    agent.tool("pay", before, error=("OSError", "no"))
    agent.tool("pay", after)
    story = agent.story()
    second = story.sections[0].tools[1]

    assert second.changes == [
        Change("gone", "true", None),
        Change("items[0].price", "1", "2"),
        Change("list", "[1]", "[1, 2]"),
        Change("new", None, '"x"'),
        Change("more", None, "1"),
    ]
    assert explained(story)[0].endswith(
        "tried again with no gone (was true), items[0].price=2 (was 1), list=[1, 2] (was [1]) and 2 more changes: ok"
    )


def test_what_the_agent_did_next_may_be_another_call_or_a_failure() -> None:
    """The first tools that it asked for are named."""
    stories = []
    for asked in (["a", "b", "c", "d"], []):
        agent, messages = Agent(), [USER]
        answer = agent.turn(messages, None, called("look"))
        agent.tool("look", {}, asked_by=answer, error=("OSError", "no"))
        messages.append(result(called("look"), "no"))
        if asked:
            agent.turn(messages, None, *(called(name, 5) for name in asked))
        else:
            agent.breaks(messages, "slow down")
        stories.append(agent.story())

    assert [story.whys[0].then for story in stories] == [
        "turn 2 went on with a, b, c and others", "turn 2 failed: RateLimitError: slow down",
    ]  # fmt: skip


def test_a_failing_embedding_and_a_failing_step_are_told() -> None:
    """The step failed of itself."""
    agent = Agent()
    request = agent.event("embedding_request", metadata={"function": "embed"}, content={"input": ["tea"]})
    error = {"type": "APIError", "message": "down"}
    agent.event("error", request, within=request, metadata={"function": "embed"}, content=error)
    step = agent.step("plan")
    about = {"step": "plan", "outcome": "error"}
    content = {"error": {"type": "ReadTimeout", "message": ""}}
    agent.events.append(agent.process.event("step_end", step, metadata=about, content=content))
    story = agent.story()

    assert explained(story) == [
        '! embed(["tea"]) failed: APIError: down',
        "! step plan timed out: ReadTimeout",
    ]
    assert (story.failed, story.recovered) == (2, 0)


def test_a_trace_without_turns_tells_what_its_steps_were_given_and_returned() -> None:
    """The first one at the top, and the last one."""
    agent = Agent()
    step = agent.event("llm_thinking", metadata={"step": "plan", "input": "Book a table."})
    agent.events.append(
        agent.process.event("step_end", step, metadata={"step": "plan"}, content={"output": "Booked."})
    )
    story = agent.story()

    assert (story.asked, story.ended, story.status) == ("Book a table.", "Booked.", "answered: no failures")


def test_a_cancelled_trace_says_so() -> None:
    """And calls that never ended are counted where a trace went on without them."""
    agent = Agent()
    agent.begin_tool("look", {})
    agent.end(outcome="cancelled")
    other = Agent()
    other.begin_tool("look", {})
    other.turn([USER], "Hello.")
    other.end()

    assert agent.story().status == "cancelled: no failures"
    assert other.story().status == "answered: no failures, 1 call never ended"


def test_a_running_trace_with_a_step_alone_is_between_calls() -> None:
    """What failed so far is counted; a call asked for last may still be made."""
    agent = Agent()
    step = agent.step("plan")
    agent.tool("look", {}, error=("OSError", "no"), within=step)
    agent.turn([USER], None, called("act"), within=step)
    story = agent.story()

    assert story.status == "running: between calls, 1 call failed, not recovered"
    assert [why.kind for why in story.whys] == ["failed"]


def test_what_a_proxy_adds_to_arguments_is_left_out() -> None:
    """So that the call is found; arguments that are not JSON stay as they are."""
    agent = Agent()
    agent.turn(
        [USER], None, called("look", n=1, _whyops_trace_id="t"), {"function": {"name": "x", "arguments": "{"}}
    )
    agent.tool("look", {"n": 1})
    look, other = turns(agent.story())[0].calls

    assert (look.arguments, look.step, other.arguments) == ({"n": 1}, 3, "{")


def test_a_broken_stream_keeps_what_it_said() -> None:
    """As the answer of the failed turn."""
    agent = Agent()
    request = agent.request(USER)
    content = {"type": "APIError", "message": "cut", "partial": "I ref"}
    agent.event("error", request, within=request, metadata={"function": "ask"}, content=content)
    (turn,) = turns(agent.story())

    assert (turn.answer, turn.error) == ("I ref", "APIError: cut")


def test_many_lines_of_a_kind_are_counted() -> None:
    """So that one kind does not hide the others."""
    agent = Agent()
    for number in range(30):
        agent.tool(f"tool {number}", {}, error=("OSError", "no"))
    lines = explained(agent.story())

    assert len(lines) == 5
    assert lines[-1] == "! 26 more: calls that failed"


def test_events_by_hand_make_turns() -> None:
    """A request and the answer after it are one turn, whatever was recorded between the two."""
    agent = Agent()
    agent.event("user_message", content={"messages": [USER]})
    tool = agent.tool("look", {})
    agent.event("llm_thinking", content={"type": "thinking", "thinking": "Hm."})
    about = {"model": "gpt-4o", "provider": "openai"}
    agent.event("llm_response", tool, metadata=about, content={"content": "One moment."})
    agent.event("tool_result", content={"toolName": "look", "output": {"found": 1}})
    agent.event("llm_response", metadata=about, content={"content": "Found."})
    story = agent.story()
    first, second = turns(story)

    assert (first.messages[0].text, first.thinking, first.answer) == (USER["content"], ["Hm."], "One moment.")
    assert (second.messages[0].role, second.messages[0].name) == ("tool", "look")
    assert (second.messages[0].text, second.answer, second.continues) == ('{"found": 1}', "Found.", 1)
    assert story.status == "answered: no failures"


def test_a_result_recorded_by_itself_tells_nothing_of_the_prompt() -> None:
    """It has no system prompt and no tools, which does not mean that they were taken away."""
    agent = Agent()
    tools = [{"type": "function", "function": {"name": "look"}}]
    agent.request(USER, function="", systemPrompt="Be kind.", tools=tools)
    agent.event("llm_response", content={"toolCalls": [called("look")]})
    agent.event("tool_result", content={"toolName": "look", "output": {"found": 1}})
    agent.event("llm_response", content={"content": "Found it."})
    first, second = turns(agent.story())

    assert (first.system, first.offered) == ("Be kind.", ["look"])
    assert (second.continues, second.changes, second.system, second.offered) == (1, [], "", [])


def test_a_failure_recorded_by_hand_belongs_to_its_request() -> None:
    """By the parent of the event."""
    agent = Agent()
    request = agent.event("user_message", content={"messages": [USER]})
    agent.event("error", request, content={"type": "APIError", "message": "down"})
    tool = agent.begin_tool("look", {})
    agent.event("error", tool, content={"type": "OSError", "message": "no"})
    story = agent.story()
    (turn,) = turns(story)

    assert (turn.error, [use.error for use in turn.tools]) == ("APIError: down", ["OSError: no"])
    assert (story.failed, len(story.sections)) == (2, 1)


def test_a_failure_recorded_inside_of_a_call_is_its_own() -> None:
    """The call may end well all the same."""
    agent = Agent()
    tool = agent.begin_tool("look", {})
    agent.event("error", tool, within=tool, content={"type": "OSError", "message": "no"})
    response = {"toolCalls": [{"name": "look"}], "toolResults": {"result": "found"}}
    agent.event("tool_call_response", tool, within=tool, metadata={"tool": "look"}, content=response)
    first, second = agent.story().sections

    assert [(use.error, use.result) for use in first.tools] == [("", "found")]
    assert ([node.error for node in second.others], second.path) == (["OSError: no"], ["look"])


def test_an_answer_without_a_request_is_a_turn() -> None:
    """And so is a request without messages."""
    agent = Agent()
    agent.event("llm_response", metadata={"model": "gpt-4o"}, content={"content": "Hello."})
    agent.event("user_message", metadata={"function": "ask"})
    first, second = turns(agent.story())

    assert (first.answer, first.messages) == ("Hello.", [])
    assert (second.messages, second.node.status) == ([], "running")


def test_a_trace_without_an_answer_says_so() -> None:
    """The model said nothing."""
    agent = Agent()
    agent.turn([USER], "")
    agent.end()

    assert agent.story().status == "ended without an answer: no failures"


def test_embeddings_and_other_events_are_told() -> None:
    """In a section of their own."""
    agent = Agent()
    agent.event("embedding_request", content={"input": ["tea"]})
    agent.event("error", content={"type": "OSError", "message": "no"})
    (section,) = agent.story().sections

    assert [(node.kind, node.name) for node in section.others] == [
        ("embedding", "embedding"),
        ("event", "error"),
    ]


def test_an_empty_trace_has_an_empty_story() -> None:
    """Nothing is asked, and nothing failed."""
    story = tell([])

    assert (story.sections, story.whys, story.status) == ([], [], "finished: no failures")


STRANGE: list[Any] = [
    None, True, -1, 0, 5, 2**70, 1.5, float("nan"), "", "x", "\x1b[31m\u202e\ud800", '{"a":', [], {}, [[]], [None, "x"],
    [{"type": "text"}], {"role": "user"}, {"type": 3, "text": 4}, {"error": {"message": "no"}}, {"messages": [1]},
    "tool_call_request", "tool_call_response", "user_message", "tool_result", "llm_response", "error", "trace_end",
]  # fmt: skip


def places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value inside of a value."""
    members = (
        thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    )
    return [found for key, member in members for found in [(*path, key), *places(member, (*path, key))]]


def mangled(events: list[dict[str, Any]], data: st.DataObject) -> list[dict[str, Any]]:
    """Return records of which some values are others, some are gone, and the order may be any."""
    events = json.loads(json.dumps(events))
    for _ in range(data.draw(st.integers(1, 12))):
        path = data.draw(st.sampled_from(places(events)))
        holder: Any = events
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = json.loads(json.dumps(data.draw(st.sampled_from(STRANGE))))
    events = [event for event in events if isinstance(event, dict)]
    return data.draw(st.permutations(events)) if data.draw(st.booleans()) else events


@given(data=st.data())
def test_strange_records_have_a_story(data: st.DataObject) -> None:
    """Whatever is in which member, and in whatever order they come; its lines are safe to print."""
    agent = refund()
    agent.breaks([USER, said("hm")], "slow down")
    step = agent.step("plan")
    agent.event("embedding_request", within=step, content={"input": ["tea"]})
    story = tell(mangled(agent.events, data), lambda _: data.draw(st.booleans()))
    shown = [story.status, *(text for why in story.whys for text in (why.text, why.then))]

    assert all(text.isprintable() for text in shown)
    assert all(0 <= place <= len(story.sections) for place in story.steps.values())


def test_a_call_inside_a_cancelled_one_is_no_retry_of_it() -> None:
    """A client's call and the server's, which has the same name and goes on."""
    agent = Agent()
    outer = agent.begin_tool("add", {"a": 1})
    cancelled = {"tool": "add", "outcome": "cancelled"}
    agent.event("tool_call_response", outer, within=outer, metadata=cancelled, content={"toolResults": {}})
    agent.tool("add", {"a": 1}, 1, within=outer)
    story = agent.story()

    assert [use.retry_of for section in story.sections for use in section.uses] == [0, 0]


def test_a_call_that_stands_before_the_turn_that_asked_for_it_has_a_story() -> None:
    """The numbers of another program may say so; the call is told where it stands."""
    agent = Agent()
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    agent.tool("look", {}, {"found": 1})
    agent.turn([USER], "Let me look.", call)
    agent.events[0]["metadata"]["requestedBy"] = agent.events[-1]["stepId"]

    first, second = agent.story().sections

    assert [use.node.name for use in first.tools] == ["look"]
    assert second.turn is not None


def nested() -> Any:
    """Return a value nested deeper than anything that reads it goes."""
    deep: Any = "x"
    for _ in range(2_000):
        deep = [deep]
    return deep


def test_a_value_nested_without_end_has_a_story() -> None:
    """In arguments, messages and results."""
    agent = Agent()
    call = {"id": "c1", "function": {"name": "look", "arguments": {"deep": nested()}}}
    given = [
        {"role": "user", "content": nested()},
        nested(),
        {"role": "assistant", "content": {"deep": nested()}},
    ]
    agent.turn(given, "Hello.", call, tools=nested())
    agent.tool("look", {"deep": nested()}, nested(), error=("OSError", "no"))
    agent.tool("look", {"deep": [nested()]}, nested())

    assert agent.story().status == "stopped after look: 1 call failed, recovered"
