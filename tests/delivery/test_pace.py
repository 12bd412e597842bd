"""The waits of a worker, and the ways to end them; a wait that is not ended would take an hour."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from journals import fill, make

from whyops_trace._delivery import pace as pace_module
from whyops_trace._delivery.pace import Pace

#: Seconds that no test waits.
LONG = 3600.0


@pytest.fixture
def pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pace:
    """The pace of a worker that lets a burst gather for an hour."""
    monkeypatch.setattr(pace_module, "LINGER", LONG)
    return Pace(make(tmp_path))


def test_a_rest_ends_for_what_came_before_it(pace: Pace) -> None:
    """However often the worker was woken, it rests again after it has looked once."""
    pace.wake()
    pace.wake()
    pace.rest()
    resting = threading.Thread(target=pace.rest)
    resting.start()
    rests = resting.is_alive()
    pace.wake()
    resting.join()

    assert rests


def test_who_is_in_a_hurry_ends_a_gathering_and_a_backoff(pace: Pace) -> None:
    """Also one that begins only afterwards; after a backoff there is work again."""
    pace.hasten()
    pace.gather(time.monotonic(), 0)
    pace.hasten()  # while the worker works
    pace.back_off(LONG)
    pace.rest()
    pace.gather(time.monotonic(), 0)
    backing_off = threading.Thread(target=pace.back_off, args=(LONG,))
    backing_off.start()
    waits = backing_off.is_alive()
    pace.hasten()
    backing_off.join()

    assert waits


def test_no_burst_gathers_until_everybody_has_relaxed(pace: Pace) -> None:
    """One relaxation too many does no harm."""
    pace.expedite()
    pace.expedite()
    pace.gather(time.monotonic(), 0)
    pace.relax()
    pace.gather(time.monotonic(), 0)
    pace.relax()
    pace.relax()
    pace.expedite()
    pace.gather(time.monotonic(), 0)
    pace.relax()
    gathering = threading.Thread(target=pace.gather, args=(time.monotonic(), 0))
    gathering.start()
    gathers = gathering.is_alive()
    pace.hasten()
    gathering.join()

    assert gathers


def test_a_segment_is_made_ready_while_a_burst_gathers(tmp_path: Path) -> None:
    """The program, which is busy recording, need not make it."""
    journal = make(tmp_path)
    fill(journal, range(6), 8_000)
    pace = Pace(journal)
    pace.gather(time.monotonic(), 6)
    ready = len(list((tmp_path / "journal").glob("*/*.tmp")))
    journal.close()

    assert ready == 1
