"""
Short, safe, single-line texts out of records, for summaries and terminals.

The texts of a trace were written by models, users and web pages. None of them may move a cursor, change a
colour or turn the direction of a line, so every text passes :func:`clean` before it is shown.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from whyops_trace._shapes import dicts_of, is_number, list_of, text_of

_compact: Final = json.JSONEncoder(ensure_ascii=False).encode
#: The largest token count that is believed: a larger one is a mistake, and sums must stay within 64 bits.
MAX_TOKENS: Final = 2**40
#: Longest duration that is believed, in milliseconds: 30,000 years. Sums of such have room in any number.
_LONGEST: Final = 1e15
#: Largest number of exceptions behind an error, of those in it and of its notes, that are told with it.
BEHIND: Final = 3
#: The module of the exceptions of this library, and the beginning of the one of a trace that a limit stopped.
_OURS: Final = "whyops_trace.exceptions."
_RUNAWAY: Final = "AgentRunaway: "
#: Sequences that colour a text on a terminal, also where a limit cut one.
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]{0,20}(?:m|…|$)")


def without_colours(text: str) -> str:
    """Return *text* without the sequences that colour it on a terminal."""
    return _COLOURS.sub("", text) if "\x1b" in text else text


def clean(text: str) -> str:
    r"""Return *text* on one line: white space as spaces, other unprintable things as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else " "
        if character.isspace()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def cells(text: str) -> int:
    """Return the columns that *text* takes on a terminal, at most: combining characters count as one."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def shorten(text: str, width: int) -> str:
    """Return *text* if it fits into *width* columns, else its beginning and an ellipsis."""
    if len(text) <= width and cells(text) <= width:
        return text
    beginning, room = [], width - 1
    for character in text[: max(0, room)]:
        room -= cells(character)
        if room < 0:
            break
        beginning.append(character)
    return "".join(beginning) + "…" if width > 0 else ""


def excerpt(text: str, limit: int) -> str:
    """Return the beginning of *text*, runs of white space as one space, at most *limit* characters."""
    # Anything behind that many characters cannot show, and a prompt may be megabytes long.
    words = " ".join(text[: 4 * limit].split())
    return words if len(words) <= limit and len(text) <= 4 * limit else words[: limit - 1] + "…"


def both_ends(text: str, limit: int) -> str:
    """Return a text of at most *limit* characters: of a longer one the beginning, and the last third of that many."""
    last = limit // 3
    if len(text) <= limit and len(" ".join(text.split())) <= limit:
        return excerpt(text, limit)
    beginning, end = excerpt(text, limit - last - 2), " ".join(text[-4 * last :].split())[-last:]
    return f"{beginning.rstrip('…')}… {end}"


def headline(text: str, limit: int) -> str:
    """Return the beginning of *text* as one safe line, without the sequences that colour it on a terminal."""
    return clean(excerpt(without_colours(text[: 8 * limit]), limit))


def around(text: str, match: re.Match[str], limit: int) -> str:
    """Return the sentence around a match as one safe line of at most *limit* characters."""
    begin = max(text.rfind(mark, max(0, match.start() - limit), match.start()) for mark in ".!?\n") + 1
    return headline(text[max(begin, match.start() - limit) : match.end() + limit], limit)


def message_text(content: object) -> str:
    """Return the text of a message's content: a text, or the texts of a list of blocks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (block if isinstance(block, str) else get(block, "text") for block in content)
        return " ".join(text for text in texts if isinstance(text, str))
    return ""


def question(content: object) -> str:
    """Return the question of a ``user_message``: the text of its last message from a user, or its whole text."""
    if isinstance(content, str):
        return content
    messages = content if isinstance(content, list) else list_of(get(content, "messages"))
    for message in reversed(messages):
        if get(message, "role") == "user":
            return message_text(get(message, "content"))
    return ""


def answer(content: object) -> str:
    """Return what a model said in an ``llm_response``, whose content may be that text alone; it may be a refusal."""
    said = message_text(content if isinstance(content, str) else get(content, "content"))
    return said or text_of(get(content, "refusal"))


def problem(error: object) -> str:
    """Return an error as ``Type: message``, and after it what it came from, what is in it, and its notes."""
    return "; ".join(part for part in (_headline(error), *_background(error, BEHIND)) if part)


def _headline(error: object) -> str:
    parts = (get(error, "type"), get(error, "message")) if isinstance(error, Mapping) else (error,)
    said = dict.fromkeys(part for part in parts if isinstance(part, str) and part)
    return ": ".join(said).removeprefix(_OURS)


def stopped_by(error: str) -> str:
    """Return in words which limit of a trace was used up, from its error; "" for any other error."""
    return error.removeprefix(_RUNAWAY) if error.startswith(_RUNAWAY) else ""


def _background(error: object, most: int) -> Iterator[str]:
    """Yield the exceptions behind an error, those in it if it is a group, and its notes, *most* of each."""
    for member, words in (("cause", "because of"), ("context", "while handling")) if most else ():
        behind = get(error, member)
        if headline := _headline(behind) if isinstance(behind, dict) else "":
            yield f"{words} {headline}"
            yield from _background(behind, most - 1)
    inner = list(_leaves(error))
    if inner:
        rest = len(inner) - most
        yield f"in it {', '.join(inner[:most])}" + (f" and {rest:,} more" if rest > 0 else "")
    notes = [note for note in list_of(get(error, "notes")) if isinstance(note, str)]
    yield from (f"note: {note}" for note in notes[:most])


def _leaves(error: object) -> Iterator[str]:
    """Yield the headlines of the exceptions in a group, and in the groups in it."""
    for inner in dicts_of(get(error, "exceptions")):
        yield from _leaves(inner) if dicts_of(inner.get("exceptions")) else (_headline(inner),)


def raised_at(error: object) -> str:
    """Return the stack of an error, and below it those of the exceptions behind it and in it, each with its name."""
    behind = (get(error, "cause"), get(error, "context"), *dicts_of(get(error, "exceptions")))
    stacks = [
        f"{_headline(inner)}\n{stack}"
        for inner in behind
        if isinstance(inner, dict) and (stack := raised_at(inner))
    ]
    return "\n\n".join(filter(None, [text_of(get(error, "stack")), *stacks]))


def failure(results: object) -> dict[str, Any] | None:
    """Return the error that the results of a tool consist of, None if it did not fail."""
    error = results.get("error") if isinstance(results, dict) and len(results) == 1 else None
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else None


def value(thing: object) -> str:
    """Return any JSON value as compact JSON."""
    try:
        return _compact(thing)
    except RecursionError:
        return "…"


def named_values(arguments: object) -> str:
    """Return arguments as they stand between the brackets of a call: ``amount=4999, currency="usd"``."""
    if isinstance(arguments, dict):
        return ", ".join(f"{name}={value(given)}" for name, given in arguments.items())
    return "" if arguments is None else value(arguments)


def get(thing: object, key: str) -> Any:
    """Return a member of an object; None for anything that is no object, or has no such member."""
    return thing.get(key) if isinstance(thing, dict) else None


def number(thing: object) -> float | None:
    """Return *thing* if it is a number that can be a duration in milliseconds, else None."""
    return thing if is_number(thing) and 0 <= thing <= _LONGEST else None


def milliseconds(timestamp: object) -> float | None:
    """Return a wire timestamp as milliseconds since the epoch, None if it is none."""
    if isinstance(timestamp, str):
        try:
            return datetime.fromisoformat(timestamp).timestamp() * 1000
        except (ValueError, OverflowError):
            pass
    return None


def elapsed(start: object, end: object) -> float | None:
    """Return the milliseconds between two wire timestamps, None if one of them is missing."""
    first, last = milliseconds(start), milliseconds(end)
    return None if first is None or last is None else max(0.0, last - first)


def duration(ms: float) -> str:
    """Return a duration for people: ``<1 ms``, ``8 ms``, ``1.2 s``, ``2 m 03 s``, ``3 h 05 m``."""
    if ms < 1:
        return "<1 ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 turn``, ``1,204 turns``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float, decimals: int = 0) -> str:
    """Return a share of 0 to 1 for people: ``80 %``."""
    return f"{100 * share:.{decimals}f} %"


def dollars(amount: float) -> str:
    """Return an amount of US dollars for people: ``$12.30``, ``$0.0123``, ``$0.00012``, ``$0``."""
    if amount >= 1 or not amount:
        return f"${amount:,.2f}" if amount else "$0"
    decimals = max(4, 1 - math.floor(math.log10(amount)))  # below a cent two digits that say something
    return f"${amount:.{decimals}f}"


class Tokens(NamedTuple):
    """
    Tokens of one or more calls of a model.

    Attributes:
        prompt: Tokens of the prompt that were not cached.
        completion: Tokens of the answer.
        cache_read: Tokens of the prompt that came from a cache.
        cache_creation: Tokens of the prompt that were written to one.
    """

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_creation: int = 0

    @classmethod
    def of(cls, usage: object) -> Tokens:
        """Return the counts in a ``usage`` object; anything that is not a count is 0."""
        names = ("promptTokens", "completionTokens", "cacheReadTokens", "cacheCreationTokens", "totalTokens")
        prompt, completion, read, creation, total = (_tokens(get(usage, name)) for name in names)
        # An embedding only tells how many tokens it took in all.
        return cls(prompt if prompt or completion else total, completion, read, creation)

    def plus(self, other: Tokens) -> Tokens:
        """Return the sums."""
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cache_read + other.cache_read,
            self.cache_creation + other.cache_creation,
        )

    @property
    def sent(self) -> int:
        """Tokens of the whole prompt, cached or not."""
        return self.prompt + self.cache_read + self.cache_creation

    @property
    def total(self) -> int:
        """Tokens of prompt and answer."""
        return self.sent + self.completion

    @property
    def cached_share(self) -> str:
        """Share of the prompt that came from a cache, such as ``80 %``; "" if none did."""
        return percent(self.cache_read / self.sent) if self.cache_read else ""


def _tokens(count: object) -> int:
    return count if type(count) is int and 0 <= count <= MAX_TOKENS else 0
