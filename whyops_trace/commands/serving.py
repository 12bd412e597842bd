"""Which server shows a home at present: it says so in a file there, and is asked whether that is still true."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from whyops_trace._excerpt import get
from whyops_trace._shapes import text_of

#: Where a home says which server shows it.
_FILE: Final = "serve.json"
#: Seconds that a server has to say that it is there.
_ANSWER: Final = 2.0
#: Bytes of its answer that are read.
_MAX_ANSWER: Final = 10_000


def note(home: Path, url: str) -> None:
    """Write down where this process shows a home; where that cannot be, nobody finds it by the home."""
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = home / f"{_FILE}.{os.getpid()}"
        made.write_text(json.dumps({"pid": os.getpid(), "url": url}), encoding="utf-8")
        os.replace(made, home / _FILE)


def forget(home: Path) -> None:
    """Take back what this process wrote down, unless another one has written since."""
    if get(_read(home), "pid") == os.getpid():
        (home / _FILE).unlink(missing_ok=True)


def running(home: Path) -> str | None:
    """Return the address of a server that shows this home, None if there is none that answers."""
    url = text_of(get(_read(home), "url"))
    if not url:
        return None
    import http.client  # takes longer to load than most commands to run

    try:
        where = urlsplit(url)
        if where.scheme != "http" or where.hostname is None:
            return None
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=_ANSWER)
        with contextlib.closing(connection):
            connection.request("GET", "/api/health")
            health = json.loads(connection.getresponse().read(_MAX_ANSWER))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    return url if get(health, "home") == str(home) else None


def _read(home: Path) -> Any:
    try:
        return json.loads((home / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
