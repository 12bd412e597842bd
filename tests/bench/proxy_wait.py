"""
The wait of requests that go through the WhyOps proxy, until the server has the newest record before them.

Run it with ``nox -s proxy_wait``, or against a server of your own whose account has a provider of OpenAI's kind:
``nox -s proxy_wait -- --analyse URL --proxy URL --key KEY --model MODEL``. Otherwise a double of a server stands in,
which takes 20 ms for an event and stores the proxy's events so many milliseconds late. Each figure is over the second
and later turns of three conversations of six turns, all tools of a turn one after the other and without work to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collector import Collector
from provider import Provider
from replies import Reply

PROGRAM = Path(__file__).parents[1] / "providers" / "hybrid_program.py"
CONVERSATIONS = 3
TURNS = 6
TOOLS = (0, 1, 8)
LAGS_MS = (0, 50, 500)


@contextmanager
def double(lag_ms: int) -> Iterator[dict[str, str]]:
    """Run a double of a server, and yield the settings to report to it."""
    numbers = itertools.count(1)
    with Provider() as provider, Collector() as collector:
        provider.script = lambda request: Reply(f"Answer {next(numbers)}.")
        collector.upstream = provider
        collector.lag = lag_ms / 1000
        collector.event_seconds = 0.02
        urls = {"WHYOPS_ANALYSE_URL": collector.url, "WHYOPS_PROXY_URL": collector.proxy_url}
        yield {"WHYOPS_API_KEY": "whyops_test", **urls}


def waits(server: dict[str, str], tools: int) -> list[float]:
    """Return the milliseconds that the requests of all conversations waited, without the first of each."""
    waited: list[float] = []
    for _ in range(CONVERSATIONS):
        with tempfile.TemporaryDirectory() as home:
            numbers = map(str, (1, TURNS, tools, 0))
            told = subprocess.run(
                [sys.executable, str(PROGRAM), "openai", f"wait-{os.urandom(8).hex()}", *numbers],
                env={**os.environ, "WHYOPS_HOME": home, "WHYOPS_AGENT_NAME": "proxy-wait", **server},
                stdout=subprocess.PIPE,
                check=True,
            )
            waited += json.loads(told.stdout)[1:]
    return waited


def row(server: dict[str, str], name: str, tools: int) -> str:
    """Measure one line of the table."""
    waited = sorted(waits(server, tools))
    p95 = waited[round(0.95 * (len(waited) - 1))]
    figures = " | ".join(f"{figure:,.0f}" for figure in (statistics.median(waited), p95, waited[-1]))
    return f"| {name} | {tools} | {figures} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the wait of requests through the WhyOps proxy.")
    for name in ("analyse", "proxy", "key", "model"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    print("| events of the proxy are stored after | tools a turn | median ms | 95th percentile | worst |")
    print("|---|---|---|---|---|")
    if given.analyse:
        server = {
            "WHYOPS_ANALYSE_URL": given.analyse,
            "WHYOPS_PROXY_URL": given.proxy,
            "WHYOPS_API_KEY": given.key,
            "MODEL": given.model,
        }
        for tools in TOOLS:
            print(row(server, given.analyse, tools), flush=True)
        return
    for lag, tools in itertools.product(LAGS_MS, TOOLS):
        with double(lag) as server:
            print(row(server, f"{lag} ms", tools), flush=True)


if __name__ == "__main__":
    main()
