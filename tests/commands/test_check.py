"""``whyops-trace check``: what it prints, and when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lines import encoded
from programs import in_terminal
from traces import Record, Story, call

from whyops_trace._clock import SystemClock, iso
from whyops_trace.cli import main
from whyops_trace.store import Store

Cli = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def check(home: Path) -> Cli:
    """Runs the command in this process."""
    return lambda *arguments: CliRunner().invoke(main, ["check", *map(str, arguments), "--home", str(home)])


def store(home: Path, *traces: list[Record], ended: bool = True) -> None:
    """Put traces into the store of a home; their process is gone, unless told otherwise."""
    stored = Store(home / "traces.db")
    for number, records in enumerate(traces):
        for record in records:
            record["idempotencyKey"] += str(number)
        stored.ingest(("9f2c41aa01be", [encoded(record) for record in records]))
    if ended:
        stored.process_ended("9f2c41aa01be")
    stored.close()


def cut_off(trace: str = "checkout-8841") -> list[Record]:
    """Return a trace whose only answer was cut off."""
    story = Story(trace)
    story.ask("Tell me a story.")
    story.answer("Once", content={"finishReason": "length"})
    return story.records


def open_tool(trace: str = "checkout-8842") -> list[Record]:
    """Return a trace whose only call has no response."""
    story = Story(trace)
    story.request("charge_card")
    return story.records


def sound(trace: str = "checkout-8843") -> list[Record]:
    """Return a trace in which nothing is wrong."""
    story = Story(trace)
    story.tool()
    return story.records


def test_findings_are_printed_in_full(check: Cli, home: Path) -> None:
    """What, where, why it matters, what to do; then how many there are."""
    store(home, cut_off())
    result = check()

    assert result.stdout == (
        "checkout-8841\n"
        "  medium  ANSWER_CUT  step 2\n"
        "    The answer of gpt-4o was cut off: it stopped for length.\n"
        "    Why: The agent goes on with half an answer, which reads as if it were a whole one.\n"
        "    Do: Raise the limit of tokens, ask for shorter answers, or shorten the prompt where the model's window is "
        "full; and let the agent check the finish reason.\n"
        "checkout-8841: 1 medium.\n"
    )
    assert (result.stderr, result.exit_code) == ("", 0)


def test_a_sound_trace_is_said_to_be(check: Cli, home: Path) -> None:
    """The latest one, where none is named."""
    store(home, sound())

    assert (
        check().stdout
        == check("latest").stdout
        == check("checkout").stdout
        == "checkout-8843: nothing found.\n"
    )


@pytest.mark.parametrize(
    ("level", "codes"),
    [("low", (1, 1)), ("medium", (1, 1)), ("high", (0, 1)), ("critical", (0, 0)), ("never", (0, 0))],
)
def test_it_fails_for_what_is_as_severe_as_told(
    check: Cli, home: Path, level: str, codes: tuple[int, int]
) -> None:
    """High is the default."""
    store(home, cut_off(), open_tool())
    medium, high = (check(trace, "--fail-on", level) for trace in ("checkout-8841", "checkout-8842"))

    assert (medium.exit_code, high.exit_code) == codes
    assert [check(trace).exit_code for trace in ("checkout-8841", "checkout-8842")] == [0, 1]


def test_rules_can_be_left_out(check: Cli, home: Path) -> None:
    """By their codes; an unknown one is a mistake that names them all."""
    store(home, cut_off(), open_tool())
    names = ("checkout-8841", "checkout-8842")
    result = check(*names, "--ignore", "ANSWER_CUT", "--ignore", "MISSING_TOOL_CALL_RESPONSE")
    unknown = check("--ignore", "ANSWER")

    assert (result.stdout, result.exit_code) == ("2 traces: nothing found.\n", 0)
    assert unknown.exit_code == 2
    assert "ANSWER_CUT" in unknown.stderr


def test_the_rules_of_the_server_can_be_used_alone(check: Cli, home: Path) -> None:
    """They know neither finish reasons nor processes."""
    store(home, cut_off(), open_tool(), ended=False)

    assert check("checkout-8841", "--server-rules").stdout == "checkout-8841: nothing found.\n"
    assert check("checkout-8842").stdout == "checkout-8842: nothing found.\n"
    assert check("checkout-8842", "--server-rules").exit_code == 1


def test_many_findings_of_a_rule_are_summed_up(check: Cli, home: Path) -> None:
    """The first three are printed."""
    story = Story()
    for n in range(20):
        story.request("charge_card", {"n": n})
    store(home, story.records)
    lines = check().stdout.splitlines()

    assert [line for line in lines if "MISSING" in line] == [
        *(f"  high  MISSING_TOOL_CALL_RESPONSE  step {n}" for n in (1, 2, 3)),
        "  and 17 more MISSING_TOOL_CALL_RESPONSE; --json lists all.",
    ]
    assert lines[-1] == "checkout-8841: 20 high."


def test_long_lists_of_steps_are_cut(check: Cli, home: Path) -> None:
    """The first ones lead to the place."""
    story = Story()
    for _ in range(10):
        story.tool(arguments={"a": 1})
    store(home, story.records)

    assert "IDENTICAL_TOOL_CALL_LOOP  steps 1, 3, 5, 7, 9, 11, 13, 15 and 2 more\n" in check().stdout


def recent(records: list[Record], seconds_ago: int) -> list[Record]:
    """Return records as if they had been made so long ago."""
    now = SystemClock().time_ns() - seconds_ago * 1_000_000_000
    for number, record in enumerate(records):
        record["timestamp"] = iso(now + number * 1_000_000)
    return records


def test_all_traces_since_a_time_are_checked(check: Cli, home: Path) -> None:
    """Only those with findings are printed, and what only several of them show stands at the end."""
    tools = recent(sound("b"), 50)
    model = Story("c")
    model.ask("Hello")
    model.answer()
    store(home, recent(cut_off("a"), 40), tools, recent(model.records, 45), recent(open_tool("old"), 7_200))
    lines = check("--since", "1h").stdout.splitlines()

    assert [line for line in lines if not line.startswith("    ")] == [
        "a",
        "  medium  ANSWER_CUT  step 2",
        "Several traces together",
        "  medium  TRACE_ID_CHANGED",
        "3 traces: 2 medium.",
    ]
    assert check("--since", "1d").exit_code == 1
    assert check("--since", "1h", "--server-rules").stdout == "3 traces: nothing found.\n"


def test_findings_as_json(check: Cli, home: Path) -> None:
    """All of them, for each trace, and whether the command failed."""
    store(home, cut_off("ä\x9b"), open_tool())
    result = check("ä\x9b", "checkout-8842", "--json")
    report = json.loads(result.stdout)
    first, second = report["traces"]

    assert result.stdout.isascii()
    assert (report["failed"], report["across"], result.exit_code) == (True, [], 1)
    assert [trace["traceId"] for trace in report["traces"]] == ["ä\x9b", "checkout-8842"]
    assert first["findings"][0].keys() == {"code", "severity", "title", "steps", "why", "advice", "evidence"}
    assert [one["code"] for one in second["findings"]] == ["MISSING_TOOL_CALL_RESPONSE"]


def test_a_trace_named_twice_is_checked_once(check: Cli, home: Path) -> None:
    """By its id, by a beginning of it, or as the latest one."""
    store(home, sound())

    assert len(json.loads(check("latest", "checkout-8843", "check", "--json").stdout)["traces"]) == 1


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["nothing"], "There is no trace 'nothing'", 1),
        (["latest", "--since", "1h"], "not both", 2),
        (["--since", "yesterday"], "is no time", 2),
        (["--fail-on", "awful"], "awful", 2),
    ],
)
def test_a_mistake_is_one_line(check: Cli, home: Path, arguments: list[str], said: str, code: int) -> None:
    """That says what is wrong."""
    store(home, sound())
    result = check(*arguments)

    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_home_without_traces_fails(check: Cli) -> None:
    """A check that checked nothing is not passed."""
    assert (check().exit_code, check("--since", "1h").exit_code) == (1, 1)
    assert check().stderr == "Error: There are no traces yet.\n"
    assert check("--since", "1h").stdout == "No trace was recorded on in that time.\n"


def test_nothing_that_a_trace_says_moves_a_cursor(check: Cli, home: Path) -> None:
    """Neither its id, nor names in it."""
    evil = "\x1b[2J\x9b\u202e"
    story = Story(evil)
    story.ask("Hello")
    story.answer(calls=[call(evil)], content={"finishReason": "length"}, metadata={"model": evil})
    story.request(evil)
    store(home, story.records)
    shown = check(evil).stdout

    assert "MISSING_TOOL_CALL_RESPONSE" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_terminal_sees_how_far_it_is(home: Path) -> None:
    """On standard error, so that it is in no file; one trace needs no bar."""
    store(home, recent(cut_off("a"), 40), recent(sound("b"), 50))
    several, bar = in_terminal(home, "check", "--since", "1h")
    one, nothing = in_terminal(home, "check", "a")

    assert "checking" in bar
    assert "checking" not in several + one + nothing


def scored(home: Path, *values: float | str | bool, step: int = 0, comment: str | None = None) -> None:
    """Put a sound trace into the store whose scores are of that name and these values, the last one last."""
    store(home, sound())
    stored = Store(home / "traces.db")
    for place, value in enumerate(values):
        stored.score("checkout-8843", f"correct{place or ''}", value, step=step, comment=comment)
    stored.close()


def test_a_score_below_its_limit_fails_the_check(check: Cli, home: Path) -> None:
    """Whatever the findings are, with the place and the reason; one at the limit does not."""
    scored(home, 0.5, 0.8, step=2, comment="The wrong week.")
    result = check("--min-score", "correct=0.8", "--min-score", "correct1=0.8", "--fail-on", "never")

    assert (result.exit_code, result.stdout) == (
        1,
        "checkout-8843\n"
        "  score  step 2\n"
        "    correct is 0.5, below 0.8: The wrong week.\n"
        "checkout-8843: 1 missed score.\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "limit", "reason"),
    [
        (0.5, ("--max-score", "correct=0.2"), "correct is 0.5, above 0.2."),
        (False, ("--min-score", "correct=up"), "correct is down, below 1."),
        ("polite", ("--min-score", "correct=1"), "correct is polite, which is no number."),
        (1, ("--min-score", "tone=1"), "tone is missing: the trace has no score of that name."),
        (-1, ("--min-score", "correct=-0.5"), "correct is -1, below -0.5."),
        (0.5, ("--max-score", "correct=0.5"), ""),
        (True, ("--min-score", "correct=1"), ""),
        (0.9, ("--min-score", "correct=.8", "--max-score", "correct=1e3"), ""),
    ],
)
def test_a_score_has_to_keep_both_limits(
    check: Cli, home: Path, value: float | str | bool, limit: tuple[str, ...], reason: str
) -> None:
    """A missing one keeps none: a gate without a judge is open."""
    scored(home, value)
    result = check(*limit, "--json")
    (trace,) = json.loads(result.stdout)["traces"]

    assert [one["reason"] for one in trace["missed"]] == [reason] * bool(reason)
    assert (result.exit_code, json.loads(result.stdout)["failed"]) == (int(bool(reason)), bool(reason))


@pytest.mark.parametrize("limit", ["correct", "=0.5", "correct=", "correct=high", "correct=nan"])
def test_a_limit_is_a_name_and_a_number(check: Cli, home: Path, limit: str) -> None:
    """Anything else is told with an example."""
    result = check("--min-score", limit)

    assert result.exit_code == 2
    assert "write a name and a number: correct=0.8." in result.stderr
