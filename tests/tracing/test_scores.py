"""Scores: what a program says of a trace or a step of it, then, later and elsewhere."""

from __future__ import annotations

import contextlib
import math
import re
import signal
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from programs import run_code
from serving import client

from whyops_trace import WhyOps, score, step, trace, traced_tool
from whyops_trace._reading.score import Score
from whyops_trace.exceptions import InvalidEventError
from whyops_trace.exporters.console import ConsoleExporter
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.store import Store
from whyops_trace.testing import capture_events
from whyops_trace.tree import build


@traced_tool
def find(city: str) -> str:
    return city


@pytest.fixture
def sdk(tmp_path: Path) -> Iterator[WhyOps]:
    """A client with a home of its own."""
    with WhyOps(home=tmp_path) as sdk:
        yield sdk


def scores(home: Path, trace_id: str) -> list[Score]:
    with contextlib.closing(Store(home / "traces.db")) as store:
        return store.scores(trace_id)


def told(home: Path, trace_id: str) -> list[tuple[int, str, Any, str, str]]:
    """Return each score of a trace: its step, name, value, label and comment."""
    return [(one.step, one.name, one.value, one.label, one.comment) for one in scores(home, trace_id)]


def test_a_score_is_a_thumb_a_number_a_label_or_a_note(sdk: WhyOps, tmp_path: Path) -> None:
    """A value keeps its kind, and a comment may stand alone."""
    session = sdk.trace("t")
    session.score("helpful", True)
    session.score("harmful", False, comment="Not at all.")
    session.score("correct", 1)
    session.score("exact", 0.25)
    session.score("tone", "polite")
    session.score("note", comment="Ask the shop.")
    sdk.flush_sync()

    assert told(tmp_path, "t") == [
        (0, "correct", 1.0, "", ""),
        (0, "exact", 0.25, "", ""),
        (0, "harmful", False, "", "Not at all."),
        (0, "helpful", True, "", ""),
        (0, "note", None, "", "Ask the shop."),
        (0, "tone", None, "polite", ""),
    ]


class Odd:
    """Something whose number cannot be had."""

    def __float__(self) -> float:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "stored"), [(Decimal("0.5"), 0.5), (Fraction(1, 4), 0.25), (2**60, float(2**60))]
)
def test_a_number_of_any_library_is_one(sdk: WhyOps, tmp_path: Path, value: Any, stored: float) -> None:
    """Evaluators return what their libraries have."""
    sdk.trace("t").score("correct", value)
    sdk.flush_sync()

    assert told(tmp_path, "t") == [(0, "correct", stored, "", "")]


def test_a_bool_of_numpy_is_a_thumb(sdk: WhyOps, tmp_path: Path) -> None:
    """It is what a comparison of arrays returns."""
    numpy = pytest.importorskip("numpy")
    session = sdk.trace("t")
    session.score("helpful", numpy.bool_(True))
    session.score("near", numpy.float32(0.5))
    sdk.flush_sync()

    assert told(tmp_path, "t") == [(0, "helpful", True, "", ""), (0, "near", 0.5, "", "")]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("",), {}, "name is ''"),
        ((7, 1), {}, "name is 7"),
        (("n" * 256, 1), {}, "name has 256 characters"),
        (("n",), {}, "neither a value nor a comment"),
        (
            ("n", math.nan),
            {},
            "value is float nan; it must be True or False, a finite number, or a short text",
        ),
        (("n", math.inf), {}, "value is float inf"),
        (("n", 10**400), {}, "value is int 1000"),
        (("n", [1]), {}, r"value is list \[1\]"),
        (("n", Odd()), {}, "value is Odd"),
        (("n", ""), {}, "value is ''"),
        (("n", "x" * 256), {}, "value has 256 characters"),
        (("n",), {"comment": 5}, "comment is 5"),
        (("n",), {"comment": "x" * 10_001}, "comment has 10001 characters"),
        (("n", 1), {"step": 0}, "step is 0"),
        (("n", 1), {"step": "3"}, "step is '3'"),
        (("n", 1), {"step": True}, "step is True"),
    ],
)
def test_what_is_no_score_is_refused_at_the_call(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    """The error says what is allowed; with no trace open it comes as well."""
    with pytest.raises(InvalidEventError, match=words), trace("t") as session:
        session.score(*arguments, **options)
    if "step" not in options:
        with pytest.raises(InvalidEventError, match=words):
            score(*arguments, **options)


def test_a_step_is_named_by_its_handle_or_its_number(sdk: WhyOps, tmp_path: Path) -> None:
    """A block, an open call, a span id and what an event method returns all tell their step."""
    with sdk.trace("t") as session:
        message = session.user_message_sync([{"role": "user", "content": "hi"}])
        with step("plan") as plan:
            session.score("block", 1, step=plan)
        call = session.start_tool_call("find", {"city": "Rome"})
        call.end("Rome")
        session.score("call", 1, step=call)
        session.score("number", 1, step=message)
    sdk.flush_sync()

    assert [(one.name, one.step) for one in scores(tmp_path, "t")] == [
        ("number", message), ("block", plan.step_id), ("call", call.step_id),
    ]  # fmt: skip


def test_the_open_trace_is_scored_without_a_handle(sdk: WhyOps, tmp_path: Path) -> None:
    """A tool or an evaluator deep inside does not know the trace."""

    @traced_tool
    def judge() -> None:
        score("correct", 0.5, comment="Half of it.")

    with sdk.trace("t"):
        judge()
    sdk.flush_sync()

    assert told(tmp_path, "t") == [(0, "correct", 0.5, "", "Half of it.")]


def test_a_score_outside_of_traces_says_how_to_name_one(caplog: pytest.LogCaptureFixture) -> None:
    """Once, and the program goes on."""
    score("helpful", True)
    score("helpful", True)

    assert caplog.text.count('trace("its id").score(...) names one') == 1


def test_a_score_is_no_event_of_its_trace(sdk: WhyOps, tmp_path: Path) -> None:
    """It begins no trace, takes no number and follows nothing; what comes after is as without it."""
    with sdk.trace("t") as session:
        session.score("first", 1)
        find("Rome")
        session.score("second", 1)
        find("Paris")
    sdk.flush_sync()
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        events, summary = store.events("t"), store.trace("t")

    assert [(event["stepId"], event.get("parentStepId")) for event in events if "end" not in event] == [
        (1, None), (2, 1), (3, 2), (4, 3),
    ]  # fmt: skip
    assert summary.event_count == 4
    assert [one.name for one in summary.scores] == ["first", "second"]


def test_the_latest_score_of_a_name_counts(sdk: WhyOps, tmp_path: Path) -> None:
    """On a step and on the trace as a whole apart."""
    session = sdk.trace("t")
    number = session.error_sync("x")
    for value in (0.1, 0.9):
        session.score("correct", value)
        session.score("correct", -value, step=number)
    session.score("correct", comment="Nobody knows.")
    sdk.flush_sync()

    assert told(tmp_path, "t") == [(0, "correct", None, "", "Nobody knows."), (1, "correct", -0.9, "", "")]


def test_another_process_scores_a_trace_by_its_id(tmp_path: Path) -> None:
    """Before the trace is there, and after it; the steps are those that are shown."""
    rate = "from whyops_trace import trace; trace('t').score({!r}, True, step={!r})"
    run_code(rate.format("early", None), home=tmp_path)
    early = told(tmp_path, "t")
    run_code("from whyops_trace import trace\nfor _ in 'ab': trace('t').error_sync('x')", home=tmp_path)
    run_code("from whyops_trace import trace\ntrace('t').error_sync('y')", home=tmp_path)
    run_code(rate.format("late", 3), home=tmp_path)
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        ids = store.known(["t"]), [event["stepId"] for event in store.events("t")]

    assert early == [(0, "early", True, "", "")]
    assert ids == ({"t"}, [1, 2, 3])
    assert told(tmp_path, "t") == [(0, "early", True, "", ""), (3, "late", True, "", "")]


def test_a_step_of_a_trace_that_came_back_is_the_right_one(tmp_path: Path) -> None:
    """A program counts from 1 again, and the store goes on where the trace had stopped."""
    turn = """
        from whyops_trace import trace
        with trace("t") as session:
            session.score("turn {0}", {0}, step=session.error_sync("x"))
            session.score("of it", "yes", step=99)
    """
    run_code(turn.format(1), home=tmp_path)
    run_code(turn.format(2), home=tmp_path)

    assert [(one.step, one.name) for one in scores(tmp_path, "t")] == [
        (1, "turn 1"), (2, "turn 2"), (99, "of it"),
    ]  # fmt: skip


def test_a_score_may_come_long_after_the_trace(sdk: WhyOps, caplog: pytest.LogCaptureFixture) -> None:
    """A person's thumb is no late event, which would be a mistake."""
    with sdk.trace("t") as session:
        find("Rome")
    session._state.ended_ms -= 1_000_000
    session.score("helpful", True)
    sdk.flush_sync()

    assert caplog.text == ""


def test_scores_survive_the_process(tmp_path: Path) -> None:
    """They are in the journal when the call returns."""
    done = run_code(
        f"""
        import os
        from whyops_trace import trace
        trace("t").score("helpful", False)
        os.kill(os.getpid(), {int(signal.SIGKILL)})
        """,
        home=tmp_path,
    )
    run_code(
        "from whyops_trace import trace, flush_sync\ntrace('u').error_sync('x')\nflush_sync()", home=tmp_path
    )

    assert done.returncode == -signal.SIGKILL
    assert told(tmp_path, "t") == [(0, "helpful", False, "", "")]


def test_a_forked_process_scores_the_trace_of_its_parent(tmp_path: Path) -> None:
    """Its step is the one that the parent took."""
    run_code(
        """
        import os
        from whyops_trace import trace, flush_sync
        session = trace("t")
        number = session.error_sync("x")
        if not os.fork():
            session.score("helpful", True, step=number)
            flush_sync()
            os._exit(0)
        os.wait()
        """,
        home=tmp_path,
    )

    assert told(tmp_path, "t") == [(1, "helpful", True, "", "")]


def test_no_server_sees_a_score(collector: Collector, tmp_path: Path) -> None:
    """It has no such event; the numbers of those it gets are as without one."""
    sdk = client(collector, tmp_path, store=True)
    with sdk.trace("t") as session:
        session.score("first", 1)
        find("Rome")
        session.score("helpful", True)
    ledger = sdk.close_sync()["whyops"]

    assert [(event["eventType"], event["stepId"]) for event in collector.stored] == [
        ("tool_call_request", 1), ("tool_call_response", 2),
    ]  # fmt: skip
    assert ledger.pending == ledger.rejected == ledger.dropped == 0
    assert [one.name for one in scores(tmp_path, "t")] == ["first", "helpful"]


def test_secrets_in_a_score_are_hidden(tmp_path: Path) -> None:
    """By their form, by the program's patterns, and by its own processor."""

    def without_names(values: Any) -> Any:
        if values["eventType"] == "score":
            values["content"]["comment"] = values["content"]["comment"].replace("Ada", "A.")
        return values

    with WhyOps(home=tmp_path, redact=[re.compile("order-[0-9]+")], before_record=without_names) as sdk:
        sdk.trace("t").score("n", 1, comment="Ada: order-77, password=hunter2hunter2")
        sdk.flush_sync()

    assert told(tmp_path, "t") == [(0, "n", 1.0, "", "A.: [redacted], password=[redacted]")]


def test_a_processor_may_drop_a_score(tmp_path: Path) -> None:
    """Nothing of it is stored, and it counts as delivered like any record that was emptied."""
    with WhyOps(home=tmp_path, before_record=lambda _: None) as sdk:
        sdk.trace("t").score("n", 1)
        tally = sdk.flush_sync()["local"]

    assert scores(tmp_path, "t") == []
    assert (tally.emitted, tally.delivered) == (1, 1)


def test_what_is_not_recorded_is_not_scored(tmp_path: Path) -> None:
    """Neither in a trace that is sampled out, nor on a step of one, nor while tracing is off."""
    memory = MemoryExporter()
    with WhyOps(home=tmp_path, exporters=[memory], store=False, sample_rate=0) as sdk:
        with sdk.trace("t") as session, step("plan") as plan:
            session.score("n", 1)
            session.score("n", 1, step=plan)
    with WhyOps(home=tmp_path, exporters=[memory], store=False, tracing=False) as sdk:
        sdk.trace("t").score("n", 1)

    assert memory.events == []


def test_other_destinations_get_scores_as_records(tmp_path: Path) -> None:
    """With the name, the value or label, and the comment."""
    memory = MemoryExporter()
    with WhyOps(home=tmp_path, exporters=[memory], store=False) as sdk:
        session = sdk.trace("t")
        number = session.error_sync("x")
        session.score("correct", 0.5, comment="Half.", step=number)
        session.score("tone", "rude")
    shown = [
        (event["stepId"], event["content"], event["for"])
        for event in memory.events
        if event["eventType"] == "score"
    ]

    assert shown == [
        (1, {"name": "correct", "value": 0.5, "comment": "Half."}, "local"),
        (0, {"name": "tone", "label": "rude"}, "local"),
    ]
    assert len(build(memory.events).nodes) == 1


def test_the_console_does_not_take_a_score_for_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that comes after the trace was printed would make another one."""
    with WhyOps(home=tmp_path, exporters=[ConsoleExporter()], store=False) as sdk:
        with sdk.trace("t") as session:
            find("Rome")
        sdk.flush_sync()
        session.score("helpful", True)

    assert capsys.readouterr().err.count("t ·") == 1


def test_tests_see_the_events_of_a_server_without_scores() -> None:
    """As all that stays on the machine."""
    with capture_events() as events, trace("t") as session:
        session.score("n", 1)
    with capture_events(local=True) as records, trace("t") as session:
        session.score("n", 1)

    assert events == []
    assert [record["eventType"] for record in records] == ["score"]
