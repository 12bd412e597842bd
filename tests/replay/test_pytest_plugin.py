"""The plugin of pytest, in runs of pytest of its own: recordings are replayed, checked, and made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENT = """
from whyops_trace import WhyOps, step, trace, traced_llm, traced_tool
from whyops_trace.testing import ManualClock

RAN = []
CLOCK = ManualClock()
SDK = WhyOps(agent_name="shop", clock=CLOCK)

@traced_tool
def look_up(order: int) -> dict[str, str]:
    RAN.append("look_up")
    CLOCK.advance(SLOW[0])
    return {"status": "sent"}

@traced_tool
def refund(order: int, amount: float, note: str = "") -> str:
    RAN.append("refund")
    if amount > 1000:
        raise ValueError("too much")
    return "done"

@traced_llm(provider="openai", extract=lambda said: ANSWER)
def ask(messages: list[dict[str, str]]) -> str:
    RAN.append("ask")
    return "yes"

ANSWER = {"content": "yes", "model": "gpt-4o", "usage": {"promptTokens": 20, "completionTokens": 10, "totalTokens": 30}}
SLOW = [0]

def agent(amount=12.5, looks=1, asks=1, refunds=1, turned=False, note="", clock=None):
    SLOW[0] = 3 if clock else 0
    with SDK.trace("t"):
        for _ in range(asks):
            ask([{"role": "user", "content": "May I?"}])
        for kind in (("refund", "look") if turned else ("look", "refund")):
            for _ in range(looks if kind == "look" else 0):
                look_up(8841)
            for _ in range(refunds if kind == "refund" else 0):
                try:
                    refund(8841, amount, note)
                except ValueError:
                    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with an agent, for tests of it."""
    (tmp_path / "shop.py").write_text(AGENT)
    return tmp_path


def run(project: Path, test: str, *options: str) -> tuple[int, str]:
    """Run a file of tests, and return the exit code and the output."""
    (project / "test_shop.py").write_text("import re\n\nimport pytest\nimport shop\n\n" + test)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        *plugin(),
        *options,
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def plugin() -> list[str]:
    """Return the options that load the plugin, which does so by itself only where the package is installed."""
    from importlib.metadata import entry_points

    found = [one.value for one in entry_points(group="pytest11") if one.value == "whyops_trace.pytest_plugin"]
    return [] if found else ["-p", "whyops_trace.pytest_plugin"]


TEST = """
def test_refund(recorded):
    with recorded("runs/refund.whyops") as run:
        shop.agent()
    run.called("look_up", before="refund", times=1)
    run.matches_tree()
"""


def test_a_recording_is_made_and_replayed(project: Path) -> None:
    """Without a recording a test fails and says how to make one; --whyops=record makes it, and then nothing runs."""
    ran = TEST + "    assert shop.RAN == []\n"
    missing, words = run(project, TEST)
    recorded, output = run(project, TEST, "--whyops=record")
    replayed, more = run(project, ran)

    assert (missing, recorded, replayed) == (1, 0, 0), words + output + more
    assert "runs/refund.whyops cannot be read" in words
    assert (project / "runs" / "refund.whyops").exists()


def test_a_live_run_is_checked_against_the_recording(project: Path) -> None:
    """--whyops=live makes the calls, writes nothing, and its tree must be that of the recording."""
    run(project, TEST, "--whyops=record")
    before = (project / "runs" / "refund.whyops").read_text()
    same, output = run(project, TEST, "--whyops=live")
    other, words = run(project, TEST.replace("shop.agent()", "shop.agent(amount=1.0)"), "--whyops=live")

    assert (same, other) == (0, 1), output
    assert "-refund(order=8841, amount=12.5, note='')" in words
    assert "+refund(order=8841, amount=1.0, note='')" in words
    assert (project / "runs" / "refund.whyops").read_text() == before


def test_a_change_of_the_agent_is_red(project: Path) -> None:
    """The first call that differs is told, with the calls around it."""
    _, missing = run(project, TEST)
    run(project, TEST, "--whyops=record")
    code, words = run(project, TEST.replace("shop.agent()", "shop.agent(amount=125.0)"))

    assert code == 1
    assert "arguments.amount: recorded 12.5, now 125.0" in words
    assert "> refund(order=8841, amount=12.5, note='')" in words
    assert "/_replay/" not in words + missing  # frames of the library are hidden
    assert "/_calls/" not in words + missing


CHECKS = [
    ("called('refund')", "", "looks=2, refunds=0", "refund was not called."),
    ("called('look_up', times=1)", "", "looks=2", "look_up was called 2 times, not 1."),
    ("called('look_up', times=range(1, 3))", "looks=2", "looks=3", "look_up was called 3 times, not 1 to 2."),
    ("called('look_up', before='refund')", "", "turned=True", "refund was called before look_up."),
    (
        "called('look_up', before='refund')",
        "",
        "refunds=0",
        "refund, which look_up should come before, was not",
    ),
    (
        "called('refund', arguments={'amount': 12.5})",
        "",
        "amount=13",
        "refund was not called with amount=12.5.",
    ),
    (
        "called('refund', arguments={'amount': lambda a: a < 20})",
        "",
        "amount=50",
        "refund was not called with",
    ),
    (
        "called('refund', arguments={'note': re.compile('twice')})",
        "note='paid twice'",
        "",
        "refund was not called with",
    ),
    (
        "called('refund', arguments=lambda given: given['amount'] < 20)",
        "",
        "amount=50",
        "with such arguments",
    ),
    ("not_called('look_up')", "looks=0", "", "look_up was called."),
    ("called_in_order('ask', 'look_up', 'refund')", "", "turned=True", "refund was not called after look_up"),
    ("no_loops()", "looks=2", "looks=3", "look_up(order=8841) was called 3 times."),
    ("no_errors()", "", "amount=2000", "failed: ValueError too much"),
    ("no_findings('high')", "looks=2", "looks=8", "IDENTICAL_TOOL_CALL_LOOP (high)"),
    ("turns_below(2)", "", "asks=2", "Models were asked 2 times, not fewer than 2."),
    ("tokens_below(31)", "", "asks=2", "took 60 tokens, not fewer than 31."),
    ("cost_below(0.0002)", "", "asks=5", "The calls of models cost"),
    ("cost_below(1, tokens=31)", "", "asks=2", "took 60 tokens"),
    ("faster_than(2, name='look_up')", "", "clock=shop.CLOCK", "took 3.0 s, not less than 2.0 s."),
]


def test_each_assertion_fails_on_a_mutated_run(project: Path) -> None:
    """An assertion that holds for a run does not hold for one that was changed, and shows the tree with the place."""
    holds = "".join(
        f"def test_{number}(traces):\n    shop.agent({good})\n    traces.{check}\n\n"
        for number, (check, good, _, _) in enumerate(CHECKS)
    )
    fails = "".join(
        f"def test_{number}(traces):\n    shop.agent({bad})\n    with pytest.raises(AssertionError) as failed:\n"
        f"        traces.{check}\n    told = str(failed.value)\n    assert {words!r} in told, told\n"
        f"    assert 't · ' in told\n\n"
        for number, (check, _, bad, words) in enumerate(CHECKS)
    )
    code, output = run(project, holds)
    assert code == 0, output
    code, output = run(project, fails)
    assert code == 0, output


def test_the_place_is_marked_in_the_tree(project: Path) -> None:
    """The message of an assertion shows the tree, and what it is about with a mark in front."""
    code, output = run(
        project, "def test_it(traces):\n    shop.agent(looks=2)\n    traces.called('look_up', times=1)\n"
    )

    assert code == 1
    assert [line for line in output.splitlines() if "> ├─ ⚒ look_up(order=8841)" in line][1:2], output
    assert "_fail" not in output  # frames of the library are hidden


def test_traces_are_those_of_one_test(project: Path) -> None:
    """What one test records is not in the traces of another, in one process or in several."""
    test = "".join(
        f"def test_{n}(traces):\n    shop.look_up({n})\n    assert traces.tree == 'look_up(order={n})'\n\n"
        for n in range(6)
    )
    one, output = run(project, test)
    assert one == 0, output
    pytest.importorskip("xdist")
    several, output = run(project, test, "-n2")
    assert several == 0, output


def test_a_run_without_the_fixtures_loads_nothing(project: Path) -> None:
    """The plugin alone does not load the library: a run of pytest that does not use it pays nothing."""
    test = "import sys\n\ndef test_it():\n    assert 'whyops_trace._replay' not in sys.modules\n"
    (project / "test_alone.py").write_text(
        test + "    loaded = {name for name in sys.modules if name.startswith('whyops_trace')}\n"
        "    assert loaded <= {'whyops_trace', 'whyops_trace.pytest_plugin'}, loaded\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin(), "test_alone.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stdout
