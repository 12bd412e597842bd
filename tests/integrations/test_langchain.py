"""LangChain runs for real; its callbacks make traces."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integrations import shown
from integrations.chat import ASKS, HELLO, TURN, WHY, close, look, model
from provider import Provider
from replies import Reply

from whyops_trace import WhyOps, otel
from whyops_trace.context import UNSETTLED
from whyops_trace.integrations import langchain

agents: Any = pytest.importorskip("langchain.agents", reason=WHY)
pytest.importorskip("langchain_openai", reason=WHY)
from langchain_core.documents import Document  # noqa: E402
from langchain_core.language_models.fake import FakeListLLM  # noqa: E402
from langchain_core.output_parsers import StrOutputParser  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langchain_core.tools import tool  # noqa: E402


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return int(look(f"{a + b}"))


@pytest.fixture
def sdk(client: WhyOps) -> Iterator[WhyOps]:
    """A client that records everything that runs."""
    with langchain.attach(client):
        yield client


def test_code_after_a_model_is_not_inside_it(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """Nor is the code between two pieces of a stream, wherever the framework tells of the end."""

    async def main() -> None:
        chat = model(provider, sdk)
        with sdk.trace("t"):
            await chat.ainvoke("hi")
            look("after")
            async for piece in chat.astream("hi"):
                if piece.content == "Hello,":
                    look("between")
            for piece in chat.stream("hi"):
                if piece.content == "Hello,":
                    look("between two")
            chat.batch(["one", "two"])
            look("last")
        await close()

    asyncio.run(main())
    sdk.close_sync()

    (tree,) = shown.trees(home)
    assert [node.name for node in tree.nodes] == [
        "ChatOpenAI", "look", "ChatOpenAI", "look", "ChatOpenAI", "look", "ChatOpenAI", "ChatOpenAI", "look",
    ]  # fmt: skip
    assert tree.llm_responses == 5
    assert UNSETTLED == {}


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        if query == "nothing":
            raise LookupError(query)
        return [Document(f"about {query}")]


def test_a_chain_shows_what_is_not_the_frameworks_own(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """Prompts, parsers and sequences are not shown, retrievers, models and named functions are."""

    def shorten(text: str) -> str:
        return look(text[:5])

    chain = (
        {"x": Shelf()}
        | ChatPromptTemplate.from_messages([("user", "{x}")])
        | model(provider)
        | StrOutputParser()
        | shorten
    )
    with sdk.trace("t"):
        assert chain.invoke("tea") == "Hello"
        with pytest.raises(LookupError):
            Shelf().invoke("nothing")
        assert FakeListLLM(responses=["old"]).invoke("style") == "old"
    assert RunnableLambda(shorten).invoke("alone") == "alone"
    sdk.close_sync()

    assert shown.lines(home) == [
        "Shelf",
        f"{TURN} -> Hello, how can I help?",
        "shorten",
        '  look(place="Hello") -> "Hello"',
        "Shelf error",
        "FakeListLLM  -> old",
        "shorten",
        '  look(place="alone") -> "alone"',
    ]


def test_a_batch_has_each_of_its_runs(sdk: WhyOps, provider: Provider, home: Path) -> None:
    """In a trace each, with what it calls, also in other threads."""
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | model(provider, sdk)
    chain.batch([{"x": "1"}, {"x": "2"}])
    sdk.close_sync()

    traces = shown.trees(home)
    assert [(tree.llm_responses, tree.tokens.total) for tree in traces] == [(1, 17), (1, 17)]


def test_it_works_in_any_thread_until_it_is_detached(home: Path, provider: Provider) -> None:
    """The newest attachment counts."""

    def work(chat: Any) -> None:
        thread = threading.Thread(target=chat.invoke, args=["hi"])
        thread.start()
        thread.join()

    chat = model(provider)
    with WhyOps(agent_name="a", home=home) as first, WhyOps(agent_name="b", home=home) as second:
        attached = langchain.attach(first)
        work(chat)
        with langchain.attach(second):
            work(chat)
        work(chat)
        attached.detach()
        attached.detach()
        work(chat)

    assert sorted(tree.agent_name for tree in shown.trees(home)) == ["a", "a", "b"]


@pytest.mark.parametrize("attached", [False, True])
def test_a_handler_may_be_passed_to_a_run(home: Path, provider: Provider, attached: bool) -> None:
    """Then it is recorded once, attached or not."""
    provider.reply(ASKS, Reply("3 and 5."))
    app = agents.create_agent(model(provider), [add], name="clerk")
    with WhyOps(agent_name="shop", home=home) as sdk:
        with langchain.attach(sdk) if attached else contextlib.nullcontext():
            app.invoke(HELLO, {"callbacks": [langchain.handler(sdk)]})

    (tree,) = shown.trees(home)
    assert (tree.llm_responses, tree.tool_calls) == (2, 4)


def test_a_run_that_makes_spans_as_well_is_recorded_once(
    client: WhyOps, home: Path, provider: Provider
) -> None:
    """While the adapter is attached the spans of the same runs are left out; after it they are recorded."""
    spans: Any = pytest.importorskip("openinference.instrumentation.langchain", reason=WHY)
    traces: Any = pytest.importorskip("opentelemetry.sdk.trace", reason=WHY)
    makes_spans = traces.TracerProvider()
    makes_spans.add_span_processor(otel.WhyOpsSpanProcessor(client))
    instrumentor = spans.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=makes_spans)
    provider.reply(*[ASKS, Reply("3 and 5.")] * 2)
    app = agents.create_agent(model(provider), [add], name="clerk")
    try:
        with langchain.attach(client):
            app.invoke(HELLO)
        app.invoke(HELLO)
    finally:
        instrumentor.uninstrument()
    client.close_sync()

    adapted, *told_by_spans = shown.trees(home)
    assert (adapted.llm_responses, adapted.tool_calls, adapted.tokens.total) == (2, 4, 34)
    assert sum(tree.llm_responses for tree in told_by_spans) == 2


@pytest.mark.internal_errors
def test_a_mistake_of_ours_does_not_reach_the_framework(
    sdk: WhyOps, provider: Provider, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """The run goes on, and it is said."""
    from whyops_trace.integrations._runs import Runs

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    provider.reply(ASKS, Reply("3 and 5."))
    monkeypatch.setattr(Runs, "begin", broken)
    app = agents.create_agent(model(provider), [add], name="clerk")

    assert app.invoke(HELLO)["messages"][-1].content == "3 and 5."
    assert "Internal error while recording a call of a tool" in " ".join(said())


def test_with_tracing_off_nothing_is_recorded(home: Path, provider: Provider) -> None:
    """And the run is as without."""
    provider.reply(ASKS, Reply("3 and 5."))
    with WhyOps(agent_name="shop", home=home, tracing="off") as sdk, langchain.attach(sdk):
        app = agents.create_agent(model(provider), [add], name="clerk")
        assert app.invoke(HELLO)["messages"][-1].content == "3 and 5."

    assert not home.exists()
