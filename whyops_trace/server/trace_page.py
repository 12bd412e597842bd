"""The page of one trace, and the parts of it that are fetched while it is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from anyio import to_thread
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server import trace_url
from whyops_trace.server.assets import Renderer
from whyops_trace.server.readings import Reading, Readings
from whyops_trace.server.rendering import in_script
from whyops_trace.server.routing import RawRoute
from whyops_trace.server.skeleton import PREVIEWED, children, outlined, previews, skeleton
from whyops_trace.server.skeleton import WHOLE as WHOLE_SHAPE
from whyops_trace.server.transcript import WHOLE, Chunk, Transcript, chunks
from whyops_trace.store import Store

#: The modules of the page, the one that begins first: a browser fetches them before it has seen who imports them.
MODULES: Final = (
    "trace.js", "trace-data.js", "trace-diff.js", "trace-drawer.js", "trace-json.js", "trace-live.js", "trace-map.js",
    "trace-outline.js", "trace-previews.js", "trace-search.js", "trace-source.js", "trace-state.js",
    "trace-timeline.js", "trace-told.js", "trace-transcript.js",
)  # fmt: skip
#: Chunks at the beginning of a long transcript that are in the page: what is read first needs no script.
_FIRST: Final = 2
#: Sections that are given at once.
_SECTIONS: Final = 200

_JSON: Final = "application/json"
Answer = Callable[[Request, Reading], Awaitable[Response]]


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the routes of the trace page.

    Args:
        store: Where the traces are.
        renderer: Fills in the templates.
    """
    pages = _Pages(store, renderer)
    parts: dict[str, Answer] = {
        "/skeleton": pages.skeleton,
        "/children/{step:int}": pages.children,
        "/previews": pages.previews,
        "/head": pages.head,
        "/findings": pages.findings,
        "/sections": pages.sections,
        "/events/{step:int}": pages.events,
        "/find": pages.find,
        "": pages.page,
    }
    return [
        RawRoute(f"/t/{{trace_id:path}}{part}", pages.answering(answer)) for part, answer in parts.items()
    ]


class _Pages:
    """Answers what the browser asks about one trace."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._readings = Readings(store)

    def answering(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers by the reading of the trace asked for."""
        get = self._readings.complete if answer in (self.head, self.findings) else self._readings.get

        async def endpoint(request: Request) -> Response:
            trace_id = request.path_params["trace_id"]
            try:
                reading = await get(trace_id)
            except TraceNotFoundError:
                return self._renderer.page("missing.html", 404, trace_id=trace_id)
            except StoreError as error:
                return self._renderer.page("problem.html", 503, problem=str(error))
            tag = f'"{quote(reading.tag)}"'
            if request.headers.get("if-none-match", "").removeprefix("W/") == tag and answer != self.page:
                return Response(status_code=304, headers={"etag": tag})
            response = await answer(request, reading)
            response.headers["etag"] = tag
            response.headers["cache-control"] = "private, no-cache"
            return response

        return endpoint

    async def page(self, request: Request, reading: Reading) -> Response:
        """Answer with the whole page."""
        base = trace_url(reading.summary.trace_id)
        selected = _whole_number(request.query_params.get("e"))
        text = await to_thread.run_sync(page, reading, self._renderer, base, selected)
        return HTMLResponse(text)

    async def skeleton(self, _: Request, reading: Reading) -> Response:
        """Answer with the shape of the trace."""
        return Response(await to_thread.run_sync(shape, reading), media_type=_JSON)

    async def findings(self, _: Request, reading: Reading) -> Response:
        """Answer with the findings of a long trace, and the sections to fetch again that show them."""
        found = reading.findings or []
        nodes = {reading.node(step) for finding in found for step in finding.steps[:1]}
        sections = {section for step, section in reading.story.steps.items() if step in nodes}
        return JSONResponse({"findings": outlined(found), "sections": sorted(sections)})

    async def children(self, request: Request, reading: Reading) -> Response:
        """Answer with the part of the shape below one step."""
        return Response(children(reading.story, request.path_params["step"]), media_type=_JSON)

    async def previews(self, request: Request, reading: Reading) -> Response:
        """Answer with what some calls were given, for the outline."""
        span = _span(request)
        return Response(await to_thread.run_sync(previews, reading.story, *span), media_type=_JSON)

    async def head(self, _: Request, reading: Reading) -> Response:
        """Answer with the summary at the top of the page."""
        return HTMLResponse(head(reading, self._renderer))

    async def sections(self, request: Request, reading: Reading) -> Response:
        """Answer with some sections of the transcript."""
        first, end = _span(request)
        base = trace_url(reading.summary.trace_id)
        transcript = Transcript(reading, self._renderer, base)
        return HTMLResponse(await to_thread.run_sync(transcript.sections, first, min(end, first + _SECTIONS)))

    async def events(self, request: Request, reading: Reading) -> Response:
        """Answer with the records that belong to one step."""
        step = reading.node(request.path_params["step"])
        steps = [step, *(other for other, owner in reading.owners.items() if owner == step)]
        return Response(
            await to_thread.run_sync(self._records, reading.summary.trace_id, steps), media_type=_JSON
        )

    async def find(self, request: Request, reading: Reading) -> Response:
        """Answer with the steps where a text occurs, and how often it does in all."""
        wanted = request.query_params.get("q", "")
        count, steps = await to_thread.run_sync(reading.matches, wanted)
        return JSONResponse({"count": count, "steps": steps})

    def _records(self, trace_id: str, steps: list[int]) -> str:
        # In ASCII, as half a pair of surrogates has no other form.
        return json.dumps([record for step in steps for record in self._store.event(trace_id, step)])


def page(
    reading: Reading,
    renderer: Renderer,
    base: str,
    selected: int = 0,
    *,
    template: str = "trace.html",
    **context: Any,
) -> str:
    """
    Return the page of a trace.

    Args:
        reading: The trace.
        renderer: Fills in the templates.
        base: The address of the page, which those of its parts begin with; "" if there is no server behind it.
        selected: The step to show, 0 for the beginning.
        template: What it is made of.
        context: What else the template names.
    """
    transcript = Transcript(reading, renderer, base)
    pieces = reading.once("chunks", lambda: chunks(reading.story))
    whole = reading.summary.event_count <= WHOLE
    shown = pieces if whole else _near(pieces, reading.story.steps.get(selected, 0))
    filled = {chunk.first: Markup(transcript.sections(chunk.first, chunk.end)) for chunk in shown}  # noqa: S704
    return renderer.text(
        template,
        summary=reading.summary,
        version=reading.version,
        base=base,
        selected=reading.node(selected) if selected else "",
        whole=whole,
        head=Markup(head(reading, renderer)),  # noqa: S704 - made by a template that escapes
        chunks=pieces,
        filled=filled,
        skeleton=in_script(shape(reading).decode()) if whole else "",
        modules=MODULES,
        **context,
    )


def shape(reading: Reading, *, limit: int = WHOLE_SHAPE, previewed: int = PREVIEWED) -> bytes:
    """Return the skeleton of a trace: all of it up to *limit* nodes, with previews up to *previewed* of them."""
    known = reading.story, reading.findings, reading.version
    made = functools.partial(
        skeleton, *known, running=reading.summary.running, limit=limit, previewed=previewed
    )
    return reading.once(f"{reading.tag} {limit} {previewed}", made)


def head(reading: Reading, renderer: Renderer) -> str:
    """Return the summary at the top of the page."""
    return renderer.text(
        "_head.html",
        summary=reading.summary,
        story=reading.story,
        findings=reading.findings or [],
        node=reading.node,
    )


def _near(pieces: list[Chunk], section: int) -> list[Chunk]:
    """Return the chunks that are in the page of a long trace: the first ones, and the one with a section."""
    return [
        chunk for number, chunk in enumerate(pieces) if number < _FIRST or chunk.first <= section < chunk.end
    ]


def _span(request: Request) -> tuple[int, int]:
    """Return from where and up to where something is asked for."""
    first, end = (_whole_number(request.query_params.get(name)) for name in ("from", "to"))
    return first, end


def _whole_number(given: str | None) -> int:
    return int(given) if given and given.isascii() and given.isdigit() and len(given) <= 15 else 0
