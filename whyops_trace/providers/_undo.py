"""
The removal of the WhyOps proxy's additions to answers, so that a caller gets the provider's answer.

The proxy appends the trace id in zero-width characters to the text of an OpenAI answer, and to a stream a chunk with
them. It adds the trace id under a name of its own to the arguments of each tool call.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from whyops_trace._guard import attempt
from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._shapes import dict_of, dicts_of

#: A trace id in zero-width characters: its bits between two joiners, so that a text's own ending stays; or else so many
#: of any kind as no text has at its end.
_SIGNATURES: Final = (
    re.compile("\u200d[\u200b\u200c]{16,}\u200d\\Z"),
    re.compile("[\u200b-\u200f\u2060-\u2064\ufeff]{16,}\\Z"),
)
#: Sign of a changed answer, in bytes: such a character, plain or escaped, or the name of the argument.
_TRACES: Final = re.compile(
    rb"\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\\u20[06]|\\u[fF][eE]|_whyops"
)
#: The line of the chunk that the proxy adds to a stream.
_ADDED: Final = re.compile(rb'data:.*"id"\s*:\s*"gen-signature"')


class Undo:
    """
    The removal from a body that comes in pieces: a stream of events, or one JSON text.

    Args:
        streams: True for a stream, whose whole lines are passed on at once, and so each event when it is complete.
            False for a JSON text, which is passed on at its end, since a part of it is of no use.
    """

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._pending = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes to pass on after another piece."""
        pending = self._pending + chunk
        end = pending.rfind(b"\n") + 1 if self._streams else 0
        self._pending = pending[end:]
        return _without_added(pending[:end])

    def rest(self) -> bytes:
        """Return the remaining bytes at the end."""
        pending, self._pending = self._pending, b""
        return _without_added(pending) if self._streams else undo(pending)


def _without_added(lines: bytes) -> bytes:
    if b"gen-signature" not in lines:
        return lines
    return b"".join(line for line in lines.splitlines(keepends=True) if not _ADDED.match(line))


def undo(body: bytes) -> bytes:
    """Return the body of an answer as the provider sent it; the same bytes if nothing was added."""
    if not _TRACES.search(body):
        return body
    answer, error = attempt(json.loads, body)
    if error is not None or not _undo_in(dict_of(answer)):
        return body
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _undo_in(answer: dict[str, Any]) -> bool:
    """Remove the additions from an answer; return True if anything changed."""
    changed = False
    for choice in dicts_of(answer.get("choices")):
        message = dict_of(choice.get("message"))
        changed |= _unsign(message, "content")
        changed |= _undo_in_tools(message)
    for item in dicts_of(answer.get("output")):
        for part in dicts_of(item.get("content")):
            changed |= _unsign(part, "text")
        changed |= _undo_in_tools(item) | _unname(item)
    return changed


def _undo_in_tools(message: dict[str, Any]) -> bool:
    renamed = [_unname(dict_of(call.get("function"))) for call in dicts_of(message.get("tool_calls"))]
    return any(renamed)


def _unsign(part: dict[str, Any], key: str) -> bool:
    text = part.get(key)
    if not isinstance(text, str):
        return False
    for signature in _SIGNATURES:
        if match := signature.search(text):
            part[key] = text[: match.start()]
            return True
    return False


def _unname(function: dict[str, Any]) -> bool:
    text = function.get("arguments")
    if not isinstance(text, str) or TRACE_ID_ARGUMENT not in text:
        return False
    arguments, error = attempt(json.loads, text)
    if error is not None or not isinstance(arguments, dict) or TRACE_ID_ARGUMENT not in arguments:
        return False
    del arguments[TRACE_ID_ARGUMENT]
    function["arguments"] = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return True
