"""The destinations that need no network: a store, a terminal, a list."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import Process, encoded, tool_request, tool_response
from programs import run_code

from whyops_trace._delivery.draining import take_in
from whyops_trace._journal.journal import Journal
from whyops_trace.exceptions import StoreError
from whyops_trace.exporters import Batch, Exporter, Outcome, console, local
from whyops_trace.exporters.console import ConsoleExporter
from whyops_trace.exporters.local import LocalExporter
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.store import Store

TOKEN = "9f2c41aa01be"
OTHER = "77aa00bb11cc"
DELIVERED, REJECTED = Outcome.DELIVERED, Outcome.REJECTED


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[LocalExporter]:
    """An exporter to a store of its own."""
    exporter = LocalExporter(tmp_path / "traces.db")
    yield exporter
    exporter.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Puts a terminal in the place of standard error, to which nothing was said yet."""

    def put() -> Terminal:
        # Not before the test runs: pytest puts a standard error of its own in place then.
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    monkeypatch.setattr(LocalExporter, "_hinted_in", 0)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    return put


def ended(trace: str = "checkout-8841") -> Batch:
    """Return a trace of one tool call that ended."""
    process = Process(trace=trace)
    events = [tool_request(process, 1), tool_response(process, 2, 1, about={"latencyMs": 8}, end=True)]
    return Batch(TOKEN, [encoded(event) for event in events])


def test_an_exporter_has_to_take_batches() -> None:
    """The rest has a default: not remote, nothing to do when a process or the exporter ends."""
    exporter = Exporter()
    exporter.process_ended(TOKEN)
    exporter.close()

    assert exporter.remote is False
    with pytest.raises(NotImplementedError):
        exporter.export(ended())


# Local


def test_the_local_exporter_stores(exporter: LocalExporter) -> None:
    """Each line's outcome is told; the end of a process is noted."""
    begin, end = ended().lines

    assert exporter.export(Batch(TOKEN, [begin, b"junk", end])) == [DELIVERED, REJECTED, DELIVERED]
    exporter.process_ended(OTHER)
    exporter.close()
    assert exporter.export(ended("after")) == [DELIVERED, DELIVERED]
    assert {summary.trace_id for summary in exporter.store.traces()} == {"checkout-8841", "after"}
    assert exporter.store.ended_processes() == {OTHER}


def test_a_store_that_cannot_be_used_takes_nothing(tmp_path: Path) -> None:
    """The same batch comes again until the file is mended."""
    path = tmp_path / "traces.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    exporter = LocalExporter(path)
    for _ in range(2):
        with pytest.raises(StoreError, match="move it away"):
            exporter.export(ended())

    path.unlink()
    assert exporter.export(ended()) == [DELIVERED, DELIVERED]
    exporter.close()


@pytest.mark.parametrize(("batches", "size"), [(3, local.PRUNE_BYTES), (local.PRUNE_BATCHES, 1000)])
def test_old_traces_go_after_so_many_batches_or_bytes(
    exporter: LocalExporter, monkeypatch: pytest.MonkeyPatch, batches: int, size: int
) -> None:
    """The store is pruned after the first batch, and again when enough has come."""
    monkeypatch.setattr(local, "PRUNE_BATCHES", batches)
    monkeypatch.setattr(local, "PRUNE_BYTES", size)
    pruned: list[int] = []
    prune = exporter.store.prune

    def pruning(*limits: Any) -> int:
        pruned.append(number)
        return prune(*limits)

    monkeypatch.setattr(exporter.store, "prune", pruning)
    for number in range(1, 8):
        exporter.export(ended(f"t{number}"))

    assert pruned == ([1, 4, 7] if batches == 3 else [1, 3, 5, 7])


def test_the_first_trace_that_ends_says_how_to_see_it(
    exporter: LocalExporter, terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for a process, on a terminal only."""
    monkeypatch.setenv("WHYOPS_HOME", str(exporter.store.path.parent))
    screen = terminal()
    exporter.export(Batch(TOKEN, ended("open").lines[:1]))
    exporter.export(Batch(TOKEN, [b'{"end":true}']))
    exporter.export(ended("my \x1b[31morder"))
    exporter.export(ended("another"))

    assert screen.getvalue() == (
        "whyops-trace recorded a trace; see it with: whyops-trace show 'my \\x1b[31morder'\n"
    )


def test_the_hint_names_a_home_that_is_not_the_usual_one(
    exporter: LocalExporter, terminal: Callable[[], Terminal]
) -> None:
    """What it says to type finds the trace."""
    screen = terminal()
    exporter.export(ended("t"))

    assert screen.getvalue().endswith(f"whyops-trace show t --home {exporter.store.path.parent}\n")


def test_the_hint_can_be_left_out(tmp_path: Path, terminal: Callable[[], Terminal]) -> None:
    """A command that only takes in what others left says nothing."""
    screen = terminal()
    exporter = LocalExporter(tmp_path / "traces.db", hint=False)
    exporter.export(ended())
    exporter.close()

    assert screen.getvalue() == ""


@pytest.mark.parametrize("stream", ["none", "closed", "file"])
def test_a_standard_error_that_is_no_terminal_gets_no_hint(
    exporter: LocalExporter, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Nor does a missing or closed one hold up the records."""
    monkeypatch.setattr(LocalExporter, "_hinted_in", 0)
    other = None if stream == "none" else io.StringIO()
    if other is not None and stream == "closed":
        other.close()
    monkeypatch.setattr(sys, "stderr", other)

    assert exporter.export(ended()) == [DELIVERED, DELIVERED]
    if other is not None and stream == "file":
        assert other.getvalue() == ""


FORKER = """
    import os
    from whyops_trace.exporters.base import Batch
    from whyops_trace.exporters.local import LocalExporter

    lines = [bytes.fromhex(line) for line in {lines!r}]
    exporter = LocalExporter({path!r})
    exporter.export(Batch("{token}", lines[:1]))
    pid = os.fork()
    if not pid:
        exporter.export(Batch("{token}", lines[1:2]))
        exporter.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    exporter.export(Batch("{token}", lines[2:]))
    exporter.close()
"""


def test_the_local_exporter_goes_on_in_a_forked_child(exporter: LocalExporter, tmp_path: Path) -> None:
    """Parent and child write to the same store, each over a connection of its own."""
    process = Process()
    lines = [process.line("error", step).hex() for step in (1, 2, 3)]
    result = run_code(
        FORKER.format(lines=lines, path=str(exporter.store.path), token=TOKEN), tmp_path / "home"
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert [event["stepId"] for event in exporter.store.events("checkout-8841")] == [1, 2, 3]


# What dead processes left


def leave(home: Path, batch: Batch, *destinations: str) -> str:
    """Record a batch in a journal that nobody delivers from any more; return the token of its process."""
    journal = Journal(home / "journal" / "s", stream="s", agent="shop", destinations=destinations)
    for line in batch.lines:
        journal.append(line + b"\n")
    token = journal.token
    journal.close()
    return token


def test_what_dead_processes_left_is_taken_in(tmp_path: Path) -> None:
    """Their records go into the store, and they count as ended; their journals are done with."""
    token = leave(tmp_path, Batch(TOKEN, [*ended().lines, b"junk"]), "local")

    assert take_in(tmp_path) == 2
    assert take_in(tmp_path) == 0
    store = Store(tmp_path / "traces.db")
    assert store.trace("checkout-8841").event_count == 2
    assert store.ended_processes() == {token}
    assert not list(tmp_path.rglob("*.seg"))
    store.close()


def test_only_what_was_meant_for_the_store_is_taken_in(tmp_path: Path) -> None:
    """Records for a server are left to it, also where the store gets a copy."""
    leave(tmp_path, ended("both"), "local", "whyops")
    leave(tmp_path, ended("server"), "whyops")

    assert take_in(tmp_path) == 2
    assert take_in(tmp_path) == 0
    store = Store(tmp_path / "traces.db")
    assert [summary.trace_id for summary in store.traces()] == ["both"]
    assert len(list(tmp_path.rglob("*.seg"))) == 2
    store.close()


def test_a_home_without_a_journal_is_left_as_it_is(tmp_path: Path) -> None:
    """Looking is not making."""
    assert take_in(tmp_path / "home") == 0
    assert not (tmp_path / "home").exists()


def test_records_that_cannot_be_taken_in_stay(tmp_path: Path) -> None:
    """A store that is damaged loses nothing of what waits."""
    leave(tmp_path, ended(), "local")
    (tmp_path / "traces.db").write_bytes(b"junk" * 1000)
    with pytest.raises(StoreError, match="It is kept as"):
        take_in(tmp_path)

    assert take_in(tmp_path) == 2


# Console

TREE = """\
checkout-8841 · shop · <1 ms · 1 tool, no errors
└─ ⚒ charge_card(amount=4999) → {"id": "ch_1"}          8 ms
"""


def test_the_console_prints_each_trace_when_it_ends(terminal: Callable[[], Terminal]) -> None:
    """Records of several traces may be mixed; nothing is printed before the end, and nothing twice."""
    screen = terminal()
    exporter = ConsoleExporter()
    one, two = ended(), ended("two")

    assert exporter.export(Batch(TOKEN, [one.lines[0], two.lines[0], b"junk"])) == [
        DELIVERED,
        DELIVERED,
        REJECTED,
    ]
    assert screen.getvalue() == ""
    assert exporter.export(Batch(TOKEN, [one.lines[1]])) == [DELIVERED]
    assert screen.getvalue() == TREE
    exporter.export(Batch(TOKEN, [two.lines[1]]))
    exporter.close()
    assert screen.getvalue() == TREE + TREE.replace("checkout-8841", "two")


def test_the_console_prints_to_a_stream_of_its_own(terminal: Callable[[], Terminal]) -> None:
    """Standard error is only the default."""
    screen = terminal()
    stream = io.StringIO()
    ConsoleExporter(stream).export(ended())

    assert stream.getvalue() == TREE
    assert screen.getvalue() == ""


def test_traces_that_did_not_end_are_printed_when_the_console_closes(
    terminal: Callable[[], Terminal],
) -> None:
    """As are those of a process that is known to be gone, whose calls will not end."""
    screen = terminal()
    exporter = ConsoleExporter()
    exporter.export(Batch(OTHER, [encoded(tool_request(Process(OTHER, trace="gone"), 1))]))
    exporter.export(Batch(TOKEN, ended().lines[:1]))
    exporter.process_ended(OTHER)
    exporter.process_ended(OTHER)

    gone = (
        "gone · shop · <1 ms · 1 tool, 1 unfinished, no errors\n└─ ◌ charge_card(amount=4999)  unfinished\n"
    )
    assert screen.getvalue() == gone
    exporter.close()
    exporter.close()
    assert screen.getvalue() == gone + (
        "checkout-8841 · shop · <1 ms · 1 tool, 1 running, no errors\n└─ ◌ charge_card(amount=4999)  running\n"
    )


@pytest.mark.parametrize("limit", ["MAX_TRACES", "MAX_BYTES"])
def test_the_console_forgets_the_oldest_of_too_many_traces(
    terminal: Callable[[], Terminal],
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    limit: str,
) -> None:
    """A program that never ends its traces does not fill the memory; that is said once."""
    screen = terminal()
    lines = [encoded(tool_request(Process(trace=f"t{number}"), 1)) for number in range(5)]
    monkeypatch.setattr(console, limit, 2 if limit == "MAX_TRACES" else 2 * len(lines[0]))
    exporter = ConsoleExporter()
    exporter.export(Batch(TOKEN, lines))
    exporter.close()

    assert re.findall(r"^t\d", screen.getvalue(), re.MULTILINE) == ["t3", "t4"]
    assert len(said()) == 1
    assert "the console forgets the oldest, first 't0'" in said()[0]


@pytest.mark.parametrize("stream", ["none", "closed"])
def test_a_console_that_is_gone_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], stream: str
) -> None:
    """Nobody reads it, and nothing comes again for its sake."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream == "none" else closed)

    assert ConsoleExporter().export(ended()) == [DELIVERED, DELIVERED]
    assert [line.partition(":")[0] for line in said()] == (
        [] if stream == "none" else ["Cannot print traces to the console"]
    )


def test_a_forked_child_does_not_print_what_its_parent_holds(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent prints it; the child begins with nothing."""
    screen = terminal()
    exporter = ConsoleExporter()
    exporter.export(Batch(TOKEN, ended("parent").lines[:1]))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    exporter.close()

    assert screen.getvalue() == ""
    exporter.export(ended())
    exporter.close()
    assert screen.getvalue() == TREE


# Memory


def test_the_memory_exporter_keeps_every_record() -> None:
    """Decoded, in order; what is not an object is rejected."""
    exporter = MemoryExporter()
    process = Process()
    events = [process.event("error", 1), process.event("error", 2)]
    lines = [encoded(events[0]), b"junk", b"[]", b'"\xff"', b"[" * 100_000, encoded(events[1])]

    assert exporter.export(Batch(TOKEN, lines)) == [DELIVERED, *[REJECTED] * 4, DELIVERED]
    assert exporter.events == events
