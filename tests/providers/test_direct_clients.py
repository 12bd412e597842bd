"""Clients that ask the provider itself: each call is a turn of the trace, and nothing else about them changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from packages import (
    LOST,
    MAKES_RESOURCES_LATE,
    MESSAGES,
    anthropic,
    client,
    got,
    items,
    method,
    openai,
    told,
)
from programs import run_code, stored
from provider import Provider
from recorded import Recorded, frames_of_ours, stack_of
from replies import Cut, Failure, Gate, Redacted, Reply, Thinking, ToolCall, Usage
from traced import (
    ANSWERS,
    APIS,
    CHATS,
    CLAUDES,
    HERE,
    KINDS,
    OPENAI_KINDS,
    STREAMED,
    WHOLE,
    Api,
    Paid,
    Way,
    both_faces,
    create,
    parse,
    trace_with,
    traced,
)
from wire import PATIENCE, Request

from whyops_trace import WhyOps, propagate, trace, traced_llm, traced_tool
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.testing import ManualClock
from whyops_trace.tree import build

CHARGE = ToolCall("charge_card", {"amount": 4999}, "call_1")
CHARGED = {"id": "call_1", "function": {"name": "charge_card", "arguments": '{"amount":4999}'}}
RICH = Reply(
    "I will do so.",
    (CHARGE,),
    (Thinking("Is it paid for?", "c2lnbmVk"), Redacted("cmVkYWN0ZWQ=")),
    usage=Usage(fresh=20, cached=8, written_5m=60, written_1h=40, output=9, reasoning=4),
)
SPOKEN = {"content": "Hello, how can I help?", "finishReason": "stop"}
USAGE = {"promptTokens": 12, "completionTokens": 5, "totalTokens": 17}
pytestmark = pytest.mark.asyncio_only


def rich(api: Api, ending: dict[str, Any] | None = None, **params: Any) -> list[Any]:
    """Return the rows of the turn in which a model says all there is to say."""
    content = {"content": "I will do so.", "toolCalls": [CHARGED]}
    counted = {"completionTokens": 9, "totalTokens": 137, "cacheReadTokens": 8, "reasoningTokens": 4}
    thoughts: list[dict[str, str]] = []
    if api is CHATS:
        content["finishReason"] = "tool_calls"
        counted["promptTokens"] = 120
    elif api is ANSWERS:
        thoughts = [{"type": "thinking", "thinking": "Is it paid for?"}]
        content["finishReason"] = "completed"
        counted |= {"promptTokens": 20, "cacheCreationTokens": 100}
    else:
        thoughts = [
            {"type": "thinking", "thinking": "Is it paid for?", "signature": "c2lnbmVk"},
            {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
        ]
        content["finishReason"] = "tool_use"
        counted |= {"promptTokens": 20, "cacheCreationTokens": 100, "cacheWrite1hTokens": 40}
    ending = (
        {"usage": counted} if ending is None else ending | ({"usage": counted} if api is not CHATS else {})
    )
    return [
        api.request(**params),
        *(("llm_thinking", step, 1, 1, api.name, thought) for step, thought in enumerate(thoughts, 2)),
        api.answer(content, len(thoughts) + 2, **ending),
    ]


# The client


@KINDS
@pytest.mark.anyio
async def test_a_traced_client_is_of_the_class_it_had(provider: Provider, kind: Any) -> None:
    """For ``isinstance``, by its names, and as it is shown."""
    async with traced(kind, provider) as made:
        assert isinstance(made, kind)
        assert (type(made).__name__, type(made).__module__) == (kind.__name__, kind.__module__)
        assert repr(made).startswith(f"<{kind.__module__}.{kind.__qualname__} object")


def looks(made: Any) -> tuple[Any, ...]:
    """Return what can be seen of a client."""
    headers = {name: text for name, text in made.default_headers.items() if isinstance(text, str)}
    return type(made), vars(made).keys(), str(made.base_url), made.api_key, headers


@both_faces(*APIS)
@pytest.mark.anyio
async def test_the_client_passed_in_stays_as_it_is(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """Its class, its address, its headers; and its calls are not recorded."""
    async with client(kind, provider) as made:
        before = looks(made)
        trace_with(WhyOps(agent_name="shop"), made).default_headers = {"X-Trace-ID": "mine"}
        await create(made, api)

        assert looks(made) == before
        assert events.records == []
        assert "x-trace-id" not in provider.requests[0].headers


@KINDS
@pytest.mark.anyio
async def test_what_a_program_set_on_a_client_is_there(provider: Provider, kind: Any) -> None:
    """Also when it is traced again."""
    async with client(kind, provider) as made:
        made.tenant = "acme"

        assert trace_with(WhyOps(), trace_with(WhyOps(), made)).tenant == "acme"


@MAKES_RESOURCES_LATE
@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_client_of_a_class_with_its_own_constructor_is_traced(
    events: Recorded, provider: Provider, api: Api, kind: Any
) -> None:
    """Which takes more than the package's ``copy`` gives it; the client that was passed in is not traced."""
    async with client(of_a_tenant(kind), provider, tenant="acme") as made:
        await create(made, api)
        again = trace_with(WhyOps(), trace_with(WhyOps(), made))
        await create(again, api)
        await create(made, api)

    assert (again.tenant, type(again).__name__) == ("acme", kind.__name__)
    assert [row[0] for row in events.rows] == ["user_message", "llm_response"]


def of_a_tenant(kind: Any) -> Any:
    """Return a class of clients whose constructor asks for more than a client's does."""

    def init(self: Any, tenant: str, **options: Any) -> None:
        kind.__init__(self, **options)
        self.tenant = tenant

    return type(kind.__name__, (kind,), {"__init__": init})


@MAKES_RESOURCES_LATE
def test_a_method_that_another_library_replaced_is_told(
    provider: Provider, said: Callable[[], list[str]]
) -> None:
    """The copy has that of the package; the other way round both libraries see each call."""
    with openai.OpenAI(api_key=provider.openai_key, base_url=provider.openai_url) as made:
        replaced = made.chat.completions.create
        made.chat.completions.create = lambda **more: replaced(**more)
        WhyOps().openai(made)

    assert ["chat.completions.create" in text for text in said()] == [True]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_request_is_the_same_as_without_us(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """To the last header and the last byte of the body, also inside a trace."""
    async with client(kind, provider) as made:
        with trace("checkout-1", external_user_id="ada"):
            await create(trace_with(WhyOps(agent_name="shop"), made), api, temperature=0.5)
            await create(made, api, temperature=0.5)
    ours, theirs = provider.requests

    assert sorted(ours.headers.items()) == sorted(theirs.headers.items())
    assert (ours.method, ours.path, ours.body) == (theirs.method, theirs.path, theirs.body)


@both_faces(*APIS)
@pytest.mark.parametrize("change", ["copy", "with_options"])
@pytest.mark.anyio
async def test_copies_of_a_traced_client_are_traced(
    provider: Provider, events: Recorded, api: Api, kind: Any, change: str
) -> None:
    """Also copies of copies; what was changed is changed, and each call is recorded once."""
    async with traced(kind, provider) as made:
        changed = getattr(made, change)(timeout=3, default_headers={"X-Own": "1"})
        again = getattr(changed, change)(max_retries=4)
        await create(again, api)

        assert isinstance(again, kind)
        assert (again.timeout, again.max_retries) == (3, 4)
    assert provider.requests[0].headers["x-own"] == "1"
    assert [row[:2] for row in events.rows] == [("user_message", 1), ("llm_response", 2)]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_client_traced_twice_is_traced_once(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """By the SDK that was asked last; the client it was given goes on recording to its own."""
    async with traced(kind, provider, WhyOps(agent_name="first")) as made:
        again = trace_with(WhyOps(agent_name="second"), made)
        await create(again, api)
        await create(made, api)

        assert isinstance(again, kind)
    assert [(record["agentName"], record["eventType"]) for record in events.records] == [
        ("second", "user_message"),
        ("second", "llm_response"),
        ("first", "user_message"),
        ("first", "llm_response"),
    ]


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("openai", None, r"openai\(\) was given None; it takes a client of the openai package"),
        ("openai", "sk-test", r"such as openai\.OpenAI\(\)"),
        ("openai", openai.OpenAI, r"openai\(\) was given <class 'openai.OpenAI'>"),
        ("openai", anthropic.Anthropic(api_key="k"), r"Use anthropic\(\.\.\.\) for it"),
        ("anthropic", object(), r"such as anthropic\.Anthropic\(\)"),
        ("anthropic", openai.AsyncOpenAI(api_key="k"), r"Use openai\(\.\.\.\) for it"),
    ],
)
def test_what_is_no_client_of_the_package_is_refused(family: str, given: Any, message: str) -> None:
    """With a sentence that says what to give, or which method to call."""
    sdk = WhyOps(agent_name="shop")

    with pytest.raises(ConfigurationError, match=message):
        getattr(sdk, family)(given)


def test_a_proxy_needs_a_key() -> None:
    """``proxy=True`` without one is refused."""
    with pytest.raises(ConfigurationError, match="needs an api_key"):
        WhyOps(agent_name="shop").openai(openai.OpenAI(api_key="k"), proxy=True)


# Turns


@both_faces(*APIS)
@pytest.mark.parametrize("way", WHOLE.values(), ids=WHOLE)
@pytest.mark.anyio
async def test_every_way_to_ask_for_an_answer_is_a_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, way: Any
) -> None:
    """With all that was said, whole; and the caller gets what an untraced client gives."""
    with Provider() as twin:
        twin.reply(RICH)
        async with client(kind, twin) as bare:
            expected = await way(bare, api)
    provider.reply(RICH)
    async with traced(kind, provider) as made:
        answer = await way(made, api)

    assert (type(answer), answer) == (type(expected), expected)
    assert events.rows == rich(api)


@both_faces(*APIS)
@pytest.mark.parametrize("way", STREAMED.values(), ids=STREAMED)
@pytest.mark.anyio
async def test_every_way_to_ask_for_a_stream_is_a_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any, way: Any
) -> None:
    """With the same events as for the answer in one piece, and the time to the first token."""
    with Provider() as twin:
        twin.reply(RICH)
        async with client(kind, twin) as bare:
            expected = await way(bare, api)
    provider.reply(RICH)
    async with traced(kind, provider) as made:
        heard = await way(made, api)

    assert [type(item) for item in heard] == [type(item) for item in expected]
    assert heard == expected
    assert events.rows == rich(api, {"timeToFirstTokenMs": 0}, stream=True)


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_structured_answer_is_parsed_for_the_caller_and_recorded_as_text(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """The schema is among the parameters of the request."""
    provider.say('{"amount": 4999}')

    async with traced(kind, provider) as made:
        answer = await parse(made, api)
    parsed = {
        CHATS: lambda: answer.choices[0].message.parsed,
        ANSWERS: lambda: answer.output_parsed,
        CLAUDES: lambda: answer.parsed_output,
    }[api]()
    asked, answered = events.records

    assert parsed == Paid(amount=4999)
    assert "Amount" in str(asked["metadata"]["params"])
    assert answered["content"]["content"] == '{"amount": 4999}'


INSTRUCTED: list[tuple[Api, dict[str, Any], str]] = [
    (
        CHATS,
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        "",
    ),
    (
        ANSWERS,
        {
            "instructions": "Be kind.",
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        },
        "Be kind.",
    ),
    (
        CLAUDES,
        {
            "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        },
        "Be kind.",
    ),
]


@pytest.mark.parametrize(("api", "more", "prompt"), INSTRUCTED, ids=[api.name for api, _, _ in INSTRUCTED])
@pytest.mark.anyio
async def test_what_the_model_is_given_beside_the_messages_is_recorded(
    provider: Provider, events: Recorded, api: Api, more: dict[str, Any], prompt: str
) -> None:
    """The system prompt as text, the tools as they are, any other parameter under its name."""
    async with traced(api.kinds[0], provider) as made:
        await create(made, api, **more, temperature=0.5, top_p=0.9)
    request = api.request(temperature=0.5, top_p=0.9)
    about = {"tools": more["tools"]} | ({"systemPrompt": prompt} if prompt else {})
    about |= {"system": more["system"]} if "system" in more else {}

    assert events.rows[0] == (*request[:6], request[6] | about)


@both_faces(*APIS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.anyio
async def test_the_provider_s_ids_of_an_answer_are_kept(
    provider: Provider, events: Recorded, api: Api, kind: Any, stream: bool
) -> None:
    """That of the answer, which other tools know it by, and that of the request, which the provider asks for."""
    async with traced(kind, provider) as made:
        answer = await create(made, api, **({"stream": True} if stream else {}))
        if stream:
            await items(answer)
    metadata = events.records[1]["metadata"]

    assert metadata["responseId"]
    assert stream or metadata["responseId"] == answer.id
    assert metadata["requestId"] == "req_1"


def essence(answer: Any) -> Any:
    """Return an answer without what is empty, what no two answers have in common, and tokens, which not all tell."""
    if isinstance(answer, list):
        return [essence(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: essence(value)
        for name, value in answer.items()
        if value not in (None, []) and name not in ("id", "created", "created_at", "usage")
    }


@both_faces(*APIS)
@pytest.mark.parametrize("way", [*WHOLE.values(), *STREAMED.values()], ids=[*WHOLE, *STREAMED])
@pytest.mark.anyio
async def test_the_response_is_kept_as_the_provider_had_it(
    provider: Provider, events: Recorded, api: Api, kind: Any, way: Way
) -> None:
    """The package makes the answer again of it that the caller of the plain client gets."""
    provider.reply(RICH, RICH)
    async with client(kind, provider) as bare:
        expected = (await create(bare, api)).model_dump(mode="json", exclude_unset=True)
    async with traced(kind, provider) as made:
        await way(made, api)
    (kept,) = (
        each["metadata"]["rawResponse"] for each in events.records if each["eventType"] == "llm_response"
    )

    assert essence(kept) == essence(expected)


CALLED = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", **CHARGED}]}
RESULTS: list[tuple[Api, dict[str, Any], Any]] = [
    (
        CHATS,
        {"messages": [*MESSAGES, CALLED, {"role": "tool", "tool_call_id": "call_1", "content": "ch_1"}]},
        "ch_1",
    ),
    (
        ANSWERS,
        {
            "input": [
                *MESSAGES,
                {"type": "function_call", "call_id": "call_1", "name": "charge_card", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "ch_1"},
            ]
        },
        "ch_1",
    ),
    (
        CLAUDES,
        {
            "messages": [
                *MESSAGES,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "toolu_1", "name": "charge_card", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ch_1"}],
                },
            ]
        },
        "ch_1",
    ),
]


@pytest.mark.parametrize(("api", "body", "output"), RESULTS, ids=[api.name for api, _, _ in RESULTS])
@pytest.mark.anyio
async def test_a_request_that_ends_in_a_tools_result_is_a_tool_result(
    provider: Provider, events: Recorded, api: Api, body: dict[str, Any], output: Any
) -> None:
    """With the name of the tool, which the request knows only by the id of the call."""
    async with traced(api.kinds[0], provider) as made:
        await create(made, api, **body)
    (messages,) = body.values()

    assert events.rows[0][0] == "tool_result"
    assert events.rows[0][5] == {"toolName": "charge_card", "output": output, "messages": messages}


REFUSALS: dict[Api, dict[str, Any]] = {
    CHATS: {"content": "I can't.", "refusal": "I can't.", "finishReason": "stop"},
    ANSWERS: {"content": "I can't.", "refusal": "I can't.", "finishReason": "completed"},
    CLAUDES: {"content": "I can't.", "finishReason": "refusal"},
}


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_refusal_is_told_as_one(provider: Provider, events: Recorded, api: Api, kind: Any) -> None:
    """In the words of the model; Anthropic's says so only in why it stopped."""
    provider.reply(Reply(refusal="I can't."))

    async with traced(kind, provider) as made:
        await create(made, api)

    assert events.rows[1] == api.answer(REFUSALS[api], usage=USAGE)


@pytest.mark.parametrize(
    ("api", "reason"), [(CHATS, "length"), (ANSWERS, "max_output_tokens"), (CLAUDES, "max_tokens")]
)
@pytest.mark.anyio
async def test_the_answering_model_and_why_it_stopped_are_recorded(
    provider: Provider, events: Recorded, api: Api, reason: str
) -> None:
    """Which may be another model than the one that was asked."""
    provider.reply(Reply("Too lo", finish="length", model="the-model-2026"))

    async with traced(api.kinds[0], provider) as made:
        await create(made, api)

    assert events.rows[1] == api.answer(
        {"content": "Too lo", "finishReason": reason}, model="the-model-2026", usage=USAGE
    )


@pytest.mark.parametrize("kind", OPENAI_KINDS)
@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.anyio
async def test_embeddings_are_counted(provider: Provider, events: Recorded, kind: Any, encoding: str) -> None:
    """How many, how long and how they came, and what they cost; not the numbers."""
    async with traced(kind, provider, _strict_response_validation=False) as made:
        answer = await got(
            made.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format=encoding)
        )
    about = {"model": "text-embedding-3-small", "provider": HERE}

    assert len(answer.data) == 2
    assert events.rows == [
        ("embedding_request", 1, None, 0, "embeddings", {"input": ["a", "b"]}),
        (
            "embedding_response", 2, 1, 1, "embeddings",
            {"object": "list", "embeddingCount": 2, "firstEmbeddingDimensions": 3, "encodingFormat": encoding},
            about | {"usage": {"promptTokens": 12, "totalTokens": 12}},
        ),
    ]  # fmt: skip


@KINDS
@pytest.mark.anyio
async def test_other_requests_are_not_recorded(provider: Provider, events: Recorded, kind: Any) -> None:
    """The list of models is no turn."""
    async with traced(kind, provider) as made:
        models = await got(method(made, "models.list")())

        assert [model.id for model in models.data][:1] == ["gpt-4o"]
    assert events.records == []


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_a_turn_takes_as_long_as_its_request(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """From before it is sent until the answer is there."""
    clock = ManualClock()

    def answer(request: Request) -> None:
        clock.advance(1.5)

    provider.script = answer
    async with traced(kind, provider, WhyOps(agent_name="shop", clock=clock)) as made:
        await create(made, api)

    assert events.records[1]["metadata"]["latencyMs"] == 1_500


# Failures


def failed(api: Api, content: dict[str, Any], **about: Any) -> list[Any]:
    """Return the rows of a turn that failed."""
    names = {"model": api.body["model"], "provider": HERE}
    return [api.request(), ("error", 2, 1, 1, api.name, content, names | about)]


async def raised(made: Any, api: Api) -> Any:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:
        await create(made, api)
    return caught.value


@both_faces(*APIS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 529])
@pytest.mark.anyio
async def test_the_providers_error_is_raised_as_it_is_and_recorded(
    provider: Provider, events: Recorded, api: Api, kind: Any, status: int
) -> None:
    """The same class, status, body and cause, with one frame of ours at most; the event has the status."""
    failure = Failure(status, "It is not to be.", code="no")
    async with client(kind, provider) as made:
        provider.reply(failure, failure)
        expected = await raised(made, api)
        error = await raised(trace_with(WhyOps(agent_name="shop"), made), api)
    kinds, serial = (type(error), type(expected)), r"req_\d+"

    assert kinds[0] is kinds[1]
    assert error.status_code == expected.status_code == status
    assert re.sub(serial, "", str(error)) == re.sub(serial, "", str(expected))
    assert getattr(error, "body", None) == getattr(expected, "body", None)
    assert (type(error.__cause__), error.__suppress_context__) == (
        type(expected.__cause__), expected.__suppress_context__,
    )  # fmt: skip
    assert len(frames_of_ours(error)) <= 1
    about = {"type": type_name(error), "message": str(error), "status": status}
    assert events.rows == failed(api, about)
    assert stack_of(events.records[-1]) != ""


def type_name(error: BaseException) -> str:
    """Return how an error's class is called in an event."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


@both_faces(*APIS)
@pytest.mark.anyio
async def test_a_lost_connection_is_an_error_without_a_status(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """With the package's own exception, and what caused it."""
    provider.reply(Reply("Never", incidents=(Cut(),)))

    async with traced(kind, provider) as made:
        error = await raised(made, api)

    assert isinstance(error, LOST)
    assert error.__cause__ is not None
    assert len(frames_of_ours(error)) <= 1
    about = {"type": type_name(error), "message": str(error), "cause": ANY}
    assert events.rows == failed(api, about)
    assert events.records[1]["content"]["cause"]["type"] == type_name(error.__cause__)


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_a_client_that_is_strict_stays_so(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """An answer that its types do not describe is an error, and its turn has failed."""
    provider.default = Reply("Hm.", finish="of no known kind")

    async with client(kind, provider, _strict_response_validation=True) as made:
        expected = await raised(made, api)
        error = await raised(trace_with(WhyOps(agent_name="shop"), made), api)

    assert (type(error), str(error)) == (type(expected), str(expected))
    about = {"type": type_name(error), "message": str(error), "status": 200, "cause": ANY}
    assert events.rows == failed(api, about)
    assert events.records[1]["content"]["cause"]["type"].endswith("ValidationError")


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_wrong_arguments_raise_what_they_raise_without_us(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """And nothing is recorded, since nothing was asked."""
    async with traced(kind, provider) as made:
        with pytest.raises(TypeError, match="nonsense"):
            await got(method(made, f"{api.name}.create")(**api.body, nonsense=1))

    assert events.records == []


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_what_the_package_tries_again_is_one_turn(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """The failed tries leave no event."""
    again = {"retry-after-ms": "1", "retry-after": "1"}
    provider.reply(Failure(500, headers=again), Failure(429, headers=again))

    async with traced(kind, provider) as made:
        await create(made.with_options(max_retries=2), api)
    reason = "stop" if api is CHATS else "end_turn"

    assert len(provider.requests) == 3
    assert events.rows == [api.request(), api.answer(SPOKEN | {"finishReason": reason}, usage=USAGE)]


@pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])
@pytest.mark.anyio
async def test_a_cancelled_call_ends_as_cancelled(provider: Provider, events: Recorded, api: Api) -> None:
    """When its task is, while the model thinks."""
    gate = Gate()
    provider.reply(Reply("Never", incidents=(gate,)))

    async with traced(api.kinds[1], provider) as made:
        method(made, f"{api.name}.create")
        task = asyncio.create_task(create(made, api))

        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert events.rows == [api.request(), api.answer({"finishReason": "cancelled"}, outcome="cancelled")]


# Traces


@both_faces(*APIS)
@pytest.mark.anyio
async def test_turns_are_events_of_the_trace_that_is_open(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """Each follows from what was before it, and what a model asks for is called outside its turn."""

    @traced_tool
    def charge_card(amount: int) -> dict[str, Any]:
        return {"id": "ch_1"}

    async with traced(kind, provider) as made:
        with trace("checkout-1"):
            await create(made, api)
            charge_card(4999)
            await create(made, api)

    assert [(row[0], row[1], row[2], row[3]) for row in events.of("checkout-1")] == [
        ("user_message", 1, None, 0),
        ("llm_response", 2, 1, 1),
        ("tool_call_request", 3, 2, 0),
        ("tool_call_response", 4, 3, 3),
        ("user_message", 5, 4, 0),
        ("llm_response", 6, 5, 5),
    ]


@both_faces(*APIS)
@pytest.mark.anyio
async def test_the_line_of_the_documentation_puts_turns_in_a_trace(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """As it is printed there, and until the headers are set again."""
    trace_id = "conversation-7"
    async with traced(kind, provider, default_headers={"X-Own": "1"}) as client:
        client.default_headers = {
            **(client.default_headers or {}),
            "X-Trace-ID": trace_id,
            "X-Thread-ID": trace_id,
        }
        await create(client, api)
        await create(client.with_options(timeout=5), api)
        ours = ("X-Trace-ID", "X-Thread-ID")
        client.default_headers = {
            name: text for name, text in client.default_headers.items() if name not in ours
        }
        await create(client, api)
    first, second, third = (request.headers for request in provider.requests)

    assert [headers["x-own"] for headers in (first, second, third)] == ["1"] * 3
    assert (first["x-trace-id"], second["x-thread-id"]) == (trace_id, trace_id)
    assert "x-trace-id" not in third
    assert [row[1:4] for row in events.of(trace_id)] == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3)]
    assert len(events.traces) == 2


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_a_request_that_names_another_trace_goes_there_with_a_warning(
    provider: Provider, events: Recorded, said: Callable[[], list[str]], api: Api, kind: Any
) -> None:
    """Said once, with both ids; what follows is in the open trace again."""
    headers = {"X-Trace-ID": "elsewhere"}
    async with traced(kind, provider) as made:
        with trace("here"):
            await create(made, api)
            await create(made, api, extra_headers=headers)
            await create(made, api, extra_headers=headers)
            await create(made, api)
    (warning,) = said()

    assert "X-Trace-ID" in warning and "'elsewhere'" in warning and "'here'" in warning
    assert [row[1:4] for row in events.of("here")] == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3)]
    assert [row[1:4] for row in events.of("elsewhere")] == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3)]


@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_a_client_records_to_its_own_sdk(
    provider: Provider, events: Recorded, api: Api, kind: Any
) -> None:
    """Also where a trace of another one is open, which it leaves alone."""
    other = WhyOps(agent_name="other")
    async with traced(kind, provider) as made:
        with other.trace("theirs") as theirs:
            await create(made, api)
            theirs.error_sync("An error.")
    turn = [record for record in events.records if record["traceId"] != "theirs"]

    assert [(record["agentName"], record["stepId"], record.get("parentStepId")) for record in turn] == [
        ("shop", 1, None),
        ("shop", 2, 1),
    ]
    assert [row[:4] for row in events.of("theirs")] == [("error", 1, None, 0)]


@pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])
@pytest.mark.anyio
async def test_parallel_turns_share_what_they_forked_from(
    provider: Provider, events: Recorded, api: Api
) -> None:
    """Each answer belongs to its own request, whichever comes first."""
    gates = {"one": Gate(), "two": Gate()}

    def answer(request: Request) -> Reply | None:
        name = str(request.json["user"] if "user" in request.json else request.json["metadata"]["user_id"])
        return Reply(name, incidents=(gates[name],)) if name in gates else None

    def asking(name: str) -> dict[str, Any]:
        return {"metadata": {"user_id": name}} if api is CLAUDES else {"user": name}

    provider.script = answer
    async with traced(api.kinds[1], provider) as made:
        method(made, f"{api.name}.create")
        with trace("checkout-1"):
            await create(made, api, **asking("zero"))
            tasks = {}
            for name, gate in gates.items():
                tasks[name] = asyncio.create_task(create(made, api, **asking(name)))
                assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
            for name in ("two", "one"):
                gates[name].open()
                await tasks[name]
    rows = events.of("checkout-1")[2:]

    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("user_message", 3, 2, 0),
        ("user_message", 4, 2, 0),
        ("llm_response", 5, 4, 4),
        ("llm_response", 6, 3, 3),
    ]
    assert [row[5]["content"] for row in rows[2:]] == ["two", "one"]


@both_faces(CHATS, CLAUDES)
@pytest.mark.parametrize("made_first", ["by itself", "by name"])
@pytest.mark.anyio
async def test_a_client_records_to_a_trace_that_names_no_sdk(
    provider: Provider, events: Recorded, api: Api, kind: Any, made_first: str
) -> None:
    """The default one may be another one, made by a call before; a function around the turn wraps it all the same."""
    if made_first == "by name":
        WhyOps(agent_name="first")
    with trace("before"):
        pass

    @traced_llm
    async def ask(messages: Any) -> Any:
        return await create(made, api)

    async with traced(kind, provider) as made:
        with trace("here"):
            await create(made, api)
            await ask([{"role": "user", "content": "Hello"}])
        await ask([{"role": "user", "content": "Hello"}])
    answers = [record for record in events.records if record["eventType"] == "llm_response"]

    assert [record["metadata"].get("wraps") for record in answers] == [None, None, True, None, True]
    assert [record["traceId"] for record in answers[:3]] == ["here"] * 3
    assert answers[3]["traceId"] == answers[4]["traceId"]


@pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])
def test_calls_in_threads_are_turns_of_the_trace_they_are_handed(
    provider: Provider, events: Recorded, api: Api
) -> None:
    """With ``propagate``, as any other traced call."""
    made = api.kinds[0](
        api_key=getattr(provider, f"{api.provider}_key"),
        base_url=getattr(provider, f"{api.provider}_url"),
        max_retries=0,
    )
    ask = method(trace_with(WhyOps(agent_name="shop"), made), f"{api.name}.create")

    def call() -> Any:
        return ask(**api.body)

    with made, trace("checkout-1"), ThreadPoolExecutor() as pool:
        for future in [pool.submit(propagate(call)) for _ in range(4)]:
            future.result(PATIENCE)
    requests = [row for row in events.rows if row[0] == "user_message"]
    answers = [row for row in events.rows if row[0] == "llm_response"]

    assert events.traces == ["checkout-1"]
    assert sorted(row[2] for row in answers) == sorted(row[1] for row in requests)
    assert len(answers) == 4


@both_faces(*APIS)
@pytest.mark.anyio
async def test_without_tracing_calls_go_straight_through(
    provider: Provider, tmp_path: Path, api: Api, kind: Any
) -> None:
    """No file is written, and what comes back is what the provider said."""
    sdk = WhyOps(agent_name="shop", tracing="off")
    async with traced(kind, provider, sdk) as made:
        answer = await create(made, api)
        chunks = [chunk async for chunk in _heard(await create(made, api, stream=True))]

    assert "Hello, how can I help?" in str(told(answer))
    assert chunks
    assert not (tmp_path / "home").exists()


async def _heard(stream: Any) -> Any:
    following = getattr(stream, "__anext__", None) or stream.__next__
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        while True:
            yield await got(following())


@pytest.mark.parametrize("rate", [0.0, 1.0])
@both_faces(CHATS, CLAUDES)
@pytest.mark.anyio
async def test_a_trace_that_is_sampled_out_records_no_turn(
    provider: Provider, tmp_path: Path, api: Api, kind: Any, rate: float
) -> None:
    """Its calls work as those of any other."""
    sdk = WhyOps(agent_name="shop", sample_rate=rate)
    async with traced(kind, provider, sdk) as made:
        with sdk.trace("checkout-1"):
            await create(made, api)
    emitted = sdk.flush_sync()["local"].emitted

    assert len(provider.requests) == 1
    assert emitted == (0 if rate == 0.0 else 3)
    if emitted:
        kinds = [record["eventType"] for record in stored(tmp_path / "home", "checkout-1")]
        assert kinds == ["user_message", "llm_response", "trace_end"]


# Others who serve the models


class Azure(Provider):
    """OpenAI's models as Azure serves them: under deployments, for a key of its own."""

    def exchange(self, connection: socket.socket, request: Request) -> bool:
        """Answer one request as OpenAI does."""
        request.path = re.sub(r"^/openai(/deployments/[^/]+)?", "/v1", request.path)
        request.headers["authorization"] = f"Bearer {request.headers['api-key']}"
        return super().exchange(connection, request)


@pytest.fixture
def azure() -> Iterator[Azure]:
    """Run Azure for the test."""
    with Azure() as azure:
        yield azure


@pytest.mark.parametrize("kind", [openai.AzureOpenAI, openai.AsyncAzureOpenAI])
@pytest.mark.anyio
async def test_clients_of_azure_are_traced(azure: Azure, events: Recorded, kind: Any) -> None:
    """Their copies, too; who serves the model is Azure."""
    plain = kind(azure_endpoint=azure.root, api_version="2024-06-01", api_key=azure.openai_key, max_retries=0)
    try:
        plain.copy()
    except ValueError:
        pytest.skip("The package itself cannot copy a client of Azure in this version.")
    made = WhyOps(agent_name="shop", clock=ManualClock()).openai(plain)
    await create(made, CHATS)
    await create(made.with_options(timeout=3), CHATS)
    vectors = await got(
        made.embeddings.create(model="text-embedding-3-small", input="a", encoding_format="float")
    )
    await got(plain.close())

    assert isinstance(made, kind)
    assert len(vectors.data) == 1
    assert [request.path for request in azure.requests] == ["/v1/chat/completions"] * 2 + ["/v1/embeddings"]
    assert events.rows[:2] == [CHATS.request(), CHATS.answer(SPOKEN, provider="azure", usage=USAGE)]
    assert [(row[0], row[6]["provider"]) for row in events.rows[3::2]] == [
        ("llm_response", "azure"),
        ("embedding_response", "azure"),
    ]


def test_no_package_of_a_provider_is_imported(tmp_path: Path) -> None:
    """Neither by the package, nor by a client, nor by what traces clients: whoever has one has imported it."""
    program = run_code(
        """
        import sys
        import whyops_trace
        from whyops_trace import WhyOps, trace, traced_llm
        from whyops_trace.exceptions import ConfigurationError

        @traced_llm
        def ask(prompt):
            return {"choices": [{"message": {"content": "Hi."}}]}

        sdk = WhyOps(agent_name="shop")
        with trace("t"):
            ask("Hello")
        for method in (sdk.openai, sdk.anthropic):
            try:
                method(object())
            except ConfigurationError:
                pass
        sdk.close_sync()
        print([name for name in ("openai", "anthropic", "httpx", "httpx2") if name in sys.modules])
        """,
        tmp_path / "home",
    )

    assert (program.stdout, program.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("name", "expected"), [("AzureLike", "azure"), ("FoundryLike", "azure"), ("Own", HERE)]
)
def test_a_client_of_another_service_says_who_serves_it(
    events: Recorded, provider: Provider, name: str, expected: str
) -> None:
    """Whatever the form of its answers."""
    kind = type(name, (openai.OpenAI,), {})
    made = WhyOps().openai(kind(api_key=provider.openai_key, base_url=provider.openai_url, max_retries=0))
    made.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi."}])
    made.close()

    assert events.records[1]["metadata"]["provider"] == expected


@pytest.mark.parametrize("is_raised_anew", [False, True])
def test_a_failure_that_goes_through_a_wrapper_counts_once(
    provider: Provider, tmp_path: Path, is_raised_anew: bool
) -> None:
    """Whether the function around the client's call raises it as it is, or another exception from it."""
    provider.reply(Failure(500))
    with WhyOps(home=tmp_path) as sdk:
        made = openai.OpenAI(base_url=provider.openai_url, api_key="sk-test", max_retries=0)
        asking = sdk.openai(made)

        @traced_llm(model="gpt-4o", provider="openai")
        def ask() -> None:
            try:
                asking.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
            except openai.InternalServerError as error:
                if is_raised_anew:
                    raise ValueError("no answer") from error
                raise

        with sdk.trace("t"), contextlib.suppress(openai.InternalServerError, ValueError):
            ask()
        made.close()
    tree = build(stored(tmp_path, "t"))

    assert tree.errors == 1
    assert [node.status for node in tree.nodes] == ["error"]


def test_a_failure_of_a_wrapper_itself_counts(provider: Provider, tmp_path: Path) -> None:
    """Its client was answered."""
    with WhyOps(home=tmp_path) as sdk:
        made = openai.OpenAI(base_url=provider.openai_url, api_key="sk-test", max_retries=0)
        asking = sdk.openai(made)

        @traced_llm(model="gpt-4o", provider="openai")
        def ask() -> None:
            asking.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
            raise ValueError("no answer")

        with sdk.trace("t"), contextlib.suppress(ValueError):
            ask()
        made.close()

    assert build(stored(tmp_path, "t")).errors == 1
