"""The provider of the tests speaks as the real ones do: their own packages understand it, and miss nothing."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from forms import Chat
from packages import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    LOST,
    OPENAI,
    RESPONSES,
    STRICT,
    anthropic,
    bare,
    client,
    entered,
    got,
    items,
    known,
    method,
    openai,
    told,
)
from provider import Provider
from pydantic import BaseModel
from replies import Cut, Failure, Gate, Redacted, Reply, Thinking, ToolCall, Usage
from wire import PATIENCE

CHARGE = ToolCall("charge_card", {"amount": 4999}, "call_1")
TOOLS = (CHARGE, ToolCall("get_weather", {"city": "Köln"}, "call_2"))
THOUGHTS = (Thinking("Is it paid for?", "c2lnbmF0dXJl"), Redacted("cmVkYWN0ZWQ="))
TOKENS = Usage(fresh=20, cached=8, written_5m=60, written_1h=40, output=9, reasoning=4)
RICH = Reply("I will do so.", TOOLS, THOUGHTS, usage=TOKENS)
pytestmark = pytest.mark.asyncio_only


class Paid(BaseModel):
    """What a structured answer says."""

    amount: int


@OPENAI
@pytest.mark.anyio
async def test_a_chat_completion_has_all_that_the_reply_has(provider: Provider, kind: Any) -> None:
    """Text, calls, finish reason, model and usage, cached and reasoning tokens among the others."""
    provider.reply(Reply("Sure.", TOOLS, usage=TOKENS, model="gpt-4o-2024-11-20"))

    async with client(kind, provider) as made:
        answer = await got(made.chat.completions.create(**CHAT))
    (choice,), usage = told(answer)["choices"], told(answer)["usage"]

    assert (answer.model, choice["finish_reason"]) == ("gpt-4o-2024-11-20", "tool_calls")
    assert choice["message"]["content"] == "Sure."
    assert [(call["id"], call["function"]) for call in choice["message"]["tool_calls"]] == [
        ("call_1", {"name": "charge_card", "arguments": '{"amount":4999}'}),
        ("call_2", {"name": "get_weather", "arguments": '{"city":"Köln"}'}),
    ]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (128, 9, 137)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 8
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4


@OPENAI
@pytest.mark.anyio
async def test_a_chat_completion_has_several_choices_or_refuses(provider: Provider, kind: Any) -> None:
    """As many choices as the request asks for; a refusal takes the place of the text."""
    provider.reply(
        Reply("One.", others=("Two.",)), Reply(refusal="I can't."), Reply("Too lo", finish="length")
    )

    async with client(kind, provider) as made:
        several = await got(made.chat.completions.create(**CHAT, n=2))
        refused = await got(made.chat.completions.create(**CHAT))
        short = await got(made.chat.completions.create(**CHAT))

    assert [(choice.index, choice.message.content) for choice in several.choices] == [
        (0, "One."),
        (1, "Two."),
    ]
    assert refused.choices[0].message.model_dump()["refusal"] == "I can't."
    assert (refused.choices[0].message.content, refused.choices[0].finish_reason) == (None, "stop")
    assert short.choices[0].finish_reason == "length"


@OPENAI
@pytest.mark.anyio
async def test_a_chat_stream_comes_in_the_real_order(provider: Provider, kind: Any) -> None:
    """The role, the text in pieces, each call's name and then its arguments, the reason, the usage."""
    provider.reply(Reply("Sure thing.", (CHARGE,), usage=TOKENS))

    async with client(kind, provider) as made:
        asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        chunks = await items(await got(method(made, "chat.completions.create")(**known(made, asked))))
    said = [told(chunk) for chunk in chunks]
    deltas = [chunk["choices"][0]["delta"] for chunk in said if chunk["choices"]]

    assert deltas[:3] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Sure"},
        {"content": " thing."},
    ]
    assert deltas[3]["tool_calls"] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "charge_card", "arguments": ""}}
    ]
    assert "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas[4:-1]) == CHARGE.json
    assert len(deltas[4:-1]) > 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in said[-3:-1]] == [None, "tool_calls"]
    assert (said[-1]["choices"], said[-1]["usage"]["total_tokens"]) == ([], 137)
    assert [chunk["usage"] for chunk in said[:-1]] == [None] * (len(said) - 1)


@OPENAI
@pytest.mark.anyio
async def test_a_chat_stream_tells_its_usage_only_when_asked(provider: Provider, kind: Any) -> None:
    """Each chunk has choices, those of several side by side, and none says a word of tokens."""
    provider.reply(Reply("One two.", others=("Three.",)))

    async with client(kind, provider) as made:
        chunks = await items(await got(made.chat.completions.create(**CHAT, n=2, stream=True)))
    choices = [told(chunk)["choices"][0] for chunk in chunks]

    assert [(choice["index"], choice["delta"].get("content")) for choice in choices] == [
        (0, ""),
        (1, ""),
        (0, "One"),
        (1, "Three."),
        (0, " two."),
        (0, None),
        (1, None),
    ]
    assert not any("usage" in told(chunk) for chunk in chunks)


@OPENAI
@pytest.mark.anyio
@pytest.mark.parametrize("reply", [RICH, Reply(refusal="I can't do that.")], ids=["rich", "refusal"])
async def test_the_helper_of_chat_streams_rebuilds_the_answer(
    provider: Provider, kind: Any, reply: Reply
) -> None:
    """What it gathers is what the same request gets without a stream."""
    provider.reply(reply, reply)

    async with client(kind, provider) as made:
        stream = method(made, "chat.completions.stream", "beta.chat.completions.stream")
        whole = await got(made.chat.completions.create(**CHAT))
        async with entered(stream(**CHAT, stream_options={"include_usage": True})) as events:
            await items(events)
            final = await got(events.get_final_completion())
    said, heard = (answer.choices[0].message for answer in (whole, final))

    assert (heard.content, heard.refusal) == (said.content, said.refusal)
    assert [call.function.arguments for call in heard.tool_calls or ()] == [
        call.function.arguments for call in said.tool_calls or ()
    ]
    assert (final.choices[0].finish_reason, bare(final.usage)) == (
        whole.choices[0].finish_reason,
        bare(whole.usage),
    )


@OPENAI
@pytest.mark.anyio
async def test_structured_answers_are_parsed(provider: Provider, kind: Any) -> None:
    """By both endpoints that offer it."""
    provider.reply(Reply('{"amount": 4999}'), Reply('{"amount": 1}'))

    async with client(kind, provider) as made:
        parse = method(made, "chat.completions.parse", "beta.chat.completions.parse")
        chat = await got(parse(**CHAT, response_format=Paid))
        response = await got(method(made, "responses.parse")(**RESPONSES, text_format=Paid))

    assert chat.choices[0].message.parsed == Paid(amount=4999)
    assert response.output_parsed == Paid(amount=1)


@OPENAI
@pytest.mark.anyio
async def test_raw_answers_have_headers(provider: Provider, kind: Any) -> None:
    """The number of the request among them."""
    async with client(kind, provider) as made:
        raw = await got(made.chat.completions.with_raw_response.create(**CHAT))

    assert raw.headers["x-request-id"] == "req_1"
    assert raw.parse().choices[0].message.content == provider.default.text


@OPENAI
@pytest.mark.anyio
async def test_a_response_has_all_that_the_reply_has(provider: Provider, kind: Any) -> None:
    """Reasoning with and without a summary, the text, the calls, the usage; what was asked is said again."""
    provider.reply(RICH)

    async with client(kind, provider) as made:
        answer = await got(
            method(made, "responses.create")(**RESPONSES, instructions="Be kind.", temperature=0.5)
        )
    usage = told(answer)["usage"]

    assert [item.type for item in answer.output] == [
        "reasoning",
        "reasoning",
        "message",
        *["function_call"] * 2,
    ]
    assert [[part.text for part in item.summary] for item in answer.output[:2]] == [["Is it paid for?"], []]
    assert (answer.output_text, answer.status) == ("I will do so.", "completed")
    assert [(item.call_id, item.name, item.arguments) for item in answer.output[3:]] == [
        (call.id, call.name, call.json) for call in TOOLS
    ]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (128, 9, 137)
    assert usage["input_tokens_details"]["cached_tokens"] == 8
    assert usage["output_tokens_details"]["reasoning_tokens"] == 4
    assert (answer.instructions, answer.temperature) == ("Be kind.", 0.5)


@OPENAI
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        (Reply("Two words."), ["content_part.added", *["output_text.delta"] * 2, "output_text.done"]),
        (Reply(refusal="No way."), ["content_part.added", *["refusal.delta"] * 2, "refusal.done"]),
    ],
)
async def test_a_response_stream_comes_in_the_real_order(
    provider: Provider, kind: Any, reply: Reply, parts: list[str]
) -> None:
    """Each event has its number, and the last one carries the whole response."""
    provider.reply(reply, reply)

    async with client(kind, provider) as made:
        create = method(made, "responses.create")
        events = await items(await got(create(**RESPONSES, stream=True)))
        whole = await got(create(**RESPONSES))
    names = [
        "created",
        "in_progress",
        "output_item.added",
        *parts,
        "content_part.done",
        "output_item.done",
        "completed",
    ]

    assert [event.type for event in events] == [f"response.{name}" for name in names]
    assert [event.sequence_number for event in events] == list(range(len(names)))
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    assert bare(events[-1].response) == bare(whole)


@OPENAI
@pytest.mark.anyio
async def test_the_helper_of_response_streams_rebuilds_the_answer(provider: Provider, kind: Any) -> None:
    """Reasoning and calls too, from their pieces."""
    provider.reply(RICH, RICH)

    async with client(kind, provider) as made:
        whole = await got(method(made, "responses.create")(**RESPONSES))
        async with entered(method(made, "responses.stream")(**RESPONSES)) as stream:
            events = await items(stream)
            final = await got(stream.get_final_response())
    summary = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]

    assert "".join(summary) == "Is it paid for?"
    assert [bare(item) | {"parsed_arguments": None} for item in final.output if item.type != "message"] == [
        bare(item) | {"parsed_arguments": None} for item in whole.output if item.type != "message"
    ]
    assert (final.output_text, bare(final.usage)) == (whole.output_text, bare(whole.usage))


@OPENAI
@pytest.mark.anyio
async def test_a_response_can_be_incomplete(provider: Provider, kind: Any) -> None:
    """It says why, and so does its stream."""
    provider.reply(*[Reply("Too lo", finish="length")] * 2)

    async with client(kind, provider) as made:
        create = method(made, "responses.create")
        whole = await got(create(**RESPONSES))
        events = await items(await got(create(**RESPONSES, stream=True)))

    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert events[-1].type == "response.incomplete"


@OPENAI
@pytest.mark.anyio
@pytest.mark.parametrize("coded", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
@pytest.mark.parametrize(("asked", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2]], 2)])
async def test_embeddings_come_as_numbers_or_base64(
    provider: Provider, kind: Any, coded: dict[str, Any], asked: Any, count: int
) -> None:
    """The package asks for base64 by default and unpacks it, which its own types do not foresee."""
    async with client(kind, provider, _strict_response_validation=False) as made:
        answer = await got(made.embeddings.create(model="text-embedding-3-small", input=asked, **coded))
    vectors = [item.embedding for item in answer.data]

    if coded.get("encoding_format") == "base64":
        assert [len(vector) for vector in vectors] == [16] * count
    else:
        assert vectors == [[0.0, 0.25, 0.5], [1.0, 1.25, 1.5]][:count]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (12, 12)


@ANTHROPIC
@pytest.mark.anyio
async def test_a_message_has_all_that_the_reply_has(provider: Provider, kind: Any) -> None:
    """Thinking, signed or redacted, before the text, calls after it; each token is counted once."""
    provider.reply(RICH, Reply(refusal="I can't."))

    async with client(kind, provider, _strict_response_validation=False) as made:
        answer = await got(made.messages.create(**CLAUDE))
        refused = await got(made.messages.create(**CLAUDE))
    thought, redacted, text, *calls = told(answer)["content"]
    usage = told(answer)["usage"]

    assert (thought["thinking"], thought["signature"]) == ("Is it paid for?", "c2lnbmF0dXJl")
    assert redacted["data"] == "cmVkYWN0ZWQ="
    assert text["text"] == "I will do so."
    assert [(call["id"], call["name"], call["input"]) for call in calls] == [
        (call.id, call.name, call.arguments) for call in TOOLS
    ]
    assert (answer.stop_reason, refused.stop_reason) == ("tool_use", "refusal")
    assert (usage["input_tokens"], usage["output_tokens"]) == (20, 9)
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (8, 100)
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40}


@ANTHROPIC
@pytest.mark.anyio
async def test_a_message_passes_the_packages_own_types(provider: Provider, kind: Any) -> None:
    """At once and as a stream."""
    provider.reply(*[Reply("Sure.", TOOLS, usage=TOKENS)] * 2)

    async with client(kind, provider) as made:
        whole = await got(made.messages.create(**CLAUDE))
        events = await items(await got(made.messages.create(**CLAUDE, stream=True)))

    assert whole.content[0].text == "Sure."
    assert [event.type for event in events] == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_stop"],
        *["content_block_start", *["content_block_delta"] * 4, "content_block_stop"],
        *["content_block_start", *["content_block_delta"] * 4, "content_block_stop"],
        "message_delta",
        "message_stop",
    ]
    assert (events[0].message.content, events[0].message.stop_reason) == ([], None)
    assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("tool_use", 9)


def test_a_message_stream_names_its_events_and_pings(provider: Provider) -> None:
    """After the first block has begun; the packages pass over it."""
    headers = {"x-api-key": provider.anthropic_key, "anthropic-version": "2023-06-01"}
    provider.say("Sure.")

    answer = httpx.post(f"{provider.openai_url}/messages", json={**CLAUDE, "stream": True}, headers=headers)
    frames = [frame.split("\n") for frame in answer.text.split("\n\n")[:-1]]

    assert [name for name, _ in frames][:3] == [
        "event: message_start",
        "event: content_block_start",
        "event: ping",
    ]
    assert all(json.loads(data[6:])["type"] == name[7:] for name, data in frames)


@ANTHROPIC
@pytest.mark.anyio
async def test_the_helper_of_message_streams_rebuilds_the_answer(provider: Provider, kind: Any) -> None:
    """Signatures and all."""
    if not hasattr(anthropic.types, "ThinkingBlock"):
        pytest.skip("This version of the package knows no thinking.")
    provider.reply(RICH, RICH)

    async with client(kind, provider) as made:
        whole = await got(made.messages.create(**CLAUDE))
        async with entered(made.messages.stream(**CLAUDE)) as stream:
            events = await items(stream)
            final = await got(stream.get_final_message())

    said, heard = bare(whole), bare(final)
    for message in (said, heard):
        message["usage"].pop("output_tokens_details")  # older helpers do not gather it

    assert heard == said
    assert "".join(event.text for event in events if event.type == "text") == "I will do so."
    assert [event.thinking for event in events if event.type == "thinking"] == ["Is", " it", " paid", " for?"]


@pytest.mark.anyio
async def test_models_are_listed_in_either_form(provider: Provider) -> None:
    """The same names for both packages."""
    async with client(openai.OpenAI, provider) as theirs, client(anthropic.Anthropic, provider) as other:
        names = [model.id for model in theirs.models.list()]
        others = [model.id for model in method(other, "models.list", "beta.models.list")()]

    assert names == others
    assert "gpt-4o" in names


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (529, "InternalServerError"),
    ],
)
@pytest.mark.anyio
async def test_errors_are_those_of_the_packages(provider: Provider, status: int, error: str) -> None:
    """In the form of each, with the message and the headers that the test wants."""
    for _ in range(2):
        provider.fail(status, message="Not today.", code="no_day", headers={"retry-after": "7"})

    async with client(openai.OpenAI, provider) as theirs, client(anthropic.Anthropic, provider) as other:
        with pytest.raises(getattr(openai, error), match=r"Not today\.") as first:
            theirs.chat.completions.create(**CHAT)
        with pytest.raises(anthropic.APIStatusError, match=r"Not today\.") as second:
            other.messages.create(**CLAUDE)

    assert type(second.value).__name__ in (error, "OverloadedError")  # the 529 of newer packages
    assert first.value.status_code == second.value.status_code == status
    assert first.value.response.json()["error"]["code"] == "no_day"
    assert second.value.response.json()["type"] == "error"
    assert first.value.response.headers["retry-after"] == second.value.response.headers["retry-after"] == "7"


@pytest.mark.anyio
async def test_a_key_and_a_known_path_are_needed(provider: Provider) -> None:
    """Whatever the script says; a body that is not JSON is read all the same."""
    async with client(openai.OpenAI, provider) as theirs, client(anthropic.Anthropic, provider) as other:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            theirs.with_options(api_key="sk-wrong").chat.completions.create(**CHAT)
        with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
            other.with_options(api_key="sk-wrong").messages.create(**CLAUDE)
        with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/audio/transcriptions\)"):
            theirs.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"\0\1"))
        with pytest.raises(openai.BadRequestError, match="you must provide a model parameter"):
            theirs.chat.completions.create(**{**CHAT, "model": ""})
        theirs.chat.completions.create(**CHAT)

    assert [(request.method, request.path) for request in provider.requests][-1:] == [
        ("POST", "/v1/chat/completions")
    ]
    assert provider.requests[-1].json == CHAT
    assert provider.requests[-1].headers["authorization"] == "Bearer sk-test"


def test_a_script_decides_by_the_request(provider: Provider) -> None:
    """It comes before the replies in line, and these before the default."""
    provider.script = lambda request: Reply("Scripted.") if request.json["model"] == "special" else None
    provider.say("First.")
    provider.call_tool("f", "{broken")
    with openai.OpenAI(base_url=provider.openai_url, api_key="sk-test", max_retries=0) as made:
        said = [
            made.chat.completions.create(**{**CHAT, "model": name}) for name in ("special", "a", "b", "c")
        ]
    messages = [told(answer)["choices"][0]["message"] for answer in said]

    assert [message["content"] for message in messages] == [
        "Scripted.",
        "First.",
        None,
        provider.default.text,
    ]
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == "{broken"


@OPENAI
@pytest.mark.anyio
async def test_a_chat_stream_can_fail_in_the_middle(provider: Provider, kind: Any) -> None:
    """What came before it is there; the error is the package's own."""
    provider.say("One two three.", Failure(500, "It broke.", after=2))

    async with client(kind, provider) as made:
        heard: list[Any] = []
        with pytest.raises(openai.APIError) as caught:
            await items(await got(made.chat.completions.create(**CHAT, stream=True)), heard)

    assert [chunk.choices[0].delta.content for chunk in heard] == ["", "One", " two"]
    if STRICT:  # before, the package kept the message to itself
        assert caught.value.body["message"] == "It broke."


@OPENAI
@pytest.mark.anyio
async def test_a_response_stream_can_fail_in_the_middle(provider: Provider, kind: Any) -> None:
    """By an error event, and a last one that carries the failed response."""
    provider.say("One two three.", Failure(500, "It broke.", after=2))

    async with client(kind, provider) as made:
        events = await items(await got(method(made, "responses.create")(**RESPONSES, stream=True)))
    *_, delta, error, failed = events

    assert (delta.type, delta.delta) == ("response.output_text.delta", " two")
    assert (error.type, error.code, error.message) == ("error", "server_error", "It broke.")
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert failed.response.error.message == "It broke."
    assert [event.sequence_number for event in events] == list(range(len(events)))


@ANTHROPIC
@pytest.mark.anyio
async def test_a_message_stream_can_fail_in_the_middle(provider: Provider, kind: Any) -> None:
    """The status is long gone, so the error's type is in its body."""
    provider.say("One two three.", Failure(529, "Overloaded", after=2))

    async with client(kind, provider) as made:
        heard: list[Any] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            await items(await got(made.messages.create(**CLAUDE, stream=True)), heard)

    assert [event.delta.text for event in heard if event.type == "content_block_delta"] == ["One", " two"]
    assert caught.value.body["error"] == {"type": "overloaded_error", "message": "Overloaded"}


@OPENAI
@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_connection_can_be_cut(provider: Provider, kind: Any, streamed: bool) -> None:
    """Before an answer, or in the middle of a stream; the next request is served again."""
    provider.say("One two three.", Cut(after=1))

    async with client(kind, provider) as made:
        heard: list[Any] = []
        with pytest.raises(LOST):
            answer = await got(made.chat.completions.create(**CHAT, stream=streamed))
            await items(answer, heard)
        again = await got(made.chat.completions.create(**CHAT))

    assert [chunk.choices[0].delta.content for chunk in heard] == (["", "One"] if streamed else [])
    assert again.choices[0].message.content == provider.default.text


@OPENAI
@pytest.mark.anyio
async def test_a_gate_holds_a_stream_between_two_pieces(provider: Provider, kind: Any) -> None:
    """The pieces before it arrive while it is closed, the others once it opens."""
    gate = Gate(after=2)
    provider.say("One two three.", gate)

    async with client(kind, provider) as made:
        stream = await got(made.chat.completions.create(**CHAT, stream=True))
        following = getattr(stream, "__anext__", None) or stream.__next__
        before = [(await got(following())).choices[0].delta.content for _ in range(3)]
        held = gate.reached.wait(PATIENCE) and not gate.opened.is_set()
        gate.open()
        after = [chunk.choices[0].delta.content for chunk in await items(stream)]

    assert held
    assert (before, after) == (["", "One", " two"], [" three.", None])


def test_a_gate_holds_an_answer_back(provider: Provider) -> None:
    """One that is no stream waits as a whole, and a thread with it."""
    gate = Gate()
    provider.say("At last.", gate)
    with openai.OpenAI(base_url=provider.openai_url, api_key="sk-test", max_retries=0) as made:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(made.chat.completions.create, **CHAT)
            held = gate.reached.wait(PATIENCE) and not asked.done()
            gate.open()

    assert held
    assert asked.result().choices[0].message.content == "At last."


def test_nothing_hangs_when_the_provider_stops() -> None:
    """Neither a client before a closed gate, nor a thread of the provider's."""
    before = set(threading.enumerate())
    gate = Gate(after=1)
    with openai.OpenAI(base_url="http://127.0.0.1:1", api_key="sk-test", max_retries=0) as made:
        with Provider() as provider, pytest.raises(LOST):
            provider.say("One two.", gate)
            stream = made.with_options(base_url=provider.openai_url).chat.completions.create(
                **CHAT, stream=True
            )
            [next(stream) for _ in range(2)]
            provider.stop()
            list(stream)

    assert set(threading.enumerate()) == before


def test_an_incident_that_cannot_happen_is_an_error() -> None:
    """A test that waits for it would wait for nothing."""
    with Provider() as provider:
        form = Chat(Reply("One.", incidents=(Cut(after=7),)), CHAT, 1)

        with pytest.raises(AssertionError, match="has only 1 pieces"):
            list(provider._stream(form))
