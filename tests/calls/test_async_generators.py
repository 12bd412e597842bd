"""A traced asynchronous generator behaves as the bare one does, on asyncio and trio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from recorded import Recorded, cancelled_tool, failed_tool, tool

from whyops_trace import step, trace, traced_tool
from whyops_trace.context import get_scope

ATalker = Callable[[], AsyncGenerator[Any, Any]]


async def bare_atalk() -> AsyncGenerator[Any, Any]:
    """Answers what is sent, says what is thrown, and stops at "stop"."""
    heard = yield "ready"
    while heard != "stop":
        await anyio.lowlevel.checkpoint()
        try:
            heard = yield heard
        except KeyError as error:
            heard = yield f"caught {error}"


atalk = traced_tool(name="talk")(bare_atalk)
ABOTH = pytest.mark.parametrize("talker", [bare_atalk, atalk], ids=["bare", "traced"])


@traced_tool
def leaf() -> None:
    """A call to see the scope by."""


@pytest.mark.anyio
@ABOTH
async def test_asend_passes_through(events: Recorded, talker: ATalker) -> None:
    """What is sent arrives."""
    it = talker()

    assert await anext(it) == "ready"
    assert await it.asend("a") == "a"
    with pytest.raises(StopAsyncIteration):
        await it.asend("stop")
    with pytest.raises(StopAsyncIteration):
        await anext(it)
    if talker is atalk:
        assert events.rows == tool("talk", {}, {"items": ["ready", "a"], "count": 2})


@pytest.mark.anyio
@ABOTH
async def test_athrow_can_be_caught_by_the_body(events: Recorded, talker: ATalker) -> None:
    """The generator goes on."""
    it = talker()
    await anext(it)
    await it.asend("a")

    assert await it.athrow(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopAsyncIteration):
        await it.asend("stop")
    if talker is atalk:
        assert events.rows == tool("talk", {}, {"items": ["ready", "a", "caught 'k'"], "count": 3})


@pytest.mark.anyio
@ABOTH
async def test_athrow_that_is_not_caught_comes_out(events: Recorded, talker: ATalker) -> None:
    """The same object, with one frame of ours in its traceback."""
    it = talker()
    await anext(it)
    error = ValueError("v")

    with pytest.raises(ValueError, match="v") as caught:
        await it.athrow(error)
    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)][1:]
    if talker is bare_atalk:
        assert names == ["bare_atalk"]
    else:
        assert names == ["_iterate_async", "bare_atalk"]
        assert events.rows == failed_tool("talk", {}, {"type": "ValueError", "message": "v"})


@pytest.mark.anyio
@ABOTH
async def test_aclose_ends_the_body_where_it_is(events: Recorded, talker: ATalker) -> None:
    """The call is recorded as cancelled, with the items that came before."""
    it = talker()
    await anext(it)
    await it.aclose()
    await it.aclose()

    assert [item async for item in it] == []
    if talker is atalk:
        assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


@pytest.mark.anyio
@ABOTH
async def test_stop_async_iteration_thrown_in_becomes_a_runtime_error(talker: ATalker) -> None:
    """As the language has it."""
    it = talker()
    await anext(it)

    with pytest.raises(RuntimeError, match="async generator raised StopAsyncIteration"):
        await it.athrow(StopAsyncIteration())


@pytest.mark.anyio
async def test_breaking_out_under_aclosing_cancels_the_call(events: Recorded) -> None:
    """The cleanup of the body runs in its scope, and may wait."""

    @traced_tool
    async def stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await anyio.lowlevel.checkpoint()
            leaf()

    async with contextlib.aclosing(stream()) as items:
        async for _ in items:
            break

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "stream"),
        ("tool_call_request", 2, 1, 1, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
        ("tool_call_response", 4, 1, 1, "stream"),
    ]
    assert events.rows[-1][5:] == ({"cancelled": True, "items": [1], "count": 1}, {"outcome": "cancelled"})


@pytest.mark.anyio
async def test_aclose_from_another_task_works(events: Recorded) -> None:
    """Nothing is left behind in either task."""
    it = atalk()
    await anext(it)
    seen = []

    async def close() -> None:
        await it.aclose()
        seen.append(get_scope())

    async with anyio.create_task_group() as group:
        group.start_soon(close)

    assert seen == [None]
    assert get_scope() is None
    assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


@pytest.mark.anyio
async def test_the_scope_of_an_async_generator_is_the_bodys_only(events: Recorded) -> None:
    """Waiting inside the body does not change that."""

    @traced_tool
    async def stream() -> AsyncIterator[int]:
        await anyio.lowlevel.checkpoint()
        leaf()
        with step("inner"):
            yield 1
            await anyio.lowlevel.checkpoint()
            leaf()

    async with trace():
        async for _ in stream():
            await anyio.lowlevel.checkpoint()
            leaf()

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "stream"),
        ("tool_call_request", 2, 1, 1, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
        ("llm_thinking", 4, 1, 1, "inner"),
        ("tool_call_request", 5, 1, 0, "leaf"),
        ("tool_call_response", 6, 5, 5, "leaf"),
        ("tool_call_request", 7, 4, 4, "leaf"),
        ("tool_call_response", 8, 7, 7, "leaf"),
        ("tool_call_response", 9, 1, 1, "stream"),
    ]


@pytest.mark.parametrize("decorate", [lambda f: f, traced_tool], ids=["bare", "traced"])
def test_the_loop_closes_what_is_open_at_its_end(events: Recorded, decorate: Any) -> None:
    """The body's cleanup runs once, to its end, and the loop has nothing to complain of."""
    complaints: list[Any] = []
    cleaned: list[str] = []
    kept: list[Any] = []

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        kept.extend(decorate(stream)() for _ in range(8))
        for it in kept:
            await anext(it)

    asyncio.run(main())

    assert complaints == []
    assert cleaned == ["yes"] * 8
    if decorate is traced_tool:
        assert len(events.rows) == 16
        assert {row[6]["outcome"] for row in events.rows[8:]} == {"cancelled"}


def test_a_forgotten_async_generator_is_closed_by_its_loop(events: Recorded) -> None:
    """One that is garbage while the loop runs."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async for _ in atalk():
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())

    assert complaints == []
    assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


def test_starting_one_leaves_the_hooks_of_the_loop_alone() -> None:
    """The event loop goes on to see every asynchronous generator of the host program."""

    async def main() -> None:
        hooks = sys.get_asyncgen_hooks()
        async with contextlib.aclosing(atalk()) as it:
            await anext(it)

        assert sys.get_asyncgen_hooks() == hooks

    asyncio.run(main())


@pytest.mark.anyio
async def test_what_is_seen_of_an_async_generator_is_the_bare_ones() -> None:
    """Function and generator pass for what they are."""
    it = atalk()

    assert inspect.isasyncgenfunction(atalk)
    assert not inspect.iscoroutinefunction(atalk)
    assert inspect.isasyncgen(it)
    assert (it.__name__, it.__qualname__) == ("bare_atalk", "bare_atalk")
    await it.aclose()
