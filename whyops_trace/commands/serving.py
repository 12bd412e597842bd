"""Which server shows a home at present: it says so in a file there, and is asked whether that is still true."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, Final

from whyops_trace._reading.excerpt import get
from whyops_trace._shapes import text_of

#: Where a home says which server shows it.
_FILE: Final = "serve.json"
#: Seconds that a server has to say that it is there.
_ANSWER: Final = 2.0
#: Bytes of its answer that are read.
_MAX_ANSWER: Final = 10_000
#: The address of a server, and nothing else: what the file says is shown, and opened.
_ADDRESS: Final = re.compile(r"http://(\[[\w:.%]+\]|[\w.-]+):(\d{1,5})", re.ASCII)


def note(home: Path, url: str) -> None:
    """Write down where this process shows a home; where that cannot be, nobody finds it by the home."""
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = home / f"{_FILE}.{os.getpid()}"
        made.unlink(missing_ok=True)
        try:
            # Not where a link leads that somebody else has put there.
            with made.open("x", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), "url": url}, file)
            os.replace(made, home / _FILE)
        except OSError:
            made.unlink(missing_ok=True)
            raise


def forget(home: Path) -> None:
    """Take back what this process wrote down, unless another one has written since."""
    if get(_read(home), "pid") == os.getpid():
        with contextlib.suppress(OSError):
            (home / _FILE).unlink()


def running(home: Path) -> str | None:
    """Return the address of a server that shows this home, None if there is none that answers."""
    address = _ADDRESS.fullmatch(text_of(get(_read(home), "url")))
    if address is None:
        return None
    import http.client  # takes longer to load than most commands to run

    try:
        host, port = address.groups()
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ANSWER)
        with contextlib.closing(connection):
            connection.request("GET", "/api/health")
            health = json.loads(connection.getresponse().read(_MAX_ANSWER))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    return address[0] if get(health, "home") == str(home) else None


def _read(home: Path) -> Any:
    file = home / _FILE
    try:
        # A pipe would be waited for.
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
