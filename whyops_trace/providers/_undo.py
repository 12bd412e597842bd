"""
The removal of the WhyOps proxy's additions to answers, so that a caller gets the provider's answer.

The proxy appends the trace id in zero-width characters to the first text of an OpenAI answer, and to a stream a chunk
with them. It adds the trace id under a name of its own to the arguments of each tool call.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from whyops_trace._guard import attempt
from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: Digits of a signature.
_ONE, _ZERO = "\u200c", "\u200d"
#: End of a text with a signature: between two marks the digits of the trace id's UTF-16 code units, eight or more each.
_SIGNATURE: Final = re.compile(f"\u200b([{_ONE}{_ZERO}]{{8,}})\u200e\\Z")
#: Sign of a changed answer, in bytes: the end of a signature, plain or escaped, or the name of the argument.
_TRACES: Final = re.compile(rb"\xe2\x80\x8e|\\u200[eE]|_whyops")
#: Id of the chunk that the proxy adds to a stream.
_ADDED: Final = "gen-signature"


class Undo:
    """
    The removal from a body that comes in pieces: a stream of events, or one JSON text.

    Args:
        streams: True for a stream, whose whole lines are passed on at once, and so each event when it is complete.
            False for a JSON text, which is passed on at its end, since a part of it is of no use.
        trace_id: The trace id that the proxy was told, "" if that is unknown: then any signature is the proxy's.
    """

    def __init__(self, *, streams: bool, trace_id: str = "") -> None:
        self._streams = streams
        self._trace_id = trace_id
        self._pending = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes to pass on after another piece."""
        pending = self._pending + chunk
        end = pending.rfind(b"\n") + 1 if self._streams else 0
        self._pending = pending[end:]
        return self._without_added(pending[:end])

    def rest(self) -> bytes:
        """Return the remaining bytes at the end."""
        pending, self._pending = self._pending, b""
        return self._without_added(pending) if self._streams else undo(pending, self._trace_id)

    def _without_added(self, lines: bytes) -> bytes:
        if _ADDED.encode() not in lines:
            return lines
        return b"".join(
            line for line in lines.splitlines(keepends=True) if not _is_added(line, self._trace_id)
        )


def undo(body: bytes, trace_id: str = "") -> bytes:
    """
    Return the body of an answer as the provider sent it; the same bytes if nothing was added.

    Args:
        body: The body.
        trace_id: The trace id that the proxy was told, "" if that is unknown: then any signature is the proxy's.
    """
    if not _TRACES.search(body):
        return body
    answer, error = attempt(json.loads, body)
    if error is not None or not _undo_in(dict_of(answer), trace_id):
        return body
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _is_added(line: bytes, trace_id: str) -> bool:
    """Tell whether a line of a stream is the chunk that the proxy adds: a signature and no text."""
    chunk = dict_of(attempt(json.loads, line.removeprefix(b"data:"))[0])
    deltas = [dict_of(choice.get("delta")) for choice in dicts_of(chunk.get("choices"))]
    return chunk.get("id") == _ADDED and [_unsigned(delta.get("content"), trace_id) for delta in deltas] == [
        ""
    ]


def _undo_in(answer: dict[str, Any], trace_id: str) -> bool:
    """Remove the additions from an answer; return True if anything changed."""
    messages = [dict_of(choice.get("message")) for choice in dicts_of(answer.get("choices"))]
    items = dicts_of(answer.get("output"))
    parts = [part for item in items for part in dicts_of(item.get("content"))]
    texts = [part for part in parts if part.get("type") == "output_text"]
    changes = [_unsign(message, "content", trace_id) for message in messages[:1]]
    changes += [_unsign(text, "text", trace_id) for text in texts[:1]]
    changes += [_undo_in_tools(message) for message in messages + items]
    changes += [_unname(item) for item in items]
    return any(changes)


def _undo_in_tools(message: dict[str, Any]) -> bool:
    renamed = [_unname(dict_of(call.get("function"))) for call in dicts_of(message.get("tool_calls"))]
    return any(renamed)


def _unsign(part: dict[str, Any], key: str, trace_id: str) -> bool:
    unsigned = _unsigned(part.get(key), trace_id)
    if unsigned is None:
        return False
    part[key] = unsigned
    return True


def _unsigned(text: object, trace_id: str) -> str | None:
    """Return a text without the signature at its end, None if it has none."""
    signature = _SIGNATURE.search(text_of(text))
    if signature is None or not (signature[1] == _digits(trace_id) if trace_id else _decodes(signature[1])):
        return None
    return signature.string[: signature.start()]


def _digits(trace_id: str) -> str:
    """Return the digits of the signature of a trace: those of the UTF-16 code units of its id."""
    raw = trace_id.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[start : start + 2]) for start in range(0, len(raw), 2))
    return "".join(f"{unit:08b}" for unit in units).translate({ord("0"): _ZERO, ord("1"): _ONE})


def _decodes(digits: str) -> bool:
    """
    Tell whether digits are those of whole code units: eight each, or up to sixteen where the first is a one.

    A rest that eights leave has to be taken by a unit that begins with a one, which is the first that can be longer.
    """
    return len(digits) % 8 == 0 or _ONE in digits[: len(digits) // 8 * 8 - 7 : 8]


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
