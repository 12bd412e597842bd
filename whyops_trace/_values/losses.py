"""The parts of a value that its record lacks."""

from __future__ import annotations

from typing import Any, Final

from whyops_trace._values.reflection import REDACTED
from whyops_trace._values.secrets.finds import MARK

#: Levels of containers in which the texts of a value are looked at.
_DEPTH: Final = 20


def is_redacted(value: Any, json: bytes) -> bool:
    """
    Tell whether a secret was taken out of a value, and its texts do not only hold the mark that stands for one.

    Args:
        value: The value, of which no code is run.
        json: What was made of it, with the mark in it.
    """
    return json.count(MARK) > _marks_in(value, _DEPTH)


def _marks_in(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is str:
        return str.count(value, REDACTED)
    if depth and kind is dict:
        return sum(_marks_in(part, depth - 1) for item in list(value.items()) for part in item)
    if depth and (kind is list or kind is tuple):
        return sum(_marks_in(item, depth - 1) for item in list(value))
    return 0
