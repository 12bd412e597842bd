"""Files of the journal: each descriptor proves that it is still its own, and is closed by its owner alone."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from journals import expected, file_of, fill, make, names, read

from whyops_trace._journal.files import HeldFile


@pytest.fixture(params=["mapped", "written"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that make a journal use memory maps, or system calls."""
    return {} if request.param == "mapped" else {"mappable": ()}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HeldFile]:
    """A file with some content."""
    held = HeldFile(tmp_path / "held", "x+")
    held.write_first(b"content")
    yield held
    held.close()


def descriptors_of(path: Path) -> list[int]:
    """Return the numbers under which this process has a file open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                found.append(int(name))
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def test_a_closed_descriptor_is_replaced(file: HeldFile) -> None:
    """A daemon closes descriptors that it did not open; the file is opened again."""
    os.close(file.number)
    read_back = file.read(7, 0)
    file.write(b"CONTENT", 0)

    assert read_back == b"content"
    assert file.path.read_bytes() == b"CONTENT"


def test_a_descriptor_that_became_another_file_is_neither_written_nor_closed(
    file: HeldFile, tmp_path: Path
) -> None:
    """The program has got the number for a file of its own."""
    number = file.number
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    other = os.open(mine, os.O_RDWR)
    os.dup2(other, number)
    file.write(b"CONTENT", 0)
    file.truncate(3)
    file.close()
    gc.collect()

    assert os.pread(number, 100, 0) == b"precious"
    assert file.path.read_bytes() == b"CON"
    os.close(number)
    os.close(other)


def test_a_file_that_is_out_of_reach_says_so(file: HeldFile, tmp_path: Path) -> None:
    """Neither the descriptor nor the name leads to it any more."""
    number = file.number
    os.close(number)
    file.path.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="No such file"):
        file.read(7, 0)
    file.path.write_bytes(b"another")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(7, 0)
    file.unlink()

    assert file.path.read_bytes() == b"another"


def test_a_closed_file_says_so(file: HeldFile) -> None:
    """Twice is as good as once."""
    file.close()
    file.close()

    assert file.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(1, 0)


def test_a_descriptor_that_only_pretends_is_found_out(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Below a stand-in for the file system its numbers are those of the program's own files: none is written to."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious" * 20_000)
    before = mine.read_bytes()

    with mine.open("r+b") as theirs:

        class Pretending(FileIO):
            def fileno(self) -> int:
                return theirs.fileno()

            def write(self, data: Any, /) -> int:
                return len(data)

        monkeypatch.setattr("whyops_trace._journal.files.FileIO", Pretending)
        journal = make(tmp_path, **options)
        fill(journal, range(100), 1_000)
        found = read(journal.segments)

        assert theirs.read() == before
    assert found == expected(range(100), 1_000)
    assert all(segment.path is None for segment in journal.segments)
    assert "Recording in memory only" in caplog.text


def test_a_journal_outlives_the_closing_of_all_its_descriptors(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Records before and after come, and files that took over the numbers are as they were."""
    journal = make(tmp_path, destinations=["local"], **options)
    fill(journal, range(100), 4_000)
    journal.prepare()
    fill(journal, range(100, 200), 4_000)
    numbers = sorted(number for path in (tmp_path / "journal").glob("*/*") for number in descriptors_of(path))
    mine = tmp_path / "mine"
    mine.write_bytes(b"R" * 200_000)
    other = os.open(mine, os.O_RDWR)
    for number in numbers:
        os.dup2(other, number)
    fill(journal, range(200, 900), 4_000)
    found = read(journal.segments)
    journal.retire()
    fill(journal, range(900, 910), 4_000)
    found += read(journal.segments)
    journal.close()
    gc.collect()

    assert found == expected(range(910), 4_000)
    assert mine.read_bytes() == b"R" * 200_000
    assert [os.fstat(number).st_size for number in numbers] == [200_000] * len(numbers)
    assert len(numbers) >= 2
    assert names(tmp_path, "*.seg") == []
    for number in (*numbers, other):
        os.close(number)


def test_files_are_freed_with_a_journal_that_nobody_closed(tmp_path: Path, options: dict[str, Any]) -> None:
    """The descriptors go with their owner, and no warning is given."""
    journal = make(tmp_path, **options)
    fill(journal, range(10))
    path = file_of(journal.segments[0])
    open_before = descriptors_of(path)
    del journal
    gc.collect()

    assert open_before
    assert descriptors_of(path) == []
