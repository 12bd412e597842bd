"""What a traced call costs the caller, beside the same call without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from whyops_trace import WhyOps, otel, traced_llm, traced_tool
from whyops_trace.types import ToolCallPair

Wrap = Callable[[Any], Any]
OPTIONS = {"limit": 5, "lang": "en"}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Your parcel left the depot this morning."},
        }
    ],
    "usage": {"prompt_tokens": 840, "completion_tokens": 60, "total_tokens": 900},
}
MESSAGES = [{"role": "system", "content": "You help."}, {"role": "user", "content": "Where is my parcel?"}]

beside_untraced = pytest.mark.parametrize("is_traced", ["untraced", "traced"], indirect=True)


def drive(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that never waits, without the cost of an event loop."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)


@beside_untraced
def test_function(measure: Any, tool: Wrap) -> None:
    """A function that does nothing, with two small arguments."""

    @tool
    def search(query: str, options: dict[str, Any]) -> str:
        return query

    measure("call of a function", search, "parcel", OPTIONS)


@beside_untraced
def test_coroutine(measure: Any, tool: Wrap) -> None:
    """The same as a coroutine."""

    @tool
    async def search(query: str, options: dict[str, Any]) -> str:
        return query

    measure("call of a coroutine", lambda: drive(search("parcel", OPTIONS)))


@beside_untraced
def test_nested(measure: Any, tool: Wrap) -> None:
    """Ten calls, each inside the one before."""

    @tool
    def search(query: str, depth: int) -> str:
        return search(query, depth - 1) if depth > 1 else query

    measure("ten nested calls", search, "parcel", 10, calls=100)


@beside_untraced
def test_generator(measure: Any, tool: Wrap) -> None:
    """A generator of ten items, read to its end."""

    @tool
    def search(query: str, count: int) -> Iterator[int]:
        yield from range(count)

    def read() -> None:
        for _ in search("parcel", 10):
            pass

    measure("generator of ten", read, calls=100)


@beside_untraced
def test_asynchronous_generator(measure: Any, tool: Wrap) -> None:
    """The same asynchronously."""

    @tool
    async def search(query: str, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def read() -> None:
        async for _ in search("parcel", 10):
            pass

    measure("asynchronous generator of ten", lambda: drive(read()), calls=100)


@beside_untraced
@pytest.mark.parametrize(("kilobytes", "calls"), [(10, 100), (200, 10)], ids=["10 KB", "200 KB"])
def test_payload(measure: Any, tool: Wrap, kilobytes: int, calls: int) -> None:
    """A large argument that comes back as the result."""
    text = 'He said "no\\yes", then paid 49.99 € for it.\n' * 250 * kilobytes
    text = text[: kilobytes * 1_000]

    @tool
    def echo(text: str) -> str:
        return text

    measure(f"argument and result of {kilobytes} KB", echo, text, calls=calls)


@beside_untraced
def test_model(measure: Any, sdk: WhyOps, is_traced: bool) -> None:
    """A call of a model that answers as OpenAI does."""

    def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
        return ANSWER

    with sdk.trace():
        measure("call of a model", traced_llm(ask) if is_traced else ask, MESSAGES, calls=300)


@beside_untraced
def test_blocks(measure: Any, sdk: WhyOps, is_traced: bool) -> None:
    """A trace with a step in it, beside two blocks that do nothing."""
    trace = sdk.trace if is_traced else contextlib.nullcontext
    step: Any = sdk.step if is_traced else contextlib.nullcontext

    def block() -> None:
        with trace(), step("plan"):
            pass

    measure("trace with a step", block, calls=300)


def test_manual_pair(measure: Any, sdk: WhyOps) -> None:
    """The request and the response of a tool, reported by hand."""
    trace = sdk.trace()
    calls: list[ToolCallPair] = [{"name": "search", "arguments": {"query": "parcel", "options": OPTIONS}}]

    def pair() -> None:
        span = trace.tool_call_request_sync("search", calls)
        trace.tool_call_response_sync("search", span, calls, {"result": "parcel"})

    measure("tool reported by hand", pair, calls=300)


def test_open_call(measure: Any, sdk: WhyOps) -> None:
    """A call of a tool, as callbacks tell of it."""
    trace = sdk.trace()

    def pair() -> None:
        trace.start_tool_call("search", {"query": "parcel", "options": OPTIONS}).end("parcel")

    measure("tool told by callbacks", pair, calls=300)


@beside_untraced
def test_openai_client(measure: Any, sdk: WhyOps, is_traced: bool) -> None:
    """A call of an OpenAI client that finds its answer in memory."""
    openai = pytest.importorskip("openai", reason="The benchmark needs OpenAI's package.")
    # The HTTP library that this version of the package stands on.
    http = pytest.importorskip(openai.DefaultHttpxClient.__mro__[2].__module__.partition(".")[0])
    transport = http.MockTransport(lambda request: http.Response(200, json=ANSWER))
    client = openai.OpenAI(api_key="none", http_client=http.Client(transport=transport))
    chat = (sdk.openai(client) if is_traced else client).chat.completions

    with sdk.trace():
        measure(
            "call of an OpenAI client",
            lambda: chat.create(model="gpt-4o", messages=MESSAGES),
            calls=10,
            rounds=20,
        )


@pytest.mark.parametrize("what", ["decorated call", "span alone", "span recorded"])
def test_span(measure: Any, sdk: WhyOps, what: str) -> None:
    """A call of a tool that a framework tells of by a span, beside the span alone and a decorated call."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="it comes with the extra otel")
    provider = trace.TracerProvider()
    if what == "span recorded":
        provider.add_span_processor(otel.WhyOpsSpanProcessor(sdk))
    tracer = provider.get_tracer("a framework")
    about = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": '{"query": "parcel", "limit": 5}',
    }

    @traced_tool
    def search(query: str, limit: int) -> dict[str, bool]:
        return {"found": True}

    def told() -> None:
        with tracer.start_as_current_span("execute_tool search", attributes=about) as span:
            span.set_attribute("gen_ai.tool.call.result", '{"found": true}')

    function = told if what.startswith("span") else lambda: search("parcel", 5)
    with sdk.trace():
        measure("call of a tool, told by a span", function, calls=100)
