"""A directory of segments: who may read it, and who takes over what dead processes left."""

from __future__ import annotations

import errno
import gc
import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from journals import DESTINATIONS, die, expected, file_of, fill, make, names, read, record

from whyops_trace._home import make_private
from whyops_trace._journal.budget import FIRST_SIZE
from whyops_trace._journal.directory import file_system, is_mappable
from whyops_trace._journal.header import PAGE, SLOT, SLOTS, Counts
from whyops_trace._journal.journal import ADOPTED_AT_ONCE, segments_in


@pytest.fixture(params=["mapped", "written"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that make a journal use memory maps, or system calls as on a network file system."""
    return {} if request.param == "mapped" else {"mappable": ()}


def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path, options: dict[str, Any]) -> None:
    """Directories are 0700 and files 0600."""
    before = os.umask(0o277)
    try:
        journal = make(tmp_path / "home", **options)
        fill(journal, [1])
    finally:
        os.umask(before)
    directory = file_of(journal.segments[0]).parent

    assert stat.S_IMODE(file_of(journal.segments[0]).stat().st_mode) == 0o600
    assert [
        stat.S_IMODE(path.stat().st_mode) for path in (directory, directory.parent, tmp_path / "home")
    ] == [0o700] * 3


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """Only what the journal makes itself is closed to others."""
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private(tmp_path / "shared" / "ours")

    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "shared" / "ours").stat().st_mode) == 0o700


def test_a_map_is_used_on_the_listed_file_systems_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's table of mounts says what a directory is on; without an answer no map is used."""
    process = Path("/proc")

    file_system.cache_clear()

    assert is_mappable(process, {"proc"})
    assert not is_mappable(process, {"ext4"})
    file_system.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: "22 27 0:0 / /none rw - none none rw\n")
    assert not is_mappable(process, {"none"})
    file_system.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: (tmp_path / "missing").read_bytes())
    assert not is_mappable(process, {"proc"})
    monkeypatch.undo()
    monkeypatch.delattr(os, "posix_fallocate")
    assert not is_mappable(process, {"proc"})


def test_what_a_dead_process_left_is_taken_over_in_order(tmp_path: Path, options: dict[str, Any]) -> None:
    """Adopted segments stand before our own, oldest first over all processes."""
    for first in (0, 100, 200):
        dead = make(tmp_path, **options)
        fill(dead, range(first, first + 100), 4_000)
        die(dead)
    heir = make(tmp_path, **options)
    fill(heir, range(300, 310))
    adopted = heir.adopt()

    assert len(adopted) == 6
    assert heir.segments[:6] == adopted
    assert all(segment.sealed and segment.adopted for segment in adopted)
    assert read(heir.segments) == expected(range(300), 4_000) + expected(range(300, 310))


def test_a_cursor_survives_its_process(tmp_path: Path, options: dict[str, Any]) -> None:
    """What one destination has passed does not come to it again, whatever the other has not."""
    dead = make(tmp_path, **options)
    fill(dead, range(10))
    read(dead.segments, "local")
    fill(dead, range(10, 15))
    die(dead)
    heir = make(tmp_path, **options)
    heir.adopt()

    assert read(heir.segments, "local") == expected(range(10, 15))
    assert read(heir.segments, "whyops") == expected(range(15))


def test_a_segment_that_is_finished_still_tells_that_its_process_ended(tmp_path: Path) -> None:
    """A process killed with nothing left to deliver is adopted all the same, and then forgotten."""
    dead = make(tmp_path, destinations=["local"])
    fill(dead, [1])
    read(dead.segments)
    token = dead.token
    die(dead)
    heir = make(tmp_path, destinations=["local"])
    (adopted,) = heir.adopt()
    heir.retire()

    assert (adopted.header.token, adopted.header.stream, adopted.header.agent) == (token, "shop", "shop")
    assert names(tmp_path) == []


def test_a_living_owner_keeps_its_segments(tmp_path: Path, options: dict[str, Any]) -> None:
    """Whoever looks beside a journal in use finds nothing to take, not even its spare."""
    owner = make(tmp_path, **options)
    fill(owner, range(6), 8_000)
    owner.prepare()
    before = names(tmp_path, "*")

    assert make(tmp_path, **options).adopt() == []
    assert owner.adopt() == []
    assert list(segments_in(tmp_path)) == []
    assert names(tmp_path, "*") == before


def test_temporary_files_of_the_dead_are_removed(tmp_path: Path) -> None:
    """A spare without an owner goes; a file that only looks like one stays."""
    dead = make(tmp_path)
    fill(dead, range(6), 8_000)
    dead.prepare()
    die(dead)
    (tmp_path / "journal" / "shop" / "notes.tmp").write_text("mine")
    (tmp_path / "journal" / "shop" / "0123456789ab-7.tmp").mkdir()
    make(tmp_path).adopt()

    assert names(tmp_path, "*.tmp") == ["0123456789ab-7.tmp", "notes.tmp"]


@pytest.mark.parametrize("cut", [*range(1, 40), 4_000])
def test_a_torn_tail_ends_a_segment(tmp_path: Path, options: dict[str, Any], cut: int) -> None:
    """Wherever a kill cuts a store short, the records before it are read and the rest is not."""
    dead = make(tmp_path, **options)
    fill(dead, range(20))
    segment = dead.segments[0]
    path, end = file_of(segment), segment.end
    torn = record(20, 5_000)
    die(dead)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(torn[:cut])
    heir = make(tmp_path, **options)
    heir.adopt()

    assert read(heir.segments) == expected(range(20))
    assert heir.segments[0].finished() is False
    assert heir.segments[0].passed("local") is True


def test_a_hole_in_a_torn_record_is_not_read_over(tmp_path: Path, options: dict[str, Any]) -> None:
    """A newline behind it does not make a record of bytes that are partly missing; what follows is read."""
    dead = make(tmp_path, **options)
    fill(dead, range(20))
    path, end = file_of(dead.segments[0]), dead.segments[0].end
    die(dead)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(b'{"n":20' + b"\0" * 8 + b'"}\n' + record(21))
    heir = make(tmp_path, **options)
    heir.adopt()

    assert read(heir.segments) == expected([*range(20), 21])


def test_a_file_cut_anywhere_gives_its_first_records(tmp_path: Path, options: dict[str, Any]) -> None:
    """A file shortened at any byte loses its last records only, and a cursor behind its end is set to the end."""
    dead = make(tmp_path, **options)
    fill(dead, range(20))
    read(dead.segments, "whyops")
    path, end = file_of(dead.segments[0]), dead.segments[0].end
    die(dead)
    content = path.read_bytes()
    results = []
    for cut in range(PAGE, end, 5):
        path.write_bytes(content[:cut])
        heir = make(tmp_path, **options)
        heir.adopt()
        whole = content[PAGE:cut].count(b"\n")
        results.append(
            (read(heir.segments, "local") == expected(range(whole)), read(heir.segments, "whyops"))
        )
        die(heir)

    assert results == [(True, [])] * len(results)


def _header(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def _cursor(path: Path, cursor: int) -> None:
    with path.open("r+b") as file:
        file.seek(SLOTS)
        file.write(SLOT.pack(cursor, 0, 0, 0, 0, 0))


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:3_000]),
    "zeros": lambda path: path.write_bytes(b"\0" * 8_192),
    "not JSON": lambda path: path.write_bytes(b"\xff" * 8_192),
    "not UTF-8": lambda path: _header(path, b'"agent":"shop"', b'"agent":"\xff\xfe\xfd\xfc"'),
    "nested without end": lambda path: path.write_bytes(b'{"x":' + b"[" * 8_192),
    "from another version": lambda path: _header(path, b'"version":1', b'"version":3'),
    "from another stream": lambda path: _header(path, b'"stream":"shop"', b'"stream":"ship"'),
    "of too many destinations": lambda path: _header(
        path, b'["local","whyops"]', b"[" + b",".join(b'"%d"' % n for n in range(60)) + b"]"
    ),
    "a cursor before the records": lambda path: _cursor(path, 17),
    "a cursor inside a record": lambda path: _cursor(path, PAGE + 3),
    "a directory": _replace_by_directory,
    "a link": _replace_by_link,
    "a foreign name": lambda path: path.rename(path.with_name("backup.seg")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_segment_that_cannot_be_read_is_set_aside(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """It is renamed, said, never deleted, and nothing else is lost or held open."""
    for numbers in (range(5), range(5, 10), range(10, 15)):
        dead = make(tmp_path, **options)
        fill(dead, numbers)
        path = file_of(dead.segments[0])
        die(dead)
        if numbers.start == 5:
            DAMAGES[damage](path)
    gc.collect()  # journals of other tests
    descriptors = len(os.listdir("/proc/self/fd"))
    heir = make(tmp_path, **options)
    heir.adopt()

    assert len(os.listdir("/proc/self/fd")) == descriptors + 2
    assert len(names(tmp_path, "*.bad")) == 1
    assert read(heir.segments) == expected([*range(5), *range(10, 15)])
    assert [(log.levelname, "is set aside as" in log.message) for log in caplog.records] == [
        ("WARNING", True)
    ]
    assert heir.adopt() == []


def test_what_was_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    """Two bad files of one name are both kept."""
    directory = tmp_path / "journal" / "shop"
    make_private(directory)
    for content in ("first", "second", "third"):
        (directory / "backup.seg").write_text(content)
        make(tmp_path).adopt()

    assert {path.read_text() for path in directory.iterdir()} == {"first", "second", "third"}


def test_a_segment_that_cannot_be_opened_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission is said once; the others are taken over."""
    for number in range(2):
        dead = make(tmp_path)
        fill(dead, [number])
        die(dead)
    forbidden = names(tmp_path)[0]
    first = next(iter(segments_in(tmp_path))).header.token

    def deny(path: Path, mode: str) -> FileIO:
        if path.name == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return FileIO(path, mode)

    monkeypatch.setattr("whyops_trace._journal.files.FileIO", deny)
    heir = make(tmp_path)
    heir.adopt()
    heir.adopt()

    assert len(read(heir.segments)) == 1
    assert first
    assert [log.message.endswith("cannot be opened: Permission denied.") for log in caplog.records] == [True]


def test_a_segment_that_loses_its_name_before_it_is_locked_is_not_taken(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else took it over, finished it and removed it in the blink between open and lock."""
    dead = make(tmp_path, **options)
    fill(dead, [1])
    die(dead)

    def open_late(path: Path, mode: str) -> FileIO:
        file = FileIO(path, mode)
        path.unlink()
        return file

    monkeypatch.setattr("whyops_trace._journal.files.FileIO", open_late)
    descriptors = len(os.listdir("/proc/self/fd"))

    assert make(tmp_path, **options).adopt() == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_much_is_taken_over_piece_by_piece(tmp_path: Path) -> None:
    """At most 64 segments of others are held open, the oldest; the next follow when these are finished."""
    for number in range(ADOPTED_AT_ONCE + 6):
        dead = make(tmp_path, destinations=["local"])
        fill(dead, [number])
        dead.close()
    heir = make(tmp_path, destinations=["local"])
    heir.adopt()
    again = heir.adopt()
    first = read(heir.segments)
    heir.retire()
    heir.adopt()

    assert again == []
    assert first == expected(range(ADOPTED_AT_ONCE))
    assert read(heir.segments) == expected(range(ADOPTED_AT_ONCE, ADOPTED_AT_ONCE + 6))


def test_what_is_left_beyond_the_budget_is_dropped_oldest_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row of dead processes does not fill the disk: the heir counts what it drops as dropped of others."""
    for number in range(5):
        dead = make(tmp_path)
        fill(dead, [number])
        die(dead)
    heir = make(tmp_path, budget=2 * FIRST_SIZE)
    heir.adopt()

    assert read(heir.segments, "whyops") == expected([3, 4])
    assert heir.totals("whyops", adopted=True) == Counts(delivered=2, dropped=3)
    assert heir.totals("local", adopted=True) == Counts(dropped=3)
    assert len(names(tmp_path)) == 2
    assert len(caplog.records) == 1


def test_all_streams_below_a_home_are_taken_over_for_the_command_line(tmp_path: Path) -> None:
    """One segment is held at a time; what is finished is removed, the rest is left for its own stream."""
    for stream in ("one", "two", "three"):
        dead = make(tmp_path, stream, destinations=["local"] if stream == "two" else DESTINATIONS)
        fill(dead, [1, 2])
        die(dead)
    seen = [(segment.header.stream, read([segment])) for segment in segments_in(tmp_path)]
    again = [(segment.header.stream, read([segment])) for segment in segments_in(tmp_path)]

    assert seen == [(stream, expected([1, 2])) for stream in ("one", "three", "two")]
    assert again == [("one", []), ("three", [])]
    assert list(segments_in(tmp_path / "nowhere")) == []


def test_letting_go_twice_is_harmless(tmp_path: Path, options: dict[str, Any]) -> None:
    """Removing after releasing does not delete what somebody else may have taken over."""
    dead = make(tmp_path, **options)
    fill(dead, [1])
    die(dead)
    for segment in segments_in(tmp_path):
        segment.release()
        segment.release()
        segment.remove()
        segment.commit("local", segment.end, Counts(delivered=1))
        assert segment.read("local") == ([], PAGE)
        assert not segment.finished()
    for segment in segments_in(tmp_path):
        assert read([segment]) == expected([1])
        segment.remove()
        segment.remove()

    assert names(tmp_path) == []
