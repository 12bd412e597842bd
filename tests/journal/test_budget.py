"""The room for a journal's segments."""

from __future__ import annotations

import pytest
from journals import record

from whyops_trace._journal.budget import FIRST_SIZE, LARGE, MEMORY_SIZE, SIZE, Budget, forget
from whyops_trace._journal.header import Counts, Header
from whyops_trace._journal.segment import Segment
from whyops_trace._journal.totals import Totals

KIB = 1 << 10
HEADER = Header(
    stream="shop", token="9f2c41aa01be", agent="shop", destinations=["local"], created="2026-01-01"
)


def segment(totals: Totals, size: int, *, sealed: bool = True, passed: bool = False) -> Segment:
    """A segment in memory with one record."""
    made = Segment.in_memory(HEADER, size, totals)
    made.write(record(0))
    made.count = 1
    made.sealed = sealed
    if passed:
        made.commit("local", made.end, Counts(withheld=1))
    return made


@pytest.mark.parametrize(
    ("disk", "usual", "needed", "backlog", "size"),
    [
        pytest.param(256 * SIZE, FIRST_SIZE, 350, 0, FIRST_SIZE, id="usual"),
        pytest.param(256 * SIZE, SIZE, 300 * KIB, 0, 1_200 * KIB, id="some large records"),
        pytest.param(256 * SIZE, SIZE, 100 * SIZE, 0, LARGE, id="no more of a giant one"),
        pytest.param(256 * SIZE, SIZE, 350, 31, SIZE, id="a small backlog"),
        pytest.param(256 * SIZE, SIZE, 350, 32, 2 * SIZE, id="a backlog"),
        pytest.param(256 * SIZE, SIZE, 350, 1_000, 8 * SIZE, id="a large backlog"),
        pytest.param(4 * SIZE, SIZE, 350, 1_000, SIZE // 2, id="a small budget"),
        pytest.param(FIRST_SIZE, SIZE, 350, 0, FIRST_SIZE, id="hardly any budget"),
    ],
)
def test_the_size_of_a_file(disk: int, usual: int, needed: int, backlog: int, size: int) -> None:
    """It grows with the records and with what waits, up to an eighth of the budget."""
    assert Budget("shop", disk, 0).file_size(usual, needed, backlog) == size


@pytest.mark.parametrize(("memory", "size"), [(16 * SIZE, MEMORY_SIZE), (512 * KIB, 64 * KIB)])
def test_the_size_of_a_segment_in_memory(memory: int, size: int) -> None:
    """An eighth of a small budget, too."""
    assert Budget("shop", 0, memory).memory_size() == size


def test_room_is_made_by_the_oldest_and_first_by_what_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    """No more goes than has to, and never the segment that is written; a loss is said once."""
    totals = Totals()
    budget = Budget("shop", 0, 400 * KIB)
    first, second, passed = (segment(totals, 100 * KIB, passed=number == 2) for number in range(3))
    current = segment(totals, 100 * KIB, sealed=False)
    segments = [first, second, passed, current]
    rooms, held = [], []
    for size in (0, 100 * KIB, 200 * KIB, 300 * KIB, 400 * KIB):
        budget.make_room(segments, size, on_disk=False)
        rooms.append(budget.room(segments, on_disk=False) // KIB)
        held.append(list(segments))

    assert rooms == [0, 100, 200, 300, 300]
    assert held == [
        [first, second, passed, current],
        [first, second, current],
        [second, current],
        [current],
        [current],
    ]
    assert totals.reasons("local") == {"memory_full": 2}
    assert [message.startswith("The room for records") for message in caplog.messages] == [True]


def test_memory_takes_no_room_on_disk() -> None:
    """And a segment in memory does not go for a file."""
    budget = Budget("shop", 300 * KIB, 0)
    segments = [segment(Totals(), 100 * KIB)]
    budget.make_room(segments, 400 * KIB, on_disk=True)

    assert budget.room(segments, on_disk=True) == 300 * KIB
    assert len(segments) == 1


def test_one_thread_alone_takes_a_segment_off() -> None:
    """Each thread that wants to learns whether it was the one."""
    segments = [segment(Totals(), 100 * KIB)]
    (only,) = segments

    assert [forget(segments, only), forget(segments, only)] == [True, False]
    assert segments == []
