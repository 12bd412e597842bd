"""
Prints the table: ``nox -s replay_table``, or ``python -m replays`` in this directory's parent.

Names of tools as arguments choose among them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from .cases import CASES
from .kit import KITS

#: Seconds after which a replay that hangs counts as failed.
PATIENCE = 60


def row_of(name: str, number: int) -> dict[str, Any]:
    """Run a case in a process of its own, in an empty home."""
    with tempfile.TemporaryDirectory() as home:
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)
        environment = os.environ | {
            "HOME": home, "WHYOPS_HOME": home, "PYTHONPATH": path, "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "replays.worker", name, str(number)]
        try:
            done = subprocess.run(
                command, cwd=home, env=environment, capture_output=True, text=True, timeout=PATIENCE
            )
            row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
            row = {
                "requests": 0,
                "ran": 0,
                "same": False,
                "told": repr(error),
                "mutation": "",
                "named": False,
            }
    return row


def cell(row: dict[str, Any]) -> str:
    """Return what a table says of a case: what came back, what left the process or ran, and what was told."""
    came = "same" if row["same"] else "fails" if row["told"] or row.get("recorded") else "differs"
    told = ", named" if row["named"] else ", noticed" if row["mutation"] else ", not noticed"
    return f"{came} {row['requests']}/{row['ran']}{told if row['same'] or row['named'] else ''}"


def main(names: list[str]) -> None:
    """Print a line for each case, and the sums."""
    print("| case |", " | ".join(f"{name} {importlib.metadata.version(name)}" for name in names), "|")
    print("|---|" + "---|" * len(names))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number, case in enumerate(CASES):
        for name in names:
            rows[name].append(row_of(name, number))
            print(json.dumps(rows[name][-1]), file=sys.stderr, flush=True)
        print(f"| {case.title} |", " | ".join(cell(rows[name][-1]) for name in names), "|", flush=True)
    for title, count in (
        ("the same result", lambda row: row["same"]),
        ("no request and no tool ran", lambda row: row["same"] and not row["requests"] and not row["ran"]),
        ("the mutation is named", lambda row: row["named"]),
    ):
        print(f"| **{title}** |", " | ".join(str(sum(map(count, rows[name]))) for name in names), "|")


if __name__ == "__main__":
    main(sys.argv[1:] or [*KITS])
