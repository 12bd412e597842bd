"""Recordings for tests: ``export --fixture`` and ``test-from`` write them, and pytest runs what was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from whyops_trace.cli import main
from whyops_trace.replay import replay

AGENT = """
import sys
from whyops_trace import WhyOps, traced_tool

sdk = WhyOps(agent_name="shop")
LIMIT = 10.0

@traced_tool
def look_up(order: int) -> dict[str, str]:
    return {"status": "sent"}

@traced_tool
def refund(order: int, amount: float) -> str:
    if amount > LIMIT:
        raise ValueError("too much")
    return "done"

def agent(order: int) -> None:
    with sdk.trace("Refund/8841"):
        look_up(order)
        refund(order, 12.5)

if __name__ == "__main__":
    agent(8841)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an agent that has failed."""
    (tmp_path / "shop.py").write_text(AGENT)
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    failed = subprocess.run([sys.executable, "shop.py"], capture_output=True, text=True, timeout=60)
    assert "too much" in failed.stderr
    return tmp_path


def whyops(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def run_tests(project: Path) -> tuple[int, str]:
    """Run the tests of the project, and return the exit code and the output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "tests"]
    environment = {"PYTHONPATH": f"{project}:{':'.join(sys.path)}", "PATH": "/usr/bin:/bin"}
    from importlib.metadata import entry_points

    if not any(one.value == "whyops_trace.pytest_plugin" for one in entry_points(group="pytest11")):
        command += ["-p", "whyops_trace.pytest_plugin"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_a_failed_run_is_a_red_test_until_the_agent_is_mended(project: Path) -> None:
    """One command writes the test, which is red; with the agent mended and recorded again it is green."""
    result = whyops("test-from", "Refund/8841", "--call", "shop:agent(8841)")
    red, words = run_tests(project)
    (project / "shop.py").write_text(AGENT.replace("refund(order, 12.5)", "refund(order, 9.5)"))
    other, more = run_tests(project)

    assert result.exit_code == 0, result.output
    assert (project / "tests" / "runs" / "refund_8841.whyops").exists()
    assert (
        "# It failed: refund(order=8841, amount=12.5)"
        in (project / "tests" / "test_refund_8841.py").read_text()
    )
    assert (red, other) == (1, 1), words
    assert "ValueError: too much" in words
    assert "arguments.amount: recorded 12.5, now 9.5" in more


def test_a_test_without_a_call_says_where_it_goes(project: Path) -> None:
    """Nobody knows what runs the agent, so the test fails until its author has written it."""
    whyops("test-from", "latest", "-o", "tests/test_mine.py")
    code, words = run_tests(project)

    assert code == 1
    assert "Call here what runs the agent" in words


def test_nothing_is_overwritten(project: Path) -> None:
    """A test that was edited stays."""
    whyops("test-from", "latest")
    again = whyops("test-from", "latest")

    assert again.exit_code == 1
    assert "is there already" in again.output


@pytest.mark.parametrize("call", ["shop", "shop.agent(1)", "shop:import os", "a b:c()"])
def test_a_wrong_call_is_refused(project: Path, call: str) -> None:
    """What is no module and call is told, and nothing is written."""
    result = whyops("test-from", "latest", "--call", call)

    assert result.exit_code == 2
    assert "a module and a call" in result.output
    assert [*(project / "tests").iterdir()] == []


def test_an_exported_fixture_is_replayed(project: Path) -> None:
    """The file alone is enough, and goes with no other form of export."""
    result = whyops("export", "latest", "--fixture", "runs/refund.whyops")
    wrong = whyops("export", "latest", "--fixture", "x.whyops", "--format", "json")

    assert result.exit_code == 0, result.output
    assert replay("runs/refund.whyops", store=False).source == "Refund/8841"
    assert (wrong.exit_code, Path("x.whyops").exists()) == (2, False)


def test_what_no_replay_can_answer_is_told(project: Path) -> None:
    """A result that held a secret is named when the recording is written."""
    program = (
        "from whyops_trace import WhyOps, traced_tool\n"
        "@traced_tool\ndef login(user): return {'api_key': 'sk-live-4eC39HqLyjWDarjtT1zdp7dc'}\n"
        "with WhyOps(agent_name='shop').trace('login'): login('ada')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    result = whyops("export", "login", "--fixture", "login.whyops")

    assert "cannot be replayed, as its result held a secret: swap it in the test." in result.output
