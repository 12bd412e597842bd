"""The names under which a value is a secret: keys, fields, headers, variables, flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

#: Largest number of remembered keys. A program has some hundred; with made-up keys the memory starts over.
MAX_REMEMBERED: Final = 4096
#: Largest number of characters of a remembered key. A longer one is not a name but data.
MAX_KEY_LENGTH: Final = 128

_SEPARATORS: Final = str.maketrans("", "", "_-. ")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

#: Pattern of a secret's name, for keys in lower case without separators.
_SECRET: Final = re.compile(
    r"passw(or)?d|passphrase|passcode|pwd|passwort|kennwort|contrase[n\u00f1]a|depasse|senha|wachtwoord"
    r"|密码|密碼|パスワード|비밀번호|пароль|secret|credential|creds"
    r"|authori[sz]ation|bearer|cookie|jwt|xsrf|csrf|sessid"
    r"|(api|app|access|private|signing|encryption|decryption|master|account|storage|ssh|hmac|auth|service|license"
    r"|subscription)key"
    r"|cardnumber|creditcard|cvv|cvc|socialsecurity|seedphrase|mnemonic|(recovery|backup)codes?$"
    # In the plural tokens are a number, unless the name says their use.
    r"|token\d*$|(access|api|auth|csrf|refresh|session)tokens$"
)
#: Words before "token" that make it a piece of text, or a count: ``cost_per_token``, ``eosToken``.
_OF_TEXT: Final = frozenset(
    {"bos", "cls", "eos", "first", "mask", "max", "pad", "per", "sep", "special", "stop", "unk"}
)
#: Words that contain the name of a secret and are harmless.
_OFFICE: Final = frozenset({"secretarial", "secretariat", "secretaries", "secretary"})
#: Words of their own: "className" has the letters of "ssn" too.
_WHOLE: Final = frozenset({"ssn", "otp", "totp", "psk"})
#: Words before "pass" that make it a password. "pass" alone is a test's.
_OF_PASS: Final = frozenset(
    ["admin", "api", "app", "become", "client", "database", "db", "email", "ftp", "http", "imap", "key",
     "keystore", "ldap", "login", "mail", "mongo", "my", "mysql", "oracle", "pg", "postgres", "proxy", "rabbitmq",
     "redis", "root", "sftp", "smtp", "sql", "ssh", "sudo", "svc", "user", "vpn", "wifi"]
)  # fmt: skip
#: Words before "auth" that make it a yes or no.
_NOT_AUTH: Final = frozenset({"has", "is", "needs", "no", "requires", "skip", "use"})
#: The members of an object that name the value in another one, and that one.
_NAMING: Final = ("name", "Name", "key", "Key", "header")
_VALUES: Final = ("value", "Value")


class Redactor:
    """
    The rule that decides from a key if the value under it must not be recorded.

    Case and the separators ``_``, ``-``, ``.`` and space make no difference. Hidden are keys that name a password,
    passphrase, secret, credential, cookie, card number, card code or social security number, an API, access, private or
    signing key and the like, or an authorization, and every key that ends in "token" or "auth". Not hidden are
    ``tokens``, ``maxTokens``, ``token_count``, ``tokenizer`` and the like, nor ``author`` and ``secretary``.

    A doubtful key is hidden. Nothing is lost for ``cookies_accepted`` or ``password_changed``, because ``True``,
    ``False`` and ``None`` are recorded under any key. A cookie's value under an unforeseen name must not be recorded.

    A key with a NUL cannot be recorded as it is, so it is hidden as well. Its mended form is judged anew.

    Attributes:
        hides: ``hides(key)`` is the verdict, remembered for up to 4096 keys.

    Args:
        extra: More keys to hide. Other keys that contain them are not hidden.
        keep: Keys never to hide, whatever any other rule says.
    """

    __slots__ = ("hides",)

    hides: Callable[[str], bool]

    def __init__(self, extra: Iterable[str] = (), keep: Iterable[str] = ()) -> None:
        # A dict's bound method costs a third of one written in Python, and it is called for every key.
        self.hides = _Verdicts(extra, keep).__getitem__


class _Verdicts(dict[str, bool]):
    """A memory of the hidden keys: each key is judged the first time."""

    __slots__ = ("extra", "keep")

    def __init__(self, extra: Iterable[str], keep: Iterable[str]) -> None:
        super().__init__()
        self.extra = frozenset(map(_squeezed, extra))
        self.keep = frozenset(map(_squeezed, keep))

    def __missing__(self, key: str) -> bool:
        name = _squeezed(key)
        verdict = "\0" in key or (name not in self.keep and (name in self.extra or _is_secret(key, name)))
        if len(key) <= MAX_KEY_LENGTH:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[key] = verdict
        return verdict


def _squeezed(key: str) -> str:
    return key.lower().translate(_SEPARATORS)


def _is_secret(key: str, name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    if not _WHOLE.isdisjoint(words):
        return True
    last, before = words[-1:], "".join(words[-2:-1])
    if last == ["auth"] and before not in _NOT_AUTH:
        return True
    if last == ["pass"] and before in _OF_PASS:
        return True
    for word in _OFFICE.intersection(words):
        name = name.replace(word, "")
    if last == ["token"] and not _OF_TEXT.isdisjoint(words[-2:]):
        name = name.removesuffix("token")
    return _SECRET.search(name) is not None


def is_harmless(key: str, value: object, names: Iterable[Any]) -> bool:
    """
    Return True if what a mapping has under the name of a secret may be recorded.

    That is nothing, a yes or no, and a token that a model wrote, which has a probability.

    Args:
        key: The name.
        value: What it has there.
        names: All names of the mapping.
    """
    if value is None or type(value) is bool:
        return "\0" not in key
    return key == "token" and any(type(name) is str and name == "logprob" for name in names)


def member_named_secret(members: dict[Any, Any], hides: Callable[[str], bool]) -> tuple[str, str] | None:
    """
    Return the member that holds a secret which another one names, and that name.

    For example ``{"name": "password", "value": "..."}``.
    """
    for value in _VALUES:
        if value in members and members[value] is not None and type(members[value]) is not bool:
            for naming in _NAMING:
                name = members.get(naming)
                if type(name) is str and len(name) <= MAX_KEY_LENGTH and hides(name):
                    return value, name
    return None


def is_secret_pair(pair: Any, hides: Callable[[str], bool]) -> bool:
    """Return True if two items are the name of a secret, text or bytes, and the secret."""
    name, value = pair
    if type(name) is bytes and len(name) <= MAX_KEY_LENGTH:
        name = name.decode("latin-1")
    return (
        type(name) is str
        and len(name) <= MAX_KEY_LENGTH
        and hides(name)
        and value is not None
        and type(value) is not bool
    )
