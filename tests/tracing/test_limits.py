"""The limits of a trace: what counts, where a call is refused, what is raised there and at the end of the block."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from recorded import Recorded

from whyops_trace import (
    AgentRunaway,
    ConfigurationError,
    Trace,
    WhyOps,
    continue_from,
    current_trace,
    inject,
    propagate,
    step,
    trace,
    traced_embedding,
    traced_llm,
    traced_tool,
)
from whyops_trace.exceptions import AgentStop
from whyops_trace.integrations import asgi, wsgi
from whyops_trace.story import tell, why
from whyops_trace.testing import ManualClock

#: What ran.
ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@traced_tool
def search(query: str) -> list[str]:
    """Note that it ran."""
    ran.append(query)
    return [query]


@traced_llm
def ask(question: str, model: str = "gpt-4o") -> dict[str, Any]:
    """Answer, with 1,900 tokens."""
    ran.append(question)
    return {
        "model": model,
        "choices": [{"message": {"content": "Tea."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1840, "completion_tokens": 60},
    }


def stopped(run: Callable[[], object], **limits: Any) -> AgentRunaway:
    """Return the error of a trace with limits, in whose block something runs."""
    with pytest.raises(AgentRunaway) as caught, trace("t", **limits):
        run()
    return caught.value


def again(function: Callable[[str], object], *words: str) -> Callable[[], None]:
    """Return an agent that catches every exception, calls a function and never ends."""

    def run() -> None:
        while True:
            for word in words:
                try:
                    function(word)
                except Exception as error:
                    ran.append(f"caught {error}")

    return run


@pytest.mark.parametrize(
    ("limits", "used", "words"),
    [
        ({"max_steps": 2}, 2, "max_steps: 2 of 2 calls and steps have begun"),
        ({"max_tokens": 3000}, 3800, "max_tokens: 3,800 of 3,000 tokens are used"),
        ({"max_cost": 0.01}, 0.0104, "max_cost: $0.0104 of $0.0100 are spent"),
    ],
)
def test_the_call_after_a_limit_is_refused(limits: dict[str, Any], used: float, words: str) -> None:
    """Before it runs, though the agent catches every exception and goes on."""
    error = stopped(again(ask, "tea"), **limits)

    assert ran == ["tea", "tea"]
    assert str(error).startswith(f"{words} in trace 't', so ask was not started; a larger limit can let")
    assert error.limit == next(iter(limits))
    assert (error.allowed, error.used) == (float(next(iter(limits.values()))), used)
    assert (error.refused, error.trace_id) == ("ask", "t")


def test_no_call_begins_after_the_time_is_over() -> None:
    """Counted from the begin of the block."""
    clock = ManualClock()
    sdk = WhyOps(clock=clock)
    clock.advance(100)
    with pytest.raises(AgentRunaway, match=r"31\.5 of 30 seconds have passed"):
        with sdk.trace("t", max_seconds=30):
            search("one")
            clock.advance(31.5)
            search("two")

    assert ran == ["one"]


async def _coroutine() -> None:
    ran.append("coroutine")


def _generator() -> Iterator[int]:
    ran.append("generator")
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    ran.append("async generator")
    yield 1


class Shop:
    """Something with a method."""

    @traced_tool
    def sell(self) -> None:
        """Note that it ran."""
        ran.append("method")


async def _iterate() -> None:
    async for _ in traced_tool(_async_generator)():
        pass


def _in_step() -> None:
    with step("plan"):
        ran.append("step")


async def _in_async_step() -> None:
    async with step("plan"):
        ran.append("step")


def _in_joined_trace() -> None:
    with trace():
        ran.append("trace")


def _by_hand(begin: Callable[[Trace], object]) -> Callable[[], object]:
    def run() -> object:
        here = current_trace()
        assert here is not None
        return begin(here)

    return run


@pytest.mark.parametrize(
    "run",
    [
        lambda: traced_tool(lambda: ran.append("tool"))(),
        lambda: traced_embedding(lambda text: ran.append(text))("text"),
        lambda: asyncio.run(traced_tool(_coroutine)()),
        lambda: list(traced_tool(_generator)()),
        lambda: asyncio.run(_iterate()),
        lambda: Shop().sell(),
        _in_step,
        lambda: asyncio.run(_in_async_step()),
        _in_joined_trace,
        _by_hand(lambda t: t.start_step("plan")),
        _by_hand(lambda t: t.start_tool_call("search")),
        _by_hand(lambda t: t.start_llm_call("gpt-4o", "openai", "Tea?")),
        _by_hand(lambda t: t.tool_call_request_sync("search", [{"name": "search", "arguments": {}}])),
        _by_hand(lambda t: t.user_message_sync([{"role": "user", "content": "Tea?"}])),
        _by_hand(lambda t: t.embedding_request_sync(["Tea?"])),
    ],
)
def test_whatever_begins_is_refused(run: Callable[[], object], events: Recorded) -> None:
    """Of every kind, and nothing of it is recorded but the reason."""

    def agent() -> None:
        search("one")
        run()

    error = stopped(agent, max_steps=1)

    assert error.limit == "max_steps"
    assert ran == ["one"]
    assert [row[0] for row in events.rows] == ["tool_call_request", "tool_call_response", "error"]


def test_what_is_recorded_by_hand_counts() -> None:
    """Requests as steps, and the tokens of answers."""
    with pytest.raises(AgentRunaway) as caught, trace("t", max_steps=2) as handle:
        for _ in range(3):
            handle.user_message_sync([{"role": "user", "content": "Tea?"}])
    with pytest.raises(AgentRunaway) as other, trace("u", max_tokens=10) as handle:
        handle.llm_response_sync("gpt-4o", "openai", "Tea.", usage={"promptTokens": 8, "completionTokens": 3})
        search("one")

    assert caught.value.used == 2
    assert other.value.used == 11


def test_threads_and_tasks_of_a_trace_are_counted_and_stopped() -> None:
    """All of them, and a group of exceptions becomes the error of the block."""

    async def agents() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(asyncio.to_thread(propagate(again(search, name))))

    error = stopped(lambda: asyncio.run(agents()), max_steps=30)

    assert error.used == 30
    assert len(ran) == 30
    assert isinstance(error.__cause__, BaseExceptionGroup)


def test_a_pool_of_threads_hands_the_stop_on() -> None:
    """As the result of its call."""

    def agents() -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(propagate(again(search, "a"))).result()

    assert stopped(agents, max_steps=3).used == 3


async def test_an_asynchronous_block_has_limits(anyio_backend: object) -> None:
    """As a plain one, on either loop."""

    @traced_tool
    async def wait() -> None:
        await anyio.sleep(0)

    with pytest.raises(AgentRunaway):
        async with trace("t", max_steps=2):
            while True:
                with contextlib.suppress(Exception):
                    await wait()


def test_the_outer_block_goes_on_when_the_inner_one_is_stopped() -> None:
    """Each has limits of its own; the inner one's end with it."""
    with trace("t", max_steps=4):
        with pytest.raises(AgentRunaway) as caught, trace(max_steps=2):
            for _ in range(9):
                with contextlib.suppress(AgentStop):
                    search("inner")
            search("inner")
        search("outer")

    assert caught.value.used == 2
    assert ran == ["inner", "inner", "outer"]


def test_the_limit_of_the_outer_block_passes_the_inner_one() -> None:
    """Which raises nothing of its own."""

    def agent() -> None:
        with trace(max_steps=50):
            again(search, "inner")()

    error = stopped(agent, max_steps=3)

    assert error.allowed == 3
    assert isinstance(error.__cause__, AgentStop)
    assert error.__cause__.runaway is error


@pytest.mark.parametrize("limits", [{}, {"max_steps": 50}])
def test_a_block_beside_the_one_with_the_limit_raises_an_error_too(limits: dict[str, Any]) -> None:
    """As of two requests on one conversation: the stop, which is no ``Exception``, leaves neither of them."""

    async def request(limits: dict[str, Any]) -> None:
        async with trace("chat", **limits), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(asyncio.to_thread(propagate(search), "a"))

    async def serve() -> list[BaseException | None]:
        async with trace("chat", max_steps=3):
            beside = contextvars.Context().run(asyncio.create_task, request(limits))
            return [*await asyncio.gather(beside, return_exceptions=True)]

    (error,) = asyncio.run(serve())

    assert isinstance(error, AgentRunaway)
    assert error.allowed == 3


def test_a_block_that_is_entered_again_counts_anew() -> None:
    """And after the block nothing is refused."""
    handle = trace("t", max_steps=2)
    for _ in range(3):
        with handle:
            search("a")
            search("b")
        search("c")

    assert len(ran) == 9


def test_a_block_that_ends_well_raises_nothing() -> None:
    """The agent caught the stop, and has an answer."""
    with trace("t", max_steps=1):
        search("one")
        with pytest.raises(AgentStop, match="max_steps"):
            search("two")
        with pytest.raises(AgentStop):
            search("three")

    assert ran == ["one"]


def test_what_others_make_of_the_stop_becomes_the_error() -> None:
    """Code that only knows Exception may fail on it in its own way; another ending is left alone."""

    def agent() -> None:
        async def gather() -> None:
            async def call() -> list[str]:
                return search("two")

            (result,) = await asyncio.gather(call(), return_exceptions=True)
            result.sort()  # type: ignore[union-attr]

        search("one")
        asyncio.run(gather())

    error = stopped(agent, max_steps=1)
    with pytest.raises(KeyboardInterrupt), trace("t", max_steps=1):
        search("one")
        with contextlib.suppress(AgentStop):
            search("two")
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="mine"), trace("t", max_steps=1):
        search("one")
        raise ValueError("mine")

    assert isinstance(error.__cause__, AttributeError)


def test_a_call_that_comes_to_the_same_five_times_is_a_loop() -> None:
    """Whatever comes between; the next call is refused."""
    error = stopped(again(search, "tea", "cups"), on_loop="raise")

    assert ran == ["tea", "cups"] * 4 + ["tea"]
    assert (error.limit, error.allowed, error.used, error.refused) == ("on_loop", 5, 5, "search")
    assert str(error) == (
        "on_loop: search(query=\"tea\") brought the same result 5 times in trace 't', so search was not started; "
        "a function as on_loop can let the agent go on."
    )


def test_other_results_are_no_loop() -> None:
    """Nor are other arguments."""
    numbers = iter(range(100))

    @traced_tool
    def poll(job: str) -> int:
        return next(numbers)

    with trace("t", on_loop="raise"):
        for number in range(20):
            poll("7")
            search(str(number))


@pytest.mark.parametrize("options", [{"capture_output": False}, {"capture_input": False}])
def test_what_is_not_captured_is_no_loop(options: dict[str, Any]) -> None:
    """It may differ each time."""
    with trace("t", on_loop="raise"):
        for number in range(20):
            traced_tool(**options)(lambda query, number=number: query + number)(0)


def test_a_function_decides_about_a_loop() -> None:
    """It is told of each time, may call tools, and stops the agent by raising."""
    told: list[tuple[float, int]] = []

    def decide(loop: AgentRunaway) -> None:
        told.append((loop.used, len(ran)))
        search("elsewhere")
        if loop.used == 7:
            raise ValueError("enough")

    error = stopped(again(search, "tea"), on_loop=decide)

    assert told == [(5, 5), (6, 7), (7, 9)]
    assert error.used == 7
    assert isinstance(error.__cause__, AgentStop)
    assert isinstance(error.__cause__.__cause__, ValueError)


def test_the_records_say_what_stopped_the_agent(events: Recorded) -> None:
    """An error where the call was refused, once; the calls around it did not fail, and the block did."""

    @traced_tool
    def outer() -> None:
        again(search, "tea")()

    def agent() -> None:
        with step("plan"):
            outer()

    error = stopped(agent, max_steps=3)
    told = {"type": "whyops_trace.exceptions.AgentRunaway", "message": str(error)}
    rows = [(row[0], row[2], row[4]) for row in events.all_rows]
    (refusal,) = (record for record in events.records if record["eventType"] == "error")

    assert rows == [
        ("llm_thinking", None, "plan"),
        ("tool_call_request", 1, "outer"),
        ("tool_call_request", 2, "search"),
        ("tool_call_response", 3, "search"),
        ("error", 2, None),
        ("tool_call_response", 2, "outer"),
        ("step_end", None, "plan"),
        ("trace_end", None, None),
    ]
    assert refusal["metadata"] == {
        "within": 2, "limit": "max_steps", "allowed": 3, "used": 3, "refused": "search",
    }  # fmt: skip
    assert refusal["content"] == told
    assert [record["metadata"].get("outcome") for record in events.records[-3:]] == [
        "AgentStop",
        "AgentStop",
        "error",
    ]
    assert events.records[-1]["content"]["error"] == told


def test_the_story_says_what_stopped_the_agent(events: Recorded) -> None:
    """As its end, and as what explains the run, once."""
    stopped(again(search, "tea"), max_steps=2)
    told = tell(events.records)

    assert told.status.startswith("stopped by max_steps: 2 of 2 calls and steps have begun in trace 't'")
    assert [(line.kind, line.text.partition(",")[0]) for line in told.whys if line.bad] == [
        ("runaway", "stopped by max_steps: 2 of 2 calls and steps have begun in trace 't'"),
    ]
    assert why(told).moments[0].kind == "runaway"


@pytest.mark.parametrize(
    "limits",
    [
        {"max_steps": 0},
        {"max_steps": 2.5},
        {"max_tokens": True},
        {"max_tokens": "many"},
        {"max_cost": -1},
        {"max_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"on_loop": "stop"},
        {"on_loop": asyncio.sleep},
    ],
)
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]) -> None:
    """By the name of the argument."""
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        trace(**limits)
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        WhyOps().trace(**limits)


def test_a_limit_of_costs_needs_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the call, with the command."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(ConfigurationError, match=r"max_cost needs the prices of models: .*prices"):
        trace(max_cost=1)


def test_a_turn_without_a_price_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """It does not count; what is known does."""
    with pytest.raises(AgentRunaway, match=r"\$0\.0104"), trace("t", max_cost=0.01):
        for model in ("mine", "mine", "gpt-4o", "gpt-4o", "gpt-4o"):
            ask("tea", model)

    assert [record.getMessage() for record in caplog.records] == [
        "max_cost does not count turns of mine by openai, whose cost is not known; max_tokens counts all."
    ]


def test_a_trace_that_is_not_recorded_has_no_limits(caplog: pytest.LogCaptureFixture) -> None:
    """Of one that is sampled out that is said; tracing that is off says nothing."""
    with WhyOps(sample_rate=0.0).trace("t", max_steps=1), step("plan"):
        search("a")
        search("b")
    with WhyOps(tracing="off").trace("u", max_steps=1), step("plan"):
        search("a")
        search("b")

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The limits of trace 't' do not hold, because it is sampled out: they count what is recorded."
    ]


def test_a_stop_can_be_pickled() -> None:
    """As results of process pools are."""
    error = stopped(again(search, "tea"), max_steps=2)
    copied = pickle.loads(pickle.dumps(AgentStop(error)))

    assert str(copied) == str(copied.runaway) == str(error)
    assert vars(copied.runaway) == vars(error)


def test_a_trace_of_another_program_takes_limits(events: Recorded) -> None:
    """They count what is recorded in the block, not what the caller has used."""
    with trace("order"):
        search("before")
        headers = inject()
    with pytest.raises(AgentRunaway) as caught, continue_from(headers, max_steps=1):
        search("one")
        search("two")

    assert (caught.value.limit, caught.value.used) == ("max_steps", 1)
    assert ran == ["before", "one"]
    assert events.traces == ["order"]


def test_requests_take_limits(events: Recorded) -> None:
    """Each has its own; the error of the application is that of the limit."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        search("one")
        search("two")
        return []

    async def asynchronous(scope: Any, receive: Any, send: Any) -> None:
        search("one")
        search("two")

    async def nothing(*_: Any) -> None:
        """Receive and send."""

    for _ in range(2):
        with pytest.raises(AgentRunaway):
            wsgi.Middleware(application, max_steps=1)({}, lambda *_: None)
        with pytest.raises(AgentRunaway):
            anyio.run(
                asgi.Middleware(asynchronous, max_steps=1), {"type": "http", "headers": []}, nothing, nothing
            )

    assert ran == ["one"] * 4


@pytest.mark.parametrize("middleware", [asgi.Middleware, wsgi.Middleware])
def test_a_limit_of_requests_that_is_none_is_refused_at_once(middleware: Callable[..., object]) -> None:
    """Not at the first request."""
    with pytest.raises(ConfigurationError, match="max_tokens is -1"):
        middleware(lambda *_: None, max_tokens=-1)
