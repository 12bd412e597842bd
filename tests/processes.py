"""Runs small programs in processes of their own, as a user would, and reads what they left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from whyops_trace.journal import segments_in
from whyops_trace.store import Store

ROOT = Path(__file__).parents[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program that records to *home*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHYOPS_")}
    return {**kept, "WHYOPS_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def start(code: str, home: Path, **more: str) -> subprocess.Popen[str]:
    """Start a program; its standard output and error are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=environment(home, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    with start(code, home, **more) as process:
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def stored(home: Path, trace_id: str) -> list[dict[str, Any]]:
    """Return the events of a trace that the store of *home* has."""
    with contextlib.closing(Store(home / "traces.db")) as store:
        return store.events(trace_id)


def waiting(home: Path) -> list[bytes]:
    """Return the records that wait for the local store in the journal of *home*, leaving them there."""
    return [line for segment in segments_in(home) for line in segment.read("local", 1 << 30)[0]]
