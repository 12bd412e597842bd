"""The command line: what it prints, to whom, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from lines import Process, encoded, tool_request, tool_response
from programs import environment, start_code

from whyops_trace import __version__
from whyops_trace._excerpt import dollars
from whyops_trace._prices import cost
from whyops_trace.cli import main
from whyops_trace.journal import Journal
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
TREE = """\
checkout-8841 · shop · <1 ms · 1 tool, no errors
└─ ⚒ charge_card(amount=4999) → {"id": "ch_1"}                                                  8 ms
"""
LISTING = """\
when         trace   agent  asked → ended                        tools  llm  errors      tokens   time
11-22 22:30  refund  shop   My order is late → Refunded the fee      0    1       0  42k (90 %)  1.3 s
11-21 22:30  open    shop   running                                  1    0       0              <1 ms
11-21 22:30  failed  shop   ✗ no such order                          1    0       1              <1 ms
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Runs a command in this process, in UTC and without a terminal."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()
    yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
    monkeypatch.undo()
    time.tzset()


def record(home: Path, *batches: list[dict[str, Any]]) -> None:
    """Put records into the store of a home."""
    store = Store(home / "traces.db")
    for events in batches:
        store.ingest((TOKEN, [encoded(event) for event in events]))
    store.close()


def tool_call(trace: str = "checkout-8841", **members: Any) -> list[dict[str, Any]]:
    """Return a trace of one tool call."""
    process = Process(trace=trace)
    return [
        tool_request(process, 1, **members),
        tool_response(process, 2, 1, about={"latencyMs": 8}, end=True, **members),
    ]


def conversation(trace: str, *, answer: str, at: float) -> list[dict[str, Any]]:
    """Return a trace of one turn of a conversation."""
    process = Process(trace=trace)
    asked = {"messages": [{"role": "user", "content": "My order is late"}]}
    usage = {"promptTokens": 4000, "completionTokens": 2000, "cacheReadTokens": 36_000}
    return [
        process.event("user_message", 1, content=asked, at=at),
        process.event(
            "llm_response", 2, 1, metadata={"usage": usage}, content={"content": answer}, at=at + 1200
        ),
        process.event("trace_end", 1, 1, metadata={"latencyMs": 1300}, at=at + 1200, end=True),
    ]


# ls


def test_ls_lists_traces(cli: Callable[..., Result], home: Path) -> None:
    """Newest first: when, which, whose, what was asked and how it ended, and what it took."""
    failed = [
        *tool_call("failed"),
        Process(trace="failed").event("error", 3, content={"message": "no such order"}),
    ]
    failed[-1]["idempotencyKey"] = "another"
    record(home, failed, conversation("refund", answer="Refunded the fee", at=86_400_000))
    record(home, [tool_request(Process(trace="open"), 1, at=1000)])
    result = cli("ls", "--home", home)

    assert result.stdout == LISTING
    assert (result.stderr, result.exit_code) == ("", 0)


def test_ls_has_a_limit(cli: Callable[..., Result], home: Path) -> None:
    """The newest ones are shown."""
    record(home, *(tool_call(f"t{n}", at=n) for n in range(30)))

    assert len(cli("ls", "--home", home).stdout.splitlines()) == 21
    assert re.findall(r"t\d+", cli("ls", "--limit", "2", "--home", home).stdout) == ["t29", "t28"]


def test_ls_as_json(cli: Callable[..., Result], home: Path) -> None:
    """An array with a summary on each line, in ASCII."""
    record(home, tool_call("ä\x9b", at=1), tool_call("b"))
    result = cli("ls", "--json", "--home", home)

    assert [summary["traceId"] for summary in json.loads(result.stdout)] == ["ä\x9b", "b"]
    assert json.loads(result.stdout)[1] == {
        "traceId": "b",
        "tags": [],
        "metadata": {},
        "agentName": "shop",
        "externalUserId": None,
        "startedAt": "2026-11-21T22:30:00.000Z",
        "lastAt": "2026-11-21T22:30:00.000Z",
        "eventCount": 2,
        "toolCalls": 1,
        "llmResponses": 0,
        "errors": 0,
        "promptTokens": 0,
        "completionTokens": 0,
        "cacheReadTokens": 0,
        "cacheCreationTokens": 0,
        "asked": "",
        "endedWith": "",
        "failed": False,
        "ended": True,
        "running": False,
        "cost": None,
    }
    assert result.stdout.isascii()
    assert result.stdout.count("\n") == 2


def test_an_empty_store_says_how_to_record(cli: Callable[..., Result], home: Path) -> None:
    """What it says is a program that works; nothing found is exit code 1, and nothing is made by looking."""
    result = cli("ls", "--home", home)
    said, _, program = result.stdout.partition("\n\n")

    assert said == f"There are no traces in {home} yet. This records one:"
    assert (result.stderr, result.exit_code) == ("", 1)
    assert cli("ls", "--json", "--home", home).stdout == "[]\n"
    assert not home.exists()
    with start_code(program, home) as process:
        assert process.communicate(timeout=60) == ("", "")
    assert cli("show", "hello", "--home", home).stdout.startswith("hello · ")


def test_ls_says_where_traces_are_that_a_key_took_elsewhere(
    home: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has a key and an empty store learns how to have both."""
    without = cli("ls", "--home", home).stdout
    monkeypatch.setenv("WHYOPS_API_KEY", "whyops_test")

    assert "WHYOPS_STORE" not in without
    assert "WHYOPS_STORE=on keeps them here as well" in cli("ls", "--home", home).stdout


def test_ls_fits_a_terminal(home: Path) -> None:
    """In eighty columns nothing wraps; what is too long ends in an ellipsis."""
    record(home, conversation("a-very-long-trace-id-of-somebody-else", answer="Refunded " * 10, at=0))
    out = in_terminal(home, "ls", columns=80)
    lines = re.sub("\x1b\\[[0-9;]*m", "", out).splitlines()

    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].split() == [
        "when",
        "trace",
        "asked",
        "→",
        "ended",
        "tools",
        "llm",
        "errors",
        "tokens",
        "time",
    ]
    assert "a-very-long-trac…" in lines[1]
    assert "My order is lat…" in lines[1]
    assert lines[1].endswith("0   1      0 42k (90 %) 1.3 s")


def test_ls_shows_no_time_that_is_none(cli: Callable[..., Result], home: Path) -> None:
    """A record may hold anything."""
    record(home, tool_call(timestamp="soon"))

    assert cli("ls", "--home", home).stdout.splitlines()[1].split() == [
        "checkout-8841",
        "shop",
        "1",
        "0",
        "0",
        "<1",
        "ms",
    ]


# show


@pytest.mark.parametrize("name", ["checkout-8841", "check", "latest"])
def test_show_prints_a_tree(cli: Callable[..., Result], home: Path, name: str) -> None:
    """By id, by its beginning, or the newest one."""
    record(home, tool_call("older"), tool_call(at=1))
    result = cli("show", name, "--home", home)

    assert (result.stdout, result.stderr, result.exit_code) == (TREE, "", 0)


def test_show_as_json(cli: Callable[..., Result], home: Path) -> None:
    """An array with a record on each line, in ASCII, as it was recorded."""
    events = tool_call(arguments={"q": "日本\x9b"})
    record(home, events)
    result = cli("show", "latest", "--json", "--home", home)

    assert json.loads(result.stdout) == events
    assert result.stdout.isascii()
    assert result.stdout.count("\n") == 2


def test_show_of_a_trace_that_does_not_exist(cli: Callable[..., Result], home: Path) -> None:
    """One line on standard error says what to type; exit code 1."""
    record(home, tool_call())
    results = [cli("show", name, "--home", home) for name in ("checkuot", "x\x1b[31m")]

    assert [(result.stdout, result.stderr, result.exit_code) for result in results] == [
        ("", "Error: There is no trace 'checkuot': did you mean 'checkout-8841'?\n", 1),
        ("", "Error: There is no trace 'x\\x1b[31m': whyops-trace ls lists what there is.\n", 1),
    ]


def test_calls_that_a_dead_process_left_open_are_unfinished(cli: Callable[..., Result], home: Path) -> None:
    """What it recorded is taken from its journal before anything is shown."""
    journal = Journal(home / "journal" / "s", stream="s", agent="shop", destinations=["local"])
    journal.append(encoded(tool_request(Process(journal.token), 1)) + b"\n")
    journal.close()
    result = cli("show", "latest", "--home", home)

    assert "1 unfinished" in result.stdout
    assert "charge_card(amount=4999)  unfinished" in result.stdout
    assert "running" not in cli("ls", "--home", home).stdout


def test_calls_of_a_process_that_lives_are_running(cli: Callable[..., Result], home: Path) -> None:
    """What it delivered so far is shown, and its journal is left to it."""
    program = """
        import sys
        from whyops_trace import WhyOps, trace, traced_tool

        sdk = WhyOps(agent_name="shop")

        @traced_tool
        def wait() -> None:
            sdk.flush_sync()
            print("waiting", flush=True)
            sys.stdin.read()

        with trace("checkout-8841"):
            wait()
    """
    with start_code(program, home) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shown, listed = (cli(*command, "--home", home).stdout for command in (["show", "latest"], ["ls"]))
        process.communicate("", timeout=60)
    finished = cli("show", "latest", "--home", home).stdout

    assert "◌ wait()  running" in shown
    assert "running" in listed
    assert "1 tool, no errors" in finished


# Costs


def paid(trace: str, model: str = "gpt-4o", at: float = 0) -> list[dict[str, Any]]:
    """Return a trace of one turn of a model, and one around it that costs nothing."""
    process = Process(trace=trace)
    usage = {"promptTokens": 1_000_000, "completionTokens": 0}
    about = {"model": model, "provider": "openai", "latencyMs": 640}
    return [
        process.event("llm_response", 1, metadata={**about, "usage": usage}, at=at),
        process.event("llm_response", 2, metadata={**about, "wraps": True}, at=at),
    ]


def price() -> float:
    """Return what a million tokens of a prompt cost, by the price data."""
    usage = {"promptTokens": 1_000_000, "completionTokens": 0}
    amount = cost("gpt-4o", "openai", usage, "2026-11-21T22:30:00.000Z")
    assert amount is not None
    return float(amount)


def test_ls_shows_what_traces_cost(cli: Callable[..., Result], home: Path) -> None:
    """Before the time; one whose cost is not known has none."""
    record(home, paid("known", at=1), paid("unknown", model="tomorrow"))
    header, *lines = (line.split() for line in cli("ls", "--home", home).stdout.splitlines())
    listed = json.loads(cli("ls", "--json", "--home", home).stdout)

    assert header[-3:] == ["tokens", "cost", "time"]
    assert [line[-4:] for line in lines] == [
        ["1,000k", dollars(price()), "<1", "ms"],
        ["0", "1,000k", "<1", "ms"],
    ]
    assert {trace["traceId"]: trace["cost"] for trace in listed} == {"known": price(), "unknown": None}


def test_ls_has_no_column_for_costs_that_are_not_known(cli: Callable[..., Result], home: Path) -> None:
    """It would be empty."""
    record(home, paid("unknown", model="tomorrow"))

    assert "cost" not in cli("ls", "--home", home).stdout


def test_show_prints_what_a_trace_cost(cli: Callable[..., Result], home: Path) -> None:
    """Each turn and the whole; as JSON the turn has a member that it was recorded without."""
    events = paid("known")
    record(home, events)
    header, turn, around = cli("show", "known", "--home", home).stdout.splitlines()
    shown = json.loads(cli("show", "known", "--json", "--home", home).stdout)

    assert f", no errors · {dollars(price())} · 1,000,000 tokens" in header
    assert turn.endswith(f"  1,000,000 in / 0 out   {dollars(price())}   640 ms")
    assert "$" not in around
    assert shown == [{**events[0], "cost": price()}, events[1]]


def test_without_the_prices_nothing_is_said_of_costs(home: Path) -> None:
    """Help says how to get them."""
    record(home, paid("known"))
    program = """
        import sys
        sys.modules["genai_prices"] = None
        sys.argv[1:] = {command!r}
        from whyops_trace.__main__ import main
        main()
    """
    said = []
    for command in (["ls"], ["show", "known"], ["show", "known", "--json"], ["ls", "--help"]):
        with start_code(program.format(command=command), home) as process:
            out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        said.append(out)

    assert not any("cost" in out or "$" in out for out in said[:3])
    assert "pip install 'whyops-trace[prices]'" in " ".join(said[3].split())


# Hostile texts


def test_texts_of_a_trace_do_nothing_to_the_terminal(cli: Callable[..., Result], home: Path) -> None:
    """No escape or control of a trace reaches the terminal, and no markup is obeyed."""
    hostile = "\x1b[31m[bold]:smile:[/x]\x9b\u202e\r\nend"
    events = [
        *conversation(f"id{hostile}", answer=hostile, at=0),
        *tool_call(f"id{hostile}", tool=hostile, agentName=hostile),
    ]
    for number, event in enumerate(events):
        event.update(agentName=hostile, idempotencyKey=f"{TOKEN}-{number}")
    events[0]["content"]["messages"][0]["content"] = hostile
    record(home, events)
    listed, shown = cli("ls", "--home", home), cli("show", "latest", "--home", home)
    terminal = in_terminal(home, "ls", columns=200)

    for out in (listed.stdout, shown.stdout):
        assert "[bold]:smile:[/x]" in out
        assert all(character == "\n" or character.isprintable() for character in out)
    assert "\x1b[31m[bold]" not in terminal
    assert "\\x1b[31m[bold]:smile:[/x]" in terminal
    assert "\u202e" not in terminal


# Mistakes


def test_what_is_wrong_with_a_store_is_one_line(cli: Callable[..., Result], home: Path) -> None:
    """A damaged store is told with its remedy, and without a traceback."""
    home.mkdir()
    (home / "traces.db").write_bytes(b"junk" * 1000)
    result = cli("ls", "--home", home)

    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: .*traces\.db is damaged, or no store at all .*: move it away .*\n", result.stderr
    )
    assert result.exit_code == 1


def test_what_the_system_refuses_is_one_line(cli: Callable[..., Result]) -> None:
    """A command may fail for any reason that has an error number."""

    @click.command()
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    main.add_command(fail)
    try:
        result = cli("fail")
    finally:
        main.commands.pop("fail")

    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr == "Error: [Errno 13] Permission denied: '/somewhere'\n"


@pytest.mark.parametrize(
    "arguments", [["nope"], ["show"], ["ls", "--limit", "0"], ["ls", "--nope"], ["ls", "--home", __file__]]
)
def test_a_wrong_usage_is_exit_code_2(cli: Callable[..., Result], arguments: list[str]) -> None:
    """As with every other command."""
    result = cli(*arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


# The program


def test_help_has_an_example_for_every_command(cli: Callable[..., Result]) -> None:
    """And every command takes the home in the same way."""
    assert "Example: whyops-trace show latest" in cli("--help").stdout
    for name in ("ls", "show"):
        said = cli(name, "-h").stdout
        assert f"Example: whyops-trace {name}" in said
        assert "[env var:" in said


def run_code(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "whyops_trace", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def in_terminal(home: Path, *arguments: str, columns: int) -> str:
    """Run the program in a terminal and return what it wrote there."""
    controller, terminal = os.openpty()
    with open(terminal, "wb", closefd=True) as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "whyops_trace", *arguments],
            env=environment(home, COLUMNS=str(columns), TERM="xterm"),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    written = b""
    with process, open(controller, "rb", buffering=0) as output:
        try:
            while chunk := output.read(65_536):
                written += chunk
        except OSError:  # the program has ended, and the terminal with it
            pass
    return written.decode()


def test_the_program_finds_its_home_in_the_environment(home: Path) -> None:
    """``WHYOPS_HOME`` is where programs record, and so where the command looks."""
    record(home, tool_call())
    version = run_code(home, "--version")
    shown = run_code(home, "show", "latest", PYTHONUTF8="1")

    assert version.stdout == f"whyops-trace, version {__version__}\n"
    assert (shown.stdout, shown.stderr, shown.returncode) == (TREE, "", 0)


def test_a_home_may_begin_with_a_tilde(
    cli: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is ``~/.whyops``."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("WHYOPS_HOME")
    record(home / ".whyops", tool_call())

    assert cli("show", "latest").stdout == TREE
    assert cli("show", "latest", "--home", "~/.whyops").stdout == TREE


def test_an_output_that_cannot_spell_a_trace(home: Path) -> None:
    """Trees are drawn in ASCII then, and other texts lose what cannot be written."""
    record(home, tool_call("ünï"))
    shown, listed = (
        run_code(home, *command, PYTHONIOENCODING="ascii") for command in (["show", "latest"], ["ls"])
    )

    assert shown.stdout.splitlines()[1].startswith("`- * charge_card(amount=4999) > ")
    assert "?n?" in listed.stdout
    assert (shown.stderr, listed.stderr) == ("", "")


@pytest.mark.parametrize(
    "command", [["ls"], ["ls", "--json"], ["show", "latest"], ["show", "latest", "--json"]]
)
def test_a_reader_that_has_seen_enough(home: Path, command: list[str]) -> None:
    """``whyops-trace show latest | head`` ends without a word."""
    process = Process()
    events = [tool_request(process, step, tool="x" * 60) for step in range(1, 3000)]
    record(
        home,
        events,
        *([event] for event in (tool_request(Process(trace=f"{n:0128}"), 1) for n in range(200))),
    )
    record(home, [tool_request(process, 4000, at=1)])
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", closefd=True) as stream:
        program = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "whyops_trace", *command],
            env=environment(home),
            stdout=stream,
            stderr=subprocess.PIPE,
        )
    _, said = program.communicate(timeout=60)

    assert said == b""
    assert program.returncode == 1


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_says_how_to_install_it(home: Path, missing: str) -> None:
    """The command is there without what it needs, and says so."""
    program = f"""
        import sys
        sys.modules[{missing!r}] = None
        from whyops_trace.__main__ import main
        main()
    """
    with start_code(program, home) as process:
        out, said = process.communicate(timeout=60)

    assert (out, process.returncode) == ("", 1)
    assert said == 'install the command line with: pip install "whyops-trace[cli]"\n'


def test_another_missing_module_is_a_bug(home: Path) -> None:
    """And not hidden behind advice that does not help."""
    program = """
        import sys
        sys.modules["msgspec"] = None
        from whyops_trace.__main__ import main
        main()
    """
    with start_code(program, home) as process:
        _, said = process.communicate(timeout=60)

    assert "ModuleNotFoundError" in said
    assert "pip install" not in said
