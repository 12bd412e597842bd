"""
Scores that are given on the page of a trace.

A page of another server may make a browser send anything here. So a form has a word that is made anew for each process
and that only the pages of this server tell, beside what :mod:`~whyops_trace.server.access` refuses.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from whyops_trace._checks import MAX_STEP
from whyops_trace._reading.score import typed_value
from whyops_trace.exceptions import InvalidEventError, StoreError, TraceNotFoundError
from whyops_trace.server import trace_url
from whyops_trace.server.assets import Renderer
from whyops_trace.server.routing import RawRoute
from whyops_trace.store import Store

#: Largest number of bytes of a form: a comment of the longest letters, each in twelve bytes, and the rest.
_FORM_BYTES: Final = 128 << 10
_FORM: Final = "application/x-www-form-urlencoded"


def routes(store: Store, renderer: Renderer, token: str) -> list[Route]:
    """
    Return the route that takes scores.

    Args:
        store: The store of the traces.
        renderer: Renderer of the templates.
        token: The word that each form has to hold.
    """

    async def endpoint(request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return PlainTextResponse("This is no form, or a form that is too large.\n", 400)
        if not hmac.compare_digest(form.get("token", "").encode(), token.encode()):
            message = "The page is older than this server. Load it again, and repeat what you did."
            return renderer.page("refused.html", 403, problem=message)
        trace_id = request.path_params["trace_id"]
        try:
            step = await to_thread.run_sync(_change, store, trace_id, form)
        except TraceNotFoundError:
            return renderer.page("missing.html", 404, trace_id=trace_id)
        except InvalidEventError as error:
            return renderer.page("refused.html", 400, problem=str(error))
        except StoreError as error:
            return renderer.page("refused.html", 503, problem=str(error))
        place = f"#e{step}" if step else "#head"
        return RedirectResponse(trace_url(trace_id) + place, 303, {"cache-control": "no-store"})

    return [RawRoute("/t/{trace_id:path}/scores", endpoint, methods=["POST"])]


async def _form(request: Request) -> Mapping[str, str] | None:
    """Return the fields of a form, the last one of each name; None if the body is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            return None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return None
    return {name: values[-1] for name, values in fields.items()}


def _change(store: Store, trace_id: str, form: Mapping[str, str]) -> int:
    """
    Store or remove a score, and return its step.

    Raises:
        TraceNotFoundError: if there is no such trace.
        InvalidEventError: if it is no score, or there is no such step.
        StoreError: if the store cannot be written.
    """
    store.trace(trace_id)
    step = _step(form.get("step", ""))
    if step and not store.event(trace_id, step):
        raise InvalidEventError(f"There is no step {step} in this trace.")
    name, what = form.get("name", "").strip(), form.get("do", "save")
    if what == "remove":
        store.remove_score(trace_id, name, step)
        return step
    value = what == "up" if what in ("up", "down") else typed_value(form.get("value", "").strip() or None)
    comment = form.get("comment", "").replace("\r\n", "\n").strip() or None
    store.score(trace_id, name, value, comment=comment, step=step, source="page")
    return step


def _step(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > MAX_STEP:
        raise InvalidEventError(f"{text!r:.40} is no step.")
    return int(text)
