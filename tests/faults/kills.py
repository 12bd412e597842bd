"""
Processes that are killed with -9, at any moment and in any weather, and what is found of their events.

Several lives follow each other in one home, so that each finds what the ones before it left. Then a last process, which
nobody kills, delivers what is left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from collector import Collector, Drip, Fault, Hang, Reset, Stored
from faults.arrivals import TOOL_TYPES, Report, call_of, check_traces, count_arrivals, key, keys_in_store
from faults.mortal import LINE
from faults.outages import AWAY, KEY, Agent, on_events, well
from programs import environment
from wire import Answer

from whyops_trace._delivery.draining import take_in

PROGRAM = Path(__file__).with_name("mortal.py")
#: Calls of a life that are waited for, at most; some more happen before it ends.
MOST_CALLS = 60


@dataclass(frozen=True)
class Down:
    """The server refuses connections."""


Weather = Fault | Down | None

#: What the requests of a life meet that bring events; None is a good answer.
WEATHERS: tuple[Weather, ...] = (
    None,
    None,
    None,
    Down(),
    Down(),
    Drip(size=200),
    Hang(),
    Hang(stored=True),
    Reset("request"),
    Reset("answer", stored=True),
    Stored(Answer(502, "bad gateway", content_type="text/plain")),
    AWAY,
)


class Parent:
    """
    The program next door: a process that has children, one at a time, of which each records until it is killed.

    Args:
        collector: Their server.
        home: Their home.
        store: Whether they record to the local store as well.
    """

    def __init__(self, collector: Collector, home: Path, *, store: bool) -> None:
        more = {
            "WHYOPS_API_KEY": KEY,
            "WHYOPS_ANALYSE_URL": collector.url,
            "WHYOPS_STORE": "on" if store else "off",
        }
        clean = environment(home, **more)
        paths = [clean["PYTHONPATH"], str(PROGRAM.parents[1]), str(PROGRAM.parents[1] / "doubles")]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed at its exit
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**clean, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            pipesize=4096,  # a child is at most as many calls ahead as fit into this
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._errors.close()

    def bear(self, label: str) -> int:
        """Have a child, and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{label}\n".encode())
        self._process.stdin.flush()
        return int(self.hear())

    def hear(self) -> str:
        """Return the next thing said: the call that has returned, "" if the child has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.read(LINE)

        assert len(line) == LINE, "the parent has ended"

        return line.decode().partition(" ")[2].strip()

    def complaints(self) -> list[str]:
        """Return what the dead said on stderr."""
        self._errors.seek(0)
        return self._errors.read().decode().splitlines()


def live_and_die(
    home: Path,
    lives: int,
    chance: random.Random,
    *,
    store: bool = False,
    weathers: Sequence[Weather] = WEATHERS,
    most_calls: int = MOST_CALLS,
    at_last: Fault | None = None,
) -> Report:
    """
    Kill processes of one agent, let a last one end by itself, and return what became of the events of all.

    Args:
        home: Their home.
        lives: How many are killed.
        chance: Decides about the weather, and the moment of each death.
        store: Whether they record to the local store as well.
        weathers: What the server does; one of these in each life.
        most_calls: How many calls a life is waited for to make, at most.
        at_last: What requests of the last process meet that bring events.
    """
    report = Report("killed with -9, with a local store" if store else "killed with -9", ledger=None)
    calls: list[str] = []
    with Collector() as collector:
        with Parent(collector, home, store=store) as parent:
            for number in range(lives):
                weather, wanted = chance.choice(weathers), chance.randrange(most_calls)
                calls += _life(collector, parent, f"life{number}", weather, wanted, chance)
            report.complaints.append(parent.complaints())
        if at_last is not None:
            on_events(at_last)(collector)
        _let_the_last_one_end(report, collector, home, store=store)
        returned = set(calls)
        tools = ("work", "inner")
        events = {(call, tool, kind) for call in returned for tool in tools for kind in TOOL_TYPES}
        report.recorded = len(events)
        count_arrivals(report, collector, events)
        check_traces(report, collector, lambda request: call_of(request) not in returned)
        if store:
            take_in(home)  # as a command does with what the last process had no time for
            if keys_in_store(home) != sorted(map(key, collector.stored)):
                report.lost.append("the local store has other events than the server")
    return report


def _life(
    collector: Collector, parent: Parent, label: str, weather: Weather, wanted: int, chance: random.Random
) -> list[str]:
    """Let a process live for a while, kill it, and return the calls that had returned by then."""
    down = isinstance(weather, Down)
    if isinstance(weather, Down):
        collector.stop()
    elif weather is not None:
        on_events(weather)(collector)
    moment = None if down else _moment(collector, weather, chance)
    pid = parent.bear(label)
    calls = [parent.hear() for _ in range(wanted)]
    if moment is not None:
        collector.wait_for(moment)
    os.kill(pid, signal.SIGKILL)
    calls += iter(parent.hear, "")
    if down:
        collector.start()
    well(collector)  # what hangs is then done after all, though nobody waits for it any more
    return calls


def _moment(collector: Collector, weather: Weather, chance: random.Random) -> Callable[[], bool] | None:
    """Return what to wait for before a process is killed, so that some die in the middle of a delivery."""
    requests, stored = len(collector.requests), len(collector.stored)
    moments: list[Callable[[], bool] | None] = [
        None,
        lambda: len(collector.requests) > requests,
        lambda: len(collector.requests) > requests + 1,  # the first one registers the agent
    ]
    if weather is None or isinstance(weather, Drip):
        moments.append(lambda: len(collector.stored) > stored)
    return chance.choice(moments)


def _let_the_last_one_end(report: Report, collector: Collector, home: Path, *, store: bool) -> None:
    last = Agent(collector, home, "last", 1, WHYOPS_STORE="on" if store else "off")
    try:
        last.flush()
        while last.said["ledger"]["whyops"]["pending"]:  # which comes after what the dead left
            last.flush()
        seconds, complaints = last.end()
    finally:
        last.kill()
    report.exits.append(seconds)
    report.complaints.append(complaints)
