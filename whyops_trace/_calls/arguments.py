"""Arguments of a call by parameter name, with a fast way for the usual call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from whyops_trace._guard import attempt

_EMPTY = inspect.Parameter.empty


class Arguments:
    """
    The parameters of a callable, by which the arguments of its calls are named.

    Attributes:
        name_usual: Returns the arguments of a usual call by name.
        usual: Number of arguments of a usual call, which has one for each parameter, by position, none of them self or
            cls; -1 if there is no such call.

    Args:
        function: The callable; one without a signature, as some builtins are, has its arguments listed by position.
        own: True to take the function's own parameters, not those of one it wraps.
    """

    def __init__(self, function: Callable[..., Any], *, own: bool = False) -> None:
        signature, _ = attempt(inspect.signature, function, follow_wrapped=not own)
        parameters = list(signature.parameters.values()) if signature is not None else []
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
        self._self = next((p.name for p in parameters[:1] if p.name in ("self", "cls")), None)
        is_usual = self._known and self._self is None and len(parameters) == len(self._positional)
        self.usual = len(parameters) if is_usual else -1
        #: A decorator may pass to the function it wraps other arguments than it is called with.
        self._wrapper = (
            Arguments(function, own=True) if not own and hasattr(function, "__wrapped__") else None
        )

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
            or (self._wrapper is not None and self._wrapper.accepts(name))
        )

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """
        Return the arguments of one call, without self or cls, with defaults, in the order of the signature.

        Returns:
            A dict of its own; None if the arguments do not fit, so that the call will raise a TypeError.
        """
        if self._known:
            fitted = self._fit(args, kwargs)
            if fitted is None:
                return None if self._wrapper is None else self._named_by(self._wrapper, args, kwargs)
            named = fitted
        else:
            named = {"args": list(args), **kwargs}
        if self._self is not None:
            named.pop(self._self, None)
        return named

    def _named_by(
        self, wrapper: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any] | None:
        is_method = self._self is not None and wrapper._self is None
        return wrapper.named(args[1:] if is_method else args, kwargs)

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
