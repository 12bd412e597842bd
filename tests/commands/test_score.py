"""``whyops-trace score``, and the scores that the other commands show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lines import Process, encoded, tool_request, tool_response

from whyops_trace.cli import main
from whyops_trace.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two traces."""
    store = Store(tmp_path / "home" / "traces.db")
    for trace in ("checkout-8841", "refund-1"):
        process = Process(trace=trace)
        store.ingest(
            ("9f2c41aa01be", [encoded(tool_request(process, 1)), encoded(tool_response(process, 2, 1))])
        )
    store.close()
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Runs a command on that home."""
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments), "--home", str(home)])


def test_a_score_is_given_and_shown(cli: Callable[..., Result]) -> None:
    """A thumb, a number, a label, and a note; on the trace and on a step."""
    cli("score", "checkout", "helpful", "up")
    cli(
        "score", "checkout", "correct", "0.5", "--step", 2, "--comment", "Wrong card, password=hunter2hunter2"
    )
    cli("score", "checkout", "tone", "polite")
    done = cli("score", "checkout", "note", "--comment", "Ask the bank.")

    assert (done.exit_code, done.output) == (
        0,
        "helpful: up\nnote - Ask the bank.\ntone: polite\n"
        "correct: 0.5 - Wrong card, password=[redacted]  #2\n",
    )  # fmt: skip
    assert cli("score", "checkout").output == done.output


@pytest.mark.parametrize("value", ["-1", "-0.25", "-2e+06"])
def test_a_number_may_be_negative(cli: Callable[..., Result], value: str) -> None:
    """It is no option, though it begins like one."""
    done = cli("score", "checkout", "sentiment", value, "--comment", "-3 would be too low")

    assert (done.exit_code, done.output) == (0, f"sentiment: {value} - -3 would be too low\n")


def test_the_score_of_a_step_that_is_not_stored_is_removed(home: Path, cli: Callable[..., Result]) -> None:
    """It was given before its step came, which it never did."""
    store = Store(home / "traces.db")
    store.score("checkout-8841", "correct", 1, step=99)
    store.close()

    done = cli("score", "checkout", "correct", "--step", 99, "--remove")

    assert (done.exit_code, done.output) == (0, "checkout-8841 has no scores.\n")


def test_scores_as_json(cli: Callable[..., Result]) -> None:
    """A line for each."""
    cli("score", "checkout", "helpful", "down")
    (score,) = json.loads(cli("score", "checkout", "--json").output)

    assert score.pop("time")
    assert score == {
        "name": "helpful", "value": False, "label": "", "comment": "", "step": 0, "source": "command",
    }  # fmt: skip


def test_a_score_is_changed_and_removed(cli: Callable[..., Result]) -> None:
    """The latest of a name counts."""
    cli("score", "checkout", "correct", "1")
    changed = cli("score", "checkout", "correct", "0")
    removed = cli("score", "checkout", "correct", "--remove")
    again = cli("score", "checkout", "correct", "--remove")

    assert changed.output == "correct: 0\n"
    assert (removed.exit_code, removed.output) == (0, "checkout-8841 has no scores.\n")
    assert (again.exit_code, again.output) == (1, "Error: There is no score 'correct' there.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["correct"], 2, "Give a VALUE, or a note with --comment."),
        (["--comment", "x"], 2, "Name what is judged"),
        (["--step", "1"], 2, "Name what is judged"),
        (["--remove"], 2, "--remove takes the NAME"),
        (["correct", "1", "--remove"], 2, "--remove takes the NAME"),
        (["correct", "nan"], 1, "it must be True or False, a finite number, or a short text"),
        (["correct", "1", "--step", "7"], 1, "There is no step 7 in 'checkout-8841'."),
        (["correct", "--remvoe"], 2, "No such option"),
        (["--jsno"], 2, "No such option"),
    ],
)
def test_a_mistake_says_what_to_type(
    cli: Callable[..., Result], arguments: list[str], code: int, words: str
) -> None:
    """And nothing is stored."""
    done = cli("score", "checkout", *arguments)

    assert (done.exit_code, words in done.output) == (code, True)
    assert cli("score", "checkout").output == "checkout-8841 has no scores.\n"


def test_a_home_that_can_only_be_read_takes_no_score(
    cli: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores can be shown."""
    monkeypatch.setattr("whyops_trace.commands.common.is_writable", lambda _: False)
    refused = cli("score", "checkout", "correct", "1")

    assert refused.output == f"Error: {home} can only be read by this user: nothing can be changed there.\n"
    assert cli("score", "checkout").exit_code == 0


def test_the_list_shows_scores_if_there_are_any(cli: Callable[..., Result]) -> None:
    """Those of the trace before those of its steps, at most four."""
    without = cli("ls").output
    for name in "dcba":
        cli("score", "refund", name, "up", *(["--step", "1"] if name == "a" else []))
    cli("score", "refund", "note", "--comment", "x")

    assert "scores" not in without
    assert cli("ls").output.splitlines()[0].rstrip().endswith("scores")
    assert "b: up, c: up, d: up, note: note, 1 more" in cli("ls").output


def test_the_list_is_chosen_by_scores(cli: Callable[..., Result]) -> None:
    """Each condition has to hold."""
    cli("score", "refund", "correct", "0.2")
    cli("score", "checkout", "correct", "0.9")
    some = cli("ls", "--json", "--score", "correct<0.5", "--score", "correct").output
    wrong = cli("ls", "--score", "correct<good")

    assert [trace["traceId"] for trace in json.loads(some)] == ["refund-1"]
    assert (wrong.exit_code, "compares with 'good', which is no number" in wrong.output) == (2, True)


def test_show_why_and_exports_have_the_scores(cli: Callable[..., Result]) -> None:
    """A person who looks at a trace sees what was said of it."""
    cli("score", "checkout", "correct", "0.5", "--step", "1", "--comment", "Wrong\ncard.")
    line = "correct: 0.5 - Wrong card."
    why = json.loads(cli("why", "checkout", "--json").output)
    exported = json.loads(cli("export", "checkout", "--json").output)

    assert f"score: {line}  #1" in cli("show", "checkout").output.splitlines()
    assert f"  score: {line}  #1" in cli("why", "checkout").output.splitlines()
    assert [score["name"] for score in why["scores"]] == ["correct"]
    assert [score["name"] for score in exported["summary"]["scores"]] == ["correct"]
    assert f"## Scores\n\n- {line} (step 1)\n" in cli("export", "checkout").output


def test_stats_tell_what_scores_say(cli: Callable[..., Result]) -> None:
    """With the other figures, or alone."""
    cli("score", "refund", "helpful", "up")
    cli("score", "checkout", "helpful", "down")
    cli("score", "checkout", "tone", "polite")
    alone = cli("stats", "--by", "score").output

    assert [line.split() for line in alone.splitlines()] == [
        ["score", "given", "mean", "labels"], ["helpful", "2", "0.5"], ["tone", "1", "polite", "1"],
    ]  # fmt: skip
    assert cli("stats").output.endswith(alone)
    assert json.loads(cli("stats", "--json").output)["scores"][0] == {
        "name": "helpful", "count": 2, "mean": 0.5, "labels": {},
    }  # fmt: skip
