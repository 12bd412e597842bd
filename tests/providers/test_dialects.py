"""Answers of sellers who speak as OpenAI or Anthropic do, each in a dialect of its own, through traced clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from packages import MESSAGES, anthropic, got, items, method, openai
from recorded import Recorded
from seller import Seller, chat, chunks, sse
from traced import ANTHROPIC_KINDS, OPENAI_KINDS, trace_with

from whyops_trace import WhyOps, traced_llm
from whyops_trace.tree import build

pytestmark = pytest.mark.asyncio_only


@contextlib.asynccontextmanager
async def buyer(
    seller: Seller, kind: Any = openai.OpenAI, host: str = "llm.example.com"
) -> AsyncIterator[Any]:
    """A traced client whose requests to a host come to the seller."""
    package = openai if kind in OPENAI_KINDS else anthropic
    is_async = kind.__name__.startswith("Async")
    hook: Any = seller.lead_here

    async def ahook(request: Any) -> None:
        hook(request)

    http_client = (package.DefaultAsyncHttpxClient if is_async else package.DefaultHttpxClient)(
        event_hooks={"request": [ahook if is_async else hook]}
    )
    url = f"https://{host}" + ("/v1" if package is openai else "")
    made = kind(api_key="k", base_url=url, max_retries=0, http_client=http_client)
    try:
        yield trace_with(WhyOps(agent_name="shop"), made)
    finally:
        await got(made.close())


async def ask(made: Any, **more: Any) -> Any:
    """Ask for a chat completion."""
    return await got(made.chat.completions.create(**{"model": "m", "messages": MESSAGES, **more}))


def answered(events: Recorded) -> Any:
    """Return the record of the last answer."""
    return [record for record in events.records if record["eventType"] == "llm_response"][-1]


# Streams


SPOKEN = sse(
    *chunks(
        [{"role": "assistant", "content": "Hel"}, {"content": "lo"}],
        usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    )
)


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.parametrize("media_type", ["text/plain; charset=utf-8", "application/json", ""])
@pytest.mark.parametrize("start", [b"", b"\n\n", b": wait\n\n", b"extra: 1\n"])
@pytest.mark.anyio
async def test_a_stream_is_known_by_its_request_and_its_bytes(
    events: Recorded, kind: Any, media_type: str, start: bytes
) -> None:
    """Its media type does not count, since the package does not look at it either."""
    with Seller(start + SPOKEN, media_type) as seller:
        async with buyer(seller, kind) as made:
            heard = await items(await ask(made, stream=True))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard) == "Hello"
    assert answered(events)["content"] == {"content": "Hello", "finishReason": "stop"}
    assert answered(events)["metadata"]["usage"] == {
        "promptTokens": 10,
        "completionTokens": 2,
        "totalTokens": 12,
    }


@pytest.mark.anyio
async def test_an_answer_in_one_piece_is_none_although_a_stream_was_asked_for(events: Recorded) -> None:
    """Some servers ignore the wish, and yet send the media type of a stream."""
    with Seller(chat({"content": "Hello"}), "text/event-stream") as seller:
        async with buyer(seller) as made:
            await items(await ask(made, stream=True))

    assert answered(events)["content"] == {"content": "Hello", "finishReason": "stop"}


@pytest.mark.anyio
async def test_a_stream_that_nobody_asked_for_is_read(events: Recorded) -> None:
    """The package gives the caller the text of the body as it is."""
    with Seller(SPOKEN, "text/event-stream") as seller:
        async with buyer(seller) as made:
            assert "Hel" in str(await ask(made))

    assert answered(events)["content"] == {"content": "Hello", "finishReason": "stop"}


# Tokens


GROQS = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@pytest.mark.parametrize(
    "last",
    [{"x_groq": {"id": "req_1", "usage": GROQS}}, {"usage": GROQS}],
    ids=["a member of its own", "as OpenAI"],
)
@pytest.mark.anyio
async def test_tokens_at_the_end_of_a_stream_are_counted(events: Recorded, last: dict[str, Any]) -> None:
    """Also where a seller puts them into a member of its own."""
    stream = chunks([{"content": "Hello"}], **last)
    stream[0] |= {"x_groq": {"id": "req_1"}}
    with Seller(sse(*stream), "text/event-stream") as seller:
        async with buyer(seller, host="api.groq.com") as made:
            await items(await ask(made, stream=True))

    assert answered(events)["metadata"]["usage"] == {
        "promptTokens": 10,
        "completionTokens": 2,
        "totalTokens": 12,
    }


@pytest.mark.anyio
async def test_tokens_in_a_choice_of_a_stream_are_counted(events: Recorded) -> None:
    """Moonshot has them in the last one."""
    stream = chunks([{"content": "Hello"}])
    stream[-1]["choices"][0]["usage"] = GROQS
    with Seller(sse(*stream), "text/event-stream") as seller:
        async with buyer(seller, host="api.moonshot.ai") as made:
            await items(await ask(made, stream=True))

    assert answered(events)["metadata"]["usage"]["promptTokens"] == 10


@pytest.mark.anyio
async def test_the_price_that_a_seller_tells_is_recorded(events: Recorded) -> None:
    """As it is told, beside the tokens."""
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.00014}
    with Seller(chat({"content": "Hi."}, usage)) as seller:
        async with buyer(seller, host="openrouter.ai") as made:
            await ask(made)

    assert answered(events)["metadata"]["usage"]["cost"] == 0.00014


# Thinking, errors and choices


THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_thinking_in_the_content_of_a_message_is_recorded(events: Recorded, streams: bool) -> None:
    """As Mistral has it, before the text, whole or in pieces."""
    if streams:
        body: Any = sse(*chunks([{"content": THOUGHT}, {"content": THOUGHT}, {"content": "4"}]))
    else:
        body = chat({"content": [*THOUGHT, {"type": "text", "text": "4"}]})
    with Seller(body) as seller:
        async with buyer(seller) as made:
            answer = await ask(made, stream=streams)
            if streams:
                await items(answer)

    assert [row[5] for row in events.rows[1:]] == [
        {"type": "thinking", "thinking": "hmhm" if streams else "hm"},
        {"content": "4", "finishReason": "stop"},
    ]
    if streams:
        assert events.rows[-1][6]["timeToFirstTokenMs"] is not None


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.anyio
async def test_an_error_with_a_status_of_success_is_an_error(events: Recorded, kind: Any) -> None:
    """OpenRouter sends one where the service behind it fails; the caller gets the object of an untraced client."""
    with Seller({"error": {"message": "Provider returned error", "code": 502}}) as seller:
        async with buyer(seller, kind, host="openrouter.ai") as made:
            assert not (await ask(made)).choices
            await got(made.embeddings.create(model="m", input="a", encoding_format="float", timeout=9))

    expected = {"message": "Provider returned error", "code": 502, "status": 502}
    errors = [row for row in events.rows if row[0] == "error"]
    assert [row[4] for row in errors] == ["chat.completions", "embeddings"]
    assert [row[5] for row in errors] == [expected, expected]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_all_choices_are_recorded(events: Recorded, streams: bool) -> None:
    """The first as the answer, the others beside it, with what they ask for."""
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}}
    other: Any = {"index": 1, "message": {"content": "two", "reasoning": "hm", "tool_calls": [call]}}
    answer = chat({"content": "one"})
    answer["choices"].append(other | {"finish_reason": "length"})
    stream = chunks([{"content": "one"}])
    delta = {**other["message"], "tool_calls": [{"index": 0, **call}]}
    stream[1]["choices"].append({"index": 1, "delta": delta, "finish_reason": "length"})
    with Seller(sse(*stream) if streams else answer) as seller:
        async with buyer(seller) as made:
            result = await ask(made, n=2, stream=streams)
            if streams:
                await items(result)

    assert answered(events)["content"] == {
        "content": "one",
        "finishReason": "stop",
        "otherChoices": [
            {
                "content": "two",
                "toolCalls": [{"function": {"name": "find", "arguments": '{"q":1}'}, "id": "c1"}],
                "finishReason": "length",
                "thinking": [{"type": "thinking", "thinking": "hm"}],
            }
        ],
    }


# Tools that the provider ran


SEARCHED: Any = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [
        {
            "type": "web_search_call",
            "id": "w",
            "status": "completed",
            "action": {"type": "search", "query": "q"},
        },
        {
            "type": "mcp_call",
            "id": "m",
            "name": "lookup",
            "server_label": "shop",
            "arguments": '{"password": "hunter2", "q": 1}',
            "error": "No.",
        },
        {
            "type": "message",
            "id": "x",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
    ],
}
FETCHED: Any = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "stop_reason": "end_turn",
    "content": [
        {"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {"url": "u"}},
        {
            "type": "web_fetch_tool_result",
            "tool_use_id": "s",
            "content": {"type": "web_fetch_result", "url": "u"},
        },
        {"type": "text", "text": "Hi."},
    ],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_tools_that_openai_ran_are_events_of_the_turn(events: Recorded, streams: bool) -> None:
    """Inputs and outputs, under the turn, marked as run there; secrets are hidden as anywhere."""
    done = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(SEARCHED["output"])
    ]
    stream = sse(*done, {"type": "response.completed", "response": {**SEARCHED, "output": []}})
    with Seller(stream if streams else SEARCHED) as seller:
        async with buyer(seller) as made:
            answer = await got(made.responses.create(model="m", input="q", stream=streams))
            if streams:
                await items(answer)
    shop = {"ranAt": "provider", "server": "shop"}

    assert events.rows[1:5] == [
        ("tool_call_request", 2, 1, 1, "web_search",
         {"type": "search", "query": "q"},
         {"ranAt": "provider"}),
        ("tool_call_response", 3, 2, 2, "web_search",
         {}, {"ranAt": "provider"}),
        ("tool_call_request", 4, 1, 1, "lookup",
         {"password": "[redacted]", "q": 1},
         shop),
        ("tool_call_response", 5, 4, 4, "lookup",
         {"error": {"message": "No."}},
         shop | {"outcome": "error"}),
    ]  # fmt: skip
    assert events.rows[5][:4] == ("llm_response", 6, 1, 1)
    assert events.rows[5][5] == {"content": "Hi.", "finishReason": "completed"}
    spans = [record["spanId"] for record in events.records]
    assert spans[1] == spans[2] != spans[3] == spans[4] != spans[0]


@pytest.mark.parametrize("kind", ANTHROPIC_KINDS)
@pytest.mark.anyio
async def test_tools_that_anthropic_ran_are_events_of_the_turn(events: Recorded, kind: Any) -> None:
    """Each with the result that the message has for it."""
    with Seller(FETCHED) as seller:
        async with buyer(seller, kind) as made:
            await got(made.messages.create(model="m", max_tokens=9, messages=MESSAGES))

    assert [(row[0], row[6].get("ranAt")) for row in events.rows] == [
        ("user_message", None),
        ("tool_call_request", "provider"),
        ("tool_call_response", "provider"),
        ("llm_response", None),
    ]
    assert events.rows[2][5] == {"type": "web_fetch_result", "url": "u"}


@pytest.mark.anyio
async def test_tools_that_a_provider_ran_are_recorded_once(events: Recorded) -> None:
    """Not again by a function around the call, and not at all without its output."""

    @traced_llm
    def around(made: Any) -> Any:
        return made.messages.create(model="m", max_tokens=9, messages=MESSAGES)

    @traced_llm(capture_output=False)
    def silent() -> Any:
        return FETCHED

    with Seller(FETCHED) as seller:
        async with buyer(seller, anthropic.Anthropic) as made:
            around(made)
    silent()

    assert [row[0] for row in events.rows].count("tool_call_request") == 1


@pytest.mark.anyio
async def test_the_time_of_a_tool_that_a_provider_ran_is_unknown(events: Recorded) -> None:
    """Nobody says how long it took; the times of its records are those of the answer."""
    with Seller(FETCHED) as seller:
        async with buyer(seller, anthropic.Anthropic) as made:
            made.messages.create(model="m", max_tokens=9, messages=MESSAGES)
    (turn,) = build(events.records).nodes
    (tool,) = turn.children

    assert (tool.name, tool.status, tool.latency_ms) == ("web_fetch", "ok", None)
    assert turn.latency_ms is not None


# Other calls that bill tokens


COMPACTED: Any = {
    "id": "c",
    "object": "response.compaction",
    "created_at": 1,
    "output": [{"type": "compaction", "id": "x", "encrypted_content": "z"}],
    "usage": {"input_tokens": 50, "output_tokens": 20, "total_tokens": 70},
}
COMPLETED: Any = {
    "id": "x",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "text": "Hello", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
}
COUNTED = {"promptTokens": 50, "completionTokens": 20, "totalTokens": 70}


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.anyio
async def test_a_conversation_that_is_compacted_is_a_turn(events: Recorded, kind: Any) -> None:
    """It has tokens and no text."""
    with Seller(COMPACTED) as seller:
        async with buyer(seller, kind) as made:
            await got(method(made, "responses.compact")(model="m", input="Charge me."))

    assert [row[:6] for row in events.rows] == [
        ("user_message", 1, None, 0, "responses.compact", {"messages": MESSAGES}),
        ("llm_response", 2, 1, 1, "responses.compact", {}),
    ]
    assert events.rows[1][6]["usage"] == COUNTED


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_a_completion_of_a_text_is_a_turn(events: Recorded, kind: Any, streams: bool) -> None:
    """Whole, and as a stream."""
    pieces = [{"index": 0, "text": text, "finish_reason": None} for text in ("Hel", "lo")]
    stream = [{**COMPLETED, "choices": [piece], "usage": None} for piece in pieces]
    with Seller(sse(*stream, COMPLETED | {"choices": []}) if streams else COMPLETED) as seller:
        async with buyer(seller, kind) as made:
            answer = await got(made.completions.create(model="m", prompt="Charge me.", stream=streams))
            if streams:
                await items(answer)

    assert [row[:5] for row in events.rows] == [
        ("user_message", 1, None, 0, "completions"),
        ("llm_response", 2, 1, 1, "completions"),
    ]
    assert events.rows[0][5] == {"messages": MESSAGES}
    assert events.rows[1][5]["content"] == "Hello"
    assert events.rows[1][6]["usage"] == COUNTED
