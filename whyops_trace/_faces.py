"""The two forms of an event method, made of one builder: one to await and one to call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from whyops_trace.events import Event
from whyops_trace.types import SpanId

P = ParamSpec("P")
T = TypeVar("T", int, SpanId)
F = TypeVar("F", bound=Callable[..., object])

#: The module of the class that has these methods.
_HOME: Final = "whyops_trace.tracing"


class Handle(Protocol):
    """Something that records events."""

    def _record(self, event: Event[T]) -> T: ...


def awaitable(build: Callable[P, Event[T]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the method that builds an event and records it when awaited."""

    async def arecord(self: Handle, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._record(build(*args, **kwargs))

    return _present(arecord, build.__name__, build)


def plain(build: Callable[P, Event[T]]) -> Callable[Concatenate[Any, P], T]:
    """Return the method that builds an event and records it at once."""

    def record(self: Handle, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._record(build(*args, **kwargs))

    return _present(record, f"{build.__name__}_sync", build)


def _present(method: F, name: str, build: Callable[..., object]) -> F:
    """Give a method of a trace its name, and the docstring and parameters of its builder, with ``self`` first."""
    update_wrapper(method, build)
    method.__module__, method.__name__, method.__qualname__ = _HOME, name, f"Trace.{name}"
    shape = signature(build)
    parameters = [Parameter("self", Parameter.POSITIONAL_ONLY), *shape.parameters.values()]
    returned = str(shape.return_annotation).removeprefix("Event[").removesuffix("]")
    vars(method)["__signature__"] = shape.replace(parameters=parameters, return_annotation=returned)
    del vars(method)["__wrapped__"]  # else a bound signature loses its first parameter
    return method
