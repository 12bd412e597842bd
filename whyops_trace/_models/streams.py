"""The body of a stream, in either form: its recognition, and the JSON and the end of each event."""

from __future__ import annotations

from typing import Any, Final

from whyops_trace._models.frames import read_frames
from whyops_trace._models.sse import BYTE_ORDER_MARK, read_sse

#: First characters of a line of a stream: those of the names of fields, and of a comment.
_LINE_STARTS: Final = b"deir:"
#: First byte of a frame: its size is below 16 MB. No text has it.
_FRAME_START: Final = b"\0"


def is_stream(start: bytes, *, asked: bool) -> bool | None:
    """
    Return True if a body is a stream of events, None if its first bytes do not tell yet.

    Some servers send streams under any media type, and some answer in one piece although a stream was requested.

    Args:
        start: The first bytes of the body.
        asked: True if the request asked for a stream. It decides if the bytes are neither of a stream nor of JSON.
    """
    if start.startswith(_FRAME_START):
        return True
    text = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not text:
        return None
    return text[0] not in b"{[" and (asked or text[0] in _LINE_STARTS)


def read_events(body: bytes) -> list[tuple[int, Any]]:
    """Return the JSON of each event of a body, with the offset of the first byte after that event."""
    return read_frames(body) if body.startswith(_FRAME_START) else read_sse(body)
