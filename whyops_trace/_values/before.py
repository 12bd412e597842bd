"""A program's own processor of records: it sees decoded values before they are written, and what it returns is."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import BeforeRecord, RecordedValues

#: Stands in for a text that is not recorded.
OMITTED: Final = "[omitted]"
#: The metadata whose texts the library writes itself.
_OURS: Final = frozenset({"outcome", "startedAt"})
#: The rest of a content that is left out, by the event type; of any other ``{}``.
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "user_message": {"messages": []},
    "tool_result": {"toolName": OMITTED, "output": OMITTED},
    "llm_thinking": {"type": "thinking", "thinking": OMITTED},
    "embedding_request": {"input": []},
    "tool_call_request": {"toolCalls": []},
    "tool_call_response": {"toolCalls": [], "toolResults": {}},
    "error": {"message": OMITTED},
}

_decode: Final = msgspec.json.Decoder().decode
_running: Final = threading.local()


class UsersProcessor:
    """
    A function of the user's, as the last step but one before a record is cut and written.

    If it raises, or records something itself, the record keeps its numbers and nothing else of its values.

    Args:
        function: The function, see :data:`~whyops_trace.types.BeforeRecord`.
        encode: Function from a value to safe JSON.

    Raises:
        ConfigurationError: if it is not callable, or is to be awaited.
    """

    def __init__(self, function: BeforeRecord, encode: Callable[[object], bytes]) -> None:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"before_record is {function!r:.80}; it must be a function without async."
            )
        self._function = function
        self._encode = encode

    def process(self, kind: str, metadata: bytes, content: bytes) -> tuple[bytes, bytes]:
        """
        Return the metadata members, each led by a comma, and the content that are to be written.

        Args:
            kind: The event type; ``"trace"`` for what a trace says of itself.
            metadata: JSON members, each led by a comma.
            content: JSON.
        """
        values: RecordedValues = {
            "eventType": kind,
            "metadata": _decode(b"{%b}" % metadata[1:]),
            "content": _decode(content),
        }
        try:
            result = self._values(values)
        except Exception as error:  # noqa: BLE001 - of the user's code, whatever it is
            reason = f"before_record raised {type(error).__name__}"
            warn_once(reason, "%s; nothing but the numbers of such a record is kept.", reason)
            result = _omitted(kind, _decode(b"{%b}" % metadata[1:]), reason)
        members = self._encode(result["metadata"])[1:-1]
        return b"," + members if members else b"", self._encode(result["content"])

    def _values(self, values: RecordedValues) -> RecordedValues:
        kind, metadata = values["eventType"], dict(values["metadata"])
        if getattr(_running, "here", False):
            return _omitted(kind, metadata, "recorded by before_record itself")
        _running.here = True
        try:
            result = self._function(values)
        finally:
            _running.here = False
        if result is None:
            return _omitted(kind, metadata, "left out by before_record")
        if not isinstance(result["metadata"], dict):
            raise TypeError("metadata must be a dict")
        return {"eventType": kind, "metadata": result["metadata"], "content": result["content"]}


def _omitted(kind: str, metadata: dict[str, Any], reason: str) -> RecordedValues:
    """Return what is recorded in place of values that may not be."""
    kept = {name: _numbers(name, value) for name, value in metadata.items() if name != "trace"}
    content = {**_SHAPES.get(kind, {}), "omitted": reason}
    return {"eventType": kind, "metadata": kept, "content": content}


def _numbers(name: str, value: Any) -> Any:
    """Return a metadata value without what the program wrote in it."""
    if value is None or isinstance(value, (bool, int, float)) or name in _OURS:
        return value
    if name == "usage" and isinstance(value, dict):
        return {key: _numbers(key, count) for key, count in value.items()}
    return OMITTED if isinstance(value, str) else None
