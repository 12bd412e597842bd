"""
``@traced_tool``, ``@traced_llm`` and ``@traced_embedding``: one decorator, three kinds of call.

A function is wrapped by a function of its own kind (plain, coroutine, generator, asynchronous generator), so that
whatever looks at it sees what it saw before; any other callable by a proxy of it. What is recorded is the business of
:mod:`whyops_trace.calls`; here is only how a call is driven.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import wrapt

from whyops_trace._failure import traceback_of
from whyops_trace.calls import Call, CallSite, GeneratorCall, Untraced
from whyops_trace.client import default_recorder
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.kinds import Embedding, Llm, Tool

if TYPE_CHECKING:
    _Proxy = wrapt.BaseObjectProxy[Any]
else:
    # The proxy that is no iterable; wrapt 1, which other packages may hold back, has only the one that is.
    _Proxy = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any] | property")


@overload
def traced_tool(function: F, /) -> F: ...
@overload
def traced_tool(
    *,
    name: str | None = None,
    capture_input: bool | Iterable[str] = True,
    capture_output: bool = True,
    redact: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    accumulate: Callable[[list[Any]], Any] | None = None,
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_tool(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a tool: what it was called with, what it returned or how it failed, how long it took.

    Works on functions, coroutines, generators, asynchronous generators, methods, class and static methods (above or
    below them), properties, partials and callable objects. The decorated callable behaves as the bare one does.

    Args:
        function: The tool, where the decorator is used bare.
        name: What it is called in the trace; its own qualified name's last part if left out.
        capture_input: Whether the arguments are recorded, or the names of those that are.
        capture_output: Whether the result is recorded.
        redact: Names of parameters whose values are secrets.
        metadata: More about the tool; recorded with each call.
        accumulate: For generators: makes the recorded result of the list of items, which is kept for it until the end.
            Without, the first items are recorded as they come.
        enabled: False leaves the function as it is.
        **options: The options above; the signatures for type checkers name them.

    Raises:
        ConfigurationError: if an option has the wrong type.
        UnknownOptionError: if there is no such option.

    Example::

        @traced_tool(redact=["card_number"])
        def charge_card(card_number: str, amount: int) -> dict: ...
    """
    return _decorate(Tool, function, options)


@overload
def traced_llm(function: F, /) -> F: ...
@overload
def traced_llm(
    *,
    model: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    extract: Callable[[Any], Any] | None = None,
    capture_input: bool | Iterable[str] = True,
    capture_output: bool = True,
    redact: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    accumulate: Callable[[list[Any]], Any] | None = None,
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_llm(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a function that asks a model: the messages, the thinking, the answer, the tokens.

    The messages are read from the parameter ``messages`` (or ``input``, ``prompt``, ..., else the first one), the
    answer from what the function returns: text, or data in the shape of OpenAI's or Anthropic's answers.

    Args:
        function: The function, where the decorator is used bare.
        model: The model, where neither the answer nor the arguments name it.
        provider: Who serves it, such as "openai", where the answer's shape does not tell.
        name: What the call is called in the trace.
        extract: Makes what is to be recorded of what the function returned: text, or a dict with any of ``content``,
            ``tool_calls``, ``finish_reason``, ``usage``, ``model`` and ``provider``.
        capture_input: Whether the arguments are recorded, or the names of those that are.
        capture_output: Whether the answer is recorded; tokens and the finish reason always are.
        redact: Names of parameters whose values are secrets.
        metadata: More about the call; recorded with each one.
        accumulate: For generators: makes the answer of the list of items. Without, their texts are joined.
        enabled: False leaves the function as it is.
        **options: The options above; the signatures for type checkers name them.

    Raises:
        ConfigurationError: if an option has the wrong type.
        UnknownOptionError: if there is no such option.
    """
    return _decorate(Llm, function, options)


@overload
def traced_embedding(function: F, /) -> F: ...
@overload
def traced_embedding(
    *,
    model: str | None = None,
    provider: str | None = None,
    name: str | None = None,
    extract: Callable[[Any], Any] | None = None,
    capture_input: bool | Iterable[str] = True,
    redact: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    accumulate: Callable[[list[Any]], Any] | None = None,
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_embedding(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a function that embeds texts: the texts, how many vectors came back, of what length.

    Args:
        function: The function, where the decorator is used bare.
        model: The model, where neither the answer nor the arguments name it.
        provider: Who serves it, such as "openai".
        name: What the call is called in the trace.
        extract: Makes what is to be recorded of what the function returned: a list of vectors, or OpenAI's answer.
        capture_input: Whether the texts are recorded, or the names of the parameters that are.
        redact: Names of parameters whose values are secrets.
        metadata: More about the call; recorded with each one.
        accumulate: For generators: makes the answer of the list of items.
        enabled: False leaves the function as it is.
        **options: The options above; the signatures for type checkers name them.

    Raises:
        ConfigurationError: if an option has the wrong type.
        UnknownOptionError: if there is no such option.
    """
    return _decorate(Embedding, function, options)


def _decorate(kind: type[CallSite], function: Any, options: dict[str, Any]) -> Any:
    options = kind.check(options)
    enabled = options.pop("enabled", True)

    def decorate(function: Any) -> Any:
        return _trace(kind, function, options) if enabled else function

    return decorate if function is None else decorate(function)


def _trace(kind: type[CallSite], function: Any, options: dict[str, Any]) -> Any:
    """Return *function* wrapped by what is of its own kind."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(_trace(kind, function.__func__, options))
    if isinstance(function, property):
        getter = function.fget and _trace(kind, function.fget, options)
        return property(getter, function.fset, function.fdel, function.__doc__)
    if not callable(function):
        raise ConfigurationError(
            f"A decorator was given {function!r:.80}; it takes a function or another callable."
        )
    if type(function) is FunctionType and _driver(function)[0] is None:
        return _wrap(kind(function, options, default_recorder), function)
    return TracedCallable(function, kind, options)


def _wrap(site: CallSite, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function that traces the calls of a plain function."""
    begin = site.begin

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        call.end(result)
        return result

    return traced


class TracedCallable(_Proxy):
    """
    A proxy that traces the calls of a coroutine function, a generator function or a callable object.

    It stands in for the callable wherever that is looked at, not only called: its code flags, attributes and class are
    the callable's own. A function proxied is pickled by reference, copied as itself and bound as a method, as functions
    are.
    """

    # A class that is asked for its annotations is otherwise given a dict of them, which would hide the callable's own.
    __annotations__ = vars(_Proxy)["__annotations__"]

    def __init__(self, wrapped: Any, kind: type[CallSite], options: dict[str, Any]) -> None:
        super().__init__(wrapped)
        self._self_rebuild = (kind, options)
        self._self_site = kind(wrapped, options, default_recorder)
        self._self_drive, self._self_body = _driver(wrapped)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the callable and trace that."""
        function, site, drive = self.__wrapped__, self._self_site, self._self_drive
        if drive is not None:
            named = site.look(args, kwargs)
            if named is None:  # a TypeError is raised now, not when it is awaited or iterated
                return function(*args, **kwargs)
            driven, body = drive(site, named, function, args, kwargs), self._self_body
            driven.__name__, driven.__qualname__ = body.__name__, body.__qualname__
            return driven
        call = site.begin(args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        call.end(result)
        return result

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
            return reduced  # by reference as well, as functions with a cache
        return _trace, (self._self_rebuild[0], wrapped, self._self_rebuild[1])

    def __copy__(self) -> Any:
        return self._self_copied(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._self_copied(copy.deepcopy(self.__wrapped__, memo))

    def _self_copied(self, wrapped: Any) -> Any:
        kind, options = self._self_rebuild
        return self if wrapped is self.__wrapped__ else _trace(kind, wrapped, options)


#: Runs a callable that does not run when it is called, given what of its arguments is to be recorded.
Driver = Callable[[CallSite, "dict[str, Any]", Callable[..., Any], "tuple[Any, ...]", "dict[str, Any]"], Any]


def _driver(function: Any) -> tuple[Driver | None, Any]:
    """
    Return what drives a callable that does not run when it is called, and the function whose body then runs.

    The driver is None for a callable that runs when it is called.
    """
    while isinstance(function, functools.partial):
        function = function.func
    for body in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - not whether, but what
        if inspect.iscoroutinefunction(body):
            return _await, body
        if inspect.isasyncgenfunction(body):
            return _iterate_async, body
        if inspect.isgeneratorfunction(body):
            return _iterate, body
    return None, function


async def _await(
    site: CallSite,
    named: dict[str, Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    call = site.open(named, Call)
    try:
        awaitable = function(*args, **kwargs)
        del named, args, kwargs  # what the body lets go of must not live on here
        result = await awaitable
    except BaseException as error:
        if call is not None:
            call.fail(error)
        raise
    if call is not None:
        call.end(result)
    return result


def _iterate(
    site: CallSite,
    named: dict[str, Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Generator[Any, Any, Any]:
    items = function(*args, **kwargs)
    call = site.open(named, GeneratorCall) or Untraced()
    del named, args, kwargs
    # A list that is emptied at each use: neither what the consumer sends nor what the body yields may be kept alive
    # by this frame while it is suspended.
    sent: list[Any] = [None]
    step, thrown = items.send, None
    while True:
        try:
            sent.append((yield call.suspend(step(sent.pop()))))
            step, thrown = items.send, None
        except BaseException as error:
            if not call.running:  # thrown in by the consumer, or closed
                step, thrown = items.throw, type(error)
                sent.append(_without_frame(error))
            elif type(error) is StopIteration:  # isinstance might run code of the exception
                call.finish(error.value, abandoned=thrown is GeneratorExit)
                return error.value
            else:
                call.fail(error)
                raise
        call.resume()


async def _iterate_async(
    site: CallSite,
    named: dict[str, Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> AsyncGenerator[Any, Any]:
    items = function(*args, **kwargs)
    call = site.open(named, GeneratorCall) or Untraced()
    del named, args, kwargs
    sent: list[Any] = [None]
    step, thrown = functools.partial(_start, items), None
    while True:
        try:
            sent.append((yield call.suspend(await step(sent.pop()))))
            step, thrown = items.asend, None
        except BaseException as error:
            if not call.running:
                step, thrown = items.athrow, type(error)
                sent.append(_without_frame(error))
            elif type(error) is StopAsyncIteration:
                call.finish(None, abandoned=thrown is GeneratorExit)
                return
            else:
                call.fail(error)
                raise
        call.resume()


def _start(items: AsyncGenerator[Any, Any], sent: None) -> Coroutine[Any, Any, Any]:
    """Start an asynchronous generator unseen by the event loop, which at its end would close it beside its driver."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return items.asend(sent)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _without_frame(error: BaseException) -> BaseException:
    """Return what was thrown into a driver without the driver's frame, which it gets when it leaves."""
    traceback = traceback_of(error)
    return error if traceback is None else BaseException.with_traceback(error, traceback.tb_next)
