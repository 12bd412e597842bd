"""
What type checkers see of the public API.

Checked, never run: what must be an error carries an ``ignore`` with its code, and an ``ignore`` that is not needed is
an error itself.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

import anthropic
import openai

from whyops_trace import (
    Ledger,
    SpanId,
    Step,
    Tally,
    TokenUsage,
    Trace,
    WhyOps,
    current_trace,
    flush,
    flush_sync,
    propagate,
    propagate_threads,
    step,
    trace,
    traced_embedding,
    traced_llm,
    traced_tool,
)
from whyops_trace.integrations import Attachment
from whyops_trace.replay import Replay, Run, replay
from whyops_trace.testing import ManualClock, capture_events


@traced_tool
def plain(a: int, *, b: str = "x") -> float:
    return a / len(b)


@traced_tool(name="called", capture_input=["a"], redact=["b"], metadata={"tier": 1})
def called(a: int, b: str = "x") -> float:
    return a / len(b)


@traced_llm
async def coroutine(prompt: str) -> list[str]:
    return [prompt]


@traced_llm(model="m", provider="p", extract=str, accumulate="".join)
def stream(prompt: str) -> Iterator[str]:
    yield prompt


@traced_tool
def talk() -> Generator[int, str, bytes]:
    yield 1
    return b""


@traced_embedding(model="m")
async def astream(texts: list[str]) -> AsyncIterator[list[float]]:
    yield [1.0]


assert_type(plain(1, b="y"), float)
assert_type(called(1), float)
assert_type(stream("x"), Iterator[str])
assert_type(talk(), Generator[int, str, bytes])
assert_type(astream([]), AsyncIterator[list[float]])

plain("1")  # type: ignore[arg-type]
plain(1, "y")  # type: ignore[call-arg]
called()  # type: ignore[call-arg]

traced_tool(nmae="x")  # type: ignore[call-overload]
traced_tool(model="x")  # type: ignore[call-overload]
traced_tool("name")  # type: ignore[call-overload]
traced_embedding(capture_output=False)  # type: ignore[call-overload]
traced_llm(name=5)  # type: ignore[call-overload]


class Owner:
    @traced_tool
    def method(self, x: int) -> str:
        return str(x)

    @traced_tool(name="other")
    async def amethod(self, x: int) -> str:
        return str(x)

    @traced_tool
    @classmethod
    def class_above(cls, x: int) -> Owner:
        return cls()

    @classmethod
    @traced_tool
    def class_below(cls, x: int) -> Owner:
        return cls()

    @traced_tool
    @staticmethod
    def static_above(x: int) -> str:
        return str(x)

    @property
    @traced_tool
    def prop(self) -> int:
        return 1


assert_type(Owner().method(1), str)
assert_type(Owner.class_above(1), Owner)
assert_type(Owner.class_below(1), Owner)
assert_type(Owner.static_above(1), str)
assert_type(Owner().prop, int)
assert_type(traced_tool(len)([1]), int)
assert_type(traced_tool(functools.partial(plain, 1))(b="x"), float)


def sync_face(sdk: WhyOps) -> None:
    usage: TokenUsage = {"promptTokens": 1, "cacheReadTokens": 2}
    with sdk.trace("t", external_user_id="u", metadata={"a": 1}, tags=["x"]) as handle:
        assert_type(handle, Trace)
        assert_type(handle.id, str)
        assert_type(handle.user_message_sync([{"role": "user", "content": "hi"}]), int)
        assert_type(handle.llm_response_sync("m", "p", "hi", usage=usage, latency_ms=1.5), int)
        span = handle.tool_call_request_sync("t", [{"name": "t", "arguments": {}}], step_id=3)
        assert_type(span, SpanId)
        assert_type(span.step_id, int)
        handle.tool_call_response_sync("t", span, [{"name": "t", "arguments": {}}], {"ok": True}, failed="no")
        handle.error_sync("x", status=500, timestamp=datetime.now(UTC), parent_step_id=span.step_id)
        with step("plan", input=1) as plan:
            assert_type(plan, Step)
            plan.set_output({"any": "thing"})

        handle.user_message_sync("hi")  # type: ignore[arg-type]
        handle.error_sync("x", stauts=500)  # type: ignore[call-arg]
        handle.error_sync("x", step_id="3")  # type: ignore[arg-type]
        handle.llm_response_sync("m")  # type: ignore[call-arg]
    assert_type(sdk.flush_sync(1.0), Ledger)
    assert_type(flush_sync()["local"], Tally)
    assert_type(current_trace(), Trace | None)
    with propagate_threads():
        pass
    assert_type(propagate(plain)(1), float)


async def async_face(sdk: WhyOps) -> None:
    async with trace() as handle, step("plan"), sdk.step("more"):
        assert_type(await handle.user_message([{"role": "user", "content": "hi"}]), int)
        assert_type(await handle.tool_call_request("t", []), SpanId)
        assert_type(await coroutine("x"), list[str])
        assert_type(await Owner().amethod(1), str)
        await coroutine(5)  # type: ignore[arg-type]
        async for vector in astream(["a"]):
            assert_type(vector, list[float])

        handle.error("x")  # type: ignore[unused-coroutine]
        await handle.error_sync("x")  # type: ignore[misc]
    assert_type(await sdk.flush(), Ledger)
    assert_type(await flush(1.0), Ledger)
    async with sdk as same:
        assert_type(same, WhyOps)


def original_constructor() -> WhyOps:
    sdk = WhyOps(
        "key", "agent", {"systemPrompt": "x", "tools": []}, "https://p.example", "https://a.example/api"
    )
    WhyOps(tracing="loud")  # type: ignore[arg-type]
    WhyOps("key", "agent", {"description": "x"})  # type: ignore[arg-type]
    return sdk


def clients_of_providers(sdk: WhyOps) -> None:
    assert_type(sdk.openai(openai.OpenAI()), openai.OpenAI)
    assert_type(sdk.openai(openai.AsyncOpenAI(), proxy=False), openai.AsyncOpenAI)
    assert_type(sdk.anthropic(anthropic.Anthropic(), fallback=True), anthropic.Anthropic)
    assert_type(sdk.anthropic(anthropic.AsyncAnthropic()), anthropic.AsyncAnthropic)
    sdk.openai(openai.OpenAI(), fallback="yes")  # type: ignore[arg-type]
    assert_type(sdk.litellm(), Attachment)


@traced_tool(tool_call_id="call_id")
def linked(a: int, call_id: str) -> int:
    return a


def testing_kit() -> None:
    with capture_events(local=True) as events:
        assert_type(events, list[dict[str, Any]])
    WhyOps(clock=ManualClock())


def replays(traces: Run) -> None:
    with replay("t", match="first", live=[plain, "messages"], swap={"plain": lambda a: a}) as run:
        assert_type(run, Replay)
    assert_type(run.drift, list[str])
    traces.called("plain", times=range(1, 3), arguments={"a": 1})
    replay("t", match="loose")  # type: ignore[arg-type]


def takes_a_callback(callback: Callable[[int], float]) -> None: ...
def takes_a_coroutine_function(callback: Callable[[str], Coroutine[Any, Any, list[str]]]) -> None: ...


takes_a_callback(plain)
takes_a_callback(called)
takes_a_coroutine_function(coroutine)
takes_a_callback(coroutine)  # type: ignore[arg-type]
