"""What the tests of LangChain and LangGraph share: a chat model that the provider answers, and the ways to run."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from provider import Provider
from replies import Reply, ToolCall

from whyops_trace import WhyOps, traced_tool

#: Reason to skip what needs a framework.
WHY = "the session `integrations` of nox installs it"
ASKS = Reply(tool_calls=(ToolCall("add", {"a": 1, "b": 2}, "c1"), ToolCall("add", {"a": 3, "b": 2}, "c2")))
HELLO: Any = {"messages": [("user", "What is 1 + 2, and 3 + 2?")]}
TURN = "ChatOpenAI gpt-4o 12/5"
#: The clients of the models that were made, which nobody else closes.
clients: list[Any] = []

ways = pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])


@traced_tool
def look(place: str) -> str:
    """Look somewhere."""
    return place


def model(provider: Provider, sdk: WhyOps | None = None, **options: Any) -> Any:
    """Return a chat model that the provider answers, through traced clients of a tracing client if one is given."""
    about: Any = {"base_url": provider.openai_url, "api_key": provider.openai_key, "max_retries": 0}
    chat = pytest.importorskip("langchain_openai", reason=WHY).ChatOpenAI
    made: list[Any] = [openai.OpenAI(**about), openai.AsyncOpenAI(**about)]
    clients.extend(made)
    plain, waiting = (sdk.openai(client) if sdk is not None else client for client in made)
    return chat(
        model="gpt-4o",
        api_key="unused",
        client=plain.chat.completions,
        async_client=waiting.chat.completions,
        **options,
    )


async def close() -> None:
    """Close the clients in the event loop that used them."""
    for client in clients:
        if isinstance(client, openai.AsyncOpenAI):
            await client.close()


def run(app: Any, question: Any, way: str, **config: Any) -> Any:
    """Run a graph in one of the ways that there are."""
    if way == "invoke":
        return app.invoke(question, config)
    if way == "stream":
        return list(app.stream(question, config, stream_mode=["messages", "values"]))

    async def main() -> Any:
        try:
            if way == "ainvoke":
                return await app.ainvoke(question, config)
            return [item async for item in app.astream(question, config, stream_mode=["messages", "values"])]
        finally:
            await close()

    return asyncio.run(main())


ways = pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
