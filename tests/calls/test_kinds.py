"""What calls of tools, models and embeddings record, through the decorators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from recorded import Recorded

from whyops_trace import WhyOps, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace.testing import capture_events

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "total_tokens": 107,
        "prompt_tokens_details": {"cached_tokens": 60},
    },
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4",
    "stop_reason": "end_turn",
    "content": [
        {"type": "thinking", "thinking": "They greet me.", "signature": "s"},
        {"type": "text", "text": "Hello "},
        {"type": "text", "text": "there"},
    ],
    "usage": {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 20,
    },
}


def about(model: str, provider: str, **more: Any) -> dict[str, Any]:
    """Return what an answer says of its model."""
    return {"model": model, "provider": provider, **more}


def test_a_model_call_is_a_turn_and_its_answer(events: Recorded) -> None:
    """The messages, what the model was given beside them, the text, who answered."""

    @traced_llm(model="openai/gpt-4o", provider="openai")
    def ask(messages: list[Any], temperature: float = 0.5, system: str = "") -> str:
        return "Hi."

    assert ask(MESSAGES, system="Short.") == "Hi."
    assert events.rows == [
        (
            "user_message", 1, None, 0, "ask", {"messages": MESSAGES},
            {"systemPrompt": "Short.", "params": {"temperature": 0.5}},
        ),
        ("llm_response", 2, 1, 1, "ask", {"content": "Hi."}, about("openai/gpt-4o", "openai")),
    ]  # fmt: skip


@pytest.mark.anyio
async def test_openais_answer_is_read(events: Recorded) -> None:
    """Text, tool calls, finish reason; prompt tokens without the cached ones."""

    @traced_llm
    async def ask(messages: list[Any], model: str) -> Any:
        await anyio.lowlevel.checkpoint()
        return CHAT

    assert await ask(MESSAGES, model="gpt-4o") is CHAT
    usage = {"promptTokens": 40, "completionTokens": 7, "totalTokens": 107, "cacheReadTokens": 60}
    call = {"id": "c1", "function": {"name": "find", "arguments": '{"q":1}'}}
    assert events.rows == [
        ("user_message", 1, None, 0, "ask", {"messages": MESSAGES}, {"params": {"model": "gpt-4o"}}),
        (
            "llm_response", 2, 1, 1, "ask",
            {"content": "Let me see.", "toolCalls": [call], "finishReason": "tool_calls"},
            about("gpt-4o-2024-08-06", "openai", usage=usage),
        ),
    ]  # fmt: skip


def test_anthropics_answer_is_read(events: Recorded) -> None:
    """Each thinking block is an event of its own, before the answer."""

    @traced_llm
    def ask(prompt: str) -> Any:
        return MESSAGE

    ask("Hello")
    usage = {
        "promptTokens": 10, "completionTokens": 5, "totalTokens": 115, "cacheReadTokens": 80,
        "cacheCreationTokens": 20,
    }  # fmt: skip

    assert events.rows == [
        ("user_message", 1, None, 0, "ask", {"messages": [{"role": "user", "content": "Hello"}]}),
        ("llm_thinking", 2, 1, 1, "ask", MESSAGE["content"][0]),  # type: ignore[index]
        (
            "llm_response", 3, 1, 1, "ask", {"content": "Hello there", "finishReason": "end_turn"},
            about("claude-sonnet-4", "anthropic", usage=usage),
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [CHAT, MESSAGE])
def test_the_response_of_a_provider_is_kept_whole(events: Recorded, answer: dict[str, Any]) -> None:
    """Order of blocks, ids and members that nobody reads: a recording can answer as the provider did."""
    whole = {**answer, "system_fingerprint": "fp_1", "service_tier": "default", "password": "hunter2"}

    @traced_llm
    def ask(prompt: str) -> Any:
        return whole

    @traced_llm(capture_output=False)
    def ask_in_silence(prompt: str) -> Any:
        return whole

    ask("Hello")
    ask_in_silence("Hello")
    kept = [
        record["metadata"].get("rawResponse")
        for record in events.records
        if record["eventType"] == "llm_response"
    ]

    assert kept == [{**whole, "password": "[redacted]"}, None]


@pytest.mark.parametrize("limit", [10_000, 12_000, 20_000, 100_000])
def test_the_response_of_a_provider_takes_what_the_answer_leaves(limit: int, tmp_path: Path) -> None:
    """It is cut, or left out, before anything else of the turn is."""
    texts = {"system_fingerprint": "f" * 3_000, "service_tier": "t" * 3_000}
    answers: list[dict[str, Any]] = []
    for more in ({}, texts):
        whole = {**CHAT, **more}
        sdk = WhyOps(agent_name="shop", home=tmp_path, max_event_bytes=limit)

        @traced_llm
        def ask(prompt: str, answer: Any = whole) -> Any:
            return answer

        with capture_events() as records, sdk.trace():
            ask("Hello")
        answers += (record for record in records if record["eventType"] == "llm_response")
        sdk.close_sync()
    raw = [answer["metadata"].pop("rawResponse", None) for answer in answers]
    short, long = [({**answer["metadata"], "latencyMs": 0}, answer["content"]) for answer in answers]

    assert short == long
    assert raw[1] == {**CHAT, **texts} or limit < 20_000


@pytest.mark.parametrize(
    "answer", ["Hello", {"content": "Hello", "model": "m"}, {"text": "Hello"}, [1], None]
)
def test_an_answer_of_no_provider_is_not_kept_twice(events: Recorded, answer: Any) -> None:
    """Its content is all there is."""

    @traced_llm
    def ask(prompt: str) -> Any:
        return answer

    @traced_llm(extract=lambda reply: {"content": reply["choices"][0]["message"]["content"]})
    def ask_and_extract(prompt: str) -> Any:
        return CHAT

    ask("Hello")
    ask_and_extract("Hello")

    assert not [record for record in events.records if "rawResponse" in record["metadata"]]


def test_a_tools_result_going_back_is_no_new_turn(events: Recorded) -> None:
    """The request is a ``tool_result``, named after the tool that was called."""
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]

    @traced_llm
    def ask(messages: list[Any]) -> str:
        return "Done."

    ask(history)

    assert events.rows[0] == (
        "tool_result", 1, None, 0, "ask", {"toolName": "find", "output": "found", "messages": history},
    )  # fmt: skip


MODELS = [
    ({}, {}, "text", ("unknown", "unknown")),
    ({"model": "m"}, {}, "text", ("m", "unknown")),
    ({"model": "openai/gpt"}, {}, "text", ("openai/gpt", "openai")),
    ({"model": "m", "provider": "p"}, {}, "text", ("m", "p")),
    ({}, {"model": "asked"}, "text", ("asked", "unknown")),
    ({"model": "m"}, {"model": "asked"}, "text", ("asked", "unknown")),
    ({"model": "m"}, {"model": "asked"}, {"content": "x", "model": "answered"}, ("answered", "unknown")),
    ({"provider": "azure"}, {}, CHAT, ("gpt-4o-2024-08-06", "azure")),
    ({}, {"model": None}, "text", ("unknown", "unknown")),
    ({}, {"model": 5}, "text", ("unknown", "unknown")),
]


@pytest.mark.parametrize(("options", "arguments", "answer", "expected"), MODELS)
def test_the_model_is_the_answers_then_the_arguments_then_the_decorators(
    events: Recorded, options: Any, arguments: Any, answer: Any, expected: tuple[str, str]
) -> None:
    """The provider is the decorator's, then what the answer's shape or the model's name tells."""

    @traced_llm(**options)
    def ask(prompt: str, model: Any = None) -> Any:
        return answer

    ask("x", **arguments)

    assert (events.rows[-1][6]["model"], events.rows[-1][6]["provider"]) == expected


def test_a_failed_model_call_is_an_error_of_its_model(events: Recorded) -> None:
    """It closes the call; there is no answer."""

    class RateLimited(Exception):
        status_code = None

    @traced_llm(provider="openai")
    def ask(prompt: str, model: str) -> str:
        error = RateLimited("slow down")
        error.status_code = 429  # type: ignore[assignment]
        raise error

    with pytest.raises(RateLimited):
        ask("x", model="gpt-4o")
    kind = events.rows[1][5].pop("type")

    assert kind.endswith("RateLimited")
    assert events.rows[1][:5] == ("error", 2, 1, 1, "ask")
    assert events.records[1]["content"]["message"] == "slow down"
    assert events.records[1]["content"]["status"] == 429
    assert events.rows[1][6] == about("gpt-4o", "openai")
    assert events.records[1]["end"] is True


@pytest.mark.anyio
async def test_a_cancelled_model_call_says_so(events: Recorded) -> None:
    """With the model that was asked."""

    @traced_llm
    async def ask(prompt: str, model: str = "m") -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert events.rows[1:] == [
        (
            "llm_response", 2, 1, 1, "ask", {"finishReason": "cancelled"},
            about("m", "unknown", outcome="cancelled"),
        )
    ]  # fmt: skip


def test_a_streamed_answer_is_the_text_of_its_pieces(events: Recorded) -> None:
    """As the consumer gets them."""

    @traced_llm(model="m")
    def ask(prompt: str) -> Iterator[str]:
        yield from ("Hel", "lo", "")

    assert "".join(ask("x")) == "Hello"
    assert events.rows[1] == (
        "llm_response",
        2,
        1,
        1,
        "ask",
        {"content": "Hello"},
        about("m", "unknown", timeToFirstTokenMs=0),
    )


@pytest.mark.anyio
async def test_a_stream_left_early_keeps_what_came(events: Recorded) -> None:
    """It was cancelled, after this much text."""

    @traced_llm(model="m")
    async def ask(prompt: str) -> AsyncIterator[str]:
        yield "Hel"
        yield "lo"

    it = ask("x")
    assert await anext(it) == "Hel"
    await it.aclose()  # type: ignore[attr-defined]
    assert events.rows[1] == (
        "llm_response", 2, 1, 1, "ask", {"content": "Hel", "finishReason": "cancelled"},
        about("m", "unknown", timeToFirstTokenMs=0, outcome="cancelled"),
    )  # fmt: skip


def test_accumulate_makes_the_answer_of_a_streams_items(events: Recorded) -> None:
    """In a shape that is read, and extracted from, like any answer."""

    @traced_llm(accumulate=lambda chunks: {"content": "".join(c["t"] for c in chunks), "model": "acc"})
    def ask(prompt: str) -> Iterator[dict[str, str]]:
        yield {"t": "a"}
        yield {"t": "b"}

    list(ask("x"))

    assert events.rows[1] == ("llm_response", 2, 1, 1, "ask", {"content": "ab"}, about("acc", "unknown"))


def test_extract_says_what_to_record_of_an_answer(events: Recorded) -> None:
    """Text, or a dict in the library's names; the caller's result is untouched."""

    class Answer:
        def __init__(self) -> None:
            self.inner = {"said": "Hi."}

    @traced_llm(
        extract=lambda answer: {
            "content": answer.inner["said"],
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}],
            "finish_reason": "stop",
            "usage": {"promptTokens": 3, "completionTokens": 1},
            "model": "own",
            "provider": "mine",
        }
    )
    def ask(prompt: str) -> Answer:
        return Answer()

    assert type(ask("x")) is Answer
    assert events.rows[1] == (
        "llm_response", 2, 1, 1, "ask",
        {
            "content": "Hi.",
            "toolCalls": [{"function": {"name": "f", "arguments": '{"x":1}'}, "id": "c"}],
            "finishReason": "stop",
        },
        about("own", "mine", usage={"promptTokens": 3, "completionTokens": 1}),
    )  # fmt: skip


@pytest.mark.parametrize("decorate", [traced_llm, traced_embedding])
def test_an_extract_that_fails_is_named_and_the_answer_recorded(
    events: Recorded, said: Callable[[], list[str]], decorate: Any
) -> None:
    """The call goes on; the log says once what to mend."""

    @decorate(extract=lambda answer: answer["missing"])
    def ask(text: str) -> dict[str, Any]:
        return {"content": "Hi.", "data": [[1, 2]]}

    for _ in range(2):
        assert ask("x") == {"content": "Hi.", "data": [[1, 2]]}
    assert len(events.rows) == 4
    assert len(said()) == 1
    assert "extract of 'ask' raised KeyError" in said()[0]


def test_without_capture_the_answers_words_are_left_out(events: Recorded) -> None:
    """Tokens and the finish reason are recorded all the same."""

    @traced_llm(capture_input=False, capture_output=False)
    def ask(prompt: str) -> Any:
        return {**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 2}}

    ask("secret")
    usage = {"promptTokens": 1, "completionTokens": 2, "totalTokens": 3}

    assert events.rows == [
        ("user_message", 1, None, 0, "ask", {"messages": []}),
        (
            "llm_response", 2, 1, 1, "ask", {"finishReason": "end_turn"},
            about("claude-sonnet-4", "anthropic", usage=usage),
        ),
    ]  # fmt: skip


def test_redacted_parameters_of_a_model_call(events: Recorded) -> None:
    """The prompt itself may be one."""

    @traced_llm(redact=["prompt"], name="private", metadata={"tier": 1})
    def ask(prompt: str, api_key: str) -> str:
        return "ok"

    ask("secret", "sk-1")

    assert events.rows[0] == (
        "user_message", 1, None, 0, "private", {"messages": [{"role": "user", "content": "[redacted]"}]},
        {"tier": 1, "params": {"api_key": "[redacted]"}},
    )  # fmt: skip


def test_a_long_generator_is_recorded_by_its_first_items(events: Recorded) -> None:
    """And the count of all."""

    @traced_tool
    def many() -> Iterator[int]:
        yield from range(1000)

    list(many())

    assert events.rows[1][5] == {"items": list(range(100)), "count": 1000}


def test_large_items_of_a_generator_are_bounded_by_size(events: Recorded) -> None:
    """The one that passes the bound is the last."""

    @traced_tool
    def many() -> Iterator[str]:
        for _ in range(10):
            yield "x" * 30_000

    list(many())

    assert len(events.rows[1][5]["items"]) == 3
    assert events.rows[1][5]["count"] == 10


def test_a_tools_cancelled_accumulating_generator_has_its_response(events: Recorded) -> None:
    """What was gathered for ``accumulate`` is let go."""

    @traced_tool(accumulate=list)
    def many() -> Iterator[object]:
        yield object()
        yield object()

    it = many()
    next(it)
    it.close()  # type: ignore[attr-defined]

    assert events.rows[1][5:] == ({"cancelled": True}, {"outcome": "cancelled"})


ARGUMENTS = '{"user":"ada","password":"hunter2"}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "log_in", "arguments": ARGUMENTS}}


def test_secrets_in_the_arguments_of_tool_calls_are_hidden(events: Recorded) -> None:
    """They are JSON text, in answers, in what is said before, and in events by hand; the caller's are untouched."""
    answer = {"model": "m", "choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}]}
    said = [{"role": "assistant", "tool_calls": [CALL]}, {"type": "function_call", "arguments": ARGUMENTS}]

    @traced_llm
    def ask(messages: list[Any]) -> Any:
        return answer

    with trace() as handle:
        assert ask(said) is answer
        handle.llm_response_sync("m", "p", tool_calls=[{"function": CALL["function"]}])  # type: ignore[typeddict-item]
    recorded = str(events.records)

    assert CALL["function"] == {"name": "log_in", "arguments": ARGUMENTS}
    assert "hunter2" not in recorded
    assert recorded.count('{"user":"ada","password":"[redacted]"}') == 5  # also in the raw response


@pytest.mark.parametrize("text", ["{", "[1]", "", '{"a":' * 5_000, "free text", '{"b": 1e999}'])
def test_arguments_that_are_no_object_stay_as_they_are(events: Recorded, text: str) -> None:
    """A custom tool takes any text."""

    @traced_llm
    def ask() -> Any:
        return {"tool_calls": [{"function": {"name": "run", "arguments": text}}]}

    ask()

    assert events.records[1]["content"]["toolCalls"][0]["function"]["arguments"] == text
