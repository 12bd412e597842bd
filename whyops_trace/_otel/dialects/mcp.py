"""Clients and servers of the Model Context Protocol, whose spans have no content by default."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects.values import arguments_of, read_result
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span

_CALL: Final = "tools/call"


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return "mcp.method.name" in span.attributes


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in the tool. Any other method is a step."""
    method = attributes.text("mcp.method.name")
    reading.fill(conversation=attributes.text("mcp.session.id"))
    if method != _CALL:
        reading.fill(kind="step", name=method)
        return
    reading.fill(
        kind="tool",
        name=attributes.text("gen_ai.tool.name", "mcp.tool.name") or span.name.rpartition(_CALL)[2].strip(),
        input=arguments_of(attributes.get("gen_ai.tool.call.arguments", "mcp.tool.arguments")),
    )
    read_result(attributes.get("gen_ai.tool.call.result", "mcp.tool.result"), reading)
