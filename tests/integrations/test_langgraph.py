"""Graphs and agents of LangGraph run for real; their callbacks make traces."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import openai
import pytest
from integrations import shown
from integrations.chat import ASKS, HELLO, TURN, WHY, look, model, run, ways
from programs import run as deliver
from programs import start_code, stored
from provider import Provider
from replies import Failure, Reply, ToolCall

from whyops_trace import AgentRunaway, WhyOps
from whyops_trace.integrations import langchain

agents: Any = pytest.importorskip("langchain.agents", reason=WHY)
pytest.importorskip("langchain_openai", reason=WHY)
from langchain_core.messages import ToolMessage  # noqa: E402
from langchain_core.tools import InjectedToolCallId, tool  # noqa: E402
from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.graph import START, MessagesState, StateGraph  # noqa: E402
from langgraph.types import Command, interrupt  # noqa: E402


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return int(look(f"{a + b}"))


@tool
def fail(a: int) -> int:
    """Fail."""
    raise ValueError(f"{a} is unlucky")


@pytest.fixture
def sdk(client: WhyOps) -> Iterator[WhyOps]:
    """A client that records everything that runs."""
    with langchain.attach(client):
        yield client


@ways
def test_an_agent_is_a_tree_with_everything_once(
    sdk: WhyOps, provider: Provider, home: Path, way: str
) -> None:
    """Its nodes, its turns, and the tools with what they call, in each way to run it."""
    provider.reply(ASKS, Reply("3 and 5."))
    app = agents.create_agent(model(provider, stream_usage=True), [add], system_prompt="Count.", name="clerk")
    run(app, HELLO, way)
    sdk.close_sync()

    assert shown.lines(home) == [
        "agent clerk",
        "  model",
        f"    {TURN} -> add, add",
        "  tools",
        '    add(a=1, b=2) -> "3" asked',
        '      look(place="3") -> "3"',
        "  tools",
        '    add(a=3, b=2) -> "5" asked',
        '      look(place="5") -> "5"',
        "  model",
        f"    {TURN} -> 3 and 5.",
    ]


def test_each_call_tells_what_the_framework_tells(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """Messages by role, tools, parameters, ids and the place in the graph."""
    provider.reply(ASKS, Reply("3 and 5."))
    app = agents.create_agent(model(provider, temperature=0.5), [add], system_prompt="Count.", name="clerk")
    with sdk.trace("t"):
        app.invoke(HELLO, {"configurable": {"thread_id": "chat-7"}, "metadata": {"user": "Ann"}})
    sdk.close_sync()
    records = stored(home, "t")
    named = {kind: [one for one in records if one["eventType"] == kind] for kind in map(kind_of, records)}

    asked = named["user_message"][0]
    assert asked["content"]["messages"] == [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "What is 1 + 2, and 3 + 2?"},
    ]
    about = asked["metadata"]
    assert [each["function"]["name"] for each in about["tools"]] == ["add"]
    assert about["params"] == {"temperature": 0.5, "stream": False}
    answers = [one["metadata"] for one in named["llm_response"]]
    assert [(one["model"], one["provider"], one["responseId"][:9]) for one in answers] == [
        ("gpt-4o", "openai", "chatcmpl-")
    ] * 2
    calls = [one["metadata"]["callId"] for one in named["tool_call_request"] if "callId" in one["metadata"]]
    assert sorted(calls) == ["c1", "c2"]
    root, *nodes = [one["metadata"] for one in named["llm_thinking"]]
    assert (root["kind"], root["user"], root["thread_id"]) == ("agent", "Ann", "chat-7")
    assert [(one["langgraph_node"], one["langgraph_step"]) for one in nodes] == [
        ("model", 1),
        ("tools", 2),
        ("tools", 2),
        ("model", 3),
    ]


def kind_of(record: dict[str, Any]) -> str:
    return str(record["eventType"])


@ways
def test_a_traced_client_under_a_chat_model_makes_one_turn(
    sdk: WhyOps, provider: Provider, home: Path, way: str
) -> None:
    """The framework's call wraps it, and its tokens count once."""
    provider.reply(ASKS, Reply("3 and 5."))
    app = agents.create_agent(model(provider, sdk, stream_usage=True), [add], name="clerk")
    run(app, HELLO, way)
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tool_calls, tree.tokens.total) == (2, 4, 34)
    asked = [node.asked_by is not None for node in shown.nodes(home) if node.name == "add"]
    assert asked == [True, True]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_tool_that_fails_is_a_failure(sdk: WhyOps, provider: Provider, home: Path, way: str) -> None:
    """With the exception, which also ends the graph if nothing handles it."""
    provider.reply(Reply(tool_calls=(ToolCall("fail", {"a": 13}, "c1"),)))
    with pytest.raises(ValueError, match="unlucky"):
        run(agents.create_agent(model(provider), [fail], name="clerk"), HELLO, way)
    sdk.close_sync()

    assert shown.lines(home) == [
        "agent clerk error",
        "  model",
        f"    {TURN} -> fail",
        "  tools error",
        "    fail(a=13) -> ValueError: 13 is unlucky asked error",
    ]


def test_a_failure_that_is_handled_is_one_of_the_tool_alone(
    sdk: WhyOps, provider: Provider, home: Path
) -> None:
    """Whether it was raised, or the message for the model says so."""

    @tool
    def refuse(a: int) -> Any:
        """Refuse."""
        return ToolMessage(f"no {a}", tool_call_id="c2", status="error")

    careful = copy.copy(fail)
    careful.handle_tool_error = True
    provider.reply(
        Reply(tool_calls=(ToolCall("fail", {"a": 13}, "c1"),)),
        Reply(tool_calls=(ToolCall("refuse", {"a": 1}, "c2"),)),
        Reply("Sorry."),
    )

    @agents.middleware.wrap_tool_call
    def soft(request: Any, call: Callable[[Any], Any]) -> Any:
        try:
            return call(request)
        except ValueError as error:
            return ToolMessage(f"failed: {error}", tool_call_id=request.tool_call["id"], status="error")

    agents.create_agent(model(provider), [fail, refuse], middleware=[soft]).invoke(HELLO)
    sdk.close_sync()

    assert [(node.name, node.status, node.error) for node in shown.nodes(home) if node.status != "ok"] == [
        ("fail", "error", "ValueError: 13 is unlucky"),
        ("refuse", "error", "no 1"),
    ]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_model_that_fails_is_a_failure(sdk: WhyOps, provider: Provider, home: Path, way: str) -> None:
    """And what it was asked is there."""
    provider.reply(Failure(400, "too long"))
    with pytest.raises(openai.BadRequestError):
        run(agents.create_agent(model(provider), [add], name="clerk"), HELLO, way)
    sdk.close_sync()

    assert [node.status for node in shown.nodes(home)] == ["error"] * 3


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_an_interrupt_is_no_failure(sdk: WhyOps, provider: Provider, home: Path, way: str) -> None:
    """The run that resumes is one of its own, in the same trace if that is open."""

    @tool
    def ask(question: str) -> str:
        """Ask the user."""
        return str(interrupt(question))

    provider.reply(Reply(tool_calls=(ToolCall("ask", {"question": "sure?"}, "c1"),)), Reply("Done."))
    memory = InMemorySaver()
    app = agents.create_agent(model(provider), [ask], name="clerk", checkpointer=memory)
    with sdk.trace("t"):
        run(app, HELLO, way, configurable={"thread_id": "1"})
        app = agents.create_agent(model(provider), [ask], name="clerk", checkpointer=memory)
        run(app, Command(resume="yes"), way, configurable={"thread_id": "1"})
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert (tree.errors, tree.running, tree.tool_calls) == (0, 0, 2)
    assert [line.strip() for line in shown.lines(home) if "ask(" in line] == [
        'ask(question="sure?") -> raised langgraph.errors.GraphInterrupt asked',
        'ask(question="sure?") -> "yes" asked',
    ]


def test_graphs_in_graphs_branches_and_commands(sdk: WhyOps, home: Path) -> None:
    """Sub-graphs and parallel nodes are where they run, and a command hands over."""
    both = threading.Barrier(2, timeout=30)

    def meet(state: MessagesState) -> dict[str, Any]:
        both.wait()
        look("branch")
        return {}

    def choose(state: MessagesState) -> Any:
        return Command(goto="left", update={})

    inner = StateGraph(MessagesState)
    inner.add_node("choose", choose, destinations=("left",))
    inner.add_node("left", lambda state: {})
    inner.add_edge(START, "choose")
    outer = StateGraph(MessagesState)
    outer.add_node("one", meet)
    outer.add_node("two", meet)
    outer.add_node("sub", inner.compile(name="team"))
    for node in ("one", "two"):
        outer.add_edge(START, node)
    outer.add_edge(["one", "two"], "sub")
    outer.compile(name="shop").invoke(HELLO)
    sdk.close_sync()

    tree = shown.lines(home)
    assert sorted(tree[1:5]) == ['    look(place="branch") -> "branch"'] * 2 + ["  one", "  two"]
    assert [tree[0], *tree[5:]] == [
        "shop",
        "  sub",
        "    team",
        "      choose",
        "        handoff left",
        "      left",
    ]


def test_an_agent_hands_over_to_another(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """By a tool whose command leaves its graph; it is told once."""

    @tool
    def transfer_to_writer(tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        answer = ToolMessage("over to you", tool_call_id=tool_call_id)
        return Command(goto="writer", graph=Command.PARENT, update={"messages": [answer]})

    provider.reply(Reply(tool_calls=(ToolCall("transfer_to_writer", {}, "c1"),)), Reply("Done."))
    team = StateGraph(MessagesState)
    clerk = agents.create_agent(model(provider), [transfer_to_writer], name="clerk")
    team.add_node("clerk", clerk, destinations=("writer",))
    team.add_node("writer", agents.create_agent(model(provider), [], name="writer"))
    team.add_edge(START, "clerk")
    team.compile(name="team").invoke(HELLO)
    sdk.close_sync()

    assert shown.lines(home) == [
        "team",
        "  clerk",
        "    agent clerk",
        "      model",
        f"        {TURN} -> transfer_to_writer",
        "      tools",
        '        transfer_to_writer() -> "over to you" asked',
        "          handoff writer",
        "  writer",
        "    agent writer",
        "      model",
        f"        {TURN} -> Done.",
    ]


def test_a_stream_that_is_left_early_holds_nothing_up(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """It is cancelled, and its reader goes on outside."""
    app = agents.create_agent(model(provider, stream_usage=True), [add], name="clerk")
    with sdk.trace("t"):
        stream = app.stream(HELLO, stream_mode="messages")
        next(stream)
        look("between")
        stream.close()
        look("after")
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert [node.name for node in tree.nodes] == ["agent clerk", "look", "look"]
    assert tree.running == 0


def test_a_kill_in_a_tool_leaves_its_arguments(home: Path, provider: Provider) -> None:
    """With the id that the model gave the call, and the turn that asked for it."""
    provider.reply(Reply(tool_calls=(ToolCall("die", {"parcel": 7}, "c1"),)))
    program = """
        import os, signal, warnings
        warnings.simplefilter("ignore")
        from langchain.agents import create_agent
        from langchain_openai import ChatOpenAI
        from whyops_trace import trace
        from whyops_trace.integrations import langchain

        def die(parcel: int) -> str:
            "Die."
            os.kill(os.getpid(), signal.SIGKILL)

        langchain.attach()
        with trace("t"):
            create_agent(ChatOpenAI(model="gpt-4o"), [die]).invoke({"messages": [("user", "hi")]})
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


@ways
@pytest.mark.filterwarnings(
    "ignore:coroutine 'ahandle_event'", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_limit_of_a_trace_stops_a_graph(sdk: WhyOps, provider: Provider, way: str) -> None:
    """Before its next part, whichever that is; LangChain then awaits nothing of what else it wanted to tell."""
    provider.default = ASKS
    for steps in range(2, 10):
        app = agents.create_agent(model(provider), [add])
        with pytest.raises(AgentRunaway) as caught, sdk.trace(max_steps=steps):
            run(app, HELLO, way, recursion_limit=40)

        assert caught.value.used == steps


@ways
def test_a_limit_of_a_trace_stops_the_client_of_a_model(client: WhyOps, provider: Provider, way: str) -> None:
    """Though LangChain gathers what its models raise, and takes all but exceptions for answers."""
    provider.default = ASKS
    app = agents.create_agent(model(provider, client), [add])
    with pytest.raises(AgentRunaway), client.trace(max_steps=2):
        run(app, HELLO, way, recursion_limit=40)
