"""
``@traced_tool``, ``@traced_llm`` and ``@traced_embedding``: one decorator, three kinds of call.

A function is wrapped by a function of its own kind (plain, coroutine, generator, asynchronous generator), with the same
globals and flags, so that whatever looks at it sees what it saw before; any other callable by a proxy of it.
:mod:`whyops_trace._calls` records the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from whyops_trace._calls.functions import is_traceable, traced
from whyops_trace._calls.kinds import Embedding, Llm, Tool
from whyops_trace._calls.site import CallSite
from whyops_trace.default import default_recorder
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import ExceptionLike

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
    not_errors: Iterable[ExceptionLike] = (),
    failed: Callable[[Any], object] | None = None,
    tool_call_id: str | None = None,
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_tool(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a tool: its arguments, its result or failure, and its latency.

    Works on functions, coroutines, generators, asynchronous generators, methods, class and static methods (above or
    below them), properties, partials and callable objects. The decorated callable behaves as the bare one does.

    Args:
        function: The tool, where the decorator is used bare.
        name: Name of the tool in the trace; by default the name of the function.
        capture_input: False to record no arguments, or the names of those to record.
        capture_output: False to record no result.
        redact: Names of parameters whose values are secrets.
        metadata: More about the tool; recorded with each call.
        accumulate: For generators: function from the list of items, which is kept in memory until the end, to the
            result to record. By default the first items are recorded as they come.
        not_errors: Exceptions that are no failures: classes, or dotted names as in ``"package.module.Name"``. The
            control flow of well-known frameworks, such as LangGraph's ``GraphInterrupt``, is known. The exception goes
            on to the caller, and the call ends with its name as the outcome.
        failed: Function from the result to True or some words if it tells of a failure, for a tool that does not raise;
            its verdict is recorded with the result. By default readers of the trace judge by the shape of the result,
            such as ``{"success": false}`` or ``Error: no such order``. The items of a generator are judged only with
            ``accumulate``.
        tool_call_id: The parameter that holds the id a model gave to the call, by which the turn that asked for it is
            found; default: ``tool_call_id``, if there is one. Without an id it is found by name and arguments.
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
    not_errors: Iterable[ExceptionLike] = (),
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_llm(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a function that asks a model: the messages, the thinking, the answer, the tokens.

    The messages are read from the parameter ``messages`` (or ``input``, ``prompt``, ..., else the first one), the
    answer from what the function returns: text, an object of OpenAI's or Anthropic's package or data of that shape, or
    a stream of either, whose turn ends when it is read, closed or dropped.

    Args:
        function: The function, where the decorator is used bare.
        model: The model, where neither the answer nor the arguments name it.
        provider: The service that runs the model, such as "openai", where the answer's shape does not tell.
        name: Name of the call in the trace; by default the name of the function.
        extract: Function from the returned value to the answer to record: text, or a dict with any of ``content``,
            ``tool_calls``, ``finish_reason``, ``usage``, ``model`` and ``provider``.
        capture_input: False to record no arguments, or the names of those to record.
        capture_output: False to record no answer; tokens and the finish reason are recorded always.
        redact: Names of parameters whose values are secrets.
        metadata: More about the call; recorded with each one.
        accumulate: For generators: function from the list of items to the answer. By default their texts are joined.
        not_errors: Exceptions that are no failures; see :func:`traced_tool`.
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
    not_errors: Iterable[ExceptionLike] = (),
    enabled: bool = True,
) -> Callable[[F], F]: ...
def traced_embedding(function: Any = None, /, **options: Any) -> Any:
    """
    Record every call of a function that embeds texts: the texts, and the number and length of the vectors.

    Args:
        function: The function, where the decorator is used bare.
        model: The model, where neither the answer nor the arguments name it.
        provider: The service that runs the model, such as "openai".
        name: Name of the call in the trace; by default the name of the function.
        extract: Function from the returned value to a list of vectors, or to an answer of OpenAI's shape.
        capture_input: False to record no texts, or the names of the parameters to record.
        redact: Names of parameters whose values are secrets.
        metadata: More about the call; recorded with each one.
        accumulate: For generators: function from the list of items to the answer.
        not_errors: Exceptions that are no failures; see :func:`traced_tool`.
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
    if is_traceable(function):
        return traced(kind(function, options, default_recorder), function)

    # wrapt, which it needs, takes a quarter of the import's time.
    from whyops_trace._calls.callables import TracedCallable

    return TracedCallable(function, kind, options, _trace, default_recorder)
