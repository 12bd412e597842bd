"""ASGI: each request of Starlette, FastAPI, Django, Litestar or another application is in one trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from typing_extensions import Unpack

from whyops_trace.client import WhyOps
from whyops_trace.integrations._arrivals import Block, check_limits
from whyops_trace.types import TraceLimits

__all__ = ["Middleware"]


class Middleware:
    """
    A middleware that opens the trace of each request and WebSocket connection.

    It is that of the caller, where its headers tell one, else one with an id of its own. Streamed responses and
    background tasks belong to it. A request in which nothing is recorded leaves no trace.

    Args:
        app: The application.
        sdk: The client that records; the default one if it is left out.
        link: False to ignore what headers tell of traces: for a server that strangers reach.
        limits: Limits of what is recorded in each request, such as ``max_tokens=50_000``; see :meth:`WhyOps.trace`.

    Raises:
        ConfigurationError: if a limit is none, or the extra for ``max_cost`` is not installed.

    Example::

        app.add_middleware(asgi.Middleware)
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[Any]],
        sdk: WhyOps | None = None,
        *,
        link: bool = True,
        **limits: Unpack[TraceLimits],
    ) -> None:
        self._app = app
        self._sdk = sdk
        self._link = link
        check_limits(**limits)
        self._limits = limits

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        """Pass a request on, in its trace."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with Block(scope.get("headers", ()), self._sdk, link=self._link, **self._limits):
            await self._app(scope, receive, send)
