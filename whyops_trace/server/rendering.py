"""
Values as text on a page: the filters of every template, and the one function that every text passes.

Jinja escapes markup, but not characters that a page shows as nothing or that change the direction of a line.
:func:`visible` spells them out, so that the page shows the recorded text.
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
from whyops_trace.server.attachments import attached, shown
from whyops_trace.story import Message

#: Characters of a text that are shown at once. Most messages and results are shorter, and three of these fill a
#: screen.
SHOWN: Final = 1_200
#: Largest number of characters of a text in the page. The rest is in the detail of the event.
KEPT: Final = 20_000

# Control characters except tab and newline, marks of direction, zero-width characters, lone surrogates.
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    r"""Return *text* with invisible characters spelled out, such as ``\u202e``."""
    return _HIDDEN.sub(lambda match: _spelled(match[0]), text.replace("\r\n", "\n"))


def pretty(thing: object) -> str:
    """
    Return a value in readable form: a text as it is, but JSON in a text and any other value indented.

    Blocks of text, as MCP servers return them, are the text that they hold.
    """
    if isinstance(thing, str):
        parsed = _parsed(thing)
        if parsed is None:
            return thing
        thing = parsed
    if (joined := _joined(thing)) is not None:
        return pretty(joined)
    try:
        short = json.dumps(thing, ensure_ascii=False)
        return short if len(short) <= 72 else json.dumps(thing, ensure_ascii=False, indent=2)
    except (RecursionError, TypeError, ValueError):
        return value(thing)


def parts(text: str) -> tuple[str, str, int]:
    """
    Return the parts of a text: its beginning, the part to unfold, and the number of characters not in the page.

    The beginning ends at the end of a line or else of a word, if there is one near.
    """
    if len(text) <= SHOWN + SHOWN // 4:
        return text, "", 0
    near = text.rfind("\n", SHOWN - 300, SHOWN)
    end = near if near >= 0 else text.rfind(" ", SHOWN - 60, SHOWN)
    end = end if end >= 0 else SHOWN
    return text[:end], text[end:KEPT].lstrip("\n"), max(0, len(text) - KEPT)


def tokens(count: int | None) -> str:
    """Return a count of tokens in readable form: ``812``, ``4.2k``, ``42k``, ``1.3M``."""
    count = count or 0
    size, unit = (1_000_000, "M") if abs(count) >= 999_500 else (1_000, "k")
    if abs(count) < 1_000:
        return str(count)
    scaled = count / size
    return f"{scaled:.1f}{unit}" if abs(scaled) < 9.95 else f"{scaled:.0f}{unit}"


def in_script(encoded: str) -> Markup:
    """Return JSON for a script element: no character in it has a meaning in HTML."""
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Markup(encoded)  # noqa: S704 - nothing that could be markup is left


def groups(messages: Iterable[Message]) -> list[tuple[str, list[Message]]]:
    """Return groups of successive messages of the same role."""
    return [(role, list(some)) for role, some in itertools.groupby(messages, lambda message: message.role)]


def names(messages: Iterable[Message]) -> str:
    """Return the names of the tools whose results the messages are: ``search, refund x2``."""
    counts = Counter(message.name or "a tool" for message in messages)
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def extend(environment: Environment) -> Environment:
    """Add the filters to an environment, and let each text that templates show pass :func:`visible`."""
    environment.finalize = _finalized
    environment.filters.update(_FILTERS)
    return environment


def _finalized(output: Any) -> Any:
    return visible(output) if isinstance(output, str) and not isinstance(output, Markup) else output


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _joined(thing: object) -> str | None:
    """Return the text of blocks that hold text and nothing else, None for any other value."""
    inside = thing.get("result", thing) if isinstance(thing, dict) and len(thing) == 1 else thing
    content = inside.get("content") if isinstance(inside, dict) else inside
    beside = [inside[name] for name in inside if name != "content"] if isinstance(inside, dict) else []
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    beside += [block[name] for block in blocks for name in block if name not in ("type", "text")]
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    found = [text for text in texts if isinstance(text, str)]
    whole = isinstance(content, list) and 0 < len(found) == len(content) and not any(beside)
    return "\n".join(found) if whole else None


def _parsed(text: str) -> object:
    """Return the value of a text that is JSON of an object or a list, None for another text or a long one."""
    if len(text) > KEPT or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "attached": attached,
    "shown": shown,
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
