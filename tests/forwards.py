"""A server that forwards, in a process of its own that can be killed, for tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
from programs import Program, start

#: Seconds that a test waits for what must come.
PATIENCE = 60.0


class Serve:
    """
    ``whyops-trace serve --forward`` at an address that it keeps.

    Args:
        home: Its home.
        receivers: The URLs that it forwards to.
        options: More of its options.
        variables: Its environment.
    """

    def __init__(self, home: Path, *receivers: str, options: tuple[str, ...] = (), **variables: str) -> None:
        self.home = home
        self._receivers = receivers
        self._options = options
        self._variables = variables
        self._process: Program | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Serve:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        forward = [word for url in self._receivers for word in ("--forward", url)]
        self._process = start(
            "-m", "whyops_trace", "serve", "--port", str(self._port), "--json", *forward, *self._options,
            home=self.home, **self._variables,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def kill(self, how: int = signal.SIGKILL) -> int:
        """End it, and return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        os.kill(process.pid, how)
        process.communicate(timeout=PATIENCE)
        return process.returncode

    def status(self) -> list[dict[str, Any]]:
        """Return how far each receiver is."""
        token = json.loads((self.home / "serve.json").read_text())["token"]
        headers = {"x-whyops-token": token}
        answer = httpx.get(f"{self.url}/api/health", headers=headers, timeout=PATIENCE)
        forward: list[dict[str, Any]] = answer.json()["forward"]
        return forward

    def until_forwarded(self) -> list[dict[str, Any]]:
        """Wait until nothing is pending; return the status then."""
        deadline = time.monotonic() + PATIENCE
        while any(each["pending"] for each in self.status()):
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)
        return self.status()
