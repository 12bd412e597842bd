"""``whyops-trace diff``: what it prints of two traces, and its exit code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lines import encoded
from traces import Record, Story, call

from whyops_trace.cli import main
from whyops_trace.store import Store

Diff = Callable[..., Result]


def run(trace: str, amount: float, error: str = "", **request: Any) -> list[Record]:
    """Return a trace of two turns, with a refund between them."""
    story = Story(trace)
    story.ask("My parcel came late.", **request)
    story.answer(calls=[call("refund", json.dumps({"amount": amount}))])
    results = {"error": {"type": "ValueError", "message": error}} if error else {"refunded": amount}
    story.tool("refund", {"amount": amount}, results)
    story.ask({"role": "user", "content": "And now?"})
    story.answer("It is refunded." if not error else "I could not refund it.")
    return story.records


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    """Runs the command in this process, over three traces."""
    store = Store(tmp_path / "traces.db")
    runs = [
        run("late-1", 129.0, "it exceeds the fee"),
        run("late-2", 12.9),
        *(run(day, 12.9, metadata={"systemPrompt": f"It is {day}."}) for day in ("monday", "tuesday")),
    ]
    for number, records in enumerate(runs):
        for record in records:
            record["idempotencyKey"] += str(number)
        store.ingest(("9f2c41aa01be", [encoded(record) for record in records]))
    store.process_ended("9f2c41aa01be")
    store.close()
    return lambda *arguments: CliRunner().invoke(main, ["diff", *arguments, "--home", str(tmp_path)])


def test_the_first_difference_is_printed_with_both_sides(diff: Diff) -> None:
    """Both traces in a line each, how long they are the same, what differs, and how each ended."""
    lines = [line.rstrip() for line in diff("late-1", "late-2").output.splitlines()]

    assert [line.split()[:2] for line in lines[:2]] == [["A", "late-1"], ["B", "late-2"]]
    assert lines[2:] == [
        "",
        "They differ from the beginning.",
        "In turn 1, given the same, the model decides otherwise:",
        "  A  refund(amount=129.0)  #2",
        "  B  refund(amount=12.9)  #2",
        "     amount: 129.0 → 12.9",
        "Only A then calls refund(amount=129.0)",
        "Only B then calls refund(amount=12.9)",
        "A ended: I could not refund it.",
        "B ended: It is refunded.",
    ]


def test_a_change_of_a_whole_text_has_no_name(tmp_path: Path) -> None:
    """Its two sides are all there is to say."""
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        for name, result in (("one", "found"), ("other", "lost")):
            story = Story(name)
            story.tool("look", {}, {"result": result})
            store.ingest((name, [encoded(record) for record in story.records]))
    lines = CliRunner().invoke(main, ["diff", "one", "other", "--home", str(tmp_path)]).output.splitlines()

    assert '     "found" → "lost"' in [line.rstrip() for line in lines]


def test_traces_that_are_the_same_are_said_to_be(diff: Diff) -> None:
    """A trace is the same as itself."""
    result = diff("late-2", "late-2", "--exit-code")

    assert result.output.splitlines()[-1] == "They are the same: 2 turns and 1 tool call."
    assert result.exit_code == 0


def test_texts_that_do_not_count_are_left_out(diff: Diff) -> None:
    """The prompts of two days differ, unless the day is told not to count."""
    assert "the system prompt is another one" in diff("monday", "tuesday").output
    assert "They are the same" in diff("monday", "tuesday", "--ignore", "(mon|tues)day").output


def test_the_exit_code_tells_of_a_difference_if_asked_for(diff: Diff) -> None:
    """A difference is no error, unless a test run wants it to be one."""
    assert diff("late-1", "late-2").exit_code == 0
    assert diff("late-1", "late-2", "--exit-code").exit_code == 1


def test_json_has_the_difference_and_both_traces(diff: Diff) -> None:
    """A program gets the same as a reader."""
    report = json.loads(diff("late-1", "late-2", "--json").output)

    assert (report["same"], report["sameTurns"], report["sameCalls"]) == (False, 0, 0)
    assert report["difference"] == {
        "kind": "decision",
        "text": "given the same, the model decides otherwise",
        "turn": 1,
        "steps": [2, 2],
        "sides": ["refund(amount=129.0)", "refund(amount=12.9)"],
        "changes": [{"path": "amount", "before": "129.0", "after": "12.9"}],
    }
    assert [(each["traceId"], each["failed"], each["onlyHere"]) for each in report["traces"]] == [
        ("late-1", 1, {"refund(amount=129.0)": 1}),
        ("late-2", 0, {"refund(amount=12.9)": 1}),
    ]


def test_mistakes_are_answered_with_what_to_do(diff: Diff) -> None:
    """A pattern that is none, a trace that is not there, and one trace alone."""
    assert "'(' is no regular expression" in diff("late-1", "late-2", "--ignore", "(").output
    assert "nothing" in diff("late-1", "nothing").output
    assert diff("late-1").exit_code == 2
