"""Prints each trace as a tree when it ends."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.record import Record
from whyops_trace.tree import build, write_tree

#: Traces that are held until they end, at most.
MAX_TRACES: Final = 1_000
#: Bytes of their records, at most.
MAX_BYTES: Final = 50_000_000


class _Held:
    """The records so far of a trace that has not ended."""

    __slots__ = ("lines", "process", "size")

    def __init__(self, process: str) -> None:
        self.process = process
        self.lines: list[bytes] = []
        self.size = 0


class ConsoleExporter(Exporter):
    """
    Holds the records of each trace until it ends and then prints it.

    A trace that never ends, as one recorded on by hand does not, is printed on :meth:`close`, or when its
    process is known to be gone. When there are too many, or too large ones, the trace that began first is
    forgotten.

    Args:
        stream: Where to print; standard error, as it is at that moment, if None.
    """

    name = "console"
    ephemeral = True

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._start_over()

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._size = 0

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """Hold the records and print the traces they finish; what is no record is rejected."""
        if self._process != os.getpid():  # what was held at the fork is the parent's to print
            self._start_over()
        return [self._take(record) for record in batch.records]

    def process_ended(self, process: str) -> None:
        """Print what the process left unfinished."""
        for trace_id in [trace_id for trace_id, held in self._held.items() if held.process == process]:
            self._print(trace_id, lambda recorded_by: recorded_by == process)

    def close(self) -> None:
        """Print the traces that did not end."""
        for trace_id in list(self._held) if self._process == os.getpid() else ():
            self._print(trace_id)

    def _take(self, record: Record) -> Outcome:
        try:
            trace_id = record.trace_id
        except ValueError:
            return Outcome.REJECTED
        held = self._held.get(trace_id) or self._held.setdefault(trace_id, _Held(record.process))
        held.process = record.process
        held.lines.append(record.raw)
        held.size += len(record.raw)
        self._size += len(record.raw)
        if record.ends_trace:
            self._print(trace_id)
        while len(self._held) > MAX_TRACES or self._size > MAX_BYTES:
            self._forget()
        return Outcome.DELIVERED

    def _print(self, trace_id: str, ended: Callable[[str], bool] = lambda _: False) -> None:
        held = self._held.pop(trace_id)
        self._size -= held.size
        stream = self._stream or sys.stderr
        if stream is None:
            return
        events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in held.lines]
        try:
            write_tree(build(events, ended), stream)
            stream.flush()
        except (OSError, ValueError) as error:  # the terminal is gone, or the stream closed
            warn_once("console: cannot print", "Cannot print traces to the console: %s", error)

    def _forget(self) -> None:
        trace_id, held = self._held.popitem(last=False)
        self._size -= held.size
        warn_once(
            "console: too many traces",
            "More than %d traces (or %d MB) have not ended; the console forgets the oldest, first %r.",
            MAX_TRACES,
            MAX_BYTES // 1_000_000,
            trace_id,
        )
