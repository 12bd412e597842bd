"""Replays of decorated functions: each kind of them answers from the recording, and none of their bodies runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import io
import multiprocessing
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from whyops_trace import WhyOps, propagate, step, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace._replay.names import names_of
from whyops_trace._replay.recording import read_calls
from whyops_trace.client import forget_clients
from whyops_trace.exceptions import (
    AgentRunaway,
    ConfigurationError,
    ReplayError,
    ReplayMiss,
    TraceNotFoundError,
)
from whyops_trace.replay import replay
from whyops_trace.testing import capture_events

pytestmark = pytest.mark.asyncio_only

#: The calls whose bodies ran.
ran: list[Any] = []


class Place(NamedTuple):
    city: str
    degrees: int


@dataclasses.dataclass
class Order:
    id: int
    items: list[Place]


class Bill(BaseModel):
    total: float


class Handle:
    pass


class Parcel:
    def __init__(self) -> None:
        self.weight = 3


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def recorded(agent: Callable[[], Any]) -> tuple[list[dict[str, Any]], Any]:
    """Return the records of a program, and what it returned."""
    with capture_events(local=True) as events, trace("t"):
        returned = agent()
    ran.clear()
    return events, returned


def test_every_kind_of_function_answers_from_the_recording() -> None:
    """Functions, methods, coroutines, generators and asynchronous generators give what they gave, and do not run."""

    class Shop:
        @traced_tool
        def price(self, item: str) -> int:
            ran.append("price")
            return len(item)

        @classmethod
        @traced_tool
        def name(cls) -> str:
            ran.append("name")
            return "shop"

        @staticmethod
        @traced_tool
        async def stock(item: str) -> dict[str, int]:
            ran.append("stock")
            return {item: 3}

    @traced_tool
    def pages(count: int) -> Generator[int, None, str]:
        ran.append("pages")
        yield from range(count)
        return "the end"  # which the consumer gets

    @traced_tool
    async def lines(count: int) -> AsyncIterator[str]:
        ran.append("lines")
        for number in range(count):
            yield f"line {number}"

    @traced_llm
    def ask(prompt: str) -> str:
        ran.append("ask")
        return f"about {prompt}"

    def whole() -> Iterator[Any]:
        ended = yield from pages(3)
        yield ended

    async def later() -> list[Any]:
        return [await Shop.stock("tea"), [line async for line in lines(2)]]

    def agent() -> list[Any]:
        with step("buy"):
            return [Shop().price("tea"), Shop.name(), list(whole()), asyncio.run(later()), ask("tea")]

    events, first = recorded(agent)
    with replay(events, store=False) as run, trace("t"):
        second = agent()

    assert second == first
    assert ran == []
    assert (run.drift, run.unused, run.divergence, run.notes) == ([], [], None, [])


def test_a_program_in_a_block_of_its_own_is_replayed_from_the_store() -> None:
    """A trace of the store is replayed by its id; the replay is stored as a trace of its own, and names the other."""
    sdk = WhyOps(agent_name="shop")

    @traced_tool
    def look_up(order: int) -> str:
        ran.append(order)
        return f"order {order}"

    def agent() -> str:
        with sdk.trace("checkout-1"):
            return look_up(8841)

    first = agent()
    ran.clear()
    with replay("checkout-1") as run:
        second = agent()
    with replay(run.trace_id, store=False) as again:
        third = agent()
    sdk.close_sync()

    assert first == second == third
    assert ran == []
    assert run.trace_id.endswith("-checkout-1")
    assert (run.source, again.source) == ("checkout-1", run.trace_id)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, (1, "two", [3])),
        (None, {1, 2}),
        (None, b"\x00\xff"),
        (None, {"result": 5}),
        (None, 5),
        (int, 2**70),
        (float | None, float("-inf")),
        (list[float], [1.0, float("inf")]),
        (dict[str, int], {"a": -(2**60), "b": 1}),
        (int | str, "12345678901234567890"),
        (str, "NaN"),
        (None, Order(1, [])),
        (None, Bill(total=1.5)),
        (Order, Order(1, [Place("Oslo", 3)])),
        (list[Order], [Order(1, [Place("Oslo", 3)])]),
        (dict[str, Bill] | None, {"a": Bill(total=2)}),
        (tuple[Place, ...], (Place("Rome", 20),)),
        (Path, Path("/tmp")),
        (str, None),
        (dict[str, Any], {"a": [1, None, True, 1.5, "x"]}),
        (str, "a text that holds [redacted], <br> and [cut 1 of it]"),
    ],
)
def test_a_result_is_of_its_type_again(annotation: Any, value: Any) -> None:
    """A result is made again by the class that was recorded, and its parts by the annotation."""

    def tool() -> Any:
        return value

    tool.__annotations__ = {"return": annotation} if annotation is not None else {}
    tool = traced_tool(tool)
    events, _ = recorded(tool)
    with replay(events, store=False):
        again = tool()

    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"api_key": "sk-live-4eC39HqLyjWDarjtT1zdp7dc"}, "held a secret"),
        ("x" * 3_000_000, "max_event_bytes"),
        ([Handle()], "plain data, or answer it with swap="),
        ([Parcel()], "holds an object of .*Parcel"),
    ],
)
def test_what_was_not_recorded_whole_is_refused(value: Any, words: str) -> None:
    """A result that was cut, redacted or only named is no answer; the error tells what to do."""

    @traced_tool
    def tool() -> Any:
        return value

    events, _ = recorded(tool)
    with pytest.raises(ReplayMiss, match=words), replay(events, store=False):
        tool()


def test_what_was_not_captured_is_refused() -> None:
    """A result that was left out on request is no empty object; so are vectors."""

    @traced_tool(capture_output=False)
    def tool() -> dict[str, int]:
        return {"a": 1}

    @traced_embedding
    def embed(texts: list[str]) -> list[list[float]]:
        return [[0.5]]

    @traced_llm
    def ask(prompt: str) -> dict[str, Any]:
        return {"content": "yes", "model": "m"}

    events, _ = recorded(lambda: (tool(), embed(["x"]), ask("x")))
    for call, words in (
        (tool, "capture_output"),
        (lambda: embed(["x"]), "vectors"),
        (lambda: ask("x"), "sdk.openai"),
    ):
        with pytest.raises(ReplayMiss, match=words), replay(events, store=False):
            call()


def test_an_annotation_that_cannot_be_rebuilt_is_told() -> None:
    """A result that its annotation does not fit is a miss that names the type and the ways out."""

    class Opaque:
        def __init__(self, handle: object) -> None:
            self.handle = handle

    def tool() -> Any:
        return [{"handle": 1}]

    tool.__annotations__ = {"return": list[Opaque]}
    tool = traced_tool(tool)
    events, _ = recorded(tool)
    with (
        pytest.raises(ReplayMiss, match=r"Opaque.*correct the annotation.*swap="),
        replay(events, store=False),
    ):
        tool()


def test_a_call_that_is_not_there_is_a_miss_with_the_tree_around_it() -> None:
    """The first call that differs is told with the nearest recorded one, what differs, and the calls beside it."""

    @traced_tool
    def look_up(order: int) -> str:
        ran.append(order)
        return "sent"

    @traced_tool
    def refund(order: int, amount: float) -> str:
        ran.append(order)
        return "done"

    events, _ = recorded(lambda: (look_up(8841), refund(8841, 12.5)))
    run = replay(events, store=False)
    with pytest.raises(ReplayMiss) as missed, run:
        look_up(8841)
        refund(8841, 125.0)

    assert str(missed.value) == str(run.divergence)
    assert str(run.divergence) == (
        "refund(order=8841, amount=125.0) is not in the recording.\n"
        "The nearest one there is refund(order=8841, amount=12.5):\n"
        "  - arguments.amount: recorded 12.5, now 125.0\n"
        "  ✓ look_up(order=8841)\n"
        "  > refund(order=8841, amount=12.5)"
    )
    assert ran == []


def test_a_miss_that_is_caught_is_raised_again_at_the_end() -> None:
    """A framework that catches everything does not hide a miss."""

    @traced_tool
    def tool(value: int) -> int:
        return value

    events, _ = recorded(lambda: tool(1))
    with pytest.raises(ReplayMiss, match=r"tool\(value=2\)"), replay(events, store=False):
        with contextlib.suppress(BaseException):
            tool(2)


def test_first_answers_what_is_not_there_with_the_first_of_its_name() -> None:
    """With match="first" a changed argument is told, and answered all the same."""

    @traced_tool
    def tool(value: int) -> int:
        return value

    events, _ = recorded(lambda: (tool(1), tool(2)))
    with replay(events, store=False, match="first") as run:
        assert [tool(2), tool(5)] == [2, 1]

    assert "arguments.value: recorded 1, now 5" in str(run.divergence)


def test_calls_that_are_not_made_fail_strictly() -> None:
    """A recorded call that the program makes no more is a failure at the end, but not if the program failed itself."""

    @traced_tool
    def tool(value: int) -> int:
        return value

    events, _ = recorded(lambda: (tool(1), tool(2)))
    with (
        pytest.raises(ReplayMiss, match=r"not made in the replay:\n  - tool\(value=2\)"),
        replay(events, store=False),
    ):
        tool(1)
    with pytest.raises(ZeroDivisionError), replay(events, store=False):
        tool(1 // 0)
    with replay(events, store=False, match="first") as run:
        tool(1)

    assert run.unused == ["tool(value=2)"]


def test_repeated_calls_are_answered_in_turn() -> None:
    """Of equal calls the first recorded answers the first, within the call around them."""
    answers = iter(range(100))

    @traced_tool
    def poll() -> int:
        return next(answers)

    @traced_llm
    def ask(prompt: str) -> str:
        return "yes"

    @traced_tool
    def worker(name: str) -> list[int]:
        ran.append(name)
        ask(name)  # so that its body runs in a replay
        return [poll(), poll()]

    events, first = recorded(lambda: [worker("a"), worker("b"), poll()])
    with replay(events, store=False, match="first") as run, trace("t"):
        second = [worker("b"), worker("a"), poll()]

    assert first == [[0, 1], [2, 3], 4]
    assert second == [[2, 3], [0, 1], 4]
    assert ran == ["b", "a"]
    assert run.drift == [
        "worker(name='a') was recorded before worker(name='b'), and comes after it now",
    ]


@pytest.mark.anyio
async def test_calls_in_another_order_are_told() -> None:
    """Where one flow makes them, and they did not run at the same time when they were recorded."""

    @traced_tool
    def look_up(order: int) -> int:
        return order

    @traced_tool
    async def pack(order: int) -> int:
        await asyncio.sleep(0)
        return order

    with capture_events(local=True) as events, trace("t"):
        look_up(1)
        look_up(2)
        await asyncio.gather(pack(3), pack(4))
    with replay(events, store=False):
        look_up(1)
        look_up(2)
        await asyncio.gather(pack(4), pack(3))
    with (
        pytest.raises(
            ReplayMiss, match=r"look_up\(order=1\) was recorded before look_up\(order=2\), and comes after"
        ),
        replay(events, store=False),
    ):
        look_up(2)
        look_up(1)
        await asyncio.gather(pack(3), pack(4))


def test_calls_that_were_left_out_are_told_with_the_first_that_differs() -> None:
    """Else the first call after them would look like the fault."""

    @traced_tool
    def look_up(order: int) -> str:
        return f"order {order}"

    @traced_tool
    def refund(text: str) -> None:
        pass

    events, _ = recorded(lambda: refund(look_up(8841)))
    with (
        pytest.raises(ReplayMiss, match=r"Recorded before it, and not made: look_up\(order=8841\)\."),
        replay(events, store=False),
    ):
        refund("order")


@pytest.mark.anyio
async def test_calls_in_flight_end_in_the_order_they_did() -> None:
    """Of calls made at the same time the one that was first done is so in a replay, without waiting for the clock."""

    @traced_tool
    async def fetch(page: int, seconds: float) -> int:
        ran.append(page)
        await asyncio.sleep(seconds)
        return page

    async def race() -> list[int]:
        tasks = [asyncio.create_task(fetch(page, 0.03 - page / 100)) for page in range(3)]
        return [await each for each in asyncio.as_completed(tasks)]

    with capture_events(local=True) as events, trace("t"):
        first = await race()
    ran.clear()
    with replay(events, store=False):
        second = await race()

    assert (first, second, ran) == ([2, 1, 0], [2, 1, 0], [])


@pytest.mark.anyio
async def test_a_call_that_was_cancelled_waits_to_be_so() -> None:
    """A call that lost a race when it was recorded does not win it in a replay."""

    @traced_tool
    async def fetch(page: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return page

    async def race() -> list[int]:
        tasks = [asyncio.create_task(fetch(page, page * 1000)) for page in range(2)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return [task.result() for task in done]

    with capture_events(local=True) as events, trace("t"):
        first = await race()
    with replay(events, store=False):
        second = await race()

    assert first == second == [0]


def test_threads_are_answered() -> None:
    """Calls in a pool of threads are matched by what they ask, with and without the trace's place."""

    @traced_tool
    def square(value: int) -> int:
        ran.append(value)
        return value * value

    def agent() -> list[int]:
        with ThreadPoolExecutor(4) as pool, step("squares"):
            return [*pool.map(propagate(square), range(20))]

    events, first = recorded(agent)
    with replay(events, store=False) as run, trace("t"):
        second = agent()

    assert (second, ran, run.drift) == (first, [], [])


def test_calls_in_threads_end_in_the_order_they_did() -> None:
    """Of calls in a pool the one that was first done is so in a replay, also a request of one thread after others."""

    @traced_tool
    def fetch(page: int) -> int:
        if page:
            ended[page - 1].wait(10)
        ended[page].set()
        return page

    def agent() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(propagate(fetch), (3, 2, 1, 0)))

    ended = [threading.Event() for _ in range(4)]
    events, _ = recorded(agent)
    with replay(events, store=False) as run, trace("t"):
        agent()

    assert order_of(run.events) == order_of(events)
    assert run.notes == []


def order_of(events: list[dict[str, Any]]) -> list[Any]:
    """Return the arguments of calls in the order in which they ended."""
    return [call.asked["arguments"] for call in sorted(read_calls(events).calls, key=lambda call: call.ended)]


def test_a_thread_does_not_wait_for_a_call_that_is_not_made() -> None:
    """A changed program goes on, and a note says that the order is not kept."""

    @traced_tool
    def fetch(page: int) -> int:
        if page:
            ended.wait(10)
        return page

    def agent() -> None:
        with ThreadPoolExecutor(2) as pool:
            slow, fast = (pool.submit(propagate(fetch), page) for page in (1, 0))
            fast.add_done_callback(lambda _: ended.set())
            slow.result()

    ended = threading.Event()
    events, _ = recorded(agent)
    with replay(events, store=False, match="first") as run, trace("t"):
        thread = threading.Thread(target=propagate(fetch), args=(1,))
        thread.start()
        thread.join()

    assert run.notes == [
        "fetch(page=0) ended before fetch(page=1) when it was recorded, and does not now: calls in threads no longer "
        "wait for each other"
    ]


def test_a_tool_that_asks_for_vectors_alone_does_not_run() -> None:
    """It is answered as a whole, since it is no agent; the vectors inside it are not missed."""

    @traced_embedding
    def embed(texts: list[str]) -> list[list[float]]:
        ran.append("embed")
        return [[0.5] for _ in texts]

    @traced_tool
    def search(query: str) -> str:
        ran.append("search")
        return f"{len(embed([query]))} pages"

    events, first = recorded(lambda: search("tea"))
    with replay(events, store=False) as run:
        second = search("tea")

    assert (second, ran, run.unused) == (first, [], [])


def test_a_miss_tells_which_calls_may_have_changed_their_arguments() -> None:
    """What a body does to its arguments is not recorded: where a call differs after one, the message says so."""

    @traced_tool
    def add(items: list[str], item: str) -> None:
        items.append(item)

    @traced_tool
    def save(count: int) -> None:
        ran.append(count)

    def agent() -> None:
        items: list[str] = []
        add(items, "tea")
        save(len(items))

    events, _ = recorded(agent)
    with (
        pytest.raises(ReplayMiss, match=r"count: recorded 1, now 0\nadd returned nothing .* listed in live="),
        replay(events, store=False),
    ):
        agent()
    with replay(events, store=False, live=[add]):
        agent()


def test_live_functions_run() -> None:
    """A function that is listed runs, and its calls inside are answered."""

    @traced_tool
    def inner() -> int:
        ran.append("inner")
        return 1

    @traced_tool
    def outer() -> int:
        ran.append("outer")
        return inner() + 1

    events, _ = recorded(outer)
    with replay(events, store=False, live=[outer]):
        outer()
    with replay(events, store=False):
        outer()

    assert ran == ["outer"]


def test_a_live_function_is_known_by_the_name_that_is_recorded() -> None:
    """A function with a name of its own is listed as itself or by that name, which may stand alone."""

    @traced_tool(name="weather")
    def fetch() -> int:
        ran.append("fetch")
        return 1

    events, _ = recorded(fetch)
    for live in ([fetch], ["weather"], "weather"):
        with replay(events, store=False, live=live):
            fetch()

    assert ran == ["fetch"] * 3
    assert names_of([traced_tool(name="number")(functools.partial(int)), fetch]) == {"number", "weather"}


@pytest.mark.anyio
async def test_swapped_functions_answer() -> None:
    """A function in the place of another gets its arguments without self, and answers for any kind of it."""

    class Shop:
        @traced_tool
        def price(self, item: str) -> int:
            return 1

        @traced_tool
        async def stock(self, item: str) -> int:
            return 1

        @traced_tool
        async def pages(self, count: int) -> AsyncIterator[int]:
            for number in range(count):
                yield number

    async def agent() -> list[Any]:
        shop = Shop()
        return [shop.price("tea"), await shop.stock("tea"), [page async for page in shop.pages(2)]]

    async def stock(item: str) -> str:
        return f"{item}?"

    with capture_events(local=True) as events, trace("t"):
        await agent()
    swap = {"price": lambda item: item * 2, "stock": stock, "pages": lambda count: [count]}
    with replay(events, store=False, swap=swap):
        assert await agent() == ["teatea", "tea?", [2]]


def test_nothing_leaves_the_process() -> None:
    """Code that is not traced reaches neither the network nor a new process, also on a connection that is open."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_before = socket.create_connection(listener.getsockname())
    taken, _ = listener.accept()

    @traced_tool
    def tool() -> int:
        return 1

    events, _ = recorded(tool)
    attempts: list[Callable[[], Any]] = [
        lambda: socket.create_connection(listener.getsockname()),
        lambda: open_before.sendall(b"x"),
        lambda: open_before.sendfile(io.BytesIO(b"x")),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: socket.gethostbyaddr("127.0.0.1"),
        lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
        lambda: subprocess.run(["true"], check=True),
        lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    ]
    with listener, open_before, taken:
        for attempt in attempts:
            with pytest.raises(ReplayMiss, match="would have left the process"), replay(events, store=False):
                tool()
                attempt()
        with replay(events, store=False, network=True):
            tool()
            open_before.sendall(b"now")
        open_before.sendall(b"!")
        assert taken.recv(10) == b"now!"
    with pytest.raises(ReplayMiss, match=r"getaddrinfo \('shop\.test', 80"), replay(events, store=False):
        socket.getaddrinfo("shop.test", 80)


def test_a_live_function_reaches_the_network() -> None:
    """The guard is down while a listed function runs."""
    listener = socket.create_server(("127.0.0.1", 0))

    @traced_tool
    def connects() -> None:
        socket.create_connection(listener.getsockname()).close()

    with listener:
        events, _ = recorded(connects)
        with replay(events, store=False, live=[connects]):
            connects()


def test_wrong_arguments_raise_what_they_did() -> None:
    """A call that Python refuses is refused in a replay."""

    @traced_tool
    def tool(value: int) -> int:
        return value

    events, _ = recorded(lambda: tool(1))
    with replay(events, store=False):
        with pytest.raises(TypeError, match="missing 1 required"):
            tool()  # type: ignore[call-arg]
        tool(1)


def test_tools_that_are_not_decorated_are_told() -> None:
    """A tool that a model asked for and that was not recorded runs in a replay: a note says so."""

    @traced_llm
    def ask(prompt: str) -> dict[str, Any]:
        call = {"id": "c", "type": "function", "function": {"name": "delete_all", "arguments": "{}"}}
        return {
            "model": "m",
            "object": "chat.completion",
            "choices": [{"message": {"role": "assistant", "tool_calls": [call]}}],
        }

    events, _ = recorded(lambda: ask("x"))
    with replay(events, store=False) as run:
        ask("x")

    assert "delete_all was asked for by a model" in run.notes[0]


def test_one_replay_at_a_time() -> None:
    """A replay answers the whole process, so a second one is refused; the first goes on."""

    @traced_tool
    def tool() -> int:
        return 1

    events, _ = recorded(tool)
    with replay(events, store=False):
        with pytest.raises(RuntimeError, match="only one"), replay(events, store=False):
            pass
        tool()


def test_a_replay_is_opened_once() -> None:
    """What was answered is used up, so the same replay cannot answer again."""

    @traced_tool
    def tool() -> int:
        return 1

    events, _ = recorded(tool)
    run = replay(events, store=False)
    with run:
        tool()
    with pytest.raises(RuntimeError, match="opened once"), run:
        pass


@pytest.mark.parametrize("source", [None, 7, [1], {}, [{"step": 1}]], ids=repr)
def test_what_is_no_recording_is_told(source: Any) -> None:
    """The error says what can be replayed."""
    with pytest.raises(ReplayError, match=r"neither the id of a trace|no calls"):
        replay(source)


def test_a_name_that_nothing_has_is_told() -> None:
    """A misspelt name in live= or swap= would try nothing; that fails strictly, and is noted otherwise."""

    @traced_tool
    def lookup() -> int:
        return 1

    events, _ = recorded(lookup)
    with pytest.raises(ReplayMiss, match="of no call that was made:\n  - lookpu"):
        with replay(events, store=False, swap={"lookpu": lambda: 2}):
            lookup()
    with replay(events, store=False, match="first", live=["lookpu"]) as run:
        lookup()

    assert run.notes == ["live= and swap= name what no call was made of: lookpu."]


def test_what_cannot_be_replayed_is_told(tmp_path: Path) -> None:
    """An unknown trace, one without calls, one that still runs, and a wrong option are told before anything runs."""
    sdk = WhyOps(agent_name="shop")
    started, may_end = threading.Event(), threading.Event()

    @traced_tool
    def slow() -> None:
        started.set()
        may_end.wait(10)

    with sdk.trace("empty") as empty:
        empty.user_message_sync([{"role": "user", "content": "hi"}])
    thread = threading.Thread(target=lambda: sdk.trace("running").__enter__() and slow())
    thread.start()
    started.wait(10)
    with pytest.raises(TraceNotFoundError):
        replay("no-such-trace")
    with pytest.raises(ReplayError, match="@traced_tool"):
        replay("empty")
    with pytest.raises(ReplayError, match="still runs: slow"):
        replay("running")
    with pytest.raises(ConfigurationError, match="'strict' or 'first'"):
        replay("empty", match="loose")  # type: ignore[arg-type]
    may_end.set()
    thread.join()
    sdk.close_sync()


def test_calls_outside_a_replay_are_untouched() -> None:
    """After a replay functions run and are recorded as before."""

    @traced_tool
    def tool() -> int:
        ran.append(1)
        return 1

    events, _ = recorded(tool)
    with replay(events, store=False):
        tool()
    after, _ = recorded(tool)

    assert [event["eventType"] for event in after] == [event["eventType"] for event in events]


def test_a_replay_and_its_recording_do_not_go_on_with_each_other() -> None:
    """A trace of one id has steps from 1 on in the recording, in a replay right after it, and in a run after that."""
    sdk = WhyOps(agent_name="shop")

    @traced_tool
    def tool() -> int:
        return 1

    def agent() -> None:
        with sdk.trace("same"):
            tool()

    with capture_events(local=True) as events:
        agent()
    with replay(events, store=False) as run:
        agent()
    with replay(run.events, store=False) as again:
        agent()
    sdk.close_sync()

    assert [each["stepId"] for each in run.events] == [each["stepId"] for each in again.events] == [1, 2, 1]
    run.no_findings()


@pytest.mark.anyio
async def test_without_tracing_nothing_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tracing is off nothing runs either: each call says so."""

    @traced_tool
    def tool() -> int:
        ran.append(1)
        return 1

    @traced_tool
    async def later() -> int:
        ran.append(1)
        return 1

    @traced_tool
    async def pages() -> AsyncIterator[int]:
        ran.append(1)
        yield 1

    async def agent() -> None:
        tool()

    with capture_events(local=True) as events, trace("t"):
        tool()
    ran.clear()
    forget_clients()
    monkeypatch.setenv("WHYOPS_TRACING", "off")
    for call in (agent, later, lambda: anext(pages())):
        with pytest.raises(ReplayMiss, match="tracing is off"), replay(events, store=False):
            await call()

    assert ran == []


def test_other_callables_answer_as_well() -> None:
    """Partials, callable objects, builtins, properties, and functions that were pickled by value."""
    cloudpickle = pytest.importorskip("cloudpickle")

    class Adder:
        def __call__(self, one: int, other: int) -> int:
            ran.append("adder")
            return one + other

        @traced_tool  # type: ignore[prop-decorator]
        @property
        def size(self) -> int:
            ran.append("size")
            return 3

    def double(value: int) -> int:
        ran.append("double")
        return value * 2

    adds, doubles = traced_tool(Adder()), traced_tool(functools.partial(double, 4))
    pickled = cloudpickle.loads(cloudpickle.dumps(traced_tool(double)))
    counts = traced_tool(len)

    def agent() -> list[Any]:
        return [adds(1, 2), doubles(), pickled(5), counts([1, 2]), Adder().size]

    events, first = recorded(agent)
    with replay(events, store=False):
        second = agent()

    assert (second, ran) == (first, [])


@pytest.mark.anyio
async def test_what_still_runs_when_it_is_returned_is_replayed() -> None:
    """Iterators that a plain function returns, in either way, and texts that a model streams."""

    @traced_tool
    def rows(count: int) -> Iterator[int]:
        ran.append("rows")
        return iter(range(count))

    @traced_tool
    def later(count: int) -> AsyncIterator[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(count):
                yield number

        ran.append("later")
        return numbers()

    @traced_llm
    def speak(prompt: str) -> Iterator[str]:
        ran.append("speak")
        yield from ("It ", "is ", "so.")

    @traced_llm
    async def speak_later(prompt: str) -> AsyncIterator[str]:
        ran.append("speak_later")
        for word in ("It ", "is ", "so."):
            yield word

    async def agent() -> list[Any]:
        numbers = [number async for number in later(3)]
        return [list(rows(3)), numbers, list(speak("x")), [word async for word in speak_later("y")]]

    with capture_events(local=True) as events, trace("t"):
        first = await agent()
    ran.clear()
    with replay(events, store=False):
        second = await agent()

    assert (second, ran) == (first, [])


def test_a_program_that_changes_what_it_gets_changes_no_recording() -> None:
    """The next replay of the same events answers the same."""

    @traced_tool
    def basket() -> Any:
        return {"items": ["tea"]}

    def agent() -> Any:
        mine = basket()
        mine["items"].append("milk")
        return mine

    events, _ = recorded(agent)
    for _ in range(2):
        with replay(events, store=False):
            assert agent() == {"items": ["tea", "milk"]}


def test_what_is_sent_to_a_generator_changes_nothing() -> None:
    """It yields what it yielded then, also to a consumer that sends."""

    @traced_tool
    def sums() -> Generator[int, int | None, None]:
        total = 0
        while (more := (yield total)) is not None:
            total += more

    def agent() -> list[int]:
        generator = sums()
        seen = [next(generator), generator.send(2), generator.send(5)]
        assert next(generator, None) is None
        return seen

    events, first = recorded(agent)
    with replay(events, store=False):
        assert agent() == first == [0, 2, 7]


def test_an_item_that_was_not_kept_is_a_miss() -> None:
    """Of many items the first are recorded; who reads further in a replay is told."""

    @traced_tool
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    events, _ = recorded(lambda: list(numbers(150)))
    with (
        pytest.raises(ReplayMiss, match=r"Of the 150 items .* only the first 100"),
        replay(events, store=False),
    ):
        list(numbers(150))


def test_a_limit_of_a_trace_holds_in_a_replay() -> None:
    """A trace with a limit refuses the same call as it did."""

    @traced_tool
    def tool(value: int) -> int:
        return value

    def agent() -> None:
        with trace("t", max_steps=2):
            for value in range(5):
                tool(value)

    with capture_events(local=True) as events, pytest.raises(AgentRunaway) as first:
        agent()
    with replay(events, store=False), pytest.raises(AgentRunaway) as second:
        agent()

    assert second.value.refused == first.value.refused
