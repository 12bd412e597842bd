"""Full-text search: what it finds, what it must not find, and what it survives."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import record, tool_call
from hypothesis import given
from hypothesis import strategies as st
from lines import Process, encoded

from whyops_trace.server.query import Term, parse
from whyops_trace.server.search import Index
from whyops_trace.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own."""
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """Its store."""
    with contextlib.closing(Store(home / "traces.db")) as store:
        yield store


@pytest.fixture
def index(home: Path, store: Store) -> Iterator[Index]:
    """The index of its store, which nothing fills in the background."""
    with contextlib.closing(Index(home, store)) as index:
        yield index


def found(index: Index, text: str) -> list[str]:
    """Return the traces that hold what is asked for."""
    return index.find(parse(text).terms, patience=30).trace_ids


def talk(trace: str, *said: str, **members: Any) -> list[dict[str, Any]]:
    """Return a trace in which a user said something, each time with all that was said before."""
    process = Process(trace=trace)
    messages = [{"role": "user", "content": text} for text in said]
    return [
        process.event("user_message", step, content={"messages": messages[:step]}, **members)
        for step in range(1, len(said) + 1)
    ]


#: The tables of an index of format 1.
FORMAT_1 = """
CREATE VIRTUAL TABLE words USING fts5(
    text, tool, model, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
);
CREATE TABLE traces (id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE);
CREATE TABLE docs (number INTEGER PRIMARY KEY, trace INTEGER NOT NULL);
CREATE TABLE state (last INTEGER NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL);
INSERT INTO state VALUES (2, 'k', 'f');
INSERT INTO words (rowid, text) VALUES (1, 'parcel');
INSERT INTO docs VALUES (1, 1);
INSERT INTO traces VALUES (1, 'gone');
PRAGMA user_version = 1;
"""


def test_an_index_of_an_earlier_format_is_built_anew(home: Path, store: Store, index: Index) -> None:
    """Nothing of it stays."""
    record(home, talk("a", "Where is my parcel?"))
    with contextlib.closing(sqlite3.connect(home / "search.db")) as connection:
        connection.executescript(FORMAT_1)

    assert found(index, "parcel") == ["a"]
    assert index._database.rows("SELECT records FROM state") == [(1,)]


def test_words_are_found(home: Path, index: Index) -> None:
    """In messages, arguments, results and errors; in either case, with or without accents, also unfinished."""
    failed = Process(trace="failed")
    error = failed.event("error", 1, content={"type": "PolicyError", "message": "exceeds the express fee"})
    record(
        home,
        talk("talk", "Où est ma théière?", "Order 8841 is late"),
        tool_call(
            "called", tool="ship_quote", arguments={"to": "Zürich", "order": 77}, results={"price": "cheap"}
        ),
        [error],
    )
    wanted = {
        "theiere": ["talk"], "THÉIÈRE": ["talk"], "8841": ["talk"], "zur": ["called"], "77": ["called"],
        "cheap": ["called"], "policyerror": ["failed"], "expr": ["failed"], '"express fee"': ["failed"],
        '"fee express"': [], "expr ": [], "order": ["talk"], "nothing": [], "": [],
    }  # fmt: skip

    assert {text: found(index, text) for text in wanted} == wanted


def test_tools_and_models_are_found_by_their_names(home: Path, index: Index) -> None:
    """A word in a text is no tool."""
    model = Process(trace="answered")
    about = {"model": "openai/gpt-4o-mini", "provider": "openai"}
    record(
        home,
        tool_call("called", tool="charge_card"),
        talk("talk", "charge_card of gpt-4o"),
        [model.event("llm_response", 1, metadata=about, content={"content": "yes"})],
    )

    assert found(index, "tool:charge_card") == ["called"]
    assert found(index, "tool:charge") == ["called"]
    assert found(index, "charge_card") == ["called", "talk"]
    assert found(index, "model:gpt-4o") == ["answered"]
    assert found(index, "model:gpt-4") == ["answered"]
    assert found(index, "tool:gpt") == []


def test_a_trace_is_found_by_its_id(home: Path, index: Index) -> None:
    """Or the beginning of it."""
    record(home, tool_call("checkout-8841"), tool_call("9f2c41aa01be"))

    assert found(index, "checkout-88") == ["checkout-8841"]
    assert found(index, "9f2c") == ["9f2c41aa01be"]


def test_each_word_may_stand_in_another_event(home: Path, index: Index) -> None:
    """It is the trace that has to hold them all."""
    record(home, talk("both", "my teapot", "is broken"), talk("one", "my teapot"))

    assert found(index, "teapot broken") == ["both"]


def test_letters_without_spaces_between_words_are_found(home: Path, index: Index) -> None:
    """One or more of them, wherever they stand."""
    record(home, talk("late", "我的包裹在哪里"), talk("thanks", "包裹到了"))

    assert found(index, "包裹") == ["late", "thanks"]
    assert found(index, "在哪") == ["late"]
    assert found(index, "哪在") == []


def test_what_a_conversation_repeats_is_found_in_it(home: Path, index: Index) -> None:
    """Each turn brings all messages again; a new one among them counts."""
    record(home, talk("t", *(f"message{n}" for n in range(50))))

    assert found(index, "message0 ") == ["t"]
    assert found(index, "message49 ") == ["t"]


def test_new_events_are_found_at_once(home: Path, store: Store, index: Index) -> None:
    """A search first takes in what is new."""
    record(home, talk("a", "teapot"))
    before = found(index, "teapot")
    record(home, talk("b", "teapot"))

    assert (before, found(index, "teapot")) == (["a"], ["a", "b"])


def test_a_deleted_trace_is_not_found(home: Path, store: Store, index: Index) -> None:
    """Nor by its old words if another one has its id now."""
    record(home, talk("a", "teapot", "cups"), talk("b", "teapot"))
    before = found(index, "teapot")
    store.delete("a")
    deleted = found(index, "teapot")
    record(home, talk("a", "cups"))

    assert (before, deleted, found(index, "teapot"), found(index, "cups")) == (
        ["a", "b"],
        ["b"],
        ["b"],
        ["a"],
    )


def test_an_index_of_deleted_traces_is_made_anew(home: Path, store: Store) -> None:
    """When most of it is of no use, it gives its room back to what is."""
    record(home, *(talk(f"t{n}", "teapot " + "word " * 30, f"cups {n}") for n in range(600)))
    with contextlib.closing(Index(home, store)) as first:
        before = first.find([Term("teapot")], 30).indexed
    for number in range(590):
        store.delete(f"t{number}")
    with contextlib.closing(Index(home, store)) as second:
        second._rebuild_if_stale()
        after = second.find([Term("teapot")], 30)

    assert (before, after.indexed, len(after.trace_ids)) == (1200, 20, 10)


def test_the_index_may_be_deleted(home: Path, store: Store, index: Index) -> None:
    """Also while it is open; and what is no index is replaced by one."""
    record(home, talk("a", "teapot"))
    first = found(index, "teapot")
    (home / "search.db").unlink()
    second = found(index, "teapot")
    index.close()
    for ending in ("", "-wal", "-shm"):
        (home / f"search.db{ending}").write_bytes(b"no database at all" * 1000)

    assert (first, second, found(index, "teapot")) == (["a"], ["a"], ["a"])


def test_another_store_is_indexed_from_its_beginning(home: Path, store: Store, index: Index) -> None:
    """Where somebody has replaced the file."""
    record(home, talk("a", "teapot"), talk("b", "cups"), talk("c", "cups"))
    first = found(index, "teapot")
    other = home.with_name("other")
    record(other, talk("z", "teapot"))
    store.close()
    for ending in ("-wal", "-shm"):
        (home / f"traces.db{ending}").unlink(missing_ok=True)
    os.replace(other / "traces.db", home / "traces.db")

    assert (first, found(index, "teapot"), found(index, "cups")) == (["a"], ["z"], [])


def test_two_processes_fill_one_index(home: Path, store: Store, index: Index) -> None:
    """Two servers of one home: each event is in it once, whoever comes first."""
    record(home, *(talk(f"t{n}", "teapot") for n in range(300)))
    others = [Index(home, Store(home / "traces.db")) for _ in range(3)]
    threads = [threading.Thread(target=other.catch_up, args=(30,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = index.find([Term("teapot")], 30)
    for other in others:
        other.close()

    assert (len(result.trace_ids), result.indexed, result.behind) == (300, 300, False)


def test_a_search_says_that_the_index_is_behind(home: Path, index: Index) -> None:
    """Where there is more than it can take in meanwhile."""
    record(home, *(talk(f"t{n}", "teapot") for n in range(500)))
    result = index.find([Term("teapot")], patience=0)

    assert result.behind
    assert 0 < result.indexed < 500
    assert len(found(index, "teapot")) == 500


def test_a_store_that_does_not_exist_has_no_words(home: Path, index: Index) -> None:
    """And looking for them makes none."""
    assert found(index, "teapot") == []
    assert not (home / "traces.db").exists()


@given(st.text(min_size=1), st.sampled_from(["", "tool", "model"]), st.booleans())
def test_nothing_in_a_term_is_a_command(
    tmp_path_factory: pytest.TempPathFactory, text: str, column: str, begins: bool
) -> None:
    """Whatever the index would take for its own language."""
    home = tmp_path_factory.getbasetemp() / "hostile"
    with contextlib.closing(Store(home / "traces.db")) as store:
        if not store.path.exists():
            record(home, tool_call("t"))
        with contextlib.closing(Index(home, store)) as index:
            found = index.find([Term(text, column, begins)], 30).trace_ids

    assert found in ([], ["t"])


@pytest.mark.parametrize(
    "text",
    ['"', "a AND", "NOT", "NEAR(a b)", "*", "^a", "{a b}:c", "a-b", "(", "\x00", "a\x00b", "'; DROP TABLE"],
)
def test_operators_are_words(home: Path, index: Index, text: str) -> None:
    """They are looked for as they stand."""
    record(home, talk("t", "something"))

    assert index.find([Term(text)], 30).trace_ids == []


def test_hostile_records_are_indexed(home: Path, store: Store, index: Index) -> None:
    """Any type in any field, deep nesting, lines of a megabyte."""
    process = Process(trace="t")
    deep: Any = "teapot"
    for _ in range(300):
        deep = [deep]
    contents: list[Any] = [
        None,
        1,
        "cups",
        ["kettle"],
        {"messages": 5},
        {"messages": [None, 3, deep]},
        "x" * 1_000_000,
    ]
    events = [
        process.event("user_message", step, content=content) for step, content in enumerate(contents, 1)
    ]
    odd = process.event(
        "error", 9, metadata={"tool": ["lamp"], "model": {"a": 1}}, content={"message": {"a": "lamp"}}
    )
    store.ingest((process.token, [encoded(event) for event in [*events, odd]]))

    assert [found(index, word) for word in ("cups", "kettle", "teapot", "lamp", "tool:lamp")] == [
        ["t"]
    ] * 4 + [[]]
