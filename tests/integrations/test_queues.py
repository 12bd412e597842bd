"""Workers of Celery and RQ, in processes of their own, do their jobs in the traces that these were sent from."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import environment, outline, stored

from whyops_trace.store import Store

WHY = "is not installed; nox -s workers has it"
PATIENCE = 60

#: The module of tasks, whose broker is a directory.
TASKS = """
from celery import Celery
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import celery

sdk = WhyOps(agent_name="shop")
celery.attach()
app = Celery("tasks", broker="filesystem://", backend="file://{place}/results")
app.conf.broker_transport_options = {{
    "data_folder_in": "{place}/queue", "data_folder_out": "{place}/queue", "control_folder": "{place}/control",
}}

@traced_tool
def look(n):
    return n

@app.task(bind=True, max_retries=1)
def answer(self, n):
    look(n)
    if n == 13 and not self.request.retries:
        raise self.retry(countdown=0)
    return n
"""
SENDER = """
from whyops_trace import step, trace
from tasks import answer, look, sdk

with trace("t"):
    with step("plan"):
        jobs = [(answer.s({n}) | answer.si(2)).apply_async()]
    look("after")
outside = answer.delay(3)
for job in (*jobs, outside):
    job.get(timeout=40)
sdk.close_sync()
"""

TWICE = """
import threading
from celery import Celery
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import celery

sdk = WhyOps(agent_name="shop")
celery.attach()
app = Celery("tasks", broker="memory://")
both = threading.Barrier(2)

@traced_tool
def look(n):
    return n

@app.task
def answer(n):
    look(n)
    both.wait(20)
    look(n)
    both.wait(20)

threads = [threading.Thread(target=answer.apply, args=((n,),), kwargs={"task_id": "same"}) for n in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
sdk.close_sync()
"""

JOBS = """
import os
from redis import Redis
from rq import Queue, Retry
from whyops_trace import WhyOps, traced_tool
from whyops_trace.integrations import rq

sdk = WhyOps(agent_name="shop")
rq.attach()
connection = Redis(port={port})
queue = Queue(connection=connection)

@traced_tool
def look(n):
    return n

def answer(n):
    look(n)
    return n
"""


@contextlib.contextmanager
def running(*arguments: str, cwd: Path, home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program with the modules of a directory until the block ends, or it ends itself."""
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=environment(home), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


def finish(*arguments: str, cwd: Path, home: Path) -> None:
    """Run a program to its end."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment(home), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", [1, 13], ids=["once", "tried again"])
def test_a_task_of_celery_is_inside_the_step_that_sent_it(tmp_path: Path, number: int) -> None:
    """With its second try, and the next one of its chain; its steps come after those of its sender."""
    pytest.importorskip("celery", reason=f"celery {WHY}")
    home = tmp_path / "home"
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(TASKS.format(place=tmp_path))
    (tmp_path / "sender.py").write_text(SENDER.format(n=number))
    worker = ("-m", "celery", "-A", "tasks", "worker", "--concurrency=1", "--loglevel=error", "-P", "solo")
    with running(*worker, cwd=tmp_path, home=home):
        finish("sender.py", cwd=tmp_path, home=home)
    finish("-m", "whyops_trace", "ls", cwd=tmp_path, home=home)
    events = stored(home, "t")

    calls = [(1, "tool", "look", "ok")] * (2 if number == 1 else 3)
    assert sorted(outline(events)) == sorted([(0, "step", "plan", "ok"), (0, "tool", "look", "ok"), *calls])
    steps = [event["stepId"] for event in events if event["eventType"] == "tool_call_request"]
    assert steps == sorted(set(steps))


def test_a_task_that_runs_twice_at_once_has_two_blocks(tmp_path: Path) -> None:
    """A broker may deliver it again while it runs; both traces end."""
    pytest.importorskip("celery", reason=f"celery {WHY}")
    (tmp_path / "twice.py").write_text(TWICE)
    finish("twice.py", cwd=tmp_path, home=tmp_path / "home")
    with contextlib.closing(Store(tmp_path / "home" / "traces.db")) as store:
        traces = store.traces()

    assert [(trace.ended, trace.tool_calls) for trace in traces] == [(True, 2)] * 2


def test_a_job_of_rq_is_inside_the_step_that_enqueued_it(tmp_path: Path) -> None:
    """In the fork of a worker."""
    pytest.importorskip("rq", reason=f"rq {WHY}")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("The test needs redis-server.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path / "home"
    (tmp_path / "jobs.py").write_text(JOBS.format(port=port))
    (tmp_path / "worker.py").write_text(
        "from jobs import connection, queue\nfrom rq import Worker\n"
        "Worker([queue], connection=connection).work(burst=True)\n"
    )
    (tmp_path / "sender.py").write_text(
        "from jobs import answer, connection, queue, sdk\nfrom whyops_trace import step, trace\n"
        "import time\n"
        "with trace('t'), step('plan'):\n    queue.enqueue(answer, 1)\n"
        "queue.enqueue(answer, 2)\nsdk.close_sync()\n"
    )
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path))
    with subprocess.Popen([server, *options], stdout=subprocess.PIPE, text=True) as redis:
        try:
            assert redis.stdout is not None
            next(line for line in redis.stdout if "eady to accept" in line)
            finish("sender.py", cwd=tmp_path, home=home)
            finish("worker.py", cwd=tmp_path, home=home)
        finally:
            redis.terminate()
            redis.communicate(timeout=PATIENCE)
    finish("-m", "whyops_trace", "ls", cwd=tmp_path, home=home)

    assert outline(stored(home, "t")) == [(0, "step", "plan", "ok"), (1, "tool", "look", "ok")]
