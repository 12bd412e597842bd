"""
The limits of a WhyOps server for an event, checked at the call that gives a value.

Every refusal is an error at that call, with the values that are allowed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from whyops_trace._clock import wire_time
from whyops_trace._guard import warn_once
from whyops_trace._shapes import is_number
from whyops_trace.exceptions import InvalidEventError, UnknownOptionError
from whyops_trace.types import EventOptions, TokenUsage, ToolCallPair

#: The largest step that a server can store (its column is a 32-bit integer).
MAX_STEP: Final = 2**31 - 1
#: The largest latency in milliseconds, or token count, that a server can store, for the same reason.
MAX_COUNT: Final = 2**31 - 1
MAX_ID: Final = 128
MAX_NAME: Final = 255
MAX_MODEL: Final = 200
MAX_FINISH_REASON: Final = 100
#: Characters of the name of a score and of a label, and of a comment.
MAX_LABEL: Final = 255
MAX_COMMENT: Final = 10_000

#: The largest integer that JSON readers do not change.
_EXACT: Final = 2**53

_OPTIONS: Final = EventOptions.__optional_keys__ | EventOptions.__required_keys__
#: Metadata keys that the library writes itself.
_RESERVED: Final = frozenset({"within", "trace", "idempotencyKey"})


def check_options(options: Mapping[str, Any]) -> EventOptions:
    """
    Return *options* after checks, without those that are None, and with ``timestamp`` in wire form.

    Raises:
        UnknownOptionError: if a name is not one of :class:`~whyops_trace.types.EventOptions`.
        InvalidEventError: if a value has the wrong type or is out of bounds.
    """
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            names = ", ".join(sorted(_OPTIONS))
            raise UnknownOptionError(f"There is no option {name!r}; an event takes {names}.")
        if value is None:
            continue
        if name in ("step_id", "parent_step_id"):
            check_step(name, value)
        elif name != "timestamp":
            check_text(name, value, MAX_NAME if name == "external_user_id" else MAX_ID)
        checked[name] = _time(name, value) if name == "timestamp" else value
    return checked  # type: ignore[return-value]


def check_step(name: str, value: object) -> None:
    """Raise :class:`InvalidEventError` unless *value* is a step number, 1 to 2**31 - 1."""
    if type(value) is not int or not 1 <= value <= MAX_STEP:
        raise InvalidEventError(
            f"{name} is {value!r}; it must be an int from 1 to {MAX_STEP}. Leave it out to have it counted."
        )


def check_text(name: str, value: object, limit: int) -> None:
    """Raise :class:`InvalidEventError` unless *value* is text of 1 to *limit* characters."""
    if not isinstance(value, str) or not value:
        raise InvalidEventError(f"{name} is {value!r}; it must be text of 1 to {limit} characters.")
    if size(value) > limit:
        raise InvalidEventError(
            f"{name} has {size(value)} characters; at most {limit} are stored. Use a shorter one, a hash for example."
        )


def size(text: str) -> int:
    """Return the length of a text as a server counts it, in UTF-16 units: an emoji counts two."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def model_metadata(
    model: str, provider: str, usage: TokenUsage | None, latency_ms: float | None
) -> dict[str, Any]:
    """Return the metadata of a model's answer, with the values a server can store."""
    check_text("model", model, MAX_MODEL)
    check_text("provider", provider, MAX_NAME)
    metadata: dict[str, Any] = {"model": model, "provider": provider}
    if usage:
        metadata["usage"] = _check_counts("usage", usage)
        _check_usage(usage)
    if latency_ms is not None:
        metadata["latencyMs"] = check_count("latency_ms", latency_ms)
    return metadata


def _check_usage(counts: Mapping[str, Any]) -> None:
    unknown = [str(key) for key in counts if key not in TokenUsage.__annotations__]
    if unknown:
        warn_once(
            f"usage: {unknown}",
            "usage has %s, which nothing reads; its names are %s.",
            ", ".join(unknown),
            ", ".join(TokenUsage.__annotations__),
        )


def check_metadata(metadata: Mapping[str, Any] | None, written: Container[str] = ()) -> dict[str, Any]:
    """
    Return a user's metadata as a dict of its own.

    Args:
        metadata: The user's metadata.
        written: Keys that the library writes itself in this event, beside those of every event.

    Raises:
        InvalidEventError: if it is not a mapping with text keys, or has a key that the library writes itself.
    """
    checked = check_mapping("metadata", metadata)
    for key in checked:
        require(isinstance(key, str), "a metadata key", key, "text")
        if key in _RESERVED or key in written:
            raise InvalidEventError(f"metadata[{key!r}] is written by the library; choose another key.")
    for key in _TYPED.keys() & checked:
        value = checked.pop(key)
        if value is not None:
            checked[key] = _TYPED[key](f"metadata[{key!r}]", value)
    return checked


def _check_model(name: str, value: object) -> object:
    check_text(name, value, MAX_MODEL)
    return value


def _check_prompt(name: str, value: object) -> object:
    require(isinstance(value, str), name, value, "text: join its blocks first")
    return value


def _check_counts(name: str, value: Any) -> dict[str, float]:
    counts = check_mapping(name, value)
    return {
        key: (check_amount if key == "cost" else check_count)(f"{name}[{key!r}]", count)
        for key, count in counts.items()
        if count is not None
    }


def tool_metadata(tool: str, latency_ms: float | None) -> dict[str, Any]:
    """Return the metadata of a tool event."""
    check_text("tool", tool, MAX_NAME)
    metadata: dict[str, Any] = {"tool": tool}
    if latency_ms is not None:
        metadata["latencyMs"] = check_count("latency_ms", latency_ms)
    return metadata


def check_tool_calls(value: Sequence[ToolCallPair]) -> Sequence[ToolCallPair]:
    """Return the tool calls, which must be a list."""
    require(is_list(value), "tool_calls", value, 'a list such as [{"name": "search", "arguments": {}}]')
    return value


def moment(name: str, value: str | datetime | None) -> dict[str, str]:
    """Return a moment under its wire name, an empty dict for None."""
    if value is None:
        return {}
    return {"requestedAt" if name == "requested_at" else "respondedAt": _time(name, value)}


def _time(name: str, value: object) -> str:
    if isinstance(value, (str, datetime)):
        try:
            return wire_time(value)
        except ValueError:
            pass
    raise InvalidEventError(
        f"{name} is {value!r}; it must be ISO 8601 text such as 2026-01-31T12:00:00Z or a datetime."
    )


def check_score(name: str, value: object, comment: str | None) -> dict[str, Any]:
    """
    Return the content of a score: ``name``, and of ``value``, ``label`` and ``comment`` what there is.

    Raises:
        InvalidEventError: if the name, the value or the comment is of the wrong type or size, or the last two are None.
    """
    check_text("name", name, MAX_LABEL)
    content: dict[str, Any] = {"name": name}
    if isinstance(value, str):
        check_text("value", value, MAX_LABEL)
        content["label"] = value
    elif value is not None:
        content["value"] = _rating(value)
    if comment is not None:
        check_text("comment", comment, MAX_COMMENT)
        content["comment"] = comment
    if len(content) == 1:
        raise InvalidEventError(f"The score {name!r} has neither a value nor a comment; give it one of them.")
    return content


def _rating(value: Any) -> bool | float:
    """Return a thumb as a bool, and a number of whatever library as an int or float."""
    kind: type = type(value)
    number: float | None
    if kind.__name__ in ("bool", "bool_"):  # numpy has its own
        return bool(value)
    number = value if kind is int and abs(value) <= _EXACT else None
    if number is None and hasattr(kind, "__float__"):
        with contextlib.suppress(Exception):  # whatever a class of others raises
            number = float(value)
    if number is None or not math.isfinite(number):
        raise InvalidEventError(
            f"value is {kind.__name__} {value!r:.80}; it must be True or False, a finite number, or a short text."
        )
    return number


def check_count(name: str, value: object) -> int:
    """Return a number rounded to an int that a server can store."""
    return round(check_amount(name, value))


def check_amount(name: str, value: object) -> float:
    """Return a number that a server can store."""
    if is_number(value) and 0 <= value <= MAX_COUNT:
        return value
    raise InvalidEventError(f"{name} is {value!r}; it must be a number from 0 to {MAX_COUNT}.")


#: Checks of metadata keys that a server keeps in columns of their own. It refuses an event if a value does not fit.
_TYPED: Final[dict[str, Callable[[str, Any], object]]] = {
    "latencyMs": check_count,
    "model": _check_model,
    "systemPrompt": _check_prompt,
    "usage": _check_counts,
}


def check_mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a mapping as a dict of its own, an empty one for None."""
    require(value is None or isinstance(value, Mapping), name, value, "a dict")
    return dict(value or {})


def is_list(value: object) -> bool:
    """Return True if a value is a list or tuple."""
    return isinstance(value, (list, tuple))


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise :class:`InvalidEventError` with the value and the expectation, unless the condition holds."""
    if not holds:
        raise InvalidEventError(f"{name} is {type(value).__name__} {value!r:.80}; it must be {expected}.")
