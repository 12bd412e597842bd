"""LlamaIndex, whose agents are workflows, besides OpenInference's attributes."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span

#: The name of an agent in the text of an event of its workflow.
_NAME: Final = re.compile(r"current_agent_name='([^']{1,200})'")
#: The classes whose steps are the framework's own: an agent, and several that hand over to each other.
_WORKFLOWS: Final = ("BaseWorkflowAgent", "AgentWorkflow")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return span.scope == "openinference.instrumentation.llama_index"


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in which workflow is an agent. Its steps are the framework's own, and tell its name."""
    owner, _, method = span.name.rpartition(".")
    if owner in _WORKFLOWS and method != "run":
        reading.kind, reading.is_copy = "step", True
        name = _NAME.search(str(attributes.values.get("input.value")))
        reading.fill(agent=name[1] if name else "")
    elif method == "run" and owner.endswith(("Agent", *_WORKFLOWS)):
        reading.fill(kind="agent")
