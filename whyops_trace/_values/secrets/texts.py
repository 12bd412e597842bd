"""
Secrets that have a name in a text: JSON, code, headers, queries, environments, command lines.

It reads encoded JSON, in which quotes of a text are escaped: once, or more often in JSON inside of a text. A quote
with *n* backslashes before it stands as many levels deep as *n* + 1 can be halved, whatever escapes come before.

Names stand before what tells that they are names, so a search that runs at the speed of C reads the text backwards. It
collects the distinct names; only if one of them is a secret's, the places are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from whyops_trace._values.secrets import repeats
from whyops_trace._values.secrets.commands import find_in_commands, has_statement
from whyops_trace._values.secrets.finds import MARK, Place, TooManyError, most_places, note, note_try
from whyops_trace._values.secrets.leads import find_led, may_be_led
from whyops_trace._values.secrets.plausible import is_plausible, span_in_header

#: Bytes that are searched at once, and bytes behind those in which what begins there ends.
_CHUNK, _OVERLAP = 16_384, 256
#: Most names that are remembered as innocent, and most quotes and brackets that are read for the end of a value.
_MAX_INNOCENT, _MAX_MARKS = 4096, 512
#: Bytes of a word without quotes that are looked at.
_LONGEST: Final = 512

#: A colon that does not end a key of the JSON itself.
COLON_IN_TEXT: Final = re.compile(rb':(?<![^\\]":)(?!//)(?<![\WT]\d\d:)')
#: A name read backwards, without the letter of an escape that stands before it.
_NAME: Final = rb"[\w.$\x80-\xff-]{1,64}(?!\\)"
#: Names before a colon and before an equals sign, read backwards. Two words may be a name: "API key". A row of signs
#: has the empty name.
_BEFORE_COLON: Final = re.compile(
    rb':(?<!//:)(?:::++|[ \t]*+(?:"\\++|\'\\*+|`|\*\*)?(?=\d?[A-Za-z_\x80-\xff])'
    rb"(" + _NAME + rb"(?: [A-Za-z0-9-]{1,20}(?![\w-]))?))"
)
_BEFORE_EQUALS: Final = re.compile(rb"=(?:==++|[ \t:?+]*+\]?(?:\"\\++|'\\*+)?(" + _NAME + rb"))")
#: The same before an equals sign of a query that is a value itself.
_BEFORE_ENCODED: Final = re.compile(rb"D3%(" + _NAME + rb")")
#: The sign that each of them begins with. It comes often if one of so many bytes is one.
_SIGN_BEFORE: Final = {_BEFORE_COLON: b":", _BEFORE_EQUALS: b"="}
_OFTEN: Final = 8
#: Signs in a chunk from which on names are searched for with what tells that no secret follows, most names that are,
#: and most such expressions that are kept.
_CROWD, _FEW, _MAX_CROWDS = 64, 8, 64
_LAST_WORDS: Final = re.compile(rb"(?m)^\d*[A-Za-z]*")
_WORD_END: Final = rb"(?=[` ,.;:)(\[|]|\"|\\++[nrt])"
#: What stands between a name and its value where it may be a secret, by the pattern that found the name. A word of
#: letters behind a colon is none, but in headers and phrases; nor is a name in code, or what stands for a value.
_CROWDED: Final = {
    _BEFORE_COLON: rb"(?:\\++\"|\\*+'|`|\*\*)?[ \t]*+:(?!//)(?:(?<=[\"']:)|(?<=(?i:okie|kies|tion|rase|onic):)"
    rb"|(?![ ]*+(?:[A-Za-z_]++" + _WORD_END + rb"|[<(]|\*\*\*|\.\.\.|\\++[nrt])))",
    _BEFORE_EQUALS: rb"(?:\\++\"|\\*+')?\]?[ \t:?+]*+=(?![ ]?(?:<|\$[A-Z({]|\{|\*\*\*|\.\.\.|changeme|your))"
    rb"(?!(?<=[a-z][ ]=)[ ][A-Za-z_][A-Za-z_.]*+" + _WORD_END + rb"|[ ]?[A-Za-z_][\w.]*+[\[(])",
}
# The same, forwards: pairs in lists and tuples, members that name a value, flags of a command.
_QUOTED: Final = rb"(?:\\++\"|[bu]?')"
_PAIR: Final = rb"[ ]?" + _QUOTED + rb"([\w.-]{1,64})" + _QUOTED + rb", ?(?=[bu]?['\\])"
_IN_LIST: Final = re.compile(rb"\[" + _PAIR)
_IN_TUPLE: Final = re.compile(rb"\(" + _PAIR)
_MEMBER: Final = re.compile(
    rb"\"(?:[nN]ame|[kK]ey|header)\\++\": ?\\++\"([\w .-]{1,64})\\++\",(?: |\\++n)*+\\++\"[vV]alue\\++\":"
)
# What is no flag with a value is passed over as a whole.
_FLAG: Final = re.compile(rb"--(?:-++|([A-Za-z][\w-]{1,40}+)(?: ++|\\*+\",? ?\\*+\"|', ')(?!-)|[\w-]*+)")
#: An element of XML with a text; most of them, and bytes for each further one, of a text that is searched; and the
#: patterns whose values are certainly some.
_ELEMENT: Final = re.compile(rb"<([A-Za-z][\w.-]{1,63}+)>(?=[^<\s])")
_ELEMENTS, _BYTES = 32, 512
_GIVING: Final = (_FLAG, _ELEMENT, _BEFORE_ENCODED)

#: Table that makes all digits one, which no name to keep is likely to have alone.
_ONE_DIGIT: Final = bytes.maketrans(b"0123456789", b"7777777777")
#: Bytes for each equals sign up to which a text is looked at for parts of the names of secrets first.
_DENSE: Final = 16
#: Parts of the names of secrets. What has none of them is no such name.
_LIKELY: Final = (
    rb"pass|pwd|wort|contrase|secret|cred|auth|bearer|cookie|jwt|[xc]srf|sessid|sessionid|key|card|cvv|cvc|social|seed"
    rb"|mnemonic|code|token|ssn|otp|sig|psk|senha|wachtwoord|"
    + "密码|密碼|パスワード|비밀번호|пароль".encode()
)
_PARTS: Final = tuple(_LIKELY.replace(b"[xc]", b"").split(b"|"))
#: The signs before a value: blanks, the head of an arrow, emphasis, the prefix of a literal.
_VALUE: Final = re.compile(
    rb"[ \t>]*+(?:\*\*[ ]?)?+(?:[bBrRuUfF]{0,2}(?:(?P<json>\\++)\"|(?P<mark>['`]))|(?P<open>[\[{])"
    rb"|(?P<bare>[^\s\"'\\,;&<>(){}\[\]`|]{1,512}+))"
)
#: The words of a phrase, the digits of a card; the rest of a word, behind the part that was looked at.
_PHRASE: Final = re.compile(rb"[a-z]{3,8}(?:[ ][a-z]{3,8}){11,23}(?![\w])")
_DIGITS: Final = re.compile(rb"\d{4}(?:[ -]\d{4,6}){2,4}(?![\w-])")
_REST_OF_WORD: Final = re.compile(rb"[^\s\"'\\,;&<>(){}\[\]`|]*+")
_SINGLE: Final = {
    b"'": re.compile(rb"((?:[^'\"\\]|\\\\'|\\.)*+)'"),
    b"`": re.compile(rb"((?:[^`\"\\]|\\.)*+)`"),
}
_QUOTE: Final = re.compile(rb'(\\*+)"')
_QUOTE_OR_BRACKET: Final = re.compile(rb"(\\*+)\"|['\[\]{}()]")
_REST_OF_TEXT: Final = re.compile(rb'(?:[^"\\]|\\.)*+')
_LITERALS: Final = frozenset(b"null none true false undefined".split())
#: The signs before a line, before a name in a query, and behind a value that ends a line or is one of a query.
_LINE_ENDS: Final = (b"\\n", b"\\r")
_IN_QUERY: Final = (b"?", b"&", b";")
_ENDS: Final = (b'"', b"\\", b"&")
#: Names of signatures in queries of signed URLs.
_SIGNATURE: Final = re.compile(rb"(?:^|[-_])sig(?:nature)?$|x-amz-security-token$", re.IGNORECASE)
_SIGNED: Final = re.compile(rb"(?=[\w%+/.-]*\d)[\w%+/.-]{16,}+={0,2}")
#: Last words of a name that are secret together with the word before only.
_SECOND: Final = frozenset(b"key keys number code codes pass passe auth phrase".split())


def has_elements(text: bytes) -> bool:
    """Return True if a text may be XML that has settings: a page or a table has many more elements."""
    return text.count(b"<") <= 2 * (_ELEMENTS + len(text) // _BYTES) and text.find(b"</") >= 0


class TextSearch:
    """
    The search for secrets that have a name in a text.

    Args:
        hides: Function from a name to True if the value under it is a secret.
        extra: More names, which :func:`hides` knows.
    """

    def __init__(self, hides: Callable[[str], bool], extra: tuple[str, ...] = ()) -> None:
        self._hides = hides
        letters = (re.findall(r"[^_\-. ]", name.lower()) for name in extra)
        more = (b"[_. -]?".join(re.escape(letter.encode()) for letter in name) for name in letters if name)
        self._has_more = bool(extra)
        parts = b"|".join((_LIKELY, *more))
        self._likely_part = re.compile(rb"(?i)" + parts)
        self._likely = re.compile(rb"(?im)^.*(?:%b).*$" % parts)
        self._innocent = {b""}
        self._crowds: dict[tuple[re.Pattern[bytes], frozenset[bytes]], re.Pattern[bytes]] = {}

    def find(self, text: bytes, places: list[Place]) -> None:
        """Note where secrets are in encoded JSON."""
        if 58 in text and COLON_IN_TEXT.search(text):
            backwards = text[::-1]
            self._search(text, backwards, _BEFORE_COLON, places)
            if b"alue\\" in text:
                self._search(text, text, _MEMBER, places)
        else:
            backwards = b""
        if 61 in text and self._may_have_name(text):
            self._search(text, backwards or text[::-1], _BEFORE_EQUALS, places)
        if 37 in text and text.find(b"%3D") >= 0:
            self._search(text, backwards or text[::-1], _BEFORE_ENCODED, places)
        if 60 in text and has_elements(text):
            self._search(text, text, _ELEMENT, places)
        if 91 in text:
            self._search(text, text, _IN_LIST, places)
        if 40 in text:
            self._search(text, text, _IN_TUPLE, places)
        if 45 in text and b"--" in text:
            self._search(text, text, _FLAG, places)
        if b" -" in text or 124 in text or has_statement(text):
            find_in_commands(text, places)
        if may_be_led(text):
            find_led(text, self._hides, places)

    def _may_have_name(self, text: bytes) -> bool:
        """Return True if a text may have the name of a secret before an equals sign."""
        if self._has_more or text.count(b"=") * _DENSE < len(text):
            return True  # to look at the few names takes no longer
        text = text.lower()
        return any(part in text for part in _PARTS)

    def _search(self, text: bytes, read: bytes, pattern: re.Pattern[bytes], places: list[Place]) -> None:
        """Look where a pattern finds the name of a secret: in the text, or in the text read backwards."""
        for start in range(0, len(read), _CHUNK):
            end = start + _CHUNK
            names = _names(pattern, read, start, end + _OVERLAP)
            if self._innocent.issuperset(names):
                continue
            secret = self._secret_among({*names} - self._innocent, is_reversed=read is not text)
            if secret:
                spans = self._spans(text, read, pattern, secret, start, end)
                most = most_places(end) - len(places)
                named = [*islice(spans, most + 1)]
                if len(named) > most:
                    raise TooManyError
                self._look(text, named if read is text else sorted(named), pattern, places)

    def _spans(
        self, text: bytes, read: bytes, pattern: re.Pattern[bytes], secret: set[bytes], start: int, end: int
    ) -> Iterator[tuple[int, int, int]]:
        """Yield the places of names that are secrets': their beginning and end, and where the value may begin."""
        size, last = len(text), end + _OVERLAP
        matches: Iterator[re.Match[bytes]] = pattern.finditer(read, start, last)
        sign = _SIGN_BEFORE.get(pattern)
        if sign is not None and read.count(sign, start, end) > _CROWD:
            crowded = self._crowded(pattern, secret)
            if crowded is not None:
                signs = (match.end() for match in crowded.finditer(text, max(0, size - last), size - start))
                found = (pattern.match(read, size - sign, last) for sign in signs)
                matches = (match for match in found if match)
        for match in matches:
            if match.start() < end and match[1] in secret:
                if read is text:
                    yield match.start(1), match.end(1), match.end()
                else:
                    yield size - match.end(1), size - match.start(1), size - match.start()

    def _crowded(self, pattern: re.Pattern[bytes], secret: set[bytes]) -> re.Pattern[bytes] | None:
        """Return the expression of the ends of names and of what follows; None if they are too many."""
        lines = b"\n".join(secret)
        words = {word for word in {*_LAST_WORDS.findall(lines)} if self._is_secret(word[::-1])}
        others = {name for name in secret if not name.startswith(tuple(words))} if words else secret
        names = frozenset(name[::-1] for name in words | others)
        if len(names) > _FEW:
            return None
        if (pattern, names) not in self._crowds:
            if len(self._crowds) >= _MAX_CROWDS:
                self._crowds = {}
            longest_first = sorted(map(re.escape, names), key=len, reverse=True)
            self._crowds[pattern, names] = re.compile(
                b"(?:%b)" % b"|".join(longest_first) + _CROWDED[pattern]
            )
        return self._crowds[pattern, names]

    def _secret_among(self, names: set[bytes], *, is_reversed: bool) -> set[bytes]:
        """Return those of some new names that are secrets'. Names that differ in their digits are judged as one."""
        lines = b"\n".join(names)
        lines = lines[::-1] if is_reversed else lines
        stems = lines if self._has_more else b"\n".join({*lines.translate(_ONE_DIGIT).split(b"\n")})
        secret: set[bytes] = set()
        if self._likely_part.search(stems) and any(map(self._is_secret, self._likely.findall(stems))):
            likely = {*self._likely.findall(lines)}
            secret = {name[::-1] if is_reversed else name for name in likely if self._is_secret(name)}
        if len(self._innocent) > _MAX_INNOCENT:
            self._innocent = {b""}
        self._innocent |= names - secret
        return secret

    def _look(
        self,
        text: bytes,
        spans: list[tuple[int, int, int]],
        pattern: re.Pattern[bytes],
        places: list[Place],
    ) -> None:
        """Note the secrets behind names, from the first one in the text to the last one."""
        done = 0
        for start, end, at in spans:
            if at >= done:
                span = self._value(_Name(text, start, end, at, pattern))
                if span is None:
                    note_try(places, text, at)
                else:
                    note(places, text, *span)
                    done = span[1]
                    repeats.note_found(text[start:end], text[span[0] : done])

    def _is_secret(self, name: bytes) -> bool:
        """Return True if a name in a text is that of a secret. Of two words the last one counts, or both together."""
        first, _, last = name.decode("utf-8", "replace").rpartition(" ")
        if self._hides(last) or _SIGNATURE.search(name):
            return True
        return bool(first) and last.lower().encode() in _SECOND and self._hides(f"{first} {last}")

    def _value(self, name: _Name) -> Place | None:
        """Return the place of the secret after a name, None if what follows is none."""
        text = name.text
        if _SIGNATURE.search(name.word) and not self._hides(name.word.decode("ascii", "replace")):
            signed = _SIGNED.match(text, name.at) if name.before in _IN_QUERY else None
            return signed and (*signed.span(), MARK)
        value = _VALUE.match(text, name.at)
        if value is None:
            return None
        if name.pattern is _IN_LIST or name.pattern is _IN_TUPLE:
            return _second(text, value)
        is_sure = name.is_member or name.pattern is _MEMBER
        if value["open"] is not None:
            end = _end_of_container(text, value.start("open"), name.depth)
            return (value.start("open"), end, name.quoted_mark) if is_sure else None
        if value["bare"] is not None:
            if not is_sure:
                return _bare(name, value)
            return None if value["bare"].lower() in _LITERALS else (*value.span("bare"), name.quoted_mark)
        span = _span_of_string(text, value)
        if span is None:
            return None
        content = text[slice(*span)]
        if not content or content == MARK:
            return None
        return (*span, MARK) if is_sure or is_plausible(name.word, content, is_quoted=True) else None


def _names(pattern: re.Pattern[bytes], read: bytes, start: int, end: int) -> list[bytes]:
    """Return the names that a pattern finds in a part of a text; where the same comes again and again, each once."""
    sign = _SIGN_BEFORE.get(pattern)
    if sign is not None and read.count(sign, start, end) * _OFTEN > end - start:
        pieces = read[start:end].split(sign)
        some = {*pieces}
        if len(some) * _OFTEN < len(pieces):
            return pattern.findall((b"\n" + sign).join((b"", *some)))
    return pattern.findall(read, start, end)


class _Name(NamedTuple):
    """
    The name of a secret in a text.

    Attributes:
        text: Encoded JSON.
        start: Beginning of the name.
        end: Its end.
        at: The place after what separates name and value.
        pattern: The pattern that found it.
    """

    text: bytes
    start: int
    end: int
    at: int
    pattern: re.Pattern[bytes]

    @property
    def word(self) -> bytes:
        """The name itself."""
        return self.text[self.start : self.end]

    @property
    def before(self) -> bytes:
        """The byte before it."""
        return self.text[self.start - 1 : self.start]

    @property
    def between(self) -> bytes:
        """The sign between it and the value."""
        return self.text[self.end : self.at]

    @property
    def is_member(self) -> bool:
        """True if it is a key of JSON, or of the text of a dict."""
        return b":" in self.between and (b'"' in self.between or b"'" in self.between)

    @property
    def begins_line(self) -> bool:
        """True if nothing stands before it in its line."""
        return self.before == b'"' or self.text[self.start - 2 : self.start] in _LINE_ENDS

    @property
    def depth(self) -> int:
        """The level of the quote that ends it, 0 for a single quote."""
        quote, found, _ = self.between.partition(b'"')
        return _level(quote.count(b"\\")) if found else 0

    @property
    def quoted_mark(self) -> bytes:
        """The mark as a text, in the quotes of the name."""
        quote = self.between.partition(b":")[0].rstrip()
        return quote + MARK + quote


def _level(backslashes: int) -> int:
    """Return how many levels deep a quote stands with so many backslashes before it."""
    count = backslashes + 1
    return (count & -count).bit_length() - 1


def _second(text: bytes, value: re.Match[bytes]) -> Place | None:
    """Return the place of the second one of a pair of texts."""
    span = _span_of_string(text, value) if value["bare"] is None and value["open"] is None else None
    if span is None or not span[0] < span[1]:
        return None
    behind = text[span[1] : span[1] + 12].lstrip(b"\\\"' ")
    return (*span, MARK) if behind[:1] in (b"]", b")") else None


def _bare(name: _Name, value: re.Match[bytes]) -> Place | None:
    """Return the place of a value without quotes."""
    text, word = name.text, name.word
    if word.lower().endswith((b"cookie", b"cookies", b"authorization")):
        header = span_in_header(word, text, name.at)
        return header and (*header, MARK)
    (first, last), found = value.span("bare"), value["bare"]
    if text[last : last + 1] in (b"(", b"[", b"{") or name.before == b"$":
        return None  # code
    more = (_PHRASE if b"phrase" in word.lower() or b"mnemonic" in word.lower() else _DIGITS).match(
        text, first
    )
    if more:
        return (*more.span(), MARK)
    is_given = name.pattern in _GIVING
    if b"=" not in name.between and not is_given:
        found = found.rstrip(b".:!?*")
        last = first + len(found)
    elif not is_given:
        is_line = name.between == b"=" and name.begins_line and text[last : last + 1] in _ENDS
        is_given = is_line or name.before in _IN_QUERY or word.isupper() or word.startswith(b"-")
    if is_plausible(word, found, is_given=is_given, is_code=name.between.startswith(b" ")):
        return first, _end_of_word(text, last) if len(found) == _LONGEST else last, MARK
    return None


def _quotes(text: bytes, pattern: re.Pattern[bytes], start: int) -> Iterator[tuple[re.Match[bytes], int]]:
    """Yield quotes and brackets with the level of each quote."""
    for number, match in enumerate(pattern.finditer(text, start)):
        if number == _MAX_MARKS:
            return
        yield match, 0 if match[1] is None else _level(len(match[1]))


def _span_of_string(text: bytes, value: re.Match[bytes]) -> tuple[int, int] | None:
    """Return the place of the content of a string, without its quotes."""
    start = value.end()
    if value["json"] is None:
        single = _SINGLE[value["mark"]].match(text, start)
        return single and single.span(1)
    depth = _level(len(value["json"]))
    for match, level in _quotes(text, _QUOTE, start):
        if level <= depth:
            return start, match.end() - (1 << level)
    return start, _end_of_text(text, start)


def _end_of_container(text: bytes, start: int, depth: int) -> int:
    """Return the end of a list or an object in a text; of the text if it does not end before."""
    opened, quote = 0, b""
    for match, level in _quotes(text, _QUOTE_OR_BRACKET, start):
        mark = match[0]
        if match[1] is not None:
            if level < max(depth, 1):
                return match.end() - (1 << level)
            if level == max(depth, 1) and quote != b"'":
                quote = b"" if quote else b'"'
        elif mark == b"'":
            if depth == 0 and quote != b'"':
                quote = b"" if quote else b"'"
        elif not quote:
            opened += 1 if mark in b"[{(" else -1
            if not opened:
                return match.end()
    return _end_of_text(text, start)


def _end_of_word(text: bytes, start: int) -> int:
    rest = _REST_OF_WORD.match(text, start)
    return rest.end() if rest else start


def _end_of_text(text: bytes, start: int) -> int:
    rest = _REST_OF_TEXT.match(text, start)
    return rest.end() if rest else start
