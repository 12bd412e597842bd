"""
LiteLLM: every completion and embedding in the process is recorded, of whatever provider.

LiteLLM tells of the end of a call late and in another thread, when the tools that the answer asked for may have run.
So its functions are replaced by traced ones.
"""

from __future__ import annotations

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load

__all__ = ["attach"]


def attach(sdk: WhyOps | None = None) -> Attachment:
    """
    Trace every call of ``litellm.completion()``, ``acompletion()``, ``embedding()`` and ``aembedding()``.

    What was imported from LiteLLM by its name before is not traced: ``from litellm import completion`` comes after.

    Args:
        sdk: The client that records calls outside any trace; the default one if it is left out. A call inside an open
            trace belongs to that.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``litellm`` is not installed.

    Example::

        litellm.attach()
        agent.run("Where is parcel 7?")  # of any framework that stands on LiteLLM
    """
    attachment: Attachment = load("_litellm_functions", "litellm", "litellm").attach(sdk)
    return attachment
