"""Which trace the calls of another process are in: forked, spawned, or of a pool."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from programs import environment, outline, stored

#: The beginning of each program.
HEAD = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from whyops_trace import WhyOps, current_trace, flush_sync, propagate, step, trace, traced_tool

sdk = WhyOps(agent_name="shop")

@traced_tool
def f(n):
    return n

@traced_tool
def outer(n):
    f(n)
    f(n)
    return n

def place():
    here = current_trace()
    return here and here.id

if __name__ == "__main__":
"""


def run(body: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose main part is *body*, in a file, so that its functions can be imported."""
    program = home / "program.py"
    program.write_text(HEAD + textwrap.indent(textwrap.dedent(body), "    "))
    options = ["-W", "ignore:This process"]  # a fork beside our worker thread, from Python 3.12 on
    return subprocess.run(
        [sys.executable, "-W", "error", *options, str(program), *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def traces(home: Path) -> list[str]:
    """Deliver what is left in a home, and return the ids of its traces."""
    done = subprocess.run(
        [sys.executable, "-m", "whyops_trace", "ls", "--json"],
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    return [trace["traceId"] for trace in json.loads(done.stdout)]


def calls(events: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Return ``(tool, n, name of what encloses it)`` of each call."""
    names = {
        event["stepId"]: event["metadata"].get("tool") or event["metadata"].get("step", "")
        for event in events
        if event["eventType"] in ("llm_thinking", "tool_call_request")
    }
    return sorted(
        (
            event["metadata"]["tool"],
            event["content"]["toolCalls"][0]["arguments"]["n"],
            names.get(event["metadata"]["within"], ""),
        )
        for event in events
        if event["eventType"] == "tool_call_request"
    )


def test_a_fork_begins_outside_any_trace(tmp_path: Path) -> None:
    """Its calls make traces of their own; its parent's goes on in the parent."""
    done = run(
        """
        with trace("t"), step("plan"):
            child = os.fork()
            if not child:
                assert place() is None
                f(1)
                flush_sync()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert place() == "t"
            f(2)
        """,
        tmp_path,
    )
    (other,) = set(traces(tmp_path)) - {"t"}

    assert done.stderr.count("propagate(function)") == 1  # the remedy, once
    assert calls(stored(tmp_path, "t")) == [("f", 2, "plan")]
    assert calls(stored(tmp_path, other)) == [("f", 1, "")]


def test_a_fork_that_names_the_trace_of_its_parent_is_in_it(tmp_path: Path) -> None:
    """Though its parent's block is open, it is not the child's to end."""
    done = run(
        """
        with trace("t"):
            f(0)
            child = os.fork()
            if not child:
                with trace("t"):
                    f(1)
                flush_sync()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            f(2)
        """,
        tmp_path,
    )
    events = (traces(tmp_path), stored(tmp_path, "t"))[1]

    assert done.stderr == ""
    assert calls(events) == [("f", 0, ""), ("f", 1, ""), ("f", 2, "")]
    assert [event["eventType"] for event in events].count("trace_end") == 1


@pytest.mark.parametrize("kind", ["Pool", "ProcessPoolExecutor"])
def test_a_pool_forked_in_one_job_never_records_in_it_for_another(tmp_path: Path, kind: str) -> None:
    """In the second job it records where it is told to, else in traces of its own."""
    made, told = {
        "Pool": ("pool = context.Pool(1)", "pool.apply(propagate({}), ({},))"),
        "ProcessPoolExecutor": (
            "pool = ProcessPoolExecutor(1, mp_context=context)",
            "pool.submit(propagate({}), {}).result()",
        ),
    }[kind]
    plain = told.replace("propagate({})", "{}")
    done = run(
        f"""
        context = multiprocessing.get_context("fork")
        with trace("job 1"):
            {made}
            {told.format("f", 1)}
        with trace("job 2"):
            {plain.format("f", 2)}
            {told.format("outer", 3)}
        pool.terminate() if hasattr(pool, "terminate") else pool.shutdown()
        """,
        tmp_path,
    )
    others = set(traces(tmp_path)) - {"job 1", "job 2"}

    assert done.stderr.count("propagate(function)") == 1
    assert calls(stored(tmp_path, "job 1")) == [("f", 1, "")]
    assert calls(stored(tmp_path, "job 2")) == [("f", 3, "outer"), ("f", 3, "outer"), ("outer", 3, "")]
    assert [calls(stored(tmp_path, other)) for other in others] == [[("f", 2, "")]]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("trace_id", ['"t"', ""], ids=["named", "of its own id"])
def test_propagated_calls_of_a_process_pool_are_in_the_trace(
    tmp_path: Path, method: str, trace_id: str
) -> None:
    """Under the step that was open where they were made, and no two events share a step."""
    done = run(
        f"""
        context = multiprocessing.get_context({method!r})
        with ProcessPoolExecutor(3, mp_context=context) as pool, trace({trace_id}):
            f(-1)
            with step("plan"):
                assert list(pool.map(propagate(outer), range(20))) == list(range(20))
            f(-2)
        """,
        tmp_path,
    )
    (trace_id,) = traces(tmp_path)
    events = [
        event for event in stored(tmp_path, trace_id) if event["eventType"] not in ("step_end", "trace_end")
    ]
    steps = [event["stepId"] for event in events]
    inside = [("f", n, "outer") for n in range(20) for _ in range(2)] + [
        ("outer", n, "plan") for n in range(20)
    ]

    assert done.stderr == ""
    assert calls(events) == sorted([("f", -1, ""), ("f", -2, ""), *inside])
    assert len(set(steps)) == len(steps)
    assert all(event["parentStepId"] in steps for event in events if event["stepId"] > 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_process_pool_carries_the_trace_until_that_is_undone(tmp_path: Path, method: str) -> None:
    """Without a word where a function is submitted."""
    done = run(
        f"""
        from whyops_trace import propagate_processes
        context = multiprocessing.get_context({method!r})
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            with propagate_processes(), trace("t"), step("plan"):
                pool.submit(f, 1).result()
            with trace("other"):
                pool.submit(f, 2).result()
        """,
        tmp_path,
    )
    made = traces(tmp_path)

    assert done.stderr.count("propagate(function)") <= 1
    assert calls(stored(tmp_path, "t")) == [("f", 1, "plan")]
    assert [calls(stored(tmp_path, each)) for each in made if each != "t"] == [[("f", 2, "")]]


def test_processes_that_go_on_with_a_trace_each_have_steps_of_their_own(tmp_path: Path) -> None:
    """Even where both have the same process id, as in two containers."""
    done = run(
        """
        import pickle
        os.getpid = lambda: 7
        with trace("t"):
            carried = pickle.dumps(propagate(f))
        for n in range(4):
            del sdk.recorder.traces["t"]  # as in another process
            pickle.loads(carried)(n)
        """,
        tmp_path,
    )
    events = (traces(tmp_path), stored(tmp_path, "t"))[1]
    steps = collections.Counter(event["stepId"] for event in events)

    assert done.stderr == ""
    assert calls(events) == [("f", n, "") for n in range(4)]
    assert max(steps.values()) == 1


def test_a_process_that_another_one_s_process_made_is_in_the_trace(tmp_path: Path) -> None:
    """The place is carried on from where it was carried to."""
    done = run(
        """
        @traced_tool
        def further(n):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
                return pool.submit(propagate(f), n).result()

        globals()["further"] = further
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool, trace("t"):
            pool.submit(propagate(further), 1).result()
        """,
        tmp_path,
    )
    events = (traces(tmp_path), stored(tmp_path, "t"))[1]

    assert done.stderr == ""
    assert calls(events) == [("f", 1, "further"), ("further", 1, "")]


def test_a_program_that_knows_only_the_id_is_inside_the_call_that_ran_it(tmp_path: Path) -> None:
    """It is new, and one call was open while it ran."""
    done = run(
        """
        import subprocess

        @traced_tool
        def ask(n):
            child = "import sys; from program import f, trace; trace(sys.argv[1]).__enter__(); f(1)"
            subprocess.run([sys.executable, "-c", child, current_trace().id], check=True, cwd=sys.path[0])

        with trace("t"):
            f(0)
            ask(1)
            f(2)
        """,
        tmp_path,
    )
    events = (traces(tmp_path), stored(tmp_path, "t"))[1]

    assert done.stderr == ""
    assert [(depth, name) for depth, _, name, _ in outline(events)] == [
        (0, "f"),
        (0, "ask"),
        (1, "f"),
        (0, "f"),
    ]
