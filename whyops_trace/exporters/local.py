"""Delivers records to the local store: those of this process, and those that dead processes left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

import msgspec

from whyops_trace._home import command_line
from whyops_trace._reading.excerpt import clean
from whyops_trace._recording.line import ending_of
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.settings import Retention
from whyops_trace.store import Store

#: Bytes of a batch. Each is a transaction, whose statements wait for a busy thread, so that a few large records come
#: together.
BATCH_BYTES: Final = 1 << 20
#: Batches after which the store is pruned, if :data:`PRUNE_BYTES` do not come first.
PRUNE_BATCHES: Final = 1_000
#: Bytes of records after which the store is pruned, if :data:`PRUNE_BATCHES` do not come first.
PRUNE_BYTES: Final = 32 << 20


class _LastRecord(msgspec.Struct, rename="camel"):
    trace_id: str


class LocalExporter(Exporter):
    """
    Stores records in a SQLite file and keeps that file within its bounds.

    Args:
        path: The file; see :class:`~whyops_trace.store.Store`.
        hint: True to print the command that shows the first trace that ends, once in a process. It is printed on
            standard error, if that is a terminal.
        retention: The bounds of the file; None deletes nothing.

    Attributes:
        store: The store in that file.
    """

    name = "local"
    batch_bytes = BATCH_BYTES

    #: The process that printed the hint last; a forked child prints it again.
    _hinted_in: ClassVar[int] = 0

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        hint: bool = True,
        retention: Retention | None = Retention(),  # noqa: B008 - a tuple
    ) -> None:
        self.store: Store = Store(path)
        self._retention = retention
        self._hint = hint
        self._batches = 0
        self._bytes = 0

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Store a batch.

        Raises:
            StoreError: if the file cannot be written. Then nothing of the batch is stored.
        """
        stored = self.store.ingest((batch.process, batch.lines))
        self._prune(sum(map(len, batch.lines)))
        if self._hint and LocalExporter._hinted_in != os.getpid():
            self._print_hint(line for line, is_stored in zip(batch.lines, stored, strict=True) if is_stored)
        return [Outcome.DELIVERED if is_stored else Outcome.REJECTED for is_stored in stored]

    def process_ended(self, process: str) -> None:
        """
        Note in the store that a process is gone.

        Raises:
            StoreError: if the file cannot be written.
        """
        self.store.process_ended(process)

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def _prune(self, size: int) -> None:
        """Have the store forget traces beyond its bounds: after the first batch, and every so often."""
        due = self._batches % PRUNE_BATCHES == 0 or self._bytes + size > PRUNE_BYTES
        self._batches += 1
        self._bytes += size
        if due:
            self._bytes = 0
            if self._retention is not None:
                self.store.prune(*self._retention)

    def _print_hint(self, lines: Iterable[bytes]) -> None:
        """Print the command that shows the first trace that one of these records finishes."""
        with contextlib.suppress(OSError, ValueError):  # standard error is closed, or cannot spell the id
            if sys.stderr is None or not sys.stderr.isatty():
                return
            end = next((line for line in lines if ending_of(line).ends_trace), None)
            if end is not None:
                LocalExporter._hinted_in = os.getpid()
                trace_id = clean(msgspec.json.decode(end, type=_LastRecord).trace_id)
                show = command_line("show", trace_id, home=self.store.path.parent)
                sys.stderr.write(f"whyops-trace recorded a trace; see it with: {show}\n")
