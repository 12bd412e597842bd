"""Where a thread, greenlet or process lost the scope, that is said once; where none was to be had, nothing is."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import multiprocessing.pool
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest
from programs import environment
from recorded import Recorded

from whyops_trace import propagate, step, trace, traced_tool

pytestmark = [
    pytest.mark.usefixtures("events"),
    pytest.mark.skipif(
        bool(getattr(sys.flags, "thread_inherit_context", False)), reason="Here a thread inherits the scope."
    ),
]

#: Most calls of a work that waits until something is said; each takes a hundredth of a second where it looks.
MANY = 100_000


@traced_tool
def leaf() -> None:
    """Do nothing."""


def in_thread(work: Callable[[], None]) -> None:
    """Start a thread, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_timer(work: Callable[[], None]) -> None:
    """Start a thread of a class of its own."""
    timer = threading.Timer(0, work)
    timer.start()
    timer.join()


def in_pool(work: Callable[[], None]) -> None:
    """Wait for one future, in a pool whose threads have other names."""
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        pool.submit(work).result()


def in_map(work: Callable[[], None]) -> None:
    """Wait for the results of several."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: work(), range(2)))


def in_futures(work: Callable[[], None]) -> None:
    """Wait for several futures in both ways."""
    with ThreadPoolExecutor(2) as pool:
        futures = {pool.submit(work): n for n in range(2)}
        wait(futures)
        for future in as_completed(futures):
            future.result()


def in_thread_pool(work: Callable[[], None]) -> None:
    """Use the pool of multiprocessing."""
    with multiprocessing.pool.ThreadPool(1) as pool:
        pool.apply(work)


def in_loop(work: Callable[[], None]) -> None:
    """Await a call in the pool of an event loop, in a task of its own."""

    async def main() -> None:
        with step("wait"):
            await asyncio.gather(asyncio.get_running_loop().run_in_executor(None, work))

    asyncio.run(main())


@pytest.mark.parametrize(
    "start",
    [in_thread, in_timer, in_pool, in_map, in_futures, in_thread_pool, in_loop],
    ids=lambda f: f.__name__,
)
def test_whatever_code_in_a_trace_waits_for_has_lost_the_scope(
    said: Callable[[], list[str]], start: Callable[[Callable[[], None]], None]
) -> None:
    """Said once, with the remedy, though each of its calls makes a trace of its own."""

    def work() -> None:
        for _ in range(MANY):
            leaf()
            if said():
                leaf()
                return

    with trace("open"):
        start(work)
    (warning,) = said()

    assert warning.startswith("leaf was called in thread ")
    assert "propagate(function)" in warning


def test_a_traced_call_is_a_trace_to_lose_as_well(said: Callable[[], list[str]]) -> None:
    """Without any block."""

    def work() -> None:
        for _ in range(MANY):
            leaf()
            if said():
                return

    @traced_tool
    def agent() -> None:
        in_thread(work)

    agent()

    assert len(said()) == 1


def test_what_is_propagated_has_lost_nothing(said: Callable[[], list[str]], events: Recorded) -> None:
    """The remedy is one."""
    with trace("open"):
        for start in (in_thread, in_pool, in_loop):
            start(propagate(leaf))

    assert events.traces == ["open"]
    assert said() == []


def test_a_thread_with_work_of_its_own_has_lost_nothing(said: Callable[[], list[str]]) -> None:
    """A scheduler or a server's thread, while a block is open elsewhere that does not wait for it."""
    opened, done = threading.Event(), threading.Event()

    def background() -> None:
        opened.wait(30)
        for _ in range(100):
            leaf()
        done.set()

    thread = threading.Thread(target=background)
    thread.start()
    with trace("open"):
        opened.set()
        assert done.wait(30)
    thread.join()

    assert said() == []


def test_a_server_with_a_thread_for_each_request_has_lost_nothing(said: Callable[[], list[str]]) -> None:
    """Each begins work of its own, the one in a trace and the other not; who starts them is in none."""
    opened, done = threading.Event(), threading.Event()

    def with_trace() -> None:
        with trace("request"):
            opened.set()
            assert done.wait(30)

    def without() -> None:
        leaf()
        leaf()

    first = threading.Thread(target=with_trace)
    first.start()
    opened.wait(30)
    for _ in range(20):
        in_thread(without)
    done.set()
    first.join()

    assert said() == []


def test_a_pool_that_others_use_as_well_has_lost_nothing(said: Callable[[], list[str]]) -> None:
    """Code in a trace waits for its own work, and not for that of others in the same pool."""
    opened, done = threading.Event(), threading.Event()

    def background() -> None:
        opened.wait(30)
        for _ in range(100):
            leaf()
        done.set()

    with ThreadPoolExecutor(2) as pool:
        others: Future[None] = pool.submit(background)
        with trace("open"):
            opened.set()
            assert pool.submit(propagate(done.wait), 30).result()
        others.result()

    assert said() == []


def test_another_task_of_the_loop_has_lost_nothing(said: Callable[[], list[str]]) -> None:
    """A task in a trace does not make one for the calls of others in the same thread."""

    async def main() -> None:
        done = asyncio.Event()

        async def in_trace() -> None:
            async with trace("open"):
                await done.wait()

        task = asyncio.create_task(in_trace())
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, leaf)
        in_thread(leaf)
        done.set()
        await task

    asyncio.run(main())

    assert said() == []


def test_forks_in_a_trace_have_lost_it(said: Callable[[], list[str]], tmp_path: Path) -> None:
    """One of them says so, for all."""
    reading, writing = os.pipe()
    with trace("open"):
        for _ in range(3):
            child = os.fork()
            if not child:
                leaf()
                os.write(writing, "".join(f"{text}\n" for text in said()).encode())
                os._exit(0)
            os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as answers:
        (warning,) = answers.read().splitlines()

    assert "a forked process of trace 'open'" in warning
    assert said() == []


def test_a_fork_outside_any_trace_has_lost_nothing(said: Callable[[], list[str]]) -> None:
    """It begins work of its own."""
    with trace("before"):
        leaf()
    child = os.fork()
    if not child:
        leaf()
        os._exit(len(said()))

    assert os.waitpid(child, 0)[1] == 0


GREENLETS = {
    "gevent join": ("gevent", "gevent.spawn(tool).join()", True),
    "gevent get": ("gevent", "gevent.spawn(tool).get()", True),
    "gevent pool": ("gevent", "import gevent.pool; gevent.pool.Pool(2).apply(tool)", True),
    "gevent thread": (
        "gevent",
        "thread = threading.Thread(target=tool); thread.start(); thread.join()",
        True,
    ),
    "gevent propagated": ("gevent", "gevent.spawn(propagate(tool)).join()", False),
    "eventlet": ("eventlet", "eventlet.spawn(tool).wait()", True),
    "eventlet propagated": ("eventlet", "eventlet.spawn(propagate(tool)).wait()", False),
}


@pytest.mark.parametrize(("package", "code", "lost"), GREENLETS.values(), ids=GREENLETS)
def test_a_greenlet_that_lost_the_scope_says_so(tmp_path: Path, package: str, code: str, lost: bool) -> None:
    """As a thread does; one that was made before the block, and that nobody waits for, has lost nothing."""
    if importlib.util.find_spec(package) is None:  # not imported here, where it would complain of forks
        pytest.skip(f"{package} is not installed")
    patch = "import gevent.monkey; gevent.monkey.patch_all()" if package == "gevent" else ""
    program = f"""
{patch}
import {package}, threading
from whyops_trace import propagate, trace, traced_tool
@traced_tool
def tool(): pass
def own():
    {package}.sleep(0)
    tool()
{package}.spawn(own)
with trace("open"):
    {package}.sleep(0.01)
print("own work is done", flush=True)
with trace("open"):
    {code}
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert done.stderr.count("which does not know the trace that is open") == lost
