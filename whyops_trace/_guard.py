"""
The one place that catches an exception of the library before it can reach the host program.

Everything that runs inside a user's call goes through :func:`guarded`. Only :class:`Exception` is caught:
``KeyboardInterrupt``, ``SystemExit`` and cancellation belong to the host program. So does what a signal handler raises,
such as the time limit of a task, which may come while the library runs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("whyops_trace")

#: The descriptor of the exceptions themselves, which no class overrides.
_traceback_of: Callable[[BaseException], TracebackType | None] = vars(BaseException)["__traceback__"].__get__

#: Keys of the warnings that :func:`warn_once` has logged in this process.
_warned: set[str] = set()


def say(level: int, message: str, *args: object, error: Exception | None = None) -> None:
    """
    Log a message. An exception in a logging handler of the host program is ignored.

    Args:
        level: A level of :mod:`logging`.
        message: The log message, with ``%s`` places for *args*.
        *args: Values for the places of *message*.
        error: An exception to log with it.
    """
    with contextlib.suppress(Exception):
        logger.log(level, message, *args, exc_info=error)


def report(doing: str, error: Exception) -> None:
    """Log an internal error. The host program goes on, and the event is lost."""
    message = "Internal error while %s; your program continues, this event was lost."
    say(logging.ERROR, message, doing, error=error)


def is_of_signal_handler(error: Exception) -> bool:
    """Tell whether a function that the program made a signal handler raised an exception, or let it pass."""
    codes, traceback = set(), _traceback_of(error)
    if traceback is None or traceback.tb_next is None:
        return False  # in the frame of the guard alone, as bytes that are no JSON; to look at the signals takes longer
    while traceback is not None:
        codes.add(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    functions = (getattr(handler, "__func__", handler) for handler in handlers if callable(handler))
    return any(getattr(function, "__code__", None) in codes for function in functions)


def guarded(
    doing: str, *, positional: int | None = None
) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """
    Return a decorator that turns any :class:`Exception` of the function into ``None`` and a log record.

    Args:
        doing: The function's work as a participle, to complete "Internal error while ...".
        positional: 2 or 3 for a function that always takes that many arguments by position. A traced call passes two
            guards, and packing and unpacking arguments would take as long as all their other work.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        return functools.wraps(function)(_GUARDS[positional](function, doing))

    return decorate


def _guard_any(function: Callable[..., R], doing: str) -> Callable[..., R | None]:
    def protected(*args: Any, **kwargs: Any) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # this and the next two are the one broad except
            if is_of_signal_handler(error):
                raise
            report(doing, error)
            return None

    return protected


def _guard_two(function: Callable[..., R], doing: str) -> Callable[..., R | None]:
    def protected(self: Any, one: Any, /) -> R | None:
        try:
            return function(self, one)
        except Exception as error:
            if is_of_signal_handler(error):
                raise
            report(doing, error)
            return None

    return protected


def _guard_three(function: Callable[..., R], doing: str) -> Callable[..., R | None]:
    def protected(self: Any, one: Any, two: Any, /) -> R | None:
        try:
            return function(self, one, two)
        except Exception as error:
            if is_of_signal_handler(error):
                raise
            report(doing, error)
            return None

    return protected


_GUARDS = {None: _guard_any, 2: _guard_two, 3: _guard_three}


def warn_once(key: str, message: str, *args: object) -> None:
    """
    Log a warning, only the first time for its *key* in this process.

    Args:
        key: Identity of the warning. Two warnings with one key are the same.
        message: The log message, with ``%s`` places for *args*.
        *args: Values for the places of *message*.
    """
    if key not in _warned:
        _warned.add(key)
        say(logging.WARNING, message, *args)


@contextlib.contextmanager
def told_once(kind: type[Exception]) -> Iterator[None]:
    """Log an exception of a kind instead of raising it, the same text only once in a process."""
    try:
        yield
    except kind as error:
        warn_once(f"told: {error}", "%s", error)


def attempt(
    function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> tuple[R | None, Exception | None]:
    """Return ``(result, None)``, or ``(None, error)`` if the function raised an :class:`Exception`."""
    try:
        return function(*args, **kwargs), None
    except Exception as error:  # handed back as a value
        if is_of_signal_handler(error):
            raise
        return None, error
