"""The local collector in tests: on a real socket, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from programs import Program, start_code
from wire import PATIENCE

pytest.importorskip("starlette", reason="The collector needs the extra [ui].")
uvicorn = pytest.importorskip("uvicorn", reason="The test needs a server.")

from starlette.applications import Starlette  # noqa: E402 - after what may skip the test

from whyops_trace.server.collector import routes  # noqa: E402
from whyops_trace.settings import Retention  # noqa: E402
from whyops_trace.store import Store  # noqa: E402

JSON = {"Content-Type": "application/json"}
#: Serves a home until it is killed, and prints its port first.
PROGRAM = """
    import socket, uvicorn
    from pathlib import Path
    from starlette.applications import Starlette
    from whyops_trace.server.collector import routes
    from whyops_trace.store import Store

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)
    app = Starlette(routes=routes(Store(Path({home!r}) / "traces.db")))
    uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none")).run([listener])
"""


class LocalCollector(NamedTuple):
    """
    A collector that listens.

    Attributes:
        root: Its address.
        url: The address of its API, which SDKs are given.
        store: What it stores to.
        http: A client of it.
    """

    root: str
    url: str
    store: Store
    http: httpx.Client

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send some JSON, given as a value or as it stands."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(path, content=content, headers={**JSON, **headers})

    def add(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Store events, and return what is said of each."""
        answer = self.post("/api/events", list(events))

        assert answer.status_code == 201, answer.text
        return list(answer.json())

    def get(self, path: str, **query: Any) -> Any:
        """Return what is told at an address."""
        answer = self.http.get(path, params=query)

        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def collecting(home: Path, retention: Retention | None = None) -> Iterator[LocalCollector]:
    """Run a collector in this process."""
    store = Store(home / "traces.db")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = Starlette(routes=routes(store, retention))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
    thread.start()
    root = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=root, timeout=PATIENCE) as http:
            yield LocalCollector(root, f"{root}/api", store, http)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        store.close()


@contextlib.contextmanager
def process(home: Path) -> Iterator[tuple[Program, str]]:
    """Run a collector in a process of its own, and kill it at the end; give the process and its address."""
    with start_code(PROGRAM.format(home=str(home)), home) as program:
        assert program.stdout is not None
        port = program.stdout.readline().strip()
        try:
            yield program, f"http://127.0.0.1:{port}"
        finally:
            program.kill()


def event(kind: str = "user_message", trace: str = "t", **members: Any) -> dict[str, Any]:
    """Return an event as a client sends it, with no more members than it must have."""
    return {"eventType": kind, "traceId": trace, "agentName": "shop", **members}
