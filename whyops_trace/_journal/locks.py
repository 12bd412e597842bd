"""Locks of files, by which a process shows that it lives: they end with it, in whatever way that ends."""

from __future__ import annotations

import errno
import os
import sys

if sys.platform == "win32":  # pragma: no cover - not a platform that tests run on
    import msvcrt

    #: The offset of the byte that is locked: far behind any record, since others cannot read a locked byte.
    _BYTE = 1 << 62

    def lock(descriptor: int) -> bool:
        """Lock a file; return False if somebody else has."""
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def is_locked(descriptor: int) -> bool:
        """Tell whether somebody else has locked a file; a free one is free again once it is closed."""
        return not lock(descriptor)

else:
    try:
        import fcntl
    except ImportError:  # a platform without processes, or a hardened one
        fcntl = None  # type: ignore[assignment]

    def lock(descriptor: int) -> bool:
        """
        Lock a file; return False if somebody else has.

        Raises:
            OSError: if files cannot be locked here.
        """
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "files cannot be locked on this platform")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_locked(descriptor: int) -> bool:
        """Tell whether somebody else has locked a file; a free one is free again once it is closed."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
