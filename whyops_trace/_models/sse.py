"""The body of a stream of server-sent events: the JSON and the end of each event."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import msgspec

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read_sse(body: bytes) -> list[tuple[int, Any]]:
    """
    Return the JSON of each event of a body, with the offset of the first byte after that event.

    An event ends with a blank line, so an incomplete last event is left out. Data that is not JSON is left out too,
    such as the ``[DONE]`` at the end of OpenAI's streams. The format is at
    https://html.spec.whatwg.org/multipage/server-sent-events.html.
    """
    events: list[tuple[int, Any]] = []
    data: list[bytes] = []
    start = len(BYTE_ORDER_MARK) if body.startswith(BYTE_ORDER_MARK) else 0
    for end in _LINE_END.finditer(body, start):
        line = body[start : end.start()]
        start = end.end()
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
        elif data:
            # Data that is not JSON, not UTF-8, or nested deeper than the stack is left out.
            with suppress(msgspec.DecodeError, ValueError, RecursionError):
                events.append((start, msgspec.json.decode(b"\n".join(data))))
            data = []
    return events
