"""Streams of Amazon Bedrock, which sends the events of Anthropic in frames."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from forms import Messages
from replies import Reply, compact

CHUNK = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def frame(content: Any, headers: Mapping[str, str] = CHUNK) -> bytes:
    """Return a frame with that JSON as its content, None for no content."""
    body = b"" if content is None else json.dumps(content).encode()
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\7" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    sizes = struct.pack(">II", 16 + len(head) + len(body), len(head))
    framed = sizes + struct.pack(">I", zlib.crc32(sizes)) + head + body
    return framed + struct.pack(">I", zlib.crc32(framed))


def event(data: Any) -> bytes:
    """Return an event as a frame."""
    return frame({"bytes": base64.b64encode(compact(data).encode()).decode(), "p": "abcd"})


def stream(reply: Reply) -> bytes:
    """Return the body of a reply as a stream."""
    return b"".join(event(told.data) for told in Messages(reply, {"model": "claude-test"}, 1).frames())
