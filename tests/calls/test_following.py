"""What still runs when a plain function has returned it: its call ends with it, and holds what runs in it."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import itertools
import pickle
import sqlite3
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from recorded import Recorded, cancelled_tool, failed_tool, frames_of_ours, tool

from whyops_trace import WhyOps, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace.context import get_scope
from whyops_trace.exporters.memory import MemoryExporter

DECORATORS = pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])


@traced_tool
def leaf(n: int) -> int:
    """A call to see the place by."""
    return n


async def coroutine() -> list[int]:
    """Call a tool twice."""
    await anyio.lowlevel.checkpoint()
    return [leaf(0), leaf(1)]


def generator() -> Generator[int, None, None]:
    """Call a tool for each item."""
    yield leaf(0)
    yield leaf(1)


async def agenerator() -> AsyncIterator[int]:
    """Do the same asynchronously."""
    for n in range(2):
        await anyio.lowlevel.checkpoint()
        yield leaf(n)


class Items:
    """An iterator that is no generator."""

    def __init__(self) -> None:
        self._left = [0, 1]

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        return leaf(self._left.pop(0))


class AItems:
    """The same, asynchronously."""

    def __init__(self) -> None:
        self._left = [0, 1]

    def __aiter__(self) -> AItems:
        return self

    async def __anext__(self) -> int:
        await anyio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        return leaf(self._left.pop(0))


MAKERS: dict[str, Callable[[], Any]] = {
    "coroutine": coroutine,
    "generator": generator,
    "asynchronous generator": agenerator,
    "iterator": Items,
    "asynchronous iterator": AItems,
    "map": lambda: map(leaf, range(2)),
    "chain": lambda: itertools.chain(generator()),
    "generator expression": lambda: (leaf(n) for n in range(2)),
}


async def read(running: Any) -> list[int]:
    """Run something to its end."""
    if hasattr(running, "__await__"):
        return list(await running)
    if hasattr(running, "__anext__"):
        return [item async for item in running]
    return list(running)


@DECORATORS
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.anyio
async def test_what_runs_in_it_is_nested_in_its_call(
    events: Recorded, decorate: Any, make: Callable[[], Any]
) -> None:
    """And what its consumer calls meanwhile is the consumer's; the call ends last."""

    @decorate(name="outer")
    def outer() -> Any:
        return make()

    with trace():
        running = outer()
        leaf(9)
        assert await read(running) == [0, 1]

    within = {row[5]["n"]: row[3] for row in events.rows if row[0] == "tool_call_request" and "n" in row[5]}
    request = next(row for row in events.rows if row[4] == "outer")
    ends = [row[1] for row in events.rows if row[4] == "outer"][1:]
    assert within == {9: 0, 0: request[1], 1: request[1]}
    assert ends == [max(row[1] for row in events.rows)]
    assert get_scope() is None


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.anyio
async def test_its_result_is_that_of_the_call(events: Recorded, make: Callable[[], Any]) -> None:
    """Or its items."""
    assert await read(traced_tool(name="outer")(lambda: make())()) == [0, 1]
    result = events.rows[-1][5]

    assert result in ({"items": [0, 1], "count": 2}, {"result": [0, 1]})


def fail() -> None:
    """Raise."""
    raise ValueError("bad")


async def failing() -> None:
    """Raise, later."""
    fail()


def failing_items() -> Iterator[None]:
    """Raise at the second item."""
    yield
    fail()


async def failing_aitems() -> AsyncIterator[None]:
    """Raise at the second item, later."""
    yield
    fail()


@pytest.mark.parametrize("make", [failing, failing_items, failing_aitems, lambda: map(str, failing_items())])
@pytest.mark.anyio
async def test_its_failure_is_that_of_the_call(events: Recorded, make: Callable[[], Any]) -> None:
    """It arrives as the same object, through one frame of ours."""
    with pytest.raises(ValueError, match="bad") as caught:
        await read(traced_tool(name="outer")(lambda: make())())

    assert events.rows == failed_tool("outer", {}, {"type": "ValueError", "message": "bad"})
    assert len(frames_of_ours(caught.value)) == 1


def test_a_model_asked_by_a_returned_coroutine_answers_at_its_end(events: Recorded) -> None:
    """The turn is what the coroutine returns, and a stream that it returns is followed in turn."""

    async def complete(streams: bool) -> Any:
        answer = {"content": "Hello", "model": "m", "provider": "p"}
        return iter(["Hel", "lo"]) if streams else answer

    @traced_llm
    def ask(prompt: str, streams: bool) -> Any:
        return complete(streams)

    assert asyncio.run(ask("Hi.", streams=False))["content"] == "Hello"
    assert "".join(asyncio.run(ask("Hi.", streams=True))) == "Hello"

    answers = [row for row in events.rows if row[0] == "llm_response"]
    assert [row[5]["content"] for row in answers] == ["Hello", "Hello"]
    assert answers[0][6]["model"] == "m"


@pytest.mark.parametrize("make", [coroutine, generator, agenerator])
def test_the_stand_in_is_of_the_same_kind_and_name(make: Callable[[], Any]) -> None:
    """Whoever looks sees what it would without us."""
    bare = make()
    running = traced_tool(lambda: make())()

    assert type(running) is type(bare)
    assert (running.__name__, running.__qualname__) == (bare.__name__, bare.__qualname__)
    for made in (bare, running):
        if isinstance(made, types.CoroutineType):
            made.close()


@pytest.mark.parametrize("make", [coroutine, generator, agenerator, Items, AItems])
def test_what_never_runs_ends_its_call_when_it_is_dropped(events: Recorded, make: Callable[[], Any]) -> None:
    """As cancelled. A coroutine is said to be never awaited, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced_tool(name="outer")(lambda: make())()
        gc.collect()
        messages = [str(warning.message) for warning in caught]
        caught.clear()
        gc.collect()

    assert messages == (["coroutine 'coroutine' was never awaited"] if make is coroutine else [])
    assert events.rows == cancelled_tool("outer", {})


def test_a_generator_left_early_was_cancelled(events: Recorded) -> None:
    """With the items that came, and the scope is the consumer's."""
    with trace():
        for item in traced_tool(name="outer")(lambda: generator())():
            assert item == 0
            break
        gc.collect()
        leaf(9)

    outer = [row for row in events.rows if row[4] == "outer"]
    assert outer[1][5:] == ({"cancelled": True, "items": [0], "count": 1}, {"outcome": "cancelled"})
    assert [row[3] for row in events.rows if row[5] == {"n": 9}] == [0]


def test_a_generator_that_somebody_else_holds_is_not_closed_for_them(events: Recorded) -> None:
    """Only the items that this caller reads are recorded."""
    held = generator()
    for item in traced_tool(name="outer")(lambda: held)():
        assert item == 0
        break
    gc.collect()

    assert next(held) == 1
    assert [row[0] for row in events.rows if row[4] == "outer"] == [
        "tool_call_request",
        "tool_call_response",
    ]


def test_a_generator_that_was_begun_goes_on(events: Recorded) -> None:
    """What is sent to it arrives."""

    def talk() -> Generator[Any, Any, None]:
        heard = yield "ready"
        while True:
            heard = yield heard

    @traced_tool(name="outer")
    def begun() -> Any:
        items = talk()
        next(items)
        return items

    running = begun()

    assert running.send("a") == "a"
    running.close()


def test_a_coroutine_that_somebody_else_holds_stays_theirs(events: Recorded) -> None:
    """Dropped by one, it can still be awaited by the other."""
    held = coroutine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = traced_tool(name="outer")(lambda: held)()
        del running
        gc.collect()

    assert asyncio.run(held) == [0, 1]


def test_a_task_stays_the_object_it_is(events: Recorded) -> None:
    """Its call ends when it does; what runs in it is nested."""

    async def main() -> None:
        with trace():
            tasks: list[asyncio.Task[Any]] = []

            @traced_tool(name="outer")
            def begin() -> Any:
                tasks.append(asyncio.create_task(coroutine()))
                return tasks[0]

            assert begin() is tasks[0]
            assert [row[4] for row in events.rows] == ["outer"]
            assert await tasks[0] == [0, 1]

    asyncio.run(main())

    assert events.rows[-1][:5] == ("tool_call_response", 6, 1, 1, "outer")
    assert [row[3] for row in events.rows if row[0] == "tool_call_request"] == [0, 1, 1]


def test_a_failed_task_is_still_told_to_be_unseen(events: Recorded) -> None:
    """Asyncio says that nobody retrieved the exception, as it does without us."""
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        traced_tool(name="outer")(lambda: asyncio.create_task(failing()))()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())

    assert told == ["Task exception was never retrieved"]
    assert events.rows == failed_tool("outer", {}, {"type": "ValueError", "message": "bad"})


def test_a_future_of_a_thread_pool_ends_its_call(events: Recorded) -> None:
    """In whatever thread it is done: with its result, its error, or cancelled."""
    go = threading.Event()

    def work(error: Exception | None) -> int:
        go.wait(60)
        if error is not None:
            raise error
        return 5

    with ThreadPoolExecutor(1) as pool:

        @traced_tool(name="outer")
        def submit(error: Exception | None = None) -> Future[int]:
            return pool.submit(work, error)

        good, bad, never = submit(), submit(ValueError("bad")), submit()
        assert never.cancel()
        go.set()
        assert good.result() == 5
        assert str(bad.exception()) == "bad"

    ends = [events.of(trace_id)[-1][5] for trace_id in events.traces]
    assert ends == [{"result": 5}, {"error": {"type": "ValueError", "message": "bad"}}, {"cancelled": True}]


def test_a_future_that_is_done_or_dropped_ends_its_call(events: Recorded) -> None:
    """At once, or when it goes."""
    done: Future[int] = Future()
    done.set_result(5)
    traced_tool(name="done")(lambda: done)()
    traced_tool(name="dropped")(lambda: Future())()
    gc.collect()

    assert events.rows == [*tool("done", {}, {"result": 5}), *cancelled_tool("dropped", {})]


@pytest.mark.parametrize(
    "make", [lambda: io.StringIO("a"), lambda: sqlite3.connect(":memory:").execute("select 1")]
)
def test_files_and_cursors_are_results(events: Recorded, make: Callable[[], Any]) -> None:
    """They are read otherwise than item by item, and stay what they are."""
    bare = make()
    result = traced_tool(name="outer")(lambda: bare)()

    assert result is bare
    assert [row[0] for row in events.rows] == ["tool_call_request", "tool_call_response"]
    assert "outcome" not in events.records[1]["metadata"]
    if hasattr(result, "connection"):
        result.connection.close()


def test_objects_of_a_class_that_cannot_be_hashed_are_results(events: Recorded) -> None:
    """Nobody's metaclass is a reason to lose a call."""

    class Meta(type):
        __hash__ = None  # type: ignore[assignment]

    class Thing(metaclass=Meta):
        pass

    thing = Thing()

    assert traced_tool(name="outer")(lambda: thing)() is thing
    assert [row[0] for row in events.rows] == ["tool_call_request", "tool_call_response"]


def test_an_iterator_is_pickled_and_entered_as_itself(events: Recorded) -> None:
    """Behind its proxy it is what it was."""

    class Managed(Items):
        def __enter__(self) -> Managed:
            return self

        def __exit__(self, *exc: object) -> None:
            """Do nothing."""

    assert list(pickle.loads(pickle.dumps(traced_tool(lambda: iter([1, 2]))()))) == [1, 2]
    with traced_tool(name="managed")(lambda: Managed())() as items:
        assert list(items) == [0, 1]

    assert events.of(events.traces[1])[-1][5] == {"items": [0, 1], "count": 2}


def test_a_copy_of_an_iterator_is_one_of_its_own(events: Recorded) -> None:
    """It is no part of the call, whose items are those that its own caller reads."""
    items = traced_tool(name="outer")(lambda: iter([1, [2]]))()

    assert next(items) == 1
    assert list(copy.copy(items)) == list(copy.deepcopy(items)) == list(items) == [[2]]
    assert events.rows[-1][5] == {"items": [1, [2]], "count": 2}


def test_what_a_sampled_out_call_returns_is_not_recorded_either(tmp_path: Path) -> None:
    """It runs in the call's trace, which nobody gets."""
    memory = MemoryExporter()
    with WhyOps(home=tmp_path, exporters=[memory], store=False, sample_rate=0) as sdk:
        with sdk.trace():
            running = traced_tool(lambda: generator())()
        assert list(running) == [0, 1]
        assert asyncio.run(traced_tool(lambda: coroutine())()) == [0, 1]

    assert memory.events == []


def test_callable_objects_are_followed_as_functions_are(events: Recorded) -> None:
    """They stand behind a proxy, and what they return is followed all the same."""

    class Maker:
        def __call__(self) -> Any:
            return generator()

    assert list(traced_tool(Maker())()) == [0, 1]
    assert events.rows[-1][5] == {"items": [0, 1], "count": 2}


class Stream:
    """A stream that is read in either way."""

    def __init__(self) -> None:
        self._left = ["a", "b"]

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        if not self._left:
            raise StopIteration
        return self._left.pop(0)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> str:
        await anyio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
def test_a_models_stream_that_is_read_in_either_way_is_its_answer(
    events: Recorded, asynchronous: bool
) -> None:
    """It stays of its class, and the turn ends with it."""

    @traced_llm
    def ask(messages: str) -> Stream:
        return Stream()

    async def read_all(stream: Stream) -> list[str]:
        return [item async for item in stream]

    with trace("t"):
        stream = ask("hi")
        assert isinstance(stream, Stream)
        assert (asyncio.run(read_all(stream)) if asynchronous else list(stream)) == ["a", "b"]

    assert [row[5]["content"] for row in events.rows if row[0] == "llm_response"] == ["ab"]


def test_a_tools_result_that_is_read_in_either_way_is_left_alone(events: Recorded) -> None:
    """It is whatever its owner takes it for."""

    @traced_tool
    def give() -> Stream:
        return Stream()

    assert type(give()) is Stream
