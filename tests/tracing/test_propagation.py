"""A propagated callable of any kind runs in the scope it was made in, and remains what it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import WhyOps, detach, propagate, step, trace, traced_tool
from whyops_trace.context import get_scope
from whyops_trace.testing import ManualClock


@traced_tool
def leaf() -> None:
    """Do nothing."""


def plain(n: int = 1) -> list[int]:
    """Call a leaf."""
    leaf()
    return [n]


async def awaited(n: int = 1) -> list[int]:
    """Call a leaf after a moment."""
    await asyncio.sleep(0)
    leaf()
    return [n]


def items(n: int = 1) -> Iterator[int]:
    """Call a leaf before the item."""
    leaf()
    yield n


async def aitems(n: int = 1) -> AsyncIterator[int]:
    """Call a leaf before the item, after a moment."""
    await asyncio.sleep(0)
    leaf()
    yield n


class Agent:
    """Has a method, and can be called itself."""

    def method(self, n: int = 1) -> list[int]:
        """Call a leaf."""
        return plain(n)

    def __call__(self, n: int = 1) -> Iterator[int]:
        """Call a leaf before the item."""
        return (yield from items(n))


def consume(made: Any) -> list[int]:
    """Return all that a call of any kind gives, in an event loop if it needs one."""

    async def collect() -> list[int]:
        return [item async for item in made]

    if inspect.isasyncgen(made):
        return asyncio.run(collect())
    return asyncio.run(made) if inspect.iscoroutine(made) else list(made)


KINDS: dict[str, Callable[..., Any]] = {
    "function": plain,
    "coroutine function": awaited,
    "generator function": items,
    "async generator function": aitems,
    "method": Agent().method,
    "partial": functools.partial(items, 1),
    "object": Agent(),
}


@pytest.mark.parametrize("pickled", [False, True], ids=["as it is", "pickled"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_callable_is_carried(events: Recorded, kind: str, pickled: bool) -> None:
    """Into another thread, whose own scope it does not touch."""
    function = KINDS[kind]
    after: list[Any] = []

    def work() -> list[int]:
        got = consume(carried())
        after.append(get_scope())
        return got

    with ThreadPoolExecutor(1) as pool, trace("t"):
        with step("plan"):
            carried = propagate(function)
        if pickled:
            carried = pickle.loads(pickle.dumps(carried))
        got = pool.submit(work).result()

    assert got == [1]
    assert after == [None]
    assert [row[:5] for row in events.of("t")] == [
        ("llm_thinking", 1, None, 0, "plan"),
        ("tool_call_request", 2, 1, 1, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_propagated_callable_is_of_its_kind(kind: str) -> None:
    """For who asks what to do with it, and for people."""
    function = KINDS[kind]
    carried = propagate(function)
    body = Agent.__call__ if kind == "object" else function

    for ask in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert ask(carried) is ask(body)
    assert inspect.signature(carried) == inspect.signature(function)
    assert getattr(carried, "__name__", None) == getattr(function, "__name__", None)
    assert carried.__doc__ == function.__doc__


def test_what_consumes_a_propagated_generator_is_in_its_own_scope(events: Recorded) -> None:
    """Between two items, after it was left, and when it is closed."""

    def work() -> Iterator[int]:
        with step("inside"):
            yield 1
            yield 2

    with trace("made"):
        carried = propagate(work)
    with trace("read"):
        for _ in carried():
            leaf()
            break

    assert [row[4] for row in events.of("made")] == ["inside"]
    assert [row[4] for row in events.of("read")] == ["leaf", "leaf"]


def test_what_is_sent_and_thrown_reaches_a_propagated_generator() -> None:
    """And so does its end reach who asks."""

    def echo() -> Generator[Any, Any, str]:
        got: list[Any] = []
        while len(got) < 3:
            try:
                got.append((yield len(got)))
            except KeyError as error:
                got.append(error)
        return f"{got!r}"

    with trace():
        made = propagate(echo)()
    seen = [next(made), made.send("a"), made.throw(KeyError("b"))]
    with pytest.raises(StopIteration) as end:
        made.send("c")

    assert seen == [0, 1, 2]
    assert end.value.value == "['a', KeyError('b'), 'c']"


def test_what_is_sent_and_thrown_reaches_a_propagated_async_generator() -> None:
    """The same, waiting."""
    closed = []

    async def echo() -> AsyncIterator[Any]:
        got = None
        try:
            while True:
                try:
                    got = yield got
                except KeyError as error:
                    got = repr(error)
        finally:
            closed.append(True)

    async def main() -> list[Any]:
        made: Any = propagate(echo)()
        seen = [await anext(made), await made.asend("a"), await made.athrow(KeyError("b"))]
        await made.aclose()
        return seen

    with trace():
        seen = asyncio.run(main())

    assert seen == [None, "a", "KeyError('b')"]
    assert closed == [True]


def test_an_error_passes_through() -> None:
    """And the scope is left."""

    def fail() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    with trace():
        carried = propagate(fail)

    with pytest.raises(KeyError):
        list(carried())
    assert get_scope() is None


def test_outside_any_trace_what_is_propagated_is_outside_too(events: Recorded) -> None:
    """Pickled or not."""
    carried = propagate(plain)
    with trace("t"):
        carried()
        pickle.loads(pickle.dumps(carried))()

    assert [len(events.of(trace_id)) for trace_id in events.traces if trace_id != "t"] == [2, 2]
    assert events.of("t") == []


def test_a_pickled_place_is_recorded_by_the_client_of_its_agent(events: Recorded) -> None:
    """Whichever is the default one."""
    WhyOps(agent_name="first")
    second = WhyOps(agent_name="second")
    with second.trace("t"):
        carried = pickle.dumps(propagate(plain))
    del second.recorder.traces["t"]  # as in another process
    pickle.loads(carried)()

    assert {record["agentName"] for record in events.records} == {"second"}


def test_a_pickled_place_in_a_trace_that_is_not_recorded(events: Recorded) -> None:
    """Its calls are not recorded there either."""
    sdk = WhyOps()
    with sdk.trace("t"):
        sdk.recorder.traces["t"].on = False
        carried = pickle.dumps(propagate(plain))
    del sdk.recorder.traces["t"]
    pickle.loads(carried)()

    assert events.records == []


# Leaving a trace


def test_a_trace_is_left_for_a_block(events: Recorded) -> None:
    """What is made in it belongs to no trace; after it the place is as before."""

    async def main() -> None:
        async with trace("t"):
            with step("plan"):
                async with detach():
                    task = asyncio.create_task(awaited())
                leaf()
            await task

    asyncio.run(main())

    assert [row[3:5] for row in events.of("t")] == [(0, "plan"), (1, "leaf"), (2, "leaf")]
    assert len(events.traces) == 2


def test_a_trace_is_left_for_good(events: Recorded) -> None:
    """By a task, whose maker stays in it."""

    async def worker() -> None:
        detach()
        leaf()

    async def main() -> None:
        async with trace("t"):
            await asyncio.create_task(worker())
            leaf()

    asyncio.run(main())

    assert len(events.of("t")) == 2
    assert len(events.traces) == 2


@pytest.mark.parametrize("begun_by", ["block", "call"])
def test_recording_in_a_trace_that_ended_long_ago_is_said_once(
    events: Recorded, said: Callable[[], list[str]], begun_by: str
) -> None:
    """With the remedy; not soon after its end, and not where a handle is recorded on."""
    clock = ManualClock()
    sdk = WhyOps(clock=clock)
    handle = sdk.trace("manual")

    async def worker() -> None:
        for seconds in (0, 59, 3600):
            clock.advance(seconds)
            handle.error_sync("x")
            leaf()
            await asyncio.sleep(0)

    tasks = []

    @traced_tool
    def request() -> None:
        clock.advance(3600)  # however long it takes
        leaf()
        clock.advance(0.001)
        tasks.append(asyncio.create_task(worker()))

    async def main() -> None:
        if begun_by == "call":
            request()
        else:
            async with trace("t"):
                tasks.append(asyncio.create_task(worker()))
                leaf()
                clock.advance(3600)
                leaf()
                clock.advance(0.001)
        with trace("another"):
            leaf()
        await tasks[0]

    asyncio.run(main())
    (warning,) = said()

    assert "ended 3659 seconds ago" in warning
    assert "detach()" in warning


def test_a_conversation_that_comes_back_late_is_no_late_record(
    events: Recorded, said: Callable[[], list[str]]
) -> None:
    """Nor is one in a block of which a task has waited for long."""
    events.checked = False  # each turn counts from 1
    clock = ManualClock()
    WhyOps(clock=clock)
    for _ in range(3):
        with trace("chat"):
            leaf()
            clock.advance(600)
            leaf()
        clock.advance(600)
    step_of_its_own = step("long")
    with step_of_its_own:
        clock.advance(600)
        leaf()

    assert said() == []
