"""The scores in a store: which counts, which go with their trace, which traces they choose."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import Process, encoded, tool_request

from whyops_trace.exceptions import InvalidEventError
from whyops_trace.stats import ScoreFigures, gather
from whyops_trace.store import Filter, Score, ScoreTest, Store
from whyops_trace.testing import ManualClock

TOKEN = "9f2c41aa01be"
DAY = 86_400.0


@pytest.fixture
def clock() -> ManualClock:
    """Time of the store."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store of its own."""
    store = Store(tmp_path / "home" / "traces.db", clock=clock)
    yield store
    store.close()


def add(store: Store, *traces: str) -> None:
    """Store a trace of one event for each id."""
    for trace in traces:
        store.ingest((TOKEN, [encoded(tool_request(Process(trace=trace), 1))]))


def line(trace: str = "a", step: int = 0, at: float = 0, **content: Any) -> bytes:
    """Return the record of a score."""
    return Process(trace=trace).line("score", step, at=at, content=content)


def names(store: Store, trace: str = "a") -> list[str]:
    return [score.line for score in store.scores(trace)]


def chosen(store: Store, *tests: str) -> list[str]:
    """Return the traces that meet all conditions on scores."""
    where = Filter(scores=[ScoreTest.of(test) for test in tests])
    return sorted(trace.trace_id for trace in store.traces(where=where))


def test_a_score_that_comes_twice_or_late_changes_nothing(store: Store) -> None:
    """A batch may come again, and an older score wait in the journal of another process."""
    new, old = line(at=1_000, name="n", value=1), line(name="n", value=0.5)

    assert store.ingest((TOKEN, [new])) == [True]
    assert store.ingest((TOKEN, [new, old])) == [True, True]
    assert names(store) == ["n: 1"]


def test_a_score_is_given_by_hand(store: Store, clock: ManualClock) -> None:
    """As the command and the page do; secrets are hidden."""
    score = store.score("a", "correct", 0.5, comment="api_key=sk-hunter2hunter2", step=3, source="page")
    clock.advance(1)

    assert score == Score(
        name="correct",
        value=0.5,
        comment="api_key=[redacted]",
        step=3,
        source="page",
        time="2026-01-01T00:00:00.000Z",
    )
    assert store.scores("a") == [score]
    assert store.score("a", "correct", "no", step=3).line == "correct: no"
    assert names(store) == ["correct: no"]
    with pytest.raises(InvalidEventError, match="step is -1"):
        store.score("a", "correct", 1, step=-1)


def test_a_score_is_removed(store: Store) -> None:
    """That of its step, and only that."""
    assert not store.remove_score("a", "n")

    store.score("a", "n", 1)
    store.score("a", "n", 2, step=1)

    assert store.remove_score("a", "n", 1)
    assert not store.remove_score("a", "n", 1)
    assert names(store) == ["n: 1"]


def test_what_holds_no_score_is_no_score(store: Store) -> None:
    """A processor of the program's own may leave anything; a line that is none is refused."""
    kept = [line(name=7, value=1), line(name="n"), line(name="n", value="x"), line(name="n", value=[1])]
    lines = [*kept, b'{"eventType":"score",', b'{"eventType":"score","traceId":"\xff"}']

    assert store.ingest((TOKEN, lines)) == [True] * 4 + [False] * 2
    assert store.scores("a") == []


def test_a_number_beyond_all_bounds_costs_only_its_score(store: Store) -> None:
    """What a program's own processor, or a damaged journal, leaves does not harm the store."""
    add(store, "a")

    assert store.ingest((TOKEN, [line(name="n", value=10**400), line(name="m", value=2**63)])) == [True] * 2
    assert names(store) == ["m: 9.22337e+18"]
    assert store.trace("a").event_count == 1


def test_a_record_of_a_score_is_kept_within_bounds(store: Store) -> None:
    """Whoever wrote it: what is too long is cut."""
    store.ingest((TOKEN, [line(name="n" * 9_000, label="l" * 9_000, comment="c" * 90_000)]))
    (score,) = store.scores("a")

    assert (len(score.name), len(score.label), len(score.comment)) == (255, 255, 10_000)


@pytest.mark.parametrize(
    "time", ["", "soon", "zzz", "9" * 40, "2026-13-45T99:99:99.000Z", "12026-01-01T00:00:00Z"]
)
def test_a_time_that_is_none_stays_behind_every_other(store: Store, time: str) -> None:
    """A later score would never take the place of one from the end of days."""
    odd = json.loads(line(name="n", value=1)) | {"timestamp": time}
    store.ingest((TOKEN, [json.dumps(odd, separators=(",", ":")).encode()]))
    store.ingest((TOKEN, [line(name="n", value=2)]))

    assert names(store) == ["n: 2"]


def test_a_score_of_another_program_may_have_a_value_and_a_label(store: Store) -> None:
    """As evaluations of OpenTelemetry have."""
    store.ingest((TOKEN, [line(name="relevance", value=0.75, label="good", comment="On topic.")]))

    assert names(store) == ["relevance: 0.75 (good) - On topic."]


def test_scores_are_in_the_summary_of_their_trace(store: Store) -> None:
    """Those of the trace first; of very many the first hundred."""
    add(store, "a", "b")
    store.score("a", "on a step", True, step=1)
    store.score("a", "whole", "fine")
    for number in range(1, 102):
        store.score("b", "n", number, step=number)

    assert [score.line for score in store.trace("a").scores] == ["whole: fine", "on a step: up"]
    assert store.trace("a").scores == store.scores("a")
    assert [score.step for score in store.trace("b").scores] == list(range(1, 101))


@pytest.mark.parametrize(
    ("tests", "traces"),
    [
        (["correct"], ["a", "b", "c"]),
        (["correct<0.5"], ["a"]),
        (["correct<=0.5"], ["a", "b"]),
        (["correct > 0.25"], ["b"]),
        (["correct>=0.25"], ["a", "b"]),
        (["correct=0.5"], ["b"]),
        (["correct=wrong"], ["c"]),
        (["correct=42"], []),
        (["helpful=up"], ["a"]),
        (["helpful=down"], ["b"]),
        (["helpful>0"], ["a"]),
        (["year=2026"], ["a"]),
        (["correct", "helpful=down"], ["b"]),
        (["nothing"], []),
        (["it's a name"], ["c"]),
    ],
)
def test_traces_are_chosen_by_their_scores(store: Store, tests: list[str], traces: list[str]) -> None:
    """By a number, a thumb or a label, of the trace or of one of its steps; all conditions have to hold."""
    add(store, "a", "b", "c", "d")
    store.score("a", "correct", 0.25, step=1)
    store.score("b", "correct", 0.5)
    store.score("c", "correct", "wrong")
    store.score("a", "helpful", True)
    store.score("b", "helpful", False)
    store.score("a", "year", "2026")
    store.score("c", "it's a name", 1)

    assert chosen(store, *tests) == traces
    assert store.counts(Filter(scores=[ScoreTest.of(test) for test in tests])).total == len(traces)


@pytest.mark.parametrize("text", ["", " ", "<1", "=x", "correct<", "correct<wrong", "correct=", "a<=b"])
def test_what_is_no_condition_says_how_to_write_one(text: str) -> None:
    """A name alone, a name and a number, or a name and a label."""
    with pytest.raises(ValueError, match=r"is no condition on a score|compares with"):
        ScoreTest.of(text)


def test_a_score_goes_with_its_trace(store: Store) -> None:
    """However that is deleted, and no other one does."""
    add(store, "a", "b", "c")
    for trace in "abc":
        store.score(trace, "n", 1)
    store.score("stray", "n", 1)
    store.delete("a")

    assert store.erase(["b", "stray"]) == 1
    assert [names(store, trace) for trace in ("a", "b", "stray", "c")] == [[], [], [], ["n: 1"]]


def test_a_score_without_its_trace_waits_as_long_as_a_trace_is_kept(store: Store, clock: ManualClock) -> None:
    """The trace may be on its way; and a score never keeps a trace longer."""
    add(store, "old")
    store.score("old", "n", 1)
    store.score("stray", "n", 1)
    clock.advance(5 * DAY)
    add(store, "new")
    store.score("new", "n", 1)
    store.score("old", "late", 1)
    store.score("young stray", "n", 1)
    clock.advance(3 * DAY)
    add(store, "newest")
    clock.advance(2 * DAY)
    store.prune()

    assert store.known(["old", "new"]) == {"new"}
    assert [names(store, trace) for trace in ("old", "stray", "new", "young stray")] == [
        [], [], ["n: 1"], ["n: 1"],
    ]  # fmt: skip


def test_scores_without_a_trace_are_the_first_to_go_for_room(store: Store) -> None:
    """They cannot be shown."""
    add(store, "a")
    store.score("a", "n", 1)
    for number in range(300):
        store.score(f"stray {number}", "n", comment="x" * 1_000)
    store.prune(max_bytes=150_000)

    assert store.used_bytes() < 150_000
    assert (names(store), names(store, "stray 1")) == (["n: 1"], [])


def test_the_names_of_scores_are_told_by_their_number(store: Store) -> None:
    """For a list to choose from."""
    for trace in "ab":
        store.score(trace, "often", 1)
    store.score("a", "rare", 1)

    assert store.score_names() == ["often", "rare"]


def test_figures_tell_means_and_labels(store: Store) -> None:
    """A thumb counts as 1 or 0, so that the mean is the share of those that are up."""
    add(store, "a", "b", "c")
    for trace, value in (("a", True), ("b", True), ("c", False)):
        store.score(trace, "helpful", value)
        store.score(trace, "tone", "rude" if value else "polite")
    store.score("a", "note", comment="x")
    store.score("a", "correct", 0.25)
    store.score("a", "correct", 0.75, step=1)

    assert gather(store, store.each()).scores == [
        ScoreFigures("helpful", 3, 2 / 3, {}),
        ScoreFigures("tone", 3, None, {"rude": 2, "polite": 1}),
        ScoreFigures("correct", 2, 0.5, {}),
        ScoreFigures("note", 1, None, {}),
    ]


def test_a_store_of_format_9_is_brought_up_to_date(store: Store) -> None:
    """It knew no scores, and keeps its traces."""
    add(store, "a")
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("DROP TABLE scores")
        connection.execute("PRAGMA user_version = 9")
    summary = store.trace("a")
    store.score("a", "n", 1)

    assert summary.scores == []
    assert names(store) == ["n: 1"]


def test_a_store_that_does_not_exist_has_no_scores(store: Store) -> None:
    """Reading makes no file."""
    assert (store.scores("a"), store.score_names(), store.path.exists()) == ([], [], False)
