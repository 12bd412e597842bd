"""The place in a trace in the workers of joblib, Dask and Celery; ``nox -s workers`` installs these packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from programs import environment, outline, stored

PROGRAMS = {
    "joblib": """
        import joblib
        with trace("t"), step("plan"):
            made = joblib.Parallel(n_jobs=2)(joblib.delayed(propagate(parse))(n) for n in range(4))
    """,
    "distributed": """
        from dask.distributed import Client
        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client, trace("t"), step("plan"):
            made = client.gather(client.map(propagate(parse), range(4)))
    """,
    "ray": """
        import ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        run = ray.remote(lambda function, n: function(n))
        with trace("t"), step("plan"):
            made = ray.get([run.remote(propagate(parse), n) for n in range(4)])
        ray.shutdown()
    """,
    "celery": """
        from celery import Celery
        app = Celery("tasks", broker="memory://", task_always_eager=True)
        task = app.task(parse)
        with trace("t"), step("plan"):
            made = [task.delay(n).get() for n in range(4)]
    """,
}


@pytest.mark.parametrize("package", PROGRAMS)
def test_calls_of_workers_are_in_the_trace_that_they_were_given(tmp_path: Path, package: str) -> None:
    """Below the step that was open where they were handed over."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; nox -s workers has it")
    program = tmp_path / "program.py"
    head = """
        from whyops_trace import WhyOps, flush_sync, propagate, step, trace, traced_tool

        sdk = WhyOps(agent_name="shop")

        @traced_tool
        def parse(n):
            return n

        if __name__ == "__main__":
    """
    body = textwrap.indent(textwrap.dedent(PROGRAMS[package]), "    ")
    program.write_text(textwrap.dedent(head) + body + "\n    assert made == [0, 1, 2, 3]\n    flush_sync()\n")
    options = {"env": environment(tmp_path), "capture_output": True, "text": True, "timeout": 100}
    done = subprocess.run([sys.executable, str(program)], check=False, **options)  # type: ignore[call-overload]
    subprocess.run([sys.executable, "-m", "whyops_trace", "ls"], check=True, **options)  # type: ignore[call-overload]

    assert done.returncode == 0, done.stderr
    assert outline(stored(tmp_path, "t")) == [(0, "step", "plan", "ok"), *[(1, "tool", "parse", "ok")] * 4]
