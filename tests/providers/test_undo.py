"""What the WhyOps proxy does to answers is undone: a caller gets what the provider said, and nothing else changes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from collector import Collector
from hybrid import answered, connected, kept, traced, types
from hypothesis import example, given
from hypothesis import strategies as st
from packages import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    OPENAI,
    RESPONSES,
    bare,
    client,
    entered,
    got,
    items,
    method,
    told,
)
from provider import Provider
from proxied import END, ONE, START, ZERO, signature
from pydantic import BaseModel
from replies import Gate, Reply, ToolCall, compact

from whyops_trace import WhyOps
from whyops_trace.providers._undo import Undo, undo

CHARGE = ToolCall("charge_card", {"amount": 4999}, "call_1")
#: A text with an end that cannot be seen, but has to stay.
JOINED = "Paid by the whole family \U0001f468\u200d\u200b\u200d"
SIGNED = signature("checkout-8841")
#: Ids that a caller may give, and texts that are made of what signatures are made of.
IDS = st.text(min_size=1, max_size=20) | st.sampled_from(["7", "ÿ", "Ā", "店", "😀", "x" * 128])
TEXTS = st.text(st.sampled_from(["a", "\U0001f468", START, ONE, ZERO, END])) | st.text()
BITS = st.text(st.sampled_from([ONE, ZERO]), max_size=40)
pytestmark = pytest.mark.asyncio_only


class Receipt(BaseModel):
    """What a model is to answer in."""

    paid: bool


# The bodies of answers


def chat(text: str | None, *arguments: str) -> dict[str, Any]:
    """A chat completion."""
    calls = [{"function": {"name": "charge_card", "arguments": each}} for each in arguments]
    return {"choices": [{"message": {"content": text, "tool_calls": calls}}], "logprob": -0.1}


def response(text: str, arguments: str) -> dict[str, Any]:
    """A response."""
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    return {"output": [message, {"type": "function_call", "arguments": arguments}]}


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return compact(value).encode()


@pytest.mark.parametrize("trace_id", ["", "checkout-8841"], ids=["unknown", "known"])
@pytest.mark.parametrize("escapes", [False, True])
@pytest.mark.parametrize("form", [chat, response])
@pytest.mark.parametrize("text", ['{"paid":true}', "", JOINED, "Zeile\n", "\u200b" * 15, SIGNED])
def test_a_signature_and_a_mark_are_taken_out(
    form: Callable[..., Any], text: str, escapes: bool, trace_id: str
) -> None:
    """However the characters are written; what is the text's own stays."""
    marked = '{"amount": 4999, "_whyops_trace_id": "checkout-8841"}'
    body = json.dumps(form(text + SIGNED, marked), ensure_ascii=escapes).encode()

    assert json.loads(undo(body, trace_id)) == form(text, '{"amount":4999}')


@given(text=TEXTS, trace_id=IDS, known=st.booleans())
def test_the_signature_of_any_trace_is_taken_out_of_any_text(text: str, trace_id: str, known: bool) -> None:
    """That of an id of one character as well; of two signatures only the one that the proxy appended."""
    undone = undo(encoded(chat(text + signature(trace_id))), trace_id if known else "")

    assert json.loads(undone) == chat(text)


@given(text=TEXTS, bits=BITS, trace_id=IDS)
@example(text="Sure.", bits=ONE * 8, trace_id="A")
@example(text="Sure.", bits=ZERO * 9, trace_id="A")
@example(text="Sure.", bits=ZERO * 8 + ONE * 9, trace_id="A")
def test_a_text_that_ends_in_no_signature_is_its_own(text: str, bits: str, trace_id: str) -> None:
    """One that has no whole characters in it, or names another trace than the one that is known."""
    body = encoded(chat(text + START + bits + END))
    named = encoded(chat("Sure." + signature(trace_id)))

    assert (undo(body) is body) is not units(bits)
    assert undo(named, f"{trace_id}-2") is named


def units(bits: str) -> bool:
    """Whether bits can be those of UTF-16 code units: eight of them, or up to sixteen without a leading zero."""
    sizes = [size for size in range(8, 17) if size <= len(bits) and (size == 8 or bits[0] == ONE)]
    return any(size == len(bits) or units(bits[size:]) for size in sizes)


def test_a_long_run_of_joiners_is_looked_at_once() -> None:
    """However many ways there are to cut it into characters."""
    body = encoded(chat("Sure." + START + ZERO * 100_001 + END))

    assert undo(body) is body


def test_only_the_text_that_the_proxy_signs_is_looked_at() -> None:
    """The first one of an answer; what others end in is their own."""
    parts = [
        {"type": "reasoning_text", "text": SIGNED},
        *({"type": "output_text", "text": f"{n}.{SIGNED}"} for n in "12"),
    ]
    several = {"choices": [{"message": {"content": f"{n}.{SIGNED}"}} for n in "12"]}
    messages = {"output": [{"type": "message", "content": parts}, {"type": "message", "content": parts[1:]}]}

    assert json.loads(undo(encoded(several)))["choices"] == [
        {"message": {"content": "1."}},
        several["choices"][1],
    ]
    assert json.loads(undo(encoded(messages)))["output"] == [
        {"type": "message", "content": [parts[0], {"type": "output_text", "text": "1."}, parts[2]]},
        messages["output"][1],
    ]


@pytest.mark.parametrize(
    "body",
    [
        encoded(chat("Sure.", '{"amount":4999}')),
        encoded(chat(JOINED)),
        encoded(chat("He wrote _whyops_trace_id.", '{"note":"_whyops_trace_id"}')),
        encoded(chat(f"In the {SIGNED} middle.")),
        encoded(chat("Sure." + "\u2060" + "\u200b\u200c\ufeff\u2063" * 8)),
        encoded(chat("Sure." + SIGNED.replace(START, ZERO))),
        encoded(chat("Sure." + SIGNED[:-1])),
        encoded(chat(None, "_whyops_trace_id", '["_whyops_trace_id"]')),
        encoded({"choices": [None, {"message": None}], "output": [None, {"content": "_whyops"}, 3]}),
        encoded(["_whyops_trace_id", SIGNED]),
        b'{"choices": "_whyops',
        b"\xe2\x80\x8b\xff",
        b"",
    ],
)
def test_a_body_without_anything_of_the_proxy_s_is_passed_on_as_it_is(body: bytes) -> None:
    """The very same bytes."""
    assert undo(body) is body


def test_what_is_no_text_survives() -> None:
    """Lone surrogates and large numbers, which JSON can carry."""
    body = b'{"choices":[{"message":{"content":"a\\ud800' + SIGNED.encode() + b'"}}],"seed":9007199254740993}'

    assert json.loads(undo(body)) == {
        "choices": [{"message": {"content": "a\ud800"}}],
        "seed": 9007199254740993,
    }


# The bodies of streams

CHUNKS = [
    b'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"gen-signature"}}]}\n\n',
    b": a comment\n\n",
    'data: {"id":"chatcmpl-1","choices":[{"delta":{"content":"\\"id\\":\\"gen-signature\\" ü"}}]}\n\n'.encode(),
]
ADDED = b'data: {"id":"gen-signature","choices":[{"delta":{"content":"' + SIGNED.encode() + b'"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
#: Chunks that are a provider's own, whatever is in them.
OWN = [
    {
        "id": "chatcmpl-1",
        "choices": [{"delta": {"tool_calls": [{"id": "gen-signature"}], "content": SIGNED}}],
    },
    {"id": "gen-signature", "choices": [{"delta": {"content": "Sure."}}]},
    {"id": "gen-signature", "choices": [{"delta": {"content": "Sure." + SIGNED}}]},
    {"id": "gen-signature", "choices": []},
    ["gen-signature"],
]


def fed(pieces: list[bytes], *, streams: bool) -> bytes:
    """What comes of a body in pieces."""
    undoing = Undo(streams=streams)
    return b"".join(undoing.feed(piece) for piece in pieces) + undoing.rest()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """A body in pieces."""
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@given(places=st.lists(st.integers(min_value=0)), ended=st.booleans())
def test_the_chunk_with_the_signature_is_taken_out_of_a_stream(places: list[int], ended: bool) -> None:
    """Whichever way the stream comes in pieces; the other events stay, byte for byte."""
    end = DONE if ended else b"data: [DONE]"
    body = b"".join(CHUNKS) + ADDED + end

    assert fed(cut(body, places), streams=True) == b"".join(CHUNKS) + b"\n" + end


def test_a_chunk_that_only_resembles_the_proxy_s_stays_in_a_stream() -> None:
    """Nothing but a signature under the proxy's own id is taken out; of another trace neither, if that is known."""
    body = b"".join(b"data: " + encoded(chunk) + b"\n\n" for chunk in OWN) + b"data: gen-signature\n\n"

    assert fed([body], streams=True) == body
    assert Undo(streams=True, trace_id="checkout-8841").feed(ADDED) == b"\n"
    assert Undo(streams=True, trace_id="checkout-8842").feed(ADDED) == ADDED


@given(places=st.lists(st.integers(min_value=0)))
def test_a_body_in_pieces_is_undone_as_a_whole(places: list[int]) -> None:
    """A JSON text is passed on at its end."""
    body = encoded(chat("Sure." + SIGNED))
    undoing = Undo(streams=False)
    early = [undoing.feed(piece) for piece in cut(body, places)]

    assert b"".join(early) == b""
    assert json.loads(undoing.rest()) == chat("Sure.")


def test_an_event_is_passed_on_when_it_is_complete() -> None:
    """Nothing waits for the next one."""
    undoing = Undo(streams=True)

    assert [undoing.feed(event) for event in CHUNKS] == CHUNKS
    assert undoing.feed(ADDED) == b"\n"
    assert (undoing.feed(b"data: [DO"), undoing.feed(b"NE]\n")) == (b"", b"data: [DONE]\n")


# Whole answers, through the packages

Use = Callable[[Any], Awaitable[Any]]


async def create(made: Any) -> Any:
    """A chat completion."""
    return await got(made.chat.completions.create(**CHAT))


async def create_raw(made: Any) -> Any:
    """The body of one, as it came, beside what the package makes of it."""
    raw = await got(method(made, "chat.completions.with_raw_response.create")(**CHAT))
    return [json.loads(raw.http_response.content), raw.parse()]


async def create_streaming_response(made: Any) -> Any:
    """The body of one that is read as it comes."""
    create = method(made, "chat.completions.with_streaming_response.create")
    async with entered(create(**CHAT)) as response:
        return json.loads(b"".join(await items(response.iter_bytes())))


async def parse_streaming_response(made: Any) -> Any:
    """What the package makes of one that is read as it comes."""
    create = method(made, "chat.completions.with_streaming_response.create")
    async with entered(create(**CHAT)) as response:
        return await got(response.parse())


async def parse(made: Any) -> Any:
    """A chat completion whose text and tools the package reads."""
    parse = method(made, "chat.completions.parse", "beta.chat.completions.parse")
    answer = await got(parse(**CHAT, response_format=Receipt))
    return [answer, answer.choices[0].message.parsed]


async def stream(made: Any) -> Any:
    """The chunks of a chat completion."""
    return await items(await got(made.chat.completions.create(**CHAT, stream=True)))


async def stream_raw(made: Any) -> Any:
    """The chunks of one, from the response as it came."""
    raw = await got(method(made, "chat.completions.with_raw_response.create")(**CHAT, stream=True))
    return await items(raw.parse())


async def stream_lines(made: Any) -> Any:
    """The lines of one, as they came."""
    create = method(made, "chat.completions.with_streaming_response.create")
    async with entered(create(**CHAT, stream=True)) as response:
        lines = await items(response.iter_lines())
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")] + [lines[-2:]]


async def stream_helper(made: Any) -> Any:
    """The events of a chat completion, and what they come to."""
    manager = method(made, "chat.completions.stream", "beta.chat.completions.stream")(**CHAT)
    async with entered(manager) as events:
        heard = [event.type for event in await items(events)]
        return [heard, await got(events.get_final_completion())]


async def respond(made: Any) -> Any:
    """A response."""
    answer = await got(method(made, "responses.create")(**RESPONSES))
    return [answer, answer.output_text]


async def respond_parsed(made: Any) -> Any:
    """A response that the package reads."""
    answer = await got(method(made, "responses.parse")(**RESPONSES, text_format=Receipt))
    return [answer, answer.output_parsed]


async def respond_stream(made: Any) -> Any:
    """The events of a response."""
    return await items(await got(method(made, "responses.create")(**RESPONSES, stream=True)))


async def respond_helper(made: Any) -> Any:
    """The final response of a stream."""
    async with entered(method(made, "responses.stream")(**RESPONSES)) as events:
        await items(events)
        return await got(events.get_final_response())


OPENAI_USES = [
    create, create_raw, create_streaming_response, parse_streaming_response, parse, stream, stream_raw, stream_lines,
    stream_helper, respond, respond_parsed, respond_stream, respond_helper,
]  # fmt: skip


@OPENAI
@pytest.mark.anyio
@pytest.mark.parametrize("use", OPENAI_USES)
@pytest.mark.parametrize(
    "reply", [Reply('{"paid": true}'), Reply('{"paid": true}', (CHARGE,)), Reply(tool_calls=(CHARGE,))]
)
async def test_an_answer_of_openai_s_is_what_the_provider_said(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, use: Use, reply: Reply
) -> None:
    """Text that is JSON loads, tools have the arguments asked for, and streams have no chunk more."""
    provider.reply(reply)
    with Provider() as another, sdk.trace("checkout-8841"):
        another.reply(reply)
        async with connected(sdk, kind, provider) as made:
            through = await use(made)
        async with client(kind, another) as made:
            direct = await use(made)

    assert len(collector.proxied) == 1
    assert bare(through) == bare(direct)


@OPENAI
@pytest.mark.anyio
async def test_a_text_keeps_its_own_characters_without_width(
    sdk: WhyOps, provider: Provider, kind: Any
) -> None:
    """Only what the proxy appended is taken away."""
    async with connected(sdk, kind, provider) as made:
        for text in (JOINED, "\u200b", "a\ufeff"):
            provider.say(text)

            assert answered(await create(made)) == text


@OPENAI
@pytest.mark.anyio
async def test_the_arguments_of_an_answer_fit_the_tool(sdk: WhyOps, provider: Provider, kind: Any) -> None:
    """``tool(**json.loads(arguments))`` runs, whatever the text of the arguments looks like."""
    texts = ['{"amount": 4999, "note": "für dich"}', "{}", "[1, 2]", '{"amount": 49']
    provider.reply(*(Reply(tool_calls=(ToolCall("charge_card", text, "call_1"),)) for text in texts))

    async with connected(sdk, kind, provider) as made:
        answers = [told(await create(made)) for _ in texts]
    calls = [answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] for answer in answers]

    assert [json.loads(call) for call in calls[:3]] == [json.loads(text) for text in texts[:3]]
    assert calls[3] == texts[3]


@OPENAI
@pytest.mark.anyio
async def test_embeddings_pass_through(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """They are reported by the proxy and kept in the store."""
    asked = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    async with client(kind, provider, _strict_response_validation=False) as made:
        with sdk.trace("checkout-8841"):
            through = await got(traced(sdk, made).embeddings.create(**asked))
        direct = await got(made.embeddings.create(**asked))

    assert bare(through) == bare(direct)
    assert types(collector.trace("checkout-8841")) == ["embedding_request", "embedding_response"]
    assert types(kept(sdk, "checkout-8841")) == ["embedding_request", "embedding_response"]


@ANTHROPIC
@pytest.mark.anyio
@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_of_anthropic_s_is_passed_on_byte_for_byte(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, streams: bool
) -> None:
    """What reaches the caller is what came from the proxy, whatever is in it."""
    reply = Reply(
        JOINED + "\u200b\u200c" * 20, (ToolCall("charge_card", {"_whyops_trace_id": "x"}, "call_1"),)
    )
    with Provider() as another:
        provider.reply(reply)
        another.reply(reply)
        bodies = []
        for made_by, to in ((traced, provider), (lambda _, made: made, another)):
            async with client(kind, to) as made:
                create = method(made_by(sdk, made), "messages.with_streaming_response.create")
                async with entered(create(**CLAUDE, stream=streams)) as response:
                    bodies.append(b"".join(await items(response.iter_bytes())))
    through, direct = bodies

    assert len(collector.proxied) == 1
    assert (through if streams else json.loads(through)) == (direct if streams else json.loads(direct))


@OPENAI
@pytest.mark.anyio
async def test_a_stream_through_the_proxy_is_not_held_back(
    sdk: WhyOps, provider: Provider, kind: Any
) -> None:
    """The first piece of text is there while the provider has not sent the second."""
    gate = Gate(after=1)
    provider.say("Sure thing.", gate)
    async with connected(sdk, kind, provider) as made:
        stream = await got(made.chat.completions.create(**CHAT, stream=True))
        following = getattr(stream, "__anext__", None) or stream.__next__
        first = ""
        while not first:
            first = (await got(following())).choices[0].delta.content or ""
        held = not gate.opened.is_set()
        gate.open()
        rest = [chunk.choices[0].delta.content or "" for chunk in await items(stream)]

    assert held
    assert first + "".join(rest) == "Sure thing."
