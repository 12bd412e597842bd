"""What a model was given, in whatever form: which turn goes on from which, what is new, and what was changed."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from tales import USER, Agent, called, result, said

from whyops_trace.story import Message, Story, Turn
from whyops_trace.story.messages import read_message, read_prompt

NEXT = {"role": "user", "content": "And then?"}


def turns(story: Story) -> list[Turn]:
    """Return the turns of a story."""
    return [section.turn for section in story.sections if section.turn is not None]


def links(agent: Agent) -> list[tuple[int, int]]:
    """Return for each turn which one it goes on from, and how many messages stood before the new ones."""
    return [(turn.continues, turn.earlier) for turn in turns(agent.story())]


def news(turn: Turn) -> list[str]:
    """Return the new messages of a turn as lines."""
    return [f"{message.role}: {message.text}" for message in turn.messages]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Hello", [Message("user", "Hello")]),
        (7, [Message("", "7")]),
        ({"role": "user", "content": "Hello"}, [Message("user", "Hello")]),
        ({"role": "user", "content": None}, [Message("user", "")]),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"type": "image_url"}]},
            [Message("user", "a\nb", other="1 image")],
        ),
        (
            {"role": "user", "content": [{"type": "input_image"}, {"type": "image"}, {"type": "document"}]},
            [Message("user", "", other="2 images, 1 file")],
        ),
        ({"role": "function", "name": "look", "content": "x"}, [Message("tool", "x", name="look")]),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"id": 1}]},
            [Message("tool", '[{"id": 1}]', name="track", call_id="c1")],
        ),
        (
            {"type": "function_call_output", "call_id": "c1", "output": {"a": 1}},
            [Message("tool", '{"a": 1}', name="track", call_id="c1")],
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "x"}]},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "y"},
                    {"type": "text", "text": "Go on."},
                ],
            },
            [
                Message("tool", "x", name="track", call_id="c1"),
                Message("tool", "y", call_id="c2"),
                Message("user", "Go on."),
            ],
        ),
        ({"type": "item_reference", "id": "rs_1"}, [Message("assistant", "", other="1 item_reference")]),
        (
            {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
            [Message("assistant", "Hi")],
        ),
    ],
)
def test_a_message_of_any_form_is_read(message: Any, expected: list[Message]) -> None:
    """As text, with the tool whose result it is and what it holds beside texts."""
    assert read_message(message, {"c1": "track"}) == expected


@pytest.mark.parametrize(
    "message",
    [
        said("I look.", called("look", 1, order=8841)),
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "I look."}],
            "tool_calls": [called("look", 1, order=8841)],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm."},
                {"type": "text", "text": "I look.", "cache_control": {"type": "ephemeral"}},
                {"type": "tool_use", "id": "call_look_1", "name": "look", "input": {"order": 8841}},
            ],
        },
    ],
    ids=["chat", "parts", "blocks"],
)
def test_a_message_of_an_assistant_has_its_calls(message: dict[str, Any]) -> None:
    """In the forms of each provider."""
    (read,) = read_message(message, {})
    (call,) = read.calls

    assert (read.role, read.text, read.other) == ("assistant", "I look.", "")
    assert (call.id, call.name, call.arguments) == ("call_look_1", "look", {"order": 8841})


@pytest.mark.parametrize(
    ("content", "metadata", "system", "messages"),
    [
        ("Hello", {}, "", ["Hello"]),
        (None, {}, "", []),
        ({}, {}, "", []),
        ({"messages": [USER]}, {"systemPrompt": "Be kind."}, "Be kind.", [USER]),
        ({"messages": [{"role": "developer", "content": "Be kind."}, USER]}, {}, "Be kind.", [USER]),
        ({"messages": "Hello"}, {}, "", ["Hello"]),
        (
            {"toolName": "look", "output": {"a": 1}},
            {},
            "",
            [{"role": "tool", "name": "look", "content": {"a": 1}}],
        ),
        ([USER], {}, "", [USER]),
    ],
)
def test_a_request_of_any_form_is_read(
    content: Any, metadata: Mapping[str, Any], system: str, messages: list[Any]
) -> None:
    """The system prompt stands apart, wherever it was told."""
    prompt = read_prompt(content, metadata)

    assert (prompt.system, prompt.messages) == (system, messages)


def test_a_turn_tells_only_what_is_new_since_the_one_it_goes_on_from() -> None:
    """Without the answer that only repeats that turn's."""
    agent, messages = Agent(), [USER]
    call = called("look")
    agent.turn(messages, "I look.", call)
    messages.append(result(call, "found"))
    agent.turn(messages, "Found.")
    messages.append(NEXT)
    agent.turn(messages, "Nothing.")

    assert links(agent) == [(0, 0), (1, 2), (2, 4)]
    assert [news(turn) for turn in turns(agent.story())] == [
        ["user: Refund order 8841."],
        ["tool: found"],
        ["user: And then?"],
    ]
    assert turns(agent.story())[1].messages[0].name == "look"


def test_a_conversation_of_anthropics_blocks_is_followed() -> None:
    """Though marks of what is to be cached move, and texts become blocks."""
    agent = Agent()
    call = {"id": "c1", "function": {"name": "look", "arguments": '{"order": 1}'}}
    agent.answer(agent.request({"role": "user", "content": "Hello"}), "I look.", call)
    marked = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    use = {"type": "tool_use", "id": "c1", "name": "look", "input": {"order": 1}}
    agent.answer(
        agent.request(
            {"role": "user", "content": [marked]},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "found"}]},
        ),
        "Found.",
    )
    second = turns(agent.story())[1]

    assert (links(agent), news(second), second.changes) == ([(0, 0), (1, 2)], ["tool: found"], [])


def test_items_of_openais_responses_are_followed() -> None:
    """An answer comes back as several items."""
    agent = Agent()
    call = {"id": "c1", "function": {"name": "look", "arguments": '{"order": 1}'}}
    agent.answer(agent.request(USER), "I look.", call)
    agent.answer(
        agent.request(
            USER,
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"order": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "found"},
        ),
        "Found.",
    )

    assert links(agent) == [(0, 0), (1, 4)]
    assert news(turns(agent.story())[1]) == ["tool: found"]


def test_a_result_without_a_history_goes_on_from_the_turn_that_asked_for_it() -> None:
    """As where the provider keeps the conversation."""
    agent = Agent()
    agent.turn([USER], None, called("look", 1))
    agent.turn([{"role": "user", "content": "Something else."}], "Else.")
    agent.answer(agent.request(result(called("look", 1), "found")), "Found.")

    assert links(agent) == [(0, 0), (0, 0), (1, 0)]


def test_texts_without_a_history_go_on_from_the_turn_before_them() -> None:
    """As a proxy stores them."""
    agent = Agent()
    for text in ("Hello", "And then?"):
        request = agent.event("user_message", content=text)
        agent.answer(request, "Well.", function="")

    assert links(agent) == [(0, 0), (1, 0)]
    assert [news(turn) for turn in turns(agent.story())] == [["user: Hello"], ["user: And then?"]]


def test_conversations_that_run_at_the_same_time_are_told_apart() -> None:
    """Each turn finds the one before it in its own."""
    agent = Agent()
    one, other = [{"role": "user", "content": "one"}], [{"role": "user", "content": "other"}]
    for number in range(3):
        for messages in (one, other):
            agent.turn(messages, f"{messages[0]['content']} {number}")
            messages.append(NEXT)

    assert links(agent) == [(0, 0), (0, 0), (1, 2), (2, 2), (3, 4), (4, 4)]


def test_the_same_question_to_another_agent_begins_a_conversation() -> None:
    """One with another system prompt; but not if somebody answered before."""
    agent, messages = Agent(), [USER]
    agent.turn(list(messages), "Ask the expert.", systemPrompt="You are a clerk.")
    agent.turn(messages, "Here.", systemPrompt="You are an expert.")
    messages.append(NEXT)
    agent.turn(messages, "There.", systemPrompt="You are a judge.")

    assert links(agent) == [(0, 0), (0, 0), (2, 2)]
    assert [turn.system for turn in turns(agent.story())] == [
        "You are a clerk.", "You are an expert.", "You are a judge.",
    ]  # fmt: skip


def test_an_agent_that_is_given_a_history_goes_on_from_where_it_was_taken() -> None:
    """Another agent, with a system prompt of its own, while the first one goes on."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "One.", systemPrompt="You are a clerk.")
    handed = [*messages, NEXT]
    messages.append({"role": "user", "content": "More."})
    agent.turn(messages, "Two.", systemPrompt="You are a clerk.")
    agent.turn(handed, "Three.", systemPrompt="You are an expert.")
    last = turns(agent.story())[-1]

    assert (last.continues, last.earlier) == (1, 2)
    assert [change.part for change in last.changes] == ["system"]


def test_images_tell_messages_apart_and_marks_on_them_do_not() -> None:
    """As a mark of what is to be cached moves from message to message."""

    def shown(data: str, **mark: Any) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image", "source": {"data": data}, **mark}]}

    agent = Agent()
    agent.turn([shown("a", cache_control={"type": "ephemeral"})], "A tea pot.")
    agent.turn([shown("a"), said("A tea pot."), NEXT], "Nothing.")
    agent.turn([shown("b")], "A cup.")

    assert links(agent) == [(0, 0), (1, 2), (0, 0)]
    assert [turn.changes for turn in turns(agent.story())] == [[], [], []]


def test_branches_go_on_from_where_they_part() -> None:
    """Without a change: nothing of what was sent was edited."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "One or two?")
    for choice in ("one", "two"):
        branch = [*messages, {"role": "user", "content": choice}]
        agent.turn(branch, f"You chose {choice}.")
        agent.turn([*branch, NEXT], "That is all.")

    assert links(agent) == [(0, 0), (1, 2), (2, 4), (1, 2), (4, 4)]
    assert [turn.changes for turn in turns(agent.story())] == [[]] * 5


def talked(agent: Agent, count: int) -> list[Any]:
    """Return the messages of a conversation of so many turns, each with a tool call."""
    messages: list[Any] = [USER]
    for number in range(count):
        call = called("look", number, n=number)
        agent.turn(messages, None, call)
        messages.append(result(call, f"seen {number}"))
    return messages


@pytest.mark.parametrize(
    ("edit", "summary", "new"),
    [
        (
            lambda sent: [*sent[:2], result(called("look", 0), "[cleared]"), *sent[3:]],
            "message 3 of 8 was edited",
            1,
        ),
        (lambda sent: [*sent[:1], *sent[3:]], "messages 2 to 3 of 8 were removed", 1),
        (lambda sent: [*sent[:3], NEXT, *sent[3:]], "1 message was inserted before message 4", 1),
        (lambda sent: [USER, NEXT, *sent[-2:]], "6 messages were replaced by 1", 1),
        (lambda sent: [USER, NEXT], "7 messages were replaced by 1", 1),
        (lambda sent: [NEXT, *sent[1:]], "message 1 of 8 was edited", 1),
    ],
    ids=["edited", "removed", "inserted", "compacted", "replaced", "first"],
)
def test_an_edited_history_is_a_continuation_with_a_change(edit: Any, summary: str, new: int) -> None:
    """It goes on from the latest turn of its conversation; the change is told with its texts."""
    agent = Agent()
    sent = talked(agent, 4)
    agent.answer(agent.request(*edit(sent)), "Done.")
    last = turns(agent.story())[-1]
    (change,) = last.changes

    assert (last.continues, len(last.messages)) == (4, new)
    assert (change.part, change.summary) == ("history", summary)
    assert change.diff


def test_the_answer_may_come_back_changed_with_an_edit() -> None:
    """It is not a part of what was sent."""
    agent = Agent()
    sent = talked(agent, 2)
    agent.answer(agent.request(*sent), "Done.")
    sent[2] = result(called("look", 0), "[cleared]")
    agent.answer(agent.request(*sent, said("Done!"), NEXT), "Really.")
    last = turns(agent.story())[-1]

    assert [change.summary for change in last.changes] == ["message 3 of 6 was edited"]
    assert news(last) == ["assistant: Done!", "user: And then?"]


def test_many_edits_are_counted() -> None:
    """The first of them are told."""
    agent = Agent()
    sent = talked(agent, 6)
    for place in (2, 4, 6, 8):
        sent[place] = {**sent[place], "content": "[cleared]"}
    agent.answer(agent.request(*sent), "Done.")
    (change,) = turns(agent.story())[-1].changes

    assert change.summary.startswith("message 3 of 12 was edited, message 5 of 12 was edited, ")
    assert change.summary.endswith(", and 1 more edits")


# From Python 3.14 on, C code follows as deep as the stack is large.
@pytest.mark.parametrize("depth", [1_000_000] if sys.version_info >= (3, 14) else [2_000, 1_000_000])
def test_a_message_nested_without_end_is_read(depth: int) -> None:
    """As something that cannot be shown."""
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]

    assert read_message({"role": "assistant", "content": {"deep": deep}}, {}) == [Message("assistant", "…")]


def test_what_an_edit_changed_is_a_diff_of_the_texts() -> None:
    """Of those that changed alone."""
    agent = Agent()
    sent = talked(agent, 2)
    sent[2] = result(called("look", 0), "[cleared]")
    agent.answer(agent.request(*sent), "Done.")

    assert turns(agent.story())[-1].changes[0].diff == ["@@ -1 +1 @@", "-tool: seen 0", "+tool: [cleared]"]


def test_a_turn_after_an_edit_goes_on_from_it() -> None:
    """Exactly, without another change."""
    agent = Agent()
    sent = talked(agent, 4)
    sent = [USER, NEXT, *sent[-2:]]
    agent.turn(sent, "Done.")
    sent.append(NEXT)
    agent.turn(sent, "Really.")
    last = turns(agent.story())[-1]

    assert (last.continues, last.earlier, news(last), last.changes) == (5, 5, ["user: And then?"], [])


def test_tools_on_offer_are_told_once_and_when_they_change() -> None:
    """With what was added, taken away, or described in another way."""
    one, two = ({"type": "function", "function": {"name": name}} for name in ("look", "act"))
    changed = {"type": "function", "function": {"name": "look", "description": "Look."}}
    agent, messages = Agent(), [USER]
    for tools in ([one], [one], [changed, two], [two]):
        agent.turn(messages, "Well.", tools=tools)
        messages.append(NEXT)
    first, same, more, less = turns(agent.story())

    assert (first.offered, same.offered, same.changes) == (["look"], [], [])
    assert [(change.part, change.summary) for change in more.changes] == [
        ("tools", "act was added, look was changed")
    ]
    assert (more.offered, [change.summary for change in less.changes]) == (
        ["look", "act"],
        ["look was removed"],
    )


def test_a_changed_system_prompt_is_a_diff() -> None:
    """The new one is told whole."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "Hello.", systemPrompt="Be kind.\nBe brief.")
    messages.append(NEXT)
    agent.turn(messages, "Bye.", systemPrompt="Be kind.\nBe quick.")
    second = turns(agent.story())[1]

    assert second.system == "Be kind.\nBe quick."
    assert second.changes[0].diff == ["@@ -1,2 +1,2 @@", " Be kind.", "-Be brief.", "+Be quick."]


def test_a_question_asked_again_has_nothing_new() -> None:
    """As when a program asks once more for another answer."""
    agent = Agent()
    agent.turn([USER], "One.")
    agent.turn([USER], "Two.")

    assert links(agent) == [(0, 0), (1, 1)]
    assert turns(agent.story())[1].messages == []


def test_an_answer_that_comes_back_in_other_words_is_told() -> None:
    """As a change of the history."""
    agent, messages = Agent(), [USER]
    agent.turn(messages, "I do.")
    agent.turn([USER, said("I do not."), NEXT], "Well.")

    assert news(turns(agent.story())[1]) == ["assistant: I do not.", "user: And then?"]


def test_the_memory_of_a_conversation_grows_with_what_is_new() -> None:
    """Twice as many turns take twice as much, though they send four times as many messages."""
    peaks = []
    for count in (250, 500):
        agent = Agent()
        talked(agent, count)
        tracemalloc.start()
        story = agent.story()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

        assert story.turns == count

    assert peaks[1] < 2.5 * peaks[0]


def test_a_long_conversation_keeps_only_what_is_new() -> None:
    """Of the requests, which repeat it all each time, nothing else is in the story."""
    agent = Agent()
    talked(agent, 60)
    story = agent.story()
    kept = sum(len(turn.messages) for turn in turns(story))

    assert sum(len(event["content"].get("messages", ())) for event in agent.events) == 3_600
    assert kept == 60
    assert [turn.continues for turn in turns(story)] == list(range(60))
