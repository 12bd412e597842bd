"""What a member of plain data holds if it has the type one expects, and nothing of that type if it has not."""

from __future__ import annotations

from typing import Any


def dict_of(value: Any) -> dict[str, Any]:
    """Return a dict as it is, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list as it is, an empty one for anything else."""
    return value if isinstance(value, list) else []


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """Return the dicts among the items of a list."""
    return [item for item in list_of(value) if isinstance(item, dict)]


def text_of(value: Any) -> str:
    """Return a text as it is, an empty one for anything else."""
    return value if isinstance(value, str) else ""


def parsed(value: Any) -> Any:
    """Return what a text that is JSON means; any other value, and a text that is not JSON, as it is."""
    if isinstance(value, str):
        import json  # which those who only record do without

        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value
