"""
Pictures and files in messages and results, in the forms of OpenAI, Anthropic, Google, LangChain and MCP.

A picture is shown only if its own bytes are those of a PNG, JPEG, GIF or WebP of a bounded size, whatever it is called.
Anything else, an SVG as well, is a file that a browser saves and never opens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from whyops_trace._shapes import dict_of, text_of
from whyops_trace._values.attachments import content_of

#: Largest number of bytes and of pixels of a picture that is shown.
MAX_BYTES: Final = 16 << 20
MAX_PIXELS: Final = 40_000_000
#: Fewest characters of a text in base64 that is an attachment, where its name alone says so.
_FEWEST: Final = 24
#: Largest number of levels of a value that are looked through.
_DEEPEST: Final = 30
#: Largest number of characters of a text that is read as JSON.
_MAX_JSON: Final = 32 << 20

#: Members that hold base64 of an attachment, its media type, its name, and its address.
_CONTENTS: Final = frozenset(
    {"data", "base64", "b64_json", "file_data", "bytes", "image", "content", "result"}
)
_TYPES: Final = ("media_type", "mime_type", "mimeType", "mediaType")
_NAMES: Final = ("filename", "file_name", "display_name", "displayName", "title", "name")
_ADDRESSES: Final = ("url", "image_url", "file_url", "file_uri", "fileUri", "uri", "file_id")
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[^;,]{0,200}){0,9};base64,", re.ASCII)
_BASE64: Final = re.compile(r"[\w+/=\r\n-]+", re.ASCII)
#: The markers of JPEG before the size of the picture.
_SIZES_IN_JPEG: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Attachment(NamedTuple):
    """
    A picture or file, or the note that it was not recorded.

    Attributes:
        about: What it is, in words.
        name: Name of the file, "" if it has none.
        digest: SHA-256 of its bytes in hexadecimal; "" if they were not recorded or are elsewhere.
        encoded: Its bytes in base64.
        media_type: The type as which it is sent to a browser.
        width: Width in pixels, 0 if it is not shown as a picture.
        height: Height in pixels.
    """

    about: str
    name: str = ""
    digest: str = ""
    encoded: str = ""
    media_type: str = "application/octet-stream"
    width: int = 0
    height: int = 0

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return content_of(self.encoded) or b""

    @property
    def data_url(self) -> str:
        """An address that holds it."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


class Shown(NamedTuple):
    """A value without what is shown apart: its attachments, each with a note in its place."""

    value: Any
    attachments: list[Attachment]


def shown(value: Any) -> Shown:
    """Return a value without its attachments, and these."""
    found: list[Attachment] = []
    parsed = _parsed(value) if isinstance(value, str) else value
    rest = _without(parsed, found, {}, "", 0)
    return Shown(rest if found else value, found)


def attached(blocks: Any) -> list[Attachment]:
    """Return the attachments in the blocks of a message, also those that are only named there."""
    return [one for block in blocks for one in (shown(block).attachments or _elsewhere(block))]


def _without(value: Any, found: list[Attachment], about: dict[str, Any], key: str, depth: int) -> Any:
    """Return a value without its attachments. *about* is the dict around it, in which it has the name *key*."""
    if depth > _DEEPEST:
        return value
    if isinstance(value, str):
        one = _read(value, about, key)
        if one is None:
            return value
        found.append(one)
        return f"({one.about})"
    if isinstance(value, list):
        return [_without(item, found, {}, "", depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() - {"mediaType"} == {"bytes", "sha256"} and type(value["bytes"]) is int:
        found.append(_absent(value, about))
        return f"({found[-1].about})"
    inner = {**{name: about[name] for name in (*_NAMES, *_TYPES) if name in about}, **value}
    return {name: _without(item, found, inner, name, depth + 1) for name, item in value.items()}


def _read(text: str, about: dict[str, Any], key: str) -> Attachment | None:
    """Return the attachment that a text holds, None for any other text."""
    url = _DATA_URL.match(text)
    if url is None and (key not in _CONTENTS or len(text) < _FEWEST or not _BASE64.fullmatch(text)):
        return None
    encoded = text[url.end() :] if url else text
    content = content_of(encoded)
    if not content:
        return None
    said = (url[1] if url else None) or _first(about, _TYPES)
    name = _first(about, _NAMES)
    kind, width, height = _picture(content)
    if url is None and not (kind or said):
        return None  # a word, or base64 of who knows what
    digest = hashlib.sha256(content).hexdigest()
    if kind and 0 < width * height <= MAX_PIXELS and len(content) <= MAX_BYTES:
        words = f"{kind}, {width} × {height}, {_size(len(content))}"  # noqa: RUF001
        return Attachment(words, name, digest, encoded, f"image/{kind.lower()}", width, height)
    return Attachment(f"{said or 'file'}, {_size(len(content))}", name, digest, encoded)


def _absent(value: dict[str, Any], about: dict[str, Any]) -> Attachment:
    kind = text_of(value.get("mediaType")) or _first(about, _TYPES) or "attachment"
    digest = text_of(value["sha256"])[:12]
    size = _size(value["bytes"])
    return Attachment(f"{kind}, {size}, not recorded: SHA-256 {digest}…", _first(about, _NAMES))


def _elsewhere(block: Any) -> Iterator[Attachment]:
    """Yield the note on a picture or file that a block only names."""
    nouns = {"image": "picture", "image_url": "picture", "input_image": "picture"}
    for holder in (block, *dict_of(block).values()):
        for name in _ADDRESSES:
            address = dict_of(holder).get(name)
            if isinstance(address, str) and address:
                noun = nouns.get(text_of(dict_of(block).get("type")), "file")
                yield Attachment(f"{noun} at {address[:500]}, not loaded", _first(dict_of(holder), _NAMES))
                return


def _first(about: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((text_of(about[name])[:200] for name in names if about.get(name)), "")


def _parsed(text: str) -> Any:
    """Return the value of a text that is JSON and may hold an attachment, any other text as it is."""
    if text[:1] not in ("{", "[") or len(text) > _MAX_JSON or not re.search(r'base64|"data"|sha256', text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _size(count: int) -> str:
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e3:,.0f} KB" if count < 999_500 else f"{count / 1e6:,.1f} MB"


def _picture(content: bytes) -> tuple[str, int, int]:
    """Return the form, width and height of a picture; ("", 0, 0) for anything else."""
    for kind, begins, measure in _PICTURES:
        if begins.match(content):
            return kind, *measure(content)
    return "", 0, 0


def _big(content: bytes, *places: int) -> tuple[int, int]:
    """Return two numbers between three places, the highest byte first."""
    first, middle, last = places
    return int.from_bytes(content[first:middle]), int.from_bytes(content[middle:last])


def _in_jpeg(content: bytes) -> tuple[int, int]:
    place = 2
    while content[place : place + 1] == b"\xff":
        length = int.from_bytes(content[place + 2 : place + 4])
        if content[place + 1] in _SIZES_IN_JPEG:
            height, width = _big(content, place + 5, place + 7, place + 9)
            return width, height
        place += 2 + max(length, 2)
    return 0, 0


def _in_webp(content: bytes) -> tuple[int, int]:
    kind, body = content[12:16], content[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
    return width & 0x3FFF, height & 0x3FFF


#: The forms of pictures, with the bytes that each begins with, and the function that returns width and height.
_PICTURES: Final[tuple[tuple[str, re.Pattern[bytes], Callable[[bytes], tuple[int, int]]], ...]] = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.DOTALL), lambda content: _big(content, 16, 20, 24)),
    ("JPEG", re.compile(rb"\xff\xd8\xff"), _in_jpeg),
    (
        "GIF",
        re.compile(rb"GIF8[79]a"),
        lambda content: (
            int.from_bytes(content[6:8], "little"),
            int.from_bytes(content[8:10], "little"),
        ),
    ),
    ("WebP", re.compile(rb"RIFF.{4}WEBPVP8", re.DOTALL), _in_webp),
)
