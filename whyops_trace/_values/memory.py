"""
The JSON of values that were recorded before, since every turn of a conversation repeats all messages before it.

A value is known again by its very content, never by its identity, as what is in a dict changes. Its *key* is a flat
tuple of the texts and numbers in it, which do not change. Python keeps the hash of a text in the text and compares
identities first, so that to look up a megabyte that was seen before takes as long as a few characters do.

Only exact builtin types and pydantic models have a key, so that no code of a value runs, and the types of numbers are a
part of it, as 1, 1.0 and True are equal. Any other value is encoded anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from whyops_trace._values.objects import model_fields

#: Parts of a key at most. What has more takes longer to compare than to encode.
MAX_PARTS: Final = 4_000
#: Nested containers of a value with a key at most.
MAX_DEPTH: Final = 20
#: Bytes of a part of a key in its tuple, and of an entry of the table beside its key and its JSON.
_PART, _ENTRY = 60, 200

#: Lookups after which the table is judged, lookups without it after it was of no use, and the share of lookups that
#: have to find something.
_TRIAL: Final = 256
_REST: Final = 4_096
_LEAST: Final = 1 / 16


class NoKeyError(Exception):
    """A value has no key: it holds something that may change, or be equal to something else."""


def key_of(value: Any) -> tuple[Any, ...]:
    """
    Return the key of a value as it is now.

    Raises:
        NoKeyError: if it has none.
        RuntimeError: if another thread changes it right now.
    """
    parts: list[Any] = []
    _add((value,), parts, 0)
    return tuple(parts)


def _add(container: Any, parts: list[Any], depth: int) -> None:
    """Add the items of a container, as the parts of a key."""
    if depth > MAX_DEPTH or len(parts) > MAX_PARTS:
        raise NoKeyError
    add, is_mapping = parts.append, type(container) is dict
    add(dict if is_mapping else list)
    add(len(container))
    for item in container:
        value = item
        if is_mapping:
            if type(item) is not str:
                raise NoKeyError
            add(item)
            value = container[item]
        kind = type(value)
        if kind is str or value is None:
            add(value)
        elif kind is dict or kind is list or kind is tuple:
            _add(value, parts, depth + 1)
        elif kind is int or kind is bool:
            add(kind)
            add(value)
        elif kind is float:
            add(kind)
            add(repr(value))  # -0.0 is equal to 0.0, and NaN to nothing
        else:
            fields = model_fields(value)
            if fields is None:
                raise NoKeyError
            _add(fields, parts, depth + 1)


class Trial:
    """A judgement on a table that is of no use to every program: it rests while it finds next to nothing."""

    def __init__(self) -> None:
        self._tries = self._hits = self._rest = 0

    def begins(self) -> bool:
        """Note a try. Return False while the table rests."""
        if self._rest:
            self._rest -= 1
            return False
        self._tries += 1
        return True

    def hit(self) -> None:
        """Note that a try found something."""
        self._hits += 1

    def failed(self) -> bool:
        """Return True, once, if the latest tries found too little: then the table rests for a while."""
        if self._tries < _TRIAL:
            return False
        is_useless = self._hits < self._tries * _LEAST
        self._tries = self._hits = 0
        if is_useless:
            self._rest = _REST
        return is_useless


class Memory:
    """
    The JSON of values, by their keys.

    Any thread may use it. Two generations stand in for a list of the latest: a hit among the young takes no lock and
    changes nothing.

    Args:
        encode: Function from a value to its JSON.
        max_bytes: Bytes that it keeps at most: JSON, and the texts that live on in keys. 0 keeps nothing.
    """

    def __init__(self, encode: Callable[[Any], bytes], max_bytes: int) -> None:
        self._encode = encode
        self._generation_bytes = max_bytes // 2
        self._lock = threading.Lock()
        self._trial = Trial()
        self._young: dict[tuple[Any, ...], bytes] = {}
        self._old: dict[tuple[Any, ...], bytes] = {}
        self._bytes = 0

    def encode(self, value: Any) -> bytes:
        """Return the JSON of a value, the same as that of the function."""
        if not self._generation_bytes or not self._trial.begins():
            return self._encode(value)
        try:
            key = key_of(value)
        except (NoKeyError, RuntimeError, RecursionError):
            return self._encode(value)
        json = self._young.get(key)
        if json is not None:
            self._trial.hit()
            return json
        json = self._old.get(key)
        if json is None:
            json = self._encode(value)
            try:
                if key_of(value) != key:  # another thread changed it meanwhile
                    return json
            except (NoKeyError, RuntimeError, RecursionError):
                return json
        else:
            self._trial.hit()
        self._keep(key, json)
        return json

    def _keep(self, key: tuple[Any, ...], json: bytes) -> None:
        size = len(json) + sum(len(part) for part in key if type(part) is str) + _PART * len(key) + _ENTRY
        # Never waited for: a finaliser may come back here in the same thread.
        if size > self._generation_bytes // 4 or not self._lock.acquire(blocking=False):
            return
        try:
            if self._trial.failed():
                self._young, self._old, self._bytes = {}, {}, 0
            elif self._bytes + size > self._generation_bytes:
                self._old, self._young, self._bytes = self._young, {}, 0
            self._young[key] = json
            self._bytes += size
        finally:
            self._lock.release()
