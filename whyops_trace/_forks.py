"""Forks of the process, on platforms that have them."""

from __future__ import annotations

import os
from collections.abc import Callable


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Have functions called around each fork, as :func:`os.register_at_fork` does where there is one."""
    if not hasattr(os, "register_at_fork"):
        return
    functions = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
    os.register_at_fork(**{name: function for name, function in functions.items() if function is not None})
