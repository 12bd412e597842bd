"""An exception in an event: its type and message, what it came from, its stack."""

from __future__ import annotations

import os
from types import CodeType, TracebackType
from typing import Any, Final, TypeGuard

from whyops_trace._values import mending
from whyops_trace._values.outcomes import NONE, NotErrors, attributes_of, outcome
from whyops_trace._values.reflection import attributes_of as state_of

#: Largest number of frames of a stack, and of the stack of an exception behind another one. The innermost are kept.
MAX_FRAMES: Final = 30
MAX_INNER_FRAMES: Final = 8
#: Largest number of exceptions that are described with one: those in a group, and those behind each.
MAX_EXCEPTIONS: Final = 20
#: Largest number of notes of an exception, and of its attributes.
MAX_NOTES: Final = 10
MAX_ATTRIBUTES: Final = 20
#: Types of the arguments and attributes that are described.
_SCALARS: Final = frozenset({type(None), bool, int, float, str})

#: Readers of an exception's attributes. Its class cannot override them.
_arguments: Final = BaseException.__dict__["args"].__get__
_cause: Final = BaseException.__dict__["__cause__"].__get__
_context: Final = BaseException.__dict__["__context__"].__get__
_hides_context: Final = BaseException.__dict__["__suppress_context__"].__get__
_file_name: Final = vars(OSError)["filename"].__get__
_members: Final = BaseExceptionGroup.__dict__["exceptions"].__get__
traceback_of: Final = BaseException.__dict__["__traceback__"].__get__

#: The library's own code, its sub-packages included.
_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
#: The demo's agent plays the part of the user's code.
_DEMO: Final = os.path.join(_PACKAGE, "demo") + os.sep


class Told(Exception):
    """A failure that is known by its words alone."""


def describe(error: BaseException) -> dict[str, Any]:
    """Return ``{"type", "message"}`` of an exception, without running code of its class."""
    if type(error) is Told:
        return {"message": error.args[0]}
    described: dict[str, Any] = mending.plain(error, lambda _: False)
    return described


def describe_whole(error: BaseException, *, stacks: bool = False, parts: bool = False) -> dict[str, Any]:
    """
    Return an exception with its notes and the exceptions behind it, each described in the same way.

    These are the one that it was raised ``from`` (``cause``), else the one that was handled when it was raised
    (``context``), and those in a group (``exceptions``, with the number of others in ``omitted``). Each is described
    once, :data:`MAX_EXCEPTIONS` of them in all.

    Args:
        error: The exception.
        stacks: True to add the stack of each.
        parts: True to add the arguments and attributes of the exception itself, where they tell more.
    """
    described = _Description(stacks).of(error)
    return described | _parts(error, described.get("message"), attributes_of(error)) if parts else described


class _Description:
    """The description of an exception, while it is made."""

    def __init__(self, stacks: bool) -> None:
        self._stacks = stacks
        self._seen: list[BaseException] = []

    def of(self, error: BaseException) -> dict[str, Any]:
        """Return the description of an exception that was not described yet."""
        described = describe(error)
        if self._stacks and traceback_of(error) is not None:
            described["stack"] = stack(error, MAX_INNER_FRAMES if self._seen else MAX_FRAMES)
        self._seen.append(error)
        attributes = attributes_of(error)
        status, notes = _status(attributes), dict.get(attributes, "__notes__")
        if type(status) is int:
            described["status"] = status
        if type(notes) is list and (texts := [note for note in notes[:MAX_NOTES] if type(note) is str]):
            described["notes"] = texts
        cause, context = _cause(error), _context(error)
        if self._is_new(cause):
            described["cause"] = self.of(cause)
        elif self._is_new(context) and not _hides_context(error):
            described["context"] = self.of(context)
        if issubclass(type(error), BaseExceptionGroup):
            members = _members(error)
            described["exceptions"] = [self.of(member) for member in members if self._is_new(member)]
            if omitted := len(members) - len(described["exceptions"]):
                described["omitted"] = omitted
        return described

    def _is_new(self, error: BaseException | None) -> TypeGuard[BaseException]:
        """Return True for an exception that is to be described."""
        is_room = error is not None and len(self._seen) < MAX_EXCEPTIONS
        return is_room and not any(one is error for one in self._seen)


def _status(attributes: dict[str, Any]) -> object:
    """Return the HTTP status that an exception has itself, or by its response."""
    if (status := dict.get(attributes, "status_code")) is None and "response" in attributes:
        return dict.get(state_of(attributes["response"]), "status_code")
    return status


def _parts(error: BaseException, message: object, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments and attributes of an exception that its type and message do not tell."""
    parts: dict[str, Any] = {}
    arguments = _arguments(error)
    if issubclass(type(error), OSError) and (file := _file_name(error)) is not None:
        arguments = (*arguments, file)
    # str(KeyError("x")) is the representation of the key.
    told = arguments in ((), (message,)) or (type(error) is KeyError and message == repr(arguments[0]))
    if not told and all(type(each) in _SCALARS for each in arguments):
        parts["arguments"] = list(arguments)
    more = {
        name: value
        for name, value in dict.items(attributes)
        if type(value) in _SCALARS
        and value is not None
        and type(name) is str
        and not name.startswith("_")
        and value != message
    }
    more.pop("status_code", None)
    if more:
        parts["attributes"] = dict(list(more.items())[:MAX_ATTRIBUTES])
    return parts


def describe_passing(error: BaseException) -> dict[str, Any]:
    """Return the description of an exception that is no failure, with its arguments if it has no message."""
    described, arguments = describe(error), _arguments(error)
    if arguments and not described["message"]:
        described["arguments"] = list(arguments)
    return described


def stack(error: BaseException, limit: int = MAX_FRAMES) -> str:
    """
    Return the stack of an exception, one line a frame, outermost first, without the frames of this library.

    Source lines are not read: that would be file access on the caller's path.

    Args:
        error: The exception.
        limit: Largest number of frames, of which the innermost are kept.
    """
    lines = []
    traceback: TracebackType | None = traceback_of(error)
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not is_ours(code):
            lines.append(f'File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_qualname}')
        traceback = traceback.tb_next
    return "\n".join(lines[-limit:])


def is_ours(code: CodeType) -> bool:
    """Tell whether code is the library's own. A traced function's has the user's file, and knows its call site."""
    name = code.co_filename
    return "whyops_site" in code.co_freevars or (name.startswith(_PACKAGE) and not name.startswith(_DEMO))


def ending(
    error: BaseException | None, known: NotErrors = NONE, own: NotErrors = NONE
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return the metadata and content for the end of a block, both empty if it ended well.

    Args:
        error: The exception that left the block, if one did.
        known: The client's exceptions that are no failures.
        own: The block's.
    """
    if error is None:
        return {}, {}
    ended = outcome(error, known, own)
    if ended == "cancelled":
        return {"outcome": ended}, {}
    if ended != "error":
        return {"outcome": ended}, {"raised": describe_passing(error)}
    return {"outcome": ended}, {"error": describe_whole(error)}
