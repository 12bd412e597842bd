"""
Secrets that commands are given without a name: behind an option of one letter, before a pipe, in statements of SQL.

The search goes from dash to dash, from pipe to pipe; what stands before one in its command tells what it means.
"""

from __future__ import annotations

import re
from typing import Final

from whyops_trace._values.secrets import repeats
from whyops_trace._values.secrets.finds import Place, note, note_try
from whyops_trace._values.secrets.plausible import is_placeholder

#: Bytes of a command that are looked at before an option.
_COMMAND: Final = 160
#: Digits of the number of a port.
_PORT: Final = 5
#: A word of a command, in quotes or without.
_WORD: Final = rb"(?:\\++\"|')?(?P<word>[^\s\"'\\|;&<>`]{3,256}+)"
#: Options of one letter, and those of few programs.
_OPTION: Final = re.compile(
    rb" -(?:(?:(?P<sure>(?:store|key)pass[ ]|pass(?:in|out)?[ ]pass:)"
    rb"|-user[ =](?:\\++\"|')?(?P<named>[\w.@%-]{1,64}:)|[uUa][ ]?(?:\\++\"|')?(?P<user>[\w.@-]{1,64}[:%])"
    rb"|b[ ](?:\\++\"|')(?P<cookie>[\w.-]{1,64}=)"
    rb"|(?P<letter>[paw])[ ]?)" + _WORD + rb"|(?P<plain>AsPlainText))"
)
#: Commands whose option is a password: joined to it, as a word of its own, either way, or a login before it.
_BY_COMMAND: Final = re.compile(
    rb"(?:\b|\\[nrt])(?:(?P<joined>mysql\w*|mariadb\w*)"
    rb"|(?P<apart>(?:docker|podman|helm|skopeo|oras|buildah|crane|nerdctl)\b.{0,40}login"
    rb"|(?:az|oc|cf) login|mongo\w*|twine|redis-cli|ldap\w+|nmcli)|(?P<either>sshpass)"
    rb"|(?P<login>curl|https?|xh|smbclient|rpcclient))\b(?:[^|;&]|&(?!&))*$"
)
#: Bytes of a command that have its name.
_NAME: Final = 12
#: The letter of the option, by program. All others have -p.
_LETTERS: Final = ((b"redis-cli", b"a"), (b"ldap", b"w"))
#: Commands that read a password from what is piped into them, and the word that is.
_PIPED: Final = re.compile(
    rb"\|(?:\|{2,}+|[ ]?(?:sudo[ ])?"
    rb"(?:sudo -S|chpasswd|passwd --stdin|kinit|[\w.-]{1,30}[ ][^|\\\"]{0,80}--(?:password-stdin|with-token))())"
)
_ECHO: Final = re.compile(
    rb"(?:echo|printf)[ ](?:-n[ ])?(?:'%s'[ ])?(?:\\++\"|')?(?:\w{1,32}:)?"
    rb"(?P<word>[^\s\"'\\|;&<>`]{3,256}+)[\"'\\nr]{0,4}[ ]?$"
)
#: The call of PowerShell that makes a password of a text, and statements of SQL that set one.
_SECURE: Final = re.compile(
    rb"SecureString[ ](?:-String[ ])?(?:\\++\"|')(?P<word>[^\"'\\]{3,256}+)(?:\\++\"|')$"
)
_STATEMENT: Final = re.compile(
    rb"(?:IDENTIFIED BY|identified by)[ ]+(?:(?:\\++\"|')|(?=[^\s;\\]{3,256};))(?P<word>[^\s\"'\\;]{3,256}+)"
)


def has_statement(text: bytes) -> bool:
    """Return True if encoded JSON may have a statement of SQL that sets a password."""
    return (39 in text or 59 in text) and (b"IFIED BY" in text or b"ified by" in text)


def find_in_commands(text: bytes, places: list[Place]) -> None:
    """Note where such secrets are in encoded JSON."""
    if b" -" in text:
        for match in _OPTION.finditer(text):
            secret: re.Match[bytes] | None = match
            if match["plain"]:
                secret = _SECURE.search(text, max(0, match.start() - _COMMAND), match.start())
            elif not match["sure"] and not _is_password(text, match):
                secret = None
            _note(text, match, secret, places)
    if 124 in text:
        for match in _PIPED.finditer(text):
            if match.lastindex:  # else it is a row of bars
                echo = _ECHO.search(text, max(0, match.start() - _COMMAND), match.start())
                _note(text, match, echo, places)
    if has_statement(text):
        for match in _STATEMENT.finditer(text):
            _note(text, match, match, places)


def _note(text: bytes, sign: re.Match[bytes], secret: re.Match[bytes] | None, places: list[Place]) -> None:
    """Note the word of a match, if there is one and it is no placeholder and no number of a port."""
    word = secret["word"] if secret else b""
    if secret is None or is_placeholder(word) or (word.isdigit() and len(word) <= _PORT):
        note_try(places, text, sign.start())
    else:
        note(places, text, *secret.span("word"))
        repeats.note_found(b"password", word)


def _is_password(text: bytes, option: re.Match[bytes]) -> bool:
    """Return True if an option of one letter is a password in the command that it belongs to."""
    command = _BY_COMMAND.search(text, max(0, option.start() - _COMMAND), option.start())
    if command is None:
        return False
    if option["named"] or option["cookie"]:
        return command["login"] == b"curl"
    if option["user"]:
        return command["login"] is not None
    is_joined = text[option.end("letter") : option.end("letter") + 1] != b" "
    if command["login"] or (command["joined"] and not is_joined) or (command["apart"] and is_joined):
        return False
    expected = next((letter for name, letter in _LETTERS if name in command[0][:_NAME]), b"p")
    return option["letter"] == expected
