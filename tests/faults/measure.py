"""
Measures what becomes of events under every fault, and prints it as a table in Markdown.

The scenarios are those of ``test_server_faults.py`` and ``test_kill.py``, made larger by ``--calls`` and ``--kills``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from faults.arrivals import Report
from faults.kills import Down, live_and_die
from faults.outages import OUTAGES, live_through

#: What may be measured: a name, and what runs it in a home.
Scenario = tuple[str, Callable[[Path], Report]]
HEADER = (
    "| the server, or what is done to the process | recorded | arrived | twice | ledger exact | slowest call | exit |\n"
    "|---|---|---|---|---|---|---|"
)


def scenarios(calls: int, kills: int, seed: int) -> Iterator[Scenario]:
    """Yield all there are."""
    for outage in OUTAGES:
        yield outage.name, partial(live_through, outage, calls=calls)
    for name, more in (
        ("kill -9", {}),
        ("kill -9, with a local store", {"store": True}),
        ("kill -9, the server down until the last process", {"weathers": [Down()]}),
    ):
        run = partial(live_and_die, lives=kills, chance=random.Random(seed), **more)
        yield f"{name}, {kills} times", run


def row(name: str, report: Report) -> str:
    """Return a report as a line of the table."""
    arrived = f"{report.recorded - len(report.lost):,}"
    if report.refused:
        arrived = f"{report.arrived:,} and {report.refused} refused for good"
    exact = "" if report.ledger is None else "no" if report.ledger else "yes"
    slowest = f"{report.slowest * 1000:.1f} ms" if report.slowest else ""
    exits = "killed" if report.ledger is None else f"{max(report.exits):.1f} s"
    cells = (name, f"{report.recorded:,}", arrived, str(len(report.twice)), exact, slowest, exits)
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run the scenarios asked for, and return 1 if one shows what must not be."""
    parser = argparse.ArgumentParser(prog="python -m faults.measure", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only scenarios whose name holds this")
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each process (default: 5000)")
    parser.add_argument(
        "--kills", type=int, default=300, help="processes killed in each series (default: 300)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the moments and the weather of kills (default: 1)"
    )
    options = parser.parse_args()
    print(HEADER, flush=True)
    failed = False
    for name, run in scenarios(options.calls, options.kills, options.seed):
        if options.only in name:
            with tempfile.TemporaryDirectory() as home:
                report = run(Path(home))
            print(row(name, report), flush=True)
            for what in (*report.lost, *report.twice, *report.unsound, *(report.ledger or ())):
                failed = True
                print(f"{name}: {what}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
