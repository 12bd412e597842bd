"""Processes that are killed with -9 lose nothing that they had recorded, and nothing arrives twice."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from collector import Drip
from faults.kills import Down, live_and_die
from journals import die, expected, fill, make, read

from whyops_trace._clock import iso


@pytest.mark.parametrize("store", [False, True], ids=["server", "server and store"])
@pytest.mark.parametrize("series", range(4))
def test_what_a_killed_process_recorded_arrives_once(tmp_path: Path, series: int, store: bool) -> None:
    """Each series is 20 processes, killed at any moment, in a home where the ones before left something."""
    report = live_and_die(tmp_path, 20, random.Random(random.random()), store=store)

    assert (report.lost, report.twice, report.unsound) == ([], [], [])
    assert report.arrived >= report.recorded > 0
    assert all(line.startswith("Cannot deliver") for line in report.said())


@pytest.mark.parametrize(
    ("store", "at_last"),
    [
        pytest.param(False, None, id="server"),
        pytest.param(True, None, id="server and store"),
        pytest.param(True, Drip(size=100), id="slow server and store"),
    ],
)
def test_a_long_backlog_of_the_dead_is_delivered_in_its_order(
    tmp_path: Path, store: bool, at_last: Drip | None
) -> None:
    """Nobody reached the server in 140 lives; one process that does delivers all of it, and then its own."""
    chance = random.Random(random.random())
    report = live_and_die(
        tmp_path, 140, chance, store=store, weathers=[Down()], most_calls=10, at_last=at_last
    )

    assert (report.lost, report.twice, report.unsound) == ([], [], [])
    assert report.arrived >= report.recorded > 0


def test_a_file_made_in_advance_keeps_its_place_among_those_that_are_taken_over(tmp_path: Path) -> None:
    """What counts is when the first record came to it: a record too large for it may have come meanwhile."""
    dead = make(tmp_path)
    fill(dead, range(10), 6_000)
    dead.prepare()
    made = iso(time.time_ns())
    while iso(time.time_ns()) == made:
        pass
    fill(dead, [10], 2_000_000)
    fill(dead, range(11, 20), 20_000)
    sizes = [segment.size for segment in dead.segments]
    die(dead)
    heir = make(tmp_path)
    heir.adopt()

    assert len(sizes) == 3 and sizes[1] > sizes[2]
    assert read(heir.segments) == [
        *expected(range(10), 6_000),
        *expected([10], 2_000_000),
        *expected(range(11, 20), 20_000),
    ]
