"""What frameworks really sent of a run, kept in files, and what is read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs.compared import Stored, compare
from runs.told import Told

from whyops_trace._models.stops import stop_of
from whyops_trace._otel.events import agent_of, events_of
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.span import Batch, read_json
from whyops_trace._otel.trace import read_trace
from whyops_trace._values.processor import Processor
from whyops_trace.analysis import findings
from whyops_trace.settings import MAX_EVENT_BYTES
from whyops_trace.story import moments, tell

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


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_line_about_a_run_is_the_call_that_failed(file: Path) -> None:
    """The refund that was refused explains the run; nothing that went as it should is named before it."""
    stories = [tell(records) for records in records_of(read_json(file.read_bytes()))]

    first = [moment.text for story in stories for moment in moments(story.whys)[:1]]

    assert len(first) == 1
    assert "refund" in first[0]
    assert "failed" in first[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_answer_of_a_run_is_shown_as_cut_off(file: Path) -> None:
    """All its turns ended with an answer, or for the results of tools."""
    stories = [tell(records) for records in records_of(read_json(file.read_bytes()))]
    reasons = {each.turn.finish_reason for story in stories for each in story.sections if each.turn}

    assert {stop_of(reason) for reason in reasons - {""}} <= {"complete", "tools"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_tool_is_missed_that_an_agent_or_a_last_answer_stands_for(file: Path) -> None:
    """What a framework runs as an agent, or takes as the answer, was called, for the story and for the findings."""
    traces = [list(records) for records in records_of(read_json(file.read_bytes()))]

    assert [why.text for records in traces for why in tell(records).whys if why.kind == "unanswered"] == []
    assert "TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS" not in {
        finding.code for records in traces for finding in findings(records)
    }
