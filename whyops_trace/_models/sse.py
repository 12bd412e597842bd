"""The body of a stream of server-sent events: its JSON, event by event, and where each event ended."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import msgspec

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read_sse(body: bytes) -> list[tuple[int, Any]]:
    """
    Return the JSON of each event of a body, with the offset of the first byte after that event.

    An event ends with a blank line, so what stands after the last one has not come whole and is left out; so is data
    that is no JSON, as the ``[DONE]`` at the end of OpenAI's streams. See
    https://html.spec.whatwg.org/multipage/server-sent-events.html for the format.
    """
    events: list[tuple[int, Any]] = []
    data: list[bytes] = []
    start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    for end in _LINE_END.finditer(body, start):
        line = body[start : end.start()]
        start = end.end()
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
        elif data:
            # Left out is what is no JSON, no UTF-8, or nested deeper than the stack.
            with suppress(msgspec.DecodeError, ValueError, RecursionError):
                events.append((start, msgspec.json.decode(b"\n".join(data))))
            data = []
    return events
