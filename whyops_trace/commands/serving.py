"""The running server of a home: it writes its address to a file there, and a request checks that it still runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, Final

from whyops_trace._reading.excerpt import get
from whyops_trace._shapes import text_of

#: File in a home with the address of the server that shows it.
_FILE: Final = "serve.json"
#: Seconds that a server has to answer.
_ANSWER: Final = 2.0
#: Largest number of bytes of its answer that are read.
_MAX_ANSWER: Final = 10_000
#: The address of a server and nothing else, since the content of the file is shown and opened.
_ADDRESS: Final = re.compile(r"http://(\[[\w:.%]+\]|[\w.-]+):(\d{1,5})", re.ASCII)


def note(home: Path, url: str, token: str) -> None:
    """
    Write the address at which this process shows a home. If that fails, nobody finds the server by the home.

    Args:
        home: The home.
        url: The address.
        token: The word that makes the server say which home it shows.
    """
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = home / f"{_FILE}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            # Exclusive, so that a link from somebody else is not followed.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), "url": url, "token": token}, file)
            os.replace(temporary, home / _FILE)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def forget(home: Path) -> None:
    """Delete the address of this process, unless another process has written since."""
    if get(_content(home), "pid") == os.getpid():
        with contextlib.suppress(OSError):
            (home / _FILE).unlink()


def running(home: Path) -> str | None:
    """Return the address of a server that shows this home, None if none answers."""
    content = _content(home)
    address, token = _ADDRESS.fullmatch(text_of(get(content, "url"))), text_of(get(content, "token"))
    if address is None:
        return None
    import http.client  # takes longer to load than most commands to run

    try:
        host, port = address.groups()
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_ANSWER)
        with contextlib.closing(connection):
            connection.request("GET", "/api/health", headers={"x-whyops-token": token})
            health = json.loads(connection.getresponse().read(_MAX_ANSWER))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    return address[0] if get(health, "home") == str(home) else None


def _content(home: Path) -> Any:
    file = home / _FILE
    try:
        # Reading a pipe would block.
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
