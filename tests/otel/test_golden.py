"""What frameworks really sent of a run, kept in files, and what is read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs.compared import Stored, compare
from runs.told import Told

from whyops_trace._otel.events import agent_of, events_of
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.span import Batch, read_json
from whyops_trace._otel.trace import read_trace
from whyops_trace._values.processor import Processor
from whyops_trace.settings import MAX_EVENT_BYTES

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


def records_of(batch: Batch) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each trace."""
    processor = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
    for trace_id in {span.trace_id: None for span in batch.spans}:
        spans = [span for span in batch.spans if span.trace_id == trace_id]
        roots = read_trace(spans, [log for log in batch.logs if log.trace_id == trace_id])
        lines = lines_of(trace_id, agent_of(roots), events_of(roots, ended=True), processor)
        yield [json.loads(line) for line in lines]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_framework_sent_is_what_its_objects_tell(file: Path) -> None:
    """Turns, tools and agents once each, with arguments, results, ids, tokens, failures, and who asked for what."""
    golden = json.loads(file.read_bytes())
    batch = read_json(file.read_bytes())

    score = compare(Told.of(golden["told"]), Stored(records_of(batch)))

    assert score.missed == []
    assert score.told["tokens"] > 0
