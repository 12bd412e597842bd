"""The extras of this package: the command that installs one which is missing."""

from __future__ import annotations


def install_hint(*extras: str) -> str:
    """Return the end of a sentence that says how to install extras, from a checkout as from any other source."""
    names = f"extra{'s' if len(extras) > 1 else ''} {' and '.join(extras)}"
    return f"install whyops-trace again with the {names}; in a checkout: pip install '.[{','.join(extras)}]'"
