"""
The libraries that made spans, where a product does not keep their names.

Some frameworks are understood by the name of the library alone, though their spans have the form of many others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from whyops_trace._otel.span import Span

#: The attribute with the kind of a span of OpenInference.
KIND: Final = "openinference.span.kind"
_SCOPE: Final = "openinference.instrumentation."


class _Mark(NamedTuple):
    """
    A mark that only the spans of a library have.

    Attributes:
        scope: The library.
        attribute: An attribute of at least one of them, or
        names: names that at least one each has.
        each: An attribute that each of them has.
    """

    scope: str
    attribute: str = ""
    names: tuple[re.Pattern[str], ...] = ()
    each: str = KIND


_MARKS: Final = (
    _Mark("pydantic-ai", "pydantic_ai.all_messages", each="logfire.json_schema"),
    _Mark(f"{_SCOPE}smolagents", "smolagents.max_steps"),
    _Mark(f"{_SCOPE}crewai", "crew_key"),
    _Mark(
        f"{_SCOPE}dspy",
        names=(re.compile(r"Predict(\(.*\))?\.forward"), re.compile(r"\w+Adapter\.__call__")),
    ),
    _Mark(f"{_SCOPE}llama_index", names=(re.compile(r"BaseWorkflowAgent\.\w+"),)),
    _Mark(f"{_SCOPE}openai_agents", names=(re.compile("turn"), re.compile("response|generation"))),
)


def name_makers(spans: Sequence[Span]) -> None:
    """Set the scopes of the spans of a trace that have none, but for turns that clients of their own may have made."""
    for mark in _MARKS:
        some = [span for span in spans if mark.each in span.attributes and not span.scope]
        if mark.attribute:
            is_there = any(mark.attribute in span.attributes for span in some)
        else:
            is_there = all(any(name.fullmatch(span.name) for span in some) for name in mark.names)
        for span in some if is_there else ():
            if span.attributes.get(KIND) != "LLM":
                span.scope = mark.scope
