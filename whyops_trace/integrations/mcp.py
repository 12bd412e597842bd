"""
MCP: every call of a tool is recorded, by the client that makes it and by the server that serves it.

A client tells a server its place in the trace, so that the server's call is inside the client's, in whatever process.
"""

from __future__ import annotations

from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment, load
from whyops_trace.integrations._mcp_calls import Middleware

__all__ = ["Middleware", "attach"]


def attach(sdk: WhyOps | None = None, *, link: bool = True) -> Attachment:
    """
    Trace every call of a tool that a client of this process makes, in any thread or task.

    Args:
        sdk: The client that records calls outside any trace; the default one if it is left out. A call inside an open
            trace belongs to that.
        link: False to tell servers nothing of the trace. Otherwise each gets the trace id, the name of the agent and
            the number of the call, in ``_meta``.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``mcp`` is not installed.

    Example::

        mcp.attach()
        async with Client("http://localhost:8000/mcp") as client:
            await client.call_tool("track", {"parcel": 7})
    """
    attachment: Attachment = load("_mcp_sessions", "mcp", "mcp").attach(sdk, link=link)
    return attachment
