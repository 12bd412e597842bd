"""Captured runs, and what of one is in spans that were read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runs.compared import Stored, compare
from runs.told import Told

from whyops_trace._otel.events import agent_of, events_of
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.span import Span
from whyops_trace._otel.trace import read_trace
from whyops_trace._values.processor import Processor
from whyops_trace.settings import MAX_EVENT_BYTES

GOLDEN = Path(__file__).parent / "otel" / "golden"


def records_of(spans: list[Span]) -> list[dict[str, Any]]:
    """Return the records of a trace that has ended."""
    processor = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
    roots = read_trace(spans, [])
    lines = lines_of(spans[0].trace_id, agent_of(roots), events_of(roots, ended=True), processor)
    return [json.loads(line) for line in lines]


def missed(name: str, spans: list[Span]) -> list[str]:
    """Return what of a run is not in its spans."""
    told = json.loads((GOLDEN / f"{name}.json").read_bytes())["told"]
    return compare(Told.of(told), Stored([records_of(spans)])).missed
