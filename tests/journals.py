"""Journals for tests: numbered records, workers that take them, and a quick death."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from whyops_trace._journal.header import Counts
from whyops_trace._journal.journal import Journal
from whyops_trace._journal.segment import Segment

DESTINATIONS = ["local", "whyops"]


def make(home: Path | None, stream: str = "shop", **options: Any) -> Journal:
    directory = home and home / "journal" / stream
    options.setdefault("destinations", DESTINATIONS)
    return Journal(directory, stream=stream, agent="shop", **options)


def record(number: int, size: int = 0) -> bytes:
    return b'{"n":%d,"pad":"%b"}\n' % (number, b"x" * size)


def fill(journal: Journal, numbers: Iterable[int], size: int = 0) -> None:
    for number in numbers:
        journal.append(record(number, size))


def read(segments: Iterable[Segment], destination: str = "local") -> list[bytes]:
    """Take everything a destination has not passed, as a worker would."""
    lines: list[bytes] = []
    for segment in list(segments):
        while True:
            batch, cursor = segment.read(destination)
            if not batch:
                break
            segment.commit(destination, cursor, Counts(delivered=len(batch)))
            lines += batch
    return lines


def expected(numbers: Iterable[int], size: int = 0) -> list[bytes]:
    return [record(number, size)[:-1] for number in numbers]


def die(journal: Journal) -> None:
    """Let go of every file as the kernel does for a process that is killed: nothing is trimmed or removed."""
    journal.renew()


def names(home: Path, pattern: str = "*.seg") -> list[str]:
    return sorted(path.name for path in (home / "journal").glob(f"*/{pattern}"))


def file_of(segment: Segment) -> Path:
    assert segment.path is not None
    return segment.path
