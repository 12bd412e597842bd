"""
Tokens, recognised by their form in encoded JSON.

Every traced call pays for this, so it runs at the speed of C. A text without a long word has no token: every byte that
a token may hold is mapped to one and the same byte, and a row of that byte is searched for. In other texts each form
is searched for by its *anchor*, a rare byte in its beginning: a regular expression that begins with one literal byte
runs from one to the next, and looks back from there.

The time is linear in the size, for any content: no part of an expression reads on without end before it may fail.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from whyops_trace._values.secrets import repeats
from whyops_trace._values.secrets.finds import Place, note, note_try
from whyops_trace._values.secrets.forms import FORMS, SHAPES

# A single byte is searched for as a number: CPython takes five times as long for a bytes object of length one.
_AT: Final = ord("@")
_BACKSLASH: Final = ord("\\")
_DASH: Final = ord("-")
_ALNUM: Final = frozenset((string.ascii_letters + string.digits).encode())
_WORD: Final = (string.ascii_letters + string.digits + "_-+/").encode()
#: Table that maps the bytes of tokens and base64 to "x", all others to a space.
MASK: Final = bytes(120 if byte in _WORD else 32 for byte in range(256))
#: The rest of a UUID behind its first dash, which is passed over as a whole.
_REST_OF_UUID: Final = rb"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![\w-])"
#: Mask of the shortest token. Few words of other kinds are as long.
LONG: Final = b"x" * 16
#: Mask of a word that is not searched: no path or URL has such a long word, but images in base64 do.
_BLOB: Final = b"x" * 4096
#: Bytes at the beginning of such a word that are searched.
_BLOB_START: Final = 512
#: Bytes from which one is the anchor of a form that ends in none of ``-``, ``_``, ``.`` and ``~``, the rarest first.
_RARE: Final = b"zJKVTGSBCEpb"
#: Branches of an expression that are tried one after the other.
_BRANCHES: Final = 4
#: Longest part of a beginning, up to the anchor, that is compared at first.
_TAIL: Final = 8

#: The password in ``scheme://user:password@host``. It may hold an ``@`` or a slash that its author forgot to encode.
_PASSWORD: Final = re.compile(
    rb'://(?:(?=[a-zA-Z_-]{0,40}\d)([\w-]{20,100}+)(?=@)|[^\s:/?#@"\\]*+:(?:([^\s/?#"\\]+)(?=@)|((?!\d{1,5}[/?#])[^\s"\\@]{1,100})(?=@[\w.-])))'
)
#: A private key in PEM (RFC 7468) or OpenPGP's armour, whole or cut off, its lines ended by escape sequences.
_KEY_NAME: Final = rb"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN " + _KEY_NAME + rb'(?:(?:[^"-]|-(?!----))*+-----END ' + _KEY_NAME
    # Each backslash is matched with the letter it escapes, or half of an escape would be left.
    + rb"|(?:[\w+/=]|\\++[nr])++)"
)  # fmt: skip
#: The private part of a key of PuTTY.
_PRIVATE_LINES: Final = re.compile(rb"Private-Lines: \d++((?:\\++[rn]|[\w+/=])++)")
#: The end of a word that may stand before a token: an escape, one of a URL, a colour of a terminal.
_BEFORE: Final = re.compile(rb"(?:\\[nrtbf]|\\u00[0-9a-f]{2}|%[0-9A-Fa-f]{2}|[\[;]\d{1,3}m)$")


class _Kind(NamedTuple):
    """
    What is known of a match by the group that it ends in.

    Attributes:
        length: Number of bytes from the beginning of the token to the anchor, 0 if the group is the secret itself.
        readable: Number of bytes of the beginning that stay readable.
    """

    length: int
    readable: int


def _search() -> tuple[re.Pattern[bytes], list[_Kind]]:
    """Return the expression of all forms, each of which ends in a group of its own, and what the groups tell."""
    starts: dict[int, list[tuple[bytes, int, bytes]]] = {}
    for form in FORMS:
        for start in form.starts.encode().split():
            anchor = start[-1] if start[-1] not in _ALNUM else next(byte for byte in _RARE if byte in start)
            starts.setdefault(anchor, []).append((start, start.rindex(anchor) + 1, form.rest.encode()))
    anchored: list[bytes] = []
    kinds = [_Kind(0, 0)]
    for anchor in sorted({*starts, *(ord(shape.anchor) for shape in SHAPES)}):
        ways: list[bytes] = []
        if anchor in starts:
            tails = _tails([start[:length] for start, length, _ in starts[anchor]])
            ways.append(tails + b"(?:%b)" % _branches(starts[anchor], kinds))
        for shape in SHAPES:
            if ord(shape.anchor) == anchor:
                ways.append(shape.around.encode() + (b"()" if shape.length else b""))
                kinds.append(_Kind(shape.length, 0))
        literal = re.escape(bytes([anchor]))
        if anchor not in _ALNUM:
            ways.insert(0, literal + b"{3,}+")
        if anchor == _DASH:
            ways.insert(0, _REST_OF_UUID)
        anchored.append(b"%b(?:%b)" % (literal, b"|".join(ways)))
    return re.compile(b"|".join(anchored)), kinds


def _branches(starts: Sequence[tuple[bytes, int, bytes]], kinds: list[_Kind]) -> bytes:
    """
    Return the expression of some forms of one anchor, and add what their groups tell.

    Forms of one byte before the anchor are one branch, and a few branches another one, or most texts that look like the
    beginning of a token would be compared with all forms.

    Args:
        starts: Of each form its beginning, the number of bytes up to the anchor, and the expression of what follows.
        kinds: What is known of the groups.
    """
    by_byte: dict[bytes, list[tuple[bytes, int, bytes]]] = {}
    for each in starts:
        by_byte.setdefault(each[0][max(0, each[1] - 2) : each[1] - 1], []).append(each)
    branches: list[bytes] = []
    some = [*by_byte]
    for first in range(0, len(some), _BRANCHES):
        before = some[first : first + _BRANCHES]
        ways: list[bytes] = []
        for byte in before:
            group: list[bytes] = []
            for start, length, rest in by_byte[byte]:
                group.append(b"(?<=%b)%b%b()" % (re.escape(start[:length]), re.escape(start[length:]), rest))
                kinds.append(_Kind(length, length if start.endswith(b".") else 0))
            ways.append(_behind([byte], group))
        branches.append(_behind(before, ways))
    return b"|".join(branches)


def _behind(before: Sequence[bytes], ways: Sequence[bytes]) -> bytes:
    """Return the expression of some ways, of which one may match only behind one of some bytes and the anchor."""
    if len(ways) == 1 or not all(before):
        return b"|".join(ways)
    return rb"(?<=[%b][\s\S])(?:%b)" % (b"".join(map(re.escape, before)), b"|".join(ways))


def _tails(starts: list[bytes]) -> bytes:
    """Return the expression of what any of some beginnings ends with: first two classes, then the bytes themselves."""
    shortest = min(map(len, starts))
    classes = [
        b"[%b]" % b"".join(re.escape(bytes([byte])) for byte in {start[-place] for start in starts})
        for place in range(min(3, shortest), 0, -1)
    ]
    tails: dict[int, set[bytes]] = {}
    for start in starts:
        tails.setdefault(min(len(start), _TAIL), set()).add(re.escape(start[-_TAIL:]))
    exact = b"|".join(b"(?<=%b)" % b"|".join(sorted(tails[width])) for width in sorted(tails))
    return b"(?<=%b)(?:%b)" % (b"".join(classes), exact)


_SEARCH, _KINDS = _search()


def find_tokens(text: bytes, places: list[Place]) -> None:
    """Note where tokens, private keys and passwords in URLs are in encoded JSON."""
    mask = text.translate(MASK)
    if mask.rfind(LONG) >= 0:  # from the right, which takes CPython about half the time
        for start, end, blob_end in _parts(mask) if len(text) > len(_BLOB) else ((0, len(text), 0),):
            for match in _SEARCH.finditer(text, start, end):
                if match.lastindex is not None:  # else it is a row of anchors, or a UUID
                    _note(text, match, match.lastindex, blob_end, places)
        if b"PRIVATE KEY" in text:
            for match in _PRIVATE_KEY.finditer(text):
                note(places, text, *match.span())
        if b"Private-Lines" in text:
            for match in _PRIVATE_LINES.finditer(text):
                note(places, text, *match.span(1))
    if _AT in text and b"://" in text:
        for match in _PASSWORD.finditer(text):
            note(places, text, *match.span(match.lastindex or 0))
            repeats.note_found(b"password", match[match.lastindex or 0])


def _parts(mask: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of a text without the insides of blobs: start, end, and the end of the blob that it ends in."""
    start, blob = 0, mask.find(_BLOB)
    while blob >= 0:
        end = mask.find(b" ", blob)
        end = len(mask) if end < 0 else end
        yield start, blob + _BLOB_START, end
        start, blob = end, mask.find(_BLOB, end)
    yield start, len(mask), len(mask)


def _note(text: bytes, match: re.Match[bytes], group: int, blob_end: int, places: list[Place]) -> None:
    """Note a match, if it is a token."""
    kind = _KINDS[group]
    end = match.end() if match.end() < match.endpos else max(match.end(), blob_end)
    if not kind.length:
        if match[0][1:5].lower() != b"asic" or _are_credentials(match[group]):
            note(places, text, match.start(group), end)
            return
    else:
        start = match.start() + 1 - kind.length
        if _begins(text, start):
            note(places, text, start + kind.readable, end)
            return
    note_try(places, text, match.start())


def _begins(text: bytes, start: int) -> bool:
    """Return True if a word may begin at a place: at the beginning of another one, or after an escape."""
    before = text[start - 1]
    if before == _BACKSLASH:
        return not _is_escaped(text, start)
    return before not in _ALNUM or _BEFORE.search(text, max(0, start - 6), start) is not None


def _is_escaped(text: bytes, at: int) -> bool:
    """Return True if the byte at *at* belongs to an escape sequence: an odd number of backslashes precedes it."""
    first = at
    while text[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1


def _are_credentials(word: bytes) -> bool:
    """Return True if a word is ``user:password`` in base64."""
    word = word.rstrip(b"=")
    try:
        return ":" in base64.b64decode(word + b"=" * (-len(word) % 4)).decode()
    except ValueError:
        return False
