"""HTTP clients: the requests of httpx, httpx2 and requests tell servers the place in the trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Container
from typing import Any, TypeVar

from whyops_trace._guard import guarded
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.headers import inject, withdraw

__all__ = ["attach"]

C = TypeVar("C")


def attach(client: C, *, hosts: Container[str] | None = None) -> C:
    """
    Have every request of a client tell the place in the trace where it is made, by :func:`~whyops_trace.inject`.

    Args:
        client: An ``httpx.Client`` or ``AsyncClient``, one of httpx2, or a ``requests.Session``. It is changed.
        hosts: The names of the hosts that are told, such as ``{"orders.internal"}``; all hosts if it is left out.

    Returns:
        The client.

    Raises:
        ConfigurationError: if it is none of these.

    Example::

        client = http.attach(httpx.AsyncClient())
    """
    tell = guarded("telling a server of the trace")(functools.partial(_tell, hosts))
    one: Any = client
    if hasattr(one, "event_hooks"):
        hook = functools.partial(_tell_async, tell) if inspect.iscoroutinefunction(one.send) else tell
        one.event_hooks = {**one.event_hooks, "request": [*one.event_hooks.get("request", ()), hook]}
    elif hasattr(one, "send") and hasattr(one, "mount"):
        one.send = functools.partial(_send, tell, one.send)
    else:
        raise ConfigurationError(
            f"{client!r:.80} is neither a client of httpx or httpx2 nor a session of requests."
        )
    return client


def _tell(hosts: Container[str] | None, request: Any) -> None:
    if hosts is not None:
        from urllib.parse import urlsplit

        if (urlsplit(str(request.url)).hostname or "") not in hosts:
            withdraw(request.headers)  # a redirect carries on what another host was told
            return
    inject(request.headers)


async def _tell_async(tell: Any, request: Any) -> None:
    tell(request)


def _send(tell: Any, send: Any, request: Any, **options: Any) -> Any:
    tell(request)
    return send(request, **options)
