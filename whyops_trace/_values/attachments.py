"""Images, documents and sounds in base64, which a conversation repeats in every request."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Any, Final

#: Number of characters up to which an attachment is recorded as it is.
MAX_INLINE: Final = 4096
#: Fewest characters of a line in base64 that is broken into lines.
_LINE: Final = 60

#: Number of attachments that are remembered, as a conversation repeats them in every request.
_MAX_LATEST: Final = 256
#: Names of members that hold an attachment without a data URL, in requests and answers of OpenAI, Anthropic and Google.
_NAMES: Final = frozenset({"b64_json", "bytes", "data", "file_data", "image", "partial_image_b64", "result"})
#: The start of a data URL in base64 (RFC 2397), with its media type.
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[^;,]*)*;base64,", re.ASCII)
#: Beginning of a text in base64 without a data URL: digits and letters of both cases, which no DNA, hexadecimal text
#: or word has all of.
_BASE64: Final = re.compile(rf"(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])[\w+/-]{{{_LINE}}}", re.ASCII)


def digest(name: str, text: str) -> dict[str, Any] | None:
    """
    Return size and hash of an attachment that is too long to be recorded: a data URL, or the base64 of one.

    Args:
        name: The name of the member that holds it. Base64 alone is an attachment only where one is expected: it may as
            well be what somebody wrote.
        text: The text.

    Returns:
        ``{"mediaType", "bytes", "sha256"}``, without the first if the text does not tell it; None for any other text,
        and for one of at most :data:`MAX_INLINE` characters.
    """
    if len(text) <= MAX_INLINE:
        return None
    url = _DATA_URL.match(text, 0, MAX_INLINE)
    if url is None and (name not in _NAMES or _BASE64.match(text, 0, MAX_INLINE) is None):
        return None
    start, kind = (url.end(), url[1]) if url else (0, None)
    # A text keeps its hash once it was asked for, so the attachment of an earlier request costs next to nothing.
    key = start, kind, len(text), hash(text)
    try:
        about = _latest[key]
    except KeyError:
        content = content_of(text[start:])
        about = None if content is None else described(content)
        if len(_latest) >= _MAX_LATEST:
            _latest.clear()
        _latest[key] = about
    if about is None:
        return None
    return {"mediaType": kind, **about} if kind else {**about}


#: The latest attachments, by what comes before their base64, their length and their hash.
_latest: Final[dict[tuple[Any, ...], dict[str, Any] | None]] = {}


def described(content: bytes) -> dict[str, Any]:
    """Return ``{"bytes", "sha256"}`` of an attachment."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def content_of(encoded: str) -> bytes | None:
    """Return the bytes of a text in base64, in either alphabet and with line breaks; None if it is no such text."""
    for written, meant in (("\n", ""), ("\r", ""), ("-", "+"), ("_", "/")):
        encoded = encoded.replace(written, meant)
    try:
        return binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:
        return None
