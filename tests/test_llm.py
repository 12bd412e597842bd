"""What is read from the shapes of OpenAI and Anthropic, and from partial and odd ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace.llm import Request, Turn, read_embedding, read_request, read_response, read_usage

USER = {"role": "user", "content": "Hello"}

REQUESTS: list[tuple[dict[str, Any], Request]] = [
    ({}, Request()),
    ({"messages": [USER]}, Request(messages=[USER])),
    ({"messages": None}, Request()),
    ({"prompt": "Hello"}, Request(messages=[USER])),
    ({"anything": "Hello"}, Request(messages=[USER])),
    ({"anything": USER}, Request(messages=[USER])),
    ({"anything": 5}, Request(messages=[{"role": "user", "content": 5}])),
    (
        {"client": "c", "messages": [USER], "model": "m"},
        Request(messages=[USER], metadata={"params": {"client": "c", "model": "m"}}, model="m"),
    ),
    (
        {"input": [USER], "instructions": "Be kind.", "tools": [{"name": "t"}]},
        Request(messages=[USER], metadata={"systemPrompt": "Be kind.", "tools": [{"name": "t"}]}),
    ),
    (
        {"messages": [USER], "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        Request(messages=[USER], metadata={"systemPrompt": "Be kind."}),
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), REQUESTS)
def test_what_was_asked_is_read_from_the_arguments(arguments: dict[str, Any], expected: Request) -> None:
    """Under the usual names, else from the first one."""
    assert read_request(arguments) == expected


CALLED = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": "{}"}}]}
USED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "find", "input": {}}]}
FUNCTION_CALL = {"type": "function_call", "call_id": "f1", "name": "find", "arguments": "{}"}

TOOL_RESULTS: list[tuple[list[Any], str, Any]] = [
    ([USER], "", None),
    ([CALLED, {"role": "tool", "tool_call_id": "c1", "content": "x"}], "find", "x"),
    ([{"role": "tool", "tool_call_id": "c9", "content": "x"}], "tool", "x"),
    ([{"role": "user", "name": "ada", "content": "hi"}, {"role": "tool", "content": "x"}], "tool", "x"),
    ([{"role": "function", "name": "find", "content": "x"}], "find", "x"),
    (
        [USED, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"}]}],
        "find",
        "x",
    ),
    ([FUNCTION_CALL, {"type": "function_call_output", "call_id": "f1", "output": "x"}], "find", "x"),
    ([CALLED, {"role": "tool", "tool_call_id": "c1", "content": "x"}, USER], "", None),
    (["not a dict"], "", None),
    ([{"role": "user", "content": []}], "", None),
]


@pytest.mark.parametrize(("messages", "tool", "output"), TOOL_RESULTS)
def test_a_tools_result_is_known_by_its_message(messages: list[Any], tool: str, output: Any) -> None:
    """And named after the call that asked for it."""
    request = read_request({"messages": messages})

    assert (request.tool, request.output) == (tool, output)


def item(name: str, arguments: str, **more: Any) -> Any:
    """Return a tool call as it is recorded."""
    return {"function": {"name": name, "arguments": arguments}, **more}


RESPONSES: list[tuple[Any, Turn]] = [
    (None, Turn()),
    ("Hi.", Turn(content="Hi.")),
    (5, Turn(content="5")),
    ([1, "a"], Turn(content='[1,"a"]')),
    ({"x": 1}, Turn(content='{"x":1}')),
    (
        {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]},
        Turn(content="Hi.", finish_reason="stop", provider="openai"),
    ),
    ({"choices": [{"message": {"content": None}}]}, Turn(provider="openai")),
    ({"choices": [{"message": {"refusal": "No."}}]}, Turn(content="No.", provider="openai")),
    ({"choices": [{"message": {"refusal": 5}}]}, Turn(provider="openai")),
    ({"choices": [{"delta": {"content": "Hi."}}]}, Turn(content="Hi.", provider="openai")),
    (
        {"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}, {"x": 1}]}}]},
        Turn(content="ab", provider="openai"),
    ),
    (
        {"choices": [{"message": {"reasoning_content": "hm", "content": "Hi."}}]},
        Turn(content="Hi.", thinking=[{"type": "thinking", "thinking": "hm"}], provider="openai"),
    ),
    (
        {
            "choices": [
                {
                    "message": {
                        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}, 5]
                    }
                }
            ]
        },
        Turn(tool_calls=[item("f", '{"x":1}', id="c")], provider="openai"),
    ),
    (
        {"choices": [{"message": {"tool_calls": [{}]}}]},
        Turn(tool_calls=[item("tool", "{}")], provider="openai"),
    ),
    ({"choices": [None]}, Turn(provider="openai")),
    (
        {
            "model": "gpt-5",
            "status": "completed",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]},
                {"type": "function_call", "call_id": "f1", "name": "find", "arguments": '{"q":1}'},
            ],
            "usage": {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
        },
        Turn(
            content="Hi.",
            thinking=[{"type": "thinking", "thinking": "hm"}],
            tool_calls=[item("find", '{"q":1}', id="f1")],
            finish_reason="completed",
            model="gpt-5",
            provider="openai",
            usage={"promptTokens": 6, "completionTokens": 2, "totalTokens": 12, "cacheReadTokens": 4},
        ),
    ),
    (
        {"output": [{"type": "message"}, {"type": "reasoning"}, {"type": "message", "content": None}, 5]},
        Turn(content="", provider="openai"),
    ),
    (
        {
            "content": [
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "Hi."},
                {"type": "tool_use", "id": "t", "name": "find", "input": {"q": 1}},
                {"type": "tool_use", "id": "u", "name": "none", "input": None},
            ],
            "stop_reason": "tool_use",
        },
        Turn(
            content="Hi.",
            thinking=[{"type": "redacted_thinking", "data": "d"}],
            tool_calls=[item("find", '{"q":1}', id="t"), item("none", "{}", id="u")],
            finish_reason="tool_use",
            provider="anthropic",
        ),
    ),
    (
        {"content": [{"type": "thinking", "thinking": "", "signature": "s"}]},
        Turn(thinking=[{"type": "thinking", "thinking": "", "signature": "s"}], provider="anthropic"),
    ),
    ({"content": [{"type": "text"}, None]}, Turn(content="", provider="anthropic")),
    (
        {"content": "Hi.", "finish_reason": "stop", "thinking": "hm", "model": "m", "provider": "p"},
        Turn(
            content="Hi.",
            thinking=[{"type": "thinking", "thinking": "hm"}],
            finish_reason="stop",
            model="m",
            provider="p",
        ),
    ),
    ({"text": "Hi.", "finishReason": "stop"}, Turn(content="Hi.", finish_reason="stop")),
    ({"tool_calls": [{"name": "f", "arguments": {"x": 1}}]}, Turn(tool_calls=[item("f", '{"x":1}')])),
    ({"content": 5}, Turn(content="5")),
    (
        {"usage": {"totalTokens": 3}, "answer": 5},
        Turn(content='{"usage":{"totalTokens":3},"answer":5}', usage={"totalTokens": 3}),
    ),
    ({"content": None, "usage": {"totalTokens": 3}}, Turn(usage={"totalTokens": 3})),
]


@pytest.mark.parametrize(("answer", "expected"), RESPONSES)
def test_what_was_answered_is_read_from_its_shape(answer: Any, expected: Turn) -> None:
    """Of a partial shape, what is there."""
    assert read_response(answer) == expected


USAGES: list[tuple[Any, dict[str, int]]] = [
    (None, {}),
    ("many", {}),
    ({}, {}),
    (
        {"prompt_tokens": 10, "completion_tokens": 5},
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15},
    ),
    (
        {"prompt_tokens": 10, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 6, "totalTokens": 10, "cacheReadTokens": 4},
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 6, "completionTokens": 1, "totalTokens": 11, "cacheReadTokens": 4},
    ),
    (
        {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 0, "totalTokens": 4, "cacheReadTokens": 4},
    ),
    ({"prompt_tokens": 3, "prompt_tokens_details": None}, {"promptTokens": 3, "totalTokens": 3}),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 2,
        },
        {
            "promptTokens": 10,
            "completionTokens": 5,
            "totalTokens": 21,
            "cacheReadTokens": 4,
            "cacheCreationTokens": 2,
        },
    ),
    ({"input_tokens": None, "output_tokens": 5}, {"completionTokens": 5, "totalTokens": 5}),
    (
        {"promptTokens": 1, "completionTokens": 2, "totalTokens": 9, "cacheReadTokens": 6, "other": 5},
        {"promptTokens": 1, "completionTokens": 2, "totalTokens": 9, "cacheReadTokens": 6},
    ),
    ({"promptTokens": -1, "totalTokens": "9"}, {}),
    ({"prompt_tokens": 2**31, "completion_tokens": 1e300, "total_tokens": 5}, {"totalTokens": 5}),
    (
        {"prompt_tokens": 2**31 - 1, "completion_tokens": 1},
        {"promptTokens": 2**31 - 1, "completionTokens": 1},
    ),
    ({"prompt_tokens": True, "completion_tokens": 2.0}, {"completionTokens": 2, "totalTokens": 2}),
]


@pytest.mark.parametrize(("usage", "expected"), USAGES)
def test_tokens_are_counted_without_the_cached_ones(usage: Any, expected: dict[str, int]) -> None:
    """OpenAI counts them among the prompt's, Anthropic beside them."""
    assert read_usage(usage) == expected


EMBEDDINGS: list[tuple[Any, tuple[int, int]]] = [
    (None, (0, 0)),
    ([], (0, 0)),
    ({}, (0, 0)),
    ([[1, 2, 3]], (1, 3)),
    ([[1, 2], [3, 4]], (2, 2)),
    ([1.0, 2.0], (1, 2)),
    ([[]], (1, 0)),
    ({"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}, (2, 2)),
    ({"data": [{"embedding": "AAAA"}, {"embedding": "BBBB"}]}, (2, 0)),
    ({"embeddings": [[1, 2]]}, (1, 2)),
    ({"embedding": [1, 2, 3]}, (1, 3)),
    ({"shape": [2, 1536], "dtype": "float64"}, (2, 1536)),
    ({"shape": [1536], "dtype": "float64"}, (1, 1536)),
    ([{"shape": [1536], "dtype": "float64"}] * 2, (2, 1536)),
    ({"shape": "round"}, (0, 0)),
    ({"shape": [True]}, (0, 0)),
    ({"shape": [-1]}, (0, 0)),
    ("text", (0, 0)),
]


@pytest.mark.parametrize(("answer", "expected"), EMBEDDINGS)
def test_vectors_are_counted(answer: Any, expected: tuple[int, int]) -> None:
    """In the shapes of the usual libraries."""
    assert read_embedding(answer) == expected


KEYS = st.sampled_from(
    [
        "messages", "role", "content", "type", "text", "choices", "message", "delta", "tool_calls", "function",
        "name", "arguments", "id", "call_id", "output", "summary", "usage", "prompt_tokens", "input_tokens",
        "prompt_tokens_details", "cached_tokens", "system", "tools", "thinking", "data", "embedding", "shape",
        "model", "status", "finish_reason", "tool_call_id", "refusal", "input", "promptTokens", "reasoning_content",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "tool",
        "user",
        "message",
        "tool_result",
        "function_call",
        "reasoning",
        "text",
        "thinking",
        "tool_use",
        "",
    ]
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.just(2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_no_shape_of_an_answer_makes_reading_it_fail(answer: Any) -> None:
    """Whatever is read is what an event holds: texts, counts a server can store."""
    turn = read_response(answer)

    assert turn.content is None or isinstance(turn.content, str)
    assert all(isinstance(text, str) for text in (turn.finish_reason, turn.model, turn.provider))
    assert all(thought["type"] in ("thinking", "redacted_thinking") for thought in turn.thinking)
    assert all(isinstance(call["function"]["arguments"], str) for call in turn.tool_calls)
    assert all(type(count) is int and 0 <= count < 2**31 for count in turn.usage.values())
    msgspec.json.encode(turn)
    count, dimensions = read_embedding(answer)

    assert type(count) is int
    assert type(dimensions) is int


@given(st.dictionaries(KEYS, PLAIN, max_size=5))
def test_no_shape_of_arguments_makes_reading_them_fail(arguments: dict[str, Any]) -> None:
    """Whatever is read can be recorded."""
    request = read_request(arguments)

    assert isinstance(request.messages, list)
    assert isinstance(request.tool, str)
    assert isinstance(request.model, str)
    assert isinstance(request.metadata.get("systemPrompt", ""), str)
    msgspec.json.encode(request)
