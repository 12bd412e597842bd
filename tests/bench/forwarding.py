"""
What ``whyops-trace serve --forward`` costs: ``python tests/bench/forwarding.py``.

Clients send spans by OTLP, and then events of calls, to a server that forwards them to a receiver in another process,
and to one that does not. Each measurement tells how many a second had arrived in the end, and the CPU of the server.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

#: Spans, and events, of a measurement; those of a request; measurements of each kind, of which the best counts.
COUNT, AT_ONCE, RUNS = 20_000, 200, 3
TICKS = os.sysconf("SC_CLK_TCK")
RECEIVER = Path(__file__).with_name("receiving.py")


def spans(first: int) -> object:
    """Return a request of spans with six attributes each, ten of them in a trace."""
    items = [
        {
            "traceId": f"{1 + number // 10:032x}",
            "spanId": secrets.token_hex(8),
            "name": "execute_tool add",
            "kind": 1,
            "startTimeUnixNano": str(1_800_000_000_000_000_000 + number * 1_000),
            "endTimeUnixNano": str(1_800_000_000_000_000_500 + number * 1_000),
            "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
                {"key": "gen_ai.tool.name", "value": {"stringValue": "add"}},
                {"key": "gen_ai.tool.call.id", "value": {"stringValue": f"call_{number}"}},
                {"key": "gen_ai.tool.call.arguments", "value": {"stringValue": f'{{"a": {number}, "b": 1}}'}},
                {"key": "gen_ai.tool.call.result", "value": {"stringValue": str(number + 1)}},
                {"key": "shop.number", "value": {"intValue": str(number)}},
            ],
        }
        for number in range(first, first + AT_ONCE)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "bench"}, "spans": items}]}]}


def events(first: int) -> object:
    """Return a request of the events of calls, ten of them in a trace."""
    items = []
    for number in range(first, first + AT_ONCE):
        kind = "tool_call_response" if number % 2 else "tool_call_request"
        content = {"toolResults": {"result": number}} if number % 2 else {"toolCalls": [{"name": "add"}]}
        items.append({
            "eventType": kind, "traceId": f"t-{number // 10}", "agentName": "bench", "stepId": 1 + number % 10,
            "parentStepId": max(1, number % 10), "spanId": f"s{number // 2}", "idempotencyKey": f"k{number}",
            "metadata": {"tool": "add"}, "content": content,
        })  # fmt: skip
    return items


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measured(path: str, make: Callable[[int], object], receiver: str = "") -> tuple[float, float]:
    """Return how many a second were stored, and forwarded if there is a receiver, and the CPU of each in us."""
    bodies = [json.dumps(make(first)).encode() for first in range(0, COUNT, AT_ONCE)]
    with tempfile.TemporaryDirectory() as home:
        forward = ["--forward", receiver, "--forward-content"] if receiver else []
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "whyops_trace",
                "serve",
                "--port",
                "0",
                "--json",
                "--home",
                home,
                *forward,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            told = json.loads(server.stdout.readline())
            with open(f"{home}/serve.json", encoding="utf-8") as file:
                token = json.load(file)["token"]
            before, started = cpu_of(server.pid), time.perf_counter()
            for body in bodies:
                headers = {"Content-Type": "application/json"}
                urllib.request.urlopen(urllib.request.Request(told["url"] + path, body, headers)).read()
            health = urllib.request.Request(f"{told['url']}/api/health", headers={"x-whyops-token": token})
            while receiver:
                (status,) = json.loads(urllib.request.urlopen(health).read())["forward"]
                if not status["pending"]:
                    assert status["forwarded"] == COUNT
                    break
                time.sleep(0.02)
            took = time.perf_counter() - started
            time.sleep(6)  # traces that wait are read
            return COUNT / took, (cpu_of(server.pid) - before) / COUNT * 1e6
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Measure, and print a table."""
    with subprocess.Popen([sys.executable, RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
            for name, path, make in (("spans", "/v1/traces", spans), ("events", "/api/events", events)):
                alone = min(measured(path, make)[1] for _ in range(RUNS))
                runs = [measured(path, make, url) for _ in range(RUNS)]
                rate, cpu = max(run[0] for run in runs), min(run[1] for run in runs)
                print(
                    f"{name}: {rate:,.0f} a second stored and forwarded; CPU {cpu:.0f} us each, {alone:.0f} stored only"
                )
        finally:
            receiver.terminate()


if __name__ == "__main__":
    main()
