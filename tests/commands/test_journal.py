"""``whyops-trace journal``: what it shows, what it delivers to whom, and what it deletes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from collector import Collector
from journals import die, fill, make
from programs import ROOT, environment, run_code, start, stored
from wire import Answer

from whyops_trace import WhyOps
from whyops_trace._journal.directory import segment_files
from whyops_trace._journal.header import PAGE
from whyops_trace._journal.segment import CHUNK
from whyops_trace._journal.survey import look
from whyops_trace.cli import main
from whyops_trace.commands.journal import journal
from whyops_trace.exporters.base import Batch, Exporter, Outcome

KEY, OTHER_KEY = "whyops_test", "whyops_other"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A server with two accounts, which refuses connections until it is started."""
    with Collector(keys={KEY: "tenant", OTHER_KEY: "other"}) as collector:
        collector.stop()
        yield collector


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Callable[..., Result]:
    """Runs a command of ``journal`` in this process, with a key or without."""

    def call(*arguments: object, key: str | None = KEY, url: str = collector.url, **options: Any) -> Result:
        monkeypatch.setenv("WHYOPS_ANALYSE_URL", url)
        monkeypatch.setenv("WHYOPS_API_KEY", key or "")
        return CliRunner().invoke(main, ["journal", *map(str, arguments)], **options)

    return call


def client(home: Path, collector: Collector, key: str = KEY, agent: str = "shop", **options: Any) -> WhyOps:
    """Return a client of the collector's server."""
    urls: dict[str, Any] = {"analyse_base_url": collector.url, "proxy_base_url": collector.proxy_url}
    return WhyOps(key, agent, home=home, exit_timeout=0.0, **urls, **options)


def leave(home: Path, collector: Collector, *traces: str, **options: Any) -> None:
    """Record a question on each trace, and end without delivering it."""
    others = threading.enumerate()
    sdk = client(home, collector, **options)
    for trace in traces:
        ask(sdk, trace)
    sdk.close_sync(0)
    for thread in threading.enumerate():
        if thread not in others:
            thread.join(30)


def ask(sdk: WhyOps, trace: str) -> None:
    """Record one event."""
    sdk.trace(trace).user_message_sync([{"role": "user", "content": f"What of {trace}?"}])


def streams(cli: Callable[..., Result], **options: Any) -> list[dict[str, Any]]:
    """Return what status says of the streams."""
    found: list[dict[str, Any]] = json.loads(cli("status", "--json", **options).stdout)["streams"]
    return found


def pending(cli: Callable[..., Result]) -> list[tuple[str, int]]:
    """Return how many records wait for the server, by agent."""
    return [(stream["agent"], stream["destinations"]["whyops"]["pending"]) for stream in streams(cli)]


def traces(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the trace of each row."""
    return [row["traceId"] for row in rows]


class Archive(Exporter):
    """A destination of the user's own, which takes nothing."""

    name = "archive"

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """Fail."""
        raise OSError("the archive is closed")


# Looking


def test_a_look_counts_complete_records_and_disturbs_nobody(tmp_path: Path) -> None:
    """What the owner appends meanwhile is seen, but for a record that is only half there."""
    journal = make(tmp_path)
    fill(journal, range(3))
    journal.append(b'{"n":')
    (path,) = segment_files(tmp_path / "journal" / "shop")
    seen = look(path)

    assert seen is not None
    assert seen.in_use
    assert list(seen.records()) == [(PAGE + n * 17, b'{"n":%d,"pad":""}' % n) for n in range(3)]

    fill(journal, range(3, 20_000))
    die(journal)
    first, *others = segment_files(tmp_path / "journal" / "shop")
    later = look(first)

    assert others
    assert later is not None
    assert not later.in_use
    assert list(later.records())[:2] == list(seen.records())[:2]

    first.unlink()

    assert look(first) is None
    assert list(later.records()) == []


def test_a_look_goes_on_behind_a_gap(tmp_path: Path) -> None:
    """A write that a kill cut short is no record; what follows it is, and comes at its place."""
    journal = make(tmp_path)
    fill(journal, range(1))
    (path,) = segment_files(tmp_path / "journal" / "shop")
    die(journal)
    with path.open("r+b") as file:
        file.seek(PAGE + 17 + 5)
        file.write(b'"n":2}\n{"n":3}\n')
        file.seek(PAGE + CHUNK)
        file.write(b'{"n":4}\n')
    seen = look(path)

    assert seen is not None
    assert list(seen.records()) == [
        (PAGE, b'{"n":0,"pad":""}'),
        (PAGE + 17 + 5 + 7, b'{"n":3}'),
        (PAGE + CHUNK, b'{"n":4}'),
    ]


# status


def test_the_status_of_an_empty_journal_is_kind(cli: Callable[..., Result], home: Path) -> None:
    """And makes no files."""
    result = cli("status")

    assert (result.stdout, result.stderr) == (f"Nothing waits in the journal of {home}.\n", "")
    assert result.exit_code == 0
    assert not home.exists()


def test_status_shows_what_waits_for_whom(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """For each destination, what is pending and what was done, as a table and as JSON."""
    leave(home, collector, "a", "b", store=True)
    CliRunner().invoke(main, ["ls"])
    name = client(home, collector).settings.stream(["local", "whyops"])
    (stream,) = streams(cli)
    table = cli("status").stdout
    zero = {"leftBehind": 0, "delivered": 0, "sampledOut": 0, "rejected": 0, "dropped": 0}

    assert stream["agent"] == "shop"
    assert stream["stream"] == name
    assert (stream["segments"], stream["inUse"], stream["waitsForKey"]) == (1, 0, False)
    assert stream["bytes"] > 4096
    assert stream["destinations"] == {
        "local": {**zero, "pending": 0, "delivered": 2},
        "whyops": {**zero, "pending": 2, "leftBehind": 2},
    }
    assert re.search(
        rf"^{stream['stream']}  shop +\d\d-\d\d \d\d:\d\d +1 file, \d+ KiB +left behind", table, re.M
    )
    assert "local: 0 pending, 2 delivered" in table
    assert "whyops: 2 pending" in table


def test_status_leaves_a_running_process_alone(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Its segment is in use, and it goes on to deliver it; its console is its own affair."""
    leave(home, collector, "before", agent="old", console=True)
    sdk = client(home, collector)
    ask(sdk, "now")
    seen = {
        stream["agent"]: (
            stream["segments"],
            stream["inUse"],
            stream["destinations"]["whyops"]["pending"],
            stream["destinations"]["whyops"]["leftBehind"],
        )
        for stream in streams(cli)
    }
    table = cli("status").stdout

    assert seen == {"old": (1, 0, 1, 1), "shop": (1, 1, 1, 0)}
    assert "in use" in table

    collector.start()

    assert sdk.flush_sync(30)["whyops"].delivered == 1
    assert traces(collector.stored) == ["now"]


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ({"key": None}, {}),
        ({"key": OTHER_KEY}, {}),
        ({"url": "http://127.0.0.1:1/api"}, {}),
        ({}, {"WHYOPS_TRACING": "local"}),
    ],
)
def test_status_says_what_waits_for_its_key(
    cli: Callable[..., Result],
    home: Path,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    environ: dict[str, str],
) -> None:
    """Only the key and the URL that recorded it may deliver it, whatever the agent is called here."""
    monkeypatch.setenv("WHYOPS_AGENT_NAME", "another")
    leave(home, collector, "a")
    fitting = cli("status").stdout
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert "waits for its key" not in fitting
    assert "whyops waits for its key" in cli("status", **options).stdout
    assert [stream["waitsForKey"] for stream in streams(cli, **options)] == [True]


def test_status_names_files_that_cannot_be_read_and_counts_refused_events(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Those set aside already, and those that will be."""
    leave(home, collector, "a")
    (folder,) = (home / "journal").iterdir()
    set_aside, damaged, cut = (
        folder / name for name in ("000000000000-1.seg.bad", "111111111111-1.seg", "222222222222-2.seg")
    )
    set_aside.write_bytes(b"junk")
    damaged.write_bytes(b"junk" * 2000)
    (segment,) = [path for path in segment_files(folder) if path not in (damaged, cut)]
    cut.write_bytes(segment.read_bytes()[:3000])
    (home / "rejected.ndjson").write_text("{}\n{}\n")
    result = cli("status")
    shown = json.loads(cli("status", "--json").stdout)

    assert [
        f"{path} is damaged or of another version, and is set aside." in result.stdout
        for path in (set_aside, damaged, cut)
    ]
    assert f"2 events refused by a server: {home}/rejected.ndjson" in result.stdout
    assert set(shown["setAside"]) == {str(set_aside), str(damaged), str(cut)}
    assert shown["rejected"] == {f"{home}/rejected.ndjson": 2}
    assert len(shown["streams"]) == 1


def test_nothing_a_file_says_reaches_the_terminal(cli: Callable[..., Result], home: Path) -> None:
    """An agent may be called anything, and a header may claim any date."""
    dead = make(home, stream="s", destinations=["whyops", "\x1b[31mred"])
    dead._agent = "\x1b[31m[bold]red"
    fill(dead, range(1))
    die(dead)
    (path,) = segment_files(home / "journal" / "s")
    path.write_bytes(
        re.sub(rb'"created":"[^"]*"', b'"created":"the day after yesterday!"', path.read_bytes())
    )
    shown = cli("status").stdout + cli("flush", key=None).stdout

    assert "\x1b" not in shown
    assert "\\x1b[31m[bold]red" in shown
    assert "\\x1b[31mred: 1 pending" in shown


# flush


def test_flush_says_when_there_is_nothing(cli: Callable[..., Result], home: Path) -> None:
    """And succeeds."""
    result = cli("flush")

    assert result.stdout == f"Nothing waits in the journal of {home} that a process has left.\n"
    assert result.exit_code == 0


def test_flush_delivers_everywhere(cli: Callable[..., Result], home: Path, collector: Collector) -> None:
    """To the store and to the server, whatever killed the process."""
    program = """
        import os
        from whyops_trace import WhyOps
        sdk = WhyOps("whyops_test", "shop", store=True)
        for number in range(500):
            sdk.trace(f"t{number}").error_sync("out of luck")
        os._exit(1)
    """
    run_code(program, home, WHYOPS_ANALYSE_URL=collector.url, WHYOPS_PROXY_URL=collector.proxy_url)
    (before,) = streams(cli)
    collector.start()
    result = cli("flush")

    assert before["destinations"]["whyops"]["leftBehind"] == 500
    assert f"{before['stream']} (shop) to whyops: 500 delivered\n" in result.stdout
    assert (result.stderr, result.exit_code) == ("", 0)
    assert sorted(traces(collector.stored)) == sorted(f"t{number}" for number in range(500))
    assert len(stored(home, "t0")) == len(stored(home, "t499")) == 1
    assert streams(cli) == []


def test_flush_never_sends_events_with_another_key(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Each account gets its own, and a stream without its key stays, which is no failure."""
    leave(home, collector, "mine")
    leave(home, collector, "theirs", key=OTHER_KEY)
    collector.start()
    without = cli("flush", key=None)

    assert without.stdout.count("0 delivered, 1 stay: WHYOPS_API_KEY is not set\n") == 2
    assert without.exit_code == 0
    assert collector.requests == []

    mine = cli("flush")

    assert "to whyops: 1 delivered\n" in mine.stdout
    assert "0 delivered, 1 stay: they were recorded with another key, or for another server" in mine.stdout
    assert mine.exit_code == 0
    assert {row["traceId"]: row["userId"] for row in collector.stored} == {"mine": "tenant"}

    cli("flush", key=OTHER_KEY)

    assert {row["traceId"]: row["userId"] for row in collector.stored} == {
        "mine": "tenant",
        "theirs": "other",
    }
    assert streams(cli) == []


def test_a_segment_in_the_folder_of_another_stream_is_not_sent(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """It may be another key's, whoever put it there."""
    leave(home, collector, "mine")
    (mine,) = (home / "journal").iterdir()
    leave(home, collector, "theirs", key=OTHER_KEY)
    (theirs,) = (folder for folder in (home / "journal").iterdir() if folder != mine)
    for path in theirs.iterdir():
        path.rename(mine / path.name)
    collector.start()
    cli("flush")

    assert traces(collector.stored) == ["mine"]


def test_tracing_that_is_local_sends_nothing(
    cli: Callable[..., Result], home: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with the key."""
    leave(home, collector, "a")
    collector.start()
    monkeypatch.setenv("WHYOPS_TRACING", "local")
    result = cli("flush")

    assert "1 stay: WHYOPS_TRACING is local, so nothing leaves this machine\n" in result.stdout
    assert collector.requests == []


def test_flush_delivers_the_oldest_first(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Over all streams that the key may deliver, and within each."""
    for number in range(4):
        leave(home, collector, f"t{number}", agent=f"agent{3 - number}")
    leave(home, collector, *(f"t{number}" for number in range(4, 2_000)), agent="last")
    collector.start()
    result = cli("flush")

    assert result.exit_code == 0
    assert traces(collector.stored) == [f"t{number}" for number in range(2_000)]


def test_flush_leaves_a_running_process_alone(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """It delivers its own."""
    sdk = client(home, collector)
    ask(sdk, "now")
    result = cli("flush")

    assert result.stdout.startswith("Nothing waits")
    assert result.exit_code == 0
    assert pending(cli) == [("shop", 1)]


def test_a_server_that_cannot_be_reached_is_one_line(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Nothing is lost, and the exit code says that it is not delivered."""
    leave(home, collector, "a", "b")
    result = cli("flush", "--timeout", 0)

    assert re.fullmatch(
        r"\w{16} \(shop\) to whyops: 0 delivered, 2 stay: http\S+/api cannot be reached: .*refused.*\n",
        result.stdout,
    )
    assert (result.stderr, result.exit_code) == ("", 1)
    assert pending(cli) == [("shop", 2)]


def test_a_key_that_was_revoked_is_one_line(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """It says what to check, and is not tried for half a minute."""
    leave(home, collector, "a")
    collector.keys.clear()
    collector.start()
    result = cli("flush")

    assert "1 stay: " in result.stdout
    assert "it refuses the API key (401). Check api_key (WHYOPS_API_KEY)" in result.stdout
    assert result.exit_code == 1
    assert len(collector.requests) == 1


def test_a_server_that_is_down_for_a_moment_is_asked_again(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """As long as the timeout allows; what waits for nobody is not spoken of."""
    leave(home, collector, "a", store=True)
    CliRunner().invoke(main, ["ls"])
    collector.start()
    collector.fail(Answer(503))
    result = cli("flush")

    assert re.fullmatch(r"\w{16} \(shop\) to whyops: 1 delivered\n", result.stdout)
    assert result.exit_code == 0


def test_a_server_that_took_nothing_in_time_is_given_up_for_all_streams(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """One try for each further stream is enough."""
    for agent in ("a", "b", "c"):
        leave(home, collector, "t", agent=agent, store=True)
    collector.start()
    collector.script = lambda _: Answer(503, headers={"Retry-After": "1"})
    result = cli("flush", "--timeout", 1.5)

    assert result.stdout.count("1 stay: ") == 3
    assert result.exit_code == 1
    assert 3 <= len(collector.requests) <= 4


def test_what_the_server_refuses_or_samples_out_is_counted(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """A refused event is kept beside the journal, and status says where."""
    leave(home, collector, "bad", "good")
    collector.reject = lambda event: "no thanks" if event["traceId"] == "bad" else None
    collector.start()
    refused = cli("flush")
    collector.reject = None
    collector.sampling_rate = 0.0
    leave(home, collector, "rare")
    sampled = cli("flush")

    assert "to whyops: 1 delivered, 1 refused\n" in refused.stdout
    assert "1 event refused by a server: " in cli("status").stdout
    assert "to whyops: 0 delivered, 1 sampled out by the server\n" in sampled.stdout
    assert (refused.exit_code, sampled.exit_code) == (0, 0)


def test_a_destination_of_the_users_own_is_left_to_its_program(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """The command line has no such exporter."""
    leave(home, collector, "a", exporters=[Archive()])
    collector.start()
    result = cli("flush")

    assert "to whyops: 1 delivered\n" in result.stdout
    assert "to archive: 0 delivered, 1 stay: only a program that has this exporter" in result.stdout
    assert result.exit_code == 0


def test_a_store_that_is_damaged_holds_up_no_server(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """The records stay for the day when it is mended."""
    home.mkdir()
    (home / "traces.db").write_bytes(b"junk" * 1000)
    leave(home, collector, "a", store=True)
    collector.start()
    result = cli("flush")

    assert re.search(r"to local: 0 delivered, 1 stay: .*traces\.db is damaged", result.stdout)
    assert "to whyops: 1 delivered\n" in result.stdout
    assert result.exit_code == 1


def test_progress_is_shown_on_a_terminal_only(home: Path, collector: Collector) -> None:
    """On standard error, so that the result can be piped away."""
    leave(home, collector, "a")
    collector.start()
    controller, terminal = os.openpty()
    with open(terminal, "wb", closefd=True) as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "whyops_trace", "journal", "flush"],
            env=environment(home, TERM="xterm", WHYOPS_API_KEY=KEY, WHYOPS_ANALYSE_URL=collector.url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
        )
    shown = b""
    with process, open(controller, "rb", buffering=0) as output:
        out = process.stdout.read() if process.stdout else b""
        try:
            while chunk := output.read(65_536):
                shown += chunk
        except OSError:  # the program has ended, and the terminal with it
            pass

    assert b"to whyops: 1 delivered\n" in out
    assert b"delivering" in shown


# purge


def test_purge_wants_to_know_what(cli: Callable[..., Result], home: Path, collector: Collector) -> None:
    """A word too few deletes nothing."""
    leave(home, collector, "a")
    result = cli("purge", "--yes")

    assert result.exit_code == 2
    assert "journal status` shows them, or give --all or --rejected" in result.stderr
    assert pending(cli) == [("shop", 1)]


def test_purge_names_what_is_lost_and_asks(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Whoever says no keeps it."""
    leave(home, collector, "a", "b", store=True)
    (stream,) = streams(cli)
    local = stream["destinations"]["local"]["leftBehind"]
    refused = cli("purge", stream["stream"], input="n\n")

    assert f"{stream['stream']} (shop): " in refused.stdout
    assert "2 records not delivered to whyops" in refused.stdout
    assert ("not delivered to local" in refused.stdout) == bool(local)
    assert refused.exit_code == 1
    assert pending(cli) == [("shop", 2)]

    agreed = cli("purge", stream["stream"], input="y\n")

    assert agreed.stdout.endswith("Deleted.\n")
    assert agreed.exit_code == 0
    assert streams(cli) == []


def test_purge_takes_the_beginning_of_a_name(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Of one stream only; the others stay."""
    for agent in ("a", "b"):
        leave(home, collector, "t", agent=agent)
    first, second = streams(cli)
    unknown, ambiguous = cli("purge", "nope", "--yes"), cli("purge", "", "--yes")
    length = next(n for n in range(1, 17) if first["stream"][:n] != second["stream"][:n])
    result = cli("purge", first["stream"][:length], "--yes")

    assert (unknown.exit_code, ambiguous.exit_code, result.exit_code) == (2, 2, 0)
    assert "no stream begins with 'nope'" in unknown.stderr
    assert "2 streams begin with ''" in ambiguous.stderr
    assert pending(cli) == [("b", 1)]


def test_purge_never_deletes_what_a_running_process_uses(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """Not even with ``--all``; the process delivers it."""
    sdk = client(home, collector)
    ask(sdk, "now")
    result = cli("purge", "--all", "--yes")
    collector.start()

    assert "is in use by a running process; what that has recorded stays." in result.stdout
    assert result.stdout.endswith("There is nothing to delete.\n")
    assert sdk.flush_sync(30)["whyops"].delivered == 1
    assert traces(collector.stored) == ["now"]


def test_what_is_left_while_purge_asks_is_kept(home: Path, collector: Collector) -> None:
    """Only what was named is deleted."""
    leave(home, collector, "named")
    (folder,) = (home / "journal").iterdir()
    named = set(segment_files(folder))
    with start("-m", "whyops_trace", "journal", "purge", "--all", home=home) as process:
        assert process.stdout is not None
        asked = process.stdout.readline()
        leave(home, collector, "unnamed", store=False)
        later = set(segment_files(folder)) - named
        out, _ = process.communicate("y\n", timeout=60)

    assert "1 record not delivered to whyops" in asked
    assert "Deleted." in out
    assert process.returncode == 0
    assert len(later) == 1
    assert set(segment_files(folder)) == later


def test_purge_deletes_files_set_aside_and_refused_events(
    cli: Callable[..., Result], home: Path, collector: Collector
) -> None:
    """The former with ``--all``, the latter with ``--rejected``."""
    leave(home, collector, "a")
    (folder,) = (home / "journal").iterdir()
    (folder / "000000000000-1.seg.bad").write_bytes(b"junk")
    (folder / "111111111111-1.seg").write_bytes(b"junk" * 2000)
    letters = [home / "rejected.ndjson", home / "rejected.ndjson.old"]
    for path in letters:
        path.write_text("{}\n")
    rejected = cli("purge", "--rejected", "--yes")

    assert str(letters[0]) in rejected.stdout
    assert not any(path.exists() for path in letters)
    assert pending(cli) == [("shop", 1)]

    everything = cli("purge", "--all", "--yes")

    assert "000000000000-1.seg.bad" in everything.stdout
    assert everything.exit_code == 0
    assert list(folder.iterdir()) == []
    assert cli("purge", "--all", "--yes").stdout == "There is nothing to delete.\n"


# Help


@pytest.mark.parametrize("name", ["status", "flush", "purge"])
def test_help_and_documentation_explain_every_option(cli: Callable[..., Result], name: str) -> None:
    """With an example."""
    said = cli(name, "--help").stdout
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^### `whyops-trace journal {name}`\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    command = journal.commands[name]
    options = [option for each in command.params if isinstance(each, click.Option) for option in each.opts]

    assert f"Example: whyops-trace journal {name}" in said
    assert section is not None
    assert [option for option in options if f"`{option}" not in section[1]] == []
