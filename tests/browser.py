"""How tests look at pages: a real server on a real socket, and a real browser that nobody sees."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import Process, encoded, tool_request, tool_response
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

from whyops_trace.commands.serve import _listen
from whyops_trace.server.app import create_app
from whyops_trace.server.running import Server
from whyops_trace.store import Store

CHROMIUM = Path("/usr/bin/chromium")
#: What a browser does by itself is switched off: the tests look at what pages do.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: Milliseconds that a test waits for what must happen.
PATIENCE = 15_000


@contextlib.contextmanager
def served(home: Path, **options: Any) -> Iterator[str]:
    """Serve a home; return its address."""
    ready = threading.Event()
    server = Server(create_app(home, **options), ready.set)
    with contextlib.closing(_listen("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), name="whyops-server")
        thread.start()
        try:
            assert ready.wait(30)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.stop()
            thread.join(30)

    assert not thread.is_alive()


def record(home: Path, *traces: list[dict[str, Any]]) -> None:
    """Put records into the store of a home, those of each list as a process does that has ended."""
    with contextlib.closing(Store(home / "traces.db")) as store:
        for events in traces:
            token = events[0]["idempotencyKey"].rpartition("-")[0]
            store.ingest((token, [encoded(event) for event in events]))
            store.process_ended(token)


def tool_call(trace: str, at: float = 0, **members: Any) -> list[dict[str, Any]]:
    """Return a trace of one tool call."""
    process, results = Process(trace=trace), members.pop("results", {"id": "ch_1"})
    request = tool_request(process, 1, at=at, **members)
    about = {"tool": members.get("tool", "charge_card"), "results": results, "about": {"latencyMs": 8}}
    return [request, tool_response(process, 2, 1, **about, at=at + 8, end=True)]


class Tab:
    """
    A tab of the browser, with a profile of its own.

    Attributes:
        page: The page in it.
        problems: What went wrong in it: errors of scripts, messages of the console, dialogs.
        elsewhere: Requests to any other place than the server.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._said)
        page.on("request", self._requested)
        page.on("dialog", self._asked)

    def open(self, path: str = "/") -> Page:
        """Go to a page of the server."""
        self.page.goto(self.url + path)
        return self.page

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.elsewhere.append(request.url)

    def _asked(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def ready(page: Page) -> Page:
    """Wait until the page of a trace has put itself together."""
    page.wait_for_selector("#trace[data-ready]", state="attached")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser, once for the tests of a module: its event loop is in the way of asynchronous tests."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    """Open a tab; at its end, check that no script failed and nothing was asked of anybody else."""
    options = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", **options}
    context = browser.new_context(**options)
    opened = Tab(context.new_page(), url)
    try:
        yield opened
    finally:
        context.close()

    assert opened.problems == []
    assert opened.elsewhere == []
