"""What the failures of many traces have in common."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from traces import Record, Story

from whyops_trace import step, trace, traced_llm, traced_tool
from whyops_trace._reading.summary import TraceSummary
from whyops_trace.patterns import SLICES, Pattern, gather_patterns
from whyops_trace.testing import capture_events


@traced_tool
def refund(order: int, fee: float) -> dict[str, Any]:
    """Pay a fee back, but for orders that are not there and fees that are too high."""
    if not order:
        return {"success": False, "message": "no such order"}
    if fee > 12.9:
        raise ValueError(f"order {order}: {fee} exceeds the fee of 'express'")
    return {"refunded": fee}


def patterns(*runs: Callable[[], object]) -> list[Pattern]:
    """Run each in a trace of its own, an hour after the other, and return the patterns of their failures."""
    records: dict[str, list[Record]] = defaultdict(list)
    for number, run in enumerate(runs):
        with capture_events() as events, contextlib.suppress(Exception), trace(f"trace-{number}"):
            run()
        records[f"trace-{number}"] = events
    traces = [
        TraceSummary(name, started_at=f"2026-11-30T{hour:02}:00:00.000Z", errors=1)
        for hour, name in enumerate(records)
    ]
    return gather_patterns(traces, records.__getitem__)


def tried(*calls: tuple[int, float]) -> Callable[[], object]:
    """Return a run that makes these calls in a step."""

    def run() -> None:
        with step("pay"):
            for order, fee in calls:
                with contextlib.suppress(ValueError):
                    refund(order, fee)

    return run


def test_failures_in_the_same_place_and_words_are_one_pattern() -> None:
    """Numbers, ids and quoted texts differ from one failure to the next, and tell nothing apart."""
    first, second = patterns(tried((8841, 129.0)), tried((8842, 49.5), (0, 1.0)), tried((8843, 12.9)))

    assert (first.kind, first.place, first.traces, first.failures) == ("raised", "pay > refund", 2, 2)
    assert first.words == "ValueError: order 8842: 49.5 exceeds the fee of 'express'"
    assert (second.kind, second.place, second.words) == ("said", "pay > refund", "no such order")


def test_a_pattern_names_its_latest_trace_and_its_time() -> None:
    """A reader goes to the latest example, and sees whether it still happens."""
    (one,) = patterns(tried((1, 129.0)), tried((2, 129.0)), *[tried((3, 1.0))] * 6, tried((4, 129.0)))

    assert (one.example, one.step) == ("trace-8", 2)
    assert (one.first_at, one.last_at) == ("2026-11-30T00:00:00.000Z", "2026-11-30T08:00:00.000Z")
    assert one.trend == [2, 0, 0, 0, 0, 0, 0, 1]
    assert len(one.trend) == SLICES


def test_calls_that_were_tried_again_with_success_are_counted() -> None:
    """What recovers is less bad than what does not."""
    (one,) = patterns(tried((1, 129.0), (1, 12.9)), tried((2, 129.0)))

    assert (one.failures, one.recovered) == (2, 1)


def test_models_that_fail_and_findings_are_patterns_as_well() -> None:
    """A model that is down, and a call without a response, each count under their names."""

    @traced_llm(model="gpt-4o", provider="openai")
    def ask(question: str) -> str:
        raise TimeoutError("no answer after 30 s")

    story = Story("cut")
    story.request("charge_card")
    found = patterns(lambda: ask("Hello?"), lambda: ask("Hello again?"))
    cut = gather_patterns([TraceSummary("cut")], lambda _: story.records)

    assert [(one.kind, one.place, one.words, one.traces) for one in found] == [
        ("model", "ask", "TimeoutError: no answer after 30 s", 2)
    ]
    assert [(one.kind, one.place, one.step) for one in cut] == [("finding", "MISSING_TOOL_CALL_RESPONSE", 1)]


def test_a_failure_that_calls_around_it_pass_on_counts_once() -> None:
    """A tool that calls another one and lets its error through did not fail itself."""

    @traced_tool
    def pay(order: int) -> None:
        refund(order, 129.0)

    found = patterns(lambda: pay(1))

    assert [(one.place, one.failures) for one in found] == [("pay > refund", 1)]


def test_traces_without_a_failure_have_no_pattern() -> None:
    """Neither do no traces at all."""
    assert patterns(tried((1, 1.0))) == []
    assert patterns() == []
