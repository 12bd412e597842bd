"""What a traced call does to the values that pass through it: nothing, at any time."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import unittest.mock
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import Recorded, tool

from whyops_trace import (
    ConfigurationError,
    WhyOps,
    current_trace,
    step,
    trace,
    traced_embedding,
    traced_llm,
    traced_tool,
)

DECORATORS = pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])


class Thing:
    """Something that can be referred to weakly."""


class Touchy:
    """Says no to whoever touches it."""

    def _refuse(self, *args: Any) -> Any:
        raise AssertionError("touched")

    __getattr__ = __len__ = __bool__ = __eq__ = __iter__ = __repr__ = __str__ = __hash__ = _refuse
    __getitem__ = __contains__ = __call__ = __format__ = __index__ = __float__ = _refuse
    __copy__ = __deepcopy__ = __reduce_ex__ = __dir__ = __sizeof__ = _refuse


@DECORATORS
def test_no_method_of_an_argument_or_result_is_called(events: Recorded, decorate: Any) -> None:
    """Neither its own, nor special ones."""

    @decorate
    def passing(text: Any, other: Any = None) -> Any:
        return text

    value = Touchy()
    result = passing(value, other=value)

    assert result is value
    assert len(events.rows) == 2


@DECORATORS
def test_a_mock_counts_no_calls_of_ours(events: Recorded, decorate: Any) -> None:
    """Nor attributes that were asked for."""
    mock = unittest.mock.MagicMock()
    passing = decorate(lambda text: text)

    assert passing(mock) is mock
    assert mock.mock_calls == []
    assert mock._mock_children.keys() <= set(unittest.mock.MagicMock()._mock_children)


@DECORATORS
def test_a_lazy_proxy_stays_unresolved(events: Recorded, decorate: Any) -> None:
    """What it stands for may be costly."""
    resolved = []

    class Lazy:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            resolved.append("class")
            return dict

        @property
        def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
            resolved.append("dict")
            return {}

        def __getattribute__(self, name: str) -> Any:
            resolved.append(name)
            return object.__getattribute__(self, name)

    decorate(lambda text: text)(Lazy())

    assert resolved == []


@DECORATORS
def test_iterators_are_not_consumed(events: Recorded, decorate: Any) -> None:
    """Neither arguments nor results."""
    passing = decorate(lambda text: text)
    items = passing(iter([1, 2, 3]))
    made = passing(n for n in range(3))

    assert list(items) == [1, 2, 3]
    assert list(made) == [0, 1, 2]


def test_a_later_mutation_changes_nothing(events: Recorded) -> None:
    """Arguments, results, items, errors and metadata are recorded as they were at the call."""
    about = {"tier": [1]}
    state = {"n": 1}

    @traced_tool(metadata=about)
    def change(value: dict[str, int]) -> dict[str, int]:
        value["n"] += 1
        return value

    @traced_tool
    def items(value: dict[str, int]) -> Iterator[dict[str, int]]:
        for _ in range(2):
            value["n"] += 1
            yield value

    about["tier"].append(2)
    change(state)
    state["n"] = 10
    list(items(state))
    state["n"] = 99

    assert events.rows == [
        ("tool_call_request", 1, None, 0, "change", {"value": {"n": 1}}, {"tier": [1]}),
        ("tool_call_response", 2, 1, 1, "change", {"n": 2}, {"tier": [1]}),
        *tool("items", {"value": {"n": 10}}, {"items": [{"n": 11}, {"n": 12}], "count": 2}),
    ]


@DECORATORS
def test_no_argument_or_result_is_kept_alive(events: Recorded, decorate: Any) -> None:
    """By no kind of callable."""

    @decorate
    def plain(text: Any) -> Any:
        return text

    @decorate
    async def coroutine(text: Any) -> Any:
        return text

    @decorate
    def items(text: Any) -> Iterator[Any]:
        yield text

    @decorate
    async def aitems(text: Any) -> AsyncIterator[Any]:
        yield text

    async def consume(thing: Thing) -> None:
        async for _ in aitems(thing):
            pass

    calls: list[Callable[[Thing], Any]] = [
        plain,
        lambda thing: asyncio.run(coroutine(thing)),
        lambda thing: list(items(thing)),
        lambda thing: asyncio.run(consume(thing)),
    ]
    gone = []
    for call in calls:
        thing = Thing()
        gone.append(weakref.ref(thing))
        call(thing)
        del thing
    gc.collect()

    assert [reference() for reference in gone] == [None] * 4


def test_what_a_coroutine_lets_go_of_is_gone_while_it_runs() -> None:
    """Its driver holds no argument."""
    seen = []

    @traced_tool
    async def work(thing: Thing | None) -> None:
        reference = weakref.ref(thing)
        thing = None
        gc.collect()
        seen.append(reference())

    asyncio.run(work(Thing()))

    assert seen == [None]


@DECORATORS
def test_no_exception_or_traceback_is_kept_alive(events: Recorded, decorate: Any) -> None:
    """Nor what the frames in it hold."""
    gone: list[weakref.ref[Any]] = []

    class Failed(Exception):
        pass

    @decorate
    def fail(text: str) -> None:
        local = Thing()
        gone.append(weakref.ref(local))
        error = Failed()
        gone.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    with pytest.raises(Failed):
        fail("x")
    gc.collect()

    assert [reference() for reference in gone] == [None, None]


def test_an_accumulated_stream_is_let_go_at_its_end(events: Recorded) -> None:
    """Also when it was cut short."""
    gone = []

    @traced_tool(accumulate=len)
    def things() -> Iterator[Thing]:
        for _ in range(2):
            thing = Thing()
            gone.append(weakref.ref(thing))
            yield thing
            del thing

    list(things())
    it = things()
    next(it)
    it.close()  # type: ignore[attr-defined]
    del it
    gc.collect()

    assert [reference() for reference in gone] == [None] * 3


def test_the_body_runs_in_the_callers_task_thread_and_context() -> None:
    """As the bare one does."""

    @traced_tool
    async def where() -> tuple[Any, ...]:
        return asyncio.current_task(), threading.current_thread()

    async def main() -> None:
        assert await where() == (asyncio.current_task(), threading.current_thread())

    asyncio.run(main())


@pytest.mark.internal_errors
def test_a_deep_recursion_ends_as_without_us(events: Recorded) -> None:
    """In a RecursionError of the program's, and the tool works afterwards."""

    @traced_tool
    def down(n: int) -> int:
        return down(n + 1) if n >= 0 else n

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        with pytest.raises(RecursionError):
            down(0)
    finally:
        sys.setrecursionlimit(limit)
    events.records.clear()

    assert down(-1) == -1
    assert events.rows == tool("down", {"n": -1}, {"result": -1})


def test_a_setting_that_cannot_be_obeyed_is_said_once_and_calls_go_on(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Where the program makes no client of its own; our own API raises it."""
    monkeypatch.setenv("WHYOPS_TRACING", "loud")
    double: Callable[[int], int] = traced_tool(lambda x: 2 * x)

    assert [double(1), double(2)] == [2, 4]
    with step("plan") as plan:
        plan.set_output(1)
    assert said() == ["Nothing is traced: tracing (WHYOPS_TRACING) is 'loud'; it must be on, off or local."]
    with pytest.raises(ConfigurationError, match="must be on, off or local"):
        trace()


@pytest.fixture(params=["environment", "argument"])
def off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> WhyOps:
    """Return a client that records nothing."""
    if request.param == "environment":
        monkeypatch.setenv("WHYOPS_TRACING", "off")
        return WhyOps()
    return WhyOps(tracing="off")


@pytest.mark.anyio
async def test_with_tracing_off_calls_go_straight_through(
    off: WhyOps, events: Recorded, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """No event, no thread, no file, no warning; handles work and return zeros."""

    @traced_tool
    def plain(x: int) -> int:
        return x

    @traced_llm
    async def coroutine(x: int) -> int:
        return x

    @traced_tool
    def items() -> Generator[int, int, None]:
        heard = yield 1
        yield heard

    @traced_embedding
    async def aitems() -> AsyncIterator[int]:
        yield 1

    async with trace("t", external_user_id="u") as handle:
        with step("plan", input=1) as plan:
            plan.set_output(2)
            assert plain(1) == 1
            assert await coroutine(1) == 1
        it = items()
        assert next(it) == 1
        assert it.send(5) == 5
        it.close()
        assert [n async for n in aitems()] == [1]
        with trace():
            pass
        assert current_trace() is not None
        assert handle.error_sync("x") == 0
        span = await handle.tool_call_request("t", [])
        assert span.step_id == 0
        assert await handle.tool_call_response("t", span, [], {}) == 0
    assert plain(1) == 1
    with off.step("alone"):
        pass
    with pytest.raises(TypeError):
        plain()  # type: ignore[call-arg]
    assert await off.flush() == {}
    assert off.stats() == {}

    assert plan.step_id == 0
    assert events.records == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("whyops")] == []
    assert list(tmp_path.rglob("*")) == []
    assert said() == []
