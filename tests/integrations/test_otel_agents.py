"""Spans that tell at their end what they were, or that repeat what others told, recorded as they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integrations.shown import lines, nodes

from whyops_trace import WhyOps, otel

sdk: Any = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra [otel] installs it")

COUNTS = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7}
TURN = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5", **COUNTS}


def asks(name: str) -> dict[str, Any]:
    """Return the attributes of a turn that asks for a tool."""
    call = {"type": "tool_call", "id": "call_1", "name": name, "arguments": {"task": "How deep?"}}
    return {**TURN, "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [call]}])}


@pytest.fixture
def spans(client: WhyOps) -> Iterator[Callable[..., Any]]:
    """A function that starts a span of some scope."""
    provider = sdk.TracerProvider()
    provider.add_span_processor(otel.WhyOpsSpanProcessor(client))
    yield lambda name, scope="app", **about: provider.get_tracer(scope).start_as_current_span(name, **about)
    provider.shutdown()


@pytest.fixture
def shown(client: WhyOps, home: Path) -> Callable[[], list[str]]:
    """The lines of all that was recorded."""

    def shown() -> list[str]:
        client.flush_sync()
        return lines(home)

    return shown


def test_a_span_that_counts_the_tokens_of_a_turn_once_more_is_none(spans: Any, shown: Any) -> None:
    """AG2 makes one behind each turn."""
    with spans("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
        with spans("chat", attributes=asks("depth")):
            pass
        with spans("usage", attributes={"ag2.span.type": "usage", "ag2.usage.kind": "turn", **COUNTS}):
            pass

    assert [line for line in shown() if "100/7" in line] == ["  gpt-5  100/7 -> depth"]


def test_a_span_may_tell_at_its_end_that_it_was_an_agent(spans: Any, shown: Any) -> None:
    """And what its name is; OpenInference tells both at last."""
    with spans("graph") as root:
        with spans("chat", attributes=TURN):
            pass
        root.set_attributes({"openinference.span.kind": "AGENT", "agent.name": "guide"})

    assert shown() == ["agent guide", "  gpt-5  100/7 -> …"]


def test_an_agent_that_was_asked_for_as_a_tool_names_the_turn(spans: Any, shown: Any, home: Path) -> None:
    """If no span is there for the call."""
    guide = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"}
    with spans("desk", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "desk"}):
        with spans("chat", attributes=asks("guide")):
            pass
        with spans("invoke_agent", attributes=guide):
            pass
    shown()

    assert [node.name for node in nodes(home) if node.asked_by is not None] == ["agent guide"]


def test_a_tool_that_tells_what_it_is_at_its_end_alone_is_one_call(
    spans: Any, shown: Any, home: Path
) -> None:
    """Of ADK's spans of tools the name alone is there while an agent runs inside."""
    told = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "guide",
        "gen_ai.tool.call.id": "call_1",
    }
    with spans("desk", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "desk"}):
        with spans("chat", attributes=asks("guide")):
            pass
        with spans("execute_tool guide", "gcp.vertex.agent") as tool:
            with spans("invoke_agent guide", attributes={"gen_ai.operation.name": "invoke_agent"}):
                pass
            tool.set_attributes(told)

    assert [line.strip() for line in shown()] == [
        "agent desk", "gpt-5  100/7 -> guide", 'guide(task="How deep?") -> … asked', "agent guide"
    ]  # fmt: skip
    assert [node.name for node in nodes(home) if node.asked_by is not None] == ["guide"]


def test_an_agent_without_a_name_has_that_of_the_tool_that_it_is(spans: Any, shown: Any) -> None:
    """Agents of Haystack have none of their own."""
    call = {"haystack.tool.name": "guide", "haystack.agent.step.tool.input": "{}"}
    with spans("haystack.agent.step.tool", attributes=call), spans("haystack.agent.run"):
        pass

    assert shown()[-1] == "  agent guide"


def test_the_steps_of_an_agent_that_is_a_workflow_are_folded(spans: Any, shown: Any) -> None:
    """They are LlamaIndex's own, and tell the name of the agent."""
    scope = "openinference.instrumentation.llama_index"
    about = {"openinference.span.kind": "CHAIN"}
    told = {**about, "input.value": "AgentSetup(input=[], current_agent_name='guide')"}
    with spans("FunctionAgent.run", scope, attributes=about):
        with spans("BaseWorkflowAgent.run_agent_step", scope, attributes=told):
            with spans("chat", attributes=TURN):
                pass

    assert shown() == ["agent guide", "  gpt-5  100/7 -> …"]


def test_a_tool_may_be_named_with_capitals_and_blanks(spans: Any, shown: Any) -> None:
    """Models know the tools of CrewAI under plainer names."""
    call = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "Ask a guide",
        "gen_ai.tool.call.arguments": json.dumps({"task": "How deep?"}),
    }
    with spans("desk", attributes={"gen_ai.operation.name": "invoke_agent"}):
        with spans("chat", attributes=asks("ask_a_guide")):
            pass
        with spans("execute_tool", attributes=call):
            pass

    assert shown()[-1].endswith("asked")
