"""
The body of a stream in frames, in which Amazon Bedrock sends events: the JSON and the end of each event.

A frame has its size and that of its headers, a sum of both, the headers, a content and a sum of all. The format is at
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html.
"""

from __future__ import annotations

import base64
import struct
from contextlib import suppress
from typing import Any, Final

import msgspec

from whyops_trace._shapes import dict_of, text_of

#: Sizes of a frame and of its headers; bytes before the headers, and behind the content.
_SIZES: Final = struct.Struct(">II")
_BEFORE, _BEHIND = 12, 4
#: The type of a header whose value is a text.
_TEXT: Final = 7


def read_frames(body: bytes) -> list[tuple[int, Any]]:
    """
    Return the JSON of each event of a body, with the offset of the first byte after that event.

    An incomplete last frame is left out, and so is one whose content is no event. A failure that the service tells in a
    frame is an event as Anthropic has it.
    """
    events: list[tuple[int, Any]] = []
    start = 0
    while start + _BEFORE + _BEHIND <= len(body):
        size, head = _SIZES.unpack_from(body, start)
        end = start + size
        if not head <= size - _BEFORE - _BEHIND or end > len(body):
            break
        content = start + _BEFORE + head
        with suppress(msgspec.DecodeError, ValueError, RecursionError):
            headers = _headers(body[start + _BEFORE : content])
            events.append((end, _event(headers, body[content : end - _BEHIND])))
        start = end
    return events


def _event(headers: dict[str, str], content: bytes) -> Any:
    told = dict_of(msgspec.json.decode(content or b"{}"))
    failure = headers.get(":exception-type") or headers.get(":error-code")
    if failure:
        message = text_of(told.get("message")) or headers.get(":error-message", "")
        return {"type": "error", "error": {"type": failure, "message": message}}
    return msgspec.json.decode(base64.b64decode(text_of(told.get("bytes"))))


def _headers(raw: bytes) -> dict[str, str]:
    """Return the headers up to the first one that is no text."""
    headers: dict[str, str] = {}
    parts = memoryview(raw)
    while len(parts) > 1 and len(parts) > (length := parts[0]) + 3 and parts[length + 1] == _TEXT:
        size = int.from_bytes(parts[length + 2 : length + 4], "big")
        value = parts[length + 4 : length + 4 + size]
        headers[bytes(parts[1 : length + 1]).decode()] = bytes(value).decode()
        parts = parts[length + 4 + size :]
    return headers
