"""
A process whose children record until they are killed, for ``kills.py``.

Usage: ``mortal.py``. For each line of input, a label, it forks a child, which costs little since everything is
imported, and no client was made yet. A line is said for a call when it has returned, and one when the child has died.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count

import httpx

from whyops_trace import WhyOps, step, traced_tool
from whyops_trace.exporters import local, whyops

#: Imported here so that no child has to.
IMPORTED = (httpx, local, whyops)
THREADS = 3
#: Calls of one trace.
GROUP = 7
#: Trace ids that come back, in other threads and in the next children.
CONVERSATIONS = 4
#: Bytes of a line: an atomic write, and long enough that a pipe holds few, so that no child is far ahead.
LINE = 128


def say(text: str) -> None:
    os.write(1, text.encode().ljust(LINE - 1) + b"\n")


@traced_tool
def work(call: str) -> str:
    """Nested in itself, so that calls have parents below the top."""
    return inner(call)


@traced_tool
def inner(call: str) -> str:
    return call


def live(sdk: WhyOps, label: str, thread: int) -> None:
    """Record for ever, and acknowledge each call."""
    calls = count()
    for group in count(thread):
        comes_back = f"chat-{group % CONVERSATIONS}" if group % 2 else None
        with sdk.trace(comes_back), step("think"):
            for _ in range(GROUP):
                call = f"{label}-{thread}-{next(calls)}"
                work(call)
                say(f"call {call}")


def child(label: str) -> None:
    say(f"born {os.getpid()}")
    sdk = WhyOps(agent_name="shop", agent_metadata={"systemPrompt": "You sell tea.", "tools": []})
    for thread in range(1, THREADS):
        threading.Thread(target=live, args=(sdk, label, thread), daemon=True).start()
    live(sdk, label, 0)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(line.strip())
        os.waitpid(pid, 0)
        say("died")


if __name__ == "__main__":
    main()
