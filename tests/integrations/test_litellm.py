"""LiteLLM runs for real, against a provider of the tests; its calls make turns."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from integrations import shown
from integrations.chat import WHY
from programs import stored
from provider import Provider
from replies import Failure, Reply, ToolCall, Usage

from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import litellm

# LiteLLM would ask a server for prices when it is imported, warns about types of its own, and closes no client.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
pytestmark = pytest.mark.filterwarnings("ignore")
real: Any = pytest.importorskip("litellm", reason=WHY)

HELLO = [{"role": "user", "content": "1 + 2?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
ASKS = Reply(tool_calls=(ToolCall("add", {"a": 1}, "c1"),))

ways = pytest.mark.parametrize("way", ["completion", "acompletion"])
streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect the loop and the clients that LiteLLM leaves open, while nobody minds."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.set_event_loop(None)
        gc.collect()


@pytest.fixture
def sdk(client: WhyOps) -> Iterator[WhyOps]:
    """A client that records everything that runs."""
    with litellm.attach(client):
        yield client


@traced_tool
def add(a: int) -> int:
    """Add one and another."""
    return a + 2


def ask(provider: Provider, way: str, *, stream: bool = False, then: Any = None, **options: Any) -> Any:
    """Ask the provider in one of the ways that there are, do something right after, and return the answer."""
    about = {"api_base": provider.openai_url, "api_key": provider.openai_key, "num_retries": 0, **options}
    if stream:
        about |= {"stream": True, "stream_options": {"include_usage": True}}

    async def main() -> Any:
        answer = await real.acompletion("openai/gpt-4o", HELLO, **about)
        items = [item async for item in answer] if stream else answer
        if then is not None:
            then()
        return items

    if way == "acompletion":
        return asyncio.run(main())
    answer = real.completion("openai/gpt-4o", HELLO, **about)
    items = list(answer) if stream else answer
    if then is not None:
        then()
    return items


@ways
@streams
def test_a_turn_is_there_before_the_tool_that_it_asks_for(
    sdk: WhyOps, provider: Provider, home: Path, way: str, stream: bool
) -> None:
    """With messages, tools, parameters, tokens and the id of the answer."""
    provider.reply(ASKS)
    with sdk.trace("t"):
        ask(provider, way, stream=stream, then=lambda: add(1), tools=TOOLS, temperature=0.5)
    sdk.close_sync()

    assert shown.lines(home) == [f"{way} gpt-4o 12/5 -> add", "add(a=1) -> 3 asked"]
    asked, answered, *_ = stored(home, "t")
    assert asked["content"]["messages"] == HELLO
    assert asked["metadata"]["tools"] == TOOLS
    assert asked["metadata"]["params"]["temperature"] == 0.5
    assert None not in asked["metadata"]["params"].values()
    assert provider.openai_key not in str(asked)
    assert answered["metadata"]["responseId"].startswith("chatcmpl-")
    assert (answered["metadata"]["provider"], answered["metadata"]["model"]) == ("openai", "gpt-4o")


@ways
@streams
def test_cached_tokens_are_told_apart(
    sdk: WhyOps, provider: Provider, home: Path, way: str, stream: bool
) -> None:
    """They are not among those of the prompt."""
    provider.reply(Reply("3.", usage=Usage(fresh=12, cached=100)))
    with sdk.trace("t"):
        ask(provider, way, stream=stream)
    sdk.close_sync()

    (answered,) = [event for event in stored(home, "t") if event["eventType"] == "llm_response"]
    assert answered["content"]["content"] == "3."
    usage = answered["metadata"]["usage"]
    assert (usage["promptTokens"], usage["cacheReadTokens"], usage["completionTokens"]) == (12, 100, 5)


@ways
@streams
def test_a_failure_is_the_end_of_its_turn(
    sdk: WhyOps, provider: Provider, home: Path, way: str, stream: bool
) -> None:
    """The caller gets the exception that LiteLLM raises."""
    provider.reply(Failure(429))
    with sdk.trace("t"), pytest.raises(real.RateLimitError):
        ask(provider, way, stream=stream)
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.errors, tree.running) == (1, 1, 0)
    (error,) = [event for event in stored(home, "t") if event["eventType"] == "error"]
    assert error["content"]["status"] == 429
    assert error["metadata"]["provider"] == "openai"


@ways
def test_a_stream_stays_what_it_is(sdk: WhyOps, provider: Provider, home: Path, way: str) -> None:
    """It is of LiteLLM's class; one that is left early is recorded as far as it came."""
    provider.reply(Reply("one two three"))
    about: Any = {"api_base": provider.openai_url, "api_key": provider.openai_key, "stream": True}

    async def main() -> Any:
        answer = await real.acompletion("openai/gpt-4o", HELLO, **about)
        await anext(answer)
        return answer

    def plain() -> Any:
        answer = real.completion("openai/gpt-4o", HELLO, **about)
        next(answer)
        return answer

    with sdk.trace("t"):
        answer = asyncio.run(main()) if way == "acompletion" else plain()
        assert isinstance(answer, real.CustomStreamWrapper)
        del answer
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.errors, tree.running) == (1, 0, 0)


@pytest.mark.parametrize("way", ["embedding", "aembedding"])
def test_an_embedding_is_recorded(sdk: WhyOps, provider: Provider, home: Path, way: str) -> None:
    """With its texts, the number of vectors and tokens."""
    about = {"input": ["a"], "api_base": provider.openai_url, "api_key": provider.openai_key}
    with sdk.trace("t"):
        if way == "embedding":
            real.embedding("openai/text-embedding-3-small", **about)
        else:
            asyncio.run(real.aembedding("openai/text-embedding-3-small", **about))
    sdk.close_sync()

    asked, answered, *_ = stored(home, "t")
    assert asked["content"]["input"] == ["a"]
    assert answered["content"]["embeddingCount"] == 1
    assert (answered["metadata"]["provider"], answered["metadata"]["usage"]["promptTokens"]) == ("openai", 12)


@ways
def test_a_turn_inside_that_of_a_framework_counts_once(
    sdk: WhyOps, provider: Provider, home: Path, way: str
) -> None:
    """The framework's stands around it, and its tokens are those of LiteLLM."""
    with sdk.trace("t") as trace:
        turn = trace.start_llm_call("gpt-4o", "openai", HELLO)
        with turn.current():
            answer = ask(provider, way)
        turn.end(answer.model_dump())
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tokens.total) == (1, 17)


@streams
def test_a_traced_client_under_it_makes_one_turn(
    sdk: WhyOps, provider: Provider, home: Path, stream: bool
) -> None:
    """Its tokens count once, and the tool knows its turn."""
    provider.reply(ASKS)
    with openai.OpenAI(base_url=provider.openai_url, api_key=provider.openai_key) as plain, sdk.trace("t"):
        ask(provider, "completion", stream=stream, then=lambda: add(1), client=sdk.openai(plain), tools=TOOLS)
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tokens.total) == (1, 17)
    assert shown.lines(home)[-1] == "add(a=1) -> 3 asked"


def test_a_call_outside_any_trace_makes_one(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """It ends with the call."""
    ask(provider, "completion")
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.running) == (1, 0)


def test_a_client_traces_litellm_as_its_own(client: WhyOps, home: Path) -> None:
    """What runs outside any trace is this client's, until it is detached."""
    with client.litellm():
        real.completion("openai/gpt-4o", HELLO, mock_response="3.")
    real.completion("openai/gpt-4o", HELLO, mock_response="4.")
    client.close_sync()

    (tree,) = shown.trees(home)
    assert tree.llm_responses == 1


@pytest.mark.parametrize(
    ("model", "provider_name"),
    [
        ("anthropic/claude-x", "anthropic"),
        ("claude-sonnet-4-5", "anthropic"),
        ("vertex_ai/gemini-x", "google"),
        ("bedrock/anthropic.claude-x", "aws"),
        ("gpt-4o", "openai"),
        ("xai/grok-x", "x-ai"),
    ],
)
def test_the_provider_is_the_one_that_litellm_asks(
    sdk: WhyOps, home: Path, model: str, provider_name: str
) -> None:
    """It is under the name by which prices are known, though every answer has the form of OpenAI's."""
    with sdk.trace("t"):
        real.completion(model, HELLO, mock_response="3.")
    sdk.close_sync()

    assert stored(home, "t")[1]["metadata"]["provider"] == provider_name


def test_detaching_leaves_the_functions_as_they_were(client: WhyOps, provider: Provider, home: Path) -> None:
    """Whoever kept one that was replaced has one that records nothing."""
    plain = real.completion, real.acompletion, real.embedding, real.aembedding
    attachment = litellm.attach(client)
    kept = real.completion
    with litellm.attach(client):
        assert real.completion is kept
    attachment.detach()

    assert (real.completion, real.acompletion, real.embedding, real.aembedding) == plain
    kept("openai/gpt-4o", HELLO, mock_response="3.")
    client.close_sync()
    assert shown.trees(home) == []
