"""Which event an event follows: nesting, flows that fork, tasks and threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from recorded import Recorded

from whyops_trace import propagate, propagate_threads, step, trace, traced_tool
from whyops_trace.context import get_scope

#: Whether a thread begins with the context of who starts it, as without the global lock.
INHERITS = bool(getattr(sys.flags, "thread_inherit_context", False))
own_threads = pytest.mark.skipif(
    INHERITS, reason="Here a pool's threads begin with the scope of who starts them."
)


@traced_tool
def leaf() -> None:
    """Do nothing."""


@traced_tool
async def branch(name: str) -> str:
    """Wait, call a leaf, wait again."""
    await anyio.lowlevel.checkpoint()
    leaf()
    await anyio.lowlevel.checkpoint()
    return name


@traced_tool
def items() -> Iterator[int]:
    """Call a leaf before each item."""
    for n in range(3):
        leaf()
        yield n


@traced_tool
async def aitems() -> AsyncIterator[int]:
    """Do the same, waiting."""
    for n in range(3):
        leaf()
        await anyio.lowlevel.checkpoint()
        yield n


def requests(events: Recorded, name: str) -> list[tuple[int | None, int]]:
    """Return ``(parent, within)`` of each call of a name."""
    return [(row[2], row[3]) for row in events.rows if row[0] == "tool_call_request" and row[4] == name]


def test_calls_at_the_top_follow_one_another(events: Recorded) -> None:
    """The parent of a call is the event before it in the flow; a response's is its request."""
    with trace():
        leaf()
        leaf()

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "leaf"),
        ("tool_call_response", 2, 1, 1, "leaf"),
        ("tool_call_request", 3, 2, 0, "leaf"),
        ("tool_call_response", 4, 3, 3, "leaf"),
    ]


def test_calls_inside_a_call_have_its_request_as_parent(events: Recorded) -> None:
    """However many there are."""

    @traced_tool
    def outer() -> None:
        leaf()
        with step("plan"):
            leaf()
        leaf()

    with trace():
        outer()
        leaf()

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "outer"),
        ("tool_call_request", 2, 1, 1, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
        ("llm_thinking", 4, 1, 1, "plan"),
        ("tool_call_request", 5, 4, 4, "leaf"),
        ("tool_call_response", 6, 5, 5, "leaf"),
        ("tool_call_request", 7, 1, 1, "leaf"),
        ("tool_call_response", 8, 7, 7, "leaf"),
        ("tool_call_response", 9, 1, 1, "outer"),
        ("tool_call_request", 10, 9, 0, "leaf"),
        ("tool_call_response", 11, 10, 10, "leaf"),
    ]


def test_calls_outside_any_trace_make_traces_of_their_own(events: Recorded) -> None:
    """What runs inside such a call belongs to it."""

    @traced_tool
    def outer() -> None:
        leaf()

    outer()
    leaf()

    assert len(events.traces) == 2
    assert all(len(trace_id) == 32 for trace_id in events.traces)
    assert events.of(events.traces[0]) == [
        ("tool_call_request", 1, None, 0, "outer", {}),
        ("tool_call_request", 2, 1, 1, "leaf", {}),
        ("tool_call_response", 3, 2, 2, "leaf", {"result": None}),
        ("tool_call_response", 4, 1, 1, "outer", {"result": None}),
    ]
    assert [record.get("end") for record in events.records] == [None, None, None, True, None, True]


def test_gathered_branches_share_the_event_they_forked_from(events: Recorded) -> None:
    """Afterwards the flow goes on from there."""

    async def main() -> None:
        async with trace():
            leaf()
            assert list(await asyncio.gather(branch("a"), branch("b"), branch("c"))) == ["a", "b", "c"]
            leaf()

    asyncio.run(main())

    assert requests(events, "branch") == [(2, 0)] * 3
    assert requests(events, "leaf")[0] == (None, 0)
    assert requests(events, "leaf")[-1] == (2, 0)


def test_tasks_of_a_task_group_share_the_event_they_forked_from(events: Recorded) -> None:
    """As gathered ones do."""

    async def main() -> None:
        async with trace():
            leaf()
            async with asyncio.TaskGroup() as group:
                group.create_task(branch("a"))
                group.create_task(branch("b"))

    asyncio.run(main())

    assert requests(events, "branch") == [(2, 0)] * 2


def test_a_task_belongs_to_the_trace_it_was_made_in(events: Recorded) -> None:
    """Even if it runs after the block."""

    async def main() -> None:
        async with trace("made-here"):
            leaf()
            task = asyncio.create_task(branch("a"))
        async with trace("another"):
            leaf()
            await task

    asyncio.run(main())

    assert [row[4] for row in events.of("made-here")] == ["leaf", "leaf", "branch", "leaf", "leaf", "branch"]
    assert [row[4] for row in events.of("another")] == ["leaf", "leaf"]


@pytest.mark.anyio
async def test_tasks_of_an_anyio_group_keep_their_nesting(events: Recorded) -> None:
    """On both event loops: each branch's leaf is its own."""
    async with trace():
        leaf()
        with step("fan out"):
            async with anyio.create_task_group() as group:
                for name in "abcde":
                    group.start_soon(branch, name)
        leaf()

    assert requests(events, "branch") == [(3, 3)] * 5
    branches = [row[1] for row in events.rows if row[0] == "tool_call_request" and row[4] == "branch"]
    leaves = requests(events, "leaf")

    assert leaves[0] == (None, 0)
    assert sorted(leaves[1:-1]) == [(branch, branch) for branch in branches]
    assert leaves[-1] == (3, 0)


@pytest.mark.anyio
async def test_a_call_in_a_worker_thread_of_the_loop_keeps_its_place(events: Recorded) -> None:
    """anyio copies the context, as ``asyncio.to_thread`` does."""
    async with trace():
        with step("plan"):
            await anyio.to_thread.run_sync(leaf)

    assert requests(events, "leaf") == [(1, 1)]


def test_to_thread_keeps_the_place(events: Recorded) -> None:
    """asyncio's own."""

    async def main() -> None:
        async with trace():
            with step("plan"):
                await asyncio.gather(asyncio.to_thread(leaf), asyncio.to_thread(leaf))

    asyncio.run(main())

    assert requests(events, "leaf") == [(1, 1), (1, 1)]


@own_threads
def test_a_propagated_function_runs_in_the_scope_it_was_made_in(events: Recorded) -> None:
    """In any thread, which has its own scope back afterwards."""
    after = []

    with ThreadPoolExecutor(1) as pool, trace():
        with step("plan"):
            carried = propagate(leaf)
        pool.submit(carried).result()
        after.append(pool.submit(get_scope).result())

    assert requests(events, "leaf") == [(1, 1)]
    assert after == [None]


def test_a_propagated_function_keeps_result_error_and_name() -> None:
    """It is called as the bare one."""

    def double(x: int) -> int:
        """Return twice the number."""
        return 2 * x

    carried = propagate(double)

    assert carried(2) == 4
    assert carried.__name__ == "double"
    with pytest.raises(TypeError):
        carried()  # type: ignore[call-arg]
    assert get_scope() is None


@pytest.fixture
def submit() -> Iterator[Callable[..., Any]]:
    """Return the ``submit`` that thread pools have, and fail a test that leaves another one."""
    original = ThreadPoolExecutor.submit
    yield original

    assert ThreadPoolExecutor.submit is original


@pytest.mark.usefixtures("submit")
@own_threads
def test_pools_carry_the_scope_until_it_is_undone(events: Recorded, said: Callable[[], list[str]]) -> None:
    """``submit``, ``map`` and so ``run_in_executor``."""
    with ThreadPoolExecutor(2) as pool, trace():
        with propagate_threads(), step("plan"):
            pool.submit(leaf).result()
            list(pool.map(lambda n: leaf(), range(2)))
        assert said() == []
        pool.submit(leaf).result()

    assert requests(events, "leaf") == [(1, 1), (1, 1), (1, 1), (None, 0)]
    assert len(events.traces) == 2


@pytest.mark.usefixtures("submit")
def test_run_in_executor_carries_the_scope(events: Recorded) -> None:
    """With the loop's default executor."""

    async def main() -> None:
        async with trace():
            with step("plan"):
                await asyncio.get_running_loop().run_in_executor(None, leaf)

    with propagate_threads():
        asyncio.run(main())

    assert requests(events, "leaf") == [(1, 1)]


def test_undoing_twice_does_nothing_more(submit: Callable[..., Any]) -> None:
    """The first time puts back what was there."""
    carrying = propagate_threads()
    patched = ThreadPoolExecutor.submit
    carrying.undo()

    assert patched is not submit
    assert ThreadPoolExecutor.submit is submit
    carrying.undo()
    assert ThreadPoolExecutor.submit is submit


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_several_can_be_undone_in_any_order(
    events: Recorded, submit: Callable[..., Any], order: tuple[int, ...]
) -> None:
    """The scope is carried until the last one is."""
    carrying = [propagate_threads() for _ in range(3)]
    with ThreadPoolExecutor(1) as pool, trace():
        with step("plan"):
            for index in order:
                pool.submit(leaf).result()
                carrying[index].undo()

    assert ThreadPoolExecutor.submit is submit
    assert requests(events, "leaf") == [(1, 1)] * 3


@own_threads
def test_somebody_elses_patch_on_top_stays(
    events: Recorded, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undoing under it only stops carrying the scope."""
    carrying = propagate_threads()
    below = ThreadPoolExecutor.submit

    def theirs(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any) -> Any:
        return below(pool, function, *args)

    ThreadPoolExecutor.submit = theirs  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(1) as pool, trace():
        with step("plan"):
            pool.submit(leaf).result()
            carrying.undo()
            pool.submit(leaf).result()
    kept = ThreadPoolExecutor.submit
    ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]

    assert kept is theirs
    assert requests(events, "leaf") == [(1, 1), (None, 0)]


@own_threads
@pytest.mark.parametrize("executor", ["pool", "loop"])
def test_a_pool_thread_that_lost_the_scope_says_so_once(
    events: Recorded, said: Callable[[], list[str]], executor: str
) -> None:
    """Its calls make traces of their own; the warning names what helps."""

    async def in_loop() -> None:
        with trace("open"):
            for _ in range(3):
                await asyncio.get_running_loop().run_in_executor(None, leaf)

    if executor == "loop":
        asyncio.run(in_loop())
    else:
        with ThreadPoolExecutor(1) as pool, trace("open"):
            for _ in range(3):
                pool.submit(leaf).result()

    assert len(events.traces) == 3
    assert len(said()) == 1
    assert said()[0].startswith("leaf was called in thread ")
    assert "propagate_threads()" in said()[0]


@pytest.mark.skipif(not INHERITS, reason="Here a thread begins without a scope.")
def test_a_thread_begins_in_the_scope_it_was_started_in(events: Recorded) -> None:
    """Where Python has it so."""
    with trace(), step("plan"):
        thread = threading.Thread(target=leaf)
        thread.start()
        thread.join()

    assert requests(events, "leaf") == [(1, 1)]


def test_a_pool_thread_says_nothing_while_no_trace_is_open(
    events: Recorded, said: Callable[[], list[str]]
) -> None:
    """There is no scope to lose."""
    with trace("closed"):
        leaf()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(leaf).result()

    assert said() == []


def test_under_load_every_trace_is_whole(events: Recorded) -> None:
    """Two hundred tasks and eight threads at once; the fixture checks order, parents and times of every record."""

    def in_thread() -> None:
        for _ in range(40):
            leaf()
            list(items())

    async def one(name: str) -> None:
        await branch(name)
        async for _ in aitems():
            leaf()

    async def main() -> None:
        async with trace("busy") as busy:
            await busy.user_message([{"role": "user", "content": "go"}])
            threads = [
                threading.Thread(target=contextvars.copy_context().run, args=(in_thread,)) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            await asyncio.gather(*(one(str(n)) for n in range(200)))
            for thread in threads:
                thread.join()

    asyncio.run(main())
    rows = events.of("busy")
    requested = [row[1] for row in rows if row[0] == "tool_call_request"]
    answered = [row[2] for row in rows if row[0] == "tool_call_response"]

    assert events.traces == ["busy"]
    assert [row[1] for row in rows] == list(range(1, len(rows) + 1))
    assert len(requested) == 8 * 40 * 5 + 200 * (2 + 1 + 6)
    assert sorted(answered) == requested
    assert {within for _, within in requests(events, "branch")} == {0}
    assert {parent for parent, _ in requests(events, "branch")} == {1}


def test_propagate_carries_the_scope_into_a_coroutine_of_another_loop(events: Recorded) -> None:
    """Its body runs later, in another thread's event loop, and still belongs to the trace."""

    async def work() -> None:
        leaf()

    with trace("t"), ThreadPoolExecutor() as pool:
        carried = propagate(work)
        pool.submit(lambda: asyncio.run(carried())).result()

    assert inspect.iscoroutinefunction(carried)
    assert events.traces == ["t"]
