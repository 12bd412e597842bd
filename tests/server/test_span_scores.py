"""Scores that spans and log records tell of, in the store."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import served
from spans import START, TRACE, happened, span, tool, turn

from whyops_trace._otel.span import Batch, LogRecord, Span, checked_log
from whyops_trace._values.processor import Processor
from whyops_trace.server.inbox import KEPT, Inbox
from whyops_trace.server.joining import SWEEP, Joiner
from whyops_trace.settings import MAX_EVENT_BYTES
from whyops_trace.store import Store

EVENT = "gen_ai.evaluation.result"
#: The identity of the span that is judged in most tests, and of the answer of the turn in it.
ANSWER = "chatcmpl-7"


class Home:
    """
    A home that spans come to, with a clock.

    Attributes:
        now: The time, in seconds since the epoch.
        store: Its store.
    """

    def __init__(self, path: Path) -> None:
        self.now = 1_800_000_000.0
        self.store = Store(path / "traces.db")
        processor = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
        self._inbox = Inbox(path, processor, lambda: self.now)
        self._joiner = Joiner(self._inbox, self.store, processor, now=lambda: self.now)

    def take(self, *items: Span | LogRecord) -> None:
        """Store what a request brings."""
        spans = [item for item in items if isinstance(item, Span)]
        logs = [item for item in items if isinstance(item, LogRecord)]
        self._joiner.arrived(self._inbox.add(Batch(spans, logs)))

    def wait(self, seconds: float) -> None:
        """Let time pass, and do what is due then."""
        self.now += seconds
        self._joiner.join_due()

    def scores(self) -> list[tuple[str, str, int]]:
        """Return name, judgement and step of each score."""
        return [(score.name, score.line, score.step) for score in self.store.scores(TRACE)]

    def close(self) -> None:
        """Close its files."""
        self._inbox.close()
        self.store.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of its own."""
    home = Home(tmp_path)
    yield home
    home.close()


def agent(**about: Any) -> Span:
    """Return the span of an agent that nothing is around."""
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"}
    return span("invoke_agent guide", took=100, attributes=attributes, **about)


def result(name: str = "correct", **about: Any) -> dict[str, Any]:
    """Return the attributes of a result, those of a score by their last part."""
    names = {"value": "score.value", "label": "score.label", "explanation": "explanation"}
    return {
        "gen_ai.evaluation.name": name,
        **{f"gen_ai.evaluation.{names[key]}": value for key, value in about.items()},
    }


def log(span_id: str, about: dict[str, Any]) -> LogRecord:
    """Return the log record of a result."""
    return checked_log(LogRecord(TRACE, span_id, EVENT, START + 5_000_000, about, None))


def test_an_event_on_a_span_scores_its_step(home: Home) -> None:
    """With its value and the reason; one on the span around everything scores the trace."""
    root = agent(events=[happened(EVENT, **result("tone", label="polite"))])
    answer = turn(root, at=1, events=[happened(EVENT, **result(value=0.5, explanation="The wrong week."))])
    home.take(root, answer)

    assert home.scores() == [("tone", "tone: polite", 0), ("correct", "correct: 0.5 - The wrong week.", 2)]
    assert home.store.scores(TRACE)[0].source == "otel"


def test_a_log_record_scores_the_span_or_the_answer_that_it_names(home: Home) -> None:
    """By the span's id, by the id of the response where there is no span, or the trace as a whole."""
    root = agent()
    answer, used = turn(root, at=1, id=ANSWER), tool(root, at=20)
    home.take(
        root,
        answer,
        used,
        log(used.span_id, result("fit", value=1)),
        log("", {**result("grounded", value=0.25), "gen_ai.response.id": ANSWER}),
        log("0" * 16, result("solved", value=1.0, label="true")),
    )

    assert home.scores() == [
        ("solved", "solved: up", 0),
        ("grounded", "grounded: 0.25", 2),
        ("fit", "fit: 1", 4),
    ]


def test_annotations_of_openinference_are_scores(home: Home) -> None:
    """Under both of their names, of a span and of its trace."""
    told = {
        "annotations.0.annotation.name": "helpful",
        "annotations.0.annotation.score": 0.75,
        "annotations.0.annotation.label": "yes",
        "annotations.1.annotation.name": "says nothing",
        "evaluations.0.evaluation.name": "toxic",
        "evaluations.0.evaluation.score": 0,
        "trace.annotations.0.annotation.name": "solved",
        "trace.annotations.0.annotation.label": "no",
        "trace.annotations.0.annotation.explanation": "No refund.",
    }
    root = agent()
    home.take(root, turn(root, at=1, attributes=told))

    assert home.scores() == [
        ("solved", "solved: no - No refund.", 0),
        ("helpful", "helpful: 0.75 (yes)", 2),
        ("toxic", "toxic: 0", 2),
    ]


def test_a_span_that_stands_for_a_score_is_no_step(home: Home) -> None:
    """It scores what it is in, and is nothing that happened; what a judge asks a model is."""
    root = agent()
    answer = turn(root, at=1)
    scored = span("score correct", answer, at=30, took=0, attributes=result(value=1.0, label="true"))
    judge = span("judge", root, at=40, attributes=result("solved", value=0.5))
    home.take(root, answer, scored, judge, turn(judge, at=41))
    kinds = [event["eventType"] for event in home.store.events(TRACE)]

    assert home.scores() == [("solved", "solved: 0.5", 0), ("correct", "correct: up", 2)]
    assert (kinds.count("llm_thinking"), kinds.count("user_message")) == (1, 2)


@pytest.mark.parametrize(
    "about",
    [
        {},
        result(""),
        result("nothing said"),
        result(value="0.5"),
        result(value=float("nan")),
        {"gen_ai.evaluation.name": ["a"], "gen_ai.evaluation.score.value": 1},
    ],
)
def test_a_result_without_a_name_or_a_judgement_is_none(home: Home, about: dict[str, Any]) -> None:
    """A value of another type is none; the trace is there all the same."""
    root = agent()
    home.take(root, log(root.span_id, about))

    assert home.store.trace(TRACE).scores == []


def test_a_result_of_what_is_not_there_scores_the_trace_until_it_is(home: Home) -> None:
    """Its span may come later; what was said of the trace meanwhile is not said of it then."""
    root = agent()
    answer = turn(root, at=1)
    home.take(root, log(answer.span_id, result(value=0.5)))
    before = home.scores()
    home.take(answer)

    assert (before, home.scores()) == ([("correct", "correct: 0.5", 0)], [("correct", "correct: 0.5", 2)])


def test_results_may_come_before_all_spans(home: Home) -> None:
    """There is no trace to see then; its spans bring it, with the scores."""
    root = agent()
    home.take(log(root.span_id, result(value=0.5)))
    before = home.store.known([TRACE])
    home.take(root)

    assert (before, home.scores()) == (set(), [("correct", "correct: 0.5", 0)])


def test_a_result_may_come_when_the_spans_are_not_kept_any_more(home: Home) -> None:
    """An evaluation of the day after finds its step in the store, and changes nothing else of the trace."""
    root = agent()
    answer = turn(root, at=1, id=ANSWER)
    home.take(root, answer)
    home.wait(KEPT + SWEEP)
    before = home.store.events(TRACE)
    home.take(log(answer.span_id, result(value=0.5)))
    home.take(log("", {**result("grounded", value=1), "gen_ai.response.id": ANSWER}))

    assert home.scores() == [("correct", "correct: 0.5", 2), ("grounded", "grounded: 1", 2)]
    assert home.store.events(TRACE) == before


def test_a_damaged_trace_holds_up_no_other_one(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """More of it cannot be stored any more, which is said; what comes in the same request for others is stored."""
    root = agent()
    home.take(root)
    home.wait(KEPT + SWEEP)
    home.store.close()
    with contextlib.closing(sqlite3.connect(home.store.path)) as connection, connection:
        connection.execute("UPDATE records SET line = '[1'")
    home.take(log(root.span_id, result(value=0.5)), agent(trace="f" * 32))

    assert len(home.store.events("f" * 32)) > 0
    assert [f"A record of the trace '{TRACE}'" in record.message for record in caplog.records] == [True]


def test_a_result_for_a_deleted_trace_brings_nothing_back(home: Home) -> None:
    """Whoever deleted it wants nothing of it."""
    root = agent()
    home.take(root)
    home.wait(KEPT + SWEEP)
    home.store.delete(TRACE)
    home.take(log(root.span_id, result(value=0.5)))

    assert (home.store.known([TRACE]), home.store.scores(TRACE)) == (set(), [])


def test_the_scores_of_people_stay_when_more_of_a_trace_comes(home: Home) -> None:
    """A trace is written anew with its new spans; what was said of it is not."""
    root = agent()
    home.take(root)
    home.store.score(TRACE, "helpful", True, source="page")
    home.take(turn(root, at=1))

    assert home.scores() == [("helpful", "helpful: up", 0)]


def test_the_receiver_takes_results_as_log_records(tmp_path: Path) -> None:
    """Over HTTP; one without a trace is refused with the reason."""
    root = agent()
    about = [
        {"key": "gen_ai.evaluation.name", "value": {"stringValue": "correct"}},
        {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.25}},
    ]
    told = {"eventName": EVENT, "timeUnixNano": str(START), "attributes": about}
    told_of = {**told, "traceId": TRACE, "spanId": root.span_id}
    spans = {
        "traceId": TRACE,
        "spanId": root.span_id,
        "name": "invoke_agent guide",
        "startTimeUnixNano": str(root.start_ns),
        "endTimeUnixNano": str(root.end_ns),
    }
    with served(tmp_path) as url, httpx.Client(base_url=url) as client:
        client.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": [spans]}]}]})
        answer = client.post(
            "/v1/logs", json={"resourceLogs": [{"scopeLogs": [{"logRecords": [told, told_of]}]}]}
        )
    store = Store(tmp_path / "traces.db")
    scores = [score.line for score in store.scores(TRACE)]
    store.close()

    assert json.loads(answer.content)["partialSuccess"]["rejectedLogRecords"] == "1"
    assert scores == ["correct: 0.25"]
