"""Prints each trace as a tree when it ends."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._reading.score import SCORE
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.record import Record
from whyops_trace.tree import build, write_tree

#: Largest number of traces that are held until they end.
MAX_TRACES: Final = 1_000
#: Largest number of bytes of their records.
MAX_BYTES: Final = 50_000_000


class _OpenTrace:
    """The records so far of a trace that has not ended."""

    __slots__ = ("lines", "process", "size")

    def __init__(self, process: str) -> None:
        self.process = process
        self.lines: list[bytes] = []
        self.size = 0


class ConsoleExporter(Exporter):
    """
    Holds the records of each trace until the trace ends, and then prints it.

    A trace that never ends, such as one recorded by hand, is printed on :meth:`close`, or when its process is known to
    be gone. If there are too many traces or bytes, the trace that began first is forgotten.

    Args:
        stream: The stream to print to; None is standard error as it is at that moment.
    """

    name = "console"
    ephemeral = True

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._start_over()

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._traces: OrderedDict[str, _OpenTrace] = OrderedDict()
        self._size = 0

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """Hold the records and print the traces that they finish. A line that is no record is rejected."""
        if self._process != os.getpid():  # the parent of the fork prints the traces it held then
            self._start_over()
        return [self._take(record) for record in batch.records]

    def process_ended(self, process: str) -> None:
        """Print the traces that the process left unfinished."""
        for trace_id in [trace_id for trace_id, trace in self._traces.items() if trace.process == process]:
            self._print(trace_id, lambda recorded_by: recorded_by == process)

    def close(self) -> None:
        """Print the traces that did not end."""
        for trace_id in list(self._traces) if self._process == os.getpid() else ():
            self._print(trace_id)

    def _take(self, record: Record) -> Outcome:
        try:
            trace_id = record.trace_id
        except ValueError:
            return Outcome.REJECTED
        if record.type == SCORE:  # it may come long after its trace was printed
            return Outcome.DELIVERED
        trace = self._traces.get(trace_id) or self._traces.setdefault(trace_id, _OpenTrace(record.process))
        trace.process = record.process
        trace.lines.append(record.raw)
        trace.size += len(record.raw)
        self._size += len(record.raw)
        if record.ends_trace:
            self._print(trace_id)
        while len(self._traces) > MAX_TRACES or self._size > MAX_BYTES:
            self._forget()
        return Outcome.DELIVERED

    def _print(self, trace_id: str, ended: Callable[[str], bool] = lambda _: False) -> None:
        trace = self._traces.pop(trace_id)
        self._size -= trace.size
        stream = self._stream or sys.stderr
        if stream is None:
            return
        events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in trace.lines]
        try:
            write_tree(build(events, ended), stream)
            stream.flush()
        except (OSError, ValueError) as error:  # the terminal is gone, or the stream closed
            warn_once("console: cannot print", "Cannot print traces to the console: %s", error)

    def _forget(self) -> None:
        trace_id, trace = self._traces.popitem(last=False)
        self._size -= trace.size
        warn_once(
            "console: too many traces",
            "More than %d traces (or %d MB) have not ended; the console forgets the oldest, first %r.",
            MAX_TRACES,
            MAX_BYTES // 1_000_000,
            trace_id,
        )
