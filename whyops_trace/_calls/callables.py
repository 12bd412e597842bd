"""A stand-in for traced callables that are no functions: partials, builtins, classes, callable objects."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from whyops_trace._calls.iterators import Proxy
from whyops_trace._calls.site import CallSite
from whyops_trace._recording.recorder import Recorder

#: Function from a kind of call, a callable and the decorator's options to the traced callable.
Trace = Callable[[type[CallSite], Any, "dict[str, Any]"], Any]


class TracedCallable(Proxy):
    """
    A proxy that traces the calls of a callable that is no function.

    It stands in for the callable in inspection as well as in calls: its code flags, attributes and class are the
    callable's own. A function in a proxy is pickled by reference, copied as itself and bound as a method, as functions
    are.

    Args:
        wrapped: The callable.
        kind: The kind of call.
        options: The decorator's checked options.
        trace: Function that traces another callable likewise, for copies.
        recorder: Function that returns the recorder of a call outside any trace, None for none.
    """

    if sys.version_info < (3, 14):
        # Without this Python makes a dict of annotations for the class when they are read, which would hide those of
        # the callable.
        __annotations__ = vars(Proxy)["__annotations__"]

    def __init__(
        self,
        wrapped: Any,
        kind: type[CallSite],
        options: dict[str, Any],
        trace: Trace,
        recorder: Callable[[], Recorder | None],
    ) -> None:
        super().__init__(wrapped)
        self._self_rebuild = (trace, kind, options)
        self._self_parts = wrapped, kind(wrapped, options, recorder)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the callable and trace the call."""
        function, site = self._self_parts  # one attribute: each access through a proxy is slow
        if kwargs and site.strips:
            kwargs.pop(site.strips, None)
        if site.drive is not None:
            made = site.look(args, kwargs)
            if made is None:  # a TypeError is raised now, not when it is awaited or iterated
                return function(*args, **kwargs)
            return site.drive(site, made, function, args, kwargs)
        call = site.begin(args, kwargs)
        if call is None:
            return site.instead(function)(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        return site.follow(call, result) if call.returned(result) else result

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        bind = getattr(type(self.__wrapped__), "__get__", None)
        if bind is None:
            return self
        bound = bind(self.__wrapped__, instance, owner)
        return MethodType(self, bound.__self__) if type(bound) is MethodType else self

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.__wrapped__)

    def __subclasscheck__(self, subclass: Any) -> bool:
        return issubclass(subclass, self.__wrapped__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrapped = self.__wrapped__
        if isinstance(wrapped, (FunctionType, type)):
            return wrapped.__qualname__  # by reference
        reduced = wrapped.__reduce_ex__(protocol)
        if isinstance(reduced, str) and type(wrapped) is not BuiltinFunctionType:
            return reduced  # by reference as well, such as functions with a cache
        trace, kind, options = self._self_rebuild
        return trace, (kind, wrapped, options)

    def __copy__(self) -> Any:
        return self._self_copied(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._self_copied(copy.deepcopy(self.__wrapped__, memo))

    def _self_copied(self, wrapped: Any) -> Any:
        trace, kind, options = self._self_rebuild
        return self if wrapped is self.__wrapped__ else trace(kind, wrapped, options)
