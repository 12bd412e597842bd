"""Spans of anybody: those of a program around its agent, and those of its web server and its database."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import SERVER, Span

#: Beginnings of the attributes of calls of other services.
_FOREIGN: Final = ("http.", "db.", "rpc.", "messaging.", "net.", "url.", "faas.", "network.")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for each span."""
    return True


def is_foreign(span: Span) -> bool:
    """Return True for a span that calls other services, or answers them: a step only if a dialect says so."""
    return span.kind >= SERVER or any(name.startswith(_FOREIGN) for name in span.attributes)


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """
    Fill in what is missing of any span.

    A span that no dialect knows is a step if it is of the program itself; what calls other services is none. The name
    of a span is not that of an agent.
    """
    if reading.kind == "":
        if not is_foreign(span):
            reading.fill(kind="step")
            reading.may_be_tool = True
        reading.fill(
            input=attributes.parsed("input.value", "input"),
            output=attributes.parsed("output.value", "output"),
        )
    reading.fill(
        name="" if reading.kind == "agent" else span.name,
        conversation=attributes.text("session.id"),
        user=attributes.text("user.id", "enduser.id"),
    )
