"""Clients that go through the WhyOps proxy: what they send there, and which requests go elsewhere."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from hybrid import KINDS, agent, answered, ask, connected, is_openai, kept, traced, types
from packages import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    anthropic,
    client,
    got,
    method,
    openai,
)
from provider import Provider
from replies import Gate, Reply
from serving import KEY
from wire import Request

from whyops_trace import WhyOps, current_trace, traced_llm
from whyops_trace.exceptions import ConfigurationError

HEADERS = ("X-Agent-Name", "X-Trace-ID", "X-Thread-ID", "X-External-User-Id")
NOT_FOUND = (openai.NotFoundError, anthropic.NotFoundError)
#: What the proxy does not serve: the method of each kind of client, and its arguments.
UNSERVED = [
    *((kind, path, arguments) for kind in (openai.OpenAI, openai.AsyncOpenAI) for path, arguments in (
        ("post", {"path": "/something", "cast_to": object, "body": {}}),
        ("audio.speech.create", {"model": "tts-1", "voice": "alloy", "input": "x"}),
        ("files.list", {}),
        ("moderations.create", {"input": "x"}),
        ("responses.retrieve", {"response_id": "resp_1"}),
    )),
    *((kind, path, arguments) for kind in (anthropic.Anthropic, anthropic.AsyncAnthropic) for path, arguments in (
        ("post", {"path": "/something", "cast_to": object, "body": {}}),
        ("completions.create", {"model": "claude-test", "prompt": "x", "max_tokens_to_sample": 1}),
        ("messages.batches.list", {}),
        ("messages.count_tokens", {"model": "claude-test", "messages": CLAUDE["messages"]}),
    )),
]  # fmt: skip
pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]


def headers(request: Request) -> list[str | None]:
    """What a request tells the proxy of where it belongs."""
    return [request.headers.get(name) for name in HEADERS]


def key(request: Request) -> set[str]:
    """The keys that a request carries, however it does."""
    keys = (request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))
    return {key.removeprefix("Bearer ") for key in keys if key}


def look(made: Any) -> list[Any]:
    """What a client is, and what it sends where."""
    sent = {name: value for name, value in made.default_headers.items() if isinstance(value, str)}
    return [type(made), str(made.base_url), made.api_key, sent]


# Where requests go, and what they carry


@KINDS
async def test_a_client_goes_through_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """With its address, the WhyOps key and the agent's name; the package's class stays, so does the one passed in."""
    async with client(kind, provider) as made:
        before = look(made)
        through = traced(sdk, made)
        with sdk.trace("checkout-8841"):
            answer = await ask(through)
        after = look(made)
    (request,) = collector.proxied
    root = f"{collector.proxy_url}/v1/" if is_openai(kind) else collector.proxy_url

    assert isinstance(through, kind)
    assert (str(through.base_url).rstrip("/"), through.api_key) == (root.rstrip("/"), KEY)
    assert request.path == ("/v1/chat/completions" if is_openai(kind) else "/v1/messages")
    assert key(request) == {KEY}
    assert headers(request) == ["shop", "checkout-8841", "checkout-8841", None]
    assert answered(answer) == "Hello, how can I help?"
    assert after == before


@KINDS
async def test_the_client_passed_in_is_not_traced(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """It asks the provider itself, and nothing is recorded of that."""
    async with client(kind, provider) as made:
        traced(sdk, made)
        with sdk.trace("checkout-8841"):
            await ask(made)

    assert collector.proxied == []
    assert headers(provider.requests[0]) == [None] * 4
    assert kept(sdk, "checkout-8841") == []


@KINDS
async def test_a_request_names_the_trace_that_is_open(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """One client serves traces after one another and within one another, each with its user."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("first", external_user_id="user-1"):
            await ask(made)
            with sdk.trace("inner"):
                await ask(made)
            await ask(made)
        with sdk.trace("second"):
            await ask(made)

    assert [headers(request)[1:] for request in collector.proxied] == [
        ["first", "first", "user-1"],
        ["inner", "inner", None],
        ["first", "first", "user-1"],
        ["second", "second", None],
    ]


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, anthropic.AsyncAnthropic])
async def test_tasks_name_the_traces_they_are_in(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Though their requests with one client are at the proxy at the same time."""
    gates = [Gate(), Gate()]
    provider.reply(*(Reply("Sure.", incidents=(gate,)) for gate in gates))

    async with connected(sdk, kind, provider) as made:

        async def work(trace_id: str) -> None:
            with sdk.trace(trace_id):
                await ask(made, f"I am {trace_id}.")

        tasks = [asyncio.create_task(work(trace_id)) for trace_id in ("a", "b")]
        for gate in gates:
            await asyncio.to_thread(gate.reached.wait, 30)
        for gate in gates:
            gate.open()
        await asyncio.gather(*tasks)
    told = {headers(request)[1]: request.json["messages"][0]["content"] for request in collector.proxied}

    assert told == {"a": "I am a.", "b": "I am b."}


@KINDS
async def test_a_request_outside_any_trace_has_one_of_its_own(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The proxy and the store know it by the same id, and the next one has another."""
    async with connected(sdk, kind, provider) as made:
        await ask(made)
        await ask(made)
    ids = [request.headers["X-Trace-ID"] for request in collector.proxied]

    assert len(set(ids)) == 2
    for trace_id in ids:
        assert types(kept(sdk, trace_id)) == ["user_message", "llm_response"]
        assert types(collector.trace(trace_id)) == ["user_message", "llm_response"]


# Headers that users set


@KINDS
async def test_the_headers_of_a_client_can_be_set(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """The line that WhyOps documents runs as printed, and its trace wins; what else the client sends stays."""
    trace_id = "session-7"
    async with connected(sdk, kind, provider, default_headers={"X-Mine": "1"}) as client:
        client.default_headers = {
            **(client.default_headers or {}),
            "X-Trace-ID": trace_id,
            "X-Thread-ID": trace_id,
        }
        await ask(client)
        await ask(client, "And again.")
    rows, records = collector.trace("session-7"), kept(sdk, "session-7")

    assert [headers(request) for request in collector.proxied] == [
        ["shop", "session-7", "session-7", None]
    ] * 2
    assert {request.headers["X-Mine"] for request in collector.proxied} == {"1"}
    assert [key(request) for request in collector.proxied] == [{KEY}, {KEY}]
    assert types(rows)[:2] == ["user_message", "llm_response"]
    assert types(records) == ["user_message", "llm_response"] * 2
    assert said() == []


@KINDS
async def test_a_trace_that_headers_name_goes_on_from_turn_to_turn(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Where the turns are reported from here, each follows from the one before it."""
    async with client(kind, provider) as made:
        direct = traced(sdk, made, proxy=False)
        direct.default_headers = {**direct.default_headers, "X-Trace-ID": "session-7"}
        for _ in range(3):
            await ask(direct)
    sdk.flush_sync(30.0)
    rows = collector.trace("session-7")

    assert types(rows) == ["user_message", "llm_response"] * 3
    assert [row["parentStepId"] for row in rows[1:]] == [row["stepId"] for row in rows[:-1]]


@KINDS
async def test_a_header_of_a_client_can_be_taken_back(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """What is not in the headers that are set is not sent any more, neither to the proxy nor to the provider."""
    async with connected(sdk, kind, provider) as made:
        made.default_headers = {**made.default_headers, "X-Trace-ID": "session-7", "X-Mine": "1"}
        made.default_headers = {
            name: value
            for name, value in made.default_headers.items()
            if name not in ("X-Trace-ID", "X-Mine")
        }
        with sdk.trace("checkout-8841"):
            await ask(made)
        with pytest.raises(NOT_FOUND):
            await got(made.post("/something", cast_to=object, body={}))
    requests = (collector.proxied[0], provider.requests[-1])

    assert headers(requests[0])[1] == "checkout-8841"
    assert headers(requests[1])[1] is None
    assert [request.headers["X-Mine"] for request in requests] == [None, None]


@KINDS
async def test_the_headers_of_one_call_win(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """Over those of the client and the trace that is open; the turn is recorded where they say, which is told once."""
    other = {"x-trace-id": "elsewhere", "X-Thread-ID": "thread-7", "X-External-User-Id": "user-7"}
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await ask(made, "One.", extra_headers=other)
            await ask(made, "Two.", extra_headers=other)
            here = current_trace()
            await ask(made, "Three.")
    (warning,) = said()

    assert here is not None
    assert here.id == "checkout-8841"
    assert [headers(request)[1:] for request in collector.proxied] == [
        ["elsewhere", "thread-7", "user-7"],
        ["elsewhere", "thread-7", "user-7"],
        ["checkout-8841", "checkout-8841", None],
    ]
    assert "elsewhere" in warning
    assert "checkout-8841" in warning
    assert types(kept(sdk, "elsewhere")) == ["user_message", "llm_response"] * 2
    assert types(kept(sdk, "checkout-8841")) == ["user_message", "llm_response"]


# Who serves what


@KINDS
async def test_the_list_of_models_comes_through_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """It serves that beside the calls of models, and nothing of it is recorded."""
    async with connected(sdk, kind, provider, _strict_response_validation=False) as made:
        with sdk.trace("checkout-8841"):
            listed = method(made, "models.list")()
            page = await got(listed)
    (request,) = collector.proxied

    assert page.data[0].id == "gpt-4o"
    assert (request.method, request.path, key(request)) == ("GET", "/v1/models", {KEY})
    assert kept(sdk, "checkout-8841") == []


@pytest.mark.parametrize(("kind", "path", "arguments"), UNSERVED)
async def test_what_the_proxy_does_not_serve_goes_to_the_provider(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, path: str, arguments: dict[str, Any]
) -> None:
    """With the client's own key, none of our headers, and the provider's answer, here that it has no such thing."""
    async with connected(sdk, kind, provider, default_headers={"X-Mine": "1"}) as made:
        function = method(made, path)
        with sdk.trace("checkout-8841"), pytest.raises(NOT_FOUND):
            await got(function(**arguments))
    (request,) = provider.requests

    assert collector.proxied == []
    assert key(request) == {provider.openai_key if is_openai(kind) else provider.anthropic_key}
    assert headers(request) == [None] * 4
    assert request.headers["X-Mine"] == "1"
    assert kept(sdk, "checkout-8841") == []


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
@pytest.mark.parametrize(
    ("path", "arguments"),
    [("completions.create", {"prompt": "x"}), ("responses.compact", {"input": "x"})],
)
async def test_a_turn_that_the_proxy_does_not_serve_is_reported_from_here(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, path: str, arguments: dict[str, Any]
) -> None:
    """It goes to the provider, which here has no such thing, and the server gets it as any event."""
    async with connected(sdk, kind, provider) as made:
        function = method(made, path)
        with sdk.trace("checkout-8841"), pytest.raises(NOT_FOUND):
            await got(function(model="gpt-4o", **arguments))
    await sdk.flush()
    (request,) = provider.requests

    assert collector.proxied == []
    assert (key(request), headers(request)) == ({provider.openai_key}, [None] * 4)
    assert types(kept(sdk, "checkout-8841")) == ["user_message", "error"]
    assert types(collector.trace("checkout-8841")) == ["user_message", "error"]


@ANTHROPIC
async def test_messages_of_the_beta_api_go_through_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Their address has a query."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await got(method(made, "beta.messages.create")(**CLAUDE))

    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]
    assert types(kept(sdk, "checkout-8841")) == ["user_message", "llm_response"]


# Copies


@KINDS
@pytest.mark.parametrize("copies", ["with_options", "copy"])
async def test_a_copy_with_other_options_goes_through_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, copies: str
) -> None:
    """With the agent's headers, and those that the copy adds."""
    async with connected(sdk, kind, provider) as made:
        copied = getattr(made, copies)(timeout=20.0, default_headers={"X-Mine": "1"})
        with sdk.trace("checkout-8841"):
            await ask(copied)
        kept_timeout = copied.timeout
    (request,) = collector.proxied

    assert isinstance(copied, kind)
    assert kept_timeout == 20.0
    assert (key(request), request.headers["X-Mine"]) == ({KEY}, "1")
    assert headers(request)[:2] == ["shop", "checkout-8841"]


@KINDS
async def test_a_key_that_a_copy_is_given_is_for_the_provider(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The proxy gets the WhyOps key all the same."""
    async with connected(sdk, kind, provider) as made:
        copied = made.with_options(api_key="sk-other")
        await ask(copied)
        with pytest.raises(NOT_FOUND):
            await got(copied.post("/something", cast_to=object, body={}))

    assert [key(request) for request in collector.proxied] == [{KEY}]
    assert key(provider.requests[-1]) == {"sk-other"}


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])
async def test_credentials_that_a_copy_is_given_are_for_the_provider(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, tmp_path: Path
) -> None:
    """Of whatever kind: the proxy knows the WhyOps key only."""
    if "config" not in inspect.signature(kind.copy).parameters:
        pytest.skip("this version has no such credentials")
    token = tmp_path / "token.json"
    token.write_text('{"version":"1.0","type":"oauth_token","access_token":"t","expires_at":4102444800}')
    token.chmod(0o600)
    config = {"authentication": {"type": "user_oauth", "credentials_path": str(token)}}
    async with connected(sdk, kind, provider) as made:
        await ask(made.with_options(config=config))

    assert [key(request) for request in collector.proxied] == [{KEY}]


@KINDS
async def test_a_copy_with_another_address_goes_there(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """Past the proxy, with the client's own key; the turn is reported from here, and that is said once."""
    with Provider() as elsewhere:
        url = elsewhere.openai_url if is_openai(kind) else elsewhere.anthropic_url
        async with connected(sdk, kind, provider) as made:
            with sdk.trace("checkout-8841"):
                await ask(made.with_options(base_url=url), "One.")
                await ask(made.with_options(base_url=url), "Two.")
        asked = len(elsewhere.requests)
    (warning,) = said()
    tally = sdk.flush_sync(30.0)["whyops"]

    assert (asked, collector.proxied, provider.requests) == (2, [], [])
    assert "proxy_base_url" in warning
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"] * 2
    assert tally.delivered == 4


@ANTHROPIC
async def test_a_token_is_not_sent_to_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """A server reads it before the key; the provider still gets it."""
    made = kind(auth_token="token", base_url=provider.anthropic_url, max_retries=0)
    through = traced(sdk, made)
    await ask(through)
    await ask(through.with_options(timeout=20.0))
    with pytest.raises(NOT_FOUND):
        await got(through.post("/something", cast_to=object, body={}))
    await got(made.close())

    assert [key(request) for request in collector.proxied] == [{KEY}, {KEY}]
    assert key(provider.requests[-1]) == {"token"}


# Clients and traces that the proxy cannot serve


@KINDS
@pytest.mark.parametrize("trace_id", ["Kasse-ü", "two\nlines", " spaces "])
async def test_a_trace_id_that_is_no_header_goes_past_the_proxy(
    sdk: WhyOps,
    collector: Collector,
    provider: Provider,
    kind: Any,
    trace_id: str,
    said: Callable[[], list[str]],
) -> None:
    """Its turns are reported from here, once, under that id; the next trace goes through the proxy again."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace(trace_id):
            await ask(made, "One.")
            await ask(made, "Two.")
        with sdk.trace("checkout-8841"):
            await ask(made, "Three.")
    (warning,) = said()
    sdk.flush_sync(30.0)

    assert repr(trace_id) in warning
    assert [headers(request)[1] for request in collector.proxied] == ["checkout-8841"]
    assert types(collector.trace(trace_id)) == ["user_message", "llm_response"] * 2


@KINDS
async def test_a_user_that_is_no_header_is_not_told_to_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The request goes through it all the same."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841", external_user_id="Jürgen"):
            await ask(made)

    assert [headers(request) for request in collector.proxied] == [
        ["shop", "checkout-8841", "checkout-8841", None]
    ]


@KINDS
async def test_an_agent_whose_name_is_no_header_goes_past_the_proxy(
    collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """That is said when the client is made, and the turns are reported from here."""
    sdk = agent(collector, provider, agent_name="Käseladen")
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await ask(made)
    (warning,) = said()
    sdk.flush_sync(30.0)

    assert "'Käseladen'" in warning
    assert collector.proxied == []
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]


@pytest.mark.parametrize("kind", [openai.AzureOpenAI, openai.AsyncAzureOpenAI])
async def test_a_client_of_azure_goes_past_the_proxy(
    sdk: WhyOps,
    collector: Collector,
    provider: Provider,
    kind: Any,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
) -> None:
    """The proxy serves none; what fails there is reported from here."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-06-01")  # for copies that the oldest package makes
    made = kind(api_key="azure", api_version="2024-06-01", azure_endpoint=provider.root, max_retries=0)
    with sdk.trace("checkout-8841"), pytest.raises(openai.NotFoundError):
        await got(traced(sdk, made).chat.completions.create(**CHAT))
    await got(made.close())
    (warning,) = said()
    sdk.flush_sync(30.0)
    rows = collector.trace("checkout-8841")

    assert kind.__name__ in warning
    assert collector.proxied == []
    assert provider.requests[0].path == "/openai/deployments/gpt-4o/chat/completions"
    assert types(rows) == ["user_message", "error"]
    assert rows[1]["metadata"]["provider"] == "azure"


@KINDS
async def test_a_client_may_be_kept_from_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """With ``proxy=False`` the server gets each turn once, from here."""
    async with client(kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await ask(traced(sdk, made, proxy=False))
    sdk.flush_sync(30.0)

    assert collector.proxied == []
    assert headers(provider.requests[0]) == [None] * 4
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]


@KINDS
@pytest.mark.parametrize("options", [{"api_key": None}, {"tracing": "local"}, {"tracing": "off"}])
async def test_a_client_cannot_be_sent_to_a_proxy_without_a_key(
    collector: Collector, provider: Provider, kind: Any, options: dict[str, Any]
) -> None:
    """Or where nothing may leave the machine; the error says what is missing, and without the wish it goes directly."""
    sdk = agent(collector, provider, **options)
    async with client(kind, provider) as made:
        with pytest.raises(ConfigurationError, match="api_key"):
            traced(sdk, made, proxy=True)
        await ask(traced(sdk, made))

    assert (len(provider.requests), collector.requests) == (1, [])


@KINDS
async def test_a_traced_client_is_traced_once(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """However often it is handed over."""
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"):
            await ask(traced(sdk, traced(sdk, made)))

    assert len(collector.proxied) == 1
    assert types(kept(sdk, "checkout-8841")) == ["user_message", "llm_response"]


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
async def test_a_key_that_a_function_gives_is_for_the_provider(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The proxy gets the WhyOps key, and the function is not asked for it."""
    if not hasattr(kind, "_refresh_api_key"):
        pytest.skip(f"{kind.__name__} takes no function in this version.")
    asked = []

    def give() -> str:
        asked.append(1)
        return provider.openai_key

    async def agive() -> str:
        return give()

    made = kind(
        api_key=agive if kind is openai.AsyncOpenAI else give, base_url=provider.openai_url, max_retries=0
    )
    through = traced(sdk, made)
    await ask(through)
    untouched = list(asked)
    with pytest.raises(openai.NotFoundError):
        await got(through.post("/something", cast_to=object, body={}))
    await got(made.close())

    assert (untouched, asked) == ([], [1])
    assert [key(request) for request in collector.proxied] == [{KEY}]
    assert key(provider.requests[-1]) == {provider.openai_key}


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
@pytest.mark.anyio
@pytest.mark.asyncio_only
async def test_a_trace_of_nothing_but_proxied_turns_keeps_none_of_them(
    collector: Collector, provider: Provider, kind: Any
) -> None:
    """A function around each turn holds its request back until the turn is over, and no longer."""
    sdk = agent(collector, provider)
    async with connected(sdk, kind, provider) as made:

        @traced_llm
        async def turn(text: str) -> Any:
            return await ask(made, text)

        with sdk.trace("checkout-1"):
            for number in range(3):
                await turn(f"Charge me {number}.")

            gate = sdk.trace("checkout-1")._state.gate
            assert gate is not None
            assert gate.held_requests == []
    sdk.close_sync()
