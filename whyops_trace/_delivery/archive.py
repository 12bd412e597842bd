"""A home that can only be read, such as a snapshot or a backup, with the records in its journals."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from whyops_trace._database_file import JOURNAL, LOG, beside
from whyops_trace._home import STORE_FILE, is_writable
from whyops_trace._journal.survey import Glimpse, records_in
from whyops_trace.exporters.base import Batch
from whyops_trace.exporters.local import BATCH_BYTES, LocalExporter


@contextlib.contextmanager
def readable(home: Path) -> Iterator[Path]:
    """
    Lend a home to read all traces from: the home itself, if all of them can be in its store.

    If records wait in the journals of a home that cannot be written, it is a copy of the store that has them, which is
    deleted at the end.

    Raises:
        OSError: if a file cannot be read, or there is no room for the copy.
        StoreError: if the copy cannot be written.
    """
    if is_writable(home) or not any(waits for _, waits, _ in records_in(home, LocalExporter.name)):
        yield home
        return
    copy = Path(tempfile.mkdtemp(prefix="whyops-trace-"))
    try:
        for ending in ("", LOG, JOURNAL):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(beside(home / STORE_FILE, ending), copy / (STORE_FILE + ending))
        _store(home, copy / STORE_FILE)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _store(home: Path, path: Path) -> None:
    """Store the records of a home's journals in a copy of its store, and note which processes have ended."""
    ended: set[str] = set()
    with contextlib.closing(LocalExporter(path, hint=False, retention=None)) as exporter:
        for segment, lines in _batches(home):
            exporter.export(Batch(segment.header.token, lines, adopted=True))
            if not segment.in_use:
                ended.add(segment.header.token)
        for token in sorted(ended):
            exporter.process_ended(token)


def _batches(home: Path) -> Iterator[tuple[Glimpse, list[bytes]]]:
    """Yield the waiting records of each segment, about a megabyte of them at a time."""
    current: Glimpse | None = None
    lines: list[bytes] = []
    size = 0
    for segment, waits, line in records_in(home, LocalExporter.name):
        if current is not None and lines and (segment is not current or size > BATCH_BYTES):
            yield current, lines
            lines, size = [], 0
        current = segment
        if waits:
            lines.append(line)
            size += len(line)
    if current is not None and lines:
        yield current, lines
