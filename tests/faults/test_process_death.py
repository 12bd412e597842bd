"""Whatever ends a process, what it recorded is found by the next one."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import environment, run_code, start_code, stored

from whyops_trace import WhyOps
from whyops_trace.store import Store
from whyops_trace.tree import build

#: An agent that is killed when it has made 1,000 calls, before anything can have been delivered.
THOUSAND = """
    import os, signal
    import whyops_trace._delivery.pace
    whyops_trace._delivery.pace.LINGER = 3600
    from whyops_trace import WhyOps, traced_tool, trace
    sdk = WhyOps(agent_name="shop")
    @traced_tool
    def f(n): return n
    with trace("t"):
        for n in range(1000):
            f(n)
        {end}
"""


def next_process(home: Path) -> None:
    """Do what any next process of the same agent does: record something and end."""
    done = run_code(
        """
        from whyops_trace import WhyOps
        WhyOps(agent_name="shop").trace("next").error_sync("next")
        """,
        home,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_a_thousand_calls_of_a_killed_process_are_all_found(tmp_path: Path, end: str, status: int) -> None:
    """None is lost, none doubled, in order, with the process noted as gone."""
    done = run_code(THOUSAND.format(end=end), tmp_path)
    next_process(tmp_path)
    events = stored(tmp_path, "t")
    requests = [event for event in events if event["eventType"] == "tool_call_request"]

    assert (done.returncode, done.stderr) == (status, "")
    assert [event["content"]["toolCalls"][0]["arguments"]["n"] for event in requests] == list(range(1000))
    assert [event["stepId"] for event in events] == list(range(1, 2001))


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "raise KeyboardInterrupt", "1 / 0"])
def test_a_process_that_ends_by_itself_delivers_everything(tmp_path: Path, end: str) -> None:
    """Without any flush or close of the program's."""
    done = run_code(THOUSAND.format(end=end), tmp_path)

    assert "whyops" not in done.stderr.replace("whyops_trace", "")
    assert len(stored(tmp_path, "t")) == 2001
    assert list((tmp_path / "journal").rglob("*.seg")) == []


def test_a_call_that_a_killed_process_left_open_is_shown_as_unfinished(tmp_path: Path) -> None:
    """Nothing is invented for it."""
    run_code(
        """
        import os, signal
        from whyops_trace import WhyOps, traced_tool, trace
        sdk = WhyOps(agent_name="shop")
        @traced_tool
        def f(): os.kill(os.getpid(), signal.SIGKILL)
        with trace("t"):
            f()
        """,
        tmp_path,
    )
    next_process(tmp_path)
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        ended, events = store.ended_processes(), store.events("t")
    tree = build(events, ended.__contains__)

    assert [event["eventType"] for event in events] == ["tool_call_request"]
    assert [(node.name, node.status) for node in tree.nodes] == [("f", "unfinished")]


def test_the_command_line_takes_in_what_a_dead_process_left(tmp_path: Path) -> None:
    """No process of the same agent has to run first."""
    run_code(THOUSAND.format(end="os._exit(1)"), tmp_path)
    shown = subprocess.run(
        [sys.executable, "-m", "whyops_trace", "show", "t", "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(json.loads(shown.stdout)) == 2000
    assert list((tmp_path / "journal").rglob("*.seg")) == []


def test_parent_and_child_of_a_fork_record_in_the_same_trace(tmp_path: Path) -> None:
    """The child does so when it is told to; no event is lost or doubled, and no two share a step."""
    done = run_code(
        """
        import os
        from whyops_trace import WhyOps, flush_sync, propagate, traced_tool, trace
        sdk = WhyOps(agent_name="shop")
        @traced_tool
        def f(who, n): return n
        with trace("t"):
            f("before", 0)
            here = propagate(f)
            child = os.fork()
            who = "child" if child == 0 else "parent"
            for n in range(200):
                here(who, n)
            if child == 0:
                flush_sync()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        tmp_path,
    )
    next_process(tmp_path)
    events = [event for event in stored(tmp_path, "t") if event["eventType"] != "trace_end"]
    steps = {event["stepId"] for event in events}
    calls = collections.Counter(
        event["content"]["toolCalls"][0]["arguments"]["who"]
        for event in events
        if event["eventType"] == "tool_call_request"
    )

    assert done.stderr == ""
    assert calls == {"before": 1, "child": 200, "parent": 200}
    assert len(steps) == len(events)
    assert all(event["parentStepId"] in steps for event in events if event["stepId"] > 1)


def test_the_workers_of_a_forked_pool_lose_nothing(tmp_path: Path) -> None:
    """Pool workers end without running exit handlers; what they recorded is found all the same."""
    done = run_code(
        """
        import multiprocessing
        from whyops_trace import WhyOps, propagate, traced_tool, trace
        @traced_tool
        def f(n): return n
        if __name__ == "__main__":
            sdk = WhyOps(agent_name="shop")
            with trace("t"), multiprocessing.get_context("fork").Pool(4) as pool:
                assert pool.map(propagate(f), range(400)) == list(range(400))
                pool.close()
                pool.join()
        """,
        tmp_path,
    )
    next_process(tmp_path)
    events = [event for event in stored(tmp_path, "t") if event["eventType"] == "tool_call_request"]

    assert done.stderr == ""
    assert sorted(event["content"]["toolCalls"][0]["arguments"]["n"] for event in events) == list(range(400))
    assert len({event["stepId"] for event in events}) == 400


def test_two_processes_share_a_home(tmp_path: Path) -> None:
    """Both write at the same time, each finds all of its own."""
    code = """
        import sys
        from whyops_trace import WhyOps, traced_tool, trace
        sdk = WhyOps(agent_name="shop")
        @traced_tool
        def f(n): return n
        sys.stdin.readline()
        with trace(sys.argv[-1]):
            for n in range(1000):
                f(n)
    """
    both = [start_code(code.replace("sys.argv[-1]", repr(name)), tmp_path) for name in ("one", "two")]
    ended = [process.communicate("go\n", timeout=60) for process in both]

    assert ended == [("", ""), ("", "")]
    assert [len(stored(tmp_path, name)) for name in ("one", "two")] == [2001, 2001]


def test_a_conversation_goes_on_in_the_next_process(tmp_path: Path) -> None:
    """Steps, parents and nesting continue where the trace stopped."""
    turn = """
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps(agent_name="shop")
        @traced_tool
        def f(): return 1
        with sdk.trace("chat") as chat:
            chat.user_message_sync([{"role": "user", "content": "hi"}])
            f()
    """
    for _ in range(3):
        assert run_code(turn, tmp_path).stderr == ""
    events = [event for event in stored(tmp_path, "chat") if event["eventType"] != "trace_end"]

    assert [(event["stepId"], event.get("parentStepId"), event["metadata"]["within"]) for event in events] == [
        (1, None, 0), (2, 1, 0), (3, 2, 2),
        (4, 3, 0), (5, 4, 0), (6, 5, 5),
        (7, 6, 0), (8, 7, 0), (9, 8, 8),
    ]  # fmt: skip


def test_an_exporter_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    """The process ends, says what stays behind, and the other destination has everything."""
    done = run_code(
        """
        import threading
        from whyops_trace import WhyOps
        from whyops_trace.exporters.base import Exporter
        class Hanging(Exporter):
            name = "hanging"
            remote = True
            def export(self, batch):
                threading.Event().wait()
        sdk = WhyOps(agent_name="shop", exporters=[Hanging()], exit_timeout=0.5)
        sdk.trace("t").error_sync("x")
        """,
        tmp_path,
    )

    assert done.returncode == 0
    assert "hanging: 1 records are not delivered yet" in done.stderr
    assert len(stored(tmp_path, "t")) == 1


def test_a_signal_handler_and_a_finaliser_may_record(tmp_path: Path) -> None:
    """A record made in the middle of another one is neither lost nor out of order."""
    done = run_code(
        """
        import signal
        from whyops_trace import WhyOps, traced_tool
        sdk = WhyOps(agent_name="shop")
        handle = sdk.trace("t")
        signals = 0
        def on_alarm(*_):
            global signals
            signals += 1
            handle.error_sync(str(signals))
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        class Cycle:
            def __init__(self): self.me = self
            def __del__(self): handle.llm_thinking_sync("gone")
        plain = 0
        while signals < 200:
            Cycle()
            handle.user_message_sync([{"n": plain}])
            plain += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        import gc; gc.collect()
        print(signals, plain)
        """,
        tmp_path,
    )
    signals, plain = map(int, done.stdout.split())
    events = stored(tmp_path, "t")
    kinds = collections.Counter(event["eventType"] for event in events)

    assert done.stderr == ""
    assert kinds == {"error": signals, "user_message": plain, "llm_thinking": plain}
    assert [event["stepId"] for event in events] == list(range(1, len(events) + 1))
    assert sorted(event["timestamp"] for event in events) == [event["timestamp"] for event in events]


def test_a_record_inside_another_one_starts_no_thread_that_waits_for_it(tmp_path: Path) -> None:
    """The thread that delivers may run a finaliser that records, before whoever starts it goes on."""
    done = run_code(
        """
        import gc, sys, threading
        from whyops_trace import WhyOps
        sdk = WhyOps(agent_name="shop")
        handle = sdk.trace("t")
        places = []
        def record(place):
            if place not in places:
                places.append(place)
                handle.llm_thinking_sync(place)
        def on_call(frame, *_):
            if frame.f_globals["__name__"].startswith("whyops_trace._journal"):
                record("while the journal writes")
        def on_collection(*_):
            if threading.current_thread() is not threading.main_thread():
                record("in a new thread")
        gc.callbacks.append(on_collection)
        gc.set_threshold(1)
        sys.setprofile(on_call)
        handle.user_message_sync([{"n": 1}])
        sys.setprofile(None)
        gc.callbacks.clear()
        print(places)
        """,
        tmp_path,
    )

    assert (done.stdout, done.stderr) == ("['while the journal writes', 'in a new thread']\n", "")
    assert [event["eventType"] for event in stored(tmp_path, "t")] == [
        "user_message",
        "llm_thinking",
        "llm_thinking",
    ]


@pytest.mark.parametrize("can_start", [True, False], ids=["with a worker", "where no thread starts"])
def test_a_flush_in_a_signal_handler_waits_for_nothing_that_its_own_thread_holds(
    tmp_path: Path, can_start: bool
) -> None:
    """Whatever the handler interrupted, in a flush that a worker does or that is done in the thread itself."""
    done = run_code(
        f"""
        import sys, threading, time
        from whyops_trace import WhyOps
        sdk = WhyOps(agent_name="shop")
        handle = sdk.trace("t")
        places, slow = set(), []
        def fail(thread):
            raise RuntimeError("can't start new thread at interpreter shutdown")
        if not {can_start}:
            threading.Thread.start = fail
        def on_call(frame, event, *_):
            place = frame.f_code.co_qualname
            if event == "call" and "whyops_trace" in frame.f_code.co_filename and place not in places:
                places.add(place)
                sys.setprofile(None)
                handle.llm_thinking_sync(place)
                began = time.monotonic()
                sdk.flush_sync(timeout=5)
                if time.monotonic() - began >= 5:
                    slow.append(place)
                sys.setprofile(on_call)
        for turn in range(30):
            handle.user_message_sync([{{"n": turn}}])
            sys.setprofile(on_call)
            sdk.flush_sync()
            sys.setprofile(None)
        print(slow, sdk.flush_sync()["local"].pending, len(places) > 20)
        """,
        tmp_path,
    )

    assert (done.stdout, done.stderr) == ("[] 0 True\n", "")


def test_records_of_an_agent_wait_for_that_agent(tmp_path: Path) -> None:
    """What a dead process left for a destination of its own is not given to another agent's client."""
    run_code(
        """
        import os
        from whyops_trace import WhyOps
        from whyops_trace.exporters.base import Exporter
        class Never(Exporter):
            name = "server"
            remote = True
            def export(self, batch): raise ConnectionError
        sdk = WhyOps(agent_name="one", exporters=[Never()], store=False)
        sdk.trace("t").error_sync("x")
        os._exit(0)
        """,
        tmp_path,
    )
    next_process(tmp_path)

    assert len(list((tmp_path / "journal").rglob("*.seg"))) == 1
    assert WhyOps(agent_name="one", home=tmp_path).stats()["local"].emitted == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_a_dead_process_had_for_its_own_console_keeps_nothing_in_the_journal(tmp_path: Path) -> None:
    """The store gets the records; nobody waits for the console of a process that is gone."""
    done = run_code(THOUSAND.format(end="os._exit(1)"), tmp_path, WHYOPS_CONSOLE="tree")
    shown = subprocess.run(
        [sys.executable, "-m", "whyops_trace", "ls", "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    assert [trace["traceId"] for trace in json.loads(shown.stdout)] == ["t"]
    assert len(stored(tmp_path, "t")) == 2000
    assert list((tmp_path / "journal").rglob("*.seg")) == []


def test_a_process_that_goes_on_delivers_what_its_dead_children_left(tmp_path: Path) -> None:
    """A child that is killed has nobody else, as long as no other process starts."""
    done = run_code(
        """
        import os
        import whyops_trace._delivery.adoption
        whyops_trace._delivery.adoption.ADOPT_EVERY = 0
        from whyops_trace import WhyOps
        sdk = WhyOps(agent_name="shop")
        handle = sdk.trace("t")
        handle.error_sync("parent")
        sdk.flush_sync()
        child = os.fork()
        if child == 0:
            handle.error_sync("child")
            os._exit(0)
        os.waitpid(child, 0)
        handle.error_sync("parent again")
        while not sdk._journal.totals("local", adopted=True).delivered:
            sdk.flush_sync()
        os._exit(0)
        """,
        tmp_path,
    )

    assert done.stderr == ""
    assert {event["content"]["message"] for event in stored(tmp_path, "t")} == {
        "parent",
        "child",
        "parent again",
    }
