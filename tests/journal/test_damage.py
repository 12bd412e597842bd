"""Segments whose files were damaged: what is intact is read, what is not is counted, and the file is kept."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import die, expected, file_of, fill, make, names, read, record

from whyops_trace._journal.header import PAGE, Counts
from whyops_trace._journal.survey import survey

#: Records of each segment, and the bytes of their padding.
RECORDS, SIZE = 200, 200


@pytest.fixture(params=["mapped", "written", "checked"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments that make a journal write in one of its ways."""
    ways: dict[str, dict[str, Any]] = {
        "mapped": {},
        "written": {"mappable": ()},
        "checked": {"checked": True},
    }
    return ways[request.param]


def left(home: Path, options: dict[str, Any]) -> tuple[Path, bytes, list[bytes]]:
    """Leave a segment of a dead process; return its file, the bytes of its records, and the records."""
    dead = make(home, destinations=["local"], **options)
    fill(dead, range(RECORDS), SIZE)
    path, end = file_of(dead.segments[0]), dead.segments[0].end
    die(dead)
    return path, path.read_bytes()[PAGE:end], expected(range(RECORDS), SIZE)


def taken(home: Path) -> tuple[list[bytes], Counts]:
    """Take over what is left as the next process does; return the records, and the counts."""
    heir = make(home, destinations=["local"])
    heir.adopt()
    lines = read(heir.segments)
    heir.retire()
    heir.close()
    return lines, heir.totals("local", adopted=True)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_reading_goes_on_behind_a_hole(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of the records outside a page that never reached the disk all arrive; the file is kept, and it is said once."""
    path, data, lines = left(tmp_path, options)
    overwrite(path, 3 * PAGE, bytes(PAGE))
    hole = range(2 * PAGE, 3 * PAGE)
    places = [0]
    for text in data.split(b"\n")[:-1]:
        places.append(places[-1] + len(text) + 1)
    intact = [
        line
        for line, start, end in zip(lines, places[:-1], places[1:], strict=True)
        if end <= hole.start or start >= hole.stop
    ]
    found, counts = taken(tmp_path)

    assert found == intact
    assert 0.85 * RECORDS < len(intact) < RECORDS
    assert counts == Counts(delivered=len(intact), dropped=1)
    assert names(tmp_path, "*") == [path.name + ".bad"]
    assert [(log.levelno, "is damaged" in log.message) for log in caplog.records] == [(logging.WARNING, True)]


def test_a_hole_behind_a_cursor_does_not_stop_the_reading(tmp_path: Path, options: dict[str, Any]) -> None:
    """The byte before the place that a destination has reached may be gone as well."""
    dead = make(tmp_path, destinations=["local"], **options)
    fill(dead, range(RECORDS), SIZE)
    segment = dead.segments[0]
    lines, cursor = segment.read("local", 3 * PAGE)
    segment.commit("local", cursor, Counts(delivered=len(lines)))
    path = file_of(segment)
    die(dead)
    overwrite(path, cursor - 100, bytes(100))
    found, counts = taken(tmp_path)

    assert lines + found == expected(range(RECORDS), SIZE)
    assert counts.dropped == 0


def test_several_holes_cost_their_own_records_only(tmp_path: Path, options: dict[str, Any]) -> None:
    """Each is passed, and counts for one record at least."""
    path, _, lines = left(tmp_path, options)
    for page in (1, 4, 5, 8):
        overwrite(path, page * PAGE, bytes(PAGE))
    found, counts = taken(tmp_path)

    assert set(found) < set(lines)
    assert len(found) > 0.6 * RECORDS
    assert counts.dropped >= 3


@pytest.mark.parametrize("seed", range(60))
def test_a_changed_byte_is_never_taken_for_the_truth(tmp_path: Path, seed: int) -> None:
    """With a sum each record comes as it was written or not at all; at most two are lost, and they are counted."""
    path, data, lines = left(tmp_path, {"checked": True})
    chance = random.Random(seed)
    place = chance.randrange(len(data))
    overwrite(path, PAGE + place, bytes([data[place] ^ chance.randrange(1, 256)]))
    found, counts = taken(tmp_path)

    assert set(found) < set(lines)
    assert RECORDS - 2 <= len(found) == counts.delivered < RECORDS
    assert counts.dropped >= 1
    assert names(tmp_path, "*") == [path.name + ".bad"]


def test_records_of_the_earlier_use_of_a_file_have_other_sums(tmp_path: Path) -> None:
    """A page that kept what stood there before the file was written anew is no record of now."""
    journal = make(tmp_path, destinations=["local"], checked=True)
    fill(journal, range(400), 4_000)
    stale = file_of(journal.segments[1]).read_bytes()
    read(journal.segments)
    journal.retire()
    fill(journal, range(400, 700), 4_000)
    again = file_of(journal.segments[-1])
    written = again.read_bytes()
    die(journal)
    at = 40 * PAGE
    overwrite(again, at, stale[at : at + 5 * PAGE])
    heir = make(tmp_path, destinations=["local"])
    heir.adopt()
    found = read(heir.segments)
    heir.close()

    assert stale[PAGE:] != written[PAGE:]
    assert set(found) < set(expected(range(400, 700), 4_000))
    assert heir.totals("local", adopted=True).dropped >= 1


@pytest.mark.parametrize("damage", ["hole", "other bytes"])
def test_a_running_process_counts_what_it_finds_damaged(
    tmp_path: Path, options: dict[str, Any], damage: str
) -> None:
    """It knows how many records it wrote: all that did not arrive are counted, and later ones go to another file."""
    journal = make(tmp_path, destinations=["local"], **options)
    fill(journal, range(RECORDS), SIZE)
    segment = journal.segments[0]
    overwrite(file_of(segment), 2 * PAGE, bytes(PAGE) if damage == "hole" else b"\xff" * PAGE)
    read([segment])
    fill(journal, range(RECORDS, RECORDS + 10), SIZE)
    later = read(journal.segments)
    in_memory = "mappable" in options
    counts = journal.totals("local")
    journal.close()

    assert later == expected(range(RECORDS, RECORDS + 10), SIZE)
    assert counts.delivered + counts.dropped == journal.emitted == RECORDS + 10
    assert (counts.dropped == 0) is in_memory
    assert journal.reasons("local") == ({} if in_memory else {"damaged": counts.dropped})
    assert len(names(tmp_path, "*.bad")) == (not in_memory)


@pytest.mark.parametrize("size", [0, 100, PAGE, 3 * PAGE])
def test_a_file_that_is_cut_while_it_is_written_harms_nobody(
    tmp_path: Path, options: dict[str, Any], size: int
) -> None:
    """What was cut off is counted, later records are kept, and the process lives."""
    journal = make(tmp_path, destinations=["local"], **options)
    fill(journal, range(RECORDS), SIZE)
    os.truncate(file_of(journal.segments[0]), size)
    fill(journal, range(RECORDS, 2 * RECORDS), SIZE)
    found = read(journal.segments)
    counts = journal.totals("local")
    journal.close()

    assert found[-RECORDS:] == expected(range(RECORDS, 2 * RECORDS), SIZE)
    assert counts.delivered + counts.dropped == journal.emitted == 2 * RECORDS
    assert len(found) == counts.delivered


@pytest.mark.parametrize("size", [0, PAGE, 3 * PAGE])
def test_a_file_that_is_cut_takes_no_pieces(tmp_path: Path, options: dict[str, Any], size: int) -> None:
    """A large record goes to the next file, where it is found."""
    journal = make(tmp_path, destinations=["local"], **options)
    fill(journal, range(3), SIZE)
    os.truncate(file_of(journal.segments[0]), size)
    line = record(3, 100_000)
    journal.append_pieces((line[:60_000], line[60_000:]))
    found = read(journal.segments)
    journal.close()

    assert found[-1:] == [line[:-1]]
    assert journal.emitted == 4


def test_a_spare_file_that_is_cut_is_not_used(tmp_path: Path) -> None:
    """It is looked at before the first record goes there."""
    journal = make(tmp_path, destinations=["local"])
    fill(journal, range(6), 8_000)
    journal.prepare()
    (spare,) = (tmp_path / "journal").glob("*/*.tmp")
    os.truncate(spare, 0)
    fill(journal, range(6, 12), 8_000)
    found = read(journal.segments)
    journal.close()

    assert found == expected(range(12), 8_000)


def test_a_cut_file_is_not_written_again(tmp_path: Path) -> None:
    """A finished segment is kept ready only if its file is whole."""
    journal = make(tmp_path, destinations=["local"])
    fill(journal, range(300), 4_000)
    second = journal.segments[1]
    read(journal.segments)
    os.truncate(file_of(second), 2 * PAGE)
    journal.retire()
    ready = names(tmp_path, "*.tmp")
    fill(journal, range(300, 600), 4_000)
    found = read(journal.segments)
    journal.close()

    assert ready == []
    assert found == expected(range(300, 600), 4_000)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "no object": lambda line: b"x" + line[1:],
    "not closed": lambda line: line[:-2] + b"x\n",
    "two values": lambda line: line[:5] + b"}{" + line[7:],
    "not UTF-8": lambda line: line.replace(b"xxx", b"x\xffx"),
    "a hole": lambda line: line.replace(b"xxx", b"x\0x"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_line_that_is_no_json_is_no_record(tmp_path: Path, how: str) -> None:
    """Where there is no sum, what a dead process left has to be JSON at least."""
    path, data, lines = left(tmp_path, {})
    line = record(70, SIZE)
    overwrite(path, PAGE + data.index(line), BROKEN[how](line))
    found, counts = taken(tmp_path)

    assert found == lines[:70] + lines[71:]
    assert counts == Counts(delivered=RECORDS - 1, dropped=1)


def test_a_survey_goes_on_behind_a_hole(tmp_path: Path, options: dict[str, Any]) -> None:
    """What waits is counted as it will arrive."""
    path, _, _ = left(tmp_path, options)
    overwrite(path, 3 * PAGE, bytes(PAGE))
    waiting = survey(tmp_path).streams[0].waiting["local"]
    found, _ = taken(tmp_path)

    assert waiting.left == len(found)


def test_a_segment_of_the_first_format_is_read(tmp_path: Path) -> None:
    """Byte for byte as earlier versions wrote it."""
    folder = tmp_path / "journal" / "shop"
    folder.mkdir(parents=True)
    page = (
        b'{"version":1,"stream":"shop","token":"9f2c41aa01be","agent":"shop","destinations":["local"],"ephemeral":[],'
        b'"created":"2026-01-01T00:00:00.000Z"}'
    )
    content = page.ljust(PAGE, b"\0") + b"".join(map(record, range(3)))
    (folder / "9f2c41aa01be-1767225600000000000.seg").write_bytes(content.ljust(1 << 16, b"\0"))
    found, counts = taken(tmp_path)

    assert found == expected(range(3))
    assert counts == Counts(delivered=3)
    assert names(tmp_path, "*") == []
