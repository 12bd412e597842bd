"""Checks of what could be traced here: the frameworks and instrumentations that are installed, and how to attach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path
from typing import Final

from whyops_trace._home import STORE_FILE
from whyops_trace._reading.excerpt import clean, counted
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.commands.diagnosis import Finding
from whyops_trace.exceptions import StoreError
from whyops_trace.store import Store

_SPANS: Final = "whyops_trace.otel.attach()"
#: The line that traces each package, in a running program.
_ATTACH: Final = {
    "ag2": _SPANS,
    "anthropic": "sdk.anthropic(client)",
    "celery": "whyops_trace.integrations.celery.attach()",
    "claude-agent-sdk": "the variables of docs/how-to/opentelemetry.md",
    "crewai": f"openinference-instrumentation-crewai, and {_SPANS}",
    "django": "whyops_trace.integrations.wsgi.Middleware(app), or asgi.Middleware(app)",
    "dspy": f"openinference-instrumentation-dspy, and {_SPANS}",
    "flask": "whyops_trace.integrations.wsgi.Middleware(app.wsgi_app)",
    "google-adk": _SPANS,
    "haystack-ai": f"haystack.tracing.enable_tracing(...), and {_SPANS}",
    "langchain-core": "whyops_trace.integrations.langchain.attach()",
    "litellm": "sdk.litellm()",
    "llama-index-core": f"openinference-instrumentation-llama-index, and {_SPANS}",
    "logfire": _SPANS,
    "mcp": "whyops_trace.integrations.mcp.attach() in clients, .Middleware() in servers",
    "openai": "sdk.openai(client)",
    "openai-agents": "whyops_trace.integrations.openai_agents.attach()",
    "pydantic-ai-slim": f"Agent.instrument_all(), and {_SPANS}",
    "rq": "whyops_trace.integrations.rq.attach()",
    "smolagents": f"openinference-instrumentation-smolagents, and {_SPANS}",
    "starlette": "app.add_middleware(whyops_trace.integrations.asgi.Middleware)",
    "strands-agents": _SPANS,
    "traceloop-sdk": _SPANS,
}
#: Beginnings of the names of packages that make spans of what others do.
_INSTRUMENTATIONS: Final = ("openinference-instrumentation-", "opentelemetry-instrumentation-")
#: Number of the latest traces that are looked at for spans.
_LATEST: Final = 20


def frameworks() -> Iterator[Finding]:
    """Tell which frameworks are installed, and what attaches to each."""
    installed = {each.name.lower().replace("_", "-"): each.version for each in distributions()}
    for name in sorted(_ATTACH.keys() & installed.keys()):
        yield Finding("framework", "ok", f"{name} {installed[name]}: {_ATTACH[name]}")
    makers = [f"{name} {installed[name]}" for name in sorted(installed) if name.startswith(_INSTRUMENTATIONS)]
    if makers:
        yield Finding("spans", "ok", f"Installed: {', '.join(makers)}. {_SPANS} records their spans.")


def attached(home: Path) -> Iterator[Finding]:
    """Tell whose spans the latest traces have: what is attached is known in a running program alone."""
    if not (home / STORE_FILE).exists():
        return
    try:
        with closing(Store(home / STORE_FILE)) as store:
            traces = store.traces(_LATEST)
            scopes = {scope for trace in traces for scope in _scopes(store, trace.trace_id)}
    except StoreError:
        return  # the check of the store says so
    if scopes:
        names = ", ".join(map(clean, sorted(scopes)))
        yield Finding("attached", "ok", f"Spans in the last {counted(len(traces), 'trace')} are of: {names}.")


def _scopes(store: Store, trace_id: str) -> Iterator[str]:
    """Yield the libraries that made the first spans of a trace."""
    for event in islice(store.events(trace_id), 500):
        scope = text_of(dict_of(dict_of(event.get("metadata")).get("otel")).get("scope"))
        if scope:
            yield scope
