"""The journal: order, cursors, and what happens where there is no room."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from journals import DESTINATIONS, die, expected, file_of, fill, make, names, read, record

from whyops_trace._journal.budget import FIRST_SIZE, SIZE
from whyops_trace._journal.header import Counts
from whyops_trace._journal.journal import Journal, segments_in
from whyops_trace._journal.spares import READY
from whyops_trace.exceptions import ConfigurationError

KIB = 1024


@pytest.fixture(params=["mapped", "written"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that make a journal use memory maps, or system calls as on a network file system."""
    return {} if request.param == "mapped" else {"mappable": ()}


def test_records_come_back_in_order_for_each_destination(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every destination reads what was appended, in that order and byte for byte."""
    journal = make(tmp_path, **options)
    fill(journal, range(5_000), 100)

    assert read(journal.segments, "local") == expected(range(5_000), 100)
    assert read(journal.segments, "whyops") == expected(range(5_000), 100)
    assert journal.emitted == 5_000
    assert journal.totals("local") == journal.totals("whyops") == Counts(delivered=5_000)


def test_nothing_is_written_before_the_first_record(tmp_path: Path) -> None:
    """A journal that is only made leaves no trace on disk."""
    make(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_read_returns_whole_records_up_to_a_limit(tmp_path: Path) -> None:
    """A batch ends at the last record that fits, and a record longer than the limit comes whole."""
    journal = make(tmp_path)
    fill(journal, range(3), 100)
    fill(journal, [3], 9_000)
    segment = journal.segments[0]
    batches = []
    while (batch := segment.read("local", 300))[0]:
        batches.append(batch[0])
        segment.commit("local", batch[1], Counts(delivered=len(batch[0])))

    assert batches == [expected(range(2), 100), expected([2], 100), expected([3], 9_000)]


def test_the_first_segment_is_small_and_later_ones_are_larger(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """A short process takes 64 KiB of disk, a busy one takes more at a time."""
    journal = make(tmp_path, **options)
    fill(journal, range(300), 4_000)

    # A file that is written by system calls is as long as its records once it is full.
    for segment, size in zip(journal.segments, [FIRST_SIZE, SIZE, SIZE], strict=True):
        assert 0.9 * size < segment.size <= size
    assert [segment.sealed for segment in journal.segments] == [True, True, False]


def test_segments_of_a_backlog_grow(tmp_path: Path) -> None:
    """A long outage costs tens of descriptors, not hundreds."""
    journal = make(tmp_path)
    fill(journal, range(100_000), 1_000)

    sizes = [segment.size // SIZE for segment in journal.segments]
    assert sizes == sorted(sizes)
    assert sizes.count(1) == 31
    assert sizes.count(2) == 32
    assert read(journal.segments) == expected(range(100_000), 1_000)


def test_a_finished_segment_is_written_again(tmp_path: Path) -> None:
    """What every destination has passed makes room for later records, in the same file, and does not come again."""
    journal = make(tmp_path)
    fill(journal, range(400), 4_000)
    used = journal.segments[1]
    inode = os.stat(str(used.path)).st_ino
    read(journal.segments, "local")
    read(journal.segments, "whyops")
    journal.retire()
    fill(journal, range(400, 700), 4_000)
    again = journal.segments[-1]
    stale = used.read("local")
    die(journal)
    heir = make(tmp_path)
    heir.adopt()

    assert os.stat(str(again.path)).st_ino == inode
    assert stale[0] == []
    assert read(heir.segments) == expected(range(400, 700), 4_000)


def test_few_finished_segments_are_kept_ready(tmp_path: Path) -> None:
    """After a long backlog the disk is given back, but for what a busy program uses in a moment."""
    journal = make(tmp_path)
    fill(journal, range(9_000), 1_000)
    read(journal.segments, "local")
    read(journal.segments, "whyops")
    journal.retire()
    left = sum(path.stat().st_size for path in (tmp_path / "journal").glob("*/*.tmp"))

    assert len(journal.segments) == 1
    assert SIZE <= left <= READY


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells how much of a file a process has in its memory"
)
def test_a_backlog_is_not_held_in_memory(tmp_path: Path) -> None:
    """What nobody reads yet waits on disk, and so does what was read: only the segment that is written is in memory."""
    maps = re.compile(re.escape(str(tmp_path)) + r".*?^Rss: +(\d+) kB$", re.DOTALL | re.MULTILINE)

    def resident() -> int:
        return sum(map(int, maps.findall(Path("/proc/self/smaps").read_text()))) << 10

    journal = make(tmp_path)
    fill(journal, range(40_000), 1_000)
    started = [segment.counts("whyops") for segment in journal.segments]
    written = resident()
    records = read(journal.segments, "local")
    some_pages = 3 * len(started) * resource.getpagesize()

    assert written < journal.segments[-1].size + some_pages
    assert resident() < some_pages
    assert records == read(journal.segments, "whyops") == expected(range(40_000), 1_000)


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path, options: dict[str, Any]) -> None:
    """The size of a record is bounded by the budget only."""
    journal = make(tmp_path, **options)
    fill(journal, [0])
    fill(journal, [1], 3_000_000)
    fill(journal, [2])

    assert read(journal.segments) == [*expected([0]), *expected([1], 3_000_000), *expected([2])]


def test_a_finished_segment_is_removed(tmp_path: Path, options: dict[str, Any]) -> None:
    """Retiring deletes the sealed segments that every destination has passed, and only those."""
    journal = make(tmp_path, **options)
    fill(journal, range(300), 4_000)
    first, second, third = journal.segments
    read([first, second, third], "local")
    read([first], "whyops")
    journal.retire()

    assert journal.segments == [second, third]
    assert names(tmp_path) == [file_of(second).name, file_of(third).name]
    assert file_of(third).name in repr(third)
    assert first.read("whyops")[0] == []
    assert (first.passed("whyops"), second.passed("local"), second.passed("whyops")) == (True, True, False)


def test_a_journal_without_destinations_keeps_its_current_segment(tmp_path: Path) -> None:
    """A segment that is written to is never finished, even if nobody waits for it."""
    journal = make(tmp_path, destinations=[])
    fill(journal, [1])
    journal.retire()
    fill(journal, [2])

    assert len(journal.segments) == 1


def test_counts_are_kept_in_the_segment(tmp_path: Path, options: dict[str, Any]) -> None:
    """What a destination did with a segment's records is known to whoever takes it over."""
    journal = make(tmp_path, **options)
    fill(journal, range(10))
    segment = journal.segments[0]
    lines, cursor = segment.read("whyops", 2 * len(record(0)))
    segment.commit("whyops", cursor, Counts(delivered=1, rejected=1))
    die(journal)
    heir = make(tmp_path, **options)
    (adopted,) = heir.adopt()
    read([adopted], "whyops")

    assert lines == expected(range(2))
    assert adopted.counts("whyops") == Counts(delivered=9, rejected=1)
    assert heir.totals("whyops") == Counts()
    assert heir.totals("whyops", adopted=True) == Counts(delivered=8)


def test_a_ready_segment_is_used_by_the_next_rotation(tmp_path: Path, options: dict[str, Any]) -> None:
    """What a worker prepared is renamed, so that append has nothing to allocate."""
    journal = make(tmp_path, **options)
    fill(journal, range(3), 8_000)
    journal.prepare()
    early = names(tmp_path, "*.tmp")
    fill(journal, range(3, 6), 8_000)
    journal.prepare()
    journal.prepare()
    (spare,) = (tmp_path / "journal").glob("*/*.tmp")
    inode = spare.stat().st_ino
    fill(journal, range(6, 12), 8_000)

    assert early == []
    assert names(tmp_path, "*.tmp") == []
    assert file_of(journal.segments[1]).stat().st_ino == inode
    assert read(journal.segments) == expected(range(12), 8_000)


def test_a_ready_segment_that_is_too_small_waits_for_its_turn(tmp_path: Path) -> None:
    """A giant record passes the spare, and the record after it uses it."""
    journal = make(tmp_path)
    fill(journal, range(6), 8_000)
    journal.prepare()
    fill(journal, [6], 2_000_000)
    kept = names(tmp_path, "*.tmp")
    fill(journal, [7], 900_000)

    assert len(kept) == 1
    assert names(tmp_path, "*.tmp") == []
    assert len(read(journal.segments)) == 8


def test_a_home_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    """Deleting the directory under a running program costs the records in it, not the later ones."""
    journal = make(tmp_path)
    fill(journal, range(6), 8_000)
    journal.prepare()
    shutil.rmtree(tmp_path / "journal")
    fill(journal, range(6, 12), 8_000)
    die(journal)

    assert [line for segment in segments_in(tmp_path) for line in read([segment])] == expected(
        range(7, 12), 8_000
    )


def test_preparing_is_silent_where_nothing_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that cannot make a segment leaves it to append, which says what is wrong."""
    journal = make(tmp_path)
    journal.prepare()
    fill(journal, range(6), 8_000)
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").write_text("in the way")
    journal.prepare()

    assert caplog.records == []


@pytest.mark.parametrize(
    "names", [{"agent": "a" * 2_100}, {"agent": "\ud800"}, {"destinations": [f"d{n}" for n in range(60)]}]
)
def test_names_that_do_not_fit_are_refused_at_once(names: dict[str, Any]) -> None:
    """A header that could not be written is an error of configuration, not of a later record."""
    with pytest.raises(ConfigurationError, match=r"too long|not valid Unicode"):
        Journal(None, **({"stream": "s", "agent": "a", "destinations": ["local"]} | names))


def test_the_oldest_goes_when_the_disk_budget_is_full(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The destination that is behind loses its oldest records, counted; the one that keeps up loses nothing."""
    journal = make(tmp_path, budget=512 * KIB, **options)
    kept_up: list[bytes] = []
    for number in range(1_000):
        fill(journal, [number], 4_000)
        kept_up += read(journal.segments, "local")
    late = read(journal.segments, "whyops")
    counts = journal.totals("whyops")

    assert kept_up == expected(range(1_000), 4_000)
    assert journal.totals("local") == Counts(delivered=1_000)
    assert late == expected(range(1_000 - len(late), 1_000), 4_000)
    assert counts == Counts(delivered=len(late), dropped=1_000 - len(late))
    assert sum(path.stat().st_size for path in (tmp_path / "journal").glob("*/*")) <= 512 * KIB
    assert len(late) > 60
    assert [log.message.startswith("The room for records") for log in caplog.records] == [True]


def test_a_finished_segment_goes_before_one_that_is_needed(tmp_path: Path) -> None:
    """Room is made without a loss while something everybody has passed is still there."""
    journal = make(tmp_path, budget=4 * FIRST_SIZE)
    fill(journal, range(60), 3_500)
    second = journal.segments[1]
    read([second], "local")
    read([second], "whyops")
    fill(journal, range(60, 75), 3_500)

    assert second not in journal.segments
    assert journal.totals("local").dropped == 0


def test_a_batch_that_arrives_after_its_segment_was_dropped_counts_as_delivered(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """A record is never both dropped and delivered, whichever comes first."""
    journal = make(tmp_path, budget=2 * FIRST_SIZE, **options)
    fill(journal, range(15), 4_000)
    segment = journal.segments[0]
    lines, cursor = segment.read("whyops", 20_000)
    fill(journal, range(15, 45), 4_000)
    dropped = journal.totals("whyops")
    segment.commit("whyops", cursor, Counts(delivered=len(lines)))

    assert lines == expected(range(4), 4_000)
    assert segment not in journal.segments
    assert segment.read("whyops") == ([], cursor)
    assert segment.finished()
    assert journal.totals("whyops") == Counts(delivered=4, dropped=dropped.dropped - 4)


@pytest.mark.parametrize("where", ["below a file", "too long", "read only"])
def test_records_wait_in_memory_where_nothing_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """The program goes on, a warning says once what to do, and delivery works as ever."""
    (tmp_path / "file").write_text("")
    home = {
        "below a file": tmp_path / "file" / "home",
        "too long": tmp_path / ("x" * 300),
        "read only": Path("/proc"),
    }
    journal = make(home[where])
    fill(journal, range(1_000), 100)
    adopted = journal.adopt()
    lines = read(journal.segments)
    read(journal.segments, "whyops")
    journal.close()

    assert adopted == []
    assert lines == expected(range(1_000), 100)
    assert journal.totals("whyops") == Counts(delivered=1_000)
    assert [log.levelno for log in caplog.records] == [logging.WARNING]
    assert "in memory only" in caplog.text
    assert "Set WHYOPS_HOME to a writable directory" in caplog.text


def test_a_file_that_does_not_take_its_first_page_is_not_used(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while a segment is made leaves no piece of it behind."""
    monkeypatch.setattr(os, "pwrite", lambda *args: 5)
    journal = make(tmp_path, **options)
    fill(journal, [1])

    assert names(tmp_path, "*") == []
    assert read(journal.segments) == expected([1])


def test_the_disk_is_used_again_as_soon_as_it_can_be(tmp_path: Path) -> None:
    """Each rotation tries anew, so that a disk that was full is full no longer than it is."""
    (tmp_path / "journal").write_text("in the way")
    journal = make(tmp_path)
    fill(journal, range(40), 8_000)
    (tmp_path / "journal").unlink()
    fill(journal, range(40, 80), 8_000)

    assert [segment.path is None for segment in journal.segments] == [True, True, False]
    assert read(journal.segments) == expected(range(80), 8_000)


def test_memory_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Without a directory the oldest records go when the memory budget is full, counted, and it is said once."""
    journal = make(None, memory_budget=512 * KIB)
    fill(journal, range(1_000), 4_000)
    held = sum(segment.size for segment in journal.segments)
    late = read(journal.segments)

    assert held <= 512 * KIB
    assert late == expected(range(1_000 - len(late), 1_000), 4_000)
    assert journal.totals("local") == Counts(delivered=len(late), dropped=1_000 - len(late))
    assert len(caplog.records) == 1


def test_a_record_is_dropped_where_there_is_no_memory_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that has used up its memory is not stopped by its journal."""
    journal = make(None)

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refuse)
    fill(journal, [1])

    assert journal.segments == []
    assert journal.totals("local") == Counts(dropped=1)


def test_a_record_that_fits_nowhere_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One giant record costs itself, not what waits in the journal."""
    journal = make(tmp_path, budget=300 * KIB, memory_budget=200 * KIB)
    fill(journal, [0])
    fill(journal, [1], 400 * KIB)
    fill(journal, [2])

    assert read(journal.segments) == expected([0, 2])
    assert journal.totals("local") == Counts(delivered=2, dropped=1)
    assert journal.emitted == 3
    assert caplog.messages == [f"A record of {len(record(1, 400 * KIB))} bytes fits nowhere and is dropped."]


def test_a_file_that_takes_no_more_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed system call costs no record: what was cut short is ignored, and the record goes elsewhere."""
    journal = make(tmp_path, mappable=())
    fill(journal, range(3))
    real_pwrite = os.pwrite

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        if data == record(3):
            real_pwrite(descriptor, data[:5], offset)
            raise OSError(errno.EIO, "Input/output error")
        return real_pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fail)
    fill(journal, [3])
    monkeypatch.undo()
    die(journal)
    fill(journal, [4])
    journal.adopt()

    assert [segment.path is None for segment in journal.segments] == [False, False]
    assert read(journal.segments) == expected([0, 1, 2, 4])
    assert "Cannot write to the journal" in caplog.text


@pytest.mark.parametrize(
    ("error", "written"),
    [(OSError(errno.EIO, "Input/output error"), [0, 1, 2]), (KeyboardInterrupt(), [0, 2])],
)
def test_pieces_that_are_not_all_written_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, written: list[int]
) -> None:
    """A large record whose system call fails goes elsewhere, and one that was interrupted is not there."""
    journal = make(tmp_path)
    fill(journal, [0])
    line = record(1, 100_000)
    real_pwritev = os.pwritev

    def fail(descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        monkeypatch.setattr(os, "pwritev", real_pwritev)
        real_pwritev(descriptor, pieces[:1], offset)
        raise error

    monkeypatch.setattr(os, "pwritev", fail)
    with contextlib.suppress(KeyboardInterrupt):
        journal.append_pieces((line[:50_000], line[50_000:]))
    fill(journal, [2])

    assert len(journal.segments) == 2
    assert [line[:8] for line in read(journal.segments)] == [record(number)[:8] for number in written]
    assert journal.totals("local").delivered == journal.emitted == len(written)


def test_an_interrupted_write_ends_its_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C inside a system call nobody knows what was written, so the next record goes elsewhere."""
    journal = make(tmp_path, mappable=())
    fill(journal, [0])

    def interrupt(*args: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fill(journal, [1])
    fill(journal, [2])

    assert len(journal.segments) == 2
    assert read(journal.segments) == expected([0, 2])


def test_a_clean_end_leaves_only_what_is_not_delivered(tmp_path: Path, options: dict[str, Any]) -> None:
    """Finished segments and the spare are removed, the rest is cut to what it holds and can be taken over."""
    journal = make(tmp_path, **options)
    fill(journal, range(20), 3_500)
    first = journal.segments[0]
    read([first], "local")
    read([first], "whyops")
    fill(journal, range(20, 180), 3_500)
    journal.prepare()
    end = journal.segments[1].end
    journal.close()
    (left,) = (tmp_path / "journal").glob("*/*")
    size = left.stat().st_size
    heir = make(tmp_path, **options)
    heir.adopt()

    assert size == end
    assert read(heir.segments) == expected(range(17, 180), 3_500)


def test_a_clean_end_with_everything_delivered_leaves_nothing(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """The usual program leaves no file behind, and no descriptor."""
    gc.collect()  # journals of other tests
    descriptors = len(os.listdir("/proc/self/fd"))
    journal = make(tmp_path, **options)
    fill(journal, range(1_000), 500)
    read(journal.segments, "local")
    read(journal.segments, "whyops")
    journal.close()
    journal.close()

    assert names(tmp_path, "*") == []
    assert journal.segments == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_record_after_the_end_starts_afresh(tmp_path: Path, options: dict[str, Any]) -> None:
    """Recording goes on after close, and what was left is ours again, counted as ours."""
    journal = make(tmp_path, **options)
    fill(journal, range(3))
    journal.close()
    fill(journal, range(3, 6))
    journal.adopt()
    lines = read(journal.segments)

    assert lines == expected(range(6))
    assert len(journal.segments) == 2
    assert journal.totals("local") == Counts(delivered=6)
    assert journal.emitted == 6


def test_records_in_memory_are_dropped_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """What nothing can keep is counted and said when the journal closes."""
    journal = make(None)
    fill(journal, range(5))
    read(journal.segments, "local")
    journal.close()

    assert journal.totals("whyops") == Counts(dropped=5)
    assert journal.totals("local") == Counts(delivered=5)
    assert caplog.messages == [
        "5 records that were only in memory are lost: they were not delivered in time."
    ]


@pytest.fixture
def _quick_turns() -> Iterator[None]:
    """Let threads interrupt each other every ten microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_quick_turns")
@pytest.mark.parametrize("budget", [256 << 20, 384 * KIB], ids=["room", "full"])
def test_threads_read_and_drop_while_others_append(
    tmp_path: Path, options: dict[str, Any], budget: int
) -> None:
    """Under four writers, a reader for each destination and a housekeeper no record is lost, torn, double or moved."""
    journal = make(tmp_path, budget=budget, **options)
    lock = threading.Lock()
    done = threading.Event()
    got: dict[str, list[bytes]] = {"local": [], "whyops": []}

    def write(writer: int) -> None:
        for number in range(writer * 1_000, writer * 1_000 + 1_000):
            with lock:
                journal.append(record(number, 700))

    def deliver(destination: str) -> None:
        last = False
        while not last:
            last = done.is_set()
            got[destination] += read(journal.segments, destination)

    def keep_house() -> None:
        while not done.is_set():
            journal.prepare()
            journal.retire()
            journal.adopt()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    others = [threading.Thread(target=deliver, args=(name,)) for name in DESTINATIONS]
    others.append(threading.Thread(target=keep_house))
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()

    for destination, lines in got.items():
        numbers = [int(line[5 : line.index(b",")]) for line in lines]
        counts = journal.totals(destination)
        assert lines == expected(numbers, 700)
        assert len(set(numbers)) == len(numbers) == counts.delivered
        for writer in range(4):
            mine = [number for number in numbers if number // 1_000 == writer]
            assert mine == sorted(mine)
        assert counts.delivered + counts.dropped == journal.emitted == 4_000
        assert (counts.dropped == 0) or budget < SIZE


class AnyOrder(RuleBasedStateMachine):
    """A journal against lists: whatever happens in between, each destination gets each record once, in order."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.home = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.journal = make(self.home, **self.options)
        self.waiting: dict[str, list[bytes]] = {name: [] for name in DESTINATIONS}
        self.number = 0

    @rule(
        sizes=st.lists(st.sampled_from([0, 50, 3_000, 40_000, 70_000, 1_200_000]), min_size=1, max_size=5),
        in_pieces=st.booleans(),
    )
    def append(self, sizes: list[int], in_pieces: bool) -> None:
        for size in sizes:
            line = record(self.number, size)
            self.number += 1
            if in_pieces:
                self.journal.append_pieces((line[:9], line[9:-1], line[-1:]))
            else:
                self.journal.append(line)
            for lines in self.waiting.values():
                lines.append(line[:-1])

    @rule(
        destination=st.sampled_from(DESTINATIONS),
        limit=st.sampled_from([1, 100, 50_000, 262_144]),
        commit=st.booleans(),
    )
    def read(self, destination: str, limit: int, commit: bool) -> None:
        waiting = self.waiting[destination]
        for segment in self.journal.segments:
            lines, cursor = segment.read(destination, limit)
            if lines:
                assert lines == waiting[: len(lines)]
                if commit:
                    segment.commit(destination, cursor, Counts(delivered=len(lines)))
                    del waiting[: len(lines)]
                return
        assert waiting == []

    @rule()
    def prepare(self) -> None:
        self.journal.prepare()

    @rule()
    def retire(self) -> None:
        self.journal.retire()

    @rule(torn=st.binary(max_size=100).map(lambda data: data.replace(b"\n", b"")))
    def be_killed_and_taken_over(self, torn: bytes) -> None:
        ends = [(segment.path, segment.end) for segment in self.journal.segments if not segment.sealed]
        die(self.journal)
        for path, end in ends:
            assert path is not None
            with path.open("r+b") as file:
                file.seek(end)
                file.write(torn)
        self.journal = make(self.home, **self.options)
        self.journal.adopt()

    @rule()
    def close_and_go_on(self) -> None:
        self.journal.close()
        self.journal.adopt()

    @invariant()
    def nothing_is_dropped(self) -> None:
        for destination in DESTINATIONS:
            assert self.journal.totals(destination).dropped == 0
            assert self.journal.totals(destination, adopted=True).dropped == 0

    def teardown(self) -> None:
        for destination, waiting in self.waiting.items():
            assert read(self.journal.segments, destination) == waiting
        self.journal.close()
        assert names(self.home, "*") == []
        self.stack.close()


class AnyOrderWritten(AnyOrder):
    """The same where maps cannot be trusted."""

    options: ClassVar[dict[str, Any]] = {"mappable": ()}


AnyOrder.TestCase.settings = AnyOrderWritten.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None
)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrderWritten = AnyOrderWritten.TestCase
