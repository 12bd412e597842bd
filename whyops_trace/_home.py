"""The home: the directory of the journal and the local store."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Final

#: File of the local store in a home.
STORE_FILE: Final = "traces.db"
#: File of the words of all traces in a home, for the viewer's search.
SEARCH_FILE: Final = "search.db"
#: File in a home of the spans that a server received, until nothing more of their traces is expected.
SPANS_FILE: Final = "spans.db"
#: File in a home of the calls that are open while spans are exported.
SPANS_OUT_FILE: Final = "otlp.db"
#: File in a home that tells how far it has been forwarded to other receivers.
FORWARD_FILE: Final = "forward.db"
#: File in a home of the records that wait until it is known whether remote destinations get their trace.
WAITING_FILE: Final = "waiting.db"
#: The folder in a home of the files by which processes tell that they use that one.
WAITING: Final = "waiting"
#: Files in a home of a server's answers and of the events that it refused.
SERVER_FILE: Final = "server.db"
REJECTED_FILE: Final = "rejected.ndjson"
#: The folder of the journals in a home.
JOURNAL: Final = "journal"


def home_directory(home: str | os.PathLike[str] | None = None) -> Path:
    """Return a home as an absolute path; for None the home of this user: ``WHYOPS_HOME``, else ``~/.whyops``."""
    path = os.path.expanduser(home or os.environ.get("WHYOPS_HOME") or "~/.whyops")
    if path.startswith(
        "~"
    ):  # no home directory. Nothing can be written below a file, and the journal warns of that.
        return Path(os.devnull) / "whyops"
    return Path(os.path.abspath(path))


def command_line(*words: str, home: Path) -> str:
    """Return the shell command that runs a command of ``whyops-trace`` on a home."""
    option = () if home == home_directory() else ("--home", str(home))
    return shlex.join(["whyops-trace", *words, *option])


def is_writable(path: Path) -> bool:
    """Return True if this process may write to a file, or make files in a directory."""
    mode = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(path) else 0)
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def make_private(directory: Path) -> None:
    """
    Make a directory and its missing parents, for their owner only, with any umask.

    Raises:
        OSError: if one cannot be made.
    """
    if not directory.is_dir():
        make_private(directory.parent)
        with contextlib.suppress(FileExistsError):  # another process was faster
            directory.mkdir(0o700)
            directory.chmod(0o700)
