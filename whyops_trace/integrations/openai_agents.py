"""
OpenAI Agents SDK: every run of an agent in the process is recorded, with its turns, tools, handoffs and guardrails.

It stands on the trace processors of ``openai-agents``, and on the run hooks, which tell of a tool before it runs. What
the SDK itself exports to OpenAI stays as it is.
"""

from __future__ import annotations

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load

__all__ = ["attach"]


def attach(sdk: WhyOps | None = None) -> Attachment:
    """
    Trace every run of an agent in this process, in any thread or task.

    Args:
        sdk: The client that records runs outside any trace; the default one if it is left out. A run inside an open
            trace belongs to that.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``openai-agents`` is not installed.

    Example::

        openai_agents.attach()
        Runner.run_sync(clerk, "Where is parcel 7?")
    """
    attachment: Attachment = load("_openai_agents_processor", "openai-agents", "openai-agents").attach(sdk)
    return attachment
