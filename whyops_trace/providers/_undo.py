"""
Takes out of answers what the WhyOps proxy put in, so that a caller gets what the provider said.

To the text of an answer of OpenAI's the proxy appends the trace id in characters that have no width, to a stream a
chunk with them, and to the arguments of each tool call the trace id under a name of its own.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from whyops_trace._guard import attempt
from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._shapes import dict_of, dicts_of

#: A trace id in characters without width: its bits between two joiners, so that what a text ends in by itself stays;
#: else as many of any kind as no text has at its end.
_SIGNATURES: Final = (
    re.compile("\u200d[\u200b\u200c]{16,}\u200d\\Z"),
    re.compile("[\u200b-\u200f\u2060-\u2064\ufeff]{16,}\\Z"),
)
#: What an answer has in it that was changed, as bytes: such a character, plain or escaped, or the name.
_TRACES: Final = re.compile(
    rb"\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\\u20[06]|\\u[fF][eE]|_whyops"
)
#: The id of the chunk that is added to a stream.
_ADDED: Final = re.compile(rb'data:.*"id"\s*:\s*"gen-signature"')


class Undo:
    """
    Undoes it in a body that comes in pieces: a stream of events, or one JSON text.

    Args:
        streams: Whether it is a stream. Of a stream whole lines are passed on at once, as is an event when it is
            complete; of a JSON text everything at its end, since a part of it is of no use.
    """

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be passed on after another piece."""
        held = self._held + chunk
        end = held.rfind(b"\n") + 1 if self._streams else 0
        self._held = held[end:]
        return _without_added(held[:end])

    def rest(self) -> bytes:
        """Return what is left at the end."""
        held, self._held = self._held, b""
        return _without_added(held) if self._streams else undo(held)


def _without_added(lines: bytes) -> bytes:
    if b"gen-signature" not in lines:
        return lines
    return b"".join(line for line in lines.splitlines(keepends=True) if not _ADDED.match(line))


def undo(body: bytes) -> bytes:
    """Return the body of an answer as the provider sent it; the same bytes if nothing was put in."""
    if not _TRACES.search(body):
        return body
    answer, error = attempt(json.loads, body)
    if error is not None or not _undo_in(dict_of(answer)):
        return body
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _undo_in(answer: dict[str, Any]) -> bool:
    """Undo it in an answer; return whether anything was changed."""
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
        if found := signature.search(text):
            part[key] = text[: found.start()]
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
