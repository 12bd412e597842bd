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
    emitted = progress.emitted()
    waiting = threading.Thread(target=progress.wait, args=(emitted, time.monotonic() + LONG))
    waiting.start()
    passed = [progress.has_passed(emitted)]
    for destination in ("local", "whyops"):
        read(journal.segments, destination)
        progress.succeeded(destination)
        passed.append(progress.has_passed(emitted))
    fill(journal, [3])
    waiting.join()
    journal.close()

    assert passed == [False, False, True]
    assert progress.is_behind


def test_a_destination_fails_until_it_takes_something(tmp_path: Path) -> None:
    """The failures in a row are counted."""
    progress = Progress(make(tmp_path), ["local", "whyops"])
    failures = [progress.failed("local"), progress.failed("local")]
    failing = [progress.is_failing]
    progress.succeeded("local")
    failing.append(progress.is_failing)
    failures.append(progress.failed("local"))

    assert failures == [1, 2, 1]
    assert failing == [True, False]
