"""One page of Markdown about the rows of a comparison."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from .contenders import CONTENDERS

Row = dict[str, Any]
#: Finds a number for a contender, a kind and a column.
Find = Callable[[str, str, str], float | None]
#: What all others are measured by.
UNIT = "otel"


def environment(pythons: Mapping[str, str], directory: Path) -> Row:
    """Return what a reader has to know of the machine and the versions."""
    packages = {name: CONTENDERS[name].package for name in pythons if CONTENDERS[name].package}
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "kernel": platform.platform(),
        "cpus": os.cpu_count(),
        "disk": _said("stat", "--file-system", "--format=%T", directory),
        "versions": {
            name: f"{package} {_said(pythons[name], '-c', code, package)}"
            for name, package in packages.items()
        },
    }


def _said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Rows:
    """Some rows, and the medians of them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)
        self.kinds = list(dict.fromkeys(row["kind"] for row in self._rows))
        found = {row["contender"] for row in self._rows}
        self.contenders = [name for name in CONTENDERS if name in found]

    def of(self, contender: str, kind: str, column: str) -> list[float]:
        """Return a column of a contender's rows of one kind."""
        rows = (row for row in self._rows if (row["contender"], row["kind"]) == (contender, kind))
        return [row[column] for row in rows if column in row]

    def median(self, contender: str, kind: str, column: str) -> float | None:
        """Return the median of a column, None if there is none."""
        values = self.of(contender, kind, column)
        return median(values) if values else None

    def ratio(self, contender: str, kind: str, column: str) -> float | None:
        """Return the median of a column over the yardstick beside it, in that of the unit."""
        both = []
        for name in (contender, UNIT):
            pairs = zip(self.of(name, kind, column), self.of(name, kind, "yardstick"), strict=False)
            both.append([value / yardstick for value, yardstick in pairs])
        return median(both[0]) / median(both[1]) if all(both) else None

    def growth(self, contender: str, held: str, column: str) -> float | None:
        """Return the exponent with which a column grows in the turns of the conversations that are held in one way."""
        kinds = sorted((int(kind.split()[0]), kind) for kind in self.kinds if kind.endswith(f", {held}"))
        (few, first), (many, last) = kinds[0], kinds[-1]
        values = self.median(contender, first, column), self.median(contender, last, column)
        if few == many or values[0] is None or values[1] is None:
            return None
        return log(values[1] / values[0]) / log(many / few)

    def table(self, title: str, columns: Mapping[str, tuple[str, str]], find: Find | None = None) -> str:
        """Return a table with a line for each contender; *columns* tells by its head which kind and column it shows."""
        find = find or self.median
        lines = [["", *columns], ["---", *["---:"] * len(columns)]]
        lines += [
            [name, *(number(find(name, *column)) for column in columns.values())] for name in self.contenders
        ]
        return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(value: float | None) -> str:
    """Return a number with three digits that say something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def report(rows: list[Row]) -> str:
    """Return the page."""
    about = next(row for row in rows if row["part"] == "about")
    parts = {part: Rows(row for row in rows if row["part"] == part) for part in WRITERS}
    found = {part: WRITERS[part](some) for part, some in parts.items() if some.kinds}
    failed = [f"{row['contender']} failed: {row['how']}.\n" for row in rows if row["part"] == "failed"]
    return "\n".join(["# What tracing costs, side by side\n", _about(about), *failed, *found.values()])


def _about(about: Row) -> str:
    docs = {name: (CONTENDERS[name].start.__doc__ or "").strip().partition("\n")[0] for name in CONTENDERS}
    versions = [f"- `{name}`: {version}. {docs[name]}" for name, version in about["versions"].items()]
    machine = f"{about['date']}, Python {about['python']}, {about['kernel']}, {about['cpus']} CPUs, {about['disk']}."
    ratio = f"Ratios are to `{UNIT}` in the same run, each as a multiple of a yardstick measured beside it."
    return "\n".join([machine, ratio, "", *versions, ""])


def _calls(rows: Rows) -> str:
    text = ["## Calls\n"]
    for column, title in TIMES.items():
        columns = {kind: (kind, column) for kind in rows.kinds}
        text += [rows.table(f"{title}, ratio:", columns, rows.ratio)]
        text += [rows.table(f"{title}, microseconds a call:", columns)]
    for kind in rows.kinds:
        if kind.startswith("single"):
            columns = {column: (kind, column) for column in ("p50", "p99", "p99.9", "max")}
            text += [rows.table(f"Percentiles, {kind}, ratio:", columns, rows.ratio)]
            text += [rows.table(f"Percentiles, {kind}, microseconds:", columns)]
    for name in rows.contenders:
        missing = {kind: sum(rows.of(name, kind, "missing")) for kind in rows.kinds}
        if any(missing.values()):
            text.append(f"Of the calls of {name} these had not arrived after flush: {missing}.\n")
    return "\n".join(text)


def _burst(rows: Rows) -> str:
    heads = {"calls": "calls", "lost": "lost", "delivered a CPU second": "rate", "p99.9, us": "p99.9"}
    heads |= {"slowest, us": "max", "memory at most, MB": "peak", "held, MB": "held"}
    return "\n".join(
        rows.table(f"## Burst, {kind}", {head: (kind, column) for head, column in heads.items()})
        for kind in rows.kinds
    )


def _conversations(rows: Rows) -> str:
    text = ["## Conversations\n"]
    for column, title in TIMES.items():
        columns = {kind: (kind, column) for kind in rows.kinds}
        text += [rows.table(f"{title}, milliseconds a conversation:", columns)]
    growth = {}
    for held in dict.fromkeys(kind.partition(", ")[2] for kind in rows.kinds):
        growth[held] = (held, "own")
    text += [
        rows.table(
            "Exponent of the caller's CPU in the turns, from the fewest to the most:", growth, rows.growth
        )
    ]
    for name in rows.contenders:
        missing = {kind: sum(rows.of(name, kind, "missing")) for kind in rows.kinds}
        if any(missing.values()):
            text.append(f"Of the turns of {name} these had not arrived after flush: {missing}.\n")
    return "\n".join(text)


def _faults(rows: Rows) -> str:
    faults = [kind for kind in ("refuse", "hang", "503", "kill -9") if kind in rows.kinds]
    columns = {"calls": (faults[0], "calls"), **{kind: (kind, "lost") for kind in faults}}
    columns["kill -9, after the next process"] = ("kill -9", "lost at last")
    return rows.table("## Calls that were lost", columns)


def _import(rows: Rows) -> str:
    title = (
        "## Milliseconds to start, over a process that does nothing"  # "untraced" is what the harness takes
    )
    return rows.table(title, {kind: (kind, "wall") for kind in rows.kinds})


TIMES = {"wall": "Caller's time", "own": "Caller's CPU", "cpu": "CPU of the process until all is sent"}
WRITERS = {
    "calls": _calls,
    "burst": _burst,
    "conversations": _conversations,
    "faults": _faults,
    "import": _import,
}
