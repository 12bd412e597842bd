"""How tests run programs: in a process of their own, with the package under test and a home of the test's own."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import whyops_trace
from whyops_trace.store import Store
from whyops_trace.tree import Node, build

ROOT = Path(__file__).parents[1]

#: Whether one thread of a process runs at a time.
HAS_GLOBAL_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
#: Where no server listens: what has a key and no server of the test's own must not look for one elsewhere.
NOWHERE = "http://127.0.0.1:1"

#: The outline of the trace that ``whyops-trace demo`` leaves.
DEMO = [
    (0, "step", "investigate", "ok"),
    (1, "llm", "ask", "ok"),
    (1, "tool", "run_sql", "error"),
    (1, "llm", "ask", "ok"),
    (1, "tool", "run_sql", "ok"),
    (1, "llm", "ask", "ok"),
    (1, "tool", "read_file", "ok"),
    (1, "llm", "ask", "ok"),
    (1, "tool", "refund", "ok"),
    (1, "llm", "ask", "ok"),
    (0, "step", "answer the customer", "ok"),
    (1, "llm", "ask", "ok"),
    (1, "step", "find the parcels", "ok"),
    (2, "tool", "track_parcel", "ok"),
    (2, "tool", "track_parcel", "ok"),
    (2, "tool", "search_log", "ok"),
    (1, "llm", "stream", "ok"),
]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program that records to *home*, without what another test or user put there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WHYOPS_", "COLUMNS"))}
    clean |= {"PYTHONPATH": str(Path(whyops_trace.__file__).parents[1]), "PYTHONUTF8": "1", "NO_COLOR": "1"}
    clean |= {"PYTHONUNBUFFERED": "1", "WHYOPS_ANALYSE_URL": NOWHERE, "WHYOPS_PROXY_URL": NOWHERE}
    return {**clean, "WHYOPS_HOME": str(home), **more}


class Program(subprocess.Popen[str]):
    """A program that does not outlive a test that fails, nor do its children."""

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        if kind is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        super().__exit__(kind, *details)


def start(*arguments: str | Path, home: Path, cwd: str | Path | None = None, **more: str) -> Program:
    """Start Python with these arguments; its standard streams are pipes of text."""
    return Program(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        env=environment(home, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def run(
    *arguments: str | Path, home: Path, cwd: str | Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end."""
    with start(*arguments, home=home, cwd=cwd, **more) as process:
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_code(code: str, home: Path, **more: str) -> Program:
    """Start a program given as its text."""
    return start("-c", textwrap.dedent(code), home=home, **more)


def run_code(code: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program given as its text to its end."""
    return run("-c", textwrap.dedent(code), home=home, **more)


def in_terminal(home: Path, *arguments: str) -> tuple[str, str]:
    """Run ``whyops-trace`` in a terminal of 60 columns; return standard output and what else the terminal got."""
    ours, theirs = pty.openpty()
    settings = {**environment(home, COLUMNS="60", TERM="xterm-256color"), "FORCE_COLOR": "1"}
    del settings["NO_COLOR"]
    done = subprocess.run(
        [sys.executable, "-m", "whyops_trace", *arguments],
        env=settings, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    told = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the terminal has nobody at its other end
            break
        told += piece
    os.close(ours)
    return done.stdout, told.decode()


def stored(home: Path, trace_id: str) -> list[dict[str, Any]]:
    """Return the records of a trace in the store of a home."""
    with contextlib.closing(Store(home / "traces.db")) as store:
        return store.events(trace_id)


def outline(events: list[dict[str, Any]]) -> list[tuple[int, str, str, str]]:
    """Return a trace as ``(depth, kind, name, status)`` of each node of its tree, from top to bottom."""
    rows: list[tuple[int, str, str, str]] = []

    def walk(nodes: list[Node], depth: int) -> None:
        for node in nodes:
            rows.append((depth, node.kind, node.name, node.status))
            walk(node.children, depth + 1)

    walk(build(events).nodes, 0)
    return rows


@cache
def may_mount() -> bool:
    """Tell whether this machine lets a program of a test have disks of its own."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
