"""An exception in an event: its outcome, its type and message, its stack."""

from __future__ import annotations

import os
from types import CodeType, TracebackType
from typing import Any, Final, Literal

from whyops_trace._values import encoding

#: Largest number of frames of a stack, of which the innermost are kept.
MAX_FRAMES: Final = 30

#: Readers of an exception's attributes. Its class cannot override them.
_members: Final = BaseExceptionGroup.__dict__["exceptions"].__get__
traceback_of: Final = BaseException.__dict__["__traceback__"].__get__

#: The library's own code, its sub-packages included.
_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: The demo's agent plays the part of the user's code.
_DEMO: Final = os.path.join(_PACKAGE, "demo") + os.sep


def outcome(error: BaseException) -> Literal["error", "cancelled"]:
    """
    Tell a failure from a cancellation.

    A cancellation derives from :class:`BaseException` directly, as asyncio's and trio's do, and as
    :class:`GeneratorExit` of an abandoned generator does. ``KeyboardInterrupt`` and ``SystemExit`` are failures. A
    group of exceptions is a failure if one of them is.
    """
    if issubclass(type(error), BaseExceptionGroup):
        return "error" if "error" in map(outcome, _members(error)) else "cancelled"
    failed = issubclass(type(error), (Exception, KeyboardInterrupt, SystemExit))
    return "error" if failed else "cancelled"


def describe(error: BaseException) -> dict[str, Any]:
    """Return ``{"type", "message"}`` of an exception, without running code of its class."""
    described: dict[str, Any] = encoding.plain(error, lambda _: False)
    return described


def stack(error: BaseException) -> str:
    """
    Return the stack of an exception, one line a frame, outermost first, without the frames of this library.

    Source lines are not read: that would be file access on the caller's path.
    """
    lines = []
    traceback: TracebackType | None = traceback_of(error)
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not is_ours(code):
            lines.append(f'File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_qualname}')
        traceback = traceback.tb_next
    return "\n".join(lines[-MAX_FRAMES:])


def is_ours(code: CodeType) -> bool:
    """Tell whether code is the library's own. A traced function's has the user's file, and knows its call site."""
    name = code.co_filename
    return "whyops_site" in code.co_freevars or (name.startswith(_PACKAGE) and not name.startswith(_DEMO))


def ending(error: BaseException | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and content for the end of a block or call, both empty if it ended well."""
    if error is None:
        return {}, {}
    if outcome(error) == "cancelled":
        return {"outcome": "cancelled"}, {}
    return {"outcome": "error"}, {"error": describe(error)}
