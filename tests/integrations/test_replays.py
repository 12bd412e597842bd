"""Agents of frameworks in a replay: their own loops run on a traced client, and decorated functions do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from packages import openai
from provider import Provider
from replies import Reply, ToolCall
from wire import Request

from whyops_trace import WhyOps, trace, traced_tool
from whyops_trace.replay import replay
from whyops_trace.testing import capture_events

pytestmark = [pytest.mark.asyncio_only, pytest.mark.anyio]

QUESTION = "Is Oslo or Rome warmer?"
CITIES = ("Oslo", "Rome")
#: The cities that were looked up.
ran: list[str] = []


@traced_tool
def look_up(city: str) -> dict[str, Any]:
    """Return the weather of a city."""
    ran.append(city)
    return {"city": city, "degrees": {"Oslo": 3}.get(city, 21)}


def script(request: Request) -> Reply:
    """Ask for the weather of each city, then answer."""
    said = request.json.get("messages") or request.json.get("input")
    messages = said if isinstance(said, list) else []
    results = sum(
        each.get("role") == "tool" or each.get("type") == "function_call_output" for each in messages
    )
    if results < len(CITIES):
        return Reply(tool_calls=(ToolCall("weather", {"city": CITIES[results]}, f"call_{results}"),))
    return Reply("Rome is.")


async def agents(client: Any) -> str:
    """Run an agent of the OpenAI Agents SDK."""
    framework = pytest.importorskip("agents")

    @framework.function_tool
    def weather(city: str) -> dict[str, Any]:
        """Return the weather of a city."""
        return look_up(city)

    model = framework.OpenAIResponsesModel("gpt-4o", openai_client=client)
    agent = framework.Agent(name="clerk", instructions="Be brief.", tools=[weather], model=model)
    result = await framework.Runner.run(agent, QUESTION)
    return str(result.final_output)


async def agents_streamed(client: Any) -> str:
    """Run one whose answers are streamed."""
    framework = pytest.importorskip("agents")

    @framework.function_tool
    def weather(city: str) -> dict[str, Any]:
        """Return the weather of a city."""
        return look_up(city)

    model = framework.OpenAIResponsesModel("gpt-4o", openai_client=client)
    agent = framework.Agent(name="clerk", instructions="Be brief.", tools=[weather], model=model)
    result = framework.Runner.run_streamed(agent, QUESTION)
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


async def langchain(client: Any) -> str:
    """Run an agent of LangChain, which is a graph of LangGraph."""
    models, tools = pytest.importorskip("langchain_openai"), pytest.importorskip("langchain_core.tools")
    framework = pytest.importorskip("langchain.agents")

    @tools.tool
    async def weather(city: str) -> dict[str, Any]:
        """Return the weather of a city."""
        return look_up(city)

    model = models.ChatOpenAI(
        model="gpt-4o", async_client=client.chat.completions, root_async_client=client, api_key="k"
    )
    agent = framework.create_agent(model, [weather], system_prompt="Be brief.")
    result = await agent.ainvoke({"messages": [("user", QUESTION)]})
    return str(result["messages"][-1].content)


@pytest.mark.parametrize("run", [agents, agents_streamed, langchain])
async def test_an_agent_of_a_framework_is_replayed(
    run: Callable[[Any], Any], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says the same with no provider there, and looks nothing up."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    provider.script = script
    ran.clear()
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key=provider.openai_key) as made:
        client = WhyOps(agent_name="clerk").openai(made)
        with capture_events(local=True) as recorded, trace("t"):
            first = await run(client)
        assert ran == [*CITIES]
        provider.stop()
        with replay(recorded, store=False) as replayed, trace("t"):
            second = await run(client)

    assert first == second == "Rome is."
    assert ran == [*CITIES]
    assert (replayed.drift, replayed.unused) == ([], [])
