"""The file of what a server refused for good."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from programs import start_code

from whyops_trace.exporters.whyops import dead_letters
from whyops_trace.exporters.whyops.dead_letters import DeadLetters

EVENT = b'{"eventType":"error","content":{"message":"no"}}'


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    """The file of a home that is not there yet."""
    return DeadLetters(tmp_path / "home" / "rejected.ndjson")


def entries(path: Path) -> list[dict[str, object]]:
    """The lines of a file, decoded."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_is_kept_with_the_server_s_words(letters: DeadLetters) -> None:
    """One line each: when, why, and the record as it was."""
    letters.add(EVENT, '400: "no", said\nthe server \0 \ud800')
    letters.add(b'{"n":2}', "409: bound")
    first, second = entries(letters.path)

    assert datetime.fromisoformat(str(first.pop("at"))).tzinfo is not None
    assert first == {"reason": '400: "no", said\nthe server \ufffd \ufffd', "event": json.loads(EVENT)}
    assert (second["reason"], second["event"]) == ("409: bound", {"n": 2})


def test_only_its_owner_can_read_it(letters: DeadLetters) -> None:
    """Whatever the umask: what is refused is users' data."""
    before = os.umask(0)
    try:
        letters.add(EVENT, "no")
    finally:
        os.umask(before)

    assert stat.S_IMODE(letters.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(letters.path.parent.stat().st_mode) == 0o700


def test_the_file_is_set_aside_when_it_is_full(letters: DeadLetters, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the one before: the two together are bounded, and the latest events are there."""
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 1000)
    for n in range(100):
        letters.add(b'{"n":%d}' % n, "no")
    old = letters.path.with_name("rejected.ndjson.old")
    kept = [entry["event"] for path in (old, letters.path) for entry in entries(path)]

    assert kept == [{"n": n} for n in range(100 - len(kept), 100)]
    assert old.stat().st_size + letters.path.stat().st_size < 2200


def test_several_processes_and_threads_add_whole_lines(letters: DeadLetters) -> None:
    """Also while the file is set aside."""
    code = f"""
    from pathlib import Path
    from whyops_trace.exporters.whyops import dead_letters
    dead_letters.MAX_BYTES = 100_000
    letters = dead_letters.DeadLetters(Path({str(letters.path)!r}))
    for n in range(300):
        letters.add(b'{{"n":%d}}' % n, "x" * 100)
    """
    processes = [start_code(code, letters.path.parent) for _ in range(2)]
    threads = [threading.Thread(target=letters.add, args=(EVENT, "y" * 1000)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = []
    for process in processes:
        with process:
            ends.append((process.communicate(timeout=60)[1], process.returncode))
    kept = [entry for path in letters.path.parent.glob("rejected.ndjson*") for entry in entries(path)]

    assert ends == [("", 0)] * 2
    assert {entry["reason"] for entry in kept} <= {"x" * 100, "y" * 1000}


def test_where_nothing_can_be_written_that_is_said_once(
    tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """Delivery goes on."""
    (tmp_path / "file").write_text("")
    letters = DeadLetters(tmp_path / "file" / "rejected.ndjson")
    letters.add(EVENT, "no")
    letters.add(EVENT, "no")

    assert [text.partition(": ")[0] for text in said()] == [f"Cannot keep a refused event in {letters.path}"]
