"""
One contender in one process: ``python -m compare.worker CONTENDER SINK ROWS PART [KIND]...``.

What it finds goes to the file ROWS, a line of JSON for each burst. A burst is measured beside a fixed piece of pure
Python, run just before and after it in the same process, because the clock of a shared machine wanders.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time, sleep, thread_time
from typing import Any

from . import conversation
from .contenders import CONTENDERS, SPAN

Row = dict[str, Any]
#: Calls of a burst of each kind: few enough for every contender's queue to hold them.
CALLS = {
    "sync": 2_000,
    "single": 2_000,
    "single beside a thread": 2_000,
    "async": 2_000,
    "tree": 1_000,
    "generator": 500,
    "10 KB": 300,
    "200 KB": 40,
}
SIZES = {"1 KB": 1_000, "10 KB": 10_000, "200 KB": 200_000}
DEPTH = 10
#: Bursts of each kind in a process.
REPEATS = 3
OPTIONS = {"limit": 5, "lang": "en"}
TEXT = 'The parcel was "scanned" in Köln,\n then at {depot: 3, shelf: [2, 4]} -- see C:\\logs\\scan.txt: 42 % done.\t'
#: Seconds that an outage lasts, calls that are made in it, and after it.
OUTAGE, IN_OUTAGE, AFTER_OUTAGE = 10, 1_000, 10
KILL = "kill -9"
#: Conversations of each kind in a process, and seconds between two turns, in which a tool's threads work: a model takes
#: much longer.
CONVERSATIONS, PAUSE = 2, 0.003


def yardstick() -> float:
    """Return the microseconds of some pure Python: the best of five times."""
    times = []
    for _ in range(5):
        began = perf_counter()
        events = [{"number": str(number), "pair": (number, None)} for number in range(1_000)]
        sum(len(event) for event in events)
        times.append(perf_counter() - began)
    return min(times) * 1e6


def resident(field: str) -> float:
    """Return the memory of this process in MB: what it has ("VmRSS"), or the most it had ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """Let another thread compute all the time."""
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            sum(number * number for number in range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def percentiles(times: list[int]) -> Row:
    """Return of nanoseconds what people ask about, in microseconds."""
    times = sorted(times)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: times[int(len(times) * share)] / 1e3 for name, share in shares.items()} | {
        "max": times[-1] / 1e3
    }


class Worker:
    """A contender at work."""

    def __init__(self, name: str, sink: str) -> None:
        self.contender = CONTENDERS[name]
        tool, self.trace, self.flush, model = self.contender.start(sink)
        port = int(sink.rpartition(":")[2])
        self.control = socket.create_connection(("127.0.0.1", port + 1)).makefile("rw")
        self.numbers = iter(range(1, 10_000_000))

        def plain(query: str, options: Any) -> str:
            return query[1:]

        async def coroutine(query: str, options: Any) -> str:
            return query[1:]

        def generator(query: str, options: Any) -> Iterator[int]:
            yield from range(10)

        def nested(query: str, depth: int) -> str:
            if depth > 1:
                self.nested(query, depth - 1)
            return query[1:]

        def ask(messages: Any, tools: Any) -> Any:
            return self.answer

        for function in (
            plain,
            coroutine,
            generator,
            nested,
            ask,
        ):  # some tools have no other name for a span
            function.__name__ = function.__qualname__ = SPAN
        self.plain, self.coroutine, self.nested = tool(plain), tool(coroutine), tool(nested)
        self.answer: Any = None
        self.asked = (model or tool)(ask)
        self.generator = tool(generator) if self.contender.generators else generator

    def ask(self, command: str) -> Any:
        """Tell the sink something, and return its answer."""
        self.control.write(command + "\n")
        self.control.flush()
        return json.loads(self.control.readline())

    def arrived(self) -> int:
        """Return how many calls are at the sink."""
        found = self.ask("count")
        return int(found["spans"]) if self.contender.counts == "spans" else len(found["calls"])

    def scaled(self, count: int) -> int:
        """Return the contender's share of some calls."""
        return max(10, int(count * self.contender.share))

    def queries(self, count: int, size: int = 0) -> list[str]:
        """Return as many first arguments, each told from the others at the sink."""
        pad = (TEXT * (size // len(TEXT) + 1))[:size]
        return [f"qz{next(self.numbers):07d}.{pad}" for _ in range(count)]

    def timed(self, queries: list[str]) -> list[int]:
        """Make a call with each query, and return the nanoseconds of each."""
        function, options, clock, times = self.plain, OPTIONS, perf_counter_ns, []
        for query in queries:
            began = clock()
            function(query, options)
            times.append(clock() - began)
        return times

    def traces(self, count: int, each: int, size: int = 0) -> list[int]:
        """Make calls in some traces, and return the nanoseconds of each."""
        times: list[int] = []
        for _ in range(count):
            queries = self.queries(each, size)
            with self.trace():
                times += self.timed(queries)
        return times

    def warm_up(self) -> int:
        """Make some calls that do not count, and return the number of the last."""
        self.traces(1, self.scaled(200))
        self.flush()
        self.ask("clear")
        return next(self.numbers)

    # Calls

    def calls(self, kind: str) -> Iterator[Row]:
        """Measure some bursts of one kind, after one that is not measured."""
        if kind == "generator" and not self.contender.generators:
            return
        count = self.scaled(CALLS[kind])
        self.burst(kind, max(10, count // 10))
        for _ in range(REPEATS):
            self.ask("clear")
            row = self.burst(kind, count)
            if kind != "generator" and self.contender.counts == "calls":
                row["missing"] = (count // DEPTH if kind == "tree" else count) - self.arrived()
            yield row

    def burst(self, kind: str, count: int) -> Row:
        """Make calls in one trace, and return what each took, in microseconds."""
        queries = self.queries(count // DEPTH if kind == "tree" else count, SIZES.get(kind, 0))
        beside = kind.endswith("beside a thread")
        gc.collect()
        before, times = yardstick(), []
        with busy_thread() if beside else contextlib.nullcontext():
            cpu = process_time()
            with self.trace():
                wall, own = perf_counter(), thread_time()
                if kind.startswith("single"):
                    times = self.timed(queries)
                else:
                    self.make(kind, queries)
                wall, own = perf_counter() - wall, thread_time() - own
        self.flush()
        row = {"wall": wall, "own": own}
        if not beside:  # the other thread's time is not the contender's
            row["cpu"] = process_time() - cpu
        row = {name: seconds / count * 1e6 for name, seconds in row.items()}
        return {**row, **(percentiles(times) if times else {}), "yardstick": min(before, yardstick())}

    def make(self, kind: str, queries: list[str]) -> None:
        """Make a call with each query, and do nothing else."""
        plain, generator, nested, options = self.plain, self.generator, self.nested, OPTIONS

        async def run() -> None:
            coroutine = self.coroutine
            for query in queries:
                await coroutine(query, options)

        if kind == "async":
            asyncio.run(run())
        elif kind == "tree":
            for query in queries:
                nested(query, DEPTH)
        elif kind == "generator":
            for query in queries:
                for _ in generator(query, options):
                    pass
        else:
            for query in queries:
                plain(query, options)

    # Conversations

    def conversation(self, kind: str) -> Iterator[Row]:
        """Hold one, after one of five turns that does not count, and return what it took in milliseconds."""
        turns, _, held = kind.partition(" turns, ")
        self.converse(5, held)
        for _ in range(CONVERSATIONS):
            self.ask("clear")
            gc.collect()
            before, cpu = yardstick(), process_time()
            wall, own, between = self.converse(int(turns), held)
            cpu = process_time() - cpu - between
            row = {"wall": 1e3 * wall, "own": 1e3 * own, "cpu": 1e3 * cpu}
            missing = int(turns) - self.arrived()
            yield {**row, "missing": missing, "yardstick": min(before, yardstick())}

    def converse(self, turns: int, held: str) -> tuple[float, float, float]:
        """Return the seconds of time and of CPU in the calls of one conversation, and those of CPU between them."""
        wall = own = between = 0.0
        with self.trace():
            left = thread_time()
            for messages, tools, answer in conversation.turns(turns, held, self.numbers):
                self.answer = answer
                began, entered = perf_counter(), thread_time()
                between += entered - left
                self.asked(messages, tools)
                left = thread_time()
                own += left - entered
                wall += perf_counter() - began
                sleep(PAUSE)
        self.flush()
        return wall, own, between

    # What is counted when the process has ended

    def large_burst(self, kind: str) -> Iterator[Row]:
        """Make 20,000 calls in 20 traces as fast as they go."""
        last, each = self.warm_up(), self.scaled(20_000) // 20
        gc.collect()
        before, memory = yardstick(), resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the most it had is counted from here
        cpu = process_time()
        row = percentiles(self.traces(20, each, SIZES.get(kind, 0)))
        self.flush()
        cpu = process_time() - cpu
        row |= {"calls": 20 * each, "after": last, "cpu": cpu, "peak": resident("VmHWM") - memory}
        gc.collect()
        row["held"] = resident("VmRSS") - memory
        row["rate"] = self.arrived() / cpu
        yield {**row, "yardstick": min(before, yardstick())}

    def fault(self, kind: str) -> Iterator[Row]:
        """Make calls while something is wrong, and some after it."""
        last, each = self.warm_up(), max(1, int(IN_OUTAGE // 10 * self.contender.share))
        if kind != KILL:
            self.ask(f"fail {kind} {OUTAGE}")
        times = self.traces(10, each)
        if kind != KILL:
            self.ask("recovered")
            times += self.traces(1, AFTER_OUTAGE)
        yield {"calls": len(times), "after": last, "max": max(times) / 1e3}
        if kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        self.flush()

    def work(self, part: str, kinds: list[str]) -> Iterator[Row]:
        """Do one part of the comparison; "next" is what any process does that comes after one that was killed."""
        if part == "next":
            self.traces(1, 1)
            self.flush()
        do = {
            "calls": self.calls,
            "burst": self.large_burst,
            "conversations": self.conversation,
            "faults": self.fault,
        }
        for kind in kinds:
            for row in do[part](kind):
                yield {"kind": kind, **row}


def main(name: str, sink: str, rows: str, part: str, *kinds: str) -> None:
    """Do what the command line says."""
    with Path(rows).open("w", buffering=1) as file:
        for row in Worker(name, sink).work(part, list(kinds)):
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
