"""Agents that export spans and are killed, and what of their calls arrived."""

from __future__ import annotations

import signal
from collections import defaultdict
from pathlib import Path

from programs import start
from receiver import Receiver, Span

#: A program that says of each call that it begins, and that it has returned.
AGENT = Path(__file__).with_name("exporting_agent.py")


def live_and_die(home: Path, label: str, calls: int, **settings: str) -> tuple[set[str], set[str]]:
    """Run an agent until it has returned so many calls, and kill it. Return the calls that began and that returned."""
    with start(AGENT, label, home=home, **settings) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while sum(line.startswith("call") for line in lines) < calls:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.stdin.close()  # type: ignore[union-attr]
    words = [line.split() for line in lines]
    return (
        {line[1] for line in words if len(line) == 2 and line[0] == "begin"},
        {line[1] for line in words if len(line) == 2 and line[0] == "call"},
    )


def by_call(receiver: Receiver) -> dict[tuple[str, str], list[Span]]:
    """Return the spans of each tool and call."""
    spans = defaultdict(list)
    for span in receiver.arrived:
        if span.name.startswith("execute_tool"):
            call = span.attributes["gen_ai.tool.call.arguments"].split('"')[3]
            spans[span.attributes["gen_ai.tool.name"], call].append(span)
    return spans
