"""The OpenAI Agents SDK runs for real; its spans and hooks make traces."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from integrations import shown
from integrations.chat import WHY, look
from programs import run as deliver
from programs import start_code, stored
from provider import Provider
from replies import Failure, Reply, ToolCall

from whyops_trace import AgentRunaway, WhyOps, otel, step
from whyops_trace.context import UNSETTLED
from whyops_trace.integrations import openai_agents

agents: Any = pytest.importorskip("agents", reason=WHY)

ASKS = Reply(tool_calls=(ToolCall("add", {"a": 1, "b": 2}, "c1"), ToolCall("add", {"a": 13, "b": 2}, "c2")))
OVER = Reply(tool_calls=(ToolCall("transfer_to_writer", {}, "c3"),))

#: The two APIs of OpenAI that the SDK speaks, with the name of a turn.
apis = pytest.mark.parametrize("api", ["generation", "response"])


@pytest.fixture(autouse=True)
def _alone(agents_alone: None) -> None:
    """Send nothing to OpenAI."""


@pytest.fixture
def sdk(client: WhyOps) -> Iterator[WhyOps]:
    """A client that records everything that runs."""
    with openai_agents.attach(client):
        yield client


class Shop:
    """
    Two agents with a tool, a handoff and a guardrail.

    Args:
        provider: What answers them.
        api: The API that they speak.
        sdk: A tracing client that traces their client as well, if any.
    """

    def __init__(self, provider: Provider, api: str, sdk: WhyOps | None = None) -> None:
        self.client = openai.AsyncOpenAI(
            base_url=provider.openai_url, api_key=provider.openai_key, max_retries=0
        )
        client = self.client if sdk is None else sdk.openai(self.client)
        kind = agents.OpenAIChatCompletionsModel if api == "generation" else agents.OpenAIResponsesModel
        self.model = kind("gpt-4o", client)

        @agents.function_tool
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            look(f"{a + b}")
            if a == 13:
                raise ValueError("unlucky")
            return a + b

        @agents.input_guardrail
        async def polite(context: Any, agent: Any, asked: Any) -> Any:
            look("guard")
            return agents.GuardrailFunctionOutput(output_info="", tripwire_triggered="rude" in str(asked))

        settings = agents.ModelSettings(temperature=0.5, include_usage=True)
        self.writer = agents.Agent(
            "writer", instructions="Write.", model=self.model, model_settings=settings, tools=[add]
        )
        self.clerk = agents.Agent(
            "clerk", instructions="Count.", model=self.model, model_settings=settings, tools=[add],
            handoffs=[self.writer], input_guardrails=[polite],
        )  # fmt: skip

    def run(self, use: Callable[[], Awaitable[Any]]) -> Any:
        """Run something, and close the client in the loop that used it."""

        async def main() -> Any:
            try:
                return await use()
            finally:
                await self.client.close()

        return asyncio.run(main())

    async def stream(self, agent: Any, asked: str, **options: Any) -> Any:
        """Run an agent with a stream, and look around while it is read."""
        result = agents.Runner.run_streamed(agent, asked, **options)
        async for event in result.stream_events():
            if getattr(getattr(event, "data", None), "type", "") == "response.completed":
                look("between")
        return result


def test_a_run_that_makes_spans_as_well_is_recorded_once(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """The spans of an instrumentation are left out while the adapter is attached."""
    spans: Any = pytest.importorskip("openinference.instrumentation.openai_agents", reason=WHY)
    traces: Any = pytest.importorskip("opentelemetry.sdk.trace", reason=WHY)
    makes_spans = traces.TracerProvider()
    makes_spans.add_span_processor(otel.WhyOpsSpanProcessor(sdk))
    instrumentor = spans.OpenAIAgentsInstrumentor()
    instrumentor.instrument(tracer_provider=makes_spans, exclusive_processor=False)
    provider.reply(ASKS, Reply("3."))
    shop = Shop(provider, "generation")
    try:
        with sdk.trace("t"):
            shop.run(lambda: agents.Runner.run(shop.writer, "1 + 2?"))
    finally:
        instrumentor.uninstrument()
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tokens.total, tree.running) == (2, 34, 0)
    assert [node.name for node in shown.nodes(home) if node.kind == "tool"] == ["add", "look", "add", "look"]


@apis
@pytest.mark.parametrize("traced", [False, True], ids=["plain client", "traced client"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_a_run_is_a_tree_with_everything_once(
    sdk: WhyOps, provider: Provider, home: Path, api: str, traced: bool, streams: bool
) -> None:
    """Agents, turns, tools with what they call, guardrails and handoffs; also with a traced client under it."""
    provider.reply(ASKS, OVER, Reply("3."))
    shop = Shop(provider, api, sdk if traced else None)
    use = shop.stream if streams else agents.Runner.run
    with sdk.trace("t"):
        result = shop.run(lambda: use(shop.clerk, "1 + 2?"))
        look("after")
    sdk.close_sync()

    assert result.final_output == "3."
    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tokens.total, tree.errors, tree.running) == (3, 51, 1, 0)
    inner = {"generation": "chat.completions", "response": "responses"}[api]
    lines = [
        line for line in shown.lines(home) if not line.strip().startswith((inner, 'look(place="between'))
    ]
    tokens = "" if traced else " 12/5"
    lines = [re.sub("Please try again.*(?= asked)", "...", line) for line in lines]
    error = "An error occurred while running the tool. ..."
    assert lines == [
        "Agent workflow",
        "  agent clerk",
        "    polite",
        '      look(place="guard") -> "guard"',
        f"    {api} gpt-4o{tokens} -> add, add",
        "    add(a=1, b=2) -> 3 asked",
        '      look(place="3") -> "3"',
        f"    add(a=13, b=2) -> {error} asked error",
        '      look(place="15") -> "15"',
        f"    {api} gpt-4o{tokens} -> transfer_to_writer",
        "    handoff writer",
        "  agent writer",
        f"    {api} gpt-4o{tokens} -> 3.",
        'look(place="after") -> "after"',
    ]
    assert UNSETTLED == {}


@apis
def test_each_call_tells_what_the_sdk_tells(sdk: WhyOps, provider: Provider, home: Path, api: str) -> None:
    """Messages, instructions, tools, parameters, ids, outputs, and how the run was called."""
    provider.reply(ASKS, Reply("3."))
    shop = Shop(provider, api)
    about = agents.RunConfig(workflow_name="count", group_id="chat-7", trace_metadata={"user": "Ann"})
    with sdk.trace("t"):
        shop.run(lambda: agents.Runner.run(shop.writer, "1 + 2?", run_config=about))
    sdk.close_sync()
    records = stored(home, "t")

    def named(kind: str) -> list[dict[str, Any]]:
        return [one for one in records if one["eventType"] == kind]

    asked = named("user_message")[0]
    assert asked["content"]["messages"] == [{"role": "user", "content": "1 + 2?"}]
    assert asked["metadata"]["systemPrompt"] == "Write."
    assert [each["name"] for each in asked["metadata"]["tools"]] == ["add"]
    assert asked["metadata"]["params"]["temperature"] == 0.5
    assert {
        (one["metadata"]["model"], one["metadata"]["usage"]["promptTokens"]) for one in named("llm_response")
    } == {("gpt-4o", 12)}
    calls = [one["metadata"].get("callId") for one in named("tool_call_request")]
    assert calls == ["c1", "c2", None, None]
    workflow, agent = (one["metadata"] for one in named("llm_thinking"))
    assert (workflow["step"], workflow["groupId"], workflow["user"]) == ("count", "chat-7", "Ann")
    assert (agent["step"], agent["kind"]) == ("writer", "agent")
    assert [one["content"]["output"] for one in named("step_end")] == ["3.", "3."]


@apis
def test_what_a_run_raises_is_its_failure(sdk: WhyOps, provider: Provider, home: Path, api: str) -> None:
    """That of a model, and that of a guardrail."""
    shop = Shop(provider, api)
    provider.reply(Failure(400, "too long"))

    async def main() -> None:
        with pytest.raises(openai.BadRequestError):
            await agents.Runner.run(shop.writer, "hi")
        with pytest.raises(agents.InputGuardrailTripwireTriggered):
            await agents.Runner.run(shop.clerk, "rude")
        try:
            raise KeyError("handled")
        except KeyError:
            await agents.Runner.run(shop.writer, "hi")  # what is handled outside is no failure of it

    shop.run(main)
    sdk.close_sync()

    assert [(node.name, node.status) for node in shown.nodes(home) if node.kind != "tool"][:6] == [
        ("Agent workflow", "error"),
        ("agent writer", "error"),
        (api, "error"),
        ("Agent workflow", "error"),
        ("agent clerk", "error"),
        ("polite", "ok"),
    ]
    last = shown.trees(home)[-1]
    assert (last.errors, last.llm_responses) == (0, 1)
    assert "BadRequestError" in shown.nodes(home)[2].error


@apis
def test_a_run_may_keep_its_data_out_of_traces(sdk: WhyOps, provider: Provider, home: Path, api: str) -> None:
    """Then names, times and tokens are left."""
    provider.reply(ASKS, Reply("secret"))
    shop = Shop(provider, api)
    private = agents.RunConfig(trace_include_sensitive_data=False)
    with sdk.trace("t"):
        shop.run(lambda: agents.Runner.run(shop.writer, "secret 13", run_config=private))
    sdk.close_sync()
    own = [one for one in stored(home, "t") if one["metadata"].get("tool") != "look"]

    assert not [one for one in own if "secret" in str(one) or "'a': 1" in str(one)]
    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tokens.total) == (2, 34)


def test_the_hooks_of_the_caller_are_called_as_without_ours(sdk: WhyOps, provider: Provider) -> None:
    """All of them, with the same arguments; what is no hook is refused by the SDK."""
    heard: list[str] = []

    class Hooks(agents.RunHooks):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            heard.append(f"agent {agent.name}")

        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            heard.append(f"end {output}")

        async def on_llm_start(self, context: Any, agent: Any, prompt: Any, items: Any) -> None:
            heard.append(f"asked {prompt}")

        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            heard.append(f"tool {tool.name}")

        async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
            heard.append(f"to {to_agent.name}")

    provider.reply(ASKS, OVER, Reply("3."))
    shop = Shop(provider, "response")

    async def main() -> None:
        await agents.Runner.run(shop.clerk, "1 + 2?", hooks=Hooks())
        with pytest.raises(TypeError, match="Run hooks must be"):
            await agents.Runner.run(shop.clerk, "1 + 2?", hooks="none")

    shop.run(main)

    assert heard == [
        "agent clerk", "asked Count.", "tool add", "tool add", "asked Count.", "to writer", "agent writer",
        "asked Write.", "end 3.",
    ]  # fmt: skip


def test_an_agent_that_is_a_tool_is_inside_the_call(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """Beside the steps and calls of code around the run."""
    provider.reply(
        Reply(tool_calls=(ToolCall("ask_writer", {"input": "hi"}, "c1"),)), Reply("inner"), Reply("outer")
    )
    shop = Shop(provider, "response")
    tool = shop.writer.as_tool("ask_writer", "Ask.")
    chief = agents.Agent("chief", model=shop.model, tools=[tool])

    async def main() -> Any:
        with sdk.trace("t"), agents.trace("job"), step("mine"):
            return await agents.Runner.run(chief, "hi")

    shop.run(main)
    sdk.close_sync()

    assert shown.lines(home) == [
        "job",
        "  mine",
        "    agent chief",
        "      response gpt-4o 12/5 -> ask_writer",
        '      ask_writer(input="hi") -> "inner" asked',
        "        agent writer",
        "          response gpt-4o 12/5 -> inner",
        "      response gpt-4o 12/5 -> outer",
    ]


@apis
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_a_limit_of_a_trace_stops_a_run(sdk: WhyOps, provider: Provider, api: str, streams: bool) -> None:
    """Before its next part, whichever that is; the stream of a run does not hang."""
    provider.default = ASKS
    shop = Shop(provider, api)
    use = shop.stream if streams else agents.Runner.run
    used: list[float] = []

    async def runs() -> None:
        for steps in range(2, 10):
            with pytest.raises(AgentRunaway) as caught, sdk.trace(max_steps=steps):
                await asyncio.wait_for(use(shop.writer, "1 + 2?", max_turns=20), 30)
            used.append(caught.value.used)

    shop.run(runs)

    assert used == [*range(2, 10)]


def test_spans_of_a_program_are_steps(sdk: WhyOps, home: Path) -> None:
    """With what they tell, and what runs in them."""
    with agents.trace("job"):
        with agents.custom_span("search", {"query": "tea"}):
            look("inside")
        with agents.tracing.mcp_tools_span(server="files", result=["read"]):
            pass
        with agents.generation_span(
            input=[{"role": "user", "content": "hi"}],
            output=[{"role": "assistant", "content": "Hello"}],
            model="m",
            usage={"input_tokens": 3, "output_tokens": 2},
        ):
            pass
        with agents.function_span("stock", input='{"item": 7}', output="none"):
            pass
    sdk.close_sync()

    assert shown.lines(home) == [
        "job",
        "  search",
        '    look(place="inside") -> "inside"',
        "  list tools of files",
        "  generation m 3/2 -> Hello",
        '  stock(item=7) -> "none"',
    ]


def test_nothing_is_recorded_once_it_is_detached(home: Path, provider: Provider) -> None:
    """And the runner is the one before."""
    before = agents.run.get_default_agent_runner()
    shop = Shop(provider, "response")
    with WhyOps(agent_name="a", home=home) as first, WhyOps(agent_name="b", home=home) as second:

        async def main() -> None:
            attached = openai_agents.attach(first)
            await agents.Runner.run(shop.writer, "hi")
            with openai_agents.attach(second):
                await agents.Runner.run(shop.writer, "hi")
            attached.detach()
            await agents.Runner.run(shop.writer, "hi")

        shop.run(main)

    assert sorted(tree.agent_name for tree in shown.trees(home)) == ["a", "b"]
    assert agents.run.get_default_agent_runner() is before


@pytest.mark.internal_errors
def test_a_mistake_of_ours_does_not_reach_the_sdk(
    sdk: WhyOps, provider: Provider, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """The run goes on, and it is said."""
    from whyops_trace.integrations import _openai_agents_processor
    from whyops_trace.integrations._runs import Runs

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Runs, "get", broken)
    monkeypatch.setattr(_openai_agents_processor.Hooks, "__init__", broken)
    provider.reply(ASKS, Reply("3."))
    shop = Shop(provider, "response")

    assert shop.run(lambda: agents.Runner.run(shop.writer, "1 + 2?")).final_output == "3."
    assert "Internal error while recording the begin of a span" in " ".join(said())


def test_a_kill_in_a_tool_leaves_its_arguments(home: Path, provider: Provider) -> None:
    """With the id that the model gave the call, and the turn that asked for it."""
    provider.reply(Reply(tool_calls=(ToolCall("die", {"parcel": 7}, "c1"),)))
    program = """
        import os, signal, warnings
        warnings.simplefilter("ignore")
        from agents import Agent, Runner, function_tool, set_trace_processors
        from whyops_trace import trace
        from whyops_trace.integrations import openai_agents

        @function_tool
        def die(parcel: int) -> str:
            "Die."
            os.kill(os.getpid(), signal.SIGKILL)

        set_trace_processors([])
        openai_agents.attach()
        with trace("t"):
            Runner.run_sync(Agent("clerk", model="gpt-4o", tools=[die]), "hi")
    """
    with start_code(program, home, **provider.environment) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    deliver("-m", "whyops_trace", "journal", "flush", home=home)

    (request,) = (one for one in stored(home, "t") if one["eventType"] == "tool_call_request")
    assert request["content"]["toolCalls"] == [{"name": "die", "arguments": {"parcel": 7}}]
    assert request["metadata"]["callId"] == "c1"
    assert [line.strip() for line in shown.lines(home) if "die(" in line] == [
        "die(parcel=7) ->  asked running"
    ]
