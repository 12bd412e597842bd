"""
The traced form of a client of OpenAI's or Anthropic's package, which stays an instance of its class.

A traced client is an instance of a subclass of its class, made on the fly. Four methods that all versions of both
packages have are overridden there: ``request``, through which every call goes; ``_prepare_options``, which runs before
a request is built and may wait; ``_process_response``, which gets the answer before it is parsed; and ``copy``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import cached_property
from types import FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

from whyops_trace._calls.answering import present
from whyops_trace._guard import attempt, warn_once
from whyops_trace.providers._link import Link
from whyops_trace.providers._request import CURRENT, Request

#: Attributes of a client that can be traced.
_NEEDED: Final = (
    "_prepare_options", "_process_response", "base_url", "copy", "default_headers", "request", "with_options",
)  # fmt: skip
#: Arguments of ``copy`` that set the address of requests.
_ADDRESS: Final = ("base_url", "data_residency", "provider")
#: Arguments of ``copy`` that set the caller's identity. The proxy has its own.
_IDENTITY: Final = (
    "admin_api_key", "api_key", "auth_token", "config", "credentials", "profile", "workload_identity",
)  # fmt: skip


def is_client(thing: Any) -> bool:
    """Return True if something is a client of a package, by its methods."""
    return not isinstance(thing, type) and all(hasattr(type(thing), name) for name in _NEEDED)


def bare(client: Any) -> Any:
    """Return an untraced client that calls the provider itself: a copy of a traced client, else the client."""
    if not isinstance(client, _Traced):
        return client
    copied = duplicate(client._whyops.direct or client)
    copied.__class__ = type(copied).__bases__[0]
    del copied._whyops
    return copied


def duplicate(client: Any) -> Any:
    """Return a copy of a client with what ``copy`` forgets: its strictness, and what the program set on it."""
    if not makes_itself(type(client)):
        copied = client.copy()
        copied._strict_response_validation = client._strict_response_validation
        own = {name: value for name, value in vars(client).items() if not hasattr(type(client), name)}
        vars(copied).update(own | vars(copied))
        return copied
    copied = copy.copy(client)
    for name in [name for name in vars(copied) if is_made_when_needed(client, name)]:
        del vars(copied)[name]  # a resource, which asks by the client that it is of
    # Before version 1.59 of OpenAI's package a client made all resources at once.
    is_bound = any(getattr(value, "_client", None) is client for value in vars(copied).values())
    return client.copy() if is_bound else copied


def makes_itself(kind: type[Any]) -> bool:
    """Return True if a class of clients has a constructor that its method ``copy``, of a base, does not know."""
    bases = (base for base in kind.__mro__ if not issubclass(base, _Traced))
    return next(name for base in bases for name in ("copy", "__init__") if name in vars(base)) == "__init__"


def replaced_method(thing: object, depth: int = 3) -> str:
    """Return the dotted name of a method of a client, or of its resources, that was replaced; "" for none."""
    for name, value in getattr(thing, "__dict__", {}).items() if depth else ():
        if isinstance(inspect.getattr_static(type(thing), name, None), FunctionType):
            return str(name)
        if is_made_when_needed(thing, name) and (inner := replaced_method(value, depth - 1)):
            return f"{name}.{inner}"
    return ""


def is_made_when_needed(thing: Any, name: str) -> bool:
    """Return True if an attribute of an object is a cached property."""
    return isinstance(inspect.getattr_static(type(thing), name, None), cached_property)


def connect(client: Any, link: Link) -> Any:
    """Turn a client that nobody else holds into a traced one, and return it."""
    client._whyops = link
    if not isinstance(client, _Traced):
        client.__class__ = _traced(type(client))
    return client


class _Traced:
    """The overridden methods of a traced client, for sync and async clients."""

    __slots__ = ()  # an object's class can change only to one with the same layout of instances

    _whyops: Link
    _custom_headers: Mapping[str, Any]

    @property
    def default_headers(self) -> Any:
        """The headers of every request. Setting them changes only those that differ."""
        return super().default_headers  # type: ignore[misc]

    @default_headers.setter
    def default_headers(self, headers: Mapping[str, Any]) -> None:
        client: Any = self
        now = dict(self.default_headers)
        own = {name: value for name, value in client._custom_headers.items() if name in headers}
        changed = {name: value for name, value in headers.items() if name not in now or now[name] != value}
        removed = client._custom_headers.keys() - own.keys()
        client._custom_headers = {**own, **changed}
        direct = self._whyops.direct
        if direct is not None:
            remaining = {name: value for name, value in direct.default_headers.items() if name not in removed}
            direct.default_headers = {**remaining, **changed}

    def copy(self, **changes: Any) -> Any:
        """Return a copy that is traced as well, as the packages' ``copy`` and ``with_options`` do."""
        link = self._whyops
        moves = any(changes.get(name) is not None for name in _ADDRESS)
        if link.proxy is None:
            copied = super().copy(**changes)  # type: ignore[misc]
            return connect(copied, Link(link.recorder, link.endpoints.of(copied)) if moves else link)
        if moves:
            warn_once(
                "base_url override",
                "A client that goes through the WhyOps proxy was given another address: its requests do not go through "
                "the proxy any more, and are reported from here. Set proxy_base_url once, on WhyOps(...).",
            )
            return link.direct.copy(**changes)
        options = {name: value for name, value in changes.items() if name not in _IDENTITY}
        copied = super().copy(**options)  # type: ignore[misc]
        return connect(copied, link.with_direct(link.direct.copy(**changes)))

    with_options = copy

    def _process_response(self, *args: Any, **kwargs: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            request.receive(kwargs.get("response"))
        return super()._process_response(*args, **kwargs)  # type: ignore[misc]

    def _request_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Request]:
        """Return the client for a request, this one or the one without the proxy, and the record of the request."""
        link = self._whyops
        options = kwargs["options"] if "options" in kwargs else args[1]
        request = Request(link, self._custom_headers, options)
        direct, (goes_direct, _) = link.direct, attempt(link.goes_direct, options, request.site)
        if direct is None or not (goes_direct or present.answerer is not None):
            return self, request
        return direct, Request(direct._whyops, direct._custom_headers, options)


class _Sync(_Traced):
    __slots__ = ()

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request, and record its turn if it is a model call."""
        client, request = self._request_for(args, kwargs)
        with request:
            if present.answerer is not None:
                return request.answered(present.answerer.respond(client, request, args, kwargs))
            return request.answered(super(_Sync, client).request(*args, **kwargs))  # type: ignore[misc]
        with request:  # a retry without the proxy that failed
            return request.answered(super(_Sync, self._whyops.direct).request(*args, **kwargs))  # type: ignore[misc]

    def _prepare_options(self, options: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            for proxy, trace, deadline in request.begin(options):
                proxy.settle(trace, deadline)
            if request.is_replayed:
                return options
        prepared = super()._prepare_options(options)  # type: ignore[misc]
        if request is not None:
            request.name_trace(options if prepared is None else prepared)
        return prepared


class _Async(_Traced):
    __slots__ = ()

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request, and record its turn if it is a model call."""
        client, request = self._request_for(args, kwargs)
        with request:
            if present.answerer is not None:
                return request.answered(await present.answerer.arespond(client, request, args, kwargs))
            return request.answered(await super(_Async, client).request(*args, **kwargs))  # type: ignore[misc]
        with request:
            return request.answered(await super(_Async, self._whyops.direct).request(*args, **kwargs))  # type: ignore[misc]

    async def _prepare_options(self, options: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            for proxy, trace, deadline in request.begin(options):
                await proxy.asettle(trace, deadline)
            if request.is_replayed:
                return options
        prepared = await super()._prepare_options(options)  # type: ignore[misc]
        if request is not None:
            request.name_trace(options if prepared is None else prepared)
        return prepared


#: The subclasses made so far, by the class they trace.
_classes: WeakKeyDictionary[type[Any], type[Any]] = WeakKeyDictionary()


def _traced(client_class: type[Any]) -> type[Any]:
    """
    Return the subclass of a class of clients whose instances are traced.

    The overriding class comes before that class in the method resolution order, but after it among the bases. The first
    base determines the layout of a class, and an instance can move only to a class of the same layout.
    """
    if client_class in _classes:
        return _classes[client_class]
    face = _Async if inspect.iscoroutinefunction(client_class.request) else _Sync
    before = face.__mro__[:-1]

    def mro(cls: type[Any]) -> list[type[Any]]:
        return [cls, *before, *client_class.__mro__]

    meta = type("TracedType", (type(client_class),), {"mro": mro})
    members = {name: getattr(client_class, name) for name in ("__module__", "__qualname__", "__doc__")}
    return _classes.setdefault(client_class, meta(client_class.__name__, (client_class, face), members))
