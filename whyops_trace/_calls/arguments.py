"""Arguments of a call by parameter name, with a fast way for the usual call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from whyops_trace._guard import attempt

_EMPTY = inspect.Parameter.empty
#: Names of a first parameter that is no argument of the call.
_SELF = ("self", "cls")


class Arguments:
    """
    The parameters of a callable, by which the arguments of its calls are named.

    Attributes:
        name_usual: Returns the arguments of a usual call by name.
        usual: Number of arguments of a usual call, which has one for each parameter, by position, none of them self or
            cls; -1 if there is no such call.

    Args:
        function: The callable; one without a signature, as some builtins are, has its arguments listed by position.
        own: True to take the parameters that the function's code has, not those of a function that it wraps or those
            that its ``__signature__`` names.
    """

    def __init__(self, function: Callable[..., Any], *, own: bool = False) -> None:
        signature, _ = attempt(_signature_of_code if own else _signature, function)
        parameters = list(signature.parameters.values()) if signature is not None else []
        if _is_self_made_up(function, parameters):
            del parameters[0]
        kinds = inspect.Parameter
        self._known = signature is not None
        self._positional = tuple(
            p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        )
        self.name_usual = _namer(*self._positional)
        self._keywords = frozenset(
            p.name for p in parameters if p.kind in (kinds.KEYWORD_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        )
        self._var_positional = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
        self._var_keyword = next((p.name for p in parameters if p.kind is kinds.VAR_KEYWORD), None)
        self._defaults = {
            p.name: p.default for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        }
        self._self = next((p.name for p in parameters[:1] if p.name in _SELF), None)
        is_usual = self._known and self._self is None and len(parameters) == len(self._positional)
        self.usual = len(parameters) if is_usual else -1
        self._function = function
        self._is_own = own or type(function) is BuiltinFunctionType

    @functools.cached_property
    def _code(self) -> Arguments | None:
        """
        The parameters of the code that runs, None if they are these.

        A decorator may pass to the function it wraps other arguments than it is called with, and the signature that an
        object shows may be anything. That of a builtin is its own.
        """
        return None if self._is_own else Arguments(self._function, own=True)

    def without_self(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return positional arguments without self or cls."""
        return args if self._self is None else args[1:]

    def names(self, name: str) -> bool:
        """Tell whether there is a parameter of that name."""
        return name in self._defaults

    def accepts(self, name: str) -> bool:
        """Tell whether a call can have an argument of that name."""
        return (
            not self._known
            or self._var_keyword is not None
            or name in self._defaults
            or name == self._var_positional
            or (self._code is not None and self._code._known and self._code.accepts(name))
        )

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """
        Return the arguments of one call, without self or cls, with defaults, in the order of the signature.

        Returns:
            A dict of its own; None if the arguments do not fit.
        """
        named = self._fit(args, kwargs) if self._known else {"args": list(args), **kwargs}
        if named is not None and self._self is not None:
            named.pop(self._self, None)
        return named

    def as_they_came(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """
        Return the arguments of a call that do not fit the signature, by the parameters of the code that runs.

        Returns:
            A dict of its own; None if they do not fit those either, so that the call will raise a TypeError.
        """
        code = self._code
        if code is None:
            return None
        # The first argument of a method's wrapper is the object. A signature that was set by hand tells no method.
        is_method = self._self is not None and code._known and code._self is None
        is_method = is_method and not hasattr(self._function, "__signature__")
        return code.named(args[1:] if is_method else args, kwargs)

    def _fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        given = dict(zip(self._positional, args, strict=False))
        named = {name: given.get(name, default) for name, default in self._defaults.items()}
        extra = args[len(self._positional) :]
        if extra:
            if self._var_positional is None:
                return None
            named[self._var_positional] = list(extra)
        more: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._keywords:
                if name in given:
                    return None
            elif self._var_keyword is None:
                return None
            elif name in named:  # also the name of a positional parameter
                more[name] = value
                continue
            named[name] = value
        if more and self._var_keyword is not None:
            named[self._var_keyword] = more
        return None if any(value is _EMPTY for value in named.values()) else named


def _is_self_made_up(function: Any, parameters: list[inspect.Parameter]) -> bool:
    """Tell whether a signature that was set by hand begins with a self that the innermost function does not take."""
    if not parameters or parameters[0].name not in _SELF or not hasattr(function, "__signature__"):
        return False
    signature, _ = attempt(_signature_of_code, inspect.unwrap(function))
    own = list(signature.parameters.values())[:1] if signature is not None else []
    return bool(own) and own[0].name not in _SELF and own[0].kind is not inspect.Parameter.VAR_POSITIONAL


def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _signature_of_code(function: Any) -> inspect.Signature:
    """
    Return the signature of the code that runs when a callable is called.

    Raises:
        TypeError: if that is not known, as of classes and of objects whose code is written in C.
    """
    if isinstance(function, MethodType):
        bound = _signature_of_code(function.__func__)
        return bound.replace(parameters=list(bound.parameters.values())[1:])
    if type(function) is not FunctionType:
        call = getattr(type(function), "__call__", None)  # noqa: B004 - not whether, but what
        if type(call) is not FunctionType:
            raise TypeError
        return _signature_of_code(MethodType(call, function))
    bare = FunctionType(function.__code__, {}, "", function.__defaults__, function.__closure__)
    bare.__kwdefaults__ = function.__kwdefaults__
    return inspect.signature(bare)


def _namer(*names: str) -> Callable[[tuple[Any, ...]], dict[str, Any]]:
    """Return a function from as many values to a dict. For few names it is written out: less than half the time."""
    match names:
        case (one,):
            return lambda values: {one: values[0]}
        case (one, two):
            return lambda values: {one: values[0], two: values[1]}
        case (one, two, three):
            return lambda values: {one: values[0], two: values[1], three: values[2]}
        case _:
            return lambda values: dict(zip(names, values, strict=True))
