"""``with trace`` and ``with step`` in a generator: open for what runs in the generator, and for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from recorded import Recorded

from whyops_trace import Trace, WhyOps, current_trace, step, trace, traced_tool
from whyops_trace.context import UNSETTLED, get_scope, set_scope


@traced_tool
def say(label: str) -> str:
    """Do nothing; the label tells the calls apart."""
    return label


def conversation(name: str, turns: int = 3) -> Iterator[int]:
    """Open a trace, and call in it before each item."""
    with trace(name):
        for turn in range(turns):
            say(f"{name}{turn}")
            yield turn


async def aconversation(name: str, turns: int = 3) -> AsyncIterator[int]:
    """Do the same, waiting."""
    async with trace(name):
        for turn in range(turns):
            say(f"{name}{turn}")
            await anyio.sleep(0)
            yield turn


def homes(events: Recorded) -> dict[str, str]:
    """Return the trace of each call, by its label."""
    return {
        record["content"]["toolCalls"][0]["arguments"]["label"]: record["traceId"]
        for record in events.records
        if record["eventType"] == "tool_call_request"
    }


def chain(events: Recorded, trace_id: str) -> list[tuple[int, int | None, int]]:
    """Return the step, parent and ``within`` of each call of a trace."""
    return [row[1:4] for row in events.of(trace_id) if row[0] == "tool_call_request"]


def current() -> str | None:
    """Return the id of the trace that is open here."""
    here = current_trace()
    return None if here is None else here.id


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test after which calls would still look for blocks of generators."""
    yield
    gc.collect()

    assert not UNSETTLED


def test_generators_read_in_turns_keep_their_traces_apart(events: Recorded) -> None:
    """Each call belongs to the trace of its own generator, and follows the one before."""
    for _ in zip(conversation("A"), conversation("B"), strict=True):
        pass

    assert {label[0] for label, home in homes(events).items() if home == "A"} == {"A"}
    assert {label[0] for label, home in homes(events).items() if home == "B"} == {"B"}
    assert chain(events, "A") == chain(events, "B") == [(1, None, 0), (3, 2, 0), (5, 4, 0)]
    assert get_scope() is None


def test_a_consumers_calls_are_its_own(events: Recorded) -> None:
    """Outside any trace, and in the trace that it opened itself."""
    for turn in conversation("A"):
        say(f"outside{turn}")
        assert current() is None
    with trace("mine"):
        say("before")
        for turn in conversation("B"):
            say(f"mine{turn}")
            assert current() == "mine"
        say("after")

    assert len(events.traces) == 6
    assert {label for label, home in homes(events).items() if home == "A"} == {"A0", "A1", "A2"}
    assert {label for label, home in homes(events).items() if home == "B"} == {"B0", "B1", "B2"}
    assert chain(events, "mine") == [(1, None, 0), (3, 2, 0), (5, 4, 0), (7, 6, 0), (9, 8, 0)]


def test_a_step_in_a_generator_is_open_for_the_generator_only(events: Recorded) -> None:
    """Both are in one trace."""

    def pages() -> Iterator[int]:
        with step("read"):
            yield 1
            say("page")
            yield 2

    with trace("t"):
        for number in pages():
            say(f"consumer{number}")
        say("after")

    within = {
        record["content"]["toolCalls"][0]["arguments"]["label"]: record["metadata"]["within"]
        for record in events.records
        if record["eventType"] == "tool_call_request"
    }

    assert within == {"consumer1": 0, "page": 1, "consumer2": 0, "after": 0}


def kept_by_a_loop() -> Any:
    reading = conversation("A")
    for _ in reading:
        break
    return reading


def kept_by_next() -> Any:
    reading = conversation("A")
    next(reading)
    return reading


def kept_inside_another() -> Any:
    def passing() -> Iterator[int]:
        yield from conversation("A")

    reading = passing()
    next(reading)
    return reading


def kept_by_a_class() -> Any:
    class Reader:
        def __init__(self) -> None:
            self.items = conversation("A")

        def __next__(self) -> int:
            return next(self.items)

    reading = Reader()
    next(reading)
    return reading


KEPT = [kept_by_a_loop, kept_by_next, kept_inside_another, kept_by_a_class]


@pytest.mark.parametrize("keep", KEPT)
def test_a_generator_that_is_kept_changes_nothing(events: Recorded, keep: Callable[[], Any]) -> None:
    """Neither while it is suspended, nor once it is gone."""
    with trace("mine"):
        reading = keep()
        say("suspended")
        del reading
        gc.collect()
        say("gone")
    say("outside")
    found = homes(events)

    assert found["suspended"] == found["gone"] == "mine"
    assert found["outside"] not in ("mine", "A")
    assert [record["eventType"] for record in events.records if record["traceId"] == "A"][-1] == "trace_end"


def test_a_generator_kept_beyond_the_trace_of_its_reader_goes_on(events: Recorded) -> None:
    """Whatever has been opened and left meanwhile."""
    with trace("first"):
        reading = conversation("A")
        next(reading)
    with trace("second"):
        next(reading)
        say("second")
    say("outside")
    list(reading)
    say("end")
    found = homes(events)

    assert {found[label] for label in ("A0", "A1", "A2")} == {"A"}
    assert found["second"] == "second"
    assert {found["outside"], found["end"]}.isdisjoint({"A", "first", "second"})


def test_generators_that_read_each_other_are_nested(events: Recorded) -> None:
    """The inner one is a step within the outer one's trace."""

    def inner() -> Iterator[int]:
        with step("inner"):
            for number in range(2):
                say(f"inner{number}")
                yield number

    def outer() -> Iterator[int]:
        with trace("A"):
            for number in inner():
                say(f"outer{number}")
                yield number

    for number in outer():
        say(f"consumer{number}")
    found = homes(events)
    steps = {row[1]: row[3] for row in events.of("A") if row[0] == "tool_call_request"}

    assert {label for label, home in found.items() if home == "A"} == {"inner0", "outer0", "inner1", "outer1"}
    assert list(steps.values()) == [1, 0, 1, 0]


def test_a_thread_is_free_of_the_generator_that_it_read(events: Recorded) -> None:
    """Its later work belongs to no trace, and another thread may read on."""
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        reading = conversation("A")
        one.submit(next, reading).result()
        one.submit(say, "one").result()
        other.submit(next, reading).result()
        other.submit(say, "other").result()
        one.submit(list, reading).result()
        other.submit(say, "late").result()
        assert one.submit(get_scope).result() is None
    found = homes(events)

    assert {label for label, home in found.items() if home == "A"} == {"A0", "A1", "A2"}
    assert len({found["one"], found["other"], found["late"]}) == 3
    assert chain(events, "A") == [(1, None, 0), (3, 2, 0), (5, 4, 0)]


def test_items_may_be_read_in_fresh_contexts(events: Recorded) -> None:
    """Each in one of its own, as web frameworks do."""
    reading = conversation("A")
    for _ in range(3):
        contextvars.Context().run(next, reading)
    with pytest.raises(StopIteration):
        contextvars.Context().run(next, reading)

    assert set(homes(events).values()) == {"A"}
    assert chain(events, "A") == [(1, None, 0), (3, 2, 0), (5, 4, 0)]


def test_what_a_generator_starts_belongs_to_its_block(events: Recorded) -> None:
    """In the context that it copies, and in an empty one as long as it waits for it."""

    def starting() -> Iterator[None]:
        with trace("A"):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(say, "thread"))
            thread.start()
            thread.join()
            contextvars.Context().run(say, "empty")
            yield
            say("later")

    list(starting())

    assert set(homes(events).values()) == {"A"}


@pytest.mark.anyio
async def test_asynchronous_generators_keep_their_traces_apart(events: Recorded) -> None:
    """As plain ones do, from each other and from their consumer."""
    first, second = aconversation("A"), aconversation("B")
    async with trace("mine"):
        async for turn in first:
            await anext(second)
            say(f"mine{turn}")
        assert await anext(second, None) is None

    found = homes(events)

    assert {label[:-1] for label, home in found.items() if home == "A"} == {"A"}
    assert {label[:-1] for label, home in found.items() if home == "B"} == {"B"}
    assert {label[:-1] for label, home in found.items() if home == "mine"} == {"mine"}
    assert chain(events, "A") == chain(events, "B") == [(1, None, 0), (3, 2, 0), (5, 4, 0)]


@pytest.mark.anyio
async def test_an_asynchronous_generator_left_early_changes_nothing(events: Recorded) -> None:
    """Nor does the closing of it, in whatever task."""
    reading = aconversation("A")
    async for _ in reading:
        break
    say("suspended")
    async with trace("mine"), anyio.create_task_group() as group:
        group.start_soon(reading.aclose)  # type: ignore[attr-defined]
    say("closed")
    found = homes(events)

    assert found["A0"] == "A"
    assert {found["suspended"], found["closed"]}.isdisjoint({"A", "mine"})
    assert current() is None


@pytest.mark.anyio
async def test_tasks_of_an_asynchronous_generator_belong_to_its_block(events: Recorded) -> None:
    """So do calls in the threads of the loop."""

    async def work(label: str) -> None:
        await anyio.sleep(0)
        say(label)

    async def agent() -> AsyncIterator[str]:
        async with trace("A"):
            yield "begin"
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(work, f"task{number}")
            await anyio.to_thread.run_sync(say, "thread")
            yield "end"

    async for _ in agent():
        pass

    assert homes(events) == dict.fromkeys(["task0", "task1", "task2", "thread"], "A")


@pytest.mark.anyio
async def test_tasks_may_read_one_asynchronous_generator_in_turns(events: Recorded) -> None:
    """None of them is in its block afterwards."""
    reading = aconversation("A")

    async def read(label: str) -> None:
        await anext(reading)
        say(label)

    async with anyio.create_task_group() as group:
        group.start_soon(read, "one")
    async with anyio.create_task_group() as group:
        group.start_soon(read, "two")
    await read("three")
    assert await anext(reading, None) is None
    say("end")
    found = homes(events)

    assert {label for label, home in found.items() if home == "A"} == {"A0", "A1", "A2"}
    assert len({found[label] for label in ("one", "two", "three", "end")}) == 4


@contextlib.contextmanager
def request(name: str) -> Iterator[Trace]:
    """Open a trace for the code in the block."""
    with trace(name) as opened:
        say(f"enter {name}")
        yield opened
        say(f"leave {name}")


@contextlib.asynccontextmanager
async def arequest(name: str) -> AsyncIterator[None]:
    """Do the same asynchronously, in a block within a block."""
    async with trace(name):
        with request(name):
            yield


class Request:
    """The same as a class."""

    def __init__(self, name: str) -> None:
        self.trace = trace(name)

    def __enter__(self) -> None:
        self.trace.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self.trace.__exit__(*exc)


@contextlib.contextmanager
def stacked(name: str) -> Iterator[None]:
    """The same with a stack."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(trace(name))
        yield


@contextlib.contextmanager
def delegated(name: str) -> Iterator[None]:
    """The same by a generator of its own."""

    def opened() -> Iterator[None]:
        with trace(name):
            yield

    yield from opened()


MANAGERS = [request, Request, stacked, delegated]


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_context_manager_made_of_a_generator_is_open_for_its_block(
    events: Recorded, manager: Callable[[str], Any]
) -> None:
    """As the trace that it opens would be."""
    with manager("A"):
        say("inside")
        with manager("B"):
            say("nested")
        say("again")
    say("outside")
    found = homes(events)

    assert (found["inside"], found["nested"], found["again"]) == ("A", "B", "A")
    assert found["outside"] not in ("A", "B")


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_context_manager_in_a_generator_is_open_for_the_generator(
    events: Recorded, manager: Callable[[str], Any]
) -> None:
    """And for nobody else."""

    def reading() -> Iterator[int]:
        with manager("A"):
            yield 0
            say("reading")
            yield 1

    with trace("mine"):
        for number in reading():
            say(f"mine{number}")
    found = homes(events)

    assert found["reading"] == "A"
    assert found["mine0"] == found["mine1"] == "mine"


@pytest.mark.anyio
async def test_an_asynchronous_context_manager_is_open_for_its_block(events: Recorded) -> None:
    """Directly, in a stack, and in an asynchronous generator."""

    async def reading() -> AsyncIterator[int]:
        async with arequest("C"):
            yield 0
            say("reading")
            yield 1

    async with arequest("A"):
        say("inside")
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(arequest("B"))
            say("stack")
        async for number in reading():
            say(f"inside{number}")
    say("outside")
    found = homes(events)

    assert {found[label] for label in ("inside", "inside0", "inside1", "enter A", "leave A")} == {"A"}
    assert found["stack"] == "B"
    assert found["reading"] == "C"
    assert found["outside"] not in ("A", "B", "C")


@pytest.fixture
def opened(events: Recorded) -> Iterator[Trace]:
    """Open a trace for a test."""
    with trace("fixture") as opened:
        yield opened


def test_a_fixture_of_pytest_is_open_for_the_test(events: Recorded, opened: Trace) -> None:
    """Though the test is run by somebody else."""
    say("test")

    assert current() == opened.id
    assert homes(events) == {"test": "fixture"}


@pytest.fixture
async def aopened(events: Recorded) -> AsyncIterator[Trace]:
    """Open a trace for an asynchronous test."""
    async with trace("fixture") as opened:
        yield opened


@pytest.mark.anyio
async def test_an_asynchronous_fixture_is_open_for_the_test(events: Recorded, aopened: Trace) -> None:
    """Where the fixtures and the test run in one task, as anyio has it."""
    say("test")

    assert homes(events) == {"test": aopened.id}


def test_events_by_hand_and_joined_traces_stand_where_they_are_called(events: Recorded) -> None:
    """In the block of the generator, or outside of it."""

    def reading() -> Iterator[Trace]:
        with trace("A") as opened:
            say("first")
            yield opened
            opened.user_message_sync([{"role": "user", "content": "inside"}])
            with trace() as joined:
                assert joined.id == "A"
                say("joined")
            yield opened

    for opened in reading():
        assert current() is None
        opened.error_sync("outside")

    assert [row[:4] for row in events.of("A") if row[0] != "tool_call_response"] == [
        ("tool_call_request", 1, None, 0),
        ("error", 3, 1, 0),
        ("user_message", 4, 2, 0),
        ("llm_thinking", 5, 4, 0),
        ("tool_call_request", 6, 5, 5),
        ("error", 8, 3, 0),
    ]


def test_a_traced_generator_with_blocks_in_its_body_is_left_as_it_is(events: Recorded) -> None:
    """Its calls are within the step, which is within its call."""

    @traced_tool
    def pages(label: str) -> Iterator[int]:
        with step("read"):
            for number in range(2):
                say(f"page{number}")
                yield number

    with trace("t"):
        for number in pages("pages"):
            say(f"consumer{number}")

    assert [row[3] for row in events.rows if row[0] == "tool_call_request"] == [0, 2, 0, 2, 0]


def test_a_trace_that_is_off_hides_nothing_of_the_consumers(events: Recorded) -> None:
    """Only what runs in the generator is left out."""
    WhyOps(agent_name="default")
    sdk = WhyOps(agent_name="off", tracing="off")

    def reading() -> Iterator[int]:
        with sdk.trace("A"):
            yield 0
            say("left out")
            yield 1

    for number in reading():
        say(f"consumer{number}")

    assert set(homes(events)) == {"consumer0", "consumer1"}


def test_an_exception_thrown_in_leaves_the_block(events: Recorded) -> None:
    """Whoever throws it is where it was."""

    def reading() -> Generator[int, None, None]:
        with trace("A"):
            say("A")
            yield 0

    it = reading()
    next(it)
    with trace("mine"):
        with pytest.raises(ValueError, match="thrown"):
            it.throw(ValueError("thrown"))
        say("mine")

    assert homes(events) == {"A": "A", "mine": "mine"}
    assert [row[6:] for row in events.all_rows if row[0] == "trace_end"] == [({"outcome": "error"},), ()]


def test_a_block_left_elsewhere_leaves_what_is_current_there(events: Recorded) -> None:
    """The trace and the step of somebody else stay open."""
    left_trace, left_step = trace("left"), step("left")
    here = contextvars.copy_context()
    here.run(left_trace.__enter__)
    here.run(left_step.__enter__)
    with trace("mine"), step("mine"):
        left_step.__exit__(None, None, None)
        say("after the step")
        left_trace.__exit__(None, None, None)
        say("after the trace")

    assert set(homes(events).values()) == {"mine"}
    assert chain(events, "mine") == [(2, 1, 1), (4, 1, 1)]


def test_a_step_left_in_another_task_of_its_trace_leaves_that_where_it_is(events: Recorded) -> None:
    """At the top, or in a step that was open before."""
    late = step("late")

    async def enter() -> None:
        late.__enter__()

    async def main() -> None:
        async with trace("t"), step("around"):
            await asyncio.create_task(enter())
            late.__exit__(None, None, None)
            say("after")

    asyncio.run(main())

    assert chain(events, "t") == [(3, 1, 1)]


def test_a_coroutine_closed_elsewhere_leaves_what_is_current_there(events: Recorded) -> None:
    """Its call is recorded as cancelled in its own trace."""

    @traced_tool
    async def waiting(label: str) -> None:
        await asyncio.sleep(0)

    coroutine = waiting("waiting")

    def begin() -> None:
        with trace("A"):
            coroutine.send(None)

    contextvars.copy_context().run(begin)
    with trace("mine"):
        coroutine.close()
        say("mine")

    assert homes(events) == {"waiting": "A", "mine": "mine"}
    set_scope(None)
