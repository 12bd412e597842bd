"""``whyops-trace why``: how a trace ended, and what is worth a look, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lines import encoded
from tales import USER, Agent, called, result

from whyops_trace.cli import main
from whyops_trace.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with one trace, in which a call says that it failed, and another one does what it was to do."""
    agent, messages = Agent(), [USER]
    for number, (card, said) in enumerate([(5, "Error: \x1b[31mnot enough money"), (9, "paid")]):
        call = called("pay", number, card=card)
        answer = agent.turn(messages, None, call)
        agent.tool("pay", {"card": card}, said, asked_by=answer)
        messages.append(result(call, said))
    agent.turn(messages, "Paid.")
    agent.end()
    with closing(Store(tmp_path / "traces.db")) as store:
        store.ingest(("9f2c41aa01be", [encoded(event) for event in agent.events]))
    yield tmp_path


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Function that runs the command."""
    return lambda *arguments: CliRunner().invoke(main, ["why", *arguments, "--home", str(home)])


def test_a_program_gets_an_object(cli: Callable[..., Result]) -> None:
    """With the outcome, the question, the end, the moments and the counts."""
    done = cli("latest", "--json")

    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "traceId": "checkout-8841",
        "status": "answered: 1 call said that it failed, recovered",
        "headline": "answered: 1 call said that it failed, recovered; turn 1: pay(card=5) said that it failed: "
        "Error: not enough money -> turn 2 tried again with card=9 (was 5): ok",
        "asked": "Refund order 8841.",
        "ended": "Paid.",
        "moments": [
            {
                "steps": [3, 7],
                "kind": "retried",
                "text": "turn 1: pay(card=5) said that it failed: Error: not enough money -> turn 2 tried again with "
                "card=9 (was 5): ok",
            }
        ],
        "counts": {"raised": 0, "saidFailed": 1, "recovered": 1, "turns": 3, "toolCalls": 2, "agents": 0},
        "scores": [],
    }


def test_a_person_gets_a_few_lines(cli: Callable[..., Result]) -> None:
    """The same, in words; the beginning of an id is enough."""
    lines = cli("check").stdout.splitlines()

    assert lines[0] == "checkout-8841: answered: 1 call said that it failed, recovered"
    assert lines[1:3] == ["  asked: Refund order 8841.", "  ended: Paid."]
    assert " ".join(" ".join(lines[3:]).split()).endswith("turn 2 tried again with card=9 (was 5): ok #3, 7")


def test_a_trace_that_is_not_there_is_an_error(cli: Callable[..., Result]) -> None:
    """With the exit code of the other commands."""
    done = cli("refund")

    assert done.exit_code == 1
    assert "refund" in done.stderr


def test_show_tells_the_same_below_the_tree(home: Path) -> None:
    """With the steps to look at."""
    done = CliRunner().invoke(main, ["show", "latest", "--home", str(home)])

    assert done.stdout.splitlines()[-1].startswith(
        "why: turn 1: pay(card=5) said that it failed: Error: not enough money"
    )
    assert done.stdout.splitlines()[-1].endswith("#3, 7")
