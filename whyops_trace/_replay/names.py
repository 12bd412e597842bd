"""The names by which a replay lists what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from whyops_trace._calls.site import CallSite
from whyops_trace._shapes import text_of


def names_of(listed: Iterable[str | Callable[..., Any]]) -> frozenset[str]:
    """Return the names of what a user lists: names, or functions; a name alone is taken for a list of it."""
    return frozenset(map(_name_of, [listed] if isinstance(listed, str) else listed))


def _name_of(listed: str | Callable[..., Any]) -> str:
    """Return a name, or that by which a function is recorded."""
    if isinstance(listed, str):
        return listed
    parts = [
        *getattr(listed, "_self_parts", ())
    ]  # of a decorated callable; a function has its site in a cell
    if hasattr(listed, "__wrapped__"):
        parts += [cell.cell_contents for cell in getattr(listed, "__closure__", None) or ()]
    names = (part.name for part in parts if isinstance(part, CallSite))
    return text_of(next(names, getattr(listed, "__name__", "")))
