"""How failed, cancelled and wrong calls are recorded, and that the caller sees what it saw before."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import BaseModel, ValidationError
from recorded import Recorded, Row, cancelled_tool, failed_tool, frames_of_ours

from whyops_trace import ConfigurationError, WhyOps, step, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace._values.failures import MAX_EXCEPTIONS
from whyops_trace.context import get_scope
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.testing import ManualClock

SECRET = "sk-proj-" + "a1" * 20
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
    [request, failure, response] = events.rows
    assert {**failure[5], **told} == failure[5]
    assert (request, response) == (*failed_tool("stop", {}, told)[::2],)


class TimeUpError(Exception):
    """What a program raises in a signal handler."""


class Bell(ManualClock):
    """A clock at which a signal comes while it is read."""

    def time_ns(self) -> int:
        signal.raise_signal(signal.SIGUSR1)
        return super().time_ns()


def test_what_a_signal_handler_raises_reaches_the_program(tmp_path: Path) -> None:
    """Also if the signal comes while the library runs; without one the clock is read in peace."""

    def stop(number: int, frame: object) -> None:
        raise TimeUpError

    @traced_tool
    def tool() -> int:
        return 5

    with WhyOps(home=tmp_path, store=False, exporters=[MemoryExporter()], clock=Bell()) as sdk:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            with sdk.trace():
                assert tool() == 5
                signal.signal(signal.SIGUSR1, stop)
                with pytest.raises(TimeUpError):
                    tool()
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
                assert tool() == 5
        finally:
            signal.signal(signal.SIGUSR1, before)


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


def test_the_status_of_a_response_is_recorded(events: Recorded) -> None:
    """As HTTP libraries raise it, whose exceptions have the response."""

    @traced_tool
    def fetch() -> None:
        httpx.Response(404, request=httpx.Request("GET", "https://shop.test")).raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        fetch()

    assert events.rows[1][5]["status"] == 404


def test_what_a_model_of_pydantic_refused_is_told(events: Recorded) -> None:
    """By its places and reasons, without the values, of which no method is called."""

    class Hostile:
        def __repr__(self) -> str:
            raise SystemExit

    class Bill(BaseModel):
        total: float
        items: list[int]

    @traced_tool
    def read() -> None:
        Bill.model_validate({"items": [1, Hostile()]})

    with pytest.raises(ValidationError):
        read()

    assert events.rows[1][5]["message"] == (
        "2 validation errors for Bill\n"
        "total\n  Field required [type=missing]\n"
        "items.1\n  Input should be a valid integer [type=int_type]"
    )


def content_of(events: Recorded, error: BaseException) -> dict[str, Any]:
    """Return what the ``error`` event of a tool says that raises this exception, without the stacks."""

    @traced_tool
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()
    [content] = [record["content"] for record in events.records if record["eventType"] == "error"]
    without: dict[str, Any] = without_stacks(content)
    return without


def without_stacks(told: Any) -> Any:
    if isinstance(told, list):
        return [without_stacks(item) for item in told]
    if isinstance(told, dict):
        return {name: without_stacks(item) for name, item in told.items() if name != "stack"}
    return told


def raised_from(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an exception that was raised from another one, or from none."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def raised_while(error: BaseException, context: BaseException) -> BaseException:
    """Return an exception that was raised while another one was handled."""
    try:
        try:
            raise context
        except BaseException:
            raise error  # noqa: B904 - that is the point
    except BaseException as caught:
        return caught


def test_a_failure_tells_what_it_was_raised_from(events: Recorded) -> None:
    """With the type and message, the stack, the notes and the status of each."""
    cause = raised_from(OSError("no route"), TimeoutError("5 s"))
    vars(cause)["status_code"] = 503
    error = raised_from(RuntimeError("wrapped"), cause)
    error.add_note("order 7")

    assert content_of(events, error) == {
        "type": "RuntimeError",
        "message": "wrapped",
        "notes": ["order 7"],
        "cause": {
            "type": "OSError",
            "message": "no route",
            "status": 503,
            "cause": {"type": "TimeoutError", "message": "5 s"},
        },
    }
    content = next(record["content"] for record in events.records if record["eventType"] == "error")
    assert content["cause"]["stack"].endswith("in raised_from")


def test_a_failure_tells_what_was_handled_when_it_was_raised(events: Recorded) -> None:
    """As a traceback does: unless it was raised from another one, or from none."""
    assert content_of(events, raised_while(ValueError("bad"), KeyError("k"))) == {
        **ERROR,
        "context": {"type": "KeyError", "message": "'k'"},
    }
    del events.records[:]
    error = raised_while(ValueError("bad"), KeyError("k"))
    error.__suppress_context__ = True
    assert content_of(events, error) == ERROR


def test_a_failed_group_tells_what_is_in_it(events: Recorded) -> None:
    """In the groups in it as well."""
    inner = ExceptionGroup("inner", [KeyError("k")])

    assert content_of(events, ExceptionGroup("outer", [ValueError("bad"), inner])) == {
        "type": "ExceptionGroup",
        "message": "outer",
        "exceptions": [
            ERROR,
            {
                "type": "ExceptionGroup",
                "message": "inner",
                "exceptions": [{"type": "KeyError", "message": "'k'"}],
            },
        ],
    }


def test_a_large_group_is_told_in_part(events: Recorded) -> None:
    """And says how many were left out; so is a long row of causes."""
    content = content_of(
        events, ExceptionGroup("many", [ValueError("bad")] + [ValueError(n) for n in range(99)])
    )

    assert len(content["exceptions"]) == MAX_EXCEPTIONS - 1
    assert content["omitted"] == 100 - len(content["exceptions"])

    del events.records[:]
    error: BaseException = ValueError("first")
    for number in range(200):
        error = raised_from(ValueError(number), error)
    told, depth = content_of(events, error), 1
    while "cause" in told:
        told, depth = told["cause"], depth + 1

    assert depth == MAX_EXCEPTIONS


def test_exceptions_that_lead_to_each_other_are_told_once(events: Recorded) -> None:
    """However often they are met."""
    cause = KeyError("k")
    error = raised_from(ExceptionGroup("g", [cause, cause]), cause)
    cause.__cause__ = error

    assert content_of(events, error) == {
        "type": "ExceptionGroup",
        "message": "g",
        "cause": {"type": "KeyError", "message": "'k'"},
        "exceptions": [],
        "omitted": 2,
    }


def test_secrets_behind_a_failure_are_replaced(events: Recorded) -> None:
    """In messages and notes alike; odd notes are left out."""
    error = raised_from(ValueError("bad"), KeyError(SECRET))
    vars(error)["__notes__"] = [f"key {SECRET}", 5, "\0"]
    content = content_of(events, error)

    assert content["notes"] == ["key [redacted]", "\ufffd"]
    assert content["cause"]["message"] == "'[redacted]'"


def test_blocks_tell_a_failure_as_whole_as_calls(events: Recorded) -> None:
    """At their ends, without stacks."""
    error = raised_from(ValueError("bad"), KeyError("k"))
    with pytest.raises(ValueError, match="bad"), trace("t"), step("plan"):
        raise error

    ends = [record["content"] for record in events.records if record["eventType"].endswith("_end")]
    assert ends == [{"error": {**ERROR, "cause": {"type": "KeyError", "message": "'k'"}}}] * 2


class Paused(Exception):
    """Stops a run that goes on later."""


def passing_tool(name: str, kind: str, raised: dict[str, Any], **more: Any) -> list[Row]:
    """Return the rows of a tool that ended with an exception that is no failure."""
    return [
        ("tool_call_request", 1, None, 0, name, {}),
        ("tool_call_response", 2, 1, 1, name, {"raised": raised, **more}, {"outcome": kind}),
    ]


@pytest.mark.parametrize("given", [[Paused], [f"{__name__}.Paused"], {"Paused"}])
def test_an_exception_that_is_no_failure_passes(events: Recorded, given: Any) -> None:
    """The caller gets it as it is, and the call ends with its name as the outcome."""
    error = Paused("until noon")

    @traced_tool(not_errors=given)
    def pause() -> None:
        raise error

    with pytest.raises(Paused) as caught:
        pause()

    assert caught.value is error
    assert events.rows == passing_tool(
        "pause", "Paused", {"type": f"{__name__}.Paused", "message": "until noon"}
    )


def test_what_such_an_exception_carries_is_recorded(events: Recorded) -> None:
    """As an output is: with no message of its own, without secrets, and not at all where no output is."""

    @traced_tool(not_errors=[Paused])
    def ask() -> None:
        raise Paused({"question": "Approve?", "password": "p"}, 5)

    @traced_tool(not_errors=[Paused], capture_output=False)
    def silent() -> None:
        raise Paused("secret")

    with trace("t"):
        for function in (ask, silent):
            with pytest.raises(Paused):
                function()
    raised = [row[5]["raised"] for row in events.rows if row[0] == "tool_call_response"]
    name = f"{__name__}.Paused"

    arguments = [{"question": "Approve?", "password": "[redacted]"}, 5]
    assert raised == [{"type": name, "message": "", "arguments": arguments}, {"type": name}]


def test_a_generator_that_ends_with_one_keeps_its_items(events: Recorded) -> None:
    """As a cancelled one does."""

    @traced_tool(not_errors=[Paused])
    def items() -> Iterator[int]:
        yield 1
        raise Paused("until noon")

    with pytest.raises(Paused):
        list(items())

    raised = {"type": f"{__name__}.Paused", "message": "until noon"}
    assert events.rows == passing_tool("items", "Paused", raised, items=[1], count=1)


@pytest.mark.parametrize(
    ("decorate", "kind"), [(traced_llm, "llm_response"), (traced_embedding, "embedding_response")]
)
def test_calls_of_models_end_without_failure_as_well(events: Recorded, decorate: Any, kind: str) -> None:
    """With an answer that names the exception as its outcome."""

    @decorate(not_errors=[Paused])
    def ask(text: str) -> None:
        raise Paused("until noon")

    with pytest.raises(Paused):
        ask("q")

    [_, end] = events.records
    assert (end["eventType"], end["metadata"]["outcome"]) == (kind, "Paused")


def test_blocks_and_clients_say_what_is_no_failure(events: Recorded) -> None:
    """A block for its own end, a client for everything."""
    default, lenient = WhyOps(agent_name="shop"), WhyOps(agent_name="shop", not_errors=[f"{__name__}.Paused"])

    @traced_tool
    def pause() -> None:
        raise Paused("until noon")

    opened = [default.trace("t-0", not_errors=[Paused]), default.trace("t-1"), lenient.trace("t-2")]
    for block, given in zip(opened, [(), ["Paused"], ()], strict=True):
        with pytest.raises(Paused), block, step("plan", not_errors=given):
            pause()
    outcomes = [
        [record["metadata"].get("outcome") for record in events.records if record["traceId"] == block.id]
        for block in opened
    ]

    assert outcomes == [
        [None, None, None, "error", "error", "Paused"],
        [None, None, None, "error", "Paused", "error"],
        [None, None, "Paused", "Paused", "Paused"],
    ]


def test_a_trace_that_joins_another_one_says_so_for_its_step(events: Recorded) -> None:
    """It ends as a step does."""
    with trace("t"), pytest.raises(Paused), trace(not_errors=[Paused]):
        raise Paused("until noon")

    ends = [record for record in events.records if record["eventType"].endswith("_end")]
    assert [record["metadata"].get("outcome") for record in ends] == ["Paused", None]
    assert ends[0]["content"] == {"raised": {"type": f"{__name__}.Paused", "message": "until noon"}}


@pytest.mark.parametrize("code", [0, None])
def test_a_program_that_ends_well_did_not_fail(events: Recorded, code: int | None) -> None:
    """Neither did the call, the step and the trace that it left."""

    @traced_tool
    def main() -> None:
        sys.exit(code)

    with pytest.raises(SystemExit), trace("cli"), step("run"):
        main()

    assert [record["metadata"].get("outcome") for record in events.records[2:]] == ["SystemExit"] * 3
    assert "error" not in [record["eventType"] for record in events.records]


@pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])
@pytest.mark.parametrize("given", [Paused, "Paused", [5], True])
def test_what_is_no_exception_is_refused(decorate: Any, given: Any) -> None:
    """At the decoration, at the block and at the client."""
    for make in (
        lambda: decorate(not_errors=given)(plain),
        lambda: trace(not_errors=given),
        lambda: step("plan", not_errors=given),
        lambda: WhyOps(not_errors=given),
    ):
        with pytest.raises(ConfigurationError, match="not_errors"):
            make()


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


def responses(events: Recorded) -> list[dict[str, Any]]:
    """Return the records of results of tools."""
    return [record for record in events.records if record["eventType"] == "tool_call_response"]


@pytest.mark.parametrize(
    ("said", "recorded"),
    [(True, True), ("no money", "no money"), ("", False), (None, False), (0, False), ([1], True)],
)
def test_a_tool_decides_which_of_its_results_tell_of_a_failure(
    events: Recorded, said: object, recorded: object
) -> None:
    """Its verdict is recorded with the result, which is not changed."""

    @traced_tool(failed=lambda result: said if result == "declined" else None)
    def pay() -> str:
        return "declined"

    with trace("t"):
        assert pay() == "declined"
    (response,) = responses(events)

    assert response["metadata"]["failed"] == recorded
    assert response["content"]["toolResults"] == {"result": "declined"}
    assert "outcome" not in response["metadata"]


def test_a_verdict_has_no_words_where_no_output_is_recorded(events: Recorded) -> None:
    """They may repeat it."""

    @traced_tool(failed=lambda result: f"card {result}", capture_output=False)
    def pay() -> int:
        return 4999

    with trace("t"):
        pay()

    assert responses(events)[0]["metadata"]["failed"] is True


def test_a_verdict_that_fails_is_left_out_with_a_warning(
    events: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """The result is recorded, and returned, all the same."""

    @traced_tool(failed=lambda result: result["state"])
    def pay() -> int:
        return 4999

    with trace("t"):
        assert [pay(), pay()] == [4999, 4999]

    assert "failed" not in responses(events)[0]["metadata"]
    assert [record.getMessage() for record in caplog.records] == ["failed of 'pay' raised TypeError."]


def test_an_exit_while_a_result_is_judged_leaves_no_request_without_its_response(events: Recorded) -> None:
    """The exit goes on to the program, and the call is recorded with its result."""

    @traced_tool(failed=lambda result: sys.exit(result))
    def charge() -> int:
        return 3

    with trace("t"), pytest.raises(SystemExit, match="3"):
        charge()

    assert [response["content"]["toolResults"] for response in responses(events)] == [{"result": 3}]


def test_all_items_of_a_generator_are_judged_together(events: Recorded) -> None:
    """With accumulate; without it no result is there to judge."""

    @traced_tool(accumulate=sum, failed=lambda total: total > 2)
    def count() -> Iterator[int]:
        yield from (1, 2)

    @traced_tool(failed=lambda total: True)
    def stream() -> Iterator[int]:
        yield from (1, 2)

    with trace("t"):
        assert [*count(), *stream()] == [1, 2, 1, 2]

    assert [event["metadata"].get("failed") for event in responses(events)] == [True, None]


def test_what_decides_has_to_be_a_function() -> None:
    """Which is said where the tool is decorated."""
    with pytest.raises(ConfigurationError, match="failed is 3; it must be a function"):
        traced_tool(failed=3)  # type: ignore[call-overload]


def test_what_is_asked_of_a_result_cannot_be_awaited() -> None:
    """A coroutine would be taken for a failure of each call."""

    async def decide(result: object) -> bool:
        return bool(result)

    with pytest.raises(ConfigurationError, match=r"failed is .* it must be a function without async"):
        traced_tool(failed=decide)
    for option in ("extract", "accumulate"):
        with pytest.raises(ConfigurationError, match=rf"{option} is .* it must be a function without async"):
            traced_llm(**{option: decide})  # type: ignore[call-overload]
