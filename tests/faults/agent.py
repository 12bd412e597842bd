"""
A traced agent that makes calls and does what it is told, for ``outages.py``.

Usage: ``agent.py LABEL CALLS``. It makes its first calls, and the others when it hears "go"; "flush" has it wait until
all is delivered; at the end of its input it ends. What it says, on stdout, are lines of JSON.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
from typing import Any

#: Calls made before it waits for "go"; enough for the server to be asked.
FIRST_CALLS = 40
#: Calls of one trace.
GROUP = 20
#: Trace ids that come back, in the same process and in the next.
CONVERSATIONS = 5


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Agent:
    """Some calls belong to conversations that come back, the others to traces of their own."""

    def __init__(self, label: str) -> None:
        from whyops_trace import WhyOps, step, traced_tool

        self.sdk = WhyOps(
            agent_name="shop",
            agent_metadata={"systemPrompt": "You sell tea.", "tools": []},
            exit_timeout=0.5,
            answer_timeout=2.0,
        )
        self.label = label
        self.step = step
        self.slowest = 0.0
        self.groups = 0

        @traced_tool
        def work(call: str) -> str:
            return call

        self.work = work

    def make(self, calls: range) -> None:
        """Make calls, and note how long the slowest took."""
        for start in calls[::GROUP]:
            self.groups += 1
            comes_back = f"chat-{self.groups % CONVERSATIONS}" if self.groups % 2 else None
            with self.sdk.trace(comes_back), self.step("think"):
                for number in range(start, min(start + GROUP, calls.stop)):
                    began = time.perf_counter()
                    self.work(f"{self.label}-{number}")
                    self.slowest = max(self.slowest, time.perf_counter() - began)

    def tell(self) -> None:
        """Say what it made so far, and what the ledger says."""
        ledger = {name: tally._asdict() for name, tally in self.sdk.stats().items()}
        say(token=self.sdk.recorder.token, groups=self.groups, slowest=self.slowest, ledger=ledger)


def main() -> None:
    agents: list[Agent] = []

    def tell() -> None:
        for agent in agents:
            agent.tell()

    atexit.register(tell)  # before the client registers its own, which runs first then
    calls = int(sys.argv[2])
    agent = Agent(sys.argv[1])
    agents.append(agent)
    agent.make(range(min(FIRST_CALLS, calls)))
    agent.tell()
    for line in sys.stdin:
        if line == "go\n":
            agent.make(range(FIRST_CALLS, calls))
        else:
            agent.sdk.flush_sync(timeout=60)
        agent.tell()


if __name__ == "__main__":
    main()
