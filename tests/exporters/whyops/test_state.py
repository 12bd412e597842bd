"""What a server has said, kept on disk."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import run_code

from whyops_trace.exporters.whyops import state as state_module
from whyops_trace.exporters.whyops.state import OFFSET_LIFETIME, SEEN_AGO, Agent, ServerState

NUMBERING = ("9f2c41aa01be-3", "9f2c41aa01be")
CHILD = ("9f2c41aa01be-3", "77aa00bb11cc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a home that is not there yet."""
    return tmp_path / "home" / "server.db"


@pytest.fixture
def state(path: Path) -> Iterator[ServerState]:
    """The state in that file."""
    with contextlib.closing(ServerState(path)) as state:
        yield state


def test_an_offset_is_known_to_the_next_process(path: Path, state: ServerState) -> None:
    """It is on disk when it is said to be kept, also if the process is killed at once."""
    code = f"""
    import os, signal
    from whyops_trace.exporters.whyops.state import Agent, ServerState
    state = ServerState({str(path)!r})
    state.keep_offsets({{{NUMBERING!r}: 7, {CHILD!r}: -3}})
    state.keep_agent("shop", Agent("a", "b", 2))
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = run_code(code, path.parent)

    assert ended.returncode == -9, ended.stderr
    assert (state.offset(NUMBERING), state.offset(CHILD)) == (7, -3)
    assert state.agent("shop") == Agent("a", "b", 2)


def test_what_was_never_said_is_not_known(path: Path, state: ServerState) -> None:
    """And asking for it makes no file."""
    assert state.offset(NUMBERING) is None
    assert state.agent("shop") == Agent()
    assert not path.exists()


def test_an_offset_of_zero_is_an_offset(path: Path, state: ServerState) -> None:
    """A trace that begins is known, too."""
    state.keep_offsets({NUMBERING: 0})

    assert state.offset(NUMBERING) == 0
    assert ServerState(path).offset(NUMBERING) == 0


def test_what_another_process_learns_is_seen(path: Path, state: ServerState) -> None:
    """That something was not known is not remembered."""
    before = state.offset(NUMBERING)
    with contextlib.closing(ServerState(path)) as other:
        other.keep_offsets({NUMBERING: 7})

    assert (before, state.offset(NUMBERING)) == (None, 7)


def test_agents_are_kept_apart(path: Path, state: ServerState) -> None:
    """Each by what tells it from others; the last word counts."""
    state.keep_agent("shop", Agent("a"))
    state.keep_agent("bank", Agent("b", "c", 1))
    state.keep_agent("shop", Agent("d"))

    assert [ServerState(path).agent(key) for key in ("shop", "bank")] == [Agent("d"), Agent("b", "c", 1)]


def test_only_its_owner_can_read_the_file(path: Path, state: ServerState) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        state.keep_offsets({NUMBERING: 7})
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_memory_holds_the_latest_numberings_and_the_file_all(
    path: Path, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A numbering that was forgotten in memory is read again."""
    monkeypatch.setattr(state_module, "REMEMBERED_NUMBERINGS", 2)
    keys = [(f"9f2c41aa01be-{n}", "9f2c41aa01be") for n in range(4)]
    for offset, key in enumerate(keys):
        state.keep_offsets({key: offset})
    state.offset(keys[2])  # the latest that was asked for
    state.offset(keys[0])

    assert list(state._offsets) == [keys[2], keys[0]]
    assert [state.offset(key) for key in keys] == [0, 1, 2, 3]


def test_old_numberings_go_from_the_file(path: Path, state: ServerState) -> None:
    """After a month: the journal has forgotten their records long before."""
    state.keep_offsets({NUMBERING: 7, CHILD: 8})
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE runs SET made_at = made_at - ? WHERE process = ?", (OFFSET_LIFETIME + 60, NUMBERING[1])
        )
    with contextlib.closing(ServerState(path)) as later:
        later.keep_offsets({("55aa00bb11cc-1", "55aa00bb11cc"): 1})
        assert [later.offset(key) for key in (NUMBERING, CHILD)] == [7, 8]  # the clock may be wrong
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET made_at = made_at - ?", (SEEN_AGO + 60,))
    with contextlib.closing(ServerState(path)) as later:
        later.keep_offsets({("77aa00bb11cc-1", "77aa00bb11cc"): 1})
        known = [later.offset(key) for key in (NUMBERING, CHILD)]

    assert known == [None, 8]


def test_where_nothing_can_be_written_memory_has_to_do(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    """A warning says once what that means."""
    (tmp_path / "file").write_text("")
    state = ServerState(tmp_path / "file" / "server.db")
    state.keep_offsets({NUMBERING: 7})
    state.keep_agent("shop", Agent("a"))

    assert (state.offset(NUMBERING), state.agent("shop"), state.offset(CHILD)) == (7, Agent("a"), None)
    assert [text.partition(": ")[0] for text in said()] == [
        "What the server said of the numbering of traces is kept in memory only, and lost with the process"
    ]


def test_a_damaged_file_is_set_aside(path: Path, state: ServerState, said: Callable[[], list[str]]) -> None:
    """What is lost with it is in memory, and the warning says where it is."""
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    state.keep_offsets({NUMBERING: 7})

    assert state.offset(NUMBERING) == 7
    assert state.offset(CHILD) is None
    aside = path.with_name(path.name + ".bad")
    assert aside.read_bytes() == b"no database" * 1000
    assert f"It is kept as {aside}" in said()[0]
    assert len(said()) == 1


def test_a_file_that_is_deleted_is_made_again(path: Path, state: ServerState) -> None:
    """What was in memory still counts."""
    state.keep_offsets({NUMBERING: 7})
    for file in path.parent.glob("server.db*"):
        file.unlink()
    state.keep_offsets({CHILD: 8})

    assert (state.offset(NUMBERING), ServerState(path).offset(CHILD)) == (7, 8)


def test_it_goes_on_after_close(path: Path, state: ServerState) -> None:
    """The file is opened again when it is needed."""
    state.keep_offsets({NUMBERING: 7})
    state.close()
    state.keep_offsets({CHILD: 8})

    assert (ServerState(path).offset(NUMBERING), ServerState(path).offset(CHILD)) == (7, 8)
