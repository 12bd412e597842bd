"""AG2, besides GenAI's attributes."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens

_KINDS: Final[dict[str, Kind]] = {
    "llm": "llm",
    "tool": "tool",
    "agent": "agent",
    "handoff": "handoff",
}
#: The members of a span of a turn, beside the counts.
_OF_TURNS: Final = ("gen_ai.output.messages", "gen_ai.response.finish_reasons", "gen_ai.response.id")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return "ag2" in roots


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in the kind. A span that does nothing but count tokens repeats those of a turn."""
    kind = attributes.text("ag2.span.type")
    counts_only = "ag2.usage.kind" in span.attributes and not any(
        name in span.attributes for name in _OF_TURNS
    )
    reading.fill(kind="llm" if counts_only else _KINDS.get(kind))
    if counts_only:
        reading.is_copy = True
        reading.answer.usage = read_tokens(attributes)
    attributes.get("ag2.usage.kind", "ag2.usage.total_tokens")
