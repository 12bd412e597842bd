"""
An agent that records for a long time: ``soak_agent.py EVENTS``.

Prints, as JSON, its resident memory in MB after a fifth of the events and at the end, the most bytes its journal took
on disk, and what was recorded and delivered in how many seconds.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from whyops_trace import WhyOps, traced_tool

#: Events of one trace, and traces after which the agent waits for the server: it is no faster than that for long.
EVENTS = 10
TRACES = 500

sdk = WhyOps()


@traced_tool
def search(query: str, limit: int) -> list[str]:
    return [f"{query} {number}" for number in range(limit)]


def one_trace(number: int) -> None:
    """Record ten events that a server gets; every other trace has an id chosen here."""
    with sdk.trace(f"soak {number}" if number % 2 else None), sdk.step("answer"):
        for _ in range(EVENTS // 2 - 1):
            search("What is in the parcel?", limit=5)
        sdk.trace(f"soak {number}" if number % 2 else None).llm_thinking_sync("done")


def resident() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def on_disk() -> int:
    return sum(path.stat().st_blocks * 512 for path in (sdk.settings.home / "journal").rglob("*.*"))


def main(events: int) -> None:
    started = time.monotonic()
    early, most = 0.0, 0
    for number in range(events // EVENTS):
        one_trace(number)
        if number % TRACES == TRACES - 1:
            most = max(most, on_disk())
            sdk.flush_sync(60)
        if number == events // EVENTS // 5 - 1:
            early = resident()
    sdk.flush_sync(60)
    late = resident()
    tally = sdk.close_sync()["whyops"]
    seconds = time.monotonic() - started
    print(
        json.dumps(
            {
                "emitted": tally.emitted,
                "delivered": tally.delivered,
                "rss_early_mb": round(early, 1),
                "rss_late_mb": round(late, 1),
                "journal_most_mb": round(most / 1e6, 1),
                "seconds": round(seconds, 1),
                "events_per_second": round(tally.emitted / seconds),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
