"""The recorded call that a call is: the same in structure, and of several such the one whose texts differ least."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from whyops_trace._replay.recording import RecordedCall
from whyops_trace._shapes import dict_of, list_of

#: Characters of a text and of a value that are compared and shown.
_COMPARED: Final = 2_000
_SHOWN: Final = 90
#: Characters that are shown before the first that differs.
_LEAD: Final = 20
_ABSENT: Final = "(nothing)"
#: Parameters of a request to a model that tell nothing of the question.
_ABOUT: Final = frozenset({"metadata", "user", "safety_identifier", "prompt_cache_key"})


def key(call: RecordedCall) -> str:
    """
    Return what calls must have in common to be the same one, as JSON.

    The arguments of a tool and the input of an embedding must be equal. Of a request to a model it is who spoke, which
    tools were called and offered, and the parameters; no text.
    """
    asked = call.asked
    if call.kind == "llm":
        params = dict_of(asked.get("params"))
        asked = {
            "said": [_role(message) for message in list_of(asked.get("messages"))],
            "tools": asked.get("tools"),
            "prompt": bool(asked.get("systemPrompt") or asked.get("system")),
            "params": {name: value for name, value in params.items() if name not in _ABOUT},
        }
    return json.dumps(asked, sort_keys=True)


def nearest(calls: Sequence[RecordedCall], call: RecordedCall) -> RecordedCall | None:
    """Return the recorded call that differs least from a call; of equals the first with the same steps around it."""
    if len(calls) <= 1:
        return calls[0] if calls else None
    return min(calls, key=lambda other: (distance(other.asked, call.asked), other.path != call.path))


def distance(recorded: Any, now: Any) -> float:
    """Return a measure of how much two values differ: about the number of their parts that differ."""
    return sum(2 - _likeness(before, after) for _, before, after in _different(recorded, now, ""))


def differences(recorded: Any, now: Any, most: int = 6) -> list[str]:
    """Return the places at which two values differ, with what is there."""
    places = list(_different(recorded, now, ""))
    lines = [
        f"{path or 'value'}: recorded {before}, now {after}" for path, before, after in map(_shown, places)
    ]
    return lines if len(lines) <= most else [*lines[:most], f"… and {len(lines) - most} more"]


def normalised(value: Any, normalise: Callable[[str], str] | None) -> Any:
    """Return a value with each text in it as the user's function makes it."""
    if normalise is None:
        return value
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, list):
        return [normalised(item, normalise) for item in value]
    if isinstance(value, dict):
        return {name: normalised(item, normalise) for name, item in value.items()}
    return value


def _role(message: Any) -> Any:
    if not isinstance(message, dict):
        return type(message).__name__
    blocks = message.get("content")
    called = [
        dict_of(dict_of(call).get("function")).get("name") for call in list_of(message.get("tool_calls"))
    ]
    kinds = (
        [block.get("type") if isinstance(block, dict) else "text" for block in blocks]
        if isinstance(blocks, list)
        else None
    )
    return [message.get("role"), message.get("type"), message.get("name"), called, kinds]


def _different(recorded: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if recorded == now and type(recorded) is type(now):
        return
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*recorded, *now]):
            if recorded.get(name) is None and now.get(name) is None:  # null says no more than nothing
                continue
            yield from _different(
                recorded.get(name, _ABSENT), now.get(name, _ABSENT), f"{path}.{name}" if path else str(name)
            )
    elif isinstance(recorded, list) and isinstance(now, list):
        for place in range(max(len(recorded), len(now))):
            before, after = (each[place] if place < len(each) else _ABSENT for each in (recorded, now))
            yield from _different(before, after, f"{path}[{place}]")
    else:
        yield path, recorded, now


def _likeness(before: Any, after: Any) -> float:
    if not isinstance(before, str) or not isinstance(after, str):
        return 0
    return SequenceMatcher(None, before[:_COMPARED], after[:_COMPARED], autojunk=False).ratio()


def _shown(place: tuple[str, Any, Any]) -> tuple[str, str, str]:
    """Return a place and what is there as texts, long ones from shortly before the first character that differs."""
    path, before, after = place
    texts = [each if each == _ABSENT else json.dumps(each, ensure_ascii=False) for each in (before, after)]
    pairs = enumerate(zip(*texts, strict=False))
    start = next((at for at, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(0, start - _LEAD) if max(map(len, texts)) > _SHOWN else 0
    before, after = (_part(text, start) for text in texts)
    return path, before, after


def _part(text: str, start: int) -> str:
    end = start + _SHOWN
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
