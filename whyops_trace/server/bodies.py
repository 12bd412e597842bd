"""The bodies of requests, read up to a limit, regardless of their headers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

#: Largest number of bytes of a body, unpacked.
MAX_BODY: Final = 64 << 20
#: Bytes unpacked at a time, so that a small body that unpacks to a huge one is refused early.
_PIECE: Final = 1 << 20
#: Pattern of the content type of JSON.
_JSON: Final = re.compile(r"application/([a-z0-9.-]+\+)?json\s*(;.*)?", re.IGNORECASE)


class BodyError(Exception):
    """
    A body that is refused.

    Attributes:
        status: The HTTP status of the refusal.

    Args:
        status: The HTTP status.
        message: The problem and its remedy.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request, limit: int = MAX_BODY, content_type: re.Pattern[str] = _JSON) -> bytes:
    """
    Return the body of a request, unpacked if it is compressed with gzip.

    Args:
        request: The request.
        limit: Largest number of bytes.
        content_type: Pattern of the content types that are understood.

    Raises:
        BodyError: if it is too long, compressed in another way, or does not match its headers.
    """
    if not content_type.fullmatch(request.headers.get("content-type", "")):
        understood = "JSON" if content_type is _JSON else "JSON or protobuf"
        raise BodyError(
            415, f"The body must be {understood}, sent with the header Content-Type: application/json."
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise BodyError(
            415, f"Content-Encoding {encoding[:40]} is not understood: send gzip, or the body as it is."
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_long(limit)
    pieces: list[bytes] = []
    size = 0
    unpack = _Unpacker() if encoding == "gzip" else _unchanged
    try:
        async for chunk in request.stream():
            for piece in unpack(chunk):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise _too_long(limit)
    except zlib.error as error:
        raise BodyError(
            400, f"The body is not gzip, though its Content-Encoding says so ({error})."
        ) from error
    except ClientDisconnect as error:
        raise BodyError(400, "The body ended early.") from error
    if isinstance(unpack, _Unpacker) and not unpack.complete:
        raise BodyError(400, "The body is not one complete gzip stream, though its Content-Encoding says so.")
    return b"".join(pieces)


class _Unpacker:
    """The unpacking of a gzip stream, piece by piece."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def __call__(self, packed: bytes) -> Iterator[bytes]:
        """Yield the unpacked pieces of a chunk."""
        while packed:
            yield self._zlib.decompress(packed, _PIECE)
            packed = self._zlib.unconsumed_tail

    @property
    def complete(self) -> bool:
        """True if the stream has ended, and nothing came after it."""
        return self._zlib.eof and not self._zlib.unused_data


def _unchanged(chunk: bytes) -> Iterator[bytes]:
    yield chunk


def _too_long(limit: int) -> BodyError:
    return BodyError(
        413,
        f"The body is longer than {limit >> 20} MiB: send fewer events at a time, or shorten their contents.",
    )
