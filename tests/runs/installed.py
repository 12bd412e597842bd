"""Which packages are installed."""

from __future__ import annotations

import importlib.util


def is_here(package: str) -> bool:
    """Return True if a package is installed."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
