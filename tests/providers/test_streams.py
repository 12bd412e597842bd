"""Streams of models: each stays the object that the package made, and its turn ends once, whatever ends it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import anyio.lowlevel
import pytest
from packages import LOST, client, entered, got, items, needs_drops, openai
from provider import Provider
from recorded import Recorded, Row
from replies import Cut, Failure, Gate, Reply, Usage
from traced import (
    ANSWERS,
    ANTHROPIC_KINDS,
    APIS,
    CHATS,
    CLAUDES,
    HERE,
    OPENAI_KINDS,
    Api,
    both_faces,
    create,
    helped,
    trace_with,
    traced,
)

from whyops_trace import WhyOps, current_trace, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace.testing import ManualClock

TEXT = "Hello, how can I help?"
#: The first piece of it that a provider sends.
PIECE = "Hello,"
USAGE = {"promptTokens": 12, "completionTokens": 5, "totalTokens": 17}
ENDS = {CHATS: "stop", ANSWERS: "completed", CLAUDES: "end_turn"}
pytestmark = pytest.mark.asyncio_only


@contextlib.asynccontextmanager
async def plain(made: Any, api: Api, **more: Any) -> AsyncIterator[Any]:
    """Open a stream by ``stream=True``; whoever does closes it."""
    yield await create(made, api, stream=True, **more)


#: Both ways to open a stream; the second is closed at the end of its block.
OPENED = pytest.mark.parametrize("opened", [plain, helped], ids=["stream", "helper"])


async def hear(stream: Any, piece: str = PIECE) -> Any:
    """Read a stream until it brings this piece; return the item that does."""
    following = getattr(stream, "__anext__", None) or stream.__next__
    while True:
        item = await got(following())
        if piece in str(item):
            return item


@pytest.fixture
def closes(kind: Any) -> None:
    """Skip the test where the package's streams cannot be closed."""
    if kind in OPENAI_KINDS and not hasattr(openai.Stream, "close"):
        pytest.skip("OpenAI's package has streams that cannot be closed from 1.3 on.")


class Raised(NamedTuple):
    """What a stream raised; the exception itself would keep the stream alive."""

    type: type[BaseException]
    text: str
    cause: str


async def read(stream: Any) -> tuple[list[Any], Raised | None]:
    """Read a stream; return what it gave, and what it raised at its end."""
    heard: list[Any] = []
    try:
        await items(stream, heard)
    except Exception as error:
        return heard, Raised(type(error), str(error), str(error.__cause__))
    return heard, None


async def collected(events: Recorded) -> None:
    """Have garbage collected until a turn has ended; the event loop closes what is asynchronous a while later."""
    for _ in range(20):
        gc.collect()
        if len(events.rows) > 1:
            break
        await anyio.lowlevel.checkpoint()


async def close(stream: Any) -> None:
    """Close a stream."""
    await got(stream.close())


def whole(api: Api, text: str = TEXT, **about: Any) -> Row:
    """Return the row of an answer that came whole, with its tokens where the provider tells them by itself."""
    about = {"timeToFirstTokenMs": 0, **({} if api is CHATS else {"usage": USAGE}), **about}
    return api.answer({"content": text, "finishReason": ENDS[api]}, **about)


def left(api: Api, content: dict[str, Any]) -> tuple[Any, ...]:
    """Return where an answer stands that was not read to its end, and what it says."""
    return ("llm_response", 2, 1, 1, api.name, {**content, "finishReason": "cancelled"})


def held(provider: Provider, text: str = TEXT, after: int = 1) -> Gate:
    """Have the next stream stop after some pieces; return what holds it."""
    gate = Gate(after)
    provider.say(text, gate)
    return gate


# The objects


def response_of(stream: Any) -> Any:
    """Return the response that a stream reads; OpenAI's helpers keep it to themselves."""
    return stream._response if hasattr(stream, "_response") else stream.response


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_a_stream_is_the_object_the_package_makes(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """Of its class, with its attributes, and a response that says what it says without us."""
    async with client(kind, provider) as made, opened(made, api) as expected:
        made_so = (type(expected), set(vars(expected)))
        theirs, (said, _) = response_of(expected), await read(expected)
    async with traced(kind, provider) as made, opened(made, api) as stream:
        ours = response_of(stream)

        assert (type(stream), set(vars(stream))) == made_so
        assert isinstance(ours, type(theirs))
        assert (type(ours).__name__, repr(ours)) == (type(theirs).__name__, repr(theirs))
        assert ours.headers.keys() == theirs.headers.keys()
        assert not ours.is_closed
        heard, _ = await read(stream)

        assert ours.is_closed == theirs.is_closed
    assert [type(item) for item in heard] == [type(item) for item in said]


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_nothing_of_a_stream_is_held_back(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """The first piece is the caller's while the provider has not sent the second."""
    gate = held(provider)

    async with traced(kind, provider) as made, opened(made, api) as stream:
        assert PIECE in str(await hear(stream))
        assert not gate.opened.is_set()
        assert [row[0] for row in events.rows] == ["user_message"]
        gate.open()
        await read(stream)


@pytest.mark.parametrize("kind", ANTHROPIC_KINDS)
@pytest.mark.anyio
async def test_the_helpers_of_anthropics_streams_work(
    provider: Provider, events: Recorded, kind: Any
) -> None:
    """The stream of texts, the message as it grows and as it is in the end."""
    async with traced(kind, provider) as made, helped(made, CLAUDES) as stream:
        texts = await items(stream.text_stream)
        message = await got(stream.get_final_message())

        assert "".join(texts) == await got(stream.get_final_text()) == TEXT
        assert stream.current_message_snapshot == message
        assert message.usage.output_tokens == 5
    assert events.rows == [CLAUDES.request(stream=True), whole(CLAUDES)]


@both_faces(CHATS, ANSWERS)
@pytest.mark.anyio
async def test_the_helpers_of_openais_streams_work(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """The answer as it is in the end, whether the stream was read before or not."""
    final = {CHATS: "get_final_completion", ANSWERS: "get_final_response"}[api]
    async with traced(kind, provider) as made, helped(made, api) as stream:
        answer = await got(getattr(stream, final)())

        assert TEXT in str(answer)
    assert events.rows == [api.request(stream=True), whole(api)]


# How they end


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_a_turn_ends_when_its_stream_is_read_to_its_end(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """Then and not before, and once: closing and dropping it add nothing."""
    async with traced(kind, provider) as made:
        async with opened(made, api) as stream:
            assert [row[0] for row in events.rows] == ["user_message"]
            await read(stream)
            assert events.rows == [api.request(stream=True), whole(api)]
            with contextlib.suppress(AttributeError):
                await got(stream.close())
        del stream
        gc.collect()

    assert len(events.rows) == 2


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_an_error_told_in_a_stream_ends_its_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """The caller gets what the package makes of it; the event says what the provider said, and what came before."""
    failure = Failure(529, "Overloaded, sorry.", after=1)
    provider.say(TEXT, failure)
    provider.say(TEXT, failure)
    async with client(kind, provider) as made:
        async with opened(made, api) as stream:
            heard, expected = await read(stream)
        async with opened(trace_with(WhyOps(agent_name="shop", clock=ManualClock()), made), api) as stream:
            ours, raised = await read(stream)
        del stream
        await collected(events)  # older packages leave the response to the garbage collector

    assert (len(ours), raised) == (len(heard), expected)
    assert events.rows[0] == api.request(stream=True)
    assert [row[0] for row in events.rows] == ["user_message", "error"]
    told, about = events.rows[1][5:]
    assert (told["message"], told["partial"]) == ("Overloaded, sorry.", PIECE)
    assert about["timeToFirstTokenMs"] == 0
    assert about["model"] == api.body["model"]


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_a_lost_connection_ends_the_turn_of_a_stream(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """With what the caller gets, or what caused that, and the text that came before."""
    gate, cut = Gate(1), Cut(1)
    provider.say(TEXT, gate, cut)

    async with traced(kind, provider) as made, opened(made, api) as stream:
        await hear(stream)
        gate.open()
        _, raised = await read(stream)

        assert raised is not None
        assert issubclass(raised.type, LOST)
        assert [row[0] for row in events.rows] == ["user_message", "error"]
        told, about = events.rows[1][5:]
        assert told["message"] in (raised.text, raised.cause)
        assert told["partial"] == PIECE
        assert (about["model"], about["provider"]) == (api.body["model"], HERE)


@both_faces(*APIS)
@pytest.mark.usefixtures("closes")
@pytest.mark.anyio
async def test_a_stream_that_is_closed_early_ends_as_cancelled(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """With the text that came; closing it again adds nothing."""
    held(provider)

    async with traced(kind, provider) as made:
        stream = await create(made, api, stream=True)
        await hear(stream)
        await close(stream)

        assert [row[:6] for row in events.rows[1:]] == [left(api, {"content": PIECE})]
        assert events.rows[1][6]["outcome"] == "cancelled"
        await close(stream)
    assert len(events.rows) == 2


@both_faces(*APIS)
@OPENED
@pytest.mark.usefixtures("closes")
@pytest.mark.anyio
async def test_leaving_the_block_of_a_stream_early_ends_its_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """By an exception of the caller's, which goes on as it is."""
    held(provider)
    error = KeyError("mine")

    async with traced(kind, provider) as made:
        with pytest.raises(KeyError) as caught:
            async with opened(made, api) as stream:
                async with contextlib.AsyncExitStack() as stack:
                    if opened is plain:
                        await stack.enter_async_context(entered(stream))
                    await hear(stream)
                    raise error

        assert caught.value is error
        assert [row[:6] for row in events.rows[1:]] == [left(api, {"content": PIECE})]


@both_faces(*APIS)
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.anyio
async def test_a_stream_that_is_dropped_ends_its_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, reads: bool
) -> None:
    """When the garbage collector finds it, begun or not."""
    needs_drops(kind)
    held(provider, after=1 if reads else 0)

    async with traced(kind, provider) as made:
        stream = await create(made, api, stream=True)
        if reads:
            await hear(stream)
        del stream
        await collected(events)

        assert [row[:6] for row in events.rows[1:]] == [left(api, {"content": PIECE} if reads else {})]


@both_faces(*APIS)
@pytest.mark.usefixtures("closes")
@pytest.mark.anyio
async def test_a_stream_that_nobody_read_ends_when_it_is_closed(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """As cancelled, without a text, and without a time to a first token that never came."""
    held(provider, after=0)

    async with traced(kind, provider) as made:
        await close(await create(made, api, stream=True))

    assert [row[:6] for row in events.rows[1:]] == [left(api, {})]
    assert "timeToFirstTokenMs" not in events.rows[1][6]


# What they tell


@both_faces(CHATS)
@pytest.mark.anyio
async def test_a_chat_stream_has_usage_if_it_was_asked_for(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """The request is not changed: without the option OpenAI counts nothing."""
    provider.default = Reply(TEXT, usage=Usage(cached=8, output=9, reasoning=4))
    async with traced(kind, provider) as made:
        await read(await create(made, api, stream=True, stream_options={"include_usage": True}))
        await read(await create(made, api, stream=True))
    counts = {"promptTokens": 12, "completionTokens": 9, "totalTokens": 29}

    assert "stream_options" not in provider.requests[1].json
    assert [row[6].get("usage") for row in events.rows[1::2]] == [
        counts | {"cacheReadTokens": 8, "reasoningTokens": 4},
        None,
    ]


@both_faces(*APIS)
@OPENED
@pytest.mark.anyio
async def test_the_time_to_the_first_token_is_recorded(
    provider: Provider, events: Recorded, api: Api, kind: Any, opened: Any
) -> None:
    """From the request to the first text, not to the first event of the stream, and not to the end."""
    clock, sdk_name = ManualClock(), "shop"
    gate, second = Gate(0), Gate(1)
    provider.say(TEXT, gate, second)

    async with traced(kind, provider, WhyOps(agent_name=sdk_name, clock=clock)) as made:
        async with opened(made, api) as stream:
            clock.advance(0.25)
            gate.open()
            await hear(stream)
            clock.advance(1)
            second.open()
            await read(stream)
    told = events.records[1]["metadata"]

    assert (told["timeToFirstTokenMs"], told["latencyMs"]) == (250, 1_250)


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_stream_is_not_the_scope_of_who_reads_it(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """What happens between two pieces is no part of the turn, and a trace may end before its stream does."""

    @traced_tool
    def look_up() -> str:
        return "found"

    gate = held(provider)
    async with traced(kind, provider) as made:
        with trace("checkout-1"):
            stream = await create(made, api, stream=True)
            await hear(stream)
            look_up()
        gate.open()
        await read(stream)

        assert current_trace() is None
    assert [(row[0], row[1], row[2], row[3]) for row in events.of("checkout-1")] == [
        ("user_message", 1, None, 0),
        ("tool_call_request", 2, 1, 0),
        ("tool_call_response", 3, 2, 2),
        ("llm_response", 4, 1, 1),
    ]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_two_streams_at_once_keep_apart(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """Read in turns, each ends with its own text."""
    first, second = held(provider, "Alpha one."), held(provider, "Beta two.")

    async with traced(kind, provider) as made:
        with trace("checkout-1"):
            streams = [await create(made, api, stream=True) for _ in range(2)]
            await hear(streams[1], "Beta")
            await hear(streams[0], "Alpha")
            for gate in (second, first):
                gate.open()
            for stream in reversed(streams):
                await read(stream)
    answers = [row for row in events.of("checkout-1") if row[0] == "llm_response"]

    assert [(row[2], row[5]["content"]) for row in answers] == [(2, "Beta two."), (1, "Alpha one.")]


# Functions of one's own that return them


def asking(**options: Any) -> Callable[..., Any]:
    """Return a traced function that asks a client, and returns what it gets, awaited or not."""

    @traced_llm(**options)
    async def ask(messages: list[Any], made: Any, api: Api, **more: Any) -> Any:
        return await create(made, api, **more)

    return ask


def shown(events: Recorded) -> list[Any]:
    """Return of each row the type, what it says, and who answered and for how many tokens."""
    keys = ("model", "provider", "usage", "timeToFirstTokenMs", "outcome")
    return [
        (row[0], row[5], {key: row[6][key] for key in keys if key in row[6]})
        for row in events.rows
        if row[0] != "user_message"
    ]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_an_official_answer_is_read_from_a_function_of_ones_own(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """The object of an untraced client is returned as it is; its text, model, provider and tokens are recorded."""
    async with client(kind, provider) as made:
        answer = await asking()([], made, api)

        assert TEXT in str(answer)
    about = {"model": api.body["model"], "provider": api.provider, "usage": USAGE}
    assert shown(events) == [("llm_response", {"content": TEXT, "finishReason": ENDS[api]}, about)]


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.anyio
async def test_official_embeddings_are_read_from_a_function_of_ones_own(
    provider: Provider, events: Recorded, kind: Any
) -> None:
    """How many there are, and who made them."""

    @traced_embedding(provider="openai")
    async def embed(texts: list[str], made: Any) -> Any:
        return await got(made.embeddings.create(model="e-3", input=texts, encoding_format="float"))

    async with client(kind, provider) as made:
        await embed(["a", "b"], made)

    assert events.rows[1][5] == {
        "object": "list", "embeddingCount": 2, "firstEmbeddingDimensions": 3, "encodingFormat": "float",
    }  # fmt: skip
    assert events.rows[1][6]["usage"] == {"promptTokens": 12, "totalTokens": 12}
    assert (events.rows[1][6]["model"], events.rows[1][6]["provider"]) == ("e-3", "openai")


@both_faces(*APIS)
@pytest.mark.usefixtures("closes")
@pytest.mark.anyio
async def test_an_official_stream_is_read_from_a_function_of_ones_own(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """It is returned as the object it is, and the turn ends when it has been read."""
    WhyOps(agent_name="shop", clock=ManualClock())
    gate = held(provider)
    async with client(kind, provider) as made:
        expected = await create(made, api, stream=True)
        gate.open()
        await read(expected)
        gate = held(provider)
        stream = await asking()([], made, api, stream=True)

        assert type(stream) is type(expected)
        await hear(stream)
        assert [row[0] for row in events.rows] == ["user_message"]
        gate.open()
        await read(stream)
    about = {"model": api.body["model"], "provider": api.provider, "timeToFirstTokenMs": 0}
    usage = {} if api is CHATS else {"usage": USAGE}

    assert shown(events) == [("llm_response", {"content": TEXT, "finishReason": ENDS[api]}, about | usage)]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_an_entered_stream_helper_is_read_from_a_function_of_ones_own(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """As any other stream, and its own helpers work."""
    WhyOps(agent_name="shop", clock=ManualClock())

    @traced_llm
    async def ask(messages: list[Any], stack: contextlib.AsyncExitStack, made: Any) -> Any:
        return await stack.enter_async_context(helped(made, api))

    async with client(kind, provider) as made, contextlib.AsyncExitStack() as stack:
        stream = await ask([], stack, made)
        assert [row[0] for row in events.rows] == ["user_message"]
        final = {CHATS: "get_final_completion", ANSWERS: "get_final_response", CLAUDES: "get_final_message"}
        assert TEXT in str(await got(getattr(stream, final[api])()))

        assert [row[1] for row in shown(events)] == [{"content": TEXT, "finishReason": ENDS[api]}]


@both_faces(*APIS)
@pytest.mark.parametrize("ending", ["closed", "dropped"])
@pytest.mark.usefixtures("closes")
@pytest.mark.anyio
async def test_an_official_stream_of_a_function_that_is_left_early_ends_as_cancelled(
    provider: Provider, events: Recorded, api: Api, kind: Any, ending: str
) -> None:
    """Closed or dropped; with the text that came."""
    if ending == "dropped":
        needs_drops(kind)
    held(provider)

    async with client(kind, provider) as made:
        stream = await asking()([], made, api, stream=True)
        await hear(stream)
        if ending == "closed":
            await close(stream)
        del stream
        await collected(events)

        ((kind_of, content, about),) = shown(events)
    assert (kind_of, content) == ("llm_response", {"content": PIECE, "finishReason": "cancelled"})
    assert about["outcome"] == "cancelled"


CHUNKS: list[Any] = [
    {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hi "}}]},
    {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "you."}}]},
    {
        "object": "chat.completion.chunk", "model": "gpt-4o",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    },
]  # fmt: skip
TEXTS: list[Any] = ["Hi ", "you."]


class Iterated:
    """An iterator that is no generator, with something of its own."""

    own = "mine"

    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = iter(pieces)

    def __iter__(self) -> Iterated:
        return self

    def __next__(self) -> Any:
        return next(self._pieces)


class AsyncIterated:
    """The same, asynchronous."""

    own = "mine"

    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterated:
        return self

    async def __anext__(self) -> Any:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def generated(pieces: list[Any]) -> Iterator[Any]:
    """Yield these."""
    yield from pieces


async def agenerated(pieces: list[Any]) -> AsyncIterator[Any]:
    """Yield these, asynchronously."""
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("makes", [generated, agenerated, Iterated, AsyncIterated])
@pytest.mark.parametrize("pieces", [TEXTS, CHUNKS], ids=["texts", "dicts"])
@pytest.mark.anyio
async def test_any_iterator_that_a_function_returns_is_read(
    events: Recorded, makes: Any, pieces: list[Any]
) -> None:
    """Generators and other iterators, of texts or of data in a provider's shape; the turn ends with them."""

    @traced_llm(model="m", provider="p")
    def ask(prompt: str) -> Any:
        return makes(pieces)

    stream = ask("Hello")
    assert [row[0] for row in events.rows] == ["user_message"]
    assert await items(stream) == pieces
    if makes in (Iterated, AsyncIterated):
        assert stream.own == "mine"
    finish = {} if pieces is TEXTS else {"finishReason": "stop"}
    model = "m" if pieces is TEXTS else "gpt-4o"
    ((_, content, about),) = shown(events)
    assert (content, about["model"], about["provider"]) == ({"content": "Hi you.", **finish}, model, "p")


@pytest.mark.parametrize("makes", [generated, agenerated])
@pytest.mark.anyio
async def test_a_generator_that_is_closed_early_ends_its_turn(events: Recorded, makes: Any) -> None:
    """As cancelled, with the text that came."""

    @traced_llm
    def ask(prompt: str) -> Any:
        return makes(TEXTS)

    stream = ask("Hello")
    await hear(stream, "Hi")
    await got(stream.aclose() if hasattr(stream, "aclose") else stream.close())

    assert [row[1] for row in shown(events)] == [{"content": "Hi ", "finishReason": "cancelled"}]


def test_an_iterator_that_raises_ends_its_turn_with_the_error(events: Recorded) -> None:
    """The same exception, and the text that came before it."""
    error = ValueError("broken")

    def pieces() -> Iterator[str]:
        yield "Hi "
        raise error

    @traced_llm
    def ask(prompt: str) -> Any:
        return map(str, pieces())

    with pytest.raises(ValueError, match="broken") as caught:
        list(ask("Hello"))

    assert caught.value is error
    ((kind, content, _),) = shown(events)
    assert (kind, content) == ("error", {"type": "ValueError", "message": "broken", "partial": "Hi "})


@pytest.mark.parametrize(
    ("answer", "content", "provider"),
    [
        ("Hi.", {"content": "Hi."}, "unknown"),
        (
            {"model": "x", "choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]},
            {"content": "Hi.", "finishReason": "stop"},
            "openai",
        ),
        (
            {"model": "x", "content": [{"type": "text", "text": "Hi."}], "stop_reason": "end_turn"},
            {"content": "Hi.", "finishReason": "end_turn"},
            "anthropic",
        ),
        (
            {
                "model": "x", "status": "completed",
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}],
            },
            {"content": "Hi.", "finishReason": "completed"},
            "openai",
        ),
    ],
)  # fmt: skip
def test_data_of_a_known_shape_is_read_as_an_official_answer(
    events: Recorded, answer: Any, content: dict[str, Any], provider: str
) -> None:
    """Text, or a dict that has what the provider sends."""

    @traced_llm
    def ask(prompt: str) -> Any:
        return answer

    assert ask("Hello") is answer
    ((_, told, about),) = shown(events)
    assert (told, about["provider"]) == (content, provider)


#: What the answer, the arguments and the decorator name, and what is recorded.
NAMED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, str]]] = [
    ({"model": "a", "provider": "pa"}, {"model": "b"}, {"model": "c", "provider": "pc"}, ("a", "pa")),
    ({}, {"model": "b", "provider": "pb"}, {"model": "c", "provider": "pc"}, ("b", "pb")),
    ({}, {}, {"model": "c", "provider": "pc"}, ("c", "pc")),
    ({}, {"model": "groq/llama"}, {}, ("groq/llama", "groq")),
    ({}, {}, {}, ("unknown", "unknown")),
    ({"model": "a", "choices": []}, {}, {}, ("a", "openai")),
    ({"model": "a", "choices": []}, {}, {"provider": "groq"}, ("a", "groq")),
    ({"model": "a", "choices": []}, {"provider": "mistral"}, {"provider": "groq"}, ("a", "mistral")),
    ({"model": "a", "content": []}, {}, {"provider": "aws"}, ("a", "anthropic")),
]


@pytest.mark.parametrize(("answer", "arguments", "options", "expected"), NAMED)
def test_model_and_provider_come_from_the_answer_then_the_arguments_then_the_decorator(
    events: Recorded,
    answer: dict[str, Any],
    arguments: dict[str, Any],
    options: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    """But many speak as OpenAI does, so that an answer in its shape does not override who the code says it is."""

    @traced_llm(**options)
    def ask(prompt: str, **more: Any) -> Any:
        return {"text": "Hi.", **answer} if "choices" not in answer else answer

    ask("Hello", **arguments)

    assert (events.rows[1][6]["model"], events.rows[1][6]["provider"]) == expected


@both_faces(*APIS)
@pytest.mark.anyio
async def test_accumulate_makes_the_answer_of_an_official_stream(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """It gets the objects of the package, all of them, and what it makes is recorded."""
    async with client(kind, provider) as made:
        stream = await asking(accumulate=lambda heard: f"{len(heard)} pieces")([], made, api, stream=True)
        heard = await items(stream)

    assert [row[1] for row in shown(events)] == [{"content": f"{len(heard)} pieces"}]


@both_faces(*APIS)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.anyio
async def test_a_function_around_a_traced_client_wraps_its_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, streams: bool
) -> None:
    """Both are events, but the tokens are counted once: with the client's turn."""
    about = {"stream": True, "stream_options": {"include_usage": True}} if api is CHATS else {"stream": True}
    async with traced(kind, provider) as made:
        answer = await asking(name="agent")([], made, api, **(about if streams else {}))
        if streams:
            await read(answer)
    outer = [row for row in events.rows if row[4] == "agent"]
    inner = [row for row in events.rows if row[4] == api.name]

    assert [row[0] for row in outer] == [row[0] for row in inner] == ["user_message", "llm_response"]
    assert (inner[0][2], inner[0][3]) == (outer[0][1], outer[0][1])
    assert (outer[1][6].get("wraps"), inner[1][6].get("wraps")) == (True, None)
    assert (outer[1][6].get("usage"), inner[1][6].get("usage")) == (None, USAGE)
    assert outer[1][5]["content"] == inner[1][5]["content"] == TEXT


@pytest.mark.parametrize("way", ["with_raw_response", "with_streaming_response"])
def test_a_raw_response_is_read_from_a_function_of_ones_own(
    events: Recorded, provider: Provider, way: str
) -> None:
    """It is what the caller gets, and the turn is what it brings."""
    untraced = openai.OpenAI(api_key=provider.openai_key, base_url=provider.openai_url, max_retries=0)
    completions = untraced.chat.completions
    if not hasattr(completions, way):
        pytest.skip("this version has no such responses")

    @traced_llm
    def ask() -> Any:
        return getattr(completions, way).create(model="gpt-4o", messages=[{"role": "user", "content": "Hi."}])

    answer = ask()
    if way == "with_streaming_response":
        with answer as response:
            response.read()
    else:
        assert answer.parse().choices[0].message.content == "Hello, how can I help?"
    untraced.close()

    assert [event["eventType"] for event in events.records] == ["user_message", "llm_response"]
    if way == "with_raw_response":
        assert events.records[1]["content"]["content"] == "Hello, how can I help?"
