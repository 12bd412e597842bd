"""The progress of a worker, as those see it who wait for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from journals import fill, make, read

from whyops_trace._delivery.progress import Progress

#: Seconds that no test waits.
LONG = 3600.0


def test_a_wait_ends_when_every_destination_has_passed_the_records(tmp_path: Path) -> None:
    """What is recorded after the wait has begun is not waited for."""
    journal = make(tmp_path)
    progress = Progress(journal, ["local", "whyops"])
    fill(journal, range(3))
    waiting = threading.Thread(target=progress.wait, args=(3, time.monotonic() + LONG))
    waiting.start()
    passed = [progress.has_passed(3)]
    for destination in ("local", "whyops"):
        read(journal.segments, destination)
        progress.succeeded(destination, 3, 0.1)
        passed.append(progress.has_passed(3))
    fill(journal, [3])
    waiting.join()
    journal.close()

    assert passed == [False, False, True]
    assert progress.is_behind


def test_a_wait_is_worth_it_while_something_moves(tmp_path: Path) -> None:
    """Not where a destination fails, nor after a wait in vain, nor where nothing is left."""
    journal = make(tmp_path, destinations=["local"])
    progress = Progress(journal, ["local"])
    worth = [progress.is_worth_a_wait()]
    fill(journal, [0])
    worth.append(progress.is_worth_a_wait())
    failures = [progress.failed("local"), progress.failed("local")]
    worth.append(progress.is_worth_a_wait())
    progress.succeeded("local", 0, 0.1)
    worth.append(progress.is_worth_a_wait())
    failures.append(progress.failed("local"))
    progress.succeeded("local", 0, 0.1)
    progress.waited()
    worth.append(progress.is_worth_a_wait())
    read(journal.segments)
    fill(journal, [1])
    worth.append(progress.is_worth_a_wait())
    read(journal.segments)
    worth.append(progress.is_worth_a_wait())
    journal.close()

    assert worth == [False, True, False, True, False, True, False]
    assert failures == [1, 2, 1]


def test_the_usual_batch_tells_how_slow_a_destination_is(tmp_path: Path) -> None:
    """A single one that took long does not, nor does one of which nothing was delivered."""
    progress = Progress(make(tmp_path), ["local"])
    slower = [progress.is_slower_than(0.0)]
    progress.succeeded("local", 0, 9.0)
    slower.append(progress.is_slower_than(8.0))
    for seconds in (1.0, 9.0, 1.0):
        progress.succeeded("local", 1, seconds)
    slower.append(progress.is_slower_than(8.0))
    progress.succeeded("local", 1, 9.0)
    progress.succeeded("local", 1, 9.0)
    slower += [progress.is_slower_than(8.0), progress.is_slower_than(9.0)]

    assert slower == [False, False, False, True, False]
