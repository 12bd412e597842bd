"""
How commands and pages do in a home with many traces: ``nox -s scale``, or ``python -m scale``.

Traces of 50 events are stored, half of them ten days old, and every command is a process of its own, as users start it.
A row for each number of events shows what stays as it is, and what grows with what is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.progress import track

from whyops_trace._clock import wire_time
from whyops_trace._journal.journal import Journal
from whyops_trace.server.query import Term
from whyops_trace.server.search import Index
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
#: Events of one trace.
EVENTS = 50
SYSTEM = (
    "You are the agent of a web shop. Answer briefly, and use the tools for whatever concerns an order. " * 5
)
WORDS = [
    "order", "refund", "parcel", "status", "page", "result", "query", "error", "retry", "because", "customer", "said",
    "that", "the", "item", "in", "box", "was",
]  # fmt: skip


def records(trace: int, traces: int) -> Iterator[bytes]:
    """Yield the records of a trace: ten turns of a model, and two calls of a tool in each."""
    began = datetime.now(UTC) - timedelta(days=10 if trace < traces // 2 else 1) + timedelta(seconds=trace)
    head = {"traceId": f"trace-{trace:06}", "agentName": f"agent-{trace % 7}"}
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    step = 0

    def line(kind: str, metadata: dict[str, Any], content: Any, parent: int) -> bytes:
        nonlocal step
        step += 1
        event = {
            "eventType": kind,
            "traceId": head["traceId"],
            "stepId": step,
            **({"parentStepId": parent} if parent else {}),
            "metadata": {"within": 0, **metadata},
            "spanId": f"span_{(step - parent if parent else step) % 400}",
            "timestamp": wire_time(began + timedelta(seconds=step)),
            "idempotencyKey": f"{TOKEN}-{trace * EVENTS + step}",
            "agentName": head["agentName"],
            "content": content,
        }
        return json.dumps(event, separators=(",", ":")).encode()

    for turn in range(EVENTS // 6):
        words = [WORDS[(trace * 7 + turn * 3 + n * n) % len(WORDS)] for n in range(20)]
        messages.append({"role": "user", "content": f"{' '.join(words)} number{trace}x{turn}"})
        usage = {"promptTokens": 900 * turn, "completionTokens": 60}
        yield line("user_message", {"function": "ask"}, {"messages": messages}, step)
        about = {"function": "ask", "model": "gpt-4o", "provider": "openai", "usage": usage, "latencyMs": 812}
        answer = {"role": "assistant", "content": " ".join(reversed(words))}
        yield line("llm_response", about, {"content": answer["content"], "finishReason": "tool_calls"}, step)
        messages.append(answer)
        for tool in ("find_order", "charge_card"):
            call = {"name": tool, "arguments": {"order": trace * 10 + turn, "fields": ["state", "carrier"]}}
            yield line("tool_call_request", {"tool": tool}, {"toolCalls": [call]}, step)
            result = {"toolCalls": [{"name": tool}], "toolResults": {"state": "sent", "number": trace}}
            yield line("tool_call_response", {"tool": tool, "latencyMs": 12}, result, step)
    while step < EVENTS - 1:
        yield line("llm_thinking", {}, {"type": "thinking", "thinking": "I am done."}, step)
    yield line("trace_end", {"latencyMs": 50_000}, {}, 0)


def filled(home: Path, events: int) -> str:
    """Store so many events; return the time and the room that they took."""
    traces = events // EVENTS
    store = Store(home / "traces.db")
    batch: list[bytes] = []
    took = 0.0
    for trace in track(range(traces), f"{events:,} events", transient=True):
        batch += records(trace, traces)
        if len(batch) >= 2_000 or trace == traces - 1:
            began = time.process_time()
            store.ingest((TOKEN, batch))
            took += time.process_time() - began
            batch = []
    store.process_ended(TOKEN)
    store.close()
    size = (home / "traces.db").stat().st_size
    return f"{1e6 * took / events:.0f} us, {size / events:.0f} B an event"


def command(home: Path, *arguments: str) -> str:
    """Run a command; return its seconds, and the largest memory that it had."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "whyops_trace", *arguments, "--home", str(home)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return f"{time.perf_counter() - began:.2f} s, {usage.ru_maxrss / 1024:.0f} MB"


def indexed(home: Path) -> str:
    """Build the index of the search; return its seconds and its size."""
    began = time.perf_counter()
    index = Index(home, Store(home / "traces.db"))
    while not index.catch_up(1.0):
        pass
    index.close()
    return f"{time.perf_counter() - began:.1f} s, {(home / 'search.db').stat().st_size / 1e6:.0f} MB"


def found(home: Path, text: str) -> str:
    """Search in all traces; return the seconds and the number of traces."""
    index = Index(home, Store(home / "traces.db"))
    index.find([Term("warm")])
    began = time.perf_counter()
    result = index.find([Term(text)])
    took = time.perf_counter() - began
    index.close()
    return f"{1e3 * took:.0f} ms, {len(result.trace_ids):,} traces"


def served(home: Path) -> dict[str, str]:
    """Start the server and read pages; return the seconds of each, and the memory of the server after them."""
    began = time.perf_counter()
    arguments = [sys.executable, "-m", "whyops_trace", "serve", "--port", "0", "--home", str(home)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        address = next(match[0] for said in server.stdout if (match := re.search(r"http://[\d.:]+", said)))
        figures = {}
        for name, path in (
            ("first page", "/"),
            ("list page", "/"),
            ("page of a trace", "/t/trace-000000"),
            ("search page", "/?q=number7x3"),
        ):
            start = began if name == "first page" else time.perf_counter()
            with urllib.request.urlopen(address + path) as answer:
                answer.read()
            figures[name] = f"{time.perf_counter() - start:.2f} s"
        status = Path(f"/proc/{server.pid}/status").read_text()
        kilobytes = int(re.findall(r"VmHWM:\s+(\d+)", status)[0])
        figures["memory of the server"] = f"{kilobytes / 1024:.0f} MB"
        server.terminate()
    return figures


def left_behind(home: Path, megabytes: int) -> str:
    """Let a process leave so many megabytes in its journal, and a command store them."""
    journal = Journal(
        home / "journal" / "scale",
        stream="scale",
        agent="scale",
        destinations=["local"],
        budget=megabytes << 21,
    )
    written, trace = 0, 0
    while written < megabytes << 20:
        for line in records(trace, 10**6):
            journal.append(line + b"\n")
            written += len(line) + 1
        trace += 1
    journal.renew()  # as the kernel lets go of the files of a process that is killed
    return f"{command(home, 'ls')} for {trace * EVENTS:,} events"


def figures(events: int, backlog: int) -> Iterator[tuple[str, str]]:
    """Yield the figures of a home with so many events, as they are measured."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        yield "store", filled(home, events)
        steps: dict[str, Callable[[], str]] = {
            "ls": lambda: command(home, "ls"),
            "ls of an agent": lambda: command(home, "ls", "--agent", "agent-3", "--limit", "50"),
            "show of one": lambda: command(home, "show", "trace-000007"),
            "stats": lambda: command(home, "stats"),
            "index of the search": lambda: indexed(home),
            "search of a rare word": lambda: found(home, "number7x3"),
            "search of a word in all": lambda: found(home, "parcel"),
        }
        for name, step in steps.items():
            yield name, step()
        yield from served(home).items()
        yield "rm of half", command(home, "rm", "--older-than", "5d", "--yes")
        yield "bytes after it", f"{(home / 'traces.db').stat().st_size / 1e6:.0f} MB"
    if backlog:
        with tempfile.TemporaryDirectory() as folder:
            yield f"a backlog of {backlog} MiB", left_behind(Path(folder), backlog)


def main() -> None:
    """Print a column for each number of events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--backlog", type=int, default=1_024, help="megabytes that a dead process left; 0 for none"
    )
    options = parser.parse_args()
    for events in options.events:
        print(f"\n{events:,} events in {events // EVENTS:,} traces", flush=True)
        for name, figure in figures(events, options.backlog if events == options.events[-1] else 0):
            print(f"  {name:<26}{figure}", flush=True)


if __name__ == "__main__":
    main()
