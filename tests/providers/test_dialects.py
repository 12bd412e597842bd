"""Answers of sellers who speak as OpenAI or Anthropic do, each in a dialect of its own, through traced clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from packages import MESSAGES, anthropic, got, items, openai
from recorded import Recorded
from seller import Seller, chat, chunks, sse
from traced import OPENAI_KINDS, trace_with

from whyops_trace import WhyOps

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
