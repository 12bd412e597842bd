"""``whyops-trace rm``: which traces it deletes, what it says and asks, what stays; and how long traces are kept."""

from __future__ import annotations

import contextlib
import json
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lines import Process, encoded, tool_request
from programs import NOWHERE, in_terminal, run_code, start_code

from whyops_trace import WhyOps
from whyops_trace._clock import iso
from whyops_trace._delivery.draining import Patience, drain, take_in
from whyops_trace._journal.journal import Journal
from whyops_trace._journal.survey import survey
from whyops_trace.cli import main
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.exporters.base import Batch
from whyops_trace.exporters.local import LocalExporter
from whyops_trace.exporters.whyops.dead_letters import DeadLetters
from whyops_trace.server.query import Term
from whyops_trace.server.search import Index
from whyops_trace.settings import MAX_STORE_BYTES, MAX_STORE_DAYS, Retention, at_hand
from whyops_trace.store import MAX_AGE, MAX_BYTES, Store
from whyops_trace.testing import ManualClock

TOKEN = "9f2c41aa01be"
DAY = 86_400.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """Its store."""
    store = Store(home / "traces.db")
    yield store
    store.close()


@pytest.fixture
def cli(home: Path) -> Callable[..., Result]:
    """Runs the command on the home in this process; *answer* is typed where it asks."""

    def call(*arguments: object, answer: str = "") -> Result:
        return CliRunner().invoke(main, ["rm", *map(str, arguments), "--home", str(home)], input=answer)

    return call


def put(store: Store, *traces: str, days_ago: float = 0, size: int = 0, events: int = 1) -> None:
    """Store traces that were recorded on last so long ago, with so many bytes that cannot be compressed."""
    at = iso(time.time_ns() - round(days_ago * DAY * 1e9))
    for trace in traces:
        pad = {
            "toolCalls": [{"name": "card", "arguments": {"pad": random.Random(trace).randbytes(size).hex()}}]
        }
        process = Process(trace=trace)
        lines = [
            process.event("tool_call_request", n, timestamp=at, content=pad, end=n == events)
            for n in range(1, events + 1)
        ]
        store.ingest((TOKEN, list(map(encoded, lines))))


def left(store: Store) -> list[str]:
    """Return the traces that are there, in alphabetical order."""
    return sorted(trace.trace_id for trace in store.traces(1000))


# Which


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["alpha"], ["beta-1", "beta-2", "old"]),
        (["alp", "latest", "alpha"], ["beta-1", "old"]),
        (["beta-1", "old"], ["alpha", "beta-2"]),
        (["--older-than", "7d"], ["alpha", "beta-1", "beta-2"]),
        (["--older-than", "36h"], ["alpha", "beta-1", "beta-2"]),
        (["--older-than", "12h"], ["beta-2"]),
        (["--all"], []),
        (["--over", "1GB"], ["alpha", "beta-1", "beta-2", "old"]),
        (["--over", "0"], []),
    ],
    ids=lambda value: " ".join(value),
)
def test_rm_deletes_what_is_asked_for(
    cli: Callable[..., Result], store: Store, arguments: list[str], expected: list[str]
) -> None:
    """And nothing else."""
    put(store, "old", days_ago=8)
    put(store, "alpha", "beta-1", days_ago=1)
    put(store, "beta-2")
    result = cli(*arguments, "--yes")

    assert left(store) == expected
    assert (result.stderr, result.exit_code) == ("", 0)


def test_rm_over_a_size_deletes_the_oldest(cli: Callable[..., Result], store: Store, home: Path) -> None:
    """Until the others take no more, and about as much."""
    for number in range(40):
        put(store, f"t{number:02}", size=50_000)
    before = store.used_bytes()
    result = cli("--over", "1MB", "--yes")
    kept = left(store)

    assert before > 2_000_000
    assert 800_000 < store.used_bytes() <= 1_000_000
    assert kept == [f"t{number:02}" for number in range(40 - len(kept), 40)]
    assert re.search(rf"^Deleted {40 - len(kept)} traces: \d\.\d MB less, ", result.stdout, re.M)


def test_no_more_is_deleted_than_has_to_be(cli: Callable[..., Result], store: Store) -> None:
    """Small records take more room for their keys and indexes than for themselves."""
    put(store, *(f"t{number}" for number in range(1000)))
    half = store.used_bytes() // 2
    cli("--over", half, "--yes")

    assert 0.8 * half < store.used_bytes() <= half


def test_the_room_on_disk_is_given_back(cli: Callable[..., Result], store: Store) -> None:
    """The file is small again."""
    put(store, *(f"t{number}" for number in range(10)), size=100_000)
    store.close()
    before = store.path.stat().st_size
    cli("--all", "--yes")

    assert before > 1_000_000
    assert store.path.stat().st_size < 150_000
    assert not store.path.with_name("traces.db-wal").exists()


def test_the_room_is_given_back_while_others_have_the_file_open(
    cli: Callable[..., Result], store: Store
) -> None:
    """A program that records, or the viewer."""
    put(store, *(f"t{number}" for number in range(10)), size=100_000)
    store.close()
    before = left(store), store.path.stat().st_size
    cli("--all", "--yes")

    assert len(before[0]) == 10
    assert before[1] > 1_000_000
    assert left(store) == []
    assert store.path.stat().st_size < 150_000


def test_many_events_are_deleted_in_several_transactions(store: Store) -> None:
    """All of them, and no other trace's."""
    put(store, "kept")
    put(store, *(f"t{number}" for number in range(250)))
    put(store, "large-1", "large-2", events=6_000)
    names = [name for name in left(store) if name != "kept"]

    assert store.delete_all([*names, "nobody's", names[0]]) == 252
    assert left(store) == ["kept"]
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (1,)


def test_nothing_to_delete_is_fine(cli: Callable[..., Result], home: Path) -> None:
    """A job that runs each night has nothing to complain of; no store is made."""
    results = [cli(*arguments) for arguments in (["--all"], ["--older-than", "1d"], ["--over", "1kB"])]

    assert {result.stdout for result in results} == {"There is nothing to delete.\n"}
    assert {result.exit_code for result in results} == {0}
    assert not home.exists()


# What it says and asks


def test_rm_says_what_will_be_lost_and_asks(cli: Callable[..., Result], store: Store) -> None:
    """No is the default, and deletes nothing."""
    put(store, *(f"trace-{number:02}" for number in range(12)), events=3)
    no, nothing, yes = (cli("--all", answer=answer) for answer in ("n\n", "\n", "y\n"))
    shown = no.stdout.splitlines()

    assert len(shown) == 13
    assert shown[0].endswith("  trace-00  shop")
    assert shown[10:12] == ["and 2 more", "12 traces with 36 events."]
    assert shown[12].startswith("Delete this for good? [y/N]: ")
    assert (no.exit_code, nothing.exit_code, yes.exit_code) == (1, 1, 0)
    assert no.stderr == "Aborted!\n"
    assert left(store) == []
    assert "Deleted 12 traces: " in yes.stdout


def test_rm_says_that_traces_may_go_on(cli: Callable[..., Result], store: Store) -> None:
    """What is recorded after they are deleted would be a surprise else."""
    line = encoded(tool_request(Process(trace="open"), 1))
    store.ingest((TOKEN, [line]))
    said = cli("open", "--yes").stdout

    assert "1 trace with 1 event.\n1 trace may go on: what is recorded later begins anew.\n" in said


def test_rm_as_json(cli: Callable[..., Result], store: Store) -> None:
    """What was deleted and what is left; the question, if any, is on standard error."""
    put(store, "ä\x9b", "b", size=50_000)
    asked = cli("b", "--json", answer="y\n")
    result = cli("--all", "--json", "--yes")
    report = json.loads(result.stdout)

    assert json.loads(asked.stdout)["deleted"] == ["b"]
    assert "Delete this for good?" in asked.stderr
    assert report["deleted"] == ["ä\x9b"]
    assert report["bytesFreed"] > 40_000
    assert report["bytes"] == store.used_bytes()
    assert (report["journal"], report["refused"]) == ({"waiting": 0, "inUse": 0}, 0)
    assert result.stdout.isascii()
    assert result.stderr == ""


def test_a_terminal_sees_how_far_it_is(home: Path, store: Store) -> None:
    """On standard error, so that it is in no file."""
    put(store, "a")
    said, bar = in_terminal(home, "rm", "--all", "--yes")

    assert "deleting" in bar
    assert "Deleted 1 trace" in said and "deleting" not in said


def test_a_preview_does_nothing_to_the_terminal(cli: Callable[..., Result], store: Store) -> None:
    """Ids and questions come from anywhere."""
    hostile = "\x1b[31m\x9b\u202e\r\nend"
    asked = {"messages": [{"role": "user", "content": hostile + "x" * 500}]}
    event = Process(trace=f"id{hostile}").event("user_message", 1, content=asked, agentName=hostile)
    store.ingest((TOKEN, [encoded(event)]))
    said = cli("--all", answer="n\n").output

    assert "\\x1b[31m" in said
    assert max(map(len, said.splitlines())) < 150
    assert all(character == "\n" or character.isprintable() for character in said)


# Mistakes


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "--all"],
        ["--older-than", "7d", "--over", "1MB"],
        ["--older-than", "old"],
        ["--older-than", "999999999999999w"],
        ["--over", "much"],
        ["--over", "-1MB"],
        ["--over", "1TB"],
    ],
    ids=" ".join,
)
def test_a_wrong_usage_deletes_nothing(
    cli: Callable[..., Result], store: Store, arguments: list[str]
) -> None:
    """Exit code 2, and no traceback."""
    put(store, "a")
    result = cli(*arguments, "--yes")

    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert left(store) == ["a"]


@pytest.mark.parametrize("name", ["nobody", "t", "", "x\x1b[31m", "\ud800", "'; DROP TABLE traces; --"])
def test_a_name_that_is_not_clear_deletes_nothing(
    cli: Callable[..., Result], store: Store, name: str
) -> None:
    """Of all that are named; one line says what to type."""
    put(store, "t1", "t2", "u")
    result = cli("u", name, "--yes")

    assert (result.stdout, result.exit_code) == ("", 1)
    assert re.fullmatch(r"Error: (There is no trace|2 traces begin with) .*\n", result.stderr)
    assert "\x1b" not in result.stderr
    assert left(store) == ["t1", "t2", "u"]


def test_a_file_that_is_no_store_is_set_aside(cli: Callable[..., Result], home: Path) -> None:
    """It may be somebody's."""
    home.mkdir()
    (home / "traces.db").write_bytes(b"junk" * 1000)
    result = cli("--all", "--yes")

    assert re.fullmatch(r"Error: .*traces\.db is damaged, or no store at all .*\n", result.stderr)
    assert result.exit_code == 1
    assert (home / "traces.db.bad").read_bytes() == b"junk" * 1000


# What stays elsewhere


def test_rm_says_what_the_journals_still_hold(cli: Callable[..., Result], store: Store, home: Path) -> None:
    """Of the deleted traces: what waits for a server, and what a running process uses."""
    put(store, "gone", "other")
    journals = [
        Journal(home / "journal" / name, stream=name, agent="shop", destinations=["whyops"])
        for name in ("left", "used")
    ]
    for journal in journals:
        for trace in ("gone", "gone", "other"):
            event = Process(trace=trace).event("user_message", 1)
            journal.append(encoded(event) + b"\n")
        journal.append(encoded(event).replace(b'"other"', b'"\\q"') + b"\n")
        journal.append(b"{}\n")
    journals[0].close()
    told = cli("gone", "--yes").stdout.splitlines()[-2:]
    as_json = json.loads(cli("other", "--yes", "--json").stdout)
    journals[1].close()

    assert told == [
        "The journal still has 2 records of deleted traces for another destination; "
        "`whyops-trace journal purge --all` deletes what is in it.",
        "The journal of a running process still has 2 records of deleted traces, until that ends at the latest.",
    ]
    assert as_json["journal"] == {"waiting": 1, "inUse": 1}
    assert len(survey(home).streams) == 2


def test_rm_says_what_a_server_refused(cli: Callable[..., Result], store: Store, home: Path) -> None:
    """It is in a file of its own; lines of it that are none are passed over."""
    put(store, "gone", "other")
    letters = DeadLetters(home / "rejected.ndjson")
    for trace in ("gone", "other", "gone"):
        letters.add(encoded(Process(trace=trace).event("error", 1)), "no")
    with letters.path.open("ab") as file:
        file.write(b'{"event": []}\n\xff\n')

    assert cli("gone", "--yes").stdout.splitlines()[-1] == (
        "rejected.ndjson still has 2 events of deleted traces that a server refused; "
        "`whyops-trace journal purge --rejected` deletes it."
    )


def test_the_words_of_deleted_traces_are_forgotten(
    cli: Callable[..., Result], store: Store, home: Path
) -> None:
    """Those of the others are found all the same, by a viewer that has had the index open."""
    put(store, "gone", "kept", size=30)
    index = Index(home, store)
    index.catch_up(30)
    before = index.find([Term("card")], 30).trace_ids
    cli("gone", "--yes")
    files = [path.name for path in home.glob("search.db*")]
    after = index.find([Term("card")], 30).trace_ids
    index.close()

    assert (before, files, after) == (["gone", "kept"], [], ["kept"])
    assert b"gone" not in (home / "search.db").read_bytes()


# While others write


def test_traces_are_deleted_while_another_process_writes(
    cli: Callable[..., Result], store: Store, home: Path
) -> None:
    """Nothing that it records elsewhere is lost, and what it records on a deleted trace begins anew."""
    program = """
        import sys
        from whyops_trace import WhyOps

        sdk = WhyOps(agent_name="writer")
        conversation = sdk.trace("conversation")
        for number in range(2000):
            conversation.user_message_sync([{"role": "user", "content": str(number)}])
            sdk.trace(f"kept-{number % 20}").error_sync(str(number))
            if number % 100 == 99:
                sdk.flush_sync()
            if number == 99:
                print("begun", flush=True)
                sys.stdin.readline()
        conversation.user_message_sync([{"role": "user", "content": "last"}])
        sys.exit(sdk.flush_sync()["local"].pending)
    """
    put(store, *(f"old-{number}" for number in range(300)), size=2_000)
    with start_code(program, home) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        begun = cli("conversation", "--yes")
        writer.stdin.write("go\n")
        writer.stdin.flush()
        results = [cli(f"old-{number}", "--yes") for number in range(300)]
        _, errors = writer.communicate(timeout=60)
    said = [event["content"]["messages"][0]["content"] for event in store.events("conversation")]

    assert (errors, writer.returncode) == ("", 0)
    assert {result.exit_code for result in [begun, *results]} == {0}
    assert left(store) == ["conversation", *sorted(f"kept-{number}" for number in range(20))]
    assert said == [*map(str, range(100, 2000)), "last"]
    assert sum(len(store.events(f"kept-{number}")) for number in range(20)) == 2000
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for table in ("records", "turns", "uses", "runs"):
            orphans = f"SELECT count(*) FROM {table} WHERE trace NOT IN (SELECT id FROM traces)"
            assert connection.execute(orphans).fetchone() == (0,)


# How long traces are kept


def test_the_defaults_are_a_week_and_half_a_gibibyte(home: Path) -> None:
    """In one place for clients and for the store."""
    assert WhyOps(home=home).settings.retention == Retention() == (MAX_AGE, MAX_BYTES) == (7 * DAY, 512 << 20)
    assert (MAX_STORE_DAYS, MAX_STORE_BYTES) == (7, 512 << 20)


def test_the_retention_is_set_by_arguments_or_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments win."""
    monkeypatch.setenv("WHYOPS_MAX_STORE_DAYS", "0.5")
    monkeypatch.setenv("WHYOPS_MAX_STORE_BYTES", "2_000_000")

    assert WhyOps(home=home).settings.retention == (0.5 * DAY, 2_000_000)
    assert WhyOps(home=home, max_store_days=30, max_store_bytes=1 << 20).settings.retention == (
        30 * DAY,
        1 << 20,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_store_days", 0),
        ("max_store_days", -1),
        ("max_store_days", float("inf")),
        ("max_store_days", float("nan")),
        ("max_store_days", True),
        ("max_store_days", "7"),
        ("max_store_bytes", 1000),
        ("max_store_bytes", 2e9),
        ("max_store_bytes", True),
    ],
)
def test_a_retention_that_cannot_be_obeyed_is_refused(home: Path, name: str, value: Any) -> None:
    """With the name of the argument and of the variable."""
    with pytest.raises(ConfigurationError, match=rf"{name} \(WHYOPS_{name.upper()}\) is "):
        WhyOps(home=home, **{name: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("WHYOPS_MAX_STORE_DAYS", "a week"), ("WHYOPS_MAX_STORE_DAYS", "0"), ("WHYOPS_MAX_STORE_BYTES", "1GB")],
)
def test_a_variable_that_cannot_be_obeyed_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """It is shown as it is written."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=rf"\({variable}\) is '{value}'"):
        WhyOps(home=home)


def aged(home: Path) -> None:
    """Put a trace into the store that was last written to three days ago, and one of half a day ago."""
    for days, trace in ((3.0, "aged"), (0.5, "later")):
        store = Store(home / "traces.db", clock=ManualClock(time.time_ns() - round(days * 86_400 * 10**9)))
        put(store, trace)
        store.close()


@pytest.mark.parametrize(("days", "expected"), [(2, ["later", "new"]), (4, ["aged", "later", "new"])])
def test_a_client_forgets_what_is_too_old(home: Path, store: Store, days: float, expected: list[str]) -> None:
    """When it begins to store."""
    aged(home)
    with WhyOps(home=home, max_store_days=days) as sdk:
        sdk.trace("new").error_sync("no")

    assert left(store) == expected


def test_a_client_forgets_what_is_too_much(home: Path, store: Store) -> None:
    """The oldest first."""
    for number in range(10):
        put(store, f"t{number}", size=300_000)
    with WhyOps(home=home, max_store_bytes=1 << 20) as sdk:
        sdk.trace("x").error_sync("no")

    assert left(store)[-1] == "x"
    assert 0 < len(left(store)) < 5
    assert store.used_bytes() <= 1 << 20


def test_whoever_only_looks_or_delivers_forgets_nothing(home: Path, store: Store) -> None:
    """How long traces are kept is up to the programs that record them."""
    old = Store(home / "traces.db", clock=ManualClock(time.time_ns() - 30 * 86_400 * 10**9))
    put(old, "old")
    old.close()
    settings = at_hand(home)
    for trace in ("looked", "flushed"):
        sdk = WhyOps("", "shop", home=home, exit_timeout=0.0, analyse_base_url=NOWHERE)
        journal = home / "journal" / sdk.settings.stream(["local"])
        sdk.close_sync()
        writer = Journal(journal, stream=journal.name, agent="shop", destinations=["local"])
        writer.append(encoded(tool_request(Process(writer.token, trace), 1)) + b"\n")
        writer.close()
        if trace == "looked":
            take_in(home)
        else:
            (stream,) = survey(home).streams
            drain(home, settings, stream, Patience(0.0), lambda _: None)

    assert left(store) == ["flushed", "looked", "old"]


def test_a_clock_that_stands_in_the_future_deletes_nothing(home: Path, store: Store) -> None:
    """Neither that of a test, which replaced the one of Python, nor that of a machine, for as long as it is new."""
    aged(home)
    code = """
        import time
        now = time.time_ns
        time.time, time.time_ns = (lambda: now() / 1e9 + 1e9), (lambda: now() + 10**18)
        from whyops_trace import WhyOps
        with WhyOps().trace("of a test") as trace:
            trace.error_sync("boom")
    """
    assert run_code(code, home).stderr == ""
    for _ in range(2):
        ahead = Store(home / "traces.db", clock=ManualClock(time.time_ns() + 10**18))
        put(ahead, "of a machine")
        ahead.prune()
        ahead.close()

    assert left(store) == ["aged", "later", "of a machine", "of a test"]


def test_rm_by_age_does_not_believe_a_clock_that_is_behind(
    cli: Callable[..., Result], home: Path, store: Store
) -> None:
    """The age of traces is not known for sure then."""
    ahead = Store(home / "traces.db", clock=ManualClock(time.time_ns() + 10**12))
    put(ahead, "new")
    ahead.close()
    result = cli("--older-than", "1s", "--yes")

    assert result.exit_code == 1
    assert "nothing is deleted for its age while one of them is wrong" in result.stderr
    assert left(store) == ["new"]


def test_an_exporter_keeps_what_it_is_told_to(home: Path) -> None:
    """By itself a week; with no retention everything."""
    aged(home)
    for retention, expected in (
        (None, ["aged", "later", "x"]),
        (Retention(), ["aged", "later", "x"]),
        (Retention(60.0), ["later", "x"]),
    ):
        exporter = LocalExporter(home / "traces.db", hint=False, retention=retention)
        exporter.export(Batch(TOKEN, [Process(trace="x").line("error", 1)], False))
        kept = left(exporter.store)
        exporter.close()

        assert kept == expected
