"""
How many events the collector stores while its pages are read: ``nox -s ingest``, or ``python -m ingest``.

The server, each of its clients and the one that reads pages are processes of their own, so they share the machine.
Every client keeps a connection of its own and waits for each answer before it sends more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

SERVE = """
import socket, sys
from pathlib import Path
import uvicorn
from whyops_trace.server.app import create_app
config = uvicorn.Config(create_app(Path(sys.argv[1])), port=0, log_level="warning", access_log=False, http="h11")
server = uvicorn.Server(config)
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it for sockets of its own only
print(listener.getsockname()[1], flush=True)
server.run([listener])
"""
#: Events of one trace.
TURNS = 40


class Run(NamedTuple):
    """What one process did: the seconds that each of its requests took, and what all of them stored."""

    seconds: list[float]
    events: int


def events(client: int) -> Iterator[dict[str, Any]]:
    """Yield events without end: traces of an agent that asks a model and calls a tool, turn by turn."""
    number = 0
    while True:
        trace = f"bench-{client}-{number}"
        number += 1
        for turn in range(TURNS // 4):
            yield from _turn({"traceId": trace, "agentName": "bench"}, turn)


def _turn(about: dict[str, Any], turn: int) -> Iterator[dict[str, Any]]:
    question = {"role": "user", "content": f"Where is order {turn}? " + "It was due on Monday. " * 10}
    call = {"name": "find_order", "arguments": {"order": turn, "fields": ["state", "carrier"]}}
    usage = {"promptTokens": 900, "completionTokens": 60, "cacheReadTokens": 700}
    answered = {"model": "gpt-4o", "provider": "openai", "usage": usage, "latencyMs": 812}
    parts: list[tuple[str, Any, dict[str, Any]]] = [
        ("user_message", {"messages": [question]}, {}),
        ("llm_response", {"content": "I will look it up. " * 5, "finishReason": "tool_calls"}, answered),
        ("tool_call_request", {"toolCalls": [call]}, {"tool": "find_order"}),
        (
            "tool_call_response",
            {"toolCalls": [call], "toolResults": {"state": "sent"}},
            {"tool": "find_order"},
        ),
    ]
    for place, (kind, content, metadata) in enumerate(parts):
        key = {"idempotencyKey": f"{turn}-{place}", "spanId": f"span-{turn}"}
        yield {**about, "eventType": kind, "content": content, "metadata": metadata, **key}


def send(port: int, client: int, size: int, seconds: float, result: Connection) -> None:
    """Post arrays of events for some time; an array of one goes as the event alone."""
    stream, connection = events(client), http.client.HTTPConnection("127.0.0.1", port)
    took, stored, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        batch = [next(stream) for _ in range(size)]
        body = json.dumps(batch if size > 1 else batch[0])
        started = time.perf_counter()
        connection.request("POST", "/api/events", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        took.append(time.perf_counter() - started)
        if answer.status != 201:
            raise RuntimeError(told)
        stored += size
    result.send(Run(took, stored))


def read(port: int, path: str, seconds: float, result: Connection) -> None:
    """Open a page again and again, five times a second at most."""
    took, end = [], time.perf_counter() + seconds
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while time.perf_counter() < end:
        started = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        took.append(time.perf_counter() - started)
        time.sleep(max(0.0, 0.2 - took[-1]))
    result.send(Run(took, 0))


def measure(port: int, clients: int, size: int, seconds: float) -> tuple[list[Run], Run]:
    """Let clients send and a reader read for some time; return what each of them did."""
    jobs: list[tuple[Any, tuple[Any, ...]]] = [
        (send, (port, time.time_ns() + n, size, seconds)) for n in range(clients)
    ]
    jobs.append((read, (port, "/", seconds)))
    ends, processes = [], []
    for target, arguments in jobs:
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=target, args=(*arguments, theirs), daemon=True)
        process.start()
        theirs.close()  # so that a process that fails ends the wait for it
        processes.append(process)
        ends.append(mine)
    runs: list[Run] = [end.recv() for end in ends]
    for process in processes:
        process.join()
    return runs[:-1], runs[-1]


def main() -> None:
    """Print a table, a row for each size of arrays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each row takes")
    parser.add_argument("--clients", type=int, default=4, help="processes that send")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 20, 200], help="events of a request")
    options = parser.parse_args()
    print(f"{'events/request':>14} {'events/s':>9} {'request p50':>12} {'p99':>9} {'page p50':>9} {'p99':>9}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-c", SERVE, home]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                senders, reader = measure(port, options.clients, size, options.seconds)
                server.terminate()
        rate = sum(run.events for run in senders) / options.seconds
        took = [seconds for run in senders for seconds in run.seconds]
        print(f"{size:>14} {rate:>9,.0f} {_row(took, 12)} {_row(reader.seconds, 9)}", flush=True)


def _row(seconds: list[float], width: int) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"{cuts[49] * 1000:>{width - 3}.1f} ms {cuts[98] * 1000:>6.1f} ms"


if __name__ == "__main__":
    main()
