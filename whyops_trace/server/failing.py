"""The patterns of the failures of the latest traces, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from whyops_trace._clock import wire_time
from whyops_trace.exceptions import StoreError
from whyops_trace.patterns import gather_patterns
from whyops_trace.server import pages, trace_url
from whyops_trace.server.assets import Renderer
from whyops_trace.store import Filter, Store, TraceSummary

#: Days that are looked at, and largest numbers of traces and of their events: a second or so.
DAYS: Final = 7
TRACES: Final = 200
EVENTS: Final = 20_000
#: Number of patterns that are shown.
_SHOWN: Final = 50


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the route of the patterns.

    Args:
        store: The store of the traces.
        renderer: Renderer of the template.
    """

    def answer() -> Response:
        try:
            return renderer.page("failures.html", **_look(store))
        except StoreError as error:
            return renderer.page("problem.html", 503, problem=str(error))

    async def endpoint(_: Request) -> Response:
        return await to_thread.run_sync(answer)

    return [Route("/failures", endpoint)]


def _look(store: Store) -> dict[str, Any]:
    since = wire_time(datetime.now(UTC) - timedelta(days=DAYS))
    traces = _some(store.traces(TRACES, where=Filter(errors=True, since=since)))
    patterns = gather_patterns(traces, store.events, store.ended_processes().__contains__)
    return {
        "traces": len(traces),
        "days": DAYS,
        "patterns": [
            (one, pages.bars(one.trend), trace_url(one.example), pages.when(one.last_at))
            for one in patterns[:_SHOWN]
        ],
        "more": max(0, len(patterns) - _SHOWN),
    }


def _some(traces: Sequence[TraceSummary]) -> list[TraceSummary]:
    """Return the first traces, as many as can be read at once."""
    some: list[TraceSummary] = []
    events = 0
    for trace in traces:
        events += trace.event_count
        if some and events > EVENTS:
            break
        some.append(trace)
    return some
