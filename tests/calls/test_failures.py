"""How failed, cancelled and wrong calls are recorded, and that the caller sees what it saw before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from recorded import Recorded, cancelled_tool, failed_tool, frames_of_ours

from whyops_trace import traced_embedding, traced_llm, traced_tool
from whyops_trace.context import get_scope

ERROR = {"type": "ValueError", "message": "bad"}


@pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])
def test_the_callers_exception_arrives_as_the_same_object(decorate: Any) -> None:
    """With one frame of ours in its traceback, and no other context."""
    error = ValueError("bad")

    @decorate
    def fail(texts: str = "") -> None:
        raise error

    with pytest.raises(ValueError, match="bad") as caught:
        fail()

    assert caught.value is error
    assert error.__context__ is None
    assert frames_of_ours(error) == ["traced"]
    assert get_scope() is None


@pytest.mark.anyio
async def test_a_coroutines_exception_arrives_as_the_same_object() -> None:
    """With one frame of ours in its traceback."""
    error = ValueError("bad")

    @traced_tool
    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="bad") as caught:
        await fail()

    assert caught.value is error
    assert frames_of_ours(error) == ["_await"]


@pytest.mark.anyio
async def test_exceptions_of_generators_and_objects_arrive_as_the_same_objects() -> None:
    """With one frame of ours in their tracebacks."""
    error = ValueError("bad")

    @traced_tool
    def items() -> Iterator[int]:
        yield 1
        raise error

    @traced_tool
    async def aitems() -> AsyncIterator[int]:
        yield 1
        raise error

    class Callable:
        def __call__(self) -> None:
            raise error

    with pytest.raises(ValueError, match="bad"):
        list(items())
    assert frames_of_ours(error) == ["_iterate"]
    error.__traceback__ = None
    with pytest.raises(ValueError, match="bad"):
        [item async for item in aitems()]
    assert frames_of_ours(error) == ["_iterate_async"]
    error.__traceback__ = None
    with pytest.raises(ValueError, match="bad"):
        traced_tool(Callable())()
    assert frames_of_ours(error) == ["__call__"]


def test_a_failure_is_an_error_event_then_the_response(events: Recorded) -> None:
    """The request never stays without its response."""

    @traced_tool
    def fail(x: int) -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail(1)

    assert events.rows == failed_tool("fail", {"x": 1}, ERROR)
    [stack] = [record["content"]["stack"] for record in events.records if record["eventType"] == "error"]
    assert stack.startswith(f'File "{__file__}", line ')
    assert stack.endswith("in test_a_failure_is_an_error_event_then_the_response.<locals>.fail")
    assert "\n" not in stack


def test_a_generator_that_fails_is_recorded_as_failed(events: Recorded) -> None:
    """Whatever it yielded before."""

    @traced_tool
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        list(items())

    assert events.rows == failed_tool("items", {}, ERROR)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupted_call_has_its_response(events: Recorded, error: BaseException) -> None:
    """They are failures, and reach the host program untouched."""

    @traced_tool
    def stop() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        stop()

    assert caught.value is error
    told = {"type": type(error).__name__, "message": str(error)}
    assert events.rows == failed_tool("stop", {}, told)


def test_a_status_code_is_recorded(events: Recorded) -> None:
    """HTTP clients put it on their errors."""

    class ApiError(Exception):
        def __init__(self, message: str, status_code: int) -> None:
            super().__init__(message)
            self.status_code = status_code

    @traced_tool
    def ask() -> None:
        raise ApiError("slow down", 429)

    with pytest.raises(ApiError):
        ask()

    assert events.rows[1][5]["status"] == 429


class Hostile(Exception):
    """Lets nobody look at it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__
    __hash__ = None  # type: ignore[assignment]


def test_an_exception_that_cannot_be_looked_at_is_recorded(events: Recorded) -> None:
    """And arrives as it is."""
    error = Hostile("told")

    @traced_tool
    def fail() -> None:
        raise error

    try:
        fail()
    except Hostile as caught:
        assert caught is error  # pytest.raises would look at it
    assert [row[0] for row in events.rows] == ["tool_call_request", "error", "tool_call_response"]
    assert events.rows[1][5]["type"].endswith("Hostile")


@pytest.mark.anyio
async def test_such_an_exception_passes_through_generators(events: Recorded) -> None:
    """Raised in the body, or thrown in."""

    @traced_tool
    def items() -> Iterator[int]:
        yield 1
        raise Hostile("raised")

    @traced_tool
    async def aitems() -> AsyncIterator[int]:
        yield 1
        raise Hostile("raised")

    caught: list[Hostile] = []
    for it in (items(), items()):
        next(it)
        try:
            it.throw(Hostile("thrown")) if caught else next(it)  # type: ignore[attr-defined]
        except Hostile as error:
            caught.append(error)
    for ait in (aitems(), aitems()):
        await anext(ait)
        try:
            await (ait.athrow(Hostile("thrown")) if len(caught) == 3 else anext(ait))  # type: ignore[attr-defined]
        except Hostile as error:
            caught.append(error)

    assert len(caught) == 4
    assert [row[0] for row in events.rows[2::3]] == ["tool_call_response"] * 4


@pytest.mark.anyio
async def test_a_cancelled_call_is_no_error(events: Recorded) -> None:
    """Its response says it was cancelled, on both event loops."""

    @traced_tool
    async def slow(x: int) -> None:
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(slow, 1)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()

    assert get_scope() is None
    assert events.rows == cancelled_tool("slow", {"x": 1})


def test_a_cancelled_task_is_recorded_as_cancelled(events: Recorded) -> None:
    """asyncio's own way."""

    @traced_tool
    async def slow() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert events.rows == cancelled_tool("slow", {})


def test_a_task_cancelled_before_it_runs_records_nothing(events: Recorded) -> None:
    """Its body never ran."""

    @traced_tool
    async def slow() -> None: ...

    async def main() -> None:
        task = asyncio.ensure_future(slow())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert events.rows == []


@pytest.mark.anyio
async def test_a_stream_cancelled_while_it_waits_is_recorded_as_cancelled(events: Recorded) -> None:
    """With the items that came before."""

    @traced_tool
    async def stream() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async def consume() -> None:
        async for _ in stream():
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert events.rows == cancelled_tool("stream", {}, items=[1], count=1)


GROUPS = [
    (BaseExceptionGroup("g", [asyncio.CancelledError()]), {"outcome": "cancelled"}),
    (BaseExceptionGroup("g", [asyncio.CancelledError(), ValueError("bad")]), {"outcome": "error"}),
    (
        BaseExceptionGroup("g", [BaseExceptionGroup("h", [KeyboardInterrupt()]), GeneratorExit()]),
        {"outcome": "error"},
    ),
    (ExceptionGroup("g", [ValueError("bad")]), {"outcome": "error"}),
]


@pytest.mark.parametrize(("error", "outcome"), GROUPS)
def test_a_group_is_a_failure_if_one_of_its_exceptions_is(
    events: Recorded, error: BaseException, outcome: dict[str, str]
) -> None:
    """As trio raises them, cancelled together with a failure."""

    @traced_tool
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fail()

    assert caught.value is error
    assert events.rows[-1][6] == outcome


def plain(a: int, /, b: int, *, c: int = 0) -> int:
    """Take arguments of three kinds."""
    return a + b + c


async def coroutine(a: int, /, b: int, *, c: int = 0) -> int:
    """Do the same later."""
    return a + b + c


def generator(a: int, /, b: int, *, c: int = 0) -> Iterator[int]:
    """Do the same in turn."""
    yield a + b + c


async def agenerator(a: int, /, b: int, *, c: int = 0) -> AsyncIterator[int]:
    """Do the same in turn, later."""
    yield a + b + c


class Object:
    """Does the same."""

    def __call__(self, a: int, /, b: int, *, c: int = 0) -> int:
        return a + b + c


WRONG_CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2, 3), {}),
    ((1, 2), {"b": 3}),
    ((1, 2), {"d": 3}),
    ((), {"a": 1, "b": 2}),
]


@pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])
@pytest.mark.parametrize("bare", [plain, coroutine, generator, agenerator, Object()])
@pytest.mark.parametrize(("args", "kwargs"), WRONG_CALLS)
def test_wrong_arguments_raise_the_same_error_at_the_call(
    events: Recorded, decorate: Any, bare: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    """The text is Python's own, and nothing is recorded."""
    with pytest.raises(TypeError) as expected:
        bare(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        decorate(bare)(*args, **kwargs)

    assert str(caught.value) == str(expected.value)
    assert len(frames_of_ours(caught.value)) == 1
    assert events.rows == []
