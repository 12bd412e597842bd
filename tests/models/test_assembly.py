"""That the items of a stream give the answer that the same call gives without streaming."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider import Provider
from replies import Redacted, Reply, Thinking, ToolCall, Usage

from whyops_trace._models.answers import Turn, read_response
from whyops_trace._models.assembly import assemble, first_token, is_complete
from whyops_trace._models.sse import read_sse
from whyops_trace._values import mending

USER: list[Any] = [{"role": "user", "content": "Hello"}]
USAGE = Usage(fresh=12, cached=800, written_1h=30, written_5m=4, output=50, reasoning=20)
FIND = ToolCall("find", {"q": 'a "b" \n é', "deep": [{"x": 1.5}]}, "call_1")
REPLIES = [
    Reply("Hello, how can I help?", usage=USAGE),
    Reply(""),
    Reply("One moment.", tool_calls=(FIND, ToolCall("stop", {}, "call_2")), usage=USAGE),
    Reply(None, tool_calls=(FIND,)),
    Reply("Done.", thinking=(Thinking("First this, then that."), Redacted("x7"), Thinking("And so."))),
    Reply(refusal="I cannot help with that."),
    Reply("It goes on and", finish="length"),
    Reply("one", others=("two", "three")),
]


def plain(item: Any) -> Any:
    """Make an item plain, with nothing hidden."""
    return mending.plain(item, lambda name: False)


Connect = Callable[[Provider], Any]
Ask = Callable[[Any, Reply], Any]


def openai(provider: Provider) -> Any:
    """Return a client of the real package."""
    package = pytest.importorskip("openai")
    return package.OpenAI(api_key=provider.openai_key, base_url=provider.openai_url, max_retries=0)


def anthropic(provider: Provider) -> Any:
    """Return a client of the real package."""
    package = pytest.importorskip("anthropic")
    return package.Anthropic(api_key=provider.anthropic_key, base_url=provider.anthropic_url, max_retries=0)


def method(client: Any, path: str) -> Any:
    """Return a method of a client that not every version of the package has."""
    for name in path.split("."):
        client = getattr(client, name, None)
        if client is None:
            pytest.skip(f"this version has no {path}")
    return client


def chat_whole(client: Any, reply: Reply) -> Any:
    """Ask for a chat completion."""
    return client.chat.completions.create(model="gpt-4o", messages=USER, n=1 + len(reply.others))


#: The oldest version knows no such argument.
COUNTED: dict[str, Any] = {"stream_options": {"include_usage": True}}


def chat_chunks(client: Any, reply: Reply) -> list[Any]:
    """Ask for its chunks."""
    return list(
        client.chat.completions.create(
            model="gpt-4o", messages=USER, n=1 + len(reply.others), stream=True, extra_body=COUNTED
        )
    )


def chat_events(client: Any, reply: Reply) -> list[Any]:
    """Ask for the events of the package."""
    stream = method(client, "chat.completions.stream")
    with stream(model="gpt-4o", messages=USER, n=1 + len(reply.others), **COUNTED) as events:
        return list(events)


def response_whole(client: Any, reply: Reply) -> Any:
    """Ask for a response."""
    return method(client, "responses.create")(model="gpt-5", input="Hello")


def response_raw(client: Any, reply: Reply) -> list[Any]:
    """Ask for its events."""
    return list(method(client, "responses.create")(model="gpt-5", input="Hello", stream=True))


def response_events(client: Any, reply: Reply) -> list[Any]:
    """Ask for the events of the package."""
    with method(client, "responses.stream")(model="gpt-5", input="Hello") as events:
        return list(events)


MESSAGE: dict[str, Any] = {"model": "claude-5", "max_tokens": 99, "messages": USER}


def message_whole(client: Any, reply: Reply) -> Any:
    """Ask for a message."""
    return client.messages.create(**MESSAGE)


def message_raw(client: Any, reply: Reply) -> list[Any]:
    """Ask for its events."""
    return list(client.messages.create(**MESSAGE, stream=True))


def message_events(client: Any, reply: Reply) -> list[Any]:
    """Ask for the events of the package."""
    with client.messages.stream(**MESSAGE) as events:
        return list(events)


def beta_message_events(client: Any, reply: Reply) -> list[Any]:
    """Ask for the events of the package, with features to come."""
    with method(client, "beta.messages.stream")(**MESSAGE) as events:
        return list(events)


@pytest.mark.parametrize("reply", REPLIES, ids=range(len(REPLIES)))
@pytest.mark.parametrize(
    ("connect", "whole", "streamed"),
    [
        (openai, chat_whole, chat_chunks),
        (openai, chat_whole, chat_events),
        (openai, response_whole, response_raw),
        (openai, response_whole, response_events),
        (anthropic, message_whole, message_raw),
        (anthropic, message_whole, message_events),
        (anthropic, message_whole, beta_message_events),
    ],
)
def test_a_stream_is_read_as_the_answer_at_once(
    provider: Provider, reply: Reply, connect: Connect, whole: Ask, streamed: Ask
) -> None:
    """Whatever the real packages make of it."""
    provider.reply(reply, reply)
    with connect(provider) as client:
        expected = read_response(plain(whole(client, reply)))
        items = [plain(item) for item in streamed(client, reply)]

    assert read_response(assemble(items)) == expected
    assert is_complete(items)
    assert not is_complete(items[:1])


@pytest.mark.parametrize(
    ("connect", "streamed"), [(openai, chat_chunks), (openai, response_raw), (anthropic, message_raw)]
)
def test_a_stream_that_is_cut_gives_what_came(provider: Provider, connect: Connect, streamed: Ask) -> None:
    """Each prefix says as much as the one before, or more."""
    reply = Reply("Hello, how can I help?", thinking=(Thinking("First this."),), tool_calls=(FIND,))
    provider.reply(reply)
    with connect(provider) as client:
        items = [plain(item) for item in streamed(client, reply)]
    turns = [read_response(assemble(items[:end])) for end in range(1, len(items) + 1)]
    texts = [turn.content or "" for turn in turns]
    thoughts = ["".join(thought["thinking"] for thought in turn.thinking) for turn in turns]
    arguments = ["".join(call["function"]["arguments"] for call in turn.tool_calls) for turn in turns]

    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(thoughts))
    assert len(set(texts)) > 4
    assert len(set(thoughts)) == (1 if streamed is chat_chunks else 3)
    assert len(set(arguments)) > 4


def chunk(*deltas: dict[str, Any], finish: str | None = None, **members: Any) -> dict[str, Any]:
    """Return a chat chunk with a delta for each choice."""
    choices = [
        {"index": index, "delta": delta, "finish_reason": finish} for index, delta in enumerate(deltas)
    ]
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **members}


def call(index: int | None = None, **members: Any) -> dict[str, Any]:
    """Return a delta with a piece of a tool call."""
    return {"tool_calls": [members if index is None else {"index": index, **members}]}


def asked(name: str, arguments: str, **more: Any) -> Any:
    """Return a tool call as it is recorded."""
    return {"function": {"name": name, "arguments": arguments}, **more}


def openai_turn(content: str | None = None, **members: Any) -> Turn:
    """Return what is read of a chat completion."""
    return Turn(content, provider="openai", model="m", **members)


CHATS: dict[str, tuple[list[Any], Turn]] = {
    "empty": ([chunk({"role": "assistant", "content": None})], openai_turn()),
    "no_text": (
        [chunk({"role": "assistant", "content": ""}), chunk({}, finish="stop")],
        openai_turn("", finish_reason="stop"),
    ),
    "no_choice": ([chunk()], openai_turn()),
    "reasoning_content": (
        [
            chunk({"reasoning_content": "h", "content": None}),
            chunk({"reasoning_content": "m", "content": None}),
            chunk({"reasoning_content": None, "content": "Hi."}),
        ],
        openai_turn("Hi.", thinking=[{"type": "thinking", "thinking": "hm"}]),
    ),
    "reasoning": (
        [chunk({"reasoning": "h"}), chunk({"reasoning": "m"})],
        openai_turn(thinking=[{"type": "thinking", "thinking": "hm"}]),
    ),
    "function_call": (
        [
            chunk({"function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"x"'}}),
            chunk({"function_call": {"arguments": ":1}"}}),
            chunk({}, finish="function_call"),
        ],
        openai_turn(tool_calls=[asked("f", '{"x":1}')], finish_reason="function_call"),
    ),
    "custom_tool": (
        [
            chunk(call(0, id="c1", type="custom", custom={"name": "run", "input": ""})),
            chunk(call(0, custom={"input": "ls "})),
            chunk(call(0, custom={"input": "-l"})),
        ],
        openai_turn(tool_calls=[asked("run", "ls -l", id="c1")]),
    ),
    "interleaved": (
        [
            chunk(call(1, id="c2", function={"name": "g", "arguments": ""})),
            chunk(call(0, id="c1", function={"name": "f", "arguments": "{"})),
            chunk(call(1, function={"arguments": "[]"})),
            chunk(call(0, function={"arguments": "}"})),
        ],
        openai_turn(tool_calls=[asked("g", "[]", id="c2"), asked("f", "{}", id="c1")]),
    ),
    "no_index": (
        [
            chunk(call(id="c1", function={"name": "f", "arguments": "{}"})),
            chunk(call(id="c2", function={"name": "g", "arguments": "{}"})),
        ],
        openai_turn(tool_calls=[asked("f", "{}", id="c1"), asked("g", "{}", id="c2")]),
    ),
    "repeated_id": (
        [
            chunk(call(0, id="c1", type="function", function={"name": "f", "arguments": "{"})),
            chunk(call(0, id="c1", type="function", function={"name": "f", "arguments": "}"})),
            chunk(call(0, id="", type="function", function={"name": "", "arguments": ""})),
        ],
        openai_turn(tool_calls=[asked("f", "{}", id="c1")]),
    ),
    "id_for_each_piece": (
        [
            chunk(call(0, id="c1", function={"name": "f", "arguments": "{"})),
            chunk(call(0, id="c2", function={"arguments": "}"})),
        ],
        openai_turn(tool_calls=[asked("f", "{}", id="c2")]),
    ),
    "audio": (
        [
            chunk({"audio": {"id": "a", "transcript": "Hel"}}),
            chunk({"audio": {"data": "AAAA"}}),
            chunk({"audio": {"transcript": "lo"}}),
            chunk({"audio": {"expires_at": 5}}),
        ],
        openai_turn("Hello"),
    ),
    "usage_in_each": (
        [
            chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1}),
            chunk({"content": "b"}, usage={"prompt_tokens": 3, "completion_tokens": 2}),
            chunk({"content": "c"}, usage=None),
        ],
        openai_turn("abc", usage={"promptTokens": 3, "completionTokens": 2, "totalTokens": 5}),
    ),
    "azure": (
        [chunk(model="", prompt_filter_results=[{}]), chunk({"content": "Hi."}), chunk(model="")],
        openai_turn("Hi."),
    ),
    "proxy": (
        [
            chunk({"content": "Hi."}),
            chunk({}, finish="stop"),
            chunk({"content": "\u200b\u200c"}, id="gen-signature"),
        ],
        openai_turn("Hi.", finish_reason="stop"),
    ),
    "first_of_choices": (
        [
            {"model": "m", "choices": [{"index": 1, "delta": {"content": "b"}}]},
            {"model": "m", "choices": [{"index": 0, "delta": {"content": "a"}}]},
        ],
        openai_turn("a", others=[Turn("b")]),
    ),
    "thinking_in_content": (
        [
            {
                "choices": [
                    {
                        "delta": {
                            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]
                        }
                    }
                ]
            },
            {
                "choices": [
                    {
                        "delta": {
                            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}]}]
                        }
                    }
                ]
            },
            {"choices": [{"delta": {"content": [{"type": "text", "text": "Hel"}]}}]},
            {"model": "m", "choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]},
        ],
        openai_turn("Hello", thinking=[{"type": "thinking", "thinking": "hm"}], finish_reason="stop"),
    ),
    "text_completion": (
        [
            {"model": "m", "object": "text_completion", "choices": [{"text": "Hel", "index": 0}]},
            {"model": "m", "object": "text_completion", "choices": [{"text": "lo", "finish_reason": "stop"}]},
        ],
        openai_turn("Hello", finish_reason="stop"),
    ),
    "whole": (
        [{"model": "m", "choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}],
        openai_turn("Hi.", finish_reason="stop"),
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_chunks_make_a_chat_completion(name: str) -> None:
    """Those of servers too that only resemble OpenAI's."""
    items, expected = CHATS[name]

    assert read_response(assemble(items)) == expected


def test_an_answer_has_the_members_of_one_at_once() -> None:
    """Each choice in its place."""
    usage = {"prompt_tokens": 1}
    items = [chunk({}, {"role": "assistant", "content": "b"}), chunk({"content": "a"}), chunk(usage=usage)]

    assert assemble(items) == {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {"index": 0, "message": {"content": "a"}, "finish_reason": None},
            {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": None},
        ],
        "usage": usage,
    }


def test_what_the_events_of_a_package_repeat_is_not_counted() -> None:
    """The chunk or event they stand beside counts."""
    chunks = [chunk({"content": "a"}), chunk({}, finish="stop")]
    events = [
        {"type": "chunk", "chunk": chunks[0], "snapshot": {"choices": [{"message": {"content": "a"}}]}},
        {"type": "content.delta", "delta": "a", "snapshot": "a", "parsed": None},
        {"type": "chunk", "chunk": chunks[1], "snapshot": {}},
        {"type": "content.done", "content": "a", "parsed": None},
        {"type": "refusal.done", "refusal": "a"},
        {"type": "tool_calls.function.arguments.done", "name": "f", "index": 0, "arguments": "{}"},
    ]
    raw = [started(), *block_events({"type": "text", "text": ""}, {"type": "text_delta", "text": "a"})]
    repeated = [
        {"type": "text", "text": "a", "snapshot": "a"},
        {"type": "thinking", "thinking": "a", "snapshot": "a"},
        {"type": "signature", "signature": "s"},
        {"type": "citation", "citation": {}, "snapshot": []},
        {"type": "input_json", "partial_json": "{}", "snapshot": {}},
    ]

    assert assemble(events) == assemble(chunks)
    assert assemble([*raw, *repeated]) == assemble(raw)


def block_events(start: dict[str, Any], *deltas: dict[str, Any], index: int = 0) -> list[Any]:
    """Return the events of one block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def started(**members: Any) -> dict[str, Any]:
    """Return the event that opens a message."""
    head = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
    return {"type": "message_start", "message": {**head, "stop_reason": None, **members}}


def test_a_message_has_the_members_of_one_at_once() -> None:
    """Counts that the end leaves out stay those of the start."""
    known, cited = {"type": "char_location", "cited_text": "a"}, {"type": "char_location", "cited_text": "b"}
    text = {"type": "text", "text": "In ", "citations": [known]}
    items = [
        started(usage={"input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 2}, "output_tokens": 1}),
        {"type": "ping"},
        *block_events({"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "h"}, {"type": "thinking_delta", "thinking": "m"},
            {"type": "signature_delta", "signature": "s"}),
        *block_events(text, {"type": "text_delta", "text": "a"}, {"type": "citations_delta", "citation": cited},
            {"type": "text_delta", "text": "b"}, index=1),
        *block_events({"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": '{"x":'},
            {"type": "input_json_delta", "partial_json": "1}"}, index=2),
        *block_events({"type": "tool_use", "id": "u", "name": "g", "input": {}},
            {"type": "input_json_delta", "partial_json": ""}, index=3),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"input_tokens": None, "output_tokens": 9}},
        {"type": "message_stop"},
    ]  # fmt: skip
    before = copy.deepcopy(items)

    assert assemble(items) == {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "In ab", "citations": [known, cited]},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "u", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 2}, "output_tokens": 9},
    }
    assert items == before


def test_a_cut_tool_call_of_a_message_keeps_what_the_model_wrote() -> None:
    """As text, which is no JSON yet."""
    piece = {"type": "input_json_delta", "partial_json": '{"q": "hel'}
    items = [started(), *block_events({"type": "tool_use", "id": "t", "name": "f", "input": {}}, piece)]

    assert read_response(assemble(items)).tool_calls == [asked("f", '{"q": "hel', id="t")]


def added(item: dict[str, Any], *deltas: dict[str, Any], index: int = 0) -> list[Any]:
    """Return the events of an output item that was begun."""
    return [
        {"type": "response.output_item.added", "output_index": index, "item": item},
        *({"output_index": index, "item_id": "i", **delta} for delta in deltas),
    ]


def test_a_response_without_an_end_is_built_from_its_events() -> None:
    """Whatever kind of item was begun."""
    items = [
        {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress", "output": []}},
        *added({"type": "reasoning", "summary": []},
            {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "One."},
            {"type": "response.reasoning_summary_text.delta", "summary_index": 1, "delta": "Two."}),
        *added({"type": "reasoning", "summary": []},
            {"type": "response.reasoning_text.delta", "content_index": 0, "delta": "raw"}, index=1),
        *added({"type": "message", "content": []},
            {"type": "response.output_text.delta", "content_index": 0, "delta": "Hel"},
            {"type": "response.output_text.delta", "content_index": 0, "delta": "lo"},
            {"type": "response.refusal.delta", "content_index": 1, "delta": "No."}, index=2),
        *added({"type": "custom_tool_call", "call_id": "c1", "name": "run", "input": ""},
            {"type": "response.custom_tool_call_input.delta", "delta": "ls "},
            {"type": "response.custom_tool_call_input.delta", "delta": "-l"}, index=3),
        {"type": "response.output_item.done", "output_index": 4,
            "item": {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"}},
        *added({"type": "function_call", "call_id": "c3", "name": "g", "arguments": ""},
            {"type": "response.function_call_arguments.delta", "delta": '{"x'}, index=5),
    ]  # fmt: skip

    assert read_response(assemble(items)) == Turn(
        "Hello",
        refusal="No.",
        thinking=[{"type": "thinking", "thinking": "One.\n\nTwo."}, {"type": "thinking", "thinking": "raw"}],
        tool_calls=[asked("run", "ls -l", id="c1"), asked("f", "{}", id="c2"), asked("g", '{"x', id="c3")],
        finish_reason="in_progress",
        model="m",
        provider="openai",
    )


def test_a_response_that_ends_without_its_output_has_that_of_its_events() -> None:
    """Some servers leave it out."""
    done = {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}
    items = [
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
    ]

    assert assemble(items) == {"status": "completed", "output": [done]}


OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
ERRORS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "chat": (
        [chunk({"content": "a"}), {"error": {"message": "m", "code": "c"}}],
        {"message": "m", "code": "c"},
    ),
    "chat_at_once": ([{"error": {"message": "m"}}], {"message": "m"}),
    "chat_text": ([{"error": "m"}], {"message": "m"}),
    "chat_chunk_text": ([chunk({"content": "a"}, error="m")], {"message": "m"}),
    "chat_chunk": ([chunk({"content": "a"}, error={"message": "m"}, finish="error")], {"message": "m"}),
    "responses": (
        [
            {"type": "response.created", "response": {}},
            {"type": "error", "code": "c", "message": "m", "param": None},
        ],
        {"message": "m", "code": "c"},
    ),
    "responses_at_once": ([{"type": "error", "code": "c", "message": "m"}], {"message": "m", "code": "c"}),
    "responses_failed": (
        [
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "c", "message": "m"}},
            }
        ],
        {"message": "m", "code": "c"},
    ),
    "responses_failed_for_no_reason": (
        [{"type": "response.failed", "response": {"status": "failed", "error": None}}],
        {"message": "The response failed, and the provider does not say why."},
    ),
    "messages": ([started(), {"type": "error", "error": OVERLOADED}], OVERLOADED),
    "messages_at_once": ([{"type": "error", "error": OVERLOADED}], OVERLOADED),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_a_stream_is_told_by_the_answer(name: str) -> None:
    """With what came before it."""
    items, expected = ERRORS[name]

    assert assemble(items)["error"] == expected
    assert not is_complete(items) or name == "chat_chunk"


def test_what_came_before_an_error_is_kept() -> None:
    """It was paid for."""
    items = [chunk({"content": "Hel"}), chunk({"content": "lo"}), {"error": {"message": "m"}}]

    assert read_response(assemble(items)) == openai_turn("Hello")


OTHERS: list[tuple[list[Any], Any]] = [
    ([], []),
    (["Hel", "", "lo"], "Hello"),
    ([{"value": "Hel"}, {"value": ""}, {"value": "lo"}], "Hello"),
    ([{"value": "Hello"}, {"value": 1}], [{"value": "Hello"}, {"value": 1}]),
    ([{"value": "Hello", "score": 1}], [{"value": "Hello", "score": 1}]),
    (["a", 1], ["a", 1]),
    ([{"x": 1}, None], [{"x": 1}, None]),
    ([{"error": {"message": "m"}}, {"x": 1}], [{"error": {"message": "m"}}, {"x": 1}]),
]


@pytest.mark.parametrize(("items", "expected"), OTHERS)
def test_other_items_are_texts_or_stay_a_list(items: list[Any], expected: Any) -> None:
    """Nothing is guessed."""
    assert assemble(items) == expected


def test_a_long_stream_is_assembled() -> None:
    """Every piece, in its order."""
    pieces = [f"{number} " for number in range(50_000)]
    text = [chunk({"content": piece}) for piece in pieces]
    arguments = [chunk(call(0, id="c", function={"name": "f", "arguments": piece})) for piece in pieces]
    turn = read_response(assemble([*text, *arguments]))

    assert turn == openai_turn("".join(pieces), tool_calls=[asked("f", "".join(pieces), id="c")])


FIRST: dict[str, tuple[list[Any], int | None]] = {
    "nothing": ([], None),
    "texts": (["", "a", "b"], 1),
    "texts_in_objects": ([{"value": ""}, {"value": "a"}], 1),
    "chat": ([chunk({"role": "assistant", "content": ""}), chunk({"content": "a"})], 1),
    "chat_second_choice": ([chunk({"content": ""}, {"content": "a"})], 0),
    "chat_thinking": ([chunk({"content": ""}), chunk({"reasoning_content": "a"})], 1),
    "chat_refusal": ([chunk({"content": ""}), chunk({"refusal": "a"})], 1),
    "chat_tool": ([chunk({"content": None}), chunk(call(0, function={"name": "f", "arguments": ""}))], 1),
    "chat_function": ([chunk({"function_call": {}}), chunk({"function_call": {"name": "f"}})], 1),
    "chat_audio": ([chunk({"audio": {"id": "a"}}), chunk({"audio": {"data": "AAAA"}})], 1),
    "chat_end": ([chunk({"content": ""}), chunk({}, finish="stop"), chunk(usage={"prompt_tokens": 1})], None),
    "chat_event": ([{"type": "chunk", "chunk": chunk({"content": "a"}), "snapshot": {}}], 0),
    "proxy": ([chunk({"content": "\u200b"}, id="gen-signature")], None),
    "text_completion": ([{"choices": [{"text": ""}]}, {"choices": [{"text": "a"}]}], 1),
    "responses": (
        [
            {"type": "response.created", "response": {"output": []}},
            {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
            {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}},
            {"type": "response.output_text.delta", "delta": ""},
            {"type": "response.output_text.delta", "delta": "a"},
        ],
        4,
    ),
    "responses_thinking": ([{"type": "response.reasoning_summary_text.delta", "delta": "a"}], 0),
    "responses_tool": (
        [
            {"type": "response.output_item.added", "item": {"type": "mcp_list_tools"}},
            {"type": "response.output_item.added", "item": {"type": "reasoning"}},
            {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        ],
        2,
    ),
    "messages": (
        [
            started(),
            {"type": "ping"},
            *block_events({"type": "text", "text": ""}, {"type": "text_delta", "text": "a"}),
        ],
        3,
    ),
    "messages_thinking": (
        block_events({"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "a"}),
        1,
    ),
    "messages_hidden_thinking": ([started(), *block_events({"type": "redacted_thinking", "data": "d"})], 1),
    "messages_tool": ([started(), *block_events({"type": "tool_use", "name": "f", "input": {}})], 1),
    "others": ([{"x": 1}, None, 5, {"text": "a"}], 3),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_token_is_the_first_output_of_the_model(name: str) -> None:
    """And not what announces it."""
    items, expected = FIRST[name]

    assert first_token(items) == expected


COMPLETE: list[tuple[list[Any], bool]] = [
    ([], False),
    (["a"], False),
    ([chunk({"content": "a"})], False),
    ([chunk({}, finish="length"), chunk(usage={})], True),
    ([chunk({}, finish="stop"), chunk({"audio": {"expires_at": 5}})], True),
    ([chunk({}, {}), {"choices": [{"index": 0, "finish_reason": "stop"}]}], False),
    (
        [
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ],
        True,
    ),
    ([chunk({}, finish="stop", id="gen-signature")], False),
    ([{"type": "chunk", "chunk": chunk({}, finish="stop")}], True),
    ([{"type": "response.created"}, {"type": "response.output_item.done"}], False),
    ([{"type": "response.completed"}], True),
    ([{"type": "response.incomplete"}], True),
    ([{"type": "response.failed"}], False),
    ([started(), {"type": "content_block_stop", "index": 0}], False),
    ([started(), {"type": "message_delta", "delta": {"stop_reason": None}}], False),
    ([started(), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}], True),
    ([started(), {"type": "message_stop"}], True),
]


@pytest.mark.parametrize(("items", "expected"), COMPLETE)
def test_a_stream_is_complete_when_it_says_so(items: list[Any], expected: bool) -> None:
    """The end of the items alone says nothing."""
    assert is_complete(items) is expected


def test_the_body_of_a_stream_is_read_as_its_items(provider: Provider) -> None:
    """Without the package in between."""
    reply = REPLIES[2]
    provider.reply(reply, reply)
    with anthropic(provider) as client:
        expected = read_response(plain(message_whole(client, reply)))
        with client.messages.with_streaming_response.create(**MESSAGE, stream=True) as response:
            body = response.read()

    assert read_response(assemble([item for _, item in read_sse(body)])) == expected


NAMES = st.sampled_from(
    [
        "choices", "delta", "message", "index", "content", "text", "tool_calls", "function", "custom", "name", "id",
        "arguments", "input", "function_call", "audio", "transcript", "finish_reason", "usage", "type", "chunk",
        "error", "code", "response", "output", "output_index", "content_index", "summary_index", "item",
        "content_block", "partial_json", "thinking", "signature", "citation", "stop_reason", "input_tokens", "model",
        "object", "refusal", "reasoning_content", "status",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "", "a", '{"x":', "1}", "chunk", "error", "text", "tool_use", "message", "reasoning", "gen-signature",
        "message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "ping",
        "response.created", "response.output_item.added", "response.output_item.done", "response.output_text.delta",
        "response.function_call_arguments.delta", "response.reasoning_summary_text.delta", "response.completed",
        "response.failed",
    ]
)  # fmt: skip
ITEMS = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2**60) | WORDS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.builds(dict, st.dictionaries(NAMES, inner, max_size=4), type=WORDS)
            | st.dictionaries(NAMES, inner, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=5,
)


@given(ITEMS)
def test_no_items_make_assembling_fail_or_are_changed(items: list[Any]) -> None:
    """Whatever a server sends."""
    before = copy.deepcopy(items)
    answer = assemble(items)
    read_response(answer)
    first = first_token(items)

    assert items == before
    assert first is None or 0 <= first < len(items)
    assert is_complete(items) in (True, False)
    assert assemble(items) == answer
