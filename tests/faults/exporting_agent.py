"""
An agent that records until it is killed, and exports spans, for ``test_otlp.py``.

Usage: ``exporting_agent.py LABEL [CALLS]``. A line is said when a call begins and when it has returned. With a number
of calls it ends by itself and says its ledger. Each fifth trace is begun in a child that goes on with it.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count

from whyops_trace import WhyOps, step, traced_tool

LABEL = sys.argv[1]
CALLS = int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


@traced_tool
def work(call: str) -> str:
    return inner(call)


@traced_tool
def inner(call: str) -> str:
    return call


def live(sdk: WhyOps, thread: int) -> None:
    calls = count()
    for group in count():
        with sdk.trace(f"chat-{group % 3}" if group % 2 else None), step("think"):
            for _ in range(7):
                number = next(calls)
                if number >= CALLS:
                    return
                call = f"{LABEL}-{thread}-{number}"
                say(f"begin {call}")
                work(call)
                say(f"call {call}")


sdk = WhyOps(agent_name="shop", store=False)
threads = [threading.Thread(target=live, args=(sdk, thread)) for thread in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
sdk.flush_sync(timeout=30)
(ledger,) = sdk.close_sync().values()
say(f"ledger {ledger}")
