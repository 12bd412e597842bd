"""The words behind the name of a secret in a text: those that may be one, and code, placeholders and prose."""

from __future__ import annotations

import re
from typing import Final

#: Characters of a value at least: given to a program as such, in quotes, of a password, of a token.
_GIVEN, _QUOTED, _PASSWORD, _TOKEN = 4, 4, 6, 8

#: Characters of a value that are looked at.
_READ: Final = 256

#: Words in the place of a secret, which tell what is expected there.
_STATE: Final = (
    rb"none|null|nil|true|false|undefined|required|optional|missing|invalid|expired|empty|unset|unknown|disabled|enabled"
    rb"|str|string|bytes|int|integer|number|any|object|text|value|bool|boolean|array|secret(?:str)?|password|token"
    rb"|sha-?\d+|md5|base64|utf-?8|oauth2?|[hrep]s\d{3}|bcrypt|argon2\w*|scrypt|pbkdf2\w*|bearer|basic|digest|v?\d+(?:\.\d+)+"
    rb"|\d{4}-\d\d-\d\d.*|https?:.*|file:.*|arn:.*|[\w-]+\.(?:py|js|ts|json|ya?ml|txt|env|pem|key|toml|cfg|ini|md)"
)
#: Words in the place of a secret, or that tell what is expected there.
_PLACEHOLDER: Final = re.compile(
    rb"[*x.\-_#?\xe2\x80\xa2]+"
    rb"|[<$%@].*|.*[{}].*|\[.*|\(.*|.*\.\.\.|[,;=!)\]].*"
    rb"|(?:.*[-_ ])?(?:your|my|the|example|placeholder|changeme|change[-_]me|redacted|filtered|hidden|masked)"
    rb"(?:[-_ ].*)?"
    rb"|~?/.*|\.{1,2}/.*|" + _STATE,
    re.IGNORECASE | re.DOTALL,
)
#: A value that is certainly no secret, whatever the name above it says.
_NO_SECRET: Final = re.compile(
    rb"[*x.\-_#?\xe2\x80\xa2]+|<[^<>]*>|\$?\{.*\}|\[[^\[\]]*\]|(?:.*[-_ ])?(?:your|changeme|change[-_]me)(?:[-_ ].*)?"
    rb"|(?:[~.]{0,2}/)?[\w-]+(?:/[\w.-]+)*\.(?:pem|key|env|json)|" + _STATE,
    re.IGNORECASE | re.DOTALL,
)
#: Words as they may be anywhere in a text.
_COMMON: Final = re.compile(rb"(?:[ _.-]?[A-Za-z][a-z]++){1,3}|(?:[ _.-]?[A-Z]++){1,3}")
_IDENTIFIER: Final = re.compile(rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_CALL: Final = re.compile(rb"[A-Za-z_][\w.]*\(")
_LETTER, _DIGIT = re.compile(rb"[A-Za-z]"), re.compile(rb"\d")
_SYMBOL: Final = re.compile(rb"[!@#$%^*+?~]")
#: A name of joined words is no random text.
_WORDS: Final = re.compile(rb"[A-Za-z]+(?:[_-][A-Za-z]+)*\d{0,2}")
_RANDOM: Final = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])(?=\D*\d\D*\d)[A-Za-z0-9]{20,}|(?=\D*\d)[0-9a-f]{32,}")
#: Words, each with a short number at most: a name, a version.
_NUMBERED: Final = re.compile(rb"[A-Za-z]+\d{0,2}(?:[_.-][A-Za-z]*\d{0,4})*")
#: Letters and digits in turn, of which no variable's name is made.
_MADE: Final = re.compile(rb"[A-Za-z]*(?:\d+[A-Za-z]+){2,}\d*")
OF_PEOPLE: Final = re.compile(rb"pass|pwd|wort|contrase|phrase", re.IGNORECASE)
_OF_DIGITS: Final = re.compile(rb"cvv|cvc|otp|ssn|number|social|code|card", re.IGNORECASE)
#: The value of an authorization: what follows its scheme, up to a blank or, of schemes with parameters, of the line.
_AUTHORIZATION: Final = re.compile(
    rb"[ \t]*+(?:(?:bearer|basic|token|negotiate|ntlm|api-?key|key|splunk|[\w-]*genie[\w-]*)[ =]++([^\s\"'\\,;<>`]++)"
    rb"|(?:digest|aws4-hmac-sha256|oauth|hawk)[ ]++((?:[^\"\\'`<>]|\\++\"(?=[^\"\\]))++)"
    rb"|([^\s\"'\\,;<>`]++))",
    re.IGNORECASE,
)
#: The value of a cookie, one or more.
_COOKIE: Final = re.compile(
    rb"[ \t]*+([\w.!#$%&*+^|~-]++=[^\s;,\"'\\]{3,}+(?:; ?[\w.!#$%&*+^|~-]++(?:=[^\s;,\"'\\]*+)?)*+)"
)


def is_plausible(
    name: bytes, value: bytes, *, is_quoted: bool = False, is_given: bool = False, is_code: bool = False
) -> bool:
    """
    Return True if a value may be a secret.

    Args:
        name: The name of a secret that stands before it.
        value: The value.
        is_quoted: True if it stands in quotes.
        is_given: True if it is certainly a value: of a variable of the environment, a query or a flag.
        is_code: True if it may be an expression of a program.
    """
    value = value[:_READ]
    if _PLACEHOLDER.fullmatch(value) or _CALL.match(value):
        return False
    has_letter, has_digit = _LETTER.search(value), _DIGIT.search(value)
    if _OF_DIGITS.search(name):
        return has_digit is not None and len(value) >= len("123")
    if is_given:
        return len(value) >= _GIVEN
    if b" " in value:
        return is_quoted and b"phrase" in name.lower()
    if (
        is_code
        and _IDENTIFIER.fullmatch(value)
        and not _RANDOM.fullmatch(value)
        and not _MADE.fullmatch(value)
    ):
        return False
    is_mixed = has_letter is not None and has_digit is not None
    if OF_PEOPLE.search(name):
        if is_quoted:
            return len(value) >= _QUOTED
        return len(value) >= _PASSWORD and (
            is_mixed or (has_letter is not None and _SYMBOL.search(value) is not None)
        )
    if is_quoted:
        return (is_mixed and len(value) >= _PASSWORD) or (
            len(value) >= 2 * _TOKEN and not _WORDS.fullmatch(value)
        )
    return is_mixed and len(value) >= _TOKEN and not (b"." in value and _IDENTIFIER.fullmatch(value))


def is_placeholder(value: bytes) -> bool:
    """Return True if a word stands for a secret, or tells what is expected in its place."""
    return _PLACEHOLDER.fullmatch(value[:_READ]) is not None


def is_strong(value: bytes) -> bool:
    """Return True if a value is no word, name, number or version: it may be a secret wherever it stands."""
    has_both = _LETTER.search(value) is not None and _DIGIT.search(value) is not None
    return has_both and len(value) >= _TOKEN and not _NUMBERED.fullmatch(value)


def is_distinct(name: str, text: str) -> bool:
    """Return True if a text, under the name of a secret or an empty one, is that secret wherever else it is."""
    value = text.encode("utf-8", "replace")
    if _NO_SECRET.fullmatch(value[:_READ]):
        return False
    is_sure = not name or OF_PEOPLE.search(name.encode("utf-8", "replace")) is not None
    return is_sure or not _COMMON.fullmatch(value)


def span_in_header(name: bytes, text: bytes, at: int) -> tuple[int, int] | None:
    """Return the place of the secret in the value of a header, a cookie's or an authorization's, at a place."""
    if b"cookie" in name.lower():
        cookie = _COOKIE.match(text, at)
        if cookie is None or _PLACEHOLDER.fullmatch(cookie[1][:_READ].partition(b"=")[2]):
            return None
        return cookie.span(1)
    value = _AUTHORIZATION.match(text, at)
    if value is None:
        return None
    group = value.lastindex or 0
    is_told = group == 3 and not is_plausible(name, value[group])
    return None if is_told or _PLACEHOLDER.fullmatch(value[group][:_READ]) else value.span(group)
