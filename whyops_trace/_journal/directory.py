"""
A directory of segments: new ones are made here, and those of dead processes are taken over.

A segment is made as ``<token>-<number>.tmp``, locked with ``flock``, allocated and only then renamed to
``<token>-<serial>.seg``: a file of that name that is not locked has lost its owner. A lock ends with its
process, in whatever way that ends, and no process id is ever looked at. Serials rise with time over all processes:
their order is that of the records.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from whyops_trace._guard import warn_once
from whyops_trace._journal.files import HeldFile
from whyops_trace._journal.header import PAGE, Header
from whyops_trace._journal.segment import ZEROS, Segment, set_aside
from whyops_trace._journal.storage import Mapped, Memory, Storage, has_maps, may_fail
from whyops_trace._journal.totals import Totals
from whyops_trace.exceptions import JournalError

#: File systems that keep the promise of ``posix_fallocate``: room that was taken can be written. A
#: copy-on-write one needs new room for each write and a network may be down; a store to a map then kills the
#: process.
MAPPABLE: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"})

_SEGMENT: Final = re.compile(r"[0-9a-f]{12}-([0-9]{1,20})\.seg")
_TEMPORARY: Final = re.compile(r"[0-9a-f]{12}-[0-9]{1,20}\.tmp")

#: Numbers of temporary files, which are never used twice in one process.
_numbers = count(1)


class Ways(NamedTuple):
    """
    The ways in which a journal writes its files.

    Attributes:
        file_systems: Those whose files are written through a map; on others a system call writes each record.
        durable: True to wait for the disk with each new file and its name.
        synced: True to wait for the disk with each record.
    """

    file_systems: Collection[str] = MAPPABLE
    durable: bool = False
    synced: bool = False


def is_mappable(directory: Path, file_systems: Collection[str]) -> bool:
    """Tell whether a directory is on one of these file systems, and this platform can allocate and map files."""
    if not has_maps():
        return False
    try:
        return file_system(directory.stat().st_dev) in file_systems
    except OSError:  # not Linux
        return False


@functools.lru_cache(maxsize=64)
def file_system(device: int) -> str:
    """
    Return the file system of a device, "" if it is unknown.

    Raises:
        OSError: if this platform does not tell.
    """
    device_number = f"{os.major(device)}:{os.minor(device)}"
    for mount in Path("/proc/self/mountinfo").read_text(errors="replace").split("\n")[:-1]:
        place, _, source = mount.partition(" - ")
        if place.split(" ")[2] == device_number:
            return source.split(" ")[0]
    return ""


def create(directory: Path, header: Header, size: int, totals: Totals, ways: Ways) -> Segment:
    """
    Return a new segment under a temporary name, allocated and locked.

    Where it is written through a map, its room is taken now, because a write to a map kills the process where the
    disk has none. Its pages are written now, because that takes the kernel an eighth of the time it takes to make each
    of them at the first store to it. They are not written all in one go, or a look at the first page would fetch all
    of them into the memory of the process.

    Args:
        directory: The directory of the file.
        header: The first page of the file.
        size: The bytes of the file, with its first page.
        totals: The counts that commits and drops are added to.
        ways: The ways to write it.

    Raises:
        OSError: if the file cannot be made.
    """
    mapped = is_mappable(directory, ways.file_systems) and may_fail()
    file = _create_file(directory, header)
    try:
        if mapped:
            os.posix_fallocate(file.number, 0, size)
            for start in range(PAGE, size, len(ZEROS)):
                if not file.write(ZEROS[: size - start], start):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if ways.durable:
            file.sync()
        storage: Storage = Mapped(size, file) if mapped else Memory(size, file)
        return Segment(storage, header, totals, durable=ways.durable, synced=ways.synced)
    except BaseException:
        _remove(file)
        raise


def recreate(segment: Segment, header: Header) -> Segment | None:
    """
    Return a new segment under a temporary name in the file of one that is finished; None if it has none to spare.

    Args:
        segment: One of this process's own.
        header: The first page of the new one.

    Raises:
        OSError: if the file cannot be used.
    """
    if segment.path is None:
        return None
    return segment.wiped(header, segment.path.with_name(f"{header.token}-{next(_numbers)}.tmp"))


def _create_file(directory: Path, header: Header) -> HeldFile:
    while True:
        file = HeldFile(directory / f"{header.token}-{next(_numbers)}.tmp", "x+")
        is_ours = False
        try:
            file.write_first(header.page())
            # A sweep of the directory that comes before the lock takes the file for a dead process's, and removes it.
            if file.lock() and file.status().st_nlink:
                file.make_private()
                is_ours = True
        finally:
            if not is_ours:
                _remove(file)
        if is_ours:
            return file


def _remove(file: HeldFile) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
    file.close()


def _claim(path: Path) -> HeldFile | None:
    """Return a file of a dead process, open and locked; None if it is in use or gone."""
    try:
        file = HeldFile(path, "r+")
    except FileNotFoundError:
        return None
    is_ours = False
    try:
        # It may have lost its name between being opened and being locked.
        is_ours = file.lock() and file.has_name()
    finally:
        if not is_ours:
            file.close()
    return file if is_ours else None


def left_behind(
    directory: Path,
    totals: Totals,
    *,
    stream: str | None = None,
    newest_first: bool = False,
) -> Iterator[Segment]:
    """
    Take over the segments of dead processes, one after the other, and remove their temporary files.

    A file that is no segment, or one that this version cannot read, is set aside as ``.bad``, and said once.

    Args:
        directory: The directory; it need not exist.
        totals: The counts that commits and drops are added to.
        stream: The only stream whose segments belong here; None if any does.
        newest_first: True to begin with the newest instead of the oldest.
    """
    try:
        names = os.listdir(directory)
    except OSError:  # there is none, or it is not ours
        return
    _sweep(directory / name for name in names if _TEMPORARY.fullmatch(name))
    for name in sorted((name for name in names if name.endswith(".seg")), key=_place, reverse=newest_first):
        path = directory / name
        try:
            segment = _adopt(path, totals, stream)
        except JournalError as error:
            _set_aside(path, str(error))
        except OSError as error:
            warn_once(
                f"journal: {path}", "The journal segment %s cannot be opened: %s.", path, error.strerror
            )
        else:
            if segment is not None:
                yield segment


def _adopt(path: Path, totals: Totals, stream: str | None) -> Segment | None:
    """Return the segment of a dead process; None if its owner lives, or somebody else took it over."""
    try:
        if not (_SEGMENT.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)):
            raise JournalError("it is not a segment")
    except FileNotFoundError:
        return None
    file = _claim(path)
    if file is None:
        return None
    try:
        header = Header.decode(file.read(PAGE, 0))
        if stream not in {None, header.stream}:
            raise JournalError(f"it belongs to the stream {header.stream}")
        segment = Segment(Storage(file.status().st_size, file), header, totals)
        segment.take_over()
    except BaseException:
        file.close()
        raise
    return segment


def _sweep(paths: Iterable[Path]) -> None:
    """Remove the temporary files of dead processes."""
    for path in paths:
        with contextlib.suppress(OSError):  # not ours to remove
            file = _claim(path)
            if file is not None:
                _remove(file)


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(path.name + ".bad")
    with contextlib.suppress(OSError):
        aside = set_aside(path)
    warn_once(f"journal: {path}", "The journal segment %s is set aside as %s: %s.", path, aside.name, reason)


def segment_files(directory: Path) -> list[Path]:
    """
    Return the segments of a directory, oldest first.

    Raises:
        OSError: if it cannot be read.
    """
    names = [name for name in os.listdir(directory) if _SEGMENT.fullmatch(name)]
    return [directory / name for name in sorted(names, key=_place)]


def begun(segment: Segment) -> int:
    """Return the time of a segment's first record, in nanoseconds; a spare file was made long before that."""
    if segment.path is None:
        return int(datetime.fromisoformat(segment.header.created).timestamp() * 1_000_000_000)
    return _place(segment.path.name)[0]


def _place(name: str) -> tuple[int, str]:
    match = _SEGMENT.fullmatch(name)
    return (int(match[1]) if match else 0, name)
