"""Searchable words of a record: the texts in it, and the names of its tool and model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._shapes import text_of

#: Messages that are remembered as indexed, in all traces together.
_REMEMBERED: Final = 200_000

# Letters that are written without spaces between words; each is a word here, and a text of them a phrase.
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Pictures and the like, which nobody searches for.
_BLOB: Final = re.compile(r"\S{300,}")


class _About(msgspec.Struct, gc=False):
    tool: Any = None
    model: Any = None


class _Record(msgspec.Struct, gc=False):
    # Not a StoredRecord: only what is searched is decoded, which takes a fifth of the time of a small record.
    metadata: _About = msgspec.field(default_factory=_About)
    content: Any = None


_decoder: Final = msgspec.json.Decoder(_Record)


class Words(NamedTuple):
    """The texts of a record, by the columns of the index."""

    text: str
    tool: str
    model: str


class Reader:
    """
    Finds the words of records that come in the order they were stored.

    Each turn of a conversation repeats all messages before it, so a message is left out that its trace had already.
    """

    def __init__(self) -> None:
        #: The number of the first record read of each trace, and the hashes of its messages.
        self._traces: dict[str, tuple[int, set[int]]] = {}
        self._count = 0

    def forget(self, trace_ids: Collection[str], known: Callable[[list[int]], set[int]]) -> None:
        """Forget those of some traces that were deleted, as others may have their ids now."""
        firsts = {trace: self._traces[trace][0] for trace in trace_ids if trace in self._traces}
        left = known(list(firsts.values())) if firsts else set()
        for trace, first in firsts.items():
            if first not in left:
                self._count -= len(self._traces.pop(trace)[1])

    def read(self, number: int, trace_id: str, line: str) -> Words:
        """Return the words of a record, with the first one of a trace also its id; what cannot be read has none."""
        parts = []
        if trace_id not in self._traces:
            if self._count > _REMEMBERED:
                self._traces.clear()
                self._count = 0
            self._traces[trace_id] = (number, set())
            parts.append(trace_id)
        try:
            record = _decoder.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            record = _Record()
        parts += self._new(self._traces[trace_id][1], record.content)
        about = record.metadata
        return Words(
            spaced(_BLOB.sub(" ", "\n".join(parts))),
            spaced(text_of(about.tool)),
            spaced(text_of(about.model)),
        )

    def _new(self, seen: set[int], content: Any) -> Iterator[str]:
        """Yield the texts of a content, but not of messages that were *seen* before."""
        messages = content.get("messages") if isinstance(content, dict) else None
        if not isinstance(messages, list):
            yield from texts(content)
            return
        for message in messages:
            said = "\n".join(texts(message))
            mark = hash(said)
            if mark not in seen:
                seen.add(mark)
                self._count += 1
                yield said
        yield from texts({name: value for name, value in content.items() if name != "messages"})


def texts(thing: Any) -> Iterator[str]:
    """Yield the texts and numbers in plain data, from first to last."""
    stack = [thing]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            stack.extend(reversed(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield str(value)


def spaced(text: str) -> str:
    """Return *text* with spaces around letters that are words of their own."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)
