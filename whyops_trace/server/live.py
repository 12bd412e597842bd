"""
Live updates: one poller reports changes in the store to all open pages.

Any process may write to the store without notice to the server, so the server polls a counter, which costs
microseconds. Pages receive server-sent events:

- ``GET /live``: a message ``changed`` after every change.
- ``GET /t/{trace_id}/live?after=N``: messages ``records`` with the records after number N in the store, as
  ``{"last": 812, "running": true, "events": [...]}``. The number is also the id of the message, so that a browser that
  reconnects goes on from there. A message without events means that the trace no longer runs, or runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from whyops_trace._delivery.draining import take_in
from whyops_trace._guard import told_once
from whyops_trace.exceptions import TraceNotFoundError, WhyOpsError
from whyops_trace.server.routing import RawRoute
from whyops_trace.store import Store

#: Seconds between two polls of the store with open pages, and without any.
_WATCHED: Final = 0.15
_UNWATCHED: Final = 1.0
#: Seconds between two searches for records that ended processes left in the journals.
_LEFT: Final = 3.0
#: Seconds after which a silent stream sends a comment, so that no proxy closes it.
_SILENCE: Final = 15.0
#: Largest number of records in one message.
_RECORDS: Final = 100

#: First line of a stream: a browser that loses it reconnects after that many milliseconds.
_BEGIN: Final = "retry: 1000\n\n"
_ALIVE: Final = ": still here\n\n"


class Live:
    """
    The poller and the streams of one application.

    Args:
        home: The home whose journals are searched for records of ended processes.
        store: The store to watch.
        on_change: Function called after every change.
    """

    def __init__(self, home: Path, store: Store, on_change: Callable[[], None]) -> None:
        self._home = home
        self._store = store
        self._on_change = on_change
        self._changes = 0
        #: Set at the next change, and then replaced by a new one.
        self._news = asyncio.Event()
        self._watchers = 0
        self._watched = asyncio.Event()
        self._stopped = False
        #: Streams read one after the other, since they share a connection. So they occupy one thread only.
        self._reading = CapacityLimiter(1)
        self._loop: asyncio.AbstractEventLoop | None = None

    def routes(self) -> list[Route]:
        """Return the routes of the streams."""
        return [Route("/live", self._list_stream), RawRoute("/t/{trace_id:path}/live", self._trace_stream)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll while the block is open."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self._end()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def stop(self) -> None:
        """End all streams, from any thread or a signal handler. A server waits for them at its end."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._stopped = True
        self._announce()

    def _announce(self) -> None:
        self._changes += 1
        self._news.set()
        self._news = asyncio.Event()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        version, take_in_at = -1, 0.0
        while True:
            with told_once(WhyOpsError), told_once(OSError):  # it may be readable again the next time
                if loop.time() >= take_in_at:
                    take_in_at = loop.time() + _LEFT
                    await to_thread.run_sync(take_in, self._home)
                if (now := await to_thread.run_sync(self._store.version)) != version:
                    version = now
                    self._on_change()
                    self._announce()
            if self._watchers:
                await asyncio.sleep(_WATCHED)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._watched.wait(), _UNWATCHED)

    async def _list_stream(self, request: Request) -> StreamingResponse:
        changes = self._changes

        async def messages() -> AsyncIterator[str]:
            yield _BEGIN
            async for has_changed in self._watch(changes):
                yield "event: changed\ndata: {}\n\n" if has_changed else _ALIVE

        return _stream(messages())

    async def _trace_stream(self, request: Request) -> StreamingResponse:
        last = _number(request.headers.get("last-event-id")) or _number(request.query_params.get("after"))
        return _stream(self._growth(request.path_params["trace_id"], last))

    async def _growth(self, trace_id: str, last: int) -> AsyncIterator[str]:
        """Yield messages with the new records of a trace."""
        yield _BEGIN
        was_running: bool | None = None
        async for has_changed in self._watch():
            if not has_changed:
                yield _ALIVE
            try:
                # One message at a time: for a page that reads slowly, or never, it stays in memory.
                more = True
                while more:
                    rows, running = await to_thread.run_sync(
                        self._read, trace_id, last, limiter=self._reading
                    )
                    if rows or running != was_running:
                        last = rows[-1][0] if rows else last
                        yield _records(last, running, [line for _, line in rows])
                    was_running, more = running, len(rows) == _RECORDS
            except TraceNotFoundError:
                yield "event: gone\ndata: {}\n\n"
                return
            except WhyOpsError:
                continue

    def _read(self, trace_id: str, last: int) -> tuple[list[tuple[int, str]], bool]:
        return self._store.lines_after(trace_id, last, _RECORDS), self._store.trace(trace_id).running

    async def _watch(self, known_changes: int = -1) -> AsyncIterator[bool]:
        """Yield True for changes after the first *known_changes*, and False after a silence, until the end."""
        self._watchers += 1
        self._watched.set()
        try:
            while not self._stopped:
                if self._changes == known_changes:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), _SILENCE)
                has_changed, known_changes = self._changes != known_changes, self._changes
                if not self._stopped:
                    yield has_changed
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()


def _stream(messages: AsyncIterator[str]) -> StreamingResponse:
    # The second header is for proxies, which would buffer the stream.
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(messages, media_type="text/event-stream", headers=headers)


def _records(last: int, running: bool, lines: list[str]) -> str:
    # The lines as stored: a decoder may not accept the numbers of other programs. A line break would end the message.
    events = ",".join(lines).replace("\n", " ").replace("\r", " ")
    message = f'{{"last":{last},"running":{json.dumps(running)},"events":[{events}]}}'
    return f"event: records\nid: {last}\ndata: {message}\n\n"


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else 0
