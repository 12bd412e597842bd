"""The page of one trace, and its parts that are fetched while it is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import quote

from anyio import to_thread
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server import trace_url
from whyops_trace.server.assets import Renderer
from whyops_trace.server.attachments import Attachment, attached, shown
from whyops_trace.server.graph import drawing
from whyops_trace.server.readings import Reading, Readings
from whyops_trace.server.rendering import in_script
from whyops_trace.server.routing import RawRoute
from whyops_trace.server.skeleton import PREVIEWED, children, outlined, previews, skeleton
from whyops_trace.server.skeleton import WHOLE as WHOLE_SHAPE
from whyops_trace.server.transcript import WHOLE, Chunk, Transcript, chunks, scored_steps
from whyops_trace.store import Store

#: The modules of the page, the entry first. A browser fetches them before it has seen their imports.
MODULES: Final = (
    "trace.js", "trace-code.js", "trace-copy.js", "trace-data.js", "trace-diff.js", "trace-drawer.js", "trace-json.js",
    "trace-layout.js", "trace-live.js", "trace-map.js", "trace-markdown.js", "trace-outline.js",
    "trace-previews.js", "trace-search.js", "trace-source.js", "trace-state.js", "trace-timeline.js",
    "trace-told.js", "trace-transcript.js",
)  # fmt: skip
#: Number of chunks at the beginning of a long transcript that are in the page, so that they need no script.
_FIRST: Final = 2
#: Largest number of sections in one answer.
_SECTIONS: Final = 200

_JSON: Final = "application/json"
Answer = Callable[[Request, Reading], Awaitable[Response]]


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the routes of the trace page.

    Args:
        store: The store of the traces.
        renderer: Renderer of the templates.
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
        "/attachments/{digest}": pages.attachment,
        "": pages.page,
    }
    return [
        RawRoute(f"/t/{{trace_id:path}}{part}", pages.answering(answer)) for part, answer in parts.items()
    ]


class _Pages:
    """The answers to a browser's requests about one trace."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._readings = Readings(store)

    def answering(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers from the reading of the requested trace."""
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
        selected = _whole_number(request.query_params.get("e"))
        return HTMLResponse(await to_thread.run_sync(self._page, reading, selected))

    def _page(self, reading: Reading, selected: int) -> str:
        trace_id = reading.summary.trace_id
        reading.replays = self._store.replays(trace_id)
        return page(reading, self._renderer, trace_url(trace_id), selected)

    async def skeleton(self, _: Request, reading: Reading) -> Response:
        """Answer with the shape of the trace."""
        return Response(await to_thread.run_sync(shape, reading), media_type=_JSON)

    async def findings(self, _: Request, reading: Reading) -> Response:
        """Answer with the findings of a long trace, and the sections that show them and must be fetched again."""
        items = reading.findings or []
        nodes = {reading.node(step) for finding in items for step in finding.steps[:1]}
        sections = {section for step, section in reading.story.steps.items() if step in nodes}
        return JSONResponse({"findings": outlined(items), "sections": sorted(sections)})

    async def children(self, request: Request, reading: Reading) -> Response:
        """Answer with the part of the shape below one step."""
        return Response(
            children(reading.story, request.path_params["step"], reading.team.name), media_type=_JSON
        )

    async def previews(self, request: Request, reading: Reading) -> Response:
        """Answer with the previews of some calls, for the outline."""
        span = _span(request)
        return Response(await to_thread.run_sync(previews, reading.story, *span), media_type=_JSON)

    async def head(self, _: Request, reading: Reading) -> Response:
        """Answer with the summary at the top of the page."""
        return HTMLResponse(head(reading, self._renderer, trace_url(reading.summary.trace_id)))

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
        """Answer with the steps of the cards that hold a text, and the number of all its occurrences."""
        text = request.query_params.get("q", "")
        count, steps = await to_thread.run_sync(reading.matches, text)
        return JSONResponse({"count": count, "steps": steps})

    async def attachment(self, request: Request, reading: Reading) -> Response:
        """Answer with a picture to be shown, or a file to be saved."""
        found = await to_thread.run_sync(attachments, reading)
        one = found.get(request.path_params["digest"])
        if one is None:
            return PlainTextResponse("There is no such attachment.\n", 404)
        headers = {} if one.width else {"content-disposition": "attachment"}
        return Response(one.content, headers=headers, media_type=one.media_type)

    def _records(self, trace_id: str, steps: list[int]) -> str:
        # In ASCII, since half a surrogate pair has no other form.
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
        renderer: Renderer of the templates.
        base: The address of the page, with which those of its parts begin; "" if there is no server behind it.
        selected: The step to show, 0 for the beginning.
        template: Name of the template.
        context: Further names for the template.
    """
    transcript = Transcript(reading, renderer, base)
    pieces = reading.once("chunks", lambda: chunks(reading.story))
    whole = reading.summary.event_count <= WHOLE
    chunks_shown = pieces if whole else _near(pieces, reading.story.steps.get(selected, 0))
    filled = {chunk.first: Markup(transcript.sections(chunk.first, chunk.end)) for chunk in chunks_shown}  # noqa: S704
    return renderer.text(
        template,
        summary=reading.summary,
        version=reading.version,
        base=base,
        selected=reading.node(selected) if selected else "",
        whole=whole,
        head=Markup(head(reading, renderer, base)),  # noqa: S704 - made by a template that escapes
        chunks=pieces,
        filled=filled,
        skeleton=in_script(shape(reading).decode()) if whole else "",
        modules=MODULES,
        **context,
    )


def attachments(reading: Reading) -> dict[str, Attachment]:
    """Return the attachments that the page of a trace shows, by the digests of their bytes."""

    def each() -> Iterator[Attachment]:
        for section in reading.story.sections:
            for message in section.turn.messages if section.turn else ():
                yield from attached(message.blocks)
                yield from shown(message.text).attachments if message.role == "tool" else ()
            for use in section.uses:
                yield from shown(use.result).attachments

    return reading.once("attachments", lambda: {one.digest: one for one in each() if one.digest})


def shape(reading: Reading, *, limit: int = WHOLE_SHAPE, previewed: int = PREVIEWED) -> bytes:
    """Return the skeleton of a trace: all of it up to *limit* nodes, with previews up to *previewed* of them."""
    subject = reading.story, reading.findings, reading.version
    make = functools.partial(
        skeleton,
        *subject,
        agent=reading.team.name,
        running=reading.summary.running,
        limit=limit,
        previewed=previewed,
        scored=scored_steps(reading),
    )
    return reading.once(f"{reading.tag} {limit} {previewed}", make)


def head(reading: Reading, renderer: Renderer, base: str) -> str:
    """Return the summary at the top of the page, with links to other pages unless *base* is ""."""
    return renderer.text(
        "_head.html",
        summary=reading.summary,
        story=reading.story,
        findings=reading.findings or [],
        node=reading.node,
        team=reading.team.members,
        graph=drawing(reading.team.members),
        replays=reading.replays,
        address=trace_url,
        base=base,
    )


def _near(pieces: list[Chunk], section: int) -> list[Chunk]:
    """Return the chunks in the page of a long trace: the first ones, and the one with a section."""
    return [
        chunk for number, chunk in enumerate(pieces) if number < _FIRST or chunk.first <= section < chunk.end
    ]


def _span(request: Request) -> tuple[int, int]:
    """Return the requested range: its first number, and the number after its last."""
    first, end = (_whole_number(request.query_params.get(name)) for name in ("from", "to"))
    return first, end


def _whole_number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else 0
