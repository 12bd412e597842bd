"""
Measures whyops-trace beside other tools: ``nox -s compare``, or ``python -m compare`` in this directory's parent.

Every contender has an environment of its own, made once, with the versions in ``requirements/``. Rounds are
interleaved, in an order that changes. Run it alone on the machine: only times of the same run are comparable.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .contenders import CONTENDERS
from .conversation import HELD
from .report import environment, report

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
CACHE = Path("~/.cache/whyops-trace/compare").expanduser()

Row = dict[str, Any]
#: What each part consists of; a line in ``calls`` is a burst, in the others a process.
PARTS = {
    "calls": ["sync", "single", "single beside a thread", "async", "tree", "generator", "10 KB", "200 KB"],
    "burst": ["no payload", "1 KB"],
    "conversations": [f"{turns} turns, {held}" for held in HELD for turns in (50, 100, 200)],
    "faults": ["refuse", "hang", "503", "kill -9"],
    "import": ["import", "first event"],
}
#: Seconds after which a process is killed; what had arrived by then counts.
PATIENCE = 300
FIRST_EVENT = """
from compare.contenders import CONTENDERS
tracer = CONTENDERS[{!r}].start({!r})

@tracer.tool
def search(query):
    return query

with tracer.trace():
    search("parcel")
    __import__("os")._exit(0)
"""


class Harness:
    """
    What runs processes.

    Args:
        venvs: Where the environments are, or are made.
        output: Where the rows go.
    """

    def __init__(self, venvs: Path, output: Path) -> None:
        self.venvs = venvs
        self.rows = output
        self.log = output.with_suffix(".log").open("a")
        self.work = output.parent  # homes are made here, so that journals are on its disk

    def python(self, venv: str) -> str:
        """Return the interpreter of an environment, which is made if it is missing or has other versions."""
        requirements, path = HERE / "requirements" / f"{venv}.txt", self.venvs / venv
        python, made_from = str(path / "bin" / "python"), path / "made-from.txt"
        if not made_from.exists() or made_from.read_text() != requirements.read_text():
            print(f"Making the environment of {venv}", file=sys.stderr, flush=True)
            project = ["--editable", str(PROJECT)] if venv == "whyops-trace" else []
            install = [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "-r",
                str(requirements),
                *project,
            ]
            subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
            subprocess.run(install, check=True)
            made_from.write_text(requirements.read_text())
        return python

    def write(self, **row: Any) -> None:
        """Keep a row."""
        with self.rows.open("a") as file:
            print(json.dumps(row), file=file)

    def environ(self, name: str, sink: Sink, home: str) -> dict[str, str]:
        """Return the environment of a contender: its own home, and nothing that another tool looks at."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        own = {key: value.format(sink=sink.url) for key, value in CONTENDERS[name].variables.items()}
        return {**kept, **own, "HOME": home, "PYTHONPATH": str(HERE.parent), "DO_NOT_TRACK": "1"}

    def worker(self, name: str, sink: Sink, home: str, part: str, *kinds: str) -> list[Row]:
        """Run a contender, and return what it found."""
        rows = Path(home, "rows.jsonl")
        rows.touch()
        arguments = ["-m", "compare.worker", name, sink.url, str(rows), part, *kinds]
        command, environ = [self.python(CONTENDERS[name].venv), *arguments], self.environ(name, sink, home)
        with subprocess.Popen(command, env=environ, cwd=home, stdout=self.log, stderr=self.log) as process:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        if process.returncode and kinds != ("kill -9",):
            self.write(
                part="failed",
                contender=name,
                how=f"{part} {', '.join(kinds)}: ended with {process.returncode}",
            )
        return [json.loads(line) for line in rows.read_text().splitlines()]

    def calls(self, part: str, name: str, round_: int, sink: Sink, kinds: list[str]) -> None:
        """Let a contender make calls of every kind, or have conversations."""
        with tempfile.TemporaryDirectory(dir=self.work) as home:
            for row in self.worker(name, sink, home, part, *kinds):
                self.write(part=part, contender=name, round=round_, **row)

    def end(self, part: str, name: str, round_: int, sink: Sink, kind: str) -> None:
        """Let a contender make calls, and see what has arrived when its process has ended, and another has run."""
        with tempfile.TemporaryDirectory(dir=self.work) as home:
            sink.ask("clear")
            for row in self.worker(name, sink, home, part, kind):
                row["lost"] = row["calls"] - sink.arrived(name, row)
                if kind == "kill -9":
                    self.worker(name, sink, home, "next")
                    row["lost at last"] = row["calls"] - sink.arrived(name, row, others=1)
                self.write(part=part, contender=name, round=round_, **row)

    def starts(self, name: str, round_: int, sink: Sink) -> None:
        """Time processes that import a contender, and that record a first event, over one that does nothing."""
        first_event = FIRST_EVENT.format(name, sink.url)
        programs = {"nothing": "pass", "import": CONTENDERS[name].imports, "first event": first_event}
        programs = {"so that the files are in memory": first_event, **programs}
        times = {}
        with tempfile.TemporaryDirectory(dir=self.work) as home:
            environ, python = self.environ(name, sink, home), self.python(CONTENDERS[name].venv)
            for kind, code in programs.items():
                code += "\n__import__('os')._exit(0)"  # what ending takes is not starting
                command, began = [python, "-c", code], time.perf_counter()
                subprocess.run(command, env=environ, cwd=home, stdout=self.log, stderr=self.log, check=True)
                times[kind] = 1e3 * (time.perf_counter() - began)
        for kind in ("import", "first event"):
            self.write(
                part="import", contender=name, round=round_, kind=kind, wall=times[kind] - times["nothing"]
            )


class Sink:
    """A sink in a process of its own, in a with-block."""

    def __init__(self, harness: Harness) -> None:
        self._python = harness.python("sink")
        self._log = harness.log

    def __enter__(self) -> Sink:
        while True:  # until nobody else has the port; below those that clients are given
            port = random.randrange(20_000, 30_000, 2)
            self._process = subprocess.Popen(
                [self._python, HERE / "sink.py", str(port)], stdout=subprocess.PIPE, stderr=self._log
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline():
                break
        self.url = f"http://127.0.0.1:{port}"
        self._control = socket.create_connection(("127.0.0.1", port + 1)).makefile("rw")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, command: str) -> Any:
        """Tell it something, and return its answer."""
        self._control.write(command + "\n")
        self._control.flush()
        return json.loads(self._control.readline())

    def arrived(self, name: str, row: Row, others: int = 0) -> int:
        """Return how many of the calls that a row tells of are here; *others* have been made since."""
        found = self.ask("count")
        if CONTENDERS[name].counts == "spans":
            return max(0, min(int(row["calls"]), int(found["spans"]) - others))
        numbers = range(row["after"] + 1, row["after"] + row["calls"] + 1)
        return len(set(numbers).intersection(found["calls"]))


def shuffled(rounds: int, contenders: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the contenders of each round, in an order of its own."""
    for round_ in range(rounds):
        for name in random.sample(contenders, len(contenders)):
            yield round_, name


def compare(harness: Harness, contenders: list[str], options: argparse.Namespace) -> None:
    """Do the parts that were asked for."""
    senders = [name for name in contenders if CONTENDERS[name].counts]

    def fault(job: tuple[str, str]) -> None:
        with Sink(harness) as sink:
            harness.end("faults", job[1], 0, sink, job[0])

    with Sink(harness) as sink:
        for part in options.parts:
            kinds = [kind for kind in PARTS[part] if kind in options.kinds or not options.kinds]
            if not kinds:
                continue
            print(f"{part}: {', '.join(kinds)}", file=sys.stderr, flush=True)
            if part == "faults":  # mostly waiting, so several at a time; the floors do not even try
                tools = [name for name in senders if CONTENDERS[name].package]
                with ThreadPoolExecutor(options.jobs) as pool:
                    list(pool.map(fault, itertools.product(kinds, tools)))
            for round_, name in shuffled(options.rounds, senders if part == "burst" else contenders):
                if part == "calls" or (part == "conversations" and CONTENDERS[name].converses):
                    harness.calls(part, name, round_, sink, kinds)
                elif part == "burst":
                    for kind in kinds:
                        harness.end(part, name, round_, sink, kind)
                elif part == "import":
                    harness.starts(name, round_, sink)


def listed(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes some of the known names, separated by commas."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return text.split(",")

    return names


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m compare", description=__doc__)
    kinds = [kind for kinds in PARTS.values() for kind in kinds]
    everybody = list(CONTENDERS)
    parser.add_argument("--contenders", type=listed(everybody), default=everybody, help=", ".join(everybody))
    parser.add_argument("--parts", type=listed(PARTS), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--kinds", type=listed(kinds), default=[], help="of work: " + ", ".join(kinds))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for environments and results")
    parser.add_argument("--report", type=Path, metavar="ROWS", help="only report on an earlier run")
    options = parser.parse_args()
    rows = options.report
    if rows is None:
        (options.cache / "results").mkdir(parents=True, exist_ok=True)
        rows = options.cache / "results" / time.strftime("%Y-%m-%d-%H%M%S.jsonl")
        harness = Harness(options.cache / "venvs", rows)
        pythons = {name: harness.python(CONTENDERS[name].venv) for name in options.contenders}
        harness.write(part="about", **environment(pythons, rows.parent))
        compare(harness, options.contenders, options)
    text = report([json.loads(line) for line in rows.read_text().splitlines()])
    rows.with_suffix(".md").write_text(text)
    print(f"{text}\nThe rows are in {rows}.")


if __name__ == "__main__":
    main()
