"""Agents of frameworks in a replay: their own loops run on a traced client, and decorated functions do not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from packages import anthropic, openai
from provider import Provider
from replies import Reply, ToolCall
from wire import Request

from whyops_trace import WhyOps, trace, traced_tool
from whyops_trace.exceptions import ReplayMiss
from whyops_trace.integrations import langchain as langchain_adapter
from whyops_trace.integrations import openai_agents as agents_adapter
from whyops_trace.replay import Answer, replay
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


async def langchain(client: Any, *, question: str = QUESTION, streaming: bool = False) -> str:
    """Run an agent of LangChain, which is a graph of LangGraph."""
    models, tools = pytest.importorskip("langchain_openai"), pytest.importorskip("langchain_core.tools")
    framework = pytest.importorskip("langchain.agents")

    @tools.tool
    async def weather(city: str) -> dict[str, Any]:
        """Return the weather of a city."""
        return look_up(city)

    model = models.ChatOpenAI(
        model="gpt-4o",
        async_client=client.chat.completions,
        root_async_client=client,
        api_key="k",
        streaming=streaming,
    )
    agent = framework.create_agent(model, [weather], system_prompt="Be brief.")
    result = await agent.ainvoke({"messages": [("user", question)]})
    return str(result["messages"][-1].content)


@pytest.mark.parametrize("run", [agents, agents_streamed, langchain])
async def test_an_agent_of_a_framework_is_replayed(run: Callable[[Any], Any], provider: Provider) -> None:
    """It says the same with no provider there, and looks nothing up."""
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


async def langchain_streamed(client: Any) -> str:
    """Run one whose answers are streamed."""
    return await langchain(client, streaming=True)


async def messages(client: Any) -> str:
    """Ask a model of Anthropic's by its own package, in a turn of which callbacks tell."""
    chat = pytest.importorskip("langchain_core.language_models.chat_models")
    core = pytest.importorskip("langchain_core.messages")
    outputs = pytest.importorskip("langchain_core.outputs")

    class Claude(chat.BaseChatModel):  # type: ignore[name-defined]
        """A model of LangChain that stands on the client."""

        _llm_type = "claude"

        async def _agenerate(self, asked: Any, *_: Any, **__: Any) -> Any:
            said = [{"role": "user", "content": asked[0].content}]
            answer = await client.messages.create(model="claude-4", max_tokens=50, messages=said)
            message = core.AIMessage(
                answer.content[0].text,
                usage_metadata={
                    "input_tokens": answer.usage.input_tokens,
                    "output_tokens": answer.usage.output_tokens,
                    "total_tokens": answer.usage.input_tokens + answer.usage.output_tokens,
                },
            )
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=message)])

        def _generate(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    return str((await Claude().ainvoke(QUESTION)).content)


@pytest.fixture
async def untraced(provider: Provider, agents_alone: None) -> AsyncIterator[Any]:
    """Yield a client that nobody traces, below frameworks that are attached."""
    provider.script = script
    ran.clear()
    made = openai.AsyncOpenAI(base_url=provider.openai_url, api_key=provider.openai_key)
    async with made as client:
        with langchain_adapter.attach(), agents_adapter.attach():
            yield client


@pytest.mark.parametrize("run", [agents, agents_streamed, langchain, langchain_streamed])
async def test_an_agent_whose_client_is_not_traced_is_replayed_by_what_its_framework_told(
    run: Callable[[Any], Any], untraced: Any, provider: Provider
) -> None:
    """It says the same with no provider there, calls the same, and takes as many tokens."""
    with capture_events(local=True) as recorded, trace("t"):
        first = await run(untraced)
    provider.stop()
    with replay(recorded, store=False) as replayed, trace("t"):
        second = await run(untraced)

    assert first == second == "Rome is."
    assert ran == [*CITIES]
    assert (replayed.drift, replayed.unused) == ([], [])
    assert tokens(replayed.events) == tokens(recorded) != []
    replayed.matches_tree()


def tokens(events: list[dict[str, Any]]) -> list[Any]:
    """Return the tokens of each answer."""
    return [each["metadata"].get("usage") for each in events if each["eventType"] == "llm_response"]


async def test_a_model_of_anthropic_is_replayed_by_what_its_framework_told(provider: Provider) -> None:
    """Likewise by a client of that package."""
    pytest.importorskip("langchain_core")
    provider.script = lambda _: Reply("Rome is.")
    made = anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key=provider.anthropic_key)
    async with made as client:
        with langchain_adapter.attach():
            with capture_events(local=True) as recorded, trace("t"):
                first = await messages(client)
            provider.stop()
            with replay(recorded, store=False) as replayed, trace("t"):
                assert await messages(client) == first == "Rome is."
    assert tokens(replayed.events) == tokens(recorded) != []


async def test_another_question_of_such_an_agent_is_told(untraced: Any, provider: Provider) -> None:
    """As drift, of which a strict replay fails."""
    with capture_events(local=True) as recorded, trace("t"):
        await langchain(untraced)
    provider.stop()
    with pytest.raises(ReplayMiss, match=r"recorded \"Is Oslo or Rome warmer\?\", now \"And\?\""):
        with replay(recorded, store=False), trace("t"):
            await langchain(untraced, question="And?")
    with replay(recorded, store=False, normalise=lambda _: "") as replayed, trace("t"):
        await langchain(untraced, question="And?")

    assert replayed.drift == []


async def test_another_answer_of_such_a_model_is_tried(untraced: Any, provider: Provider) -> None:
    """By swap, by live, and from a step on."""
    with capture_events(local=True) as recorded, trace("t"):
        await langchain(untraced)
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Neither."}}]}
    with replay(recorded, store=False, match="first", swap={"ChatOpenAI": lambda _: answer}), trace("t"):
        assert await langchain(untraced) == "Neither."
    first = next(each["stepId"] for each in recorded if each["eventType"] == "user_message")
    with replay(recorded, store=False, until=first, answer=Answer(text="None.")), trace("t"):
        assert await langchain(untraced) == "None."
    asked = len(provider.requests)
    with replay(recorded, store=False, until=first) as replayed, trace("t"):
        assert await langchain(untraced) == "Rome is."
    with replay(recorded, store=False, live=["ChatOpenAI"]), trace("t"):
        assert await langchain(untraced) == "Rome is."

    assert replayed.live_from
    assert len(provider.requests) == asked + 6


async def test_a_model_that_cannot_be_answered_says_what_to_do() -> None:
    """It asks by a client of its own, of which the callbacks of its framework tell alone."""
    chat = pytest.importorskip("langchain_core.language_models.llms")
    provider = socket.create_server(("127.0.0.1", 0))

    class Own(chat.LLM):  # type: ignore[name-defined]
        """A model behind a socket."""

        _llm_type = "own"

        def _call(self, prompt: str, *_: Any, **__: Any) -> str:
            with socket.create_connection(provider.getsockname()):
                return "It is."

    with provider, langchain_adapter.attach():
        with capture_events(local=True) as recorded, trace("t"):
            Own().invoke("Is it?")
        with pytest.raises(ReplayMiss, match=r"Own asks its model by a client .*list 'Own' in live="):
            with replay(recorded, store=False), trace("t"):
                Own().invoke("Is it?")
        with replay(recorded, store=False, live=["Own"]), trace("t"):
            assert Own().invoke("Is it?") == "It is."
