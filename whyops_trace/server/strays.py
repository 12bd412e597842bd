"""Requests that are none of this API, such as those of other protocols, answered with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from whyops_trace.server.routing import RawRoute

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: The beginnings of paths that no browser is sent to.
_API: Final = ("/api/", "/v1/")
#: The paths of other protocols, and what to say of each. ``{api}`` is the address of the API. OTLP has its own routes.
_PROTOCOLS: Final = (
    (
        r"(/api)?(/v1)?/(chat/)?(completions|responses|messages|embeddings|models)(/.*)?",
        "This is no model, and no proxy for calls of models: give the client the address of its provider, and"
        " trace it with sdk.openai(client), sdk.anthropic(client) or traced_llm.",
    ),
    (
        r"/api/public/.*",
        "This collector takes the events of WhyOps SDKs, and none of Langfuse: give the Langfuse SDK the address of a"
        ' Langfuse server, or trace with whyops_trace and WhyOps(analyse_base_url="{api}").',
    ),
    (
        r"(/api)?(/v1)?/(runs|sessions|info)(/.*)?",
        "This collector takes the events of WhyOps SDKs, and none of LangSmith: give the LangSmith SDK the address of"
        ' its server, or trace with whyops_trace and WhyOps(analyse_base_url="{api}").',
    ),
    (
        r"/(events|threads|entities|analyses|health)(/.*)?",
        'The API begins with /api here: the analyse_base_url of a WhyOps SDK is "{api}".',
    ),
    (
        r"(/api)+/api/.*|/api/v1/(events|threads|analyses)(/.*)?",
        "There is one /api before the paths of this API, and no version: the analyse_base_url of a WhyOps SDK is"
        ' "{api}".',
    ),
)
_OTHERWISE: Final = (
    "There is no such path here: events go to POST {api}/events, and the analyse_base_url of a WhyOps SDK is"
    ' "{api}".'
)


def routes(known: Sequence[Route]) -> list[Route]:
    """
    Return the route of all other requests.

    Args:
        known: The routes of those that there are.
    """

    async def stray(request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1")
        allowed = sorted(
            {method for route in known if route.path_regex.match(path) for method in route.methods or ()}
        )
        if allowed and request.method not in allowed:
            error = f"{path} takes {' and '.join(allowed)}, not {request.method}."
            return JSONResponse({"success": False, "error": error}, 405, {"allow": ", ".join(allowed)})
        if request.method in ("GET", "HEAD") and not path.startswith(_API):
            return PlainTextResponse("Not Found", 404)
        api = f"{request.url.scheme}://{request.headers['host']}/api"
        matching = (
            said for pattern, said in _PROTOCOLS if re.fullmatch(pattern, path.rstrip("/"), re.IGNORECASE)
        )
        error = next(matching, _OTHERWISE).replace("{api}", api)
        return JSONResponse({"success": False, "error": error}, 404)

    return [RawRoute("/{path:path}", stray, methods=list(_METHODS))]
