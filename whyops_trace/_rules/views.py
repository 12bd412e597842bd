"""The records of a trace in the order in which rules look at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from whyops_trace._reading.record import StoredRecord


def views(events: Iterable[Mapping[str, Any]]) -> list[StoredRecord]:
    """Return the records of a trace in the order in which a WhyOps server reads them: by time, then by step."""
    return sorted(map(StoredRecord.of, events), key=lambda record: record.order)
