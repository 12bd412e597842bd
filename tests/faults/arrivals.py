"""What arrived at a collector, held against what was recorded: nothing lost, nothing twice, traces sound."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from collector import Collector
from wire import Event, Row

from whyops_trace._home import STORE_FILE
from whyops_trace._recording.line import LOCAL

TOOL_TYPES = ("tool_call_request", "tool_call_response")
#: A call, a tool, and a type; of other events the key instead of a call.
Identity = tuple[str, str, str]


@dataclass
class Report:
    """
    What a scenario showed; the lists hold what must not be.

    Attributes:
        scenario: Its name.
        recorded: Events that were recorded, as the scenario knows and not the ledger.
        arrived: Events the collector stored.
        refused: Events it refused for good.
        lost: Events that are neither.
        twice: Events it stored more than once.
        ledger: What the ledger said that is not so; None if the processes were killed and could not say anything.
        unsound: What is wrong with traces.
        slowest: Seconds of the slowest traced call.
        exits: Seconds that each process took to end.
        complaints: What the processes said on stderr.
    """

    scenario: str
    recorded: int = 0
    arrived: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    ledger: list[str] | None = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    slowest: float = 0.0
    exits: list[float] = field(default_factory=list)
    complaints: list[list[str]] = field(default_factory=list)

    def said(self) -> list[str]:
        """Return what all of them said."""
        return [line for lines in self.complaints for line in lines]


def key(row: Row) -> str:
    """Return the idempotency key of an event."""
    return str(row["sent"]["idempotencyKey"])


def call_of(event: Event) -> str:
    """Return which call a tool's request or response is about, its own word for it."""
    if event["eventType"] == "tool_call_request":
        return str(event["content"]["toolCalls"][0]["arguments"]["call"])
    return str(event["content"]["toolResults"]["result"])


def identity(event: Event) -> Identity:
    """Return what an event is, whatever its key."""
    if event["eventType"] in TOOL_TYPES:
        return (call_of(event), event["metadata"]["tool"], event["eventType"])
    return (event["idempotencyKey"], "", event["eventType"])


def count_arrivals(report: Report, collector: Collector, expected: set[Identity]) -> None:
    """Note which of these events are missing, and which of all are there twice, under any key."""
    found = Counter(identity(row["sent"]) for row in collector.stored)
    keys = Counter(map(key, collector.stored))
    report.arrived = len(collector.stored)
    report.lost += sorted(map(str, expected - found.keys()))
    report.twice += sorted(str(one) for counter in (found, keys) for one, n in counter.items() if n > 1)


def check_traces(report: Report, collector: Collector, may_be_open: Callable[[Row], bool]) -> None:
    """Note what is wrong with the traces of a collector: steps, parents, and tools without their other half."""
    for trace in collector.traces.values():
        try:
            check(trace.rows, may_be_open)
        except AssertionError as error:
            report.unsound.append(f"{trace.id}: {error}")


def check(rows: list[Row], may_be_open: Callable[[Row], bool]) -> None:
    """Fail if the rows of one trace are not a sound trace, which some calls did not live to finish."""
    ordered = sorted(rows, key=lambda row: (row["timestamp"], row["stepId"]))
    steps = [row["stepId"] for row in ordered]
    by_step = {row["stepId"]: row for row in ordered}
    answered = set()

    assert steps == sorted(set(steps)), "steps do not rise in time"

    for row in ordered:
        step, parent = row["stepId"], row["parentStepId"]
        within = row["metadata"]["within"]

        assert parent is None or (parent in by_step and parent < step), f"step {step}: no parent {parent}"
        assert not within or (within in by_step and within < step), f"step {step}: not within {within}"

        if row["eventType"] == "tool_call_response":
            request = by_step[parent]

            assert request["eventType"] == "tool_call_request", f"step {step}: parent {parent} is no request"
            assert request["spanId"] == row["spanId"], f"step {step}: not the span of its request {parent}"
            assert call_of(request["sent"]) == call_of(row["sent"]), f"step {step}: not the request {parent}"
            assert parent not in answered, f"step {step}: {parent} was answered before"

            answered.add(parent)
    for row in ordered:
        if row["eventType"] == "tool_call_request" and row["stepId"] not in answered:
            assert may_be_open(row["sent"]), f"step {row['stepId']}: it was not answered"


def keys_in_store(home: Path) -> list[str]:
    """Return the keys of what is in the local store and would go to a server too."""
    marks = ",".join("?" * len(LOCAL))
    query = f"SELECT key FROM records WHERE type NOT IN ({marks}) ORDER BY key"
    with contextlib.closing(sqlite3.connect(home / STORE_FILE)) as connection:
        return [key for (key,) in connection.execute(query, sorted(LOCAL))]
