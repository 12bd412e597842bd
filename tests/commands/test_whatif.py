"""``whyops-trace whatif``: experiments with a program, each run in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from programs import environment

from whyops_trace.cli import main

AGENT = """
import sys
from whyops_trace import WhyOps, traced_tool

sdk = WhyOps(agent_name="shop", tracing="local")
first = True

def note(text):
    with open("ran.txt", "a") as file:
        file.write(text + "\\n")

@traced_tool
def look_up(order: int) -> dict[str, str]:
    note(f"look_up {order}")
    return {"status": "sent"}

@traced_tool
def refund(order: int) -> str:
    note(f"refund {order}")
    print("paid")
    return "done"

@traced_tool
def wait(order: int) -> str:
    note(f"wait {order}")
    return "waiting"

def agent(order: int) -> str:
    with sdk.trace("refund-1"):
        status = look_up(order)["status"]
        return refund(order) if status == "sent" else wait(order)

async def agent_async(order: int) -> str:
    return agent(order)

def check(run, returned):
    run.called("wait", times=1)
    run.not_called("refund")

if __name__ == "__main__":
    agent(int(sys.argv[1]))
"""
PACKED = ("--step", "1", "--result", '{"status": "packed"}')


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an agent, one run of which is recorded."""
    (tmp_path / "shop.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "shop.py", "8841"], check=True, timeout=60, capture_output=True)
    (tmp_path / "ran.txt").unlink()
    return tmp_path


def whyops(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def ran(project: Path) -> list[str]:
    path = project / "ran.txt"
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.parametrize(
    "start",
    [
        ("--", sys.executable, "shop.py", "8841"),
        ("--", sys.executable, "-u", "-m", "shop", "8841"),
        ("--", "env", sys.executable, "shop.py", "8841"),
        ("--", sys.executable, "-X", "utf8", "-W", "ignore", "shop.py", "8841"),
        ("--", "shop.py", "8841"),
        ("--call", "shop:agent(8841)"),
        ("--call", "shop:agent_async(8841)"),
    ],
)
def test_an_agent_runs_on_however_it_is_started(project: Path, start: tuple[str, ...]) -> None:
    """Up to the step nothing runs; what it then does is done, and told."""
    result = whyops("whatif", "refund-1", *PACKED, "--yes", *start)

    assert result.exit_code == 0, result.output
    assert ran(project) == ["wait 8841"]
    assert "1 of 1 run passed: 100 %, and with a confidence of 95 % 21 % to 100 %" in result.stdout
    assert (
        "1 of 1: at once it calls wait(order=8841), where the recorded run calls refund(order=8841)"
        in result.stdout
    )
    assert 'which returns {"status": "packed"}; it returned {"status": "sent"}.' in result.stderr
    assert "tools   refund 1 x" in result.stderr


def test_runs_are_repeated_and_counted(project: Path) -> None:
    result = whyops(
        "whatif", "refund-1", *PACKED, "--yes", "--json", "--repeat", "3", "--call", "shop:agent(8841)",
        "--expect", "result == 'waiting' and calls['refund'] == 0",
    )  # fmt: skip
    told = json.loads(result.stdout)

    assert (told["passed"], told["share"], len(told["runs"])) == (3, 1.0, 3)
    assert told["interval"] == pytest.approx([0.4385, 1.0], abs=1e-3)
    assert told["plan"]["source"] == "refund-1"
    assert ran(project) == ["wait 8841"] * 3


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        (("--check", "shop:check"), True),
        (("--expect", "result == 'done'"), False),
        (("--expect", "result['status'] == 'done'"), False),
        (("--expect", "all(calls[name] < 2 for name in calls)"), True),
        (("--swap", 'wait="nobody waits"', "--expect", "result == 'nobody waits'"), True),
    ],
)
def test_a_run_passes_by_what_the_user_says(project: Path, options: tuple[str, ...], passed: bool) -> None:
    result = whyops("whatif", "refund-1", *PACKED, "--yes", "--json", "--call", "shop:agent(8841)", *options)

    assert json.loads(result.stdout)["runs"][0]["passed"] is passed
    assert ran(project) == ([] if "--swap" in options else ["wait 8841"])


def test_the_step_itself_runs_if_it_has_no_answer(project: Path) -> None:
    result = whyops("whatif", "refund-1", "--step", "3", "--yes", "--call", "shop:agent(8841)")

    assert "1 of 1: the same to the end" in result.stdout
    assert ran(project) == ["refund 8841"]


def test_an_error_is_raised_in_place_of_a_result(project: Path) -> None:
    result = whyops(
        "whatif",
        "refund-1",
        "--step",
        "1",
        "--error",
        "KeyError: 8841",
        "--yes",
        "--call",
        "shop:agent(8841)",
    )

    assert "not passed  it raised KeyError: 8841" in result.stdout
    assert "0 of 1 run passed" in result.stdout


def test_nothing_runs_where_nobody_can_be_asked(project: Path) -> None:
    """Without a terminal and without --yes the plan is shown, and that is all."""
    result = whyops("whatif", "refund-1", *PACKED, "--call", "shop:agent(8841)")

    assert result.exit_code == 1
    assert "Estimated cost" in result.stderr
    assert "Nobody can be asked here whether this may run: --yes says that it may." in result.stderr
    assert ran(project) == []


def test_a_service_without_standard_input_is_not_asked(project: Path) -> None:
    words = [sys.executable, "-m", "whyops_trace", "whatif", "refund-1", *PACKED, "--", "shop.py", "8841"]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *words]
    done = subprocess.run(closed, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "Error: Nobody can be asked here" in done.stderr
    assert ran(project) == []


@pytest.mark.parametrize(("said", "runs"), [("y\n", ["wait 8841"]), ("n\n", []), ("\n", [])])
def test_a_terminal_is_asked(project: Path, said: str, runs: list[str]) -> None:
    """Only a yes lets anything run."""
    ours, theirs = pty.openpty()
    os.write(ours, said.encode())
    words = ["whatif", "refund-1", *PACKED, "--call", "shop:agent(8841)"]
    done = subprocess.run(
        [sys.executable, "-m", "whyops_trace", *words],
        stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)

    assert "Run it? [y/N]" in done.stderr
    assert done.returncode == (0 if runs else 1)
    assert ran(project) == runs


def test_names_that_the_recorded_run_does_not_have_are_told_before(project: Path) -> None:
    """A misspelt tool that must not run would run."""
    result = whyops("whatif", "refund-1", *PACKED, "--swap", "refnd=1", "--call", "shop:agent(8841)")

    assert "The recorded run has no call of refnd: look whether that is the name." in result.stderr
    assert ran(project) == []


def test_a_run_whose_process_ends_has_no_result(project: Path) -> None:
    """Whether it came to the step nobody knows, so it is told beside those that count."""
    (project / "dies.py").write_text(
        "import os, shop\nshop.agent(8841)\nif len(open('ran.txt').readlines()) == 2:\n    os._exit(9)\n"
    )
    result = whyops("whatif", "refund-1", *PACKED, "--yes", "--repeat", "3", "--", "dies.py")

    assert "  2  no result: The process of the run ended with exit code 9 and told nothing" in result.stdout
    assert "2 of 2 runs passed" in result.stdout
    assert "1 more run without a result: not come to the step, or ended with the process" in result.stdout


def test_what_ran_is_told_when_the_command_is_interrupted(project: Path) -> None:
    """Ctrl-C ends the run that is on without a traceback, and those before it count."""
    (project / "patient.py").write_text(
        "import shop, sys, threading\n"
        "shop.agent(8841)\n"
        "if len(open('ran.txt').readlines()) == 2:\n"
        "    print('waits', flush=True)\n"
        "    threading.Event().wait(60)\n"
    )
    words = ["whatif", "refund-1", *PACKED, "--yes", "--repeat", "4", "--", "patient.py"]
    with subprocess.Popen(
        [sys.executable, "-m", "whyops_trace", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as command:  # fmt: skip
        assert command.stderr is not None
        assert any(line == "waits\n" for line in command.stderr)
        os.killpg(command.pid, signal.SIGINT)
        out, errors = command.communicate(timeout=60)

    assert command.returncode == 1
    assert "1 of 1 run passed" in out
    assert errors == "Aborted!\n"


def test_a_run_ends_with_a_command_that_is_killed(project: Path) -> None:
    """Else it would go on to ask models and run tools, and nobody would see it."""
    (project / "patient.py").write_text(
        "import shop, threading\nshop.agent(8841)\nprint('waits', flush=True)\nthreading.Event().wait(60)\n"
    )
    (project / "scratch").mkdir()
    words = ["whatif", "refund-1", *PACKED, "--yes", "--", "env", sys.executable, "patient.py"]
    scratch = {"TMPDIR": str(project / "scratch")}
    with subprocess.Popen(
        [sys.executable, "-m", "whyops_trace", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **scratch},
    ) as command:  # fmt: skip
        assert command.stderr is not None
        assert any(line == "waits\n" for line in command.stderr)
        command.kill()
        command.communicate(timeout=30)  # the run has the same standard error, which ends with it

    assert not [*(project / "scratch").iterdir()]


def test_the_command_that_shows_both_runs_can_be_copied(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are quoted as a shell needs it, and a home that is not the user's is named."""
    (project / "odd.py").write_text("import shop\nwith shop.sdk.trace('-a b'):\n    shop.refund(1)\n")
    subprocess.run([sys.executable, "odd.py"], check=True, timeout=60, capture_output=True)
    result = whyops("whatif", "--step", "1", "--result", '"no"', "--yes", "--", "-a b", "odd.py")

    assert "Side by side: whyops-trace diff -- '-a b' 'whatif-" in result.stdout

    monkeypatch.delenv("WHYOPS_HOME")
    result = whyops("whatif", "refund-1", *PACKED, "--yes", "--home", "home", "--", "shop.py", "8841")
    assert result.stdout.endswith(f"-refund-1 --home {project / 'home'}\n")


def test_show_names_the_source_and_the_replays(project: Path) -> None:
    """Both sides of the link are told."""
    told = json.loads(
        whyops("whatif", "refund-1", *PACKED, "--yes", "--json", "--call", "shop:agent(8841)").stdout
    )
    run = told["runs"][0]["traceId"]

    assert "replay of: refund-1" in whyops("show", run).stdout
    assert f"replays: {run}" in whyops("show", "refund-1").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--step", "9", "--call", "shop:agent(8841)"), 1, "There is no step 9 in refund-1"),
        (("--step", "3", "--call", "shop:agent(1)"), 1, "look_up(order=1) is not in the recording"),
        (("--step", "3", "--call", "shop:str()"), 1, "The run ended before step 3"),
        (
            ("--step", "1", "--call", "nowhere:agent()"),
            1,
            "nowhere of --call cannot be imported: ModuleNotFoundError",
        ),
        (
            ("--step", "1", "--call", "shop:agent(", "--expect", "True"),
            2,
            "no expression of Python: '(' was never",
        ),
        (("--step", "1", "--call", "shop:agent"), 2, "calls nothing: 'shop:agent()'"),
        (("--step", "3", "--", "nowhere.py"), 1, "it raised FileNotFoundError"),
        (("--step", "1", "--call", "shop:agent(1)", "--expect", "call == 1"), 2, "but not call."),
        (("--step", "1", "--call", "shop:agent(1)", "--expect", "calls["), 2, "no expression of Python"),
        (("--step", "1", "--call", "shop:agent(1)", "--check", "shop:nowhere"), 1, "has no function nowhere"),
        (("--step", "1", "--call", "shop:agent(1)", "--check", "nowhere:check"), 1, "cannot be imported"),
        (("--step", "1", "--result", "NaN", "--call", "shop:agent(1)"), 2, "is no JSON"),
        (("--step", "1", "--result", '"\\ud800"', "--call", "shop:agent(1)"), 2, "is no JSON"),
        (("--step", "1", "--result", "[" * 9_999 + "]" * 9_999, "--call", "shop:agent(1)"), 2, "is no JSON"),
        (("--step", "1"), 2, "Say how the agent is started"),
        (("--step", "1", "--", "make", "agent"), 2, "starts no program of Python"),
        (("--step", "1", "--", "nowhere", "python", "shop.py"), 2, "There is no program 'nowhere'"),
        (("--step", "1", "--result", "{}", "--error", "x", "--call", "shop:agent(1)"), 2, "Give one of"),
        (("--step", "1", "--result", "packed", "--call", "shop:agent(1)"), 2, "is no JSON"),
        (("--step", "1", "--swap", "refund", "--call", "shop:agent(1)"), 2, "write NAME=JSON"),
        (("--step", "1", "--call", "agent()"), 2, "it must begin with a module"),
        (("--step", "1", "--answer", "no", "--call", "shop:agent(1)"), 1, "no call of a model"),
    ],
)
def test_what_cannot_be_tried_is_told(project: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """Nothing runs, and the message says what to do."""
    result = whyops("whatif", "refund-1", "--yes", *words)

    assert result.exit_code == code
    assert said in result.stderr
    assert ran(project) == []
