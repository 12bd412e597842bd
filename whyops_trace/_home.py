"""The directory everything is kept in: the journal, and the local store."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Final

#: The local store in a home.
STORE_FILE: Final = "traces.db"
#: What a server has said, and what it has refused, in a home.
SERVER_FILE: Final = "server.db"
REJECTED_FILE: Final = "rejected.ndjson"
#: The folder of the journals in a home.
JOURNAL: Final = "journal"


def home_directory(home: str | os.PathLike[str] | None = None) -> Path:
    """Return a home as an absolute path; the one of this user if it is None: ``WHYOPS_HOME``, else ``~/.whyops``."""
    path = os.path.expanduser(home or os.environ.get("WHYOPS_HOME") or "~/.whyops")
    if path.startswith("~"):  # no home directory: nothing can be written below a file, which the journal says
        return Path(os.devnull) / "whyops"
    return Path(os.path.abspath(path))


def command_line(*words: str, home: Path) -> str:
    """Return what to type into a shell to run a command of ``whyops-trace`` on a home."""
    where = () if home == home_directory() else ("--home", str(home))
    return shlex.join(["whyops-trace", *words, *where])


def make_private(directory: Path) -> None:
    """
    Make a directory and the missing ones above it, for their owner only, whatever the umask.

    Raises:
        OSError: if one cannot be made.
    """
    if not directory.is_dir():
        make_private(directory.parent)
        with contextlib.suppress(FileExistsError):  # another process was faster
            directory.mkdir(0o700)
            directory.chmod(0o700)
