"""Two traces side by side as a page: how long they were the same, and what differs first."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from whyops_trace.comparison import compare
from whyops_trace.exceptions import StoreError
from whyops_trace.server import pages
from whyops_trace.server.assets import Renderer
from whyops_trace.store import Filter, Store

#: Number of traces that are offered for a comparison.
_OFFERED: Final = 50
#: Largest number of events of two traces together that are compared: a second or so.
_COMPARED: Final = 50_000


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the route of the comparison.

    Args:
        store: The store of the traces.
        renderer: Renderer of the template.
    """

    def answer(first: str, second: str) -> Response:
        names = [name for name in (first, second) if name]
        try:
            known = store.known(names)
            if missing := [name for name in names if name not in known]:
                return renderer.page("missing.html", 404, trace_id=missing[0])
            is_pair = len(names) == 2
            context = _compared(store, *names) if is_pair else _offered(store, *names, is_first=bool(first))
            return renderer.page("diff.html", **context)
        except StoreError as error:
            return renderer.page("problem.html", 503, problem=str(error))

    async def endpoint(request: Request) -> Response:
        first, second = (request.query_params.get(name, "").strip() for name in ("a", "b"))
        return await to_thread.run_sync(answer, first, second)

    return [Route("/diff", endpoint)]


def url(first: str, second: str) -> str:
    """Return the address of the comparison of two traces."""
    return f"/diff?{urlencode({'a': first, 'b': second}, errors='replace')}"


def _compared(store: Store, *names: str) -> dict[str, Any]:
    traces = [store.trace(name) for name in names]
    context: dict[str, Any] = {"rows": [pages.row(trace, []) for trace in traces], "offered": []}
    if sum(trace.event_count for trace in traces) > _COMPARED:
        return {**context, "comparison": None}
    comparison = compare(*map(store.events, names), ended=store.ended_in(*names), priced=True)
    return {**context, "comparison": comparison}


def _offered(store: Store, name: str = "", *, is_first: bool) -> dict[str, Any]:
    """Return the context of the page that offers traces to compare one with: those of its agent."""
    agent = store.trace(name).agent_name if name else None
    offered = [
        (pages.row(trace, []), url(name, trace.trace_id) if is_first else url(trace.trace_id, name))
        for trace in store.traces(_OFFERED, where=Filter(agent=agent))
        if trace.trace_id != name
    ]
    rows = [pages.row(store.trace(name), [])] if name else []
    return {"rows": rows, "offered": offered, "comparison": None}
