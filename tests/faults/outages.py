"""
A server that misbehaves in every way there is, and a traced agent that goes on all the same.

Each fault is lived through by two processes of one agent. The first makes its calls and ends while the server is
still at fault; the second finds what it left, and sees the server recover.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector import Collector, Drip, Fault, Hang, Reset
from faults.arrivals import TOOL_TYPES, Report, call_of, check_traces, count_arrivals, identity, key
from programs import start
from wire import Answer, Event, Request, Row

from whyops_trace._home import REJECTED_FILE

PROGRAM = Path(__file__).with_name("agent.py")
#: Seconds a process has to end, whatever the server does: the agent's own `answer_timeout` and some more.
END_WITHIN = 20.0
KEY = "whyops_test"

Change = Callable[[Collector], None]


@dataclass(frozen=True)
class Outage:
    """
    A fault, and how it ends.

    Attributes:
        name: What it is called.
        begin: Makes the server misbehave.
        mend: Makes it well again.
        reached: Whether the collector sees the requests that fail.
        restart: Whether the agent is started anew after the server was mended: somebody had to change something.
        refuses: Whether the server refuses the response of a call for good.
    """

    name: str
    begin: Change
    mend: Change
    reached: bool = True
    restart: bool = False
    refuses: Callable[[str], bool] = lambda call: False


def on_events(fault: Fault) -> Change:
    """Return what makes requests that bring events meet a fault."""

    def script(request: Request) -> Fault | None:
        return fault if request.path == "/api/events" else None

    return lambda collector: setattr(collector, "script", script)


def on_all(fault: Fault) -> Change:
    """Return what makes every request meet a fault."""
    return lambda collector: setattr(collector, "script", lambda request: fault)


def at_first(times: int, fault: Fault) -> Change:
    """Return what makes the first requests that bring events meet a fault, and no others."""
    return lambda collector: collector.fail(*[fault] * times)


def well(collector: Collector) -> None:
    """End every fault."""
    collector.script = None
    collector.release()


def restarted(collector: Collector) -> None:
    """End every fault, and every connection."""
    well(collector)
    collector.stop()
    collector.start()


def with_keys(**keys: str) -> Change:
    """Return what makes these keys, and no others, valid."""
    return lambda collector: setattr(collector, "keys", keys)


def one_in_250(call: str) -> bool:
    """Tell whether a call is the odd one out of 250, which have 500 events."""
    return int(call.rpartition("-")[2]) % 250 == 120


def refuse_some(collector: Collector) -> None:
    """Refuse events with a 400, in words that do not say which one it is."""

    def reject(event: Event) -> str | None:
        refused = event["eventType"] == "tool_call_response" and one_in_250(call_of(event))
        return "this content is not acceptable" if refused else None

    collector.reject = reject


def leave(collector: Collector) -> None:
    """Mend nothing."""


QUEUED = Answer(202, {"success": True, "accepted": True, "queuedCount": 200})
LOGIN = Answer(200, "<html><title>Please log in</title></html>", content_type="text/html")
CUT_JSON = Answer(201, '[{"id":"0","status":"sav')
NOTHING_SAID = Answer(201, [])
BUSY = Answer(429, {"error": "Too many requests"}, {"Retry-After": "1"})
BROKEN = Answer(500, {"error": "Failed to save event(s)"})
AWAY = Answer(503, "no server is available", content_type="text/plain")

OUTAGES = (
    Outage("refuses connections", Collector.stop, Collector.start, reached=False),
    Outage("hangs after accept", on_all(Hang()), well),
    Outage("hangs, and has stored", on_events(Hang(stored=True)), well),
    Outage("resets in the middle of the request", on_events(Reset("request")), well),
    Outage("resets in the middle of the answer", on_events(Reset("answer")), well),
    Outage(
        "resets in the middle of the answer, and has stored", on_events(Reset("answer", stored=True)), well
    ),
    Outage("answers slowly, piece by piece", on_events(Drip(size=20)), well),
    Outage("429 with Retry-After, three times", at_first(3, BUSY), leave),
    Outage("500, three times", at_first(3, BROKEN), leave),
    Outage("500, eight times", at_first(8, BROKEN), leave),
    Outage("503 for everything", on_all(AWAY), well),
    Outage("202 and forgets, then restarts", on_events(QUEUED), restarted),
    Outage("400 for one event in 500", refuse_some, leave, refuses=one_in_250),
    Outage("JSON that is cut off", on_events(CUT_JSON), well),
    Outage("JSON that says nothing of the events", on_events(NOTHING_SAID), well),
    Outage("HTML of a load balancer", on_all(LOGIN), well, restart=True),
    Outage("401, then the key works", with_keys(), with_keys(**{KEY: "tenant"}), restart=True),
)


class Agent:
    """
    The program next door, in a process of its own.

    Args:
        collector: Its server.
        home: Its home.
        label: What its calls are called by.
        calls: How many it makes.
        more: Environment variables.
    """

    def __init__(self, collector: Collector, home: Path, label: str, calls: int, **more: str) -> None:
        settings = {"WHYOPS_API_KEY": KEY, "WHYOPS_ANALYSE_URL": collector.url, **more}
        self._process = start(PROGRAM, label, str(calls), home=home, cwd=None, **settings)
        self._calls = calls
        self.calls = [f"{label}-{number}" for number in range(calls)]
        self.said = self._hear()

    def go(self) -> None:
        """Let it make the rest of its calls; it has when this returns."""
        self._tell("go")

    def flush(self) -> None:
        """Let it wait until all is delivered."""
        self._tell("flush")

    def end(self) -> tuple[float, list[str]]:
        """Let it end; return the seconds it took, and what it said on stderr."""
        began = time.monotonic()
        out, err = self._process.communicate(timeout=END_WITHIN)
        seconds = time.monotonic() - began
        self.said = json.loads(out)

        assert self._process.returncode == 0, err

        return seconds, err.splitlines()

    def kill(self) -> None:
        """End it, if it has not."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    @property
    def made(self) -> int:
        """Events it recorded, by its own count: two for each call, and one for each step."""
        return 2 * self._calls + int(self.said["groups"])

    def ledger_errors(self, rows: list[Row], *, delivers_all: bool) -> list[str]:
        """Return what its ledger says that is not so, held against what is stored of its events."""
        tally = self.said["ledger"]["whyops"]
        parts = sum(tally[name] for name in ("delivered", "pending", "sampled_out", "rejected", "dropped"))
        own = sum(key(row).startswith(self.said["token"]) for row in rows)
        right = {
            "emitted is the sum": tally["emitted"] == parts,
            "none is dropped or sampled out": tally["dropped"] == tally["sampled_out"] == 0,
            "what is delivered is stored": tally["delivered"] == own
            if delivers_all
            else tally["delivered"] <= own,
            # What is local counts as long as it waits: the ends of the steps and of the traces.
            "emitted is what was made": 0 <= tally["emitted"] - self.made <= 2 * self.said["groups"],
        }
        if delivers_all:
            right["emitted is exactly what was made"] = tally["emitted"] == self.made
            right["none is pending"] = tally["pending"] == 0
        return [f"{what}: {tally}, {own} stored" for what, held in right.items() if not held]

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self.said = self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()

        assert line, f"the agent ended: {self._process.communicate()[1]}"

        said: dict[str, Any] = json.loads(line)
        return said


def live_through(outage: Outage, home: Path, calls: int = 500, **environment: str) -> Report:
    """Let two processes live through an outage, and return what became of their events."""
    with Collector() as collector:
        agents: list[Agent] = []
        try:
            return _live_through(outage, collector, agents, home, calls, environment)
        finally:
            for agent in agents:
                agent.kill()


def _live_through(
    outage: Outage,
    collector: Collector,
    agents: list[Agent],
    home: Path,
    calls: int,
    environment: dict[str, str],
) -> Report:
    report = Report(outage.name)

    def begin(label: str) -> Agent:
        seen = len(collector.requests)
        agents.append(Agent(collector, home, label, calls, **environment))
        if outage.reached:
            collector.wait_for(lambda: len(collector.requests) > seen)
        return agents[-1]

    def end(agent: Agent) -> None:
        seconds, complaints = agent.end()
        report.exits.append(seconds)
        report.complaints.append(complaints)
        report.slowest = max(report.slowest, agent.said["slowest"])

    outage.begin(collector)
    first = begin("first")
    first.go()
    end(first)
    report.ledger = first.ledger_errors(list(collector.stored), delivers_all=False)
    if outage.restart:
        outage.mend(collector)
    second = begin("second")
    if not outage.restart:
        outage.mend(collector)
    second.go()
    second.flush()
    report.ledger += second.ledger_errors(list(collector.stored), delivers_all=True)
    end(second)
    report.recorded = first.made + second.made
    calls_made = [*first.calls, *second.calls]
    refused = {(call, "work", "tool_call_response") for call in calls_made if outage.refuses(call)}
    report.refused = len(refused)
    count_arrivals(
        report, collector, {(call, "work", kind) for call in calls_made for kind in TOOL_TYPES} - refused
    )
    check_traces(report, collector, lambda request: outage.refuses(call_of(request)))
    if report.arrived + report.refused != report.recorded:
        report.lost.append(f"{report.recorded - report.arrived - report.refused} of all events")
    if refused != set(map(identity, dead_letters(home))):
        report.lost.append("the dead letters are not what was refused")
    return report


def dead_letters(home: Path) -> list[Event]:
    """Return the events in the file of those that were refused for good."""
    path = home / REJECTED_FILE
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []
