"""
Makes a client of OpenAI's or Anthropic's package one whose calls are traced, and stays of the same class.

A traced client is an instance of a subclass, made on the fly, of the class it had. Four of the methods that all
versions of both packages have are overridden there: ``request``, through which every call goes, ``_prepare_options``,
which is called before a request is built and can be waited in, ``_process_response``, which gets the answer before
it is parsed, and ``copy``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from whyops_trace._guard import attempt, warn_once
from whyops_trace.providers._link import Link
from whyops_trace.providers._request import CURRENT, Request

#: What makes an object a client that can be traced.
_NEEDED: Final = (
    "_prepare_options", "_process_response", "base_url", "copy", "default_headers", "request", "with_options",
)  # fmt: skip
#: Arguments of ``copy`` that say where requests go.
_ADDRESS: Final = ("base_url", "data_residency", "provider")
#: Arguments of ``copy`` that say who asks, which the proxy has its own of.
_IDENTITY: Final = (
    "admin_api_key", "api_key", "auth_token", "config", "credentials", "profile", "workload_identity",
)  # fmt: skip


def is_client(thing: Any) -> bool:
    """Tell whether something is a client of a package, by what it can do."""
    return not isinstance(thing, type) and all(hasattr(type(thing), name) for name in _NEEDED)


def bare(client: Any) -> Any:
    """Return a client that asks the provider itself and is not traced: a copy, if it was."""
    if not isinstance(client, _Traced):
        return client
    copied = duplicate(client._whyops.direct or client)
    copied.__class__ = type(copied).__bases__[0]
    del copied._whyops
    return copied


def duplicate(client: Any, **changes: Any) -> Any:
    """Return a copy of a client that is as strict with answers, which the packages' own ``copy`` forgets."""
    copied = client.copy(**changes)
    copied._strict_response_validation = client._strict_response_validation
    return copied


def connect(client: Any, link: Link) -> Any:
    """Make a client, which nobody else has, a traced one."""
    client._whyops = link
    if not isinstance(client, _Traced):
        client.__class__ = _traced(type(client))
    return client


class _Traced:
    """What a traced client of either face does otherwise than the class it had."""

    __slots__ = ()  # an object can be given only a class that lays out its instances alike

    _whyops: Link
    _custom_headers: Mapping[str, Any]

    @property
    def default_headers(self) -> Any:
        """The headers of every request; they can be set, which changes those that differ from what they are."""
        return super().default_headers  # type: ignore[misc]

    @default_headers.setter
    def default_headers(self, headers: Mapping[str, Any]) -> None:
        client: Any = self
        now = dict(self.default_headers)
        own = {name: value for name, value in client._custom_headers.items() if name in headers}
        changed = {name: value for name, value in headers.items() if name not in now or now[name] != value}
        gone = client._custom_headers.keys() - own.keys()
        client._custom_headers = {**own, **changed}
        direct = self._whyops.direct
        if direct is not None:
            kept = {name: value for name, value in direct.default_headers.items() if name not in gone}
            direct.default_headers = {**kept, **changed}

    def copy(self, **changes: Any) -> Any:
        """Return a copy that is traced as well, as the packages' ``copy`` and ``with_options`` do."""
        link = self._whyops
        if link.proxy is None:
            return connect(super().copy(**changes), link)  # type: ignore[misc]
        given = {name for name, value in changes.items() if value is not None}
        if given.intersection(_ADDRESS):
            warn_once(
                "base_url override",
                "A client that goes through the WhyOps proxy was given another address: its requests do not go through "
                "the proxy any more, and are reported from here. Set proxy_base_url once, on WhyOps(...).",
            )
            return link.direct.copy(**changes)
        shared = {name: value for name, value in changes.items() if name not in _IDENTITY}
        copied = super().copy(**shared)  # type: ignore[misc]
        return connect(copied, link.with_direct(link.direct.copy(**changes)))

    with_options = copy

    def _process_response(self, *args: Any, **kwargs: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            request.receive(kwargs.get("response"))
        return super()._process_response(*args, **kwargs)  # type: ignore[misc]

    def _request_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Request]:
        """Return the client that makes a request, this one or the one without the proxy, and what is recorded of it."""
        link = self._whyops
        options = kwargs["options"] if "options" in kwargs else args[1]
        request = Request(link, self._custom_headers, options)
        goes_direct, _ = attempt(link.goes_direct, options, request.site)
        if not goes_direct:
            return self, request
        return link.direct, Request(link.direct._whyops, link.direct._custom_headers, options)


class _Sync(_Traced):
    __slots__ = ()

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request, and record the turn if it is one of a model."""
        client, request = self._request_for(args, kwargs)
        with request:
            return request.answered(super(_Sync, client).request(*args, **kwargs))  # type: ignore[misc]
        with request:  # once more, without the proxy that has failed
            return request.answered(super(_Sync, self._whyops.direct).request(*args, **kwargs))  # type: ignore[misc]

    def _prepare_options(self, options: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            for proxy in request.begin(options):
                proxy.settle()
        prepared = super()._prepare_options(options)  # type: ignore[misc]
        if request is not None:
            request.name_trace(options if prepared is None else prepared)
        return prepared


class _Async(_Traced):
    __slots__ = ()

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        """Make a request, and record the turn if it is one of a model."""
        client, request = self._request_for(args, kwargs)
        with request:
            return request.answered(await super(_Async, client).request(*args, **kwargs))  # type: ignore[misc]
        with request:
            return request.answered(await super(_Async, self._whyops.direct).request(*args, **kwargs))  # type: ignore[misc]

    async def _prepare_options(self, options: Any) -> Any:
        request = CURRENT.get()
        if request is not None:
            for proxy in request.begin(options):
                await proxy.asettle()
        prepared = await super()._prepare_options(options)  # type: ignore[misc]
        if request is not None:
            request.name_trace(options if prepared is None else prepared)
        return prepared


#: The subclasses made so far.
_classes: WeakKeyDictionary[type[Any], type[Any]] = WeakKeyDictionary()


def _traced(client_class: type[Any]) -> type[Any]:
    """
    Return the subclass of a class of clients whose instances are traced.

    What is overridden stands before that class in the order in which methods are looked up, but after it among the
    bases: the layout of a class is that of its first base, and only to one of the same layout can an instance move.
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
