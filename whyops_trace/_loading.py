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
    _finder.names.add(name)
    # It stays: taken out, an import that goes through the list in another thread would miss the finder after it.
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    module = importlib.import_module(name)
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
    Finds modules as all other finders do, and has them made as an :class:`_Unfinished`.

    Attributes:
        names: Of the modules, each until it is looked for.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the others find."""
        if fullname not in self.names:
            return None
        self.names.discard(fullname)  # the next line asks this one again
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            with contextlib.suppress(AttributeError):  # somebody's own loader; then it is imported as ever
                spec.loader.create_module = _unfinished  # type: ignore[method-assign]
        return spec


def _unfinished(spec: ModuleSpec) -> ModuleType:
    return _Unfinished(spec.name)


_finder = _Finder()
