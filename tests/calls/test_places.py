"""The place of a call that runs later than it was made: that of its first run, or of the call if no trace is open."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from recorded import Recorded

from whyops_trace import WhyOps, current_trace, step, trace, traced_llm, traced_tool
from whyops_trace.context import get_scope
from whyops_trace.store import Store
from whyops_trace.tree import build


@traced_tool
def leaf() -> str | None:
    """Tell the trace that is open."""
    here = current_trace()
    return None if here is None else here.id


@traced_tool
def words() -> Iterator[str]:
    """Call a leaf before each item."""
    for word in ("a", "b"):
        leaf()
        yield word


@traced_tool
async def awords() -> AsyncIterator[str]:
    """Do the same, waiting."""
    for word in ("a", "b"):
        leaf()
        await anyio.sleep(0)
        yield word


@traced_tool
async def ask() -> str:
    """Call a leaf."""
    await anyio.sleep(0)
    leaf()
    return "answer"


async def read(items: AsyncIterator[str]) -> None:
    """Read an asynchronous generator to its end."""
    assert [item async for item in items] == ["a", "b"]


#: Rows of a call that was made after one call in its trace, and runs two leaves.
LATE = [
    ("tool_call_request", 1, None, 0, "leaf"),
    ("tool_call_response", 2, 1, 1, "leaf"),
    ("tool_call_request", 3, 2, 0, "words"),
    ("tool_call_request", 4, 3, 3, "leaf"),
    ("tool_call_response", 5, 4, 4, "leaf"),
    ("tool_call_request", 6, 3, 3, "leaf"),
    ("tool_call_response", 7, 6, 6, "leaf"),
    ("tool_call_response", 8, 3, 3, "words"),
]


def test_a_generator_read_after_the_trace_keeps_the_place_of_its_call(events: Recorded) -> None:
    """What runs in it is nested, and its reader is in no trace."""
    with trace("t"):
        leaf()
        items = words()
    for _ in items:
        assert get_scope() is None

    assert events.wheres() == LATE
    assert [record.get("end") for record in events.records][2:] == [True, *[None] * 5, True]


def test_each_item_may_be_read_in_a_thread_and_a_context_of_its_own(events: Recorded) -> None:
    """As Starlette reads plain generators."""
    with trace("t"):
        leaf()
        items = words()
    got: list[str | None] = []
    while not got or got[-1] is not None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: got.append(context.run(next, items, None)))  # noqa: B023
        thread.start()
        thread.join()

    assert got == ["a", "b", None]
    assert events.wheres() == LATE


@pytest.mark.anyio
async def test_an_asynchronous_generator_read_after_the_trace_keeps_its_place(events: Recorded) -> None:
    """In this task, or in another one."""
    async with trace("t"):
        first, second = awords(), awords()
    await read(first)
    async with anyio.create_task_group() as group:
        group.start_soon(read, second)

    assert events.traces == ["t"]
    assert [row[1:4] for row in events.rows if row[4] == "awords"] == [
        (1, None, 0),
        (6, 1, 1),
        (7, 1, 0),
        (12, 7, 7),
    ]


@pytest.mark.anyio
async def test_a_coroutine_awaited_after_the_trace_keeps_its_place(events: Recorded) -> None:
    """So does what it calls."""
    async with trace("t"), step("plan"):
        asked = ask()

    assert await asked == "answer"
    assert events.traces == ["t"]
    assert [row[:4] for row in events.rows] == [
        ("llm_thinking", 1, None, 0),
        ("tool_call_request", 2, 1, 1),
        ("tool_call_request", 3, 2, 2),
        ("tool_call_response", 4, 3, 3),
        ("tool_call_response", 5, 2, 2),
    ]


def test_a_generator_read_in_another_trace_belongs_to_that(events: Recorded) -> None:
    """The place of the first item comes before that of the call."""
    with trace("made"):
        items = words()
    with trace("read"):
        list(items)

    assert events.traces == ["read"]


def test_a_generator_made_outside_any_trace_makes_its_own(events: Recorded) -> None:
    """As any call there, and it ends with it."""
    list(words())

    assert len(events.traces[0]) == 32
    assert events.records[-1]["end"] is True


def test_a_trace_that_comes_back_goes_on_after_a_late_call(events: Recorded) -> None:
    """The next turn of a conversation follows from what was streamed."""
    with trace("t"):
        leaf()
        items = words()
    list(items)
    with trace("t"):
        leaf()

    assert events.wheres() == [
        *LATE,
        ("tool_call_request", 9, 3, 0, "leaf"),
        ("tool_call_response", 10, 9, 9, "leaf"),
    ]


def test_a_late_call_within_a_step_is_nobodys_parent(events: Recorded) -> None:
    """The next turn follows from the step."""
    with trace("t"):
        with step("plan"):
            items = words()
    list(items)
    with trace("t"):
        leaf()

    assert events.wheres()[-2:] == [
        ("tool_call_request", 8, 1, 0, "leaf"),
        ("tool_call_response", 9, 8, 8, "leaf"),
    ]


def test_a_late_call_of_a_trace_that_is_off_is_off(events: Recorded) -> None:
    """So is what runs in it."""
    WhyOps(agent_name="default")
    with WhyOps(agent_name="off", tracing="off").trace("t"):
        items = words()

    assert list(items) == ["a", "b"]
    assert events.records == []


def test_a_late_turn_is_told_with_its_answer(events: Recorded) -> None:
    """Its chunks are put together as in an open trace."""

    @traced_llm(model="m")
    def answer(prompt: str) -> Iterator[str]:
        yield from ("Hel", "lo.")

    with trace("t"):
        said = answer("Say hello.")
    assert "".join(said) == "Hello."

    assert [(row[0], row[3]) for row in events.rows] == [("user_message", 0), ("llm_response", 1)]
    assert events.rows[1][5]["content"] == "Hello."


@pytest.mark.parametrize("make", [words, awords], ids=["plain", "asynchronous"])
def test_a_generator_that_is_never_read_records_nothing(events: Recorded, make: Callable[[], Any]) -> None:
    """Its body never ran."""
    with trace("t"):
        make()

    assert events.records == []


def test_a_call_that_is_late_while_the_block_is_open_does_not_end_the_trace(events: Recorded) -> None:
    """It was only read where no trace is open."""
    with trace("t"):
        items = words()
        contextvars.Context().run(list, items)
        leaf()

    assert [record.get("end") for record in events.records] == [*[None] * 8, True]


def test_late_events_are_in_the_tree_of_a_stored_trace(tmp_path: Path) -> None:
    """The trace had ended before they came, and has ended again afterwards."""
    sdk = WhyOps(agent_name="shop", home=tmp_path)
    with sdk.trace("t"):
        leaf()
        items = words()
    sdk.flush_sync()
    next(items)
    sdk.flush_sync()
    store = Store(tmp_path / "traces.db")
    before = store.trace("t")
    list(items)
    sdk.close_sync()
    after = store.trace("t")
    tree = build(store.events("t"))
    store.close()

    assert (before.ended, before.open_calls) == (True, 1)
    assert (after.ended, after.open_calls) == (True, 0)
    assert [(node.name, len(node.children)) for node in tree.nodes] == [("leaf", 0), ("words", 2)]
    assert tree.running == 0
