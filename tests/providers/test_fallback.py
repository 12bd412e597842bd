"""What becomes of a request when the WhyOps proxy is down or refuses: the package's own error, or the provider."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collector import Close, Collector, Fault, Hang, Reset
from hybrid import KINDS, agent, answered, ask, connected, is_openai, kept, traced, types
from packages import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    LOST,
    OPENAI,
    anthropic,
    client,
    entered,
    got,
    items,
    method,
    openai,
)
from programs import NOWHERE
from provider import Provider
from replies import Cut
from serving import sent
from wire import Answer, Request

from whyops_trace import WhyOps
from whyops_trace.providers import _link

HEADERS = ("X-Agent-Name", "X-Trace-ID", "X-Thread-ID", "X-External-User-Id")
CONNECTION = (openai.APIConnectionError, anthropic.APIConnectionError)
STATUS = (openai.APIStatusError, anthropic.APIStatusError)
LIMITS = (openai.RateLimitError, anthropic.RateLimitError)
PATHS = ("/v1/chat/completions", "/v1/messages")
LIMITED = Answer(
    429,
    {"error": "Rate limit exceeded", "message": "Too many requests.", "retryAfter": "2026-11-21T22:31:00Z"},
)
#: What the proxy, or what stands before it, says where the provider could still answer.
REFUSALS: dict[str, Fault] = {
    "unauthorized": Answer(401, {"error": "Unauthorized: Authentication required"}),
    "limited": LIMITED,
    "no provider": Answer(400, {"error": "No provider configured for this API key."}),
    "not found": Answer(404, {"error": "Not Found"}),
    "broken": Answer(500, {"error": "fetch failed"}),
    "load balancer": Answer(502, "<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"),
    "restarting": Answer(503, "Service Unavailable", content_type="text/plain"),
    "closed": Close(),
    "reset": Reset(),
}
pytestmark = [pytest.mark.anyio, pytest.mark.asyncio_only]


def proxy_meets(collector: Collector, fault: Fault | None) -> None:
    """Have requests to models meet a fault; those that bring events are answered as ever."""
    collector.script = lambda request: fault if request.path in PATHS else None


def asked(of: Collector | Provider) -> list[Request]:
    """The requests to models that somebody got."""
    return [request for request in of.requests if request.path in PATHS]


def told(error: Any) -> tuple[Any, ...]:
    """What an error of a package says."""
    return (type(error), str(error), getattr(error, "status_code", None), getattr(error, "body", None))


# Without a fallback


@KINDS
@pytest.mark.parametrize("why", REFUSALS)
async def test_an_error_of_the_proxy_s_is_the_package_s_own(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, why: str
) -> None:
    """As an untraced client raises it that goes through the proxy; the turn that failed is in the store."""
    proxy_meets(collector, REFUSALS[why])
    async with client(kind, collector, default_headers={"X-Agent-Name": "shop"}) as untraced:
        with pytest.raises((*CONNECTION, *STATUS)) as expected:
            await ask(untraced)
    async with connected(sdk, kind, provider) as made:
        with sdk.trace("checkout-8841"), pytest.raises((*CONNECTION, *STATUS)) as raised:
            await ask(made)
    request, error = kept(sdk, "checkout-8841")

    assert told(raised.value) == told(expected.value)
    assert (request["eventType"], error["eventType"]) == ("user_message", "error")
    assert error["content"].get("status") == getattr(raised.value, "status_code", None)
    assert asked(provider) == []
    assert list(sent(collector)) == []


@KINDS
async def test_a_proxy_that_is_down_is_told_by_the_package(
    collector: Collector, provider: Provider, kind: Any
) -> None:
    """Nobody asks the provider instead, nor holds the next request back from the proxy."""
    sdk = agent(collector, provider, proxy_base_url=NOWHERE)
    async with connected(sdk, kind, provider) as made:
        for _ in range(2):
            with sdk.trace("checkout-8841"), pytest.raises(LOST):
                await ask(made)

    assert types(kept(sdk, "checkout-8841")) == ["user_message", "error"] * 2
    assert provider.requests == []


@KINDS
@pytest.mark.parametrize("fallback", [False, True])
async def test_a_proxy_takes_a_limited_number_of_requests(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, fallback: bool
) -> None:
    """The package's own error says so; with a fallback there is none, and every turn is on the server once."""
    collector.rate_limit = 2
    async with connected(sdk, kind, provider, fallback=fallback) as made:
        with sdk.trace("checkout-8841"):
            for number in range(2):
                provider.say(f"Answer {number}.")
                await ask(made, f"Question {number}?")
            limited = contextlib.nullcontext() if fallback else pytest.raises(LIMITS)
            for number in range(2, 4):
                provider.say(f"Answer {number}.")
                with limited:
                    await ask(made, f"Question {number}?")
    sdk.flush_sync(30.0)
    answers = [row for row in collector.trace("checkout-8841") if row["eventType"] == "llm_response"]

    assert len(asked(collector)) == (3 if fallback else 4)
    assert len(answers) == len(asked(provider)) == (4 if fallback else 2)


@KINDS
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_an_error_of_the_provider_s_comes_through_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, status: int
) -> None:
    """As an untraced client of the provider raises it; the proxy reports it, and nobody else to the server."""
    provider.fail(status, message="Not now.")
    provider.fail(status, message="Not now.")
    async with client(kind, provider) as made:
        with pytest.raises(STATUS) as expected:
            await ask(made)
        with sdk.trace("checkout-8841"), pytest.raises(STATUS) as raised:
            await ask(traced(sdk, made))
    error = kept(sdk, "checkout-8841")[1]

    assert told(raised.value) == told(expected.value)
    assert error["content"]["status"] == status
    assert types(collector.trace("checkout-8841")) == ["user_message", "error"]
    assert list(sent(collector)) == []


@KINDS
async def test_an_error_passes_few_frames_of_ours(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """One for each method of the client's that is overridden on the way."""
    provider.fail(400)
    async with connected(sdk, kind, provider) as made:
        with pytest.raises(STATUS) as raised:
            await ask(made)
    ours = [entry for entry in raised.traceback if Path(str(entry.path)).parent.parent.name == "whyops_trace"]

    assert [entry.name for entry in ours] == ["request"]


# With one


@KINDS
@pytest.mark.parametrize("why", REFUSALS)
async def test_a_request_that_the_proxy_does_not_take_goes_to_the_provider(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, why: str, said: Callable[[], list[str]]
) -> None:
    """With the client's own key and none of our headers; the turn is reported from here, once, and that is said."""
    proxy_meets(collector, REFUSALS[why])
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841", external_user_id="user-1"):
            answer = await ask(made, "One.")
            await ask(made, "Two.")
    first, second = asked(provider)
    rows = collector.trace("checkout-8841") if sdk.flush_sync(30.0) else []
    (warning,) = said()

    assert answer.model_dump()["id"].endswith("1")
    assert len(asked(collector)) == 1  # the second request left the proxy alone
    for request in (first, second):
        keys = (request.headers.get("authorization", ""), request.headers.get("x-api-key", ""))
        own = provider.openai_key if is_openai(kind) else provider.anthropic_key
        assert own in {each.removeprefix("Bearer ") for each in keys}
        assert [request.headers.get(name) for name in HEADERS] == [None] * 4
    assert types(rows) == ["user_message", "llm_response"] * 2
    assert [row["content"]["messages"][0]["content"] for row in rows[::2]] == ["One.", "Two."]
    assert len(list(sent(collector))) == 4
    assert types(kept(sdk, "checkout-8841")) == types(rows)
    assert "WhyOps proxy failed" in warning


@KINDS
async def test_a_proxy_that_is_down_is_gone_round(
    collector: Collector, provider: Provider, kind: Any, said: Callable[[], list[str]]
) -> None:
    """Where nothing listens, though the server does."""
    sdk = agent(collector, provider, proxy_base_url=NOWHERE)
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            answer = await ask(made)
    sdk.flush_sync(30.0)

    assert answered(answer) == "Hello, how can I help?"
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]
    assert len(said()) == 1


@KINDS
async def test_a_proxy_that_failed_is_asked_again_after_a_while(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the turns are its to report again."""
    monkeypatch.setattr(_link, "COOL_DOWN", 0.0)
    proxy_meets(collector, LIMITED)
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            await ask(made, "One.")
            proxy_meets(collector, None)
            await ask(made, "Two.")
    sdk.flush_sync(30.0)
    rows = collector.trace("checkout-8841")

    assert len(asked(collector)) == 2
    assert types(rows) == ["user_message", "llm_response"] * 2
    assert [not str(row["metadata"]["idempotencyKey"]).startswith("hash_") for row in rows] == [
        True,
        True,
        False,
        False,
    ]


@KINDS
async def test_copies_of_a_client_leave_a_proxy_alone_together(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """Whichever of them it failed, before or after the copy was made."""
    proxy_meets(collector, LIMITED)
    async with connected(sdk, kind, provider, fallback=True) as made:
        before = made.with_options(timeout=20.0)
        await ask(made.with_options(timeout=20.0))
        for each in (made, before, made.with_options(timeout=20.0)):
            await ask(each)

    assert len(asked(collector)) == 1
    assert len(asked(provider)) == 4


@KINDS
async def test_other_clients_go_on_asking_the_proxy(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """What one client is refused says nothing of another one's requests."""
    proxy_meets(collector, LIMITED)
    async with connected(sdk, kind, provider, fallback=True) as made, connected(sdk, kind, provider) as other:
        await ask(made)
        with pytest.raises(STATUS):
            await ask(other)

    assert len(asked(collector)) == 2


@KINDS
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
async def test_what_the_provider_refuses_is_not_asked_again(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, status: int
) -> None:
    """Its error came through the proxy, so it would say the same; the next request goes through the proxy again."""
    provider.fail(status)
    async with connected(sdk, kind, provider, fallback=True) as made:
        with pytest.raises(STATUS) as raised:
            await ask(made)
        await ask(made)

    assert raised.value.status_code == status
    assert (len(asked(collector)), len(asked(provider))) == (2, 2)


@KINDS
async def test_a_request_that_gets_no_answer_in_time_is_not_made_again(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """It may have been taken."""
    proxy_meets(collector, Hang())
    async with connected(sdk, kind, provider, fallback=True) as made:
        with pytest.raises(LOST):
            await ask(made.with_options(timeout=0.2))

    assert (len(asked(collector)), asked(provider)) == (1, [])


@KINDS
async def test_the_package_makes_its_own_tries_before(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """All of them are one turn, and so is the one without the proxy."""
    hurried = {"retry-after-ms": "1"}
    proxy_meets(collector, Answer(503, "Service Unavailable", hurried, content_type="text/plain"))
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            await ask(made.with_options(max_retries=2))
    sdk.flush_sync(30.0)

    assert (len(asked(collector)), len(asked(provider))) == (3, 1)
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]


@KINDS
async def test_a_provider_that_fails_as_well_raises_its_own_error(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """The last error is the one that counts, and is reported from here."""
    proxy_meets(collector, LIMITED)
    provider.fail(529, message="Overloaded.")
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"), pytest.raises(STATUS, match="Overloaded") as raised:
            await ask(made)
    sdk.flush_sync(30.0)
    rows = collector.trace("checkout-8841")

    assert raised.value.status_code == 529
    assert types(rows) == ["user_message", "error"]
    assert rows[1]["content"]["status"] == 529


@KINDS
@pytest.mark.parametrize("why", ["limited", "reset"])
async def test_a_stream_falls_back_before_it_begins(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any, why: str
) -> None:
    """It is the provider's own, and its turn is reported from here when it has been read."""
    proxy_meets(collector, REFUSALS[why])
    provider.say("Sure thing.")
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            stream = await ask(made, stream=True)
            pieces = await items(stream)
    sdk.flush_sync(30.0)
    rows = collector.trace("checkout-8841")

    assert isinstance(stream, (openai.Stream, openai.AsyncStream, anthropic.Stream, anthropic.AsyncStream))
    assert len(pieces) > 2
    assert types(rows) == ["user_message", "llm_response"]
    assert rows[1]["content"]["content"] == "Sure thing."


@KINDS
async def test_a_stream_that_has_begun_does_not_fall_back(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """What broke off is raised, or ends, as without us, and is in the store with what came of it."""
    provider.say("Sure thing.", Cut(after=2))
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            with contextlib.suppress(*LOST):
                await items(await ask(made, stream=True))
    ended = kept(sdk, "checkout-8841")[1]

    assert len(asked(provider)) == 1
    assert ended["eventType"] in ("error", "llm_response")
    assert "Sure" in str(ended["content"])


@OPENAI
async def test_a_response_as_it_came_falls_back(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """``with_raw_response`` and ``with_streaming_response`` as well."""
    proxy_meets(collector, LIMITED)
    async with connected(sdk, kind, provider, fallback=True) as made:
        raw = await got(method(made, "chat.completions.with_raw_response.create")(**CHAT))
        async with entered(
            method(made, "chat.completions.with_streaming_response.create")(**CHAT)
        ) as response:
            parsed = await got(response.parse())

    assert answered(raw.parse()) == answered(parsed) == "Hello, how can I help?"


@ANTHROPIC
async def test_the_helper_of_a_stream_falls_back(
    sdk: WhyOps, collector: Collector, provider: Provider, kind: Any
) -> None:
    """``messages.stream()`` makes its request when it is entered."""
    proxy_meets(collector, LIMITED)
    async with connected(sdk, kind, provider, fallback=True) as made:
        with sdk.trace("checkout-8841"):
            async with entered(made.messages.stream(**CLAUDE)) as stream:
                message = await got(stream.get_final_message())
    sdk.flush_sync(30.0)

    assert answered(message) == "Hello, how can I help?"
    assert types(collector.trace("checkout-8841")) == ["user_message", "llm_response"]
