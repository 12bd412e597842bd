"""
How values become text on a page: what every template may use, and the one door that every text passes.

Jinja escapes markup. What it does not touch are characters that a page shows as nothing or that turn the direction of
a line; :func:`visible` spells them out, so that what is read is what was recorded.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from whyops_trace._reading.excerpt import counted, dollars, duration, value
from whyops_trace.story import Message

#: Characters of a text that are shown at once; most messages and results are shorter, and three of these fill a screen.
SHOWN: Final = 1_200
#: Characters of a text that are in the page at all; the rest is in the detail of the event.
KEPT: Final = 20_000

# Controls but tab and newline, marks and overrides of direction, characters without width, halves of pairs.
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return *text* with characters that cannot be seen spelled out, such as ``\u202e``."""
    return _HIDDEN.sub(lambda found: _spelled(found[0]), text.replace("\r\n", "\n"))


def pretty(thing: object) -> str:
    """Return a value as one reads it: a text as it is, but JSON in a text, and anything else, indented."""
    if isinstance(thing, str):
        parsed = _parsed(thing)
        if parsed is None:
            return thing
        thing = parsed
    try:
        short = json.dumps(thing, ensure_ascii=False)
        return short if len(short) <= 72 else json.dumps(thing, ensure_ascii=False, indent=2)
    except (RecursionError, TypeError, ValueError):
        return value(thing)


def parts(text: str) -> tuple[str, str, int]:
    """
    Return a text as it is shown: its beginning, what can be unfolded, and how many characters are not in the page.

    The beginning ends with a line, or else a word, where there is one near.
    """
    if len(text) <= SHOWN + SHOWN // 4:
        return text, "", 0
    near = text.rfind("\n", SHOWN - 300, SHOWN)
    end = near if near >= 0 else text.rfind(" ", SHOWN - 60, SHOWN)
    end = end if end >= 0 else SHOWN
    return text[:end], text[end:KEPT].lstrip("\n"), max(0, len(text) - KEPT)


def tokens(count: int | None) -> str:
    """Return a count of tokens as one reads it: ``812``, ``4.2k``, ``42k``, ``1.3M``."""
    count = count or 0
    size, unit = (1_000_000, "M") if abs(count) >= 999_500 else (1_000, "k")
    if abs(count) < 1_000:
        return str(count)
    scaled = count / size
    return f"{scaled:.1f}{unit}" if abs(scaled) < 9.95 else f"{scaled:.0f}{unit}"


def in_script(encoded: str) -> Markup:
    """Return JSON so that it can stand in a script element: no character in it means anything to a page."""
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Markup(encoded)  # noqa: S704 - nothing that could be markup is left


def groups(messages: Iterable[Message]) -> list[tuple[str, list[Message]]]:
    """Return messages that follow each other with the same role together."""
    return [(role, list(some)) for role, some in itertools.groupby(messages, lambda message: message.role)]


def names(messages: Iterable[Message]) -> str:
    """Return what tools the messages are the results of: ``search, refund x2``."""
    counts = Counter(message.name or "a tool" for message in messages)
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def extend(environment: Environment) -> Environment:
    """Give an environment what the templates use, and make each text that they show pass :func:`visible`."""
    environment.finalize = _finalized
    environment.filters.update(_FILTERS)
    return environment


def _finalized(shown: Any) -> Any:
    return visible(shown) if isinstance(shown, str) and not isinstance(shown, Markup) else shown


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _parsed(text: str) -> object:
    """Return what the JSON of an object or a list in a text means; None if it is something else, or long."""
    if len(text) > KEPT or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "pretty": pretty,
    "parts": parts,
    "tokens": tokens,
    "counted": counted,
    "duration": duration,
    "dollars": dollars,
    "groups": groups,
    "names": names,
    "value": value,
}
