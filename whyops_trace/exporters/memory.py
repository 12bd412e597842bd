"""Keeps records in a list, for tests and to look at the records of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from whyops_trace.exporters.base import Batch, Exporter, Outcome


class MemoryExporter(Exporter):
    """
    Keeps every record of this process, decoded. None is ever dropped.

    Attributes:
        events: The records, in the order they were made.
    """

    name = "memory"
    ephemeral = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """Append the records to :attr:`events`. A line that is not JSON is rejected."""
        outcomes = []
        for line in batch.lines:
            try:
                self.events.append(msgspec.json.decode(line, type=dict[str, Any]))
                outcomes.append(Outcome.DELIVERED)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                outcomes.append(Outcome.REJECTED)
        return outcomes
