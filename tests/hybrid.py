"""How tests trace clients that go through a WhyOps proxy: the agent, its clients, what they ask and what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import serving
from collector import Collector
from packages import CHAT, CLAUDE, anthropic, client, got, openai
from programs import stored
from provider import Provider
from wire import Row

from whyops_trace import WhyOps

METADATA = {"systemPrompt": "You run the checkout.", "tools": []}
#: The classes of both packages.
KINDS = pytest.mark.parametrize(
    "kind", [openai.OpenAI, openai.AsyncOpenAI, anthropic.Anthropic, anthropic.AsyncAnthropic]
)


def agent(collector: Collector, provider: Provider | None, **options: Any) -> WhyOps:
    """An agent with a store and a key whose account has this provider; *server* is another server than the proxy's."""
    collector.upstream = provider
    options = {"agent_metadata": METADATA, "store": True, "proxy_base_url": collector.proxy_url, **options}
    return serving.client(options.pop("server", collector), **options)


def is_openai(kind: Any) -> bool:
    """Tell whether a class is one of OpenAI's package."""
    return issubclass(kind, openai.OpenAI | openai.AsyncOpenAI)


def traced(sdk: WhyOps, made: Any, **options: Any) -> Any:
    """The traced client that an agent makes of one of either package."""
    return (sdk.openai if is_openai(type(made)) else sdk.anthropic)(made, **options)


@contextlib.asynccontextmanager
async def connected(
    sdk: WhyOps, kind: Any, provider: Provider, *, fallback: bool = False, **options: Any
) -> AsyncIterator[Any]:
    """A client whose own address and key are the provider's, and which the agent traces."""
    async with client(kind, provider, **options) as made:
        yield traced(sdk, made, fallback=fallback)


async def ask(made: Any, text: str = "Charge me.", **more: Any) -> Any:
    """Ask a model something with a client of either package."""
    messages = [{"role": "user", "content": text}]
    if is_openai(type(made)):
        return await got(made.chat.completions.create(**{**CHAT, "messages": messages, **more}))
    return await got(made.messages.create(**{**CLAUDE, "messages": messages, **more}))


def answered(answer: Any) -> str:
    """What an answer of either package says."""
    return str(answer.choices[0].message.content if hasattr(answer, "choices") else answer.content[0].text)


def kept(sdk: WhyOps, trace_id: str) -> list[dict[str, Any]]:
    """The events of a trace in the agent's store, once everything is delivered."""
    sdk.flush_sync(30.0)
    records = stored(sdk.settings.home, trace_id)
    return [record for record in records if not record["eventType"].endswith("_end")]


def types(rows: list[Row]) -> list[str]:
    """The type of each row or record."""
    return [row["eventType"] for row in rows]
