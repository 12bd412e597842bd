"""WSGI: each request of Flask, Django, Bottle or another application is in one trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from typing_extensions import Unpack

from whyops_trace.client import WhyOps
from whyops_trace.context import get_scope, set_scope
from whyops_trace.integrations._arrivals import Block, check_limits
from whyops_trace.types import TraceLimits

__all__ = ["Middleware"]


class Middleware:
    """
    A middleware that opens the trace of each request.

    It is that of the caller, where its headers tell one, else one with an id of its own. A streamed response belongs to
    it until the server closes it. A request in which nothing is recorded leaves no trace.

    Args:
        app: The application.
        sdk: The client that records; the default one if it is left out.
        link: False to ignore what headers tell of traces: for a server that strangers reach.
        limits: Limits of what is recorded in each request, such as ``max_tokens=50_000``; see :meth:`WhyOps.trace`.

    Raises:
        ConfigurationError: if a limit is none, or the extra for ``max_cost`` is not installed.

    Example::

        app.wsgi_app = wsgi.Middleware(app.wsgi_app)
    """

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
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

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Pass a request on, in its trace."""
        outside = get_scope()
        block = Block(environ, self._sdk, link=self._link, **self._limits)
        block.enter()
        try:
            body = self._app(environ, start_response)
        except BaseException as error:
            block.leave(error)
            raise
        if isinstance(body, list | tuple):  # nothing runs any more
            block.leave()
            return body
        streamed = _Body(body, block)
        set_scope(outside)
        return streamed


class _Body:
    """
    A response that is streamed in the trace of its request. The server's own place stays as it is.

    Args:
        body: The response.
        block: The block of the request, which stands where this is made.
    """

    def __init__(self, body: Iterable[bytes], block: Block) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._block: Block | None = block
        self._inside = get_scope()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        outside = get_scope()
        set_scope(self._inside)
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)
        except StopIteration:
            raise
        except BaseException as error:
            self._leave(error)
            raise
        finally:
            self._inside = get_scope()
            set_scope(outside)

    def close(self) -> None:
        """End the response, and the trace of its request."""
        outside = get_scope()
        set_scope(self._inside)
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                close()
        finally:
            self._leave()
            set_scope(outside)

    def _leave(self, error: BaseException | None = None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(error)
