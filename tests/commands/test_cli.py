"""The command line: what it prints, to whom, and with which exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
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
from programs import Program, environment, start, start_code

from whyops_trace import __version__
from whyops_trace._journal.journal import Journal
from whyops_trace._reading.excerpt import dollars
from whyops_trace._reading.prices import cost
from whyops_trace.cli import main
from whyops_trace.commands import follow
from whyops_trace.commands.common import Moment
from whyops_trace.commands.follow import follow_events
from whyops_trace.store import Store
from whyops_trace.testing import ManualClock

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
        "repeated": 1,
        "openCalls": 0,
        "forgotten": 0,
        "saidFailed": 0,
        "ending": "",
        "running": False,
        "cost": None,
        "scores": [],
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


# ls, only some


def kinds(home: Path) -> None:
    """Put one trace of each kind into the store of a home, a day apart."""
    day = 86_400_000
    failed = [
        *tool_call("failed", at=0),
        Process(trace="failed").event("trace_end", 3, metadata={"outcome": "error"}, at=0, end=True),
    ]
    failed[-1]["idempotencyKey"] = "end"
    looping = Process(trace="looping")
    loop = [tool_request(looping, step, at=2 * day, end=step == 3) for step in (1, 2, 3)]
    asked = {"messages": [{"role": "user", "content": "Where is it?"}]}
    about = {"trace": {"tags": ["beta"]}}
    silent = Process(trace="silent").event(
        "user_message", 1, content=asked, metadata=about, at=3 * day, end=True, externalUserId="u-7"
    )
    long = conversation("long", answer="Refunded", at=day)
    long[1]["timestamp"] = long[2]["timestamp"] = "2026-11-22T22:31:00.000Z"
    for event in long:
        event["agentName"] = "billing"
    record(home, failed, long, loop, [silent], [tool_request(Process(trace="open"), 1, at=4 * day)])


def test_ls_shows_what_stopped_in_the_middle(cli: Callable[..., Result], home: Path) -> None:
    """Though its last answer sounds like an end."""
    going = Process(trace="going")
    said = conversation("going", answer="I will migrate it.", at=0)[:2]
    record(
        home,
        [*said, going.event("llm_thinking", 3, metadata={"step": "go"}, idempotencyKey="k")],
        tool_call("done"),
    )
    Store(home / "traces.db").process_ended(TOKEN)
    result = cli("ls", "--stopped", "--home", home)

    assert "going" in result.stdout and "no end seen" in result.stdout
    assert "done" not in result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "open silent looping long failed"),
        (["--failed"], "failed"),
        (["--running"], "open"),
        (["--looping"], "looping"),
        (["--no-answer"], "silent"),
        (["--agent", "billing"], "long"),
        (["--user", "u-7"], "silent"),
        (["--tag", "beta"], "silent"),
        (["--slower", "30s"], "long"),
        (["--faster", "30s"], "open silent looping failed"),
        (["--since", "2026-11-23"], "open silent looping"),
        (["--until", "2026-11-22T23:00"], "long failed"),
        (["--since", "2026-11-22T22:30Z", "--until", "2026-11-24T22:30:00+00:00"], "looping long"),
        (["--since", "2000w"], "open silent looping long failed"),
        (["--agent", "shop", "--faster", "0.5m", "--failed"], "failed"),
    ],
    ids=" ".join,
)
def test_ls_lists_only_what_is_asked_for(
    cli: Callable[..., Result], home: Path, options: list[str], expected: str
) -> None:
    """A trace has to fit all options."""
    kinds(home)
    result = cli("ls", "--json", *options, "--home", home)

    assert [trace["traceId"] for trace in json.loads(result.stdout)] == expected.split()
    assert (result.stderr, result.exit_code) == ("", 0)


def test_ls_says_that_nothing_is_of_that_kind(cli: Callable[..., Result], home: Path) -> None:
    """Whoever has traces need not be told how to record them."""
    kinds(home)
    result = cli("ls", "--agent", "x\x1b[31m", "--home", home)

    assert result.stdout == f"None of the traces in {home} is of that kind.\n"
    assert result.exit_code == 1


def test_ls_says_how_many_more_there_are(cli: Callable[..., Result], home: Path) -> None:
    """On standard error, where it does not disturb whoever reads the list."""
    record(home, *(tool_call(f"t{n}", at=n) for n in range(5)), conversation("other", answer="Yes", at=0))
    some, all_of_them = (
        cli("ls", "--limit", limit, "--faster", "0.5s", "--home", home) for limit in ("2", "5")
    )

    assert some.stderr == "2 of 5 traces; --limit 5 lists all of them.\n"
    assert all_of_them.stderr == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--since", "yesterday"),
        ("--since", "7"),
        ("--since", "99999999999w"),
        ("--until", "2026-13-01"),
        ("--until", "\x1b[31m"),
        ("--slower", "fast"),
        ("--slower", "-3s"),
        ("--faster", "3 fortnights"),
        ("--faster", "nan"),
    ],
)
def test_a_time_that_is_none_says_how_to_write_one(
    cli: Callable[..., Result], home: Path, option: str, value: str
) -> None:
    """With an example, and exit code 2."""
    result = cli("ls", option, value, "--home", home)

    assert result.exit_code == 2
    assert re.search(r"is no (time|length of time); write .*(2d|12h)", " ".join(result.stderr.split()))
    assert "\x1b" not in result.stderr


def test_a_date_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it says another zone."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    times = [Moment().convert(text, None, None) for text in ("2026-11-22T05:30", "2026-11-22T05:30Z")]
    monkeypatch.undo()
    time.tzset()

    assert times == ["2026-11-22T00:00:00.000Z", "2026-11-22T05:30:00.000Z"]


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


def test_show_says_where_arguments_came_from(cli: Callable[..., Result], home: Path) -> None:
    """Below the tree, where that is asked for; short values have no origin."""
    process = Process()
    record(
        home,
        [
            tool_request(process, 1, tool="find", arguments={"page": 1}),
            tool_response(process, 2, 1, tool="find", results={"id": "A-7713"}),
            tool_request(process, 3, tool="use", arguments={"id": "A-7713"}),
        ],
    )
    plain, told = (cli("show", "latest", *more, "--home", home).stdout for more in ((), ("--origins",)))

    assert "origin" not in plain
    assert "origin: #3 id is from the result of find #2 (id)\n" in told


def test_a_trace_that_lost_its_beginning_says_so(cli: Callable[..., Result], home: Path) -> None:
    """As a tree, as Markdown and as a page."""
    record(home, tool_call())
    with contextlib.closing(Store(home / "traces.db")) as store:
        store.prune(max_bytes=0)
    record(home, tool_call())
    sentence = "The beginning is missing: 2 earlier events went with the limits of the store."

    for command in (
        ["show", "latest"],
        ["export", "latest"],
        ["export", "latest", "--format", "html", "-o", "-"],
    ):
        assert sentence in cli(*command).stdout


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


# show, parts


def nested(trace: str = "nested") -> list[dict[str, Any]]:
    """Return a trace of a step with a tool in it, in which another one is called."""
    process = Process(trace=trace)
    return [
        process.event("llm_thinking", 1, metadata={"step": "plan"}, content={"thinking": "plan"}),
        tool_request(process, 2, 1, within=1, tool="outer"),
        tool_request(process, 3, 2, within=2, tool="inner"),
        tool_response(process, 4, 3, tool="inner"),
        tool_response(process, 5, 2, tool="outer"),
        process.event("step_end", 1, metadata={"step": "plan", "latencyMs": 9}, end=True),
    ]


@pytest.mark.parametrize(
    ("depth", "names", "hidden"),
    [(1, ["plan"], 2), (2, ["plan", "outer"], 1), (3, ["plan", "outer", "inner"], 0)],
)
def test_show_has_a_depth(
    cli: Callable[..., Result], home: Path, depth: int, names: list[str], hidden: int
) -> None:
    """What is deeper is counted on standard error; the header counts all."""
    record(home, nested())
    result = cli("show", "nested", "--depth", depth, "--home", home)

    assert re.findall("plan|outer|inner", result.stdout) == names
    assert "2 tools" in result.stdout
    assert result.stderr == (
        f"{hidden} calls and events are deeper than --depth {depth}.\n" if hidden else ""
    )


def test_show_a_step(cli: Callable[..., Result], home: Path) -> None:
    """The record whole, as JSON on lines of their own; a step that has ended has two."""
    events = nested()
    record(home, events)
    one, two = (cli("show", "nested", "--step", n, "--home", home).stdout for n in (3, 1))
    as_json = cli("show", "nested", "--step", "1", "--json", "--home", home)

    assert json.loads(one) == events[2]
    assert one.count("\n") > 10
    assert json.loads("[" + two.replace("}\n{", "},{") + "]") == [events[0], events[-1]]
    assert json.loads(as_json.stdout) == [events[0], events[-1]]


def test_show_a_step_that_does_not_exist(cli: Callable[..., Result], home: Path) -> None:
    """One line says so."""
    record(home, nested())
    result = cli("show", "nested", "--step", "9", "--home", home)

    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr == "Error: There is no step 9 in 'nested'.\n"


def test_a_step_does_nothing_to_the_terminal(cli: Callable[..., Result], home: Path) -> None:
    """Its texts are as they were recorded, but for what would move a cursor."""
    record(home, tool_call(arguments={"q": "日本 \x1b[31m\x9b\u202e\x7f"}))
    out = cli("show", "latest", "--step", "1", "--home", home).stdout

    assert "日本" in out
    assert all(character == "\n" or character.isprintable() for character in out)


@pytest.mark.parametrize("option", ["--follow", "--depth=2"])
def test_show_of_a_step_takes_nothing_else(cli: Callable[..., Result], home: Path, option: str) -> None:
    """It is one event."""
    assert cli("show", "latest", "--step", "1", option, "--home", home).exit_code == 2


# show, live


def start_command(*arguments: str | Path, home: Path) -> Program:
    """Start the program."""
    return start("-m", "whyops_trace", *arguments, home=home)


def test_follow_prints_events_as_they_come(home: Path) -> None:
    """Each as a line, and none twice; the end of the trace is the end of the command."""
    events = nested()
    record(home, events[:2])
    with start_command("show", "nested", "--follow", "--json", home=home) as program:
        assert program.stdout is not None
        first = [json.loads(program.stdout.readline()) for _ in range(2)]
        record(home, events[2:4])
        second = [json.loads(program.stdout.readline()) for _ in range(2)]
        record(home, tool_call("another"))
        record(home, events[4:])
        rest, errors = program.communicate(timeout=60)

    assert [*first, *second, *map(json.loads, rest.splitlines())] == events
    assert (errors, program.returncode) == ("", 0)


def test_follow_ends_with_the_process_that_records(home: Path) -> None:
    """A killed one leaves a trace that nobody will end; what is in its journal is shown all the same."""
    program = """
        from whyops_trace import WhyOps, trace, traced_tool

        sdk = WhyOps(agent_name="shop")

        @traced_tool
        def wait() -> None:
            sdk.flush_sync()
            print("waiting", flush=True)
            input()

        with trace("killed"):
            wait()
    """
    with start_code(program, home) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        with start_command("show", "killed", "--follow", "--json", home=home) as follower:
            assert follower.stdout is not None
            seen = json.loads(follower.stdout.readline())
            agent.kill()
            rest, errors = follower.communicate(timeout=60)
    shown = start_command("show", "killed", "--follow", home=home)
    with shown:
        tree, _ = shown.communicate(timeout=60)

    assert seen["eventType"] == "tool_call_request"
    assert (rest, errors, follower.returncode) == ("", "", 0)
    assert "◌ wait()  unfinished" in tree


def test_follow_draws_the_tree_anew_in_a_terminal(home: Path) -> None:
    """What is seen at last is what `show` prints."""
    events = nested()
    record(home, events[:3])
    screen = Screen(home, "show", "nested", "--follow", columns=100)
    with screen:
        screen.read_until("inner(amount=4999)  running")
        record(home, events[3:])
        screen.read_until("no errors")
        said = screen.rest()

    assert "running" not in said.rpartition("nested · shop")[2]
    assert screen.process.returncode == 0


def test_follow_ends_where_nothing_more_comes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can see whether a process lives that reports to the collector, from wherever it is."""
    clock = ManualClock()
    store = Store(home / "traces.db", clock=clock)
    store.ingest(("", [encoded(tool_request(Process(), 1))]))
    monkeypatch.setattr(follow, "_PAUSE", 0.0)
    events = follow_events(home, store, "checkout-8841")
    first = next(events)
    clock.advance(3600)
    rest = list(events)
    store.close()

    assert (first["stepId"], rest) == (1, [])


@pytest.mark.parametrize(("records", "shown"), [(40, True), (2, False)])
def test_a_terminal_shows_how_much_of_a_large_backlog_is_stored(
    home: Path, records: int, shown: bool
) -> None:
    """Whatever the command is: it stores first what ended processes left; a small backlog takes no time."""
    journal = Journal(home / "journal" / "shop", stream="shop", agent="shop", destinations=["local"])
    for number in range(1, records + 1):
        line = Process(journal.token, trace="large").line("note", number, content={"text": "x" * 500_000})
        journal.append(line + b"\n")
    journal.renew()
    said = in_terminal(home, "ls", columns=100)

    assert ("storing what was recorded" in said) is shown
    assert "large" in said
    assert list((home / "journal").glob("*/*.seg")) == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_whoever_follows_may_stop(home: Path, options: list[str]) -> None:
    """With Ctrl-C, which is no mistake; what there was so far stays on the screen."""
    record(home, nested()[:3])
    screen = Screen(home, "show", "nested", "--follow", *options, columns=100)
    with screen:
        screen.read_until("inner")
        screen.process.send_signal(signal.SIGINT)
        said = screen.rest()

    assert screen.process.returncode == 0
    assert "inner" in said.rpartition("nested")[2] or options
    assert "Aborted" not in said


def test_what_is_followed_may_be_deleted(home: Path) -> None:
    """Then the command says so."""
    record(home, nested()[:2])
    with start_command("show", "nested", "--follow", "--json", home=home) as program:
        assert program.stdout is not None
        program.stdout.readline()
        store = Store(home / "traces.db")
        store.delete("nested")
        store.close()
        _, errors = program.communicate(timeout=60)

    assert errors == "Error: There is no trace 'nested'.\n"
    assert program.returncode == 1


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
    assert "pip install '.[prices]'" in " ".join(said[3].split())


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
    """A damaged store is told with the name of the file that is kept, and without a traceback."""
    home.mkdir()
    (home / "traces.db").write_bytes(b"junk" * 1000)
    result = cli("ls", "--home", home)

    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: .*traces\.db is damaged, or no store at all .*It is kept as .*traces\.db\.bad, .*\n",
        result.stderr,
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


def test_stats_shows_its_progress_in_a_terminal(home: Path) -> None:
    """Nothing of it stays there."""
    record(home, *(tool_call(f"t{number}") for number in range(200)))
    out = in_terminal(home, "stats", columns=100)

    assert "reading traces" in out
    assert "charge_card" in out.rpartition("reading traces")[2]
    assert run_code(home, "stats").stderr == ""


# The program


def test_help_has_an_example_for_every_command(cli: Callable[..., Result]) -> None:
    """And every command takes the home in the same way."""
    assert "Example: whyops-trace show latest" in cli("--help").stdout
    for name in ("ls", "show", "stats", "rm", "doctor"):
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


class Screen:
    """A terminal in which the program runs, in a with-block."""

    def __init__(self, home: Path, *arguments: str, columns: int) -> None:
        self._controller, terminal = os.openpty()
        self._seen = ""
        with open(terminal, "wb", closefd=True) as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "whyops_trace", *arguments],
                env=environment(home, COLUMNS=str(columns), LINES="24", TERM="xterm"),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def __enter__(self) -> None:
        self.process.__enter__()

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is not None:
            self.process.kill()
        self.process.__exit__(*exc)
        os.close(self._controller)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._controller, 65_536)
        except OSError:  # the program has ended, and the terminal with it
            return False
        self._seen += chunk.decode(errors="replace")
        return bool(chunk)

    def read_until(self, text: str) -> None:
        """Wait until a text was written; the test's own timeout is the limit."""
        while text not in re.sub("\x1b\\[[0-9;]*m", "", self._seen):
            assert self._read(), self._seen

    def rest(self) -> str:
        """Wait for the end of the program, and return all that it wrote."""
        while self._read():
            pass
        return self._seen


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
    assert said == (
        "The command line is not installed: install whyops-trace again with the extra cli; "
        "in a checkout: pip install '.[cli]'\n"
    )


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
