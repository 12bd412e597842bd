"""The handle on a framework that is traced: it is, until the handle is detached."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

from whyops_trace._extras import install_hint
from whyops_trace._spans.registry import ADAPTED
from whyops_trace.client import WhyOps
from whyops_trace.exceptions import ConfigurationError


class Patches:
    """
    The functions of a framework that are replaced while it is traced, since it has no hook.

    Args:
        owner: The module or class that has them.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._replaced: dict[str, tuple[Any, Any]] = {}

    def put(self, name: str, make: Callable[[Any], Any]) -> None:
        """Replace a function by what *make* returns for it, unless it is replaced already."""
        if name not in self._replaced:
            original = getattr(self._owner, name)
            self._replaced[name] = original, make(original)
            setattr(self._owner, name, self._replaced[name][1])

    def take_back(self) -> None:
        """Put the functions back. One that others have patched on top stays in place, and records nothing."""
        for name, (original, ours) in list(self._replaced.items()):
            if getattr(self._owner, name) is ours:
                setattr(self._owner, name, original)
                del self._replaced[name]


class Attachment:
    """
    A framework whose runs are traced until :meth:`detach`, or until the end of a ``with`` block.

    Of several attachments to one framework the newest counts. A run that has begun is recorded to its end. The spans
    that instrumentations make of the same runs are left out meanwhile, for these are told once.

    Attributes:
        sdk: The client that records runs outside any trace; None for the default one.
    """

    def __init__(
        self,
        attachments: list[Attachment],
        sdk: WhyOps | None,
        patches: Patches | None = None,
        spans_of: tuple[str, ...] = (),
    ) -> None:
        self._attachments = attachments
        if spans_of:
            ADAPTED[id(self)] = spans_of
        self._patches = patches
        self.sdk: WhyOps | None = sdk
        attachments.append(self)

    def detach(self) -> None:
        """Trace no further runs. Whether it was detached before does not matter."""
        if self in self._attachments:
            self._attachments.remove(self)
            ADAPTED.pop(id(self), None)
        if self._patches is not None and not self._attachments:
            self._patches.take_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def load(module: str, package: str, extra: str) -> Any:
    """
    Return the module beside this one that imports a framework.

    Raises:
        ConfigurationError: if the framework is not installed; it says how to do that.
    """
    try:
        return import_module(f"whyops_trace.integrations.{module}")
    except ImportError as error:
        raise ConfigurationError(f"{package} cannot be imported ({error}): {install_hint(extra)}.") from error
