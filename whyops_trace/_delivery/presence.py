"""The presence of a process: a locked file, which the operating system lets go of however the process ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from whyops_trace._home import make_private
from whyops_trace._journal.files import HeldFile
from whyops_trace.exceptions import StoreError

#: Tries to make and lock a file; another process may look at it in between.
_TRIES: Final = 10


class Presence:
    """
    The files by which the processes that use something tell that they live.

    Args:
        directory: The directory of the files, made when the first is.
        place: The name of what they use.
    """

    def __init__(self, directory: Path, place: str) -> None:
        self._directory = directory
        self._place = place
        self._held: HeldFile | None = None

    def _path(self, owner: str) -> Path:
        return self._directory / f"{owner}-{self._place}.lock"

    def show(self, owner: str) -> None:
        """
        Tell that this process lives.

        Args:
            owner: Its name.

        Raises:
            StoreError: if no file can be made or locked.
        """
        if self._held is not None:
            return
        path = self._path(owner)
        try:
            make_private(self._directory)
            for _ in range(_TRIES):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    file = HeldFile(path, "r+" if path.exists() else "x+")
                    if file.lock() and file.has_name():
                        file.make_private()
                        self._held = file
                        return
                    file.close()
        except OSError as error:
            raise StoreError(
                f"{path} cannot be made: {error.strerror}. Its directory has to be a writable one."
            ) from error
        raise StoreError(f"{path} cannot be locked.")

    def is_gone(self, owner: str) -> bool:
        """Return True if a process is gone, and delete its file."""
        try:
            file = HeldFile(self._path(owner), "r+")
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            if not (file.lock() and file.has_name()):
                return False
            with contextlib.suppress(OSError):
                file.unlink()
            return True
        finally:
            file.close()

    def leave(self) -> None:
        """Tell that this process is gone."""
        file, self._held = self._held, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink()
            file.close()

    def let_go(self) -> None:
        """Let go of what a forked child inherited: it is the parent's presence."""
        file, self._held = self._held, None
        if file is not None:
            file.let_go()
