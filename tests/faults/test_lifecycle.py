"""However a process starts, forks and ends, each of its records reaches the server and the store, once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import re
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Hang
from programs import start, stored

from whyops_trace import WhyOps
from whyops_trace.client import forget_clients
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.types import Ledger

KEY = "whyops_test"
#: From Python 3.12 on, a fork beside our worker thread makes the interpreter warn; what that is worth is tested here.
FORKS = ("-W", "ignore:This process")


@pytest.fixture
def server() -> Iterator[Collector]:
    """A server that works, until a test says otherwise."""
    with Collector() as collector:
        yield collector
        forget_clients()


def settings(server: Collector, **more: str) -> dict[str, str]:
    """Return the environment of an agent that reports to the server and to the store of its home."""
    urls = {"WHYOPS_ANALYSE_URL": server.url, "WHYOPS_PROXY_URL": server.proxy_url}
    return {**urls, "WHYOPS_API_KEY": KEY, "WHYOPS_AGENT_NAME": "shop", "WHYOPS_STORE": "on", **more}


@contextlib.contextmanager
def running(
    *arguments: str | Path, server: Collector, home: Path, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """Lend a process of an agent, which does not outlive the block."""
    with start(*FORKS, *arguments, home=home, **settings(server, **more)) as process:
        try:
            yield process
        finally:
            process.kill()


def agent(
    code: str, server: Collector, home: Path, **more: str
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return running("-c", textwrap.dedent(code), server=server, home=home, **more)


def run(
    *arguments: str | Path, server: Collector, home: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    with running(*arguments, server=server, home=home, **more) as process:
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_agent(code: str, server: Collector, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run("-c", textwrap.dedent(code), server=server, home=home, **more)


def next_process(server: Collector, home: Path, **more: str) -> None:
    """Do what any next process of the same agent does: record something and end."""
    done = run_agent(
        """
        from whyops_trace import WhyOps
        WhyOps().trace().error_sync("next")
        """,
        server,
        home,
        **more,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def client(server: Collector, home: Path, **options: Any) -> WhyOps:
    urls = {"analyse_base_url": server.url, "proxy_base_url": server.proxy_url}
    return WhyOps(**{"api_key": KEY, "agent_name": "shop", "home": home, "store": True, **urls, **options})


def told(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the errors among these events say, in the order of the alphabet."""
    return sorted(event["content"]["message"] for event in events if event["eventType"] == "error")


def arrived(server: Collector, home: Path, trace: str = "t") -> list[str]:
    """Return what the errors of a trace say, the same at the server and in the store, numbered soundly in both."""
    rows, local = server.trace(trace), stored(home, trace)

    assert told(rows) == told(local)
    for events in (rows, [event for event in local if event["eventType"] not in ("step_end", "trace_end")]):
        steps = [event["stepId"] for event in events]

        assert len(set(steps)) == len(steps)
        assert {event.get("parentStepId") for event in events} - {None} <= set(steps)
    return told(rows)


def calls(events: Sequence[dict[str, Any]]) -> list[int]:
    """Return the argument *n* of each tool call among these events whose response is there too."""
    requests = {event["stepId"]: event for event in events if event["eventType"] == "tool_call_request"}
    answered = [event["parentStepId"] for event in events if event["eventType"] == "tool_call_response"]

    assert len(set(answered)) == len(answered)
    arguments = [requests[step]["content"]["toolCalls"][0]["arguments"] for step in answered]
    return sorted(argument["n"] for argument in arguments if "n" in argument)


def delivered(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Return how many records each destination was to get, and got."""
    return {name: (tally.emitted, tally.delivered) for name, tally in ledger.items()}


def workers() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("whyops-"))


# The worker


def test_the_first_record_starts_a_daemon_for_each_server_and_one_for_the_store(
    server: Collector, tmp_path: Path
) -> None:
    """Their names say where they deliver to; a client that records nothing has none, and no file."""
    sdk = client(server, tmp_path / "home")
    handle = sdk.trace("t")
    before = workers(), (tmp_path / "home").exists()
    handle.error_sync("x")
    during = [thread for thread in threading.enumerate() if thread.name.startswith("whyops-")]
    sdk.close_sync()

    assert before == ([], False)
    assert sorted(thread.name for thread in during) == ["whyops-local", "whyops-whyops"]
    assert all(thread.daemon for thread in during)
    assert workers() == []
    assert arrived(server, tmp_path / "home") == ["x"]


def test_a_worker_sees_and_keeps_nothing_of_who_started_it(server: Collector, tmp_path: Path) -> None:
    """A context variable of the caller's is not set there, and its value goes when the caller forgets it."""

    class Request:
        pass

    class Looking(Exporter):
        name = "looking"
        remote = True

        def export(self, batch: Batch) -> Sequence[Outcome]:
            seen.append(variable.get(None))
            return [Outcome.DELIVERED] * len(batch.lines)

    seen: list[object] = []
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
    sdk = client(server, tmp_path, exporters=[Looking()])
    request = Request()
    reset = variable.set(request)
    with sdk.trace("t") as handle:
        handle.error_sync("x")
    sdk.flush_sync()
    alive = weakref.ref(request)
    variable.reset(reset)
    del request, reset
    gc.collect()

    assert seen
    assert set(seen) == {None}
    assert alive() is None
    assert workers() == ["whyops-local", "whyops-looking", "whyops-whyops"]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can, so that they meet where it matters."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_flush_at_once_share_one_worker(server: Collector, tmp_path: Path) -> None:
    """Each gets a ledger in which its own record is delivered."""
    sdk = client(server, tmp_path)
    ready = threading.Barrier(8)
    ledgers: list[Ledger] = []

    def flush(number: int) -> None:
        handle = sdk.trace(f"t{number}")
        ready.wait()
        handle.error_sync("x")
        ledgers.append(sdk.flush_sync())

    for _ in range(20):
        threads = [threading.Thread(target=flush, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert workers() == ["whyops-local", "whyops-whyops"]

        sdk.close_sync()

    assert len(ledgers) == 160
    assert all(tally.pending <= 7 for ledger in ledgers for tally in ledger.values())
    assert delivered(sdk.stats()) == {"local": (160, 160), "whyops": (160, 160)}
    assert len(server.stored) == 160


@pytest.mark.anyio
async def test_an_event_loop_runs_on_while_it_flushes(
    server: Collector, tmp_path: Path, anyio_backend: object
) -> None:
    """The server answers only after another task of the same loop has said so."""
    import anyio

    sdk = client(server, tmp_path)
    server.fail(Hang())
    ledgers: list[Ledger] = []

    async def flush() -> None:
        ledgers.append(await sdk.flush())

    async def release() -> None:
        await anyio.to_thread.run_sync(server.wait_for, lambda: server.requests)
        server.release()

    sdk.trace("t").error_sync("x")
    async with anyio.create_task_group() as group:
        group.start_soon(flush)
        group.start_soon(release)
    closed = await sdk.close()

    assert delivered(ledgers[0]) == delivered(closed) == {"local": (1, 1), "whyops": (1, 1)}


def test_a_cancelled_flush_leaves_delivery_as_it_is(server: Collector, tmp_path: Path) -> None:
    """Whoever gives up waiting gives up nothing else."""
    sdk = client(server, tmp_path)
    server.fail(Hang())

    async def main() -> None:
        sdk.trace("t").error_sync("x")
        flushing = asyncio.create_task(sdk.flush())
        await asyncio.to_thread(server.wait_for, lambda: server.requests)
        flushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flushing
        server.release()

    asyncio.run(main())

    assert delivered(sdk.flush_sync()) == {"local": (1, 1), "whyops": (1, 1)}


# Forks


def test_a_fork_in_the_middle_of_a_delivery(server: Collector, tmp_path: Path) -> None:
    """Parent and child go on with the same trace; each gets the answers to its own requests, and its own ledger."""
    server.fail(Hang())
    with agent(
        """
        import os, sys
        from whyops_trace import WhyOps
        sdk = WhyOps()
        handle = sdk.trace("t")
        handle.error_sync("before")
        sys.stdin.readline()
        child = os.fork()
        who = "parent" if child else "child"
        for n in range(50):
            handle.error_sync(f"{who} {n}")
        if child:
            sys.stdin.readline()
        else:
            print("forked", flush=True)
        ledger = sdk.flush_sync(30)
        print(who, [(tally.emitted, tally.delivered) for tally in ledger.values()], flush=True)
        if not child:
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        server,
        tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server.wait_for(lambda: server.requests)
        process.stdin.write("fork\n")
        process.stdin.flush()
        forked = process.stdout.readline()
        server.release()
        out, err = process.communicate("go on\n", timeout=60)

    assert (process.returncode, forked, err) == (0, "forked\n", "")
    assert sorted(out.splitlines()) == ["child [(50, 50), (50, 50)]", "parent [(51, 51), (51, 51)]"]
    assert arrived(server, tmp_path) == sorted(
        ["before", *(f"{who} {n}" for who in ("child", "parent") for n in range(50))]
    )


def test_a_fork_while_another_thread_flushes(server: Collector, tmp_path: Path) -> None:
    """The child delivers though the threads it does not have were holding locks; the parent's flush goes on."""
    server.fail(Hang())
    with agent(
        """
        import os, sys, threading
        from whyops_trace import WhyOps
        sdk = WhyOps()
        sdk.trace("parent").error_sync("x")
        flushing = threading.Thread(target=sdk.flush_sync, args=[30])
        flushing.start()
        sys.stdin.readline()
        child = os.fork()
        if child == 0:
            sdk.trace("child").error_sync("x")
            print([tally.delivered for tally in sdk.flush_sync(30).values()], flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("child has ended", flush=True)
        flushing.join()
        print([tally.delivered for tally in sdk.stats().values()])
        """,
        server,
        tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server.wait_for(lambda: server.requests)
        process.stdin.write("fork\n")
        process.stdin.flush()
        said = [process.stdout.readline() for _ in range(2)]
        server.release()
        out, err = process.communicate(timeout=60)

    assert (process.returncode, said, out, err) == (0, ["[1, 1]\n", "child has ended\n"], "[1, 1]\n", "")
    assert arrived(server, tmp_path, "parent") == arrived(server, tmp_path, "child") == ["x"]


def test_a_child_may_import_what_a_worker_was_importing_at_the_fork(
    server: Collector, tmp_path: Path
) -> None:
    """A process that records and forks at once has children that can use the HTTP library, as ours and as theirs."""
    done = run_agent(
        """
        import os, sys
        from whyops_trace import WhyOps
        sdk = WhyOps()
        sdk.trace("parent").error_sync("x")
        child = os.fork()
        if child == 0:
            import httpx
            sdk.trace("child").error_sync("x")
            os._exit(sdk.flush_sync(30)["whyops"].pending)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        server,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert arrived(server, tmp_path, "parent") == arrived(server, tmp_path, "child") == ["x"]


def test_a_child_may_register_the_agent_while_its_parent_does(server: Collector, tmp_path: Path) -> None:
    """The lock that a thread of the parent holds is not the child's."""
    asked = threading.Semaphore(0)

    def hang_first(request: Any) -> Hang | None:
        if request.path != "/api/entities/init":
            return None
        asked.release()
        return Hang() if len(server.requests) == 0 else None

    server.script = hang_first
    with agent(
        """
        import os, sys
        from whyops_trace import WhyOps
        sdk = WhyOps(agent_metadata={"systemPrompt": "Help.", "tools": []})
        sdk.trace("t").error_sync("x")
        sys.stdin.readline()
        child = os.fork()
        if child == 0:
            print(sdk.init_agent_sync()["success"], flush=True)
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        server,
        tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server.wait_for(lambda: server.requests)
        process.stdin.write("fork\n")
        process.stdin.flush()
        registered = process.stdout.readline()
        server.release()
        _, err = process.communicate(timeout=60)

    assert asked.acquire(timeout=0)
    assert (process.returncode, registered, err) == (0, "True\n", "")
    assert arrived(server, tmp_path) == ["x"]


def test_forked_workers_that_are_killed_and_restarted(server: Collector, tmp_path: Path) -> None:
    """A client made and used before the fork serves every worker, on traces of their own and on one they share."""
    done = run_agent(
        """
        import os, signal, sys
        from whyops_trace import WhyOps
        sdk = WhyOps()
        shared = sdk.trace("t")
        shared.error_sync("master")

        def fork(number):
            ours, theirs = os.pipe()
            child = os.fork()
            if child:
                os.close(theirs)
                assert os.read(ours, 1) == b"."
                return child
            for n in range(20):
                shared.error_sync(f"{number} {n}")
                sdk.trace(f"of {number}").error_sync(str(n))
            os.write(theirs, b".")
            signal.pause()

        children = [fork(number) for number in range(4)]
        for number, child in enumerate(children):
            os.kill(child, (signal.SIGTERM, signal.SIGKILL)[number % 2])
            os.waitpid(child, 0)
            children[number] = fork(4 + number)
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        """,
        server,
        tmp_path,
    )
    next_process(server, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert arrived(server, tmp_path) == sorted(
        ["master", *(f"{number} {n}" for number in range(8) for n in range(20))]
    )
    for number in range(8):
        assert arrived(server, tmp_path, f"of {number}") == sorted(map(str, range(20)))


POOL = """
    import multiprocessing, os
    from concurrent.futures import ProcessPoolExecutor
    from whyops_trace import WhyOps, trace, traced_tool

    sdk = WhyOps()

    @traced_tool
    def f(n):
        return n

    def work(n):
        with trace("t {{}}".format(os.getpid())):  # those of a trace at the same time could share numbers
            return f(n)

    if __name__ == "__main__":
        context = multiprocessing.get_context("{method}")
        assert work(-1) == -1
        {pool}
            assert sorted(pool.map(work, range(60))) == list(range(60))
            {end}
"""
POOLS = {
    "Pool": ("with context.Pool(3) as pool:", "pool.close(); pool.join()"),
    "ProcessPoolExecutor": ("with ProcessPoolExecutor(3, mp_context=context) as pool:", "pass"),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_processes_of_a_pool_lose_nothing(
    server: Collector, tmp_path: Path, method: str, pool: str
) -> None:
    """They end without exit handlers; what they leave is delivered by whoever comes next."""
    program = tmp_path / "program.py"
    first, last = POOLS[pool]
    program.write_text(textwrap.dedent(POOL).format(method=method, pool=first, end=last))
    done = run(program, server=server, home=tmp_path)
    next_process(server, tmp_path)
    traces = {row["traceId"] for row in server.stored}
    there = sorted(n for trace in traces for n in calls(server.trace(trace)))
    here = sorted(n for trace in traces for n in calls(stored(tmp_path, trace)))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert there == here == list(range(-1, 60))
    assert [error for trace in traces for error in arrived(server, tmp_path, trace)] == ["next"]


CHILDREN = """
    import os, sys
    import whyops_trace._delivery.children
    whyops_trace._delivery.children.LOOK_EVERY = {every}
    from whyops_trace import WhyOps, trace, traced_tool
    {made}

    @traced_tool
    def f(n):
        return n

    for n in range(3):
        child = os.fork()
        if not child:
            with trace(str(n)):
                f(n)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    print("all have ended", flush=True)
    {then}
"""


@pytest.mark.parametrize("made", ["sdk = WhyOps()", ""], ids=["with a client", "without a client"])
@pytest.mark.parametrize(
    ("every", "then"),
    [(0.1, "sys.stdin.readline(); os._exit(0)"), (3600, "")],
    ids=["while it lives", "as it ends"],
)
def test_what_children_leave_is_delivered_by_a_parent_that_records_nothing(
    server: Collector, tmp_path: Path, made: str, every: float, then: str
) -> None:
    """Children that end by ``os._exit`` deliver nothing; their parent does, while it lives or when it ends."""
    with agent(CHILDREN.format(made=made, every=every, then=then), server, tmp_path) as process:
        assert process.stdout is not None
        ended = process.stdout.readline()
        server.wait_for(lambda: len(server.stored) == 6)
        out, err = process.communicate("go on\n", timeout=60)

    assert (process.returncode, ended, out, err) == (0, "all have ended\n", "", "")
    assert sorted(n for trace in "012" for n in calls(server.trace(trace))) == [0, 1, 2]


def test_a_client_that_delivers_for_children_is_not_the_default_one(
    server: Collector, tmp_path: Path
) -> None:
    """The first client that the program makes is."""
    done = run_agent(
        CHILDREN.format(
            made="",
            every=0.1,
            then="""
    import whyops_trace.client
    while not whyops_trace.client.clients.has_steward:
        whyops_trace._delivery.flag.Flag().wait(0.05)
    sdk = WhyOps(agent_name="other")
    assert whyops_trace.client.default_client() is sdk
    """,
        ),
        server,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_forks_has_no_thread_longer_than_children(server: Collector, tmp_path: Path) -> None:
    """It ends with the last of them, and comes back with the next."""
    done = run_agent(
        """
        import os, threading
        import whyops_trace._delivery.children
        whyops_trace._delivery.children.LOOK_EVERY = 0.05
        from whyops_trace import traced_tool, propagate

        for _ in range(2):
            child = os.fork()
            if not child:
                assert threading.active_count() == 1
                os._exit(0)
            watch, = [thread for thread in threading.enumerate() if thread.name == "whyops-children"]
            os.waitpid(child, 0)
            watch.join(30)
            print(threading.active_count())
        """,
        server,
        tmp_path,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n1\n", "")


# Ends

ENDS = {
    "end": "pass",
    "SystemExit": "raise SystemExit(3)",
    "exception": "1 / 0",
    "SIGINT": "sdk.flush_sync(); signal.raise_signal(signal.SIGINT)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGTERM, exiting": """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
        os.kill(os.getpid(), signal.SIGTERM)
    """,
    "SIGTERM, closing": """
        def stop(*_):
            sdk.close_sync()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, stop)
        os.kill(os.getpid(), signal.SIGTERM)
    """,
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "_exit": "os._exit(5)",
    "abort": "os.abort()",
    "execv": """os.execv(sys.executable, [sys.executable, "-c", "print('another program')"])""",
}
AGENT = """
import os, signal, sys
from whyops_trace import WhyOps, traced_tool
sdk = WhyOps()

@traced_tool
def f(n):
    return n

@traced_tool
def last():
{end}

with sdk.trace("t"):
    print(sum(f(n) for n in range(50)), flush=True)
    last()
"""


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_lost_however_a_process_ends(server: Collector, tmp_path: Path, end: str) -> None:
    """It ends as it would without tracing, and what it could not deliver the next process delivers."""
    code = AGENT.format(end=textwrap.indent(textwrap.dedent(ENDS[end]), "    "))
    traced = run_agent(code, server, tmp_path)
    untraced = run_agent(code, server, tmp_path, WHYOPS_TRACING="off")
    next_process(server, tmp_path)
    rows, local = server.trace("t"), stored(tmp_path, "t")
    last = [row for row in rows if row["metadata"].get("tool") == "last"]

    assert traced.returncode == untraced.returncode
    assert traced.stdout == untraced.stdout
    assert traced.stderr.splitlines()[-1:] == untraced.stderr.splitlines()[-1:]
    assert calls(rows) == calls(local) == list(range(50))
    assert last[0]["eventType"] == "tool_call_request"
    assert len({event["stepId"] for event in rows}) == len(rows)


def test_records_of_the_end_of_a_process(server: Collector, tmp_path: Path) -> None:
    """Exit handlers before and after ours, a thread that outlives main, a daemon: what each records is kept."""
    done = run_agent(
        """
        import atexit, threading

        def after_us():
            handle.error_sync("after")
            babbled.wait(30)
            print(len(said), flush=True)

        atexit.register(after_us)
        from whyops_trace import WhyOps
        sdk = WhyOps(exit_timeout=60)
        handle = sdk.trace("t")

        started, babbled = threading.Event(), threading.Event()
        said = []

        def go_on():
            started.set()
            threading.main_thread().join()
            handle.error_sync("thread")

        def babble():
            while len(said) < 3000:
                handle.error_sync(f"daemon {len(said)}")
                said.append(None)
            babbled.set()
            threading.Event().wait()

        atexit.register(handle.error_sync, "before")
        threading.Thread(target=go_on).start()
        threading.Thread(target=babble, daemon=True).start()
        started.wait()
        handle.error_sync("main")
        """,
        server,
        tmp_path,
    )
    next_process(server, tmp_path)
    messages = arrived(server, tmp_path)
    others = [message for message in messages if not message.startswith("daemon")]

    # The daemon may go on while that is delivered which was there.
    told = r"(whyops: \d+ records are not delivered yet; they stay .*\n)?"
    assert done.returncode == 0
    assert re.fullmatch(told, done.stderr)
    assert others == ["after", "before", "main", "thread"]
    assert {f"daemon {n}" for n in range(int(done.stdout))} <= set(messages)
    assert len(set(messages)) == len(messages)


def test_a_finaliser_may_record_when_the_modules_are_gone(server: Collector, tmp_path: Path) -> None:
    """No thread can start any more then; the process ends all the same, and the next one delivers."""
    done = run_agent(
        """
        from whyops_trace import WhyOps
        sdk = WhyOps()
        handle = sdk.trace("t")
        class Finalised:
            def __del__(self, record=handle.error_sync):
                record("finaliser")
        kept = Finalised()
        handle.error_sync("main")
        """,
        server,
        tmp_path,
    )
    next_process(server, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert arrived(server, tmp_path) == ["finaliser", "main"]


def test_close_in_a_signal_handler_breaks_no_record_it_interrupts(server: Collector, tmp_path: Path) -> None:
    """A handler may close the client at any moment, and the program goes on: nothing is lost or said."""
    done = run_agent(
        """
        import signal
        from whyops_trace import WhyOps
        sdk = WhyOps(store=False)
        handle = sdk.trace("t")
        closed = 0
        def stop(*_):
            global closed
            closed += 1
            sdk.close_sync(0)
            signal.setitimer(signal.ITIMER_REAL, 0.001 + closed * 1e-6)
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        n = 0
        while closed < 100 and n < 300_000:
            handle.error_sync(str(n))
            n += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        tally = sdk.flush_sync(30)["whyops"]
        print(n, tally.emitted == n)
        """,
        server,
        tmp_path,
        WHYOPS_STORE="off",
    )
    number = int(done.stdout.split()[0])
    next_process(server, tmp_path, WHYOPS_STORE="off")

    assert done.returncode == 0
    assert "Internal error" not in done.stderr
    assert done.stdout == f"{number} True\n"
    assert told(server.trace("t")) == sorted(map(str, range(number)))


def test_an_exit_waits_for_an_answer_that_is_on_its_way(server: Collector, tmp_path: Path) -> None:
    """The server answers once the process is waiting for it, after its exit_timeout, and nothing stays behind."""
    server.fail(Hang())
    with agent(
        """
        import sys, threading
        from whyops_trace import WhyOps
        sdk = WhyOps(exit_timeout=0, answer_timeout=30)
        sdk.trace("t").error_sync("x")
        while sdk.stats()["local"].pending:
            threading.Event().wait(0.001)
        sys.stdin.readline()

        def watch():
            while True:
                frame, names = sys._current_frames()[threading.main_thread().ident], []
                while frame:
                    names.append(frame.f_code.co_name)
                    frame = frame.f_back
                if {"_close_at_exit", "join"} <= {*names}:
                    print("waiting", flush=True)
                    return
                threading.Event().wait(0.001)

        threading.Thread(target=watch, daemon=True).start()
        """,
        server,
        tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server.wait_for(lambda: server.requests)
        process.stdin.write("end\n")
        process.stdin.flush()
        said = process.stdout.readline()
        server.release()
        _, err = process.communicate(timeout=60)

    assert (process.returncode, said, err) == (0, "waiting\n", "")
    assert arrived(server, tmp_path) == ["x"]
    assert list((tmp_path / "journal").rglob("*.seg")) == []


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_an_exit_does_not_wait_for_ever(server: Collector, tmp_path: Path, fault: str) -> None:
    """It says how much stays behind and where; the next process delivers it, once."""
    if fault == "refuses":
        server.stop()
    else:
        server.fail(Hang(stored=True))
    done = run_agent(
        """
        from whyops_trace import WhyOps
        sdk = WhyOps(exit_timeout=0.2, answer_timeout=0.4)
        handle = sdk.trace("t")
        for n in range(3):
            handle.error_sync(str(n))
        print("done")
        """,
        server,
        tmp_path,
    )
    before = told(stored(tmp_path, "t"))
    if fault == "refuses":
        server.start()
    else:
        server.calm()  # it may have ended before it asked
        server.release()
    next_process(server, tmp_path)

    assert (done.returncode, done.stdout) == (0, "done\n")
    assert f"whyops: 3 records are not delivered yet; they stay in {tmp_path} for the next process." in (
        done.stderr
    )
    assert done.stderr.count("not delivered yet") == 1
    assert before == ["0", "1", "2"]
    assert arrived(server, tmp_path) == ["0", "1", "2"]


def test_a_client_that_is_closed_twice_and_used_again(server: Collector, tmp_path: Path) -> None:
    """Closing again does nothing; what is recorded afterwards is delivered by a new worker."""
    sdk = client(server, tmp_path)
    handle = sdk.trace("t")
    for n in range(3):
        handle.error_sync(str(n))
        ledgers = [sdk.close_sync(), sdk.close_sync()]

        assert workers() == []
        assert [delivered(ledger) for ledger in ledgers] == [
            {"local": (n + 1,) * 2, "whyops": (n + 1,) * 2}
        ] * 2
        assert list((tmp_path / "journal").rglob("*.seg")) == []

    assert arrived(server, tmp_path) == ["0", "1", "2"]


def test_records_after_the_close_of_clients_that_are_not_the_default(
    server: Collector, tmp_path: Path
) -> None:
    """A closed client is forgotten, its late records are not: they are delivered, at the latest by the next process."""
    done = run_agent(
        """
        from whyops_trace import WhyOps
        WhyOps()
        for n in range(5):
            with WhyOps() as sdk:
                handle = sdk.trace(str(n))
                handle.error_sync("in")
            handle.error_sync("after")
        """,
        server,
        tmp_path,
    )
    next_process(server, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    for n in range(5):
        assert arrived(server, tmp_path, str(n)) == ["after", "in"]


# Several clients


def test_clients_of_one_process_never_mix(server: Collector, tmp_path: Path) -> None:
    """Another key, another server, another agent, and the same settings twice: each has a ledger of its own."""
    server.keys["whyops_other"] = "other tenant"
    with Collector(keys={KEY: "tenant"}) as elsewhere:
        clients = {
            "first": client(server, tmp_path),
            "second": client(server, tmp_path),
            "key": client(server, tmp_path, api_key="whyops_other"),
            "url": client(elsewhere, tmp_path),
            "agent": client(server, tmp_path, agent_name="bakery"),
        }
        for count, (name, sdk) in enumerate(clients.items(), start=1):
            for n in range(count):
                sdk.trace(f"of {name}").error_sync(f"{name} {n}")
        ledgers = {name: delivered(sdk.close_sync()) for name, sdk in clients.items()}
        rows = [(row["userId"], row["sent"]["agentName"], row["traceId"]) for row in server.stored]

        assert ledgers == {
            name: {"local": (count, count), "whyops": (count, count)}
            for count, name in enumerate(clients, start=1)
        }
        assert sorted(rows) == sorted(
            [("tenant", "shop", "of first")]
            + [("tenant", "shop", "of second")] * 2
            + [("other tenant", "shop", "of key")] * 3
            + [("tenant", "bakery", "of agent")] * 5
        )
        assert [row["traceId"] for row in elsewhere.stored] == ["of url"] * 4


def test_what_a_dead_process_left_waits_for_its_own_key_and_server(server: Collector, tmp_path: Path) -> None:
    """A process with another key or another server delivers nothing of it."""
    server.keys["whyops_other"] = "other tenant"
    run_agent(
        """
        import os, whyops_trace._delivery.pace
        from whyops_trace import WhyOps
        whyops_trace._delivery.pace.LINGER = 3600
        sdk = WhyOps(exporters=[])
        sdk.trace("t").error_sync("x")
        os._exit(0)
        """,
        server,
        tmp_path,
    )
    with Collector() as elsewhere:
        next_process(server, tmp_path, WHYOPS_API_KEY="whyops_other")
        next_process(elsewhere, tmp_path)
        before = told([*server.stored, *elsewhere.stored])
    next_process(server, tmp_path, WHYOPS_API_KEY=KEY)

    assert before == ["next", "next"]
    assert arrived(server, tmp_path) == ["x"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
