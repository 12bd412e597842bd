"""
Secrets behind a name with no sign between them: in sentences, tables, elements, options of commands, further lines.

The words that end such names are searched for, each by one literal, which runs at the speed of C; what leads from a
name to a value is a part of the same expression. So only what looks like a name with a secret is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from whyops_trace._values.secrets import repeats
from whyops_trace._values.secrets.columns import find_in_columns
from whyops_trace._values.secrets.finds import Place, note, note_try
from whyops_trace._values.secrets.plausible import is_plausible, is_strong

#: Bytes at the beginning of a text that are searched at once for a sign that it has any value.
_HEAD: Final = 1024
#: Bytes before a name, or an option, that are looked at.
_BEFORE: Final = 128
#: A value holds a digit, stands in quotes or below a title.
_SIGNS: Final = b"0123456789'`\\"
_SIGN: Final = re.compile(rb"[0-9'`\\]")

# In encoded JSON quotes and the ends of lines are escaped, once or more often.
_LINE: Final = rb"(?:\\++r)?\\++n"
_BLANKS: Final = rb"(?:[ ]|\\++t)"
_MARK: Final = rb"(?:\\++\"|['`*]{1,2})"
_WORD: Final = rb"[^\s\"'`\\,;|<>()\[\]{}]{%d,256}+"
#: A value without quotes has a letter and a digit. Behind other names than those of passwords it is no name or number.
_MIXED: Final = rb"(?=[^\s\"'`\\|<>]{0,64}\d)(?=[^\s\"'`\\|<>]{0,64}[a-z])"
_NO_NAME: Final = rb"(?![a-z]+\d{0,4}(?:[_.-][a-z]*\d{0,4})*+(?!\w))"
_QUOTED: Final = rb"(?:\\++\"|['`]|\*\*)(?P<quoted>[^\s\"'`\\*]{4,256}+)(?=\\++\"|['`]|\*\*)"
_OF_PASSWORD: Final = rb"(?:" + _QUOTED + rb"|(?P<bare>" + _MIXED + _WORD % 6 + rb"))"
_OF_TOKEN: Final = rb"(?:" + _QUOTED + rb"|(?P<bare>" + _MIXED + _NO_NAME + _WORD % 8 + rb"))"
#: Ways from a name to a value, each with the name of its group.
_LEADS: Final = {
    "told": rb"(?: (?:for|of|on|in|at|to)(?: [^\s\"\\]{1,30}){1,6}?)? "
    rb"(?:is|was|reads|lautet|ist|est|es)(?: now| set to| changed to| reset to)?:? ",
    "set": rb" to ",
    "cell": rb"[ ]*+(?:\||\xe2\x94[\x82\x83]|\xe2\x95\x91|\\++u250[23])[ ]*+",
    "arrow": rb"(?:[ ]?(?:->|\xe2\x86\x92|\\++u2192)[ ]?|(?:\xef\xbc\x9a|\\++uff1a)[ ]?|[ ]\((?=[^\s()]{6,256}\)))",
    "column": _BLANKS + rb"{2,}+|\\++t",
    "next": rb" ",
    "line": rb"[ ]*+:?[ ]*+(?:[|>][+-]?[ ]*+)?(?:" + _LINE + rb")++" + _BLANKS + rb"*+",
    "element": rb"(?:(?:[ ][\w:.-]{1,30}=\\++\"[^\"\\<>]{0,200}\\++\"){0,3}"
    rb"|</[\w:.-]{1,40}>(?:[ ]|\\++[nrt])*+<[\w:.-]{1,40}(?:[ ][^<>]{0,80})?)>(?:<!\[cdata\[)?",
    "member": _LINE + rb"[ ]*+value:[ ]*+",
}
#: Ways to a value of any characters up to the end of its quotes.
_ATTRIBUTE: Final = (
    rb"(?:\\++\"|')(?:[ \n][\w:-]{1,30}=(?:\\++\"[^\"\\<>]{0,80}\\++\"|'[^'\"\\<>]{0,80}')){0,4}?"
    rb"[ ](?:value|content)=(?:\\++\"|')(?P<attribute>[^\"'\\<>]{3,256}+)"
)
_MEMBER: Final = (
    rb"\\++\",(?:[ ]|\\++n)*+"
    rb"(?:\\++\"\w{1,30}\\++\":[ ]?(?:\\++\"[^\"\\]{0,80}\\++\"|[\w.]{1,20}),(?:[ ]|\\++n)*+){1,4}?"
    rb"\\++\"value\\++\":[ ]?\\++\"(?P<later>[^\"\\]{4,256}+)"
)
#: The way to a value behind the end of a line, in a part of a form.
_PART: Final = rb"\\++\"" + _LINE + _LINE + rb"(?P<part>[^\"\\]{4,256}+)"
#: The signs behind the name of a column.
_TITLE: Final = (
    rb"(?P<title>(?=[ ]*+(?:\\++\"|`|\*\*)?[ ]*+(?:[,;|]|\xe2\x94\x82|\\++(?:[tnr]|u2502)|\\*+\"[,}])))"
)
#: The end of a name, and what leads to a value.
_END: Final = rb"(?![\w.=/\[])(?P<end>)"
_LEAD: Final = (
    rb"(?:" + b"|".join(rb"(?P<%b>%b)" % (name.encode(), lead) for name, lead in _LEADS.items()) + rb")"
)


def _then(value: bytes) -> bytes:
    """Return the expression of what follows a name."""
    marked = _MARK + rb"?+(?![\w\"'`*])" + _LEAD + value
    ways = (rb"(?=\\)" + _PART, marked, rb"(?=[\\'])(?:" + _ATTRIBUTE + rb"|" + _MEMBER + rb")", _TITLE)
    return _END + rb"(?:" + b"|".join(ways) + rb")"


#: Groups of values that are taken whole.
_WHOLE: Final = frozenset({"attribute", "later", "part"})
#: The ends of names in lower case, each behind a literal that is searched for. "Sort key" is no name of a secret.
_OF_KEY: Final = b"|".join(
    rb"(?<=(?:%b)%bkey)" % (before, separator)
    for before in (b"api|app", b"cret|cess|vate", b"gning|ption")
    for separator in (b"[ ._-]", b"")
)
_NAMES: Final = (
    re.compile(rb"w(?<=[sp]w)(?:or[dt]s?|d)" + _then(_OF_PASSWORD)),
    re.compile(rb"ke(?:n(?<=token)|y(?:" + _OF_KEY + rb"))" + _then(_OF_TOKEN)),
    re.compile(rb"cret(?<=secret)" + _then(_OF_TOKEN)),
)
_NAME: Final = re.compile(rb"(?:[A-Za-z]{2,20}[ ])?[\w.$/-]{1,64}$")
#: What stands before the name of a variable that is set without a sign, before a password behind a login, before a
#: name that is a line of its own, and before what is changed.
_SETTING: Final = re.compile(rb"(?:\b(?:ENV|ARG|setx|setenv|configure set|secret set)|set -\w+)[ ][\w.]*$")
_LOGIN: Final = re.compile(rb"(?:login|user(?:name)?|account)[ ]+[^\s\\]{1,64}(?:[ ]|\\++[nrt])+$")
_LINE_START: Final = re.compile(rb"(?:^|[^\\]|[:\[,][ ]?\\++)\"[ #*-]*+[\w./-]*$|\\[nr][ #*-]*+[\w./-]*$")
_NUMBER: Final = re.compile(rb"\d++[/:.]")
_CHANGING: Final = re.compile(
    rb"(?:set|chang|updat|rotat)[a-z]{0,4}[ ](?:[a-z]{1,12}[ ]){0,3}$", re.IGNORECASE
)

#: The kind of a resource of Kubernetes whose data are secrets, and how far it reaches; the data, and one of them.
_KIND: Final = re.compile(rb"kind(?:\\*+\")?:[ ]?(?:\\*+\")?Secret$")
_KIND_LENGTH: Final = 24
_DATA: Final = re.compile(
    rb"(?:\b|\\n)(?:data|stringData)(?:\\*+\")?:(?:[ ]?\{[^{}]*+\}|(?:"
    + _LINE
    + rb"[ ]+[\w./-]+:[ ][^\\\"]*+)++)"
)
_ITEM: Final = re.compile(rb"[\w./-](?:\\*+\")?:[ ]?(?:\\*+\")?([^\s\"\\{}]{4,}+)")


def may_be_led(text: bytes) -> bool:
    """Return True if encoded JSON may have such a secret."""
    if not _has_values(text):
        return False
    lower = text.lower()
    for name in _NAMES:  # noqa: SIM110 - in short texts any() takes longer than the searches
        if name.search(lower):
            return True
    return False


def find_led(text: bytes, hides: Callable[[str], bool], places: list[Place]) -> None:
    """
    Note where such secrets are in encoded JSON.

    Args:
        text: The JSON.
        hides: Function from a name to True if the value under it is a secret.
        places: Where the places are noted.
    """
    titles: list[int] = []
    lower = text.lower()
    for pattern in _NAMES:
        for match in pattern.finditer(lower):
            group, end = match.lastgroup or "", match.start("end")
            before = text[max(0, end - _BEFORE) : end]
            if group == "title":
                titles.append(end)
                continue
            start, last = match.span(group)
            value = text[start:last]
            value = value if group in _WHOLE else value.rstrip(b".:!?*")
            name = _NAME.search(before)
            if name and _is_named(name[0], hides) and _is_secret(match, before, name[0], value):
                note(places, text, start, start + len(value))
                repeats.note_found(name[0], value)
            else:
                note_try(places, text, start)
    find_in_columns(text, hides, places, titles)
    if any(_KIND.search(text, end - _KIND_LENGTH, end) for end in titles):
        for data in _DATA.finditer(text):
            for match in _ITEM.finditer(text, *data.span()):
                note(places, text, *match.span(1))


def _has_values(text: bytes) -> bool:
    return _SIGN.search(text, 0, _HEAD) is not None or (
        len(text) > _HEAD and any(sign in text for sign in _SIGNS)
    )


def _is_named(name: bytes, hides: Callable[[str], bool]) -> bool:
    """Return True if a name, of one word or two, is that of a secret."""
    words = name.decode("ascii", "replace")
    return hides(words.rpartition(" ")[2]) or (words.lower().endswith("key") and hides(words))


def _is_secret(match: re.Match[bytes], before: bytes, name: bytes, value: bytes) -> bool:
    """
    Return True if what a name leads to may be a secret.

    Args:
        match: The end of the name and what follows it.
        before: The text up to the end of the name.
        name: The name.
        value: The value.
    """
    text, end = match.string, match.end()
    behind = text[end : end + 2]
    if match.lastgroup in _WHOLE:
        return is_plausible(name, value, is_quoted=True)
    is_quoted = match.lastgroup == "quoted"
    lead = next(lead for lead in _LEADS if match[lead] is not None)
    if behind[:1] in (b"(", b"[", b"{") or _NUMBER.match(value):
        return False  # code, the type of a column, a port, a version
    if lead == "next":
        is_given = _SETTING.search(before) is not None or _LOGIN.search(before[: -len(name)]) is not None
        is_literal = is_quoted and name.isupper()
        if not is_given and not is_literal and not is_strong(value):
            return False
        return is_plausible(name, value, is_quoted=is_literal, is_given=is_given)
    if lead == "set" and not _CHANGING.search(before[: -len(name)]):
        return False
    if lead == "element" and behind[:1] not in (b"<", b"]"):
        return False
    if lead == "line" and not (_LINE_START.search(before) or b":" in match["line"]):
        return False
    if lead == "line" and not is_quoted and behind[:1] != b'"' and behind[1:] not in (b"n", b"r", b"\\"):
        return False
    return is_plausible(name, value, is_quoted=is_quoted, is_given=lead == "member")
