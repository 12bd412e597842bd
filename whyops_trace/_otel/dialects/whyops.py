"""Spans that this library exported: what the conventions have no name for."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span

_KINDS: Final[dict[str, Kind]] = {
    "agent": "agent",
    "handoff": "handoff",
    "step": "step",
    "trace": "agent",
    "wrapper": "step",
}


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans with an attribute of ours."""
    return "whyops" in roots


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in the kind of steps, with their input and output; the numbers of steps are given anew."""
    kind = _KINDS.get(attributes.text("whyops.kind"), "")
    attributes.get("whyops.step", "gen_ai.tool.type")
    if kind:
        reading.fill(
            kind=kind,
            name=attributes.text("gen_ai.agent.name") if kind == "agent" else span.name,
            input=attributes.parsed("input.value"),
            output=attributes.parsed("output.value"),
        )
