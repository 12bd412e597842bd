"""The journal among real processes that are killed, fork, race, and run out of disk."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from journals import die, expected, fill, make, names, read

PROGRAM = Path(__file__).with_name("journal_child.py")


class Child(subprocess.Popen[bytes]):
    """The program next door, in a process group of its own."""

    def __init__(self, home: Path, mode: str, command: str, number: int = 0) -> None:
        super().__init__(
            [sys.executable, str(PROGRAM), str(home), mode, command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )

    def hear(self, lines: int = 1) -> list[bytes]:
        """Wait until it has said that many lines."""
        assert self.stdout is not None
        return [self.stdout.readline() for _ in range(lines)]

    def end(self) -> tuple[list[bytes], bytes]:
        """Let it end by itself, and return what it said since on stdout and stderr."""
        said, complaints = self.communicate()
        return said.splitlines(), complaints


@pytest.fixture(params=["mapped", "written"])
def mode(request: pytest.FixtureRequest) -> str:
    """How the file is written."""
    return str(request.param)


@pytest.fixture
def options(mode: str) -> dict[str, Any]:
    """The same as arguments of a journal."""
    return {} if mode == "mapped" else {"mappable": ()}


@pytest.fixture
def start(tmp_path: Path, mode: str) -> Iterator[Any]:
    """Start children that do not outlive the test."""
    children: list[Child] = []

    def start_one(command: str, number: int = 0) -> Child:
        children.append(Child(tmp_path, mode, command, number))
        return children[-1]

    yield start_one
    for child in children:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def wait_until_free(home: Path) -> None:
    """Wait until no process holds a segment: a dying one closes its output before its locks."""
    for segment in (home / "journal").glob("*/*.seg"):
        with segment.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def taken_over(home: Path, options: dict[str, Any]) -> list[bytes]:
    """Return what a new process finds, and forget it."""
    heir = make(home, **options)
    heir.adopt()
    lines = read(heir.segments)
    read(heir.segments, "whyops")
    heir.retire()
    return lines


@pytest.mark.parametrize("acknowledged", [1, 700, 1_500, 3_000])
@pytest.mark.parametrize("command", ["write", "fork"])
def test_kill_loses_nothing_that_was_acknowledged(
    tmp_path: Path, start: Any, options: dict[str, Any], command: str, acknowledged: int
) -> None:
    """Four threads, and a forked child with four more, are killed with -9: each record is there, and once."""
    child = start(command)
    said = child.hear(acknowledged)
    beside = taken_over(tmp_path, options)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.stdout is not None
    said += child.stdout.read().splitlines(keepends=True)
    wait_until_free(tmp_path)
    found = Counter(msgspec.json.decode(line)["n"] for line in taken_over(tmp_path, options))
    heard = {line.decode().strip() for line in said if line.endswith(b"\n")}

    assert beside == []
    assert heard - found.keys() == set()
    assert set(found.values()) == {1}
    assert len(found) - len(heard) <= 8
    assert names(tmp_path, "*") == []


def test_the_owner_keeps_its_segments_until_it_dies(
    tmp_path: Path, start: Any, options: dict[str, Any]
) -> None:
    """Adoption beside a living process takes nothing, and everything once it is gone."""
    child = start("hold", 10)
    child.hear()
    before = taken_over(tmp_path, options)
    child.kill()
    child.wait()

    assert before == []
    assert taken_over(tmp_path, options) == expected(range(10))


def test_a_child_that_lives_on_does_not_hold_what_its_parent_left(
    tmp_path: Path, start: Any, options: dict[str, Any]
) -> None:
    """After a fork each process has segments of its own: the parent's are free when it dies, the child's are not."""
    parent = start("leave_child")
    parent.hear()
    parent.kill()
    parent.wait()
    first = taken_over(tmp_path, options)
    parent.end()

    assert first == expected(range(5))
    assert taken_over(tmp_path, options) == expected(range(100, 105))


def test_a_child_that_closes_does_not_let_go_of_its_parents_segments(
    tmp_path: Path, start: Any, options: dict[str, Any]
) -> None:
    """What a forked child closes, removes and releases is its own."""
    parent = start("outlive_child")
    parent.hear()
    first = taken_over(tmp_path, options)
    said, complaints = parent.end()

    assert first == expected(range(100, 105))
    assert (said, complaints, parent.returncode) == ([], b"", 0)
    assert taken_over(tmp_path, options) == expected(range(10))


def test_a_forked_child_holds_no_file_of_its_parent(start: Any) -> None:
    """Even if a worker was making or removing segments when the process forked."""
    said, complaints = start("inherit", 50).end()

    assert complaints == b""
    assert said == [b"0"] * 50


def test_racing_heirs_take_each_segment_once(tmp_path: Path, start: Any, options: dict[str, Any]) -> None:
    """Four processes that take over at the same time share the segments, and no record comes twice or not at all."""
    for number in range(40):
        dead = make(tmp_path, **options)
        fill(dead, [number])
        die(dead)
    heirs = [start("adopt", 1) for _ in range(4)]
    for heir in heirs:
        heir.hear()
    for heir in heirs:
        heir.stdin.close()
        heir.stdin = None
    results = [heir.end() for heir in heirs]

    assert sorted(line for said, _ in results for line in said) == sorted(expected(range(40)))
    assert [complaints for _, complaints in results] == [b""] * 4
    assert names(tmp_path, "*") == []


def test_a_file_is_never_taken_while_it_is_made(tmp_path: Path, start: Any) -> None:
    """Heirs that sweep the directory all the time neither disturb a new process nor miss what it leaves."""
    heirs = [start("adopt") for _ in range(2)]
    for heir in heirs:
        heir.hear()
    said, complaints = start("come_and_go", 300).end()
    results = [heir.end() for heir in heirs]
    left = [str(line) for line in taken_over(tmp_path, {})]

    assert (said, complaints, left) == ([], b"", [])
    assert sorted(line for said, _ in results for line in said) == sorted(expected(range(300)))
    assert [complaints for _, complaints in results] == [b""] * 2


def test_a_full_disk_is_survived_in_memory(start: Any, mode: str) -> None:
    """Nothing is lost or torn when files cannot grow, and the disk is used again when they can."""
    (memory, *lines), complaints = start("full", 20_000).end()

    assert lines == expected(range(2_000), 500)
    if mode == "mapped":
        assert b"Recording in memory only" in complaints
        assert memory.startswith(b"3 of ")
    else:
        assert memory.startswith(b"0 of ")  # files of 20,000 bytes are short, but they are files
    assert complaints.count(b"\n") == (mode == "mapped")
