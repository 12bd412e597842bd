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
import mmap
import os
import re
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

from whyops_trace._guard import warn_once
from whyops_trace._journal.header import PAGE, Header
from whyops_trace._journal.segment import ZEROS, Segment, Totals, WrittenSegment
from whyops_trace.exceptions import JournalError

if sys.platform != "win32":
    import fcntl

#: File systems that keep the promise of ``posix_fallocate``: room that was taken can be written. A
#: copy-on-write one needs new room for each write and a network may be down; a store to a map then kills the
#: process.
MAPPABLE: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"})

_SEGMENT: Final = re.compile(r"[0-9a-f]{12}-([0-9]{1,20})\.seg")
_TEMPORARY: Final = re.compile(r"[0-9a-f]{12}-[0-9]{1,20}\.tmp")

#: Numbers of temporary files, which are never used twice in one process.
_numbers = count(1)


def is_mappable(directory: Path, file_systems: Collection[str]) -> bool:
    """Tell whether a directory is on one of these file systems, and this platform can allocate files."""
    if not hasattr(os, "posix_fallocate"):
        return False
    device = directory.stat().st_dev
    device_number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return False
    for mount in mounts.split("\n")[:-1]:
        place, _, source = mount.partition(" - ")
        if place.split(" ")[2] == device_number:
            return source.split(" ")[0] in file_systems
    return False


def create(directory: Path, header: Header, size: int, totals: Totals, *, mapped: bool) -> Segment:
    """
    Return a new segment under a temporary name, allocated and locked.

    Args:
        directory: The directory of the file.
        header: The first page of the file.
        size: The bytes of the file, with its first page.
        totals: The counts that commits and drops are added to.
        mapped: True to write through a map. Its room is then taken now, because a write to a map kills the process
            where the disk has none. Its pages are written now, because that takes the kernel an eighth of the time
            it takes to make each of them at the first store to it. They are not written all in one go, or a look at
            the first page would fetch all of them into the memory of the process.

    Raises:
        OSError: if the file cannot be made.
    """
    path, descriptor = _create_file(directory, header.token)
    try:
        if mapped:
            os.posix_fallocate(descriptor, 0, size)
        parts: list[bytes | memoryview] = [header.page()]
        if mapped:
            parts += (ZEROS[: size - start] for start in range(PAGE, size, len(ZEROS)))
        offset = 0
        for part in parts:
            length = os.pwrite(descriptor, part, offset)
            if length < len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            offset += length
        return _segment(descriptor, size, header, totals, path, mapped=mapped)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise


def recreate(segment: Segment, header: Header) -> Segment | None:
    """
    Return a new segment under a temporary name in the file of one that is finished; None if it has none to spare.

    Args:
        segment: One of this process's own.
        header: The first page of the new one.

    Raises:
        OSError: if the file cannot be renamed.
    """
    if type(segment) is not Segment or segment.path is None or segment.adopted:
        return None
    path = segment.path.with_name(f"{header.token}-{next(_numbers)}.tmp")
    return segment.wiped(header, segment.path.rename(path))


def _create_file(directory: Path, token: str) -> tuple[Path, int]:
    while True:
        path = directory / f"{token}-{next(_numbers)}.tmp"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        is_ours = False
        try:
            # A sweep of the directory that comes before the lock takes the file for a dead process's, and removes it.
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                is_ours = True
        finally:
            if not is_ours:
                os.close(descriptor)
                path.unlink(missing_ok=True)
        if is_ours:
            return path, descriptor


def _lock(descriptor: int) -> bool:
    """Lock a file; return False if somebody else has."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "files cannot be locked on this platform")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _claim(path: Path) -> int | None:
    """Return the descriptor of a file of a dead process, open and locked; None if it is in use or gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    is_ours = False
    try:
        is_ours = _lock(descriptor) and _leads_to(path, descriptor)
    finally:
        if not is_ours:
            os.close(descriptor)
    return descriptor if is_ours else None


def _leads_to(path: Path, descriptor: int) -> bool:
    """Tell whether a file still has its name, which it may have lost between being opened and being locked."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def left_behind(
    directory: Path,
    totals: Totals,
    file_systems: Collection[str],
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
        file_systems: Those that can be trusted with a map.
        stream: The only stream whose segments belong here; None if any does.
        newest_first: True to begin with the newest instead of the oldest.
    """
    try:
        names = os.listdir(directory)
        mapped = is_mappable(directory, file_systems)
    except OSError:  # there is none, or it is not ours
        return
    _sweep(directory / name for name in names if _TEMPORARY.fullmatch(name))
    for name in sorted((name for name in names if name.endswith(".seg")), key=_place, reverse=newest_first):
        path = directory / name
        try:
            segment = _adopt(path, totals, mapped=mapped, stream=stream)
        except JournalError as error:
            _set_aside(path, str(error))
        except OSError as error:
            warn_once(
                f"journal: {path}", "The journal segment %s cannot be opened: %s.", path, error.strerror
            )
        else:
            if segment is not None:
                yield segment


def _adopt(path: Path, totals: Totals, *, mapped: bool, stream: str | None) -> Segment | None:
    """Return the segment of a dead process; None if its owner lives, or somebody else took it over."""
    try:
        if not (_SEGMENT.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)):
            raise JournalError("it is not a segment")
    except FileNotFoundError:
        return None
    descriptor = _claim(path)
    if descriptor is None:
        return None
    try:
        size = os.fstat(descriptor).st_size
        header = Header.decode(os.pread(descriptor, PAGE, 0))
        if stream not in {None, header.stream}:
            raise JournalError(f"it belongs to the stream {header.stream}")
        segment = _segment(descriptor, size, header, totals, path, mapped=mapped)
    except BaseException:
        os.close(descriptor)
        raise
    try:
        segment.take_over()
    except JournalError:
        segment.abandon()
        raise
    return segment


def _segment(
    descriptor: int, size: int, header: Header, totals: Totals, path: Path, *, mapped: bool
) -> Segment:
    """Return the segment of an open and locked file, which owns the descriptor from now on."""
    if mapped:
        memory = mmap.mmap(descriptor, size)
        os.close(descriptor)  # the map has a duplicate, and with it the lock
        return Segment(memory, header, totals, path)
    memory = mmap.mmap(-1, size)
    with open(descriptor, "rb", closefd=False) as file:
        file.readinto(memory)
    return WrittenSegment(descriptor, memory, header, totals, path)


def _sweep(paths: Iterable[Path]) -> None:
    """Remove the temporary files of dead processes."""
    for path in paths:
        with contextlib.suppress(OSError):  # not ours to remove
            descriptor = _claim(path)
            if descriptor is not None:
                try:
                    path.unlink()
                finally:
                    os.close(descriptor)


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(path.name + ".bad")
    number = count(1)
    while os.path.lexists(aside):
        aside = path.with_name(f"{path.name}.{next(number)}.bad")
    with contextlib.suppress(OSError):  # another process was faster, or nothing may be renamed here
        path.rename(aside)
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
