"""How tests run programs: in a process of their own, with the package under test and a home of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import whyops_trace
from whyops_trace.store import Store
from whyops_trace.tree import Node, build

ROOT = Path(__file__).parents[1]

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


def run(
    *arguments: str | Path, home: Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, and with nothing in its environment that another test or user put there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WHYOPS_")}
    clean |= {"PYTHONPATH": str(Path(whyops_trace.__file__).parents[1]), "PYTHONUTF8": "1", "NO_COLOR": "1"}
    clean |= {"WHYOPS_HOME": str(home), **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def stored(home: Path, trace_id: str) -> list[dict[str, Any]]:
    """Return the records of a trace in the store of a home."""
    store = Store(home / "traces.db")
    try:
        return store.events(trace_id)
    finally:
        store.close()


def outline(events: list[dict[str, Any]]) -> list[tuple[int, str, str, str]]:
    """Return a trace as ``(depth, kind, name, status)`` of each node of its tree, from top to bottom."""
    rows: list[tuple[int, str, str, str]] = []

    def walk(nodes: list[Node], depth: int) -> None:
        for node in nodes:
            rows.append((depth, node.kind, node.name, node.status))
            walk(node.children, depth + 1)

    walk(build(events).nodes, 0)
    return rows
