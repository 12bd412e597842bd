"""
An agent that holds many conversations: ``conversing_agent.py CONVERSATIONS WAY``.

In each one a model asks for tool calls with large arguments. The way is "ended", where each conversation is a block
that is left; "by hand", where it is a handle without a block; or "endless", where all of them are one open trace, whose
arguments differ. Prints, as JSON, the resident memory in MB after a fifth of the conversations and at the end.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from whyops_trace import WhyOps, traced_llm, traced_tool

#: Tool calls of a conversation, and lines in the arguments of each.
CALLS, LINES = 5, 500

sdk = WhyOps()


@traced_llm(model="m", provider="p")
def ask(prompt: str, number: int) -> dict[str, Any]:
    return {"content": "ok", "tool_calls": tool_calls(number)}


@traced_tool
def write(lines: list[str]) -> int:
    return len(lines)


def lines(number: int, call: int) -> list[str]:
    return [f"line {k} of file {number}-{call}" for k in range(LINES)]


def tool_calls(number: int) -> list[Any]:
    return [
        {
            "id": f"call {number}-{call}",
            "function": {"name": "write", "arguments": json.dumps({"lines": lines(number, call)})},
        }
        for call in range(CALLS)
    ]


def converse(number: int, way: str) -> None:
    if way == "by hand":
        sdk.trace(f"conversation {number}").llm_response_sync("m", "p", "ok", tool_calls=tool_calls(number))
        return
    with sdk.trace(f"conversation {number}") if way == "ended" else nullcontext():
        ask("q", number)
        write(lines(number, 0))


def resident() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(conversations: int, way: str) -> None:
    early = 0.0
    with sdk.trace("endless") if way == "endless" else nullcontext():
        for number in range(conversations):
            converse(number, way)
            if number % 50 == 0:
                sdk.flush_sync(60)
            if number == conversations // 5:
                early = resident()
        sdk.flush_sync(60)
        late = resident()
    print(json.dumps({"early_mb": round(early, 1), "late_mb": round(late, 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
