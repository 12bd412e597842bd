"""
LangChain and LangGraph: every graph, chain, model, tool and retriever that runs in the process is recorded.

It stands on the callbacks of ``langchain-core``. No class of the framework is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler

__all__ = ["attach", "handler"]

_HANDLERS: Final = ("_langchain_handler", "langchain-core", "langchain")


def attach(sdk: WhyOps | None = None) -> Attachment:
    """
    Trace every run of LangChain and LangGraph in this process, in any thread or task.

    Args:
        sdk: The client that records runs outside any trace; the default one if it is left out. A run inside an open
            trace belongs to that.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``langchain-core`` is not installed.

    Example::

        langchain.attach()
        graph.invoke({"messages": [("user", "Where is parcel 7?")]})
    """
    attachment: Attachment = load(*_HANDLERS).attach(sdk)
    return attachment


def handler(sdk: WhyOps | None = None) -> BaseCallbackHandler:
    """
    Return a callback handler, for the runs that it is passed to: ``config={"callbacks": [handler()]}``.

    A run that has one is recorded once, attached or not.

    Args:
        sdk: The client that records runs outside any trace; the default one if it is left out.

    Raises:
        ConfigurationError: if ``langchain-core`` is not installed.
    """
    made: BaseCallbackHandler = load(*_HANDLERS).Handler(lambda: (True, sdk))
    return made
