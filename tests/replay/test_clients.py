"""Traced clients in a replay: the package's own code makes of the recording what it made of the provider's answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from collector import Collector
from packages import LOST, bare, got, items, openai
from provider import Provider
from replies import Cut, Redacted, Reply, Thinking, ToolCall, Usage
from traced import (
    ANSWERS,
    CHATS,
    CLAUDES,
    STREAMED,
    WHOLE,
    Api,
    both_faces,
    create,
    helped,
    parse,
    stream,
    traced,
)

from whyops_trace import WhyOps, trace, traced_llm
from whyops_trace.exceptions import ReplayMiss
from whyops_trace.replay import replay
from whyops_trace.testing import capture_events

pytestmark = pytest.mark.asyncio_only

RICH = Reply(
    "I will do so.",
    (ToolCall("charge_card", {"amount": 4999}, "call_1"),),
    (Thinking("Is it paid for?", "c2lnbmVk"), Redacted("cmVkYWN0ZWQ=")),
    usage=Usage(fresh=20, cached=8, written_5m=60, written_1h=40, output=9, reasoning=4),
)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WHOLE)
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_whole_answer_is_the_same_in_a_replay(
    api: Api, kind: Any, way: str, provider: Provider
) -> None:
    """Whatever way a program asks, it gets what the provider said, with nobody there to say it."""
    provider.reply(RICH)
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            first = await WHOLE[way](made, api)
        provider.stop()
        with replay(recorded, store=False) as run:
            second = await WHOLE[way](made, api)

    if "lines" in way or "pieces" in way or "text" in way or "bytes" in way:
        first, second = (json.loads(text_of(each)) for each in (first, second))
    assert second == first
    assert run.drift == []


@pytest.mark.anyio
@pytest.mark.parametrize("way", STREAMED)
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_streamed_answer_is_the_same_in_a_replay(
    api: Api, kind: Any, way: str, provider: Provider
) -> None:
    provider.reply(RICH)
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            first = await STREAMED[way](made, api)
        provider.stop()
        with replay(recorded, store=False) as run:
            second = await STREAMED[way](made, api)

    assert (answer_in(run.events), len(second) > 3) == (answer_in(recorded), len(first) > 3)


def answer_in(events: list[dict[str, Any]]) -> Any:
    """Return all that was recorded of the answer, but for times."""
    [answer] = [event for event in events if event["eventType"] == "llm_response"]
    about = {name: value for name, value in answer["metadata"].items() if not name.endswith("Ms")}
    return about, answer["content"]


def text_of(pieces: Any) -> str:
    if isinstance(pieces, list):
        return "".join(map(text_of, pieces))
    return pieces.decode() if isinstance(pieces, bytes) else pieces


@pytest.mark.anyio
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_parsed_answer_is_parsed_again(api: Api, kind: Any, provider: Provider) -> None:
    """An answer of a shape that the program asks for has that shape in a replay."""
    provider.say('{"amount": 4999}')
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            first = await parse(made, api)
        provider.stop()
        with replay(recorded, store=False):
            second = await parse(made, api)

    assert second == first
    assert "4999" in repr(second)


@pytest.mark.anyio
@both_faces(CHATS, ANSWERS, CLAUDES)
async def test_a_helper_for_streams_puts_the_same_answer_together(
    api: Api, kind: Any, provider: Provider
) -> None:
    """What a helper has at the end of a stream is what it had when the stream came from the provider."""

    async def final(made: Any) -> Any:
        async with helped(made, api) as answer:
            await items(answer)
            name = {
                CHATS: "get_final_completion",
                ANSWERS: "get_final_response",
                CLAUDES: "get_final_message",
            }[api]
            return await got(getattr(answer, name)())

    provider.reply(RICH)
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            first = await final(made)
        provider.stop()
        with replay(recorded, store=False):
            second = await final(made)

    assert bare(second) == bare(first)


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_refused_request_is_refused_again(api: Api, kind: Any, provider: Provider) -> None:
    """A provider's error is of the same class, with its status, body and the time to wait; nothing is tried again."""

    async def refused(made: Any) -> Any:
        with pytest.raises(Exception, match="slow down") as caught:
            await create(made, api)
        error: Any = caught.value
        return type(error), str(error), error.status_code, error.body, error.response.headers["retry-after"]

    provider.fail(429, message="slow down", headers={"retry-after": "7"})
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            first = await refused(made)
        provider.stop()
        with replay(recorded, store=False):
            second = await refused(made.with_options(max_retries=3))

    assert second == first
    assert first[-1] == "7"


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_lost_connection_is_lost_again(api: Api, kind: Any, provider: Provider) -> None:
    """A program that handles a failed connection is asked to do so in a replay."""
    provider.say("Hello", Cut())
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"), pytest.raises(LOST) as first:
            await create(made, api)
        provider.stop()
        with replay(recorded, store=False), pytest.raises(LOST) as second:
            await create(made, api)

    assert second.type is first.type


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_stream_that_broke_off_breaks_off_again(api: Api, kind: Any, provider: Provider) -> None:
    """A stream that lost its connection does so in a replay, before its first piece."""
    provider.say("Hello, how can I help?", Cut(2))
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"), pytest.raises(LOST):
            await stream(made, api)
        provider.stop()
        with replay(recorded, store=False), pytest.raises(LOST):
            await stream(made, api)


@pytest.mark.anyio
@both_faces(CHATS)
async def test_a_stream_that_was_left_is_not_read_further(api: Api, kind: Any, provider: Provider) -> None:
    """What a program did not read was not recorded, so to read it in a replay is a miss."""
    provider.say("Hello, how can I help?")

    async def read(made: Any, pieces: int) -> None:
        answer = await create(made, api, stream=True)
        step = getattr(answer, "__anext__", None) or answer.__next__
        for _ in range(pieces):
            await got(step())
        await got(answer.close())

    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            await read(made, 3)
        provider.stop()
        with replay(recorded, store=False):
            await read(made, 2)
        with pytest.raises(ReplayMiss, match="was left here"), replay(recorded, store=False):
            await read(made, 50)


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_live_endpoint_is_asked(api: Api, kind: Any, provider: Provider) -> None:
    """A request that is listed as live goes to the provider, and answers for the recorded one."""
    provider.say("before")
    provider.say("now")
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            await create(made, api)
        with replay(recorded, store=False, live=[api.name]) as run:
            answer = await create(made, api)

    assert "now" in repr(answer)
    assert (run.unused, run.drift) == ([], [])


@pytest.mark.anyio
@both_faces(CHATS)
async def test_an_endpoint_is_swapped(api: Api, kind: Any, provider: Provider) -> None:
    """A function in the place of a provider gets the body of the request, and answers in the provider's form."""
    provider.say("before")

    def otherwise(body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"not {body['model']}"}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip

    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            await create(made, api)
        provider.stop()
        with replay(recorded, store=False, swap={"chat.completions": otherwise}):
            whole = await create(made, api)
        with replay(recorded, store=False, swap={"chat.completions": otherwise}):
            pieces = await stream(made, api)

    assert whole.choices[0].message.content == "not gpt-4o"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "not gpt-4o"


@pytest.mark.anyio
@both_faces(CHATS)
async def test_a_prompt_with_another_text_is_drift(api: Api, kind: Any, provider: Provider) -> None:
    """A request with another text is answered all the same, and told; strictly it is a failure at the end."""
    provider.say("Hello")
    async with traced(kind, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            await create(made, api, messages=[{"role": "user", "content": "Order 1 of Monday"}])
        provider.stop()
        with replay(recorded, store=False, match="first") as run:
            await create(made, api, messages=[{"role": "user", "content": "Order 1 of Friday"}])
        with pytest.raises(ReplayMiss, match="Friday"), replay(recorded, store=False):
            await create(made, api, messages=[{"role": "user", "content": "Order 1 of Friday"}])
        with replay(recorded, store=False, normalise=lambda text: text.replace("Friday", "Monday")) as same:
            await create(made, api, messages=[{"role": "user", "content": "Order 1 of Friday"}])

    assert run.drift == [
        'chat.completions(1 messages): messages[0].content: recorded "Order 1 of Monday", now "Order 1 of Friday"'
    ]
    assert same.drift == []


@pytest.mark.anyio
async def test_of_requests_in_flight_each_gets_its_own_answer(provider: Provider) -> None:
    """Requests of one shape, made at the same time with an edited prompt, get the answers of those most like them."""
    cities = ["Oslo", "Rome", "Lima", "Bonn"]
    provider.script = lambda request: Reply(f"It is {request.json['messages'][0]['content'][-4:]}")

    async def ask(made: Any, order: list[str], prompt: str) -> list[Any]:
        asked = [made.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt + city}])
                 for city in order]  # fmt: skip
        return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    async with traced(openai.AsyncOpenAI, provider) as made:
        with capture_events(local=True) as recorded, trace("t"):
            await ask(made, cities, "Where is ")
        provider.stop()
        with replay(recorded, store=False, match="first"):
            answers = await ask(made, cities[::-1], "Please tell me where this is: ")

    assert answers == [f"It is {city}" for city in cities[::-1]]


@pytest.mark.anyio
async def test_vectors_are_not_replayed(provider: Provider) -> None:
    """Vectors are counted, not recorded, so a request for them has to be live or swapped; what to do is told."""
    async with traced(openai.OpenAI, provider, _strict_response_validation=False) as made:
        with capture_events(local=True) as recorded, trace("t"):
            made.embeddings.create(model="text-embedding-3-small", input="x")
        with pytest.raises(ReplayMiss, match="live= or swap="), replay(recorded, store=False):
            made.embeddings.create(model="text-embedding-3-small", input="x")
        with pytest.raises(ReplayMiss, match="no call of a model"), replay(recorded, store=False):
            made.models.list()


@pytest.mark.anyio
async def test_a_function_around_a_client_runs(provider: Provider) -> None:
    """A traced function whose client reports the turn runs, and the client in it is answered."""
    async with traced(openai.OpenAI, provider) as made:

        @traced_llm
        def ask(messages: list[Any]) -> str:
            said = made.chat.completions.create(model="m", messages=messages).choices[0].message.content
            return str(said).upper()

        provider.say("Hello")
        with capture_events(local=True) as recorded, trace("t"):
            first = ask([{"role": "user", "content": "Hi"}])
        provider.stop()
        with replay(recorded, store=False):
            second = ask([{"role": "user", "content": "Hi"}])

    assert second == first == "HELLO"


@pytest.mark.anyio
@both_faces(CHATS, CLAUDES)
async def test_a_client_that_goes_through_the_proxy_is_answered(
    api: Api, kind: Any, provider: Provider, collector: Collector, sdk: WhyOps
) -> None:
    """No proxy, server or provider is there in a replay, and nobody waits for them."""
    provider.say("Hello")
    provider.say("Hello again")
    async with traced(kind, provider, sdk) as made:
        with capture_events(local=True) as recorded, sdk.trace("t"):
            first = [await create(made, api), await stream(made, api)]
        provider.stop()
        collector.stop()
        with replay(recorded, store=False) as run, sdk.trace("t"):
            second = [await create(made, api), await stream(made, api)]
    sdk.close_sync(0)

    assert second[0] == first[0]
    assert run.unused == []
