"""
An agent that records until it is killed, and exports the traces of some outcomes, for ``test_tail_sampling.py``.

Usage: ``sampled_agent.py LABEL [TRACES]``. A line is said when a trace has ended: ``good`` or ``bad`` and its id. With
a number of traces it ends by itself and says its ledger.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count

from whyops_trace import TailSampling, WhyOps, step, traced_tool

LABEL = sys.argv[1]
TRACES = int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


@traced_tool
def work(call: str, fails: bool) -> str:
    return "Error: no such order" if fails else "done"


def live(sdk: WhyOps, thread: int) -> None:
    for number in count():
        if number >= TRACES:
            return
        name, fails = f"{LABEL}-{thread}-{number}", number % 5 == 3
        with sdk.trace(name):
            with step("think"):
                for call in range(4):
                    work(f"{name}/{call}", fails and call == 1)
            work(f"{name}/last", False)
        say(f"{'bad' if fails else 'good'} {name}")


sdk = WhyOps(agent_name="shop", store=False, tail_sampling=TailSampling(share=0.1))
threads = [threading.Thread(target=live, args=(sdk, thread)) for thread in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
sdk.flush_sync(timeout=30)
say(f"ledger {sdk.close_sync()['otlp']}")
