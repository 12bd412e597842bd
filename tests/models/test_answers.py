"""What is read from the shapes of OpenAI and Anthropic, and from partial and odd ones."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace._models.answers import (
    Request,
    Turn,
    Vectors,
    read_embedding,
    read_error,
    read_request,
    read_response,
)
from whyops_trace._models.provider_tools import ProviderCall
from whyops_trace._values import mending

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
        Request(messages=[USER], metadata={"params": {"client": "c", "model": "m"}}),
    ),
    (
        {"input": [USER], "instructions": "Be kind.", "tools": [{"name": "t"}]},
        Request(messages=[USER], metadata={"systemPrompt": "Be kind.", "tools": [{"name": "t"}]}),
    ),
    (
        {"messages": [USER], "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        Request(
            messages=[USER],
            metadata={
                "systemPrompt": "Be kind.",
                "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            },
        ),
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
    # Two results and what the user adds, in one message: the last result counts.
    (
        [
            USED,
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t0", "content": "w"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x"}]},
                    {"type": "text", "text": "Go on."},
                ],
            },
        ],
        "find",
        [{"type": "text", "text": "x"}],
    ),
    (
        [
            {"type": "custom_tool_call", "call_id": "c1", "name": "run", "input": "ls"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "x"},
        ],
        "run",
        "x",
    ),
    (
        [
            {"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "run", "input": "ls"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
        ],
        "run",
        "x",
    ),
    (
        [{"type": "shell_call_output", "call_id": "s1", "output": [{"stdout": "x"}]}],
        "shell",
        [{"stdout": "x"}],
    ),
    ([{"type": "function_call_output", "call_id": "f9", "output": "x"}], "tool", "x"),
    ([FUNCTION_CALL, {"type": "function_call_output", "call_id": "f1", "output": "x"}, USER], "", None),
    ([{"type": "mcp_approval_response", "approval_request_id": "m1", "approve": True}], "", None),
]


@pytest.mark.parametrize(("messages", "tool", "output"), TOOL_RESULTS)
def test_a_tools_result_is_known_by_its_message(messages: list[Any], tool: str, output: Any) -> None:
    """And named after the call that asked for it."""
    request = read_request({"messages": messages})

    assert (request.tool, request.output) == (tool, output)


def item(name: str, arguments: str, **more: Any) -> Any:
    """Return a tool call as it is recorded."""
    return {"function": {"name": name, "arguments": arguments}, **more}


#: Empty calls, which some servers send with every message.
EMPTY: list[dict[str, Any]] = [
    {"function_call": {"name": "", "arguments": ""}},
    {"function_call": {}},
    {"tool_calls": [{}]},
    {"tool_calls": [{"id": "", "type": "function", "function": {"name": None, "arguments": ""}}]},
]
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
    ({"choices": []}, Turn(provider="openai")),
    ({"choices": [{"message": {"refusal": "No."}}]}, Turn(content="No.", refusal="No.", provider="openai")),
    (
        {"choices": [{"message": {"content": "Well.", "refusal": "No."}}]},
        Turn(content="Well.", refusal="No.", provider="openai"),
    ),
    (
        {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "No."}]}}]},
        Turn(content="No.", refusal="No.", provider="openai"),
    ),
    ({"choices": [{"message": {"audio": {"transcript": "Hi."}}}]}, Turn(content="Hi.", provider="openai")),
    (
        {"choices": [{"message": {"function_call": {"name": "f", "arguments": "{}"}}}]},
        Turn(tool_calls=[item("f", "{}")], provider="openai"),
    ),
    (
        {"choices": [{"message": {"tool_calls": [{"id": "c", "custom": {"name": "run", "input": "ls"}}]}}]},
        Turn(tool_calls=[item("run", "ls", id="c")], provider="openai"),
    ),
    (
        {"choices": [{"message": {"content": "one"}}, {"text": "two", "finish_reason": "length"}]},
        Turn(content="one", provider="openai", others=[Turn("two", finish_reason="length")]),
    ),
    (
        {"choices": [{"text": "Hi.", "finish_reason": "stop"}]},
        Turn("Hi.", finish_reason="stop", provider="openai"),
    ),
    (
        {"choices": [{"message": {"reasoning": "hm", "reasoning_content": "", "content": "Hi."}}]},
        Turn(content="Hi.", thinking=[{"type": "thinking", "thinking": "hm"}], provider="openai"),
    ),
    (
        {"choices": [{"message": {"reasoning": "hm", "reasoning_content": "hm", "content": "Hi."}}]},
        Turn(content="Hi.", thinking=[{"type": "thinking", "thinking": "hm"}], provider="openai"),
    ),
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
        {"choices": [{"message": {"tool_calls": [{"id": "c"}]}}]},
        Turn(tool_calls=[item("tool", "{}", id="c")], provider="openai"),
    ),
    *(
        ({"choices": [{"message": {"content": "Hi.", **empty}}]}, Turn("Hi.", provider="openai"))
        for empty in EMPTY
    ),
    *(
        (
            {"choices": [{"message": {"content": [*blocks, {"type": "text", "text": "4"}]}}]},
            Turn("4", thinking=[{"type": "thinking", "thinking": "hm"}], provider="openai"),
        )
        for blocks in (
            [
                {
                    "type": "thinking",
                    "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
                }
            ],
            [{"type": "thinking", "thinking": "hm", "closed": True}],
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
            [{"type": "reasoning", "text": "hm"}, {"type": "thinking", "thinking": []}],
        )
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
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []},
        Turn(finish_reason="max_output_tokens", provider="openai"),
    ),
    ({"status": "incomplete", "output": []}, Turn(finish_reason="incomplete", provider="openai")),
    (
        {"status": "failed", "incomplete_details": {"reason": "x"}, "output": []},
        Turn(finish_reason="failed", provider="openai"),
    ),
    (
        {
            "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "b"}]},
                {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]},
            ]
        },
        Turn(content="ab", refusal="No.", provider="openai"),
    ),
    (
        {
            "output": [
                {"type": "reasoning", "summary": [{"text": "One."}, {"text": "Two."}]},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "raw"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "e"},
            ]
        },
        Turn(
            thinking=[
                {"type": "thinking", "thinking": "One.\n\nTwo."},
                {"type": "thinking", "thinking": "raw"},
            ],
            provider="openai",
        ),
    ),
    # What the server ran itself is no call of the agent's; what it left to the agent is.
    (
        {
            "output": [
                {"type": "web_search_call", "id": "w", "action": {"type": "search", "query": "q"}},
                {"type": "mcp_call", "id": "m", "name": "find", "arguments": "{}", "output": "x"},
                {"type": "shell_call", "call_id": "s1", "action": {"commands": ["ls"]}},
                {"type": "shell_call_output", "call_id": "s1", "output": []},
                {"type": "shell_call", "call_id": "s2", "action": {"commands": ["pwd"]}},
                {"type": "computer_call", "id": "i", "call_id": "c1", "actions": [{"type": "screenshot"}]},
                {
                    "type": "apply_patch_call",
                    "call_id": "p1",
                    "operation": {"type": "delete_file", "path": "a"},
                },
                {"type": "custom_tool_call", "call_id": "u1", "name": "run", "input": "ls"},
            ]
        },
        Turn(
            tool_calls=[
                item("shell", '{"commands":["pwd"]}', id="s2"),
                item("computer", '[{"type":"screenshot"}]', id="c1"),
                item("apply_patch", '{"type":"delete_file","path":"a"}', id="p1"),
                item("run", "ls", id="u1"),
            ],
            provider="openai",
            ran=[
                ProviderCall("web_search", {"type": "search", "query": "q"}),
                ProviderCall("find", {}, "x"),
                ProviderCall("shell", {"commands": ["ls"]}, []),
            ],
        ),
    ),
    (
        {
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "mcp_tool_use", "id": "m", "name": "find", "input": {}},
                {"type": "text", "text": "Hi.", "citations": None},
            ],
            "stop_reason": "end_turn",
        },
        Turn(
            content="Hi.",
            finish_reason="end_turn",
            provider="anthropic",
            ran=[ProviderCall("web_search", {"query": "q"}, []), ProviderCall("find", {})],
        ),
    ),
    (
        {"content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "No."}},
        Turn(content="No.", refusal="No.", finish_reason="refusal", provider="anthropic"),
    ),
    (
        {"content": [], "stop_reason": "end_turn", "stop_details": {"explanation": "It was done."}},
        Turn(finish_reason="end_turn", provider="anthropic"),
    ),
    ({"content": [], "stop_reason": "refusal"}, Turn(finish_reason="refusal", provider="anthropic")),
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
    ({"role": "assistant", "content": None, "refusal": "No."}, Turn(content="No.", refusal="No.")),
    ({"role": "assistant", "content": None, "refusal": None, "parsed": None}, Turn()),
    (
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
        Turn(tool_calls=[item("f", "{}", id="c")]),
    ),
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


def packed(size: int) -> str:
    """Return a vector as OpenAI packs it: the base64 of floats of 32 bits."""
    return base64.b64encode(struct.pack(f"<{size}f", *range(size))).decode()


EMBEDDINGS: list[tuple[Any, Vectors]] = [
    (None, Vectors(0, 0)),
    ([], Vectors(0, 0)),
    ({}, Vectors(0, 0)),
    ([[1, 2, 3]], Vectors(1, 3)),
    ([[1, 2], [3, 4]], Vectors(2, 2)),
    ([1.0, 2.0], Vectors(1, 2)),
    ([[]], Vectors(1, 0)),
    ({"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}, Vectors(2, 2)),
    ({"data": [{"embedding": packed(3)}, {"embedding": packed(3)}]}, Vectors(2, 3, "base64")),
    ({"data": [{"embedding": packed(0)}]}, Vectors(1, 0, "base64")),
    ({"data": [{"embedding": "AAAA"}]}, Vectors(1, 0, "base64")),
    ({"data": [{"embedding": "AAAAAAA="}]}, Vectors(1, 0, "base64")),
    ({"data": [{"embedding": "AAAA AAAA AAAAAAAA"}]}, Vectors(1, 0, "base64")),
    ({"data": [{"embedding": "é"}]}, Vectors(1, 0, "base64")),
    ({"embeddings": [[1, 2]]}, Vectors(1, 2)),
    ({"embedding": [1, 2, 3]}, Vectors(1, 3)),
    ({"shape": [2, 1536], "dtype": "float64"}, Vectors(2, 1536)),
    ({"shape": [1536], "dtype": "float64"}, Vectors(1, 1536)),
    ([{"shape": [1536], "dtype": "float64"}] * 2, Vectors(2, 1536)),
    ({"shape": "round"}, Vectors(0, 0)),
    ({"shape": [True]}, Vectors(0, 0)),
    ({"shape": [-1]}, Vectors(0, 0)),
    ("text", Vectors(0, 0)),
]


@pytest.mark.parametrize(("answer", "expected"), EMBEDDINGS)
def test_vectors_are_counted(answer: Any, expected: Vectors) -> None:
    """In the shapes of the usual libraries."""
    assert read_embedding(answer) == expected


def chat(**message: Any) -> dict[str, Any]:
    """Return a chat completion as the service sends it."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return {**head, "choices": [choice], "usage": usage}


def response(*output: Any, **members: Any) -> dict[str, Any]:
    """Return a response as the service sends it."""
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    head = {"id": "r", "object": "response", "created_at": 1, "model": "gpt-5", "parallel_tool_calls": True}
    said = {"status": "completed", "tool_choice": "auto", "tools": [], "output": list(output)}
    return {**head, **said, "usage": usage, **members}


def message(*content: Any, **members: Any) -> dict[str, Any]:
    """Return a message as the service sends it."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 0},
    }
    head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return {**head, "content": list(content), **end, "usage": usage, **members}


OPENAI_USAGE: Any = {
    "promptTokens": 6,
    "completionTokens": 5,
    "totalTokens": 15,
    "cacheReadTokens": 4,
    "reasoningTokens": 2,
}
ANTHROPIC_USAGE: Any = {
    "promptTokens": 10,
    "completionTokens": 5,
    "totalTokens": 22,
    "cacheReadTokens": 4,
    "cacheCreationTokens": 3,
    "cacheWrite1hTokens": 3,
}
FIND = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}
RUN = {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "ls"}}
SAID = {"type": "message", "id": "i", "role": "assistant", "status": "completed"}

#: An answer as a service sends it, the types of its package that hold it, and what is read.
OBJECTS: list[tuple[dict[str, Any], list[str], Turn]] = [
    (
        chat(content="Hi."),
        ["openai.types.chat:ChatCompletion", "openai.types.chat:ParsedChatCompletion"],
        Turn("Hi.", finish_reason="stop", model="gpt-4o", provider="openai", usage=OPENAI_USAGE),
    ),
    (
        chat(refusal="No."),
        ["openai.types.chat:ChatCompletion", "openai.types.chat:ParsedChatCompletion"],
        Turn(
            "No.", refusal="No.", finish_reason="stop", model="gpt-4o", provider="openai", usage=OPENAI_USAGE
        ),
    ),
    (
        chat(tool_calls=[FIND]),
        ["openai.types.chat:ChatCompletion", "openai.types.chat:ParsedChatCompletion"],
        Turn(
            tool_calls=[item("find", '{"q":1}', id="c1")],
            finish_reason="stop",
            model="gpt-4o",
            provider="openai",
            usage=OPENAI_USAGE,
        ),
    ),
    (
        chat(tool_calls=[RUN], function_call={"name": "find", "arguments": "{}"}),
        ["openai.types.chat:ChatCompletion"],
        Turn(
            tool_calls=[item("run", "ls", id="c2"), item("find", "{}")],
            finish_reason="stop",
            model="gpt-4o",
            provider="openai",
            usage=OPENAI_USAGE,
        ),
    ),
    (
        chat(content="Hi.", reasoning_content="hm"),
        ["openai.types.chat:ChatCompletion"],
        Turn(
            "Hi.",
            thinking=[{"type": "thinking", "thinking": "hm"}],
            finish_reason="stop",
            model="gpt-4o",
            provider="openai",
            usage=OPENAI_USAGE,
        ),
    ),
    (
        chat(audio={"id": "a", "data": "AAAA", "expires_at": 2, "transcript": "Hi."}),
        ["openai.types.chat:ChatCompletion"],
        Turn("Hi.", finish_reason="stop", model="gpt-4o", provider="openai", usage=OPENAI_USAGE),
    ),
    (
        response(
            {"type": "reasoning", "id": "g", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "reasoning", "id": "h", "summary": [], "encrypted_content": "e"},
            {
                "type": "web_search_call",
                "id": "w",
                "status": "completed",
                "action": {"type": "search", "query": "q"},
            },
            {**SAID, "content": [{"type": "output_text", "text": "Hi.", "annotations": []}]},
            {"type": "function_call", "id": "f", "call_id": "c1", "name": "find", "arguments": '{"q":1}'},
            {"type": "custom_tool_call", "id": "u", "call_id": "c2", "name": "run", "input": "ls"},
        ),
        ["openai.types.responses:Response", "openai.types.responses:ParsedResponse"],
        Turn(
            "Hi.",
            thinking=[{"type": "thinking", "thinking": "hm"}],
            tool_calls=[item("find", '{"q":1}', id="c1"), item("run", "ls", id="c2")],
            finish_reason="completed",
            model="gpt-5",
            provider="openai",
            usage=OPENAI_USAGE,
            ran=[ProviderCall("web_search", {"type": "search", "query": "q"})],
        ),
    ),
    (
        response(
            {**SAID, "content": [{"type": "refusal", "refusal": "No."}]},
            status="incomplete",
            incomplete_details={"reason": "content_filter"},
        ),
        ["openai.types.responses:Response", "openai.types.responses:ParsedResponse"],
        Turn(
            "No.",
            refusal="No.",
            finish_reason="content_filter",
            model="gpt-5",
            provider="openai",
            usage=OPENAI_USAGE,
        ),
    ),
    (
        message(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "Hi.", "citations": None},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": 1}},
        ),
        [
            "anthropic.types:Message",
            "anthropic.types.parsed_message:ParsedMessage",
            "anthropic.types.beta:BetaMessage",
            "anthropic.types.beta.parsed_beta_message:ParsedBetaMessage",
        ],
        Turn(
            "Hi.",
            thinking=[
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
            ],
            tool_calls=[item("find", '{"q":1}', id="t1")],
            finish_reason="end_turn",
            model="claude-sonnet-4-5",
            provider="anthropic",
            usage=ANTHROPIC_USAGE,
            ran=[ProviderCall("web_search", {"query": "q"})],
        ),
    ),
]


def reveals(name: str) -> bool:
    """Hide nothing."""
    return False


@pytest.mark.parametrize(
    ("answer", "where", "expected"),
    [(answer, where, expected) for answer, kinds, expected in OBJECTS for where in kinds],
)
@pytest.mark.parametrize(
    "dump",
    [
        # Older packages take what they do not know for what they know, of which pydantic warns.
        pytest.param(lambda answer: answer.model_dump(warnings=False), id="dumped"),
        pytest.param(lambda answer: answer.model_dump(warnings=False, exclude_unset=True), id="sent"),
        pytest.param(lambda answer: mending.plain(answer, reveals), id="plain"),
    ],
)
def test_the_objects_of_the_packages_are_read(
    answer: Any, where: str, expected: Turn, dump: Callable[[Any], Any]
) -> None:
    """However they are made plain."""
    module, _, name = where.partition(":")
    kind = getattr(pytest.importorskip(module), name, None)
    if kind is None:
        pytest.skip(f"{module} has no {name} yet")

    assert read_response(dump(kind.construct(**answer))) == expected
    assert read_response(answer) == expected


def test_the_message_of_a_chat_completion_is_read_alone() -> None:
    """A function often returns no more than that."""
    chats = pytest.importorskip("openai.types.chat")
    asked = chats.ChatCompletion.construct(**chat(tool_calls=[FIND])).choices[0].message
    refused = chats.ChatCompletion.construct(**chat(refusal="No.")).choices[0].message

    assert read_response(mending.plain(asked, reveals)).tool_calls == [item("find", '{"q":1}', id="c1")]
    assert read_response(refused.model_dump()) == Turn("No.", refusal="No.")


BODIES: list[tuple[dict[str, Any], Request]] = [
    (
        {"model": "gpt-4o", "stream": True, "messages": [USER], "tools": [{"type": "function"}]},
        Request(
            messages=[USER],
            metadata={"tools": [{"type": "function"}], "params": {"model": "gpt-4o", "stream": True}},
        ),
    ),
    (
        {"model": "gpt-5", "input": "Hello", "instructions": "Be kind.", "store": False},
        Request(
            messages=[USER],
            metadata={"systemPrompt": "Be kind.", "params": {"model": "gpt-5", "store": False}},
        ),
    ),
    (
        {
            "model": "gpt-5",
            "input": [FUNCTION_CALL, {"type": "function_call_output", "call_id": "f1", "output": "x"}],
        },
        Request(
            messages=[FUNCTION_CALL, {"type": "function_call_output", "call_id": "f1", "output": "x"}],
            tool="find",
            output="x",
            metadata={"params": {"model": "gpt-5"}},
        ),
    ),
    (
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 9,
            "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
            "messages": [USER],
        },
        Request(
            messages=[USER],
            metadata={
                "systemPrompt": "Be kind.",
                "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
                "params": {"model": "claude-sonnet-4-5", "max_tokens": 9},
            },
        ),
    ),
    (
        {"model": "text-embedding-3-small", "input": ["a", "b"]},
        Request(
            messages=["a", "b"],
            metadata={"params": {"model": "text-embedding-3-small"}},
        ),
    ),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_the_body_of_a_request_is_read(body: dict[str, Any], expected: Request) -> None:
    """As the four APIs get it."""
    assert read_request(body) == expected


KEYS = st.sampled_from(
    [
        "messages", "role", "content", "type", "text", "choices", "message", "delta", "tool_calls", "function",
        "name", "arguments", "id", "call_id", "output", "summary", "usage", "prompt_tokens", "input_tokens",
        "prompt_tokens_details", "cached_tokens", "system", "tools", "thinking", "data", "embedding", "shape",
        "model", "status", "finish_reason", "tool_call_id", "refusal", "input", "promptTokens", "reasoning_content",
        "custom", "audio", "transcript", "function_call", "incomplete_details", "reason", "stop_reason", "stop_details",
        "explanation", "output_tokens_details", "cache_creation", "ephemeral_1h_input_tokens", "action", "signature",
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
        "refusal",
        "shell_call",
        "shell_call_output",
        "redacted_thinking",
        "incomplete",
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
    assert isinstance(turn.refusal, str)
    vectors = read_embedding(answer)

    assert type(vectors.count) is int
    assert type(vectors.dimensions) is int
    assert vectors.encoding in ("float", "base64")


@given(st.dictionaries(KEYS, PLAIN, max_size=5))
def test_no_shape_of_arguments_makes_reading_them_fail(arguments: dict[str, Any]) -> None:
    """Whatever is read can be recorded."""
    request = read_request(arguments)

    assert isinstance(request.messages, list)
    assert isinstance(request.tool, str)
    assert isinstance(request.metadata.get("systemPrompt", ""), str)
    msgspec.json.encode(request)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, {}),
        ("error", {}),
        ({"choices": [], "error": None}, {}),
        ({"error": {"message": "No.", "code": 502}}, {"message": "No.", "code": 502, "status": 502}),
        ({"error": {"message": "No.", "code": "busy"}}, {"message": "No.", "code": "busy"}),
        ({"error": "No."}, {"message": "No."}),
        (
            {"type": "error", "error": {"type": "api_error", "message": "No."}},
            {"type": "api_error", "message": "No."},
        ),
        ({"object": "error", "message": "No.", "code": 400}, {"message": "No.", "code": 400, "status": 400}),
        ({"choices": [{"error": {"message": "No."}, "finish_reason": "error"}]}, {"message": "No."}),
        (
            {"status": "failed", "output": [], "error": {"code": "server_error", "message": "No."}},
            {"code": "server_error", "message": "No."},
        ),
    ],
)
def test_an_error_is_read_from_an_answer(answer: Any, expected: dict[str, Any]) -> None:
    """In the forms that servers give it which answer with success."""
    assert read_error(answer) == expected
