"""Requests as a server of the tests gets them, and its answers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader
from typing import Any, NoReturn, Self
from urllib.parse import parse_qsl, unquote, urlsplit

Row = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """This answer and nothing else: what the request carried is forgotten."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def encoded(self) -> tuple[bytes, bytes]:
        """Return the head and the body as they go over the wire."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        body = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        phrase = http.client.responses.get(self.status, "Unknown")
        members = {"Content-Type": self.content_type, "Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {text}" for name, text in members.items())]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1"), body


class Request:
    """
    A request as it came in.

    The body is read from the connection when it is first asked for, so a script that looks only at the head
    decides before the client has sent everything.
    """

    def __init__(self, reader: BufferedReader, method: str, target: str) -> None:
        self.method = method
        parts = urlsplit(target)
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query))
        self.headers = http.client.parse_headers(reader)
        self._reader = reader

    @classmethod
    def read(cls, reader: BufferedReader) -> Self | None:
        """Read the head of the next request; None at the end, and for what is not HTTP (a TLS handshake)."""
        line = re.fullmatch(r"([A-Z]+) (\S+) HTTP/1\.[01]\r\n", reader.readline().decode("latin-1"))
        return cls(reader, line[1], line[2]) if line else None

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"

    @property
    def lasting(self) -> bool:
        """Whether the client keeps the connection for another request."""
        return str(self.headers.get("connection", "")).lower() != "close"

    @cached_property
    def body(self) -> bytes:
        """The raw body, without its framing."""
        return b"".join(self._chunks()) if self._chunked else self._read(self._length)

    @property
    def json(self) -> Any:
        """The body as the server's JSON parser reads it; ``ValueError`` where that is not possible."""
        return json.loads(self.body.decode(errors="replace"), parse_constant=_refuse, parse_int=_number)

    def read_half(self) -> None:
        """Read half of the body, of a chunked one half of its first chunk, and let that stand for all of it."""
        if "body" not in self.__dict__:
            size = int(self._reader.readline(), 16) if self._chunked else self._length
            self.__dict__["body"] = self._read(size // 2)

    @property
    def _chunked(self) -> bool:
        return str(self.headers.get("transfer-encoding", "")).lower() == "chunked"

    @property
    def _length(self) -> int:
        return int(self.headers.get("content-length", 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._reader.readline(), 16):
            yield self._read(size)
            self._reader.readline()
        self._reader.readline()

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError("The client went away in the middle of its request.")
        return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON.")


def _number(digits: str) -> float:
    """Return an integer as JavaScript holds it: beyond 2^53 it is another one."""
    if len(digits) < 16:
        return int(digits)
    number = float(digits)
    return int(number) if number.is_integer() else number
