"""
Answers to calls in place of their bodies: nobody gives any, unless a replay is open in this process.

While one is open, call sites open no call of their own (``CallSite._open`` returns None). What wrappers do with a call
that is not recorded asks here, so that calls pay nothing where no replay is open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from whyops_trace._calls.call import GeneratorCall, Untraced

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite, Made

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True


class Answerer(Protocol):
    """Answers calls in place of their bodies."""

    def call(
        self, site: CallSite, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call that runs when it is called, and return what answers it."""
        ...

    async def await_call(
        self,
        site: CallSite,
        made: Made,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Record the call of a coroutine function whose body would run now, and return what answers it."""
        ...

    def iterate(
        self, site: CallSite, made: Made, items: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[GeneratorCall | Untraced, Any]:
        """Return the call of a generator whose body would run now, and the generator that answers it."""
        ...

    def respond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a client of a provider returns for a request."""
        ...

    async def arespond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an asynchronous client returns for a request."""
        ...


class _Present:
    """Holds who answers calls at present, None for nobody."""

    answerer: Answerer | None = None


present = _Present()


def instead(site: CallSite, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called for a plain call that was not recorded: the function itself unless others answer it."""
    answerer = present.answerer
    if answerer is None:
        return function
    return lambda *args, **kwargs: answerer.call(site, function, args, kwargs)


def await_instead(site: Any, made: Made, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same for the call of a coroutine function."""
    answerer = present.answerer
    if answerer is None or not hasattr(site, "name"):  # what is followed has begun already
        return function
    return lambda *args, **kwargs: answerer.await_call(site, made, function, args, kwargs)


def iterate_instead(
    site: Any, made: Made, items: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[GeneratorCall | Untraced, Any]:
    """Return the call and the items of a generator that was not recorded."""
    answerer = present.answerer
    if answerer is None or not hasattr(site, "name"):
        return Untraced(), items
    return answerer.iterate(site, made, items, args, kwargs)
