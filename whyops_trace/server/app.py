"""The application that ``whyops-trace serve`` runs: the collector and the viewer of one home."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send

from whyops_trace._delivery.archive import readable
from whyops_trace._guard import told_once
from whyops_trace._home import STORE_FILE, is_writable
from whyops_trace.exceptions import StoreError
from whyops_trace.exporters.otlp.forwarding import ForwardExporter
from whyops_trace.server import (
    annotating,
    collector,
    comparing,
    downloads,
    failing,
    otlp,
    pages,
    sessions,
    strays,
    trace_page,
)
from whyops_trace.server.access import LOOPBACK, Access
from whyops_trace.server.assets import Assets, Renderer
from whyops_trace.server.forwarding import Forwarder
from whyops_trace.server.live import Live
from whyops_trace.server.search import Index
from whyops_trace.settings import Retention
from whyops_trace.store import Store


class Application:
    """
    An ASGI application: the collector and the viewer of one home.

    Args:
        home: The home of the traces.
        key: The key that each request has to show, "" if none is needed.
        allowed_hosts: Names that the server answers to, beside those of this machine itself.
        retention: Limits of the store, applied when events are collected; None deletes nothing.
        token: The word of those who may know which home this is, beside those who have the key.
        annotates: True if scores may be given on the pages.
        forwards: The receivers that what comes is forwarded to.
    """

    def __init__(
        self,
        home: Path,
        key: str,
        allowed_hosts: Collection[str],
        retention: Retention | None,
        token: str = "",
        *,
        annotates: bool = False,
        forwards: Sequence[ForwardExporter] = (),
    ) -> None:
        self._forwarders = [Forwarder(home, exporter) for exporter in forwards]
        self._folders = contextlib.ExitStack()
        place = index_place = self._folders.enter_context(readable(home))
        if not is_writable(place) and home.exists():
            index_place = Path(self._folders.enter_context(TemporaryDirectory(prefix="whyops-trace-")))
        # Each store has a connection of its own, so that none waits for another, and no page for the collector.
        self._stores = [Store(place / STORE_FILE) for _ in range(4)]
        for_pages, for_index, for_live, for_collector = self._stores
        self._index = Index(index_place, for_index)
        self._live = Live(home, for_live, self._index.wake)
        self._receiver = otlp.Receiver(home, retention)
        form_token = secrets.token_urlsafe(24) if annotates else ""
        self._renderer = renderer = Renderer(Assets(), form_token)
        routes = [
            renderer.assets.route(),
            *self._live.routes(),
            *pages.routes(for_pages, self._index, renderer, home),
            *sessions.routes(for_pages, renderer),
            *comparing.routes(for_pages, renderer),
            *failing.routes(for_pages, renderer),
            *downloads.routes(for_pages, renderer),
            *(annotating.routes(for_pages, renderer, form_token) if annotates else ()),
            *trace_page.routes(for_pages, renderer),
            *collector.routes(for_collector, retention, home),
            *self._receiver.routes(),
        ]
        routes += strays.routes(tuple(routes))
        application = Starlette(
            routes=routes,
            middleware=[Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)],
            lifespan=self._running,
        )
        self._guarded = Access(application, renderer, LOOPBACK | set(allowed_hosts), key, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._guarded(scope, receive, send)

    def end_streams(self) -> None:
        """End the streams that pages follow, from any thread or a signal handler. A server waits for them to end."""
        self._live.stop()

    @contextlib.asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncIterator[None]:
        self._index.start()
        warming = asyncio.create_task(to_thread.run_sync(self._warm_up))
        try:
            async with self._live.running(), self._receiver.running():
                for forwarder in self._forwarders:
                    forwarder.start()
                yield
        finally:
            for forwarder in self._forwarders:
                await to_thread.run_sync(forwarder.stop)
            await warming
            self._index.close()
            for store in self._stores:
                store.close()
            self._folders.close()

    def _warm_up(self) -> None:
        """
        Do the work that the first pages would have to wait for.

        Pricing the traces of the list loads the price data, which takes longer than all the rest.
        """
        self._renderer.compile()
        with told_once(StoreError):
            self._stores[0].traces(pages.PAGE)


def create_app(
    home: Path,
    *,
    key: str = "",
    allowed_hosts: Collection[str] = (),
    retention: Retention | None = None,
    token: str = "",
    annotates: bool = False,
    forwards: Sequence[ForwardExporter] = (),
) -> Application:
    """
    Return the application for one home.

    Args:
        home: The home of the traces.
        key: The key that each request has to show, "" if none is needed.
        allowed_hosts: Names that the server answers to, beside those of this machine itself.
        retention: Limits of the store, applied when events are collected; None deletes nothing.
        token: The word of those who may know which home this is, beside those who have the key.
        annotates: True if scores may be given on the pages.
        forwards: The receivers that what comes is forwarded to.
    """
    return Application(home, key, allowed_hosts, retention, token, annotates=annotates, forwards=forwards)
