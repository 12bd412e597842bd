"""Segments that are kept ready: how many, how large, and in whose turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from journals import expected, file_of, names, record

from whyops_trace._journal.budget import FIRST_SIZE, SIZE
from whyops_trace._journal.directory import Ways, create
from whyops_trace._journal.header import PAGE, Header
from whyops_trace._journal.segment import Segment
from whyops_trace._journal.spares import READY, Spares
from whyops_trace._journal.totals import Totals

HEADER = Header(
    stream="shop", token="9f2c41aa01be", agent="shop", destinations=["local"], created="2026-01-01T00:00:00Z"
)

#: Returns a new segment of so many bytes.
Make = Callable[[int], Segment]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make segments in one directory."""
    directory = tmp_path / "journal" / "shop"
    directory.mkdir(parents=True)
    return lambda size: create(directory, HEADER, size, Totals(), Ways())


@pytest.mark.parametrize(("current", "enough"), [(FIRST_SIZE, 1), (SIZE, 2), (2 * SIZE, 2)])
def test_a_busy_program_has_two_ready(make: Make, current: int, enough: int) -> None:
    """One that has recorded little has one."""
    spares = Spares()
    count = 0
    while not spares.suffice(current):
        spares.add(make(FIRST_SIZE))
        count += 1
    spares.remove()

    assert count == enough


def test_the_one_that_was_made_first_is_taken_first(make: Make) -> None:
    """One that is too small for a record waits until the others were taken."""
    small, large, larger = made = [make(size) for size in (FIRST_SIZE, SIZE, 2 * SIZE)]
    spares = Spares()
    for segment in made:
        spares.add(segment)
    taken = [spares.take(needed) for needed in (SIZE, SIZE, 1, 1, 1)]
    for segment in made:
        segment.remove()

    assert taken == [None, large, larger, small, None]


def test_finished_segments_are_kept_up_to_a_limit(make: Make, tmp_path: Path) -> None:
    """They are empty then. A small one is not worth it, and one whose file was deleted is of no use."""
    small, deleted, first, second = (make(size) for size in (FIRST_SIZE, SIZE, READY, SIZE))
    file_of(deleted).unlink()
    first.write(record(0))
    spares = Spares()
    kept = [spares.reuse(segment, HEADER) for segment in (small, deleted, first, second)]
    spare, none = spares.take(READY), spares.take(1)
    assert spare is not None
    empty = spare.end
    spare.write(record(1))
    records = spare.read("local")[0]
    for segment in (small, deleted, second, spare):
        segment.remove()

    assert kept == [False, False, True, False]
    assert none is None
    assert empty == PAGE
    assert records == expected([1])
    assert names(tmp_path, "*") == []


def test_removed_spares_leave_no_file(make: Make, tmp_path: Path) -> None:
    """As at the end of a program."""
    spares = Spares()
    for _ in range(3):
        spares.add(make(FIRST_SIZE))
    before = len(names(tmp_path, "*.tmp"))
    spares.remove()

    assert before == 3
    assert names(tmp_path, "*") == []


def test_abandoned_spares_leave_their_files(make: Make, tmp_path: Path) -> None:
    """They are those of the parent of a forked child."""
    spares = Spares()
    spares.add(make(FIRST_SIZE))
    spares.abandon()

    assert spares.take(1) is None
    assert len(names(tmp_path, "*.tmp")) == 1
