"""Members of plain data with an expected type; a value of another type becomes an empty one."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

import msgspec

#: Characters with which JSON begins, and its constants as Python writes them.
_STARTS: Final = frozenset('{["-0123456789tfnNI \t\r\n')


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


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is an int or a float; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parsed(value: Any) -> Any:
    """Return the value of a text that is JSON. Any other value, or a text that is not JSON, is returned as it is."""
    if not isinstance(value, str) or value[:1] not in _STARTS:
        return value
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        pass
    import json  # only here, since recording alone does without it

    try:
        return json.loads(value)  # it takes lone surrogates, NaN and numbers out of range
    except (ValueError, RecursionError):
        return value
