"""
Traced functions that are real functions, with the globals, the name and the flags of the function that they trace.

A template's code is given to each of them, closed over the function and its call site. Its globals are the function's,
so it names none; its file and line are those of the decorator, so that it changes when the file does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite

#: The flags of code whose call makes something that runs later.
_LATER: Final = (
    inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
)


def _templates() -> tuple[CodeType, CodeType]:
    """Return the code for functions that run when they are called, and for those that do not."""
    anything: Any = BaseException  # even a builtin is global
    function: Any = None
    whyops_site: Any = None

    def now(*args: Any, **kwargs: Any) -> Any:
        if kwargs and whyops_site.strips:
            kwargs.pop(whyops_site.strips, None)
        call = whyops_site.begin(args, kwargs)
        if call is None:
            return whyops_site.instead(function)(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except anything as error:
            call.fail(error)
            raise
        return whyops_site.follow(call, result) if call.returned(result) else result

    def later(*args: Any, **kwargs: Any) -> Any:
        if kwargs and whyops_site.strips:
            kwargs.pop(whyops_site.strips, None)
        made = whyops_site.look(args, kwargs)
        if made is None:  # a TypeError is raised now, not when it is awaited or iterated
            return function(*args, **kwargs)
        return whyops_site.drive(whyops_site, made, function, args, kwargs)

    return now.__code__, later.__code__


_NOW, _LATE = _templates()


def traced(site: CallSite, function: FunctionType) -> Callable[..., Any]:
    """
    Return a function that traces the calls of another one.

    Args:
        site: The call site of the function.
        function: The function, one for which :func:`is_traceable` holds.
    """
    code = _shown_at(_NOW if site.drive is None else _LATE, function.__code__)
    values = {"anything": BaseException, "function": function, "whyops_site": site}
    closure = tuple(CellType(values[name]) for name in code.co_freevars)
    made = FunctionType(code, function.__globals__, function.__name__, None, closure)
    return functools.update_wrapper(made, function)


def is_traceable(function: Any) -> bool:
    """Tell whether a callable is a function of which :func:`traced` can make another one."""
    return type(function) is FunctionType and (_FLAGS_ARE_WORDS or not function.__code__.co_flags & _LATER)


def _shown_at(template: CodeType, code: CodeType) -> CodeType:
    """
    Return a template with the flags of a function, which says that it stands on the function's first line.

    CPython decides by an instruction if a call makes a coroutine or generator. So the code runs at the call, and yet
    its flags tell everybody that what it returns is one, which is true.
    """
    # Each entry of the table tells for up to eight instructions that they stand on the same line as those before.
    full, rest = divmod(len(template.co_code) // 2, 8)
    table = b"\xef\x00" * full + (bytes((0xE8 | (rest - 1), 0)) if rest else b"")
    return template.replace(
        co_flags=template.co_flags | code.co_flags & _LATER,
        co_filename=code.co_filename,
        co_firstlineno=code.co_firstlineno,
        co_linetable=table,
        co_name="traced",
        co_qualname="traced",
    )


def _flags_are_words() -> bool:
    """Tell whether code with the flags of a coroutine or generator runs at the call all the same."""

    def answer() -> int:
        return 1

    code = answer.__code__
    flags = (1 << bit for bit in range(_LATER.bit_length()) if _LATER >> bit & 1)
    return all(FunctionType(code.replace(co_flags=code.co_flags | flag), {})() == 1 for flag in flags)


_FLAGS_ARE_WORDS: Final = _flags_are_words()
