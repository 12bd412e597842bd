"""Recordings as files: they hold all that a replay needs, can be read in a review, and say what is wrong with them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whyops_trace import step, trace, traced_llm, traced_tool
from whyops_trace._replay.fixture import read_fixture, save_fixture, write_fixture
from whyops_trace._replay.recording import RecordedCall, read_calls
from whyops_trace.exceptions import ReplayError, ReplayMiss
from whyops_trace.replay import replay
from whyops_trace.testing import capture_events

SYSTEM = "You are careful.\n" * 20
changed: dict[int, str] = {}


@traced_tool
def read_file(name: str, line: int) -> str:
    return changed.get(
        line, f"file {name}\n" + "\n".join(f"{n}: text of {name}" for n in range(line, line + 20))
    )


@traced_llm
def ask(messages: list[dict[str, Any]], system: str) -> str:
    return f"I look at part {len(messages)}."


def agent(turns: int = 10) -> list[str]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Find the fault."}]
    with trace("look"), step("search"):
        for turn in range(turns):
            messages.append({"role": "assistant", "content": ask(list(messages), SYSTEM)})
            messages.append({"role": "user", "content": read_file("a.py", turn)})
    return [message["content"] for message in messages]


def recorded() -> list[dict[str, Any]]:
    with capture_events(local=True) as events:
        agent()
    return events


def plain(call: RecordedCall) -> dict[str, Any]:
    """Return all of a call, but for its step."""
    values = {name: getattr(call, name) for name in RecordedCall.__slots__ if name not in ("parent", "step")}
    return values | {"in": call.parent.number if call.parent else 0}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "look.whyops"
    path.write_text(write_fixture(read_calls(recorded())), encoding="utf-8")
    return path


def test_a_fixture_holds_what_the_trace_does(file: Path) -> None:
    """All calls come back as they were read from the records, and replay."""
    recording = read_calls(recorded())
    read = read_fixture(file)

    assert [plain(call) for call in read.calls] == [plain(call) for call in recording.calls]
    assert (read.source, read.agent) == (recording.source, recording.agent)
    with replay(file, store=False) as run:
        agent()
    assert (run.drift, run.unused) == ([], [])


def test_a_fixture_says_everything_once(file: Path) -> None:
    """Prompts and results that come again in each turn are written once, in lines."""
    text = file.read_text()

    assert len(text) < len(json.dumps(recorded())) / 3
    assert text.count("28: text of a.py") == 1  # a line of the last result
    assert max(map(len, text.splitlines())) < 200


def test_a_changed_result_is_a_small_difference(file: Path, tmp_path: Path) -> None:
    """In a review one changed result is some lines."""
    changed[4] = "file a.py\nnothing\nin it"
    try:
        other = write_fixture(read_calls(recorded()))
    finally:
        changed.clear()
    lines = [
        line
        for line in difflib.unified_diff(file.read_text().splitlines(), other.splitlines(), n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]

    assert 0 < len(lines) < 60


@pytest.mark.parametrize(
    "value", [{"$same": "x"}, {"$text": ["a"]}, {"$plain": {"$same": 1}}, "a\nb\nc\n", {}, [], None]
)
def test_no_value_is_taken_for_a_mark(value: Any, tmp_path: Path) -> None:
    """Values that look like the marks of the format come back as they are."""

    @traced_tool
    def tool() -> Any:
        return {"value": value}

    with capture_events(local=True) as events:
        tool()
    path = tmp_path / "odd.whyops"
    path.write_text(write_fixture(read_calls(events)), encoding="utf-8")
    with replay(path, store=False):
        assert tool() == {"value": value}


def test_very_long_texts_are_files(tmp_path: Path) -> None:
    """So that a review is not buried in one. A file that is missing, or was edited, is told; old ones go."""

    @traced_tool
    def page(number: int) -> Any:
        return {"text": letters * 10_000, "number": number, "odd": {"$file": "x"}}

    def saved() -> list[Path]:
        with capture_events(local=True) as events:
            page(1)
            page(2)
        save_fixture(read_calls(events), path)
        return [*tmp_path.glob("runs/long-texts/*")]

    path, letters = tmp_path / "runs" / "long.whyops", "té\n"
    [old] = saved()
    letters = "ab\n"
    [text] = saved()

    assert not old.exists()
    assert len(path.read_text()) < 5_000
    with replay(path, store=False):
        assert page(1) == {"text": "ab\n" * 10_000, "number": 1, "odd": {"$file": "x"}}
        page(2)
    text.write_text("other")
    with pytest.raises(ReplayError, match="was edited: its name is the hash"):
        replay(path)
    text.unlink()
    with pytest.raises(ReplayError, match="belongs to the recording beside it"):
        replay(path)


def test_a_large_list_or_object_is_a_file_with_one_element_a_line(tmp_path: Path) -> None:
    """It comes back as it was; a long text in it is a file of its own, and one that comes twice is written once."""
    orders = [{"order": number, "status": "sent", "lines": ["a\nb\nc"]} for number in range(2_000)]
    table = {"orders": orders, "note": "x" * 30_000, "$same": 1, "more": {"$text": ["y"]}}

    @traced_tool
    def load(rows: list[dict[str, Any]]) -> Any:
        return table

    with capture_events(local=True) as events:
        load(orders)
        load(orders[:1])
    path = tmp_path / "orders.whyops"
    save_fixture(read_calls(events), path)
    files = {each.suffix: each.read_text() for each in tmp_path.glob("orders-texts/*")}

    assert len(path.read_text()) < 5_000
    assert sorted(each.suffix for each in tmp_path.glob("orders-texts/*")) == [".json", ".txt"]
    assert '\n {"order": 7, "status": "sent", "lines": [{"$text": ["a", "b", "c"]}]},\n' in files[".json"]
    with replay(path, store=False):
        assert load(orders) == table
        assert load(orders[:1]) == table


def test_a_large_object_is_the_same_file_whatever_else_is_recorded(tmp_path: Path) -> None:
    """A call more, which shares a part of it, leaves the file as it is."""
    shared = "the same text in both, which is long enough to be written once in a recording. " * 3

    @traced_tool
    def load() -> Any:
        return [{"row": number, "about": f"{shared}"} for number in range(500)]

    @traced_tool
    def note(text: str) -> str:
        return text

    def files(*texts: str) -> set[str]:
        with capture_events(local=True) as events:
            load()
            for text in texts:
                note(text)
        save_fixture(read_calls(events), tmp_path / "a.whyops")
        return {each.name for each in tmp_path.glob("a-texts/*")}

    assert files() == files(shared, shared)


def test_a_file_of_a_fixture_can_be_edited_on_purpose(tmp_path: Path) -> None:
    """Without the line that has the hash of the recording, what was edited in the files beside it counts."""

    @traced_tool
    def load() -> Any:
        return [{"row": number, "status": "sent"} for number in range(1_000)]

    with capture_events(local=True) as events:
        load()
    path = tmp_path / "rows.whyops"
    save_fixture(read_calls(events), path)
    [part] = tmp_path.glob("rows-texts/*.json")
    part.write_text(part.read_text().replace('{"row": 7, "status": "sent"}', '{"row": 7, "status": "lost"}'))
    with pytest.raises(ReplayError, match=r"rows-texts.*was edited.*delete the line with 'sha256'"):
        replay(path)
    edited(lambda _: None, path, seal=True)
    with replay(path, store=False):
        assert load()[7] == {"row": 7, "status": "lost"}
    part.write_text(part.read_text()[:-5])
    with pytest.raises(ReplayError, match=r"rows-texts.*is no JSON any more"):
        replay(path)


def edited(change: Callable[[dict[str, Any]], Any], file: Path, *, seal: bool = False) -> None:
    fixture = json.loads(file.read_text())
    change(fixture)
    if seal:
        del fixture["sha256"]
    file.write_text(json.dumps(fixture, indent=1))


def test_a_fixture_of_another_version_is_told(file: Path) -> None:
    """A newer one asks for the version that wrote it, an older one to be exported again."""
    edited(lambda fixture: fixture.update({"whyops-fixture": 2}), file)
    with pytest.raises(ReplayError, match=r"version 2 of the format.*reads version 1: install the version"):
        replay(file)
    edited(lambda fixture: fixture.update({"whyops-fixture": 0}), file)
    with pytest.raises(ReplayError, match="export the trace again"):
        replay(file)


def test_a_fixture_that_was_cut_is_told(file: Path) -> None:
    """Half a file, a file of something else and no file at all."""
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    with pytest.raises(ReplayError, match="is cut, or was edited"):
        replay(file)
    file.write_text("{}")
    with pytest.raises(ReplayError, match="is no fixture"):
        replay(file)
    file.write_text("[" * 100_000)
    with pytest.raises(ReplayError, match="is cut, or was edited"):
        replay(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReplayError, match="it is no text"):
        replay(file)
    file.unlink()
    with pytest.raises(ReplayError, match=r"whyops-trace export TRACE --fixture"):
        replay(file)


def test_a_mark_of_the_encoding_is_no_edit(file: Path) -> None:
    """Some editors put one before a text; the recording is the same."""
    file.write_text(file.read_text(), encoding="utf-8-sig")

    with replay(file, store=False):
        agent()


def test_a_fixture_that_was_edited_is_told(file: Path) -> None:
    """An edit by hand is refused until its author says that it is meant, and what then does not fit is told."""

    def edit(fixture: dict[str, Any]) -> None:
        fixture["calls"][1]["answer"] = {"result": "other"}

    edited(edit, file)
    with pytest.raises(ReplayError, match=r"was edited.*delete the line with 'sha256'"):
        replay(file)
    edited(edit, file, seal=True)
    with replay(file, store=False, match="first"):
        assert read_file("a.py", 0) == "other"
    edited(lambda fixture: fixture.pop("calls"), file)
    with pytest.raises(ReplayError, match="something else"):
        replay(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fixture: fixture["calls"][0].update(asked="x"), "asked of call 1 is 'x'"),
        (lambda fixture: fixture["calls"][0].update(began="x"), "began of call 1 is 'x'"),
        (lambda fixture: fixture["calls"][0].update(error="x"), "error of call 1 is 'x'"),
        (lambda fixture: fixture["calls"][1].update({"in": 99}), "KeyError: 99"),
        (lambda fixture: fixture["calls"][1].update(kind="talk"), "a call of kind 'talk'"),
        (lambda fixture: fixture["calls"][1].update(answer={"$same": "x"}), "KeyError: 'x'"),
        (
            lambda fixture: fixture.update(same={"x": {"$same": "x"}}, calls=[{"name": {"$same": "x"}}]),
            "Recursion",
        ),
        (lambda fixture: fixture.update(calls=[]), "no calls"),
    ],
)
def test_an_edit_that_does_not_fit_is_told(
    file: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    """The member that is of another type, and what is referred to and not there, are named."""
    edited(change, file, seal=True)

    with pytest.raises(ReplayError, match=f"something else.*{words}"):
        replay(file)


def test_a_call_can_be_deleted(file: Path) -> None:
    """The others stay what they are, each within the call that it was in."""
    edited(lambda fixture: fixture["calls"].pop(1), file, seal=True)

    numbers = [call.number for call in read_fixture(file).calls]

    assert numbers[:3] == [1, 3, 4]


def test_the_line_of_the_hash_can_be_deleted(file: Path) -> None:
    """What is left is a fixture still, so that one can be edited as the message about an edit says."""
    lines = [line for line in file.read_text().splitlines(keepends=True) if '"sha256"' not in line]
    file.write_text("".join(lines))

    replay(file)


def test_a_fixture_of_another_agent_is_told(file: Path) -> None:
    """If the first call is not in a recording, the message names the agent that it is of."""

    @traced_tool
    def pay(amount: int) -> int:
        return amount

    with (
        pytest.raises(ReplayMiss, match="Nothing of the recording was replayed before: it is of agent"),
        replay(file, store=False),
    ):
        pay(5)


def test_what_a_fixture_lacks_is_told_at_the_call(tmp_path: Path) -> None:
    """A fixture with a result that held a secret is read, and the call that would need it is a miss."""

    @traced_tool
    def login(user: str) -> dict[str, str]:
        return {"api_key": "sk-live-4eC39HqLyjWDarjtT1zdp7dc"}

    with capture_events(local=True) as events:
        login("ada")
    path = tmp_path / "login.whyops"
    path.write_text(write_fixture(read_calls(events)), encoding="utf-8")

    assert "4eC39" not in path.read_text()
    with pytest.raises(ReplayMiss, match="held a secret"), replay(path, store=False):
        login("ada")
