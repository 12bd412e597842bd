"""
Importing in a worker what the host program's threads may look for meanwhile.

A module that is being imported stands in ``sys.modules`` long before it is complete. ``import`` waits for the thread
that imports it, but whoever takes it from there does not: openai from version 3 on does so with httpx at every request,
as clients of older ones may be made of its classes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def load(name: str) -> None:
    """
    Import a top-level module, unless somebody has.

    Another thread that looks at a part of it that is not there yet waits until all of it is.

    Args:
        name: Its name.

    Raises:
        ImportError: if there is none, or it cannot be imported.
    """
    if name in sys.modules:
        return
    finder = _Finder(name)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
    if type(module) is _Unfinished:
        module.__class__ = ModuleType  # type: ignore[assignment]


class _Unfinished(ModuleType):
    """A module that is being imported."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # else it is only just being made
            with contextlib.suppress(ImportError):
                importlib.import_module(self.__name__)  # waits for another thread, not for this one
        return ModuleType.__getattribute__(self, name)


class _Finder:
    """
    Finds one module as all other finders do, and has it made as an :class:`_Unfinished`.

    Args:
        name: Of the module.
    """

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the others find."""
        if fullname != self._name:
            return None
        self._name = None  # the next line asks this one again
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            with contextlib.suppress(AttributeError):  # somebody's own loader; then it is imported as ever
                spec.loader.create_module = _unfinished  # type: ignore[method-assign]
        return spec


def _unfinished(spec: ModuleSpec) -> ModuleType:
    return _Unfinished(spec.name)
