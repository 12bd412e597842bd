"""Call sites of functions that were pickled by value: cloudpickle takes a function apart, and the site with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from whyops_trace._guard import warn_once

#: What a pickled function and its site ask of each other. It is raised whenever the templates of
#: :mod:`whyops_trace._calls.functions`, or the attributes that they use, change.
FORMAT: Final = 2


def restore(format: int, make: Callable[..., Any], *parts: Any) -> Restored | Unknown:
    """
    Return the call site of a function that was pickled.

    Args:
        format: The :data:`FORMAT` of the package that pickled it.
        make: Class of the site.
        *parts: Arguments of its constructor: the bare function, the options, the source of the recorder.
    """
    if format != FORMAT:
        warn_once(
            "pickled format",
            "Functions that another version of whyops-trace pickled are not traced here; install the same version.",
        )
        return Unknown()
    return Restored(make, parts)


class Restored:
    """
    A call site that is made when it is first used.

    A function that refers to itself is only half there when its site is loaded, and its signature comes last.

    Args:
        make: Class of the site.
        parts: Arguments of its constructor.
    """

    def __init__(self, make: Callable[..., Any], parts: tuple[Any, ...]) -> None:
        self._make = make
        self._parts = parts

    @functools.cached_property
    def _site(self) -> Any:
        return self._make(*self._parts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by what copies or loads it, before it has its parts
            raise AttributeError(name)
        value = getattr(self._site, name)
        setattr(self, name, value)  # the next call finds it here
        return value

    def __reduce__(self) -> Any:
        return restore, (FORMAT, self._make, *self._parts)


class Unknown:
    """Stands in for a call site of another format, and records nothing."""

    strips = ""

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Return None, as for any call that is not recorded."""

    look = begin

    def instead(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function."""
        return function
