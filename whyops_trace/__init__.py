"""
whyops-trace: why did my agent do that?

Decorate the tools and model calls of an agent, wrap its workflow in ``with trace(...)``, nest ``with step(...)``,
and see the tree of what it did: ``whyops-trace show latest``. No account and no server are needed.

::

    from whyops_trace import step, trace, traced_llm, traced_tool

    @traced_tool
    def charge_card(amount: int, currency: str) -> dict: ...

    with trace("checkout-8841"):
        with step("plan"):
            ...
        charge_card(4999, currency="usd")

Importing the package loads nothing: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whyops_trace._version import __version__
    from whyops_trace.client import WhyOps
    from whyops_trace.decorators import traced_embedding, traced_llm, traced_tool
    from whyops_trace.default import (
        continue_from,
        current_trace,
        flush,
        flush_sync,
        resume,
        score,
        step,
        trace,
    )
    from whyops_trace.exceptions import (
        AgentRunaway,
        ConfigurationError,
        InvalidEventError,
        JournalError,
        StoreError,
        TraceNotFoundError,
        UnknownOptionError,
        WhyOpsError,
    )
    from whyops_trace.headers import inject, suspend
    from whyops_trace.open_calls import OpenCall
    from whyops_trace.propagation import detach, propagate, propagate_processes, propagate_threads
    from whyops_trace.sampling import TailSampling
    from whyops_trace.tracing import Step, Trace
    from whyops_trace.tracing import Trace as WhyOpsTrace
    from whyops_trace.types import (
        AgentInfo,
        AgentMetadata,
        AgentTool,
        ErrorContent,
        EventOptions,
        EventType,
        Ledger,
        LLMResponseContent,
        LLMThinkingContent,
        MessageItem,
        SpanId,
        Tally,
        TokenUsage,
        ToolCallFunction,
        ToolCallItem,
        ToolCallPair,
        UserMessageMetadata,
    )

_HOMES = {
    "_version": ("__version__",),
    "client": ("WhyOps",),
    "default": ("continue_from", "current_trace", "flush", "flush_sync", "resume", "score", "step", "trace"),
    "decorators": ("traced_embedding", "traced_llm", "traced_tool"),
    "exceptions": (
        "AgentRunaway", "ConfigurationError", "InvalidEventError", "JournalError", "StoreError",
        "TraceNotFoundError", "UnknownOptionError", "WhyOpsError",
    ),
    "headers": ("inject", "suspend"),
    "open_calls": ("OpenCall",),
    "propagation": ("detach", "propagate", "propagate_processes", "propagate_threads"),
    "sampling": ("TailSampling",),
    "tracing": ("Step", "Trace", "WhyOpsTrace"),
    "types": (
        "AgentInfo", "AgentMetadata", "AgentTool", "ErrorContent", "EventOptions", "EventType", "LLMResponseContent",
        "LLMThinkingContent", "Ledger", "MessageItem", "SpanId", "Tally", "TokenUsage", "ToolCallFunction",
        "ToolCallItem", "ToolCallPair", "UserMessageMetadata",
    ),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentInfo", "AgentMetadata", "AgentRunaway", "AgentTool", "ConfigurationError", "ErrorContent", "EventOptions",
    "EventType", "InvalidEventError", "JournalError", "LLMResponseContent", "LLMThinkingContent", "Ledger",
    "MessageItem", "OpenCall", "SpanId", "Step", "StoreError", "TailSampling", "Tally", "TokenUsage",
    "ToolCallFunction", "ToolCallItem", "ToolCallPair", "Trace", "TraceNotFoundError", "UnknownOptionError",
    "UserMessageMetadata", "WhyOps", "WhyOpsError", "WhyOpsTrace", "__version__", "continue_from", "current_trace",
    "detach", "flush", "flush_sync", "inject", "propagate", "propagate_processes", "propagate_threads", "resume",
    "score", "step", "suspend", "trace", "traced_embedding", "traced_llm", "traced_tool",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
