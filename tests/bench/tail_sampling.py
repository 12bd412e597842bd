"""
What sampling by outcome saves, and what it costs: ``python tests/bench/tail_sampling.py``.

A thousand runs of an agent with two turns of a model and two tools, of which one in twenty fails, are exported as spans
with their content to a receiver in another process, all of them and sampled. The least CPU of several runs counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from whyops_trace import TailSampling, WhyOps, traced_llm, traced_tool
from whyops_trace.exporters.otlp import OtlpExporter

AGENTS, RUNS, FAILING = 1_000, 3, 20
RECEIVER = Path(__file__).with_name("receiving.py")
CHOICES = {
    "all": None,
    "failed": TailSampling(share=0),
    "failed and 5 %": TailSampling(share=0.05),
    "failed and 10 %": TailSampling(share=0.1),
}
PROMPT = "You answer the customers of a shop. Be brief, look things up, and never promise a refund. " * 12


@traced_llm(model="gpt-4o", provider="openai")
def ask(messages: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {"prompt_tokens": 900, "completion_tokens": 60, "total_tokens": 960}
    message = {
        "role": "assistant",
        "content": "Your parcel left the depot on Monday and comes tomorrow. " * 3,
    }
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage, "model": "gpt-4o"}


@traced_tool
def look_up(order: int, fails: bool) -> Any:
    return {"error": "no such order"} if fails else {"order": order, "state": "shipped", "note": "x" * 400}


def run(sdk: WhyOps, number: int) -> None:
    """Run the agent once."""
    messages = [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": f"Where is my order {number}?"},
    ]
    with sdk.trace():
        ask(messages)
        result = look_up(number, number % FAILING == 7)
        look_up(number + 1, fails=False)
        ask([*messages, {"role": "tool", "tool_call_id": "1", "content": str(result)}])


def measure(url: str, choice: TailSampling | None) -> tuple[float, float, float]:
    """Return the bytes that were sent for a run, the CPU of a record in microseconds, and the records a second."""
    before = taken(url)
    exporter = OtlpExporter(url, content=True)
    home = tempfile.mkdtemp()
    sdk = WhyOps(agent_name="bench", store=False, home=home, exporters=[exporter], tail_sampling=choice)
    run(sdk, 0)
    sdk.flush_sync()
    started, cpu = time.perf_counter(), time.process_time()
    for number in range(AGENTS):
        run(sdk, number)
    tally = sdk.flush_sync(60)["otlp"]
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    assert not tally.pending
    sdk.close_sync()
    return (taken(url) - before) / AGENTS, cpu / tally.emitted * 1e6, tally.emitted / seconds


def taken(url: str) -> int:
    """Return the bytes that a receiver has taken so far."""
    with urllib.request.urlopen(url) as answer:
        return int(answer.read())


def main() -> None:
    """Print the figures."""
    with subprocess.Popen([sys.executable, RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
        figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CHOICES}
        try:
            for _ in range(RUNS):
                for name, choice in CHOICES.items():
                    figures[name].append(measure(url, choice))
        finally:
            receiver.kill()
    whole = figures["all"][0][0]
    for name, runs in figures.items():
        size = runs[0][0]
        cpu, pace = min(each[1] for each in runs), max(each[2] for each in runs)
        print(
            f"{name:16} {size:8,.0f} bytes a run {size / whole:6.1%} {cpu:7.1f} us a record {pace:8,.0f} records/s"
        )


if __name__ == "__main__":
    main()
