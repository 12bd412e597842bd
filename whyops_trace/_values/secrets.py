"""
Secrets that are recognised by their form, removed from encoded JSON.

Every traced call pays for this, so it reads the bytes, not decoded texts, and tries the regular expressions only at
the start of each long word. Long words are found at the speed of C: every byte that a token may hold is mapped to one
and the same byte, and a row of that byte is searched for.

The forms are those that vendors document, and those of the rules of gitleaks (config/gitleaks.toml). Lengths are
minimums, because vendors make their tokens longer, as GitHub announced:
https://github.blog/changelog/2021-03-31-authentication-token-format-updates-are-generally-available/

Guarantees: JSON stays JSON, and only texts and keys that hold a secret differ. The time is linear in the size, for
any content.
"""

from __future__ import annotations

import base64
import re
import string
from typing import Final

from whyops_trace._values.reflection import REDACTED

# A single byte is searched for as a number: CPython takes five times as long for a bytes object of length one.
_AT: Final = ord("@")
_BACKSLASH: Final = ord("\\")
_U: Final = ord("u")
#: Replacement for a secret.
_MARK: Final = REDACTED.encode()

_WORD: Final = (string.ascii_letters + string.digits + "_-+/").encode()
#: Table that maps the bytes of tokens and base64 to "x", all others to a space.
_MASK: Final = bytes(120 if byte in _WORD else 32 for byte in range(256))
#: Mask of the shortest token. Few words of other kinds are as long.
_LONG: Final = b"x" * 16
#: Length from which on a word is not searched: no path or URL has such a long word, but images in base64 do.
_BLOB: Final = 4096

_FORMS: Final = (
    # OpenAI's sk-, sk-proj- and sk-svcacct-, Anthropic's sk-ant-, OpenRouter's sk-or-, Langfuse's sk-lf- and others.
    # The digit tells them from names such as sk-folding-cube-animation.
    rb"sk-(?=[\w-]*\d)[\w-]{17,}+",
    # Groq, xAI, Perplexity, Tavily, LangSmith, Replicate
    rb"(?:gsk_|xai-|pplx-|tvly-|lsv2_|r8_)(?=[\w-]*\d)[\w-]{20,}+",
    # WhyOps
    rb"(?:whyops_|YOPS-)(?=[\w-]*\d)[\w-]{13,}+",
    # Hugging Face: gitleaks gives hf_ and 34 letters
    rb"hf_[A-Za-z0-9]{30,}+",
    # AWS access key ids: "IAM identifiers" in the IAM user guide, and gitleaks
    rb"A[KS]IA[A-Z0-9]{16}(?![\w-])",
    # GitHub: "GitHub's token formats" in its documentation. Those of installations may hold a JWT.
    rb"gh[oprsu]_\w{30,}+(?:\.[\w-]++)*+",
    rb"github_pat_\w{30,}+",
    # GitLab: "Token prefixes" in its documentation; routable ones end in a checksum behind dots
    rb"gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rt|soat)-[\w-]{15,}+(?:\.[\w-]++)*+",
    # Slack: "Token types" in its documentation
    rb"(?:xox[abceoprs]|xapp)-(?=[\w-]*\d)[\w-]{15,}+",
    # Google: API keys, OAuth client secrets and access tokens
    rb"AIza[\w-]{30,}+",
    rb"GOCSPX-[\w-]{20,}+",
    rb"(?<=ya29\.)[\w-]{20,}+",
    # Stripe: secret and restricted keys, and the secrets that sign its webhooks
    rb"(?:[rs]k_(?:live|prod|test)|whsec)_[A-Za-z0-9]{10,}+",
    # npm, PyPI, SendGrid
    rb"npm_[A-Za-z0-9]{30,}+",
    rb"pypi-[\w-]{30,}+",
    rb"(?<=SG\.)[\w-]{20,}+\.[\w-]++",
    # JSON Web Tokens, signed (RFC 7515) and encrypted (RFC 7516)
    rb"eyJ[\w-]{17,}+\.(?:eyJ[\w-]++(?:\.[\w-]*+)?|[\w-]*+(?:\.[\w-]++){3})",
    # "Authorization: Bearer" (RFC 6750); the digit tells a token from a word
    rb"(?<=[Bb]earer )(?=[\w-]*\d)[\w-]++(?:[.~+/=]++[\w-]*+)*+",
    # "Authorization: Basic" (RFC 7617)
    rb"(?P<credentials>(?<=[Bb]asic )[A-Za-z0-9+/]++={0,2})",
)
_TOKEN: Final = re.compile(b"|".join(_FORMS))
#: First two bytes of the forms, and the two bytes before those forms that can begin with anything.
_BEGINNINGS: Final = frozenset(b"sk gs xa pp tv ls r8 wh YO hf AK AS gh gi gl xo AI GO rk np py ey".split())
_LEADS: Final = frozenset([b"9.", b"G.", b"c ", b"r "])

#: The password in ``scheme://user:password@host``. It may hold an ``@``, as its authors forget to encode it.
_PASSWORD: Final = re.compile(rb'(://[^\s:/?#@"\\]*+:)[^\s/?#"\\]+(?=@)')
#: A private key in PEM (RFC 7468) or OpenPGP's armour, whole or cut off, its lines ended by escape sequences.
_KEY_NAME: Final = rb"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN " + _KEY_NAME + rb'(?:(?:[^"-]|-(?!----))*+-----END ' + _KEY_NAME
    # Each backslash is matched with the letter it escapes, or half of an escape would be left.
    + rb"|(?:[\w+/=]|\\++[nr])++)"
)  # fmt: skip


def redacted(text: bytes) -> bytes:
    """
    Return JSON without the secrets that are recognised by their form.

    Args:
        text: JSON, or a part of it that begins and ends outside of texts.
    """
    if len(text) > len(_LONG):
        mask = text.translate(_MASK)
        if mask.rfind(_LONG) >= 0:  # from the right, which takes CPython about half the time
            text = _without_tokens(text, mask)
            if b"PRIVATE KEY" in text:
                text = _PRIVATE_KEY.sub(_MARK, text)
    if _AT in text and b"://" in text:
        text = _PASSWORD.sub(rb"\1" + _MARK, text)
    return text


def _without_tokens(text: bytes, mask: bytes) -> bytes:
    """Return a text without tokens."""
    pieces: list[bytes] = []
    start, copied = mask.find(_LONG), 0
    while start >= 0:
        end = mask.find(b" ", start)
        match = _token_in(text, start, end)
        if match is not None:
            pieces += (text[copied : match.start()], _MARK)
            copied = end = match.end()
        start = mask.find(_LONG, end) if end >= 0 else -1
    if not pieces:
        return text
    pieces.append(text[copied:])
    return b"".join(pieces)


def _token_in(text: bytes, start: int, end: int) -> re.Match[bytes] | None:
    """Return the first token in the word from *start* to *end*: at its beginning, or after an escape or a slash."""
    if text[start - 1] == _BACKSLASH:
        # After "\u001b" or "\n". Two backslashes are one of the text, or an escape of JSON inside the text.
        behind = start + (5 if text[start] == _U else 1)
        if text[behind : behind + 2] in _BEGINNINGS:
            match = _TOKEN.match(text, behind)
            if match is not None:
                return match
        if _is_escaped(text, start):
            start = behind
    while True:
        if text[start : start + 2] in _BEGINNINGS or text[start - 2 : start] in _LEADS:
            match = _TOKEN.match(text, start)
            if match is not None and (match.lastgroup is None or _are_credentials(match[0])):
                return match
        if end - start > _BLOB:
            return None
        start = text.find(b"/", start, end) + 1
        if not start:
            return None


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
