"""The exception that a call raised, made again from what was recorded of it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._replay.values import class_named
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace.exceptions import RecordedError

#: Packages whose exceptions have a response of HTTP, by the module that has the library which makes it.
_HTTP: Final = {
    "httpx": "httpx",
    "httpx2": "httpx2",
    "openai": "openai._exceptions",
    "anthropic": "anthropic._exceptions",
}
#: The request of a response that is made again; nobody can send it.
_NOWHERE: Final = "https://recorded.invalid"
#: A line about one place that is wrong, as pydantic tells it.
_WRONG: Final = re.compile(r"(?:^(?P<place>\S.*)\n)?^  (?P<told>\S.*?) \[type=(?P<kind>\w+)\]$", re.MULTILINE)


def in_words(error: BaseException) -> str:
    """Return an exception in a line, with those in its group and the one that it was raised from."""
    words, seen = list[str](), set[int]()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        seen.add(id(behind))
        told = f"{type(behind).__name__}: {behind}".rstrip(": ")
        if isinstance(behind, BaseExceptionGroup):
            told += f": {'; '.join(map(in_words, behind.exceptions))}"
        words.append(told)
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)
    return ", from ".join(words)


def exception(told: Mapping[str, Any], home: str = "") -> tuple[BaseException, bool]:
    """
    Return a recorded exception with those behind it, and whether it is of the class that it was.

    Args:
        told: Its type and message; its arguments and attributes, where those do not tell all; its notes; the exceptions
            that it was raised from and that are in it.
        home: Name of the module of the function that raised it.
    """
    error, is_same = _alone(told, home)
    if cause := dict_of(told.get("cause")):
        error.__cause__ = exception(cause, home)[0]
    if context := dict_of(told.get("context")):
        error.__context__ = exception(context, home)[0]
    for note in list_of(told.get("notes")):
        error.add_note(text_of(note))
    return error, is_same


def _alone(told: Mapping[str, Any], home: str) -> tuple[BaseException, bool]:
    name, message = text_of(told.get("type")), text_of(told.get("message"))
    kind = class_named(name, home)
    is_there = isinstance(kind, type) and issubclass(kind, BaseException)
    members = [exception(each, home)[0] for each in dicts_of(told.get("exceptions"))]
    if members:
        try:
            return (kind if is_there else BaseExceptionGroup)(message, members), is_there
        except Exception:  # noqa: BLE001 - of a class of the user's
            return BaseExceptionGroup(message, members), False
    for make in (_validation, _answered, _called, _bare) if is_there else ():
        try:
            error = make(kind, told, message)
        except Exception:  # noqa: BLE001, S112 - of a class of the user's
            continue
        if error is not None and (str(error) == message or "arguments" in told):
            return error, True  # no method of a user's class was run for the message
    return RecordedError(name, message), False


def _validation(kind: Any, told: Mapping[str, Any], message: str) -> BaseException | None:
    """Make an exception of pydantic's, which has no constructor, with its places, types and messages."""
    if kind.__module__ != "pydantic_core._pydantic_core" or not hasattr(kind, "from_exception_data"):
        return None
    custom = sys.modules["pydantic_core"].PydanticCustomError
    title = message.partition("\n")[0].partition(" for ")[2]
    wrong = [
        {
            "type": custom(line["kind"], line["told"]),
            "loc": tuple(
                int(part) if part.isdigit() else part for part in (line["place"] or "").split(".") if part
            ),
            "input": None,
        }
        for line in _WRONG.finditer(message.partition("\n")[2])
    ]
    error: BaseException = kind.from_exception_data(title, wrong, hide_input=True)
    return error


def _answered(kind: Any, told: Mapping[str, Any], message: str) -> BaseException | None:
    """Make an exception that has a request or a response of HTTP, of which the status was recorded."""
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    module = next((sys.modules.get(_HTTP[name]) for name in _HTTP if name in packages), None)
    library = getattr(module, "httpx2", None) or getattr(module, "httpx", module)
    if library is None:
        return None
    request, status = library.Request("POST", _NOWHERE), told.get("status")
    if isinstance(status, int):
        response = library.Response(status, request=request)
        ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((message,), {"response": response, "body": None}),
            ((message,), {"response": response, "request": request}),
        ]
    else:
        ways = [((), {"request": request, "message": message}), ((), {"request": request})]
    for arguments, named in ways:
        try:
            error: BaseException = kind(*arguments, **named)
        except TypeError:
            continue
        return _with_attributes(error, told)
    return None


def _called(kind: Any, told: Mapping[str, Any], message: str) -> BaseException:
    """Make an exception from its arguments."""
    if "arguments" in told:
        arguments = list_of(told["arguments"])
    elif kind is KeyError:
        arguments = [ast.literal_eval(message)] if message else []
    else:
        arguments = [message] if message else []
    return _with_attributes(kind(*arguments), told)


def _bare(kind: Any, told: Mapping[str, Any], message: str) -> BaseException:
    """Make an exception whose constructor takes something else, without running that."""

    def text(_: Any) -> str:
        return message

    own: Any = type(
        kind.__name__,
        (kind,),
        {"__str__": text, "__module__": kind.__module__, "__qualname__": kind.__qualname__},
    )
    error: BaseException = own.__new__(own)
    error.args = tuple(list_of(told.get("arguments"))) or (message,)
    vars(error).update(dict_of(told.get("attributes")))
    return error


def _with_attributes(error: BaseException, told: Mapping[str, Any]) -> BaseException:
    for attribute, value in dict_of(told.get("attributes")).items():
        if getattr(error, attribute, None) != value:
            setattr(error, attribute, value)
    return error
