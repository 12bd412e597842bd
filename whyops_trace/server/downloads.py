"""A trace as a file to keep: JSON, Markdown, or a page that opens without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, NamedTuple
from urllib.parse import quote

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.export import export_markdown, file_name, json_pieces
from whyops_trace.server.assets import Renderer
from whyops_trace.server.offline import offline_page
from whyops_trace.server.routing import RawRoute
from whyops_trace.store import Store


class _Form(NamedTuple):
    """A form of a file: its media type, and the function that yields its text in pieces."""

    media_type: str
    pieces: Callable[[Store, str], Iterator[str]]


def _in_one_piece(text: Callable[[Store, str], str]) -> Callable[[Store, str], Iterator[str]]:
    def pieces(store: Store, trace_id: str) -> Iterator[str]:
        yield text(store, trace_id)

    return pieces


_FORMS: Final = {
    "json": _Form("application/json", json_pieces),
    "md": _Form("text/markdown", _in_one_piece(export_markdown)),
    "html": _Form("text/html", _in_one_piece(offline_page)),
}


def routes(store: Store, renderer: Renderer) -> list[Route]:
    """
    Return the routes of the files, ``/t/{trace_id}/download.json`` and the like.

    Args:
        store: The store of the traces.
        renderer: Renderer of the pages that say why there is no file.
    """

    def answering(ending: str, form: _Form) -> Route:
        async def endpoint(request: Request) -> Response:
            trace_id = request.path_params["trace_id"]
            pieces = form.pieces(store, trace_id)
            try:
                first = await to_thread.run_sync(next, pieces)
            except TraceNotFoundError:
                return renderer.page("missing.html", 404, trace_id=trace_id)
            except StoreError as error:
                return renderer.page("problem.html", 503, problem=str(error))
            encoded = (piece.encode("utf-8", "replace") for piece in chain((first,), pieces))
            named = f"attachment; filename*=UTF-8''{quote(file_name(trace_id, ending))}"
            headers = {"content-disposition": named, "cache-control": "no-store"}
            return StreamingResponse(encoded, headers=headers, media_type=form.media_type)

        return RawRoute(f"/t/{{trace_id:path}}/download.{ending}", endpoint)

    return [answering(ending, form) for ending, form in _FORMS.items()]
