"""
OpenTelemetry in this process: the spans of frameworks and instrumentations are recorded beside everything else.

``attach()`` is one line for a whole program; :class:`WhyOpsSpanProcessor` is for a provider of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from whyops_trace import default
from whyops_trace._extras import install_hint
from whyops_trace._guard import guarded
from whyops_trace._recording import recorders
from whyops_trace._spans.registry import Spans
from whyops_trace.client import WhyOps
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.integrations import Attachment

if TYPE_CHECKING:
    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

    from whyops_trace._recording.recorder import Recorder
else:
    try:
        from opentelemetry import trace as api
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    except ImportError:  # said when it is needed
        api, SpanProcessor, TracerProvider = None, object, object

__all__ = ["WhyOpsSpanProcessor", "attach"]


def _current() -> tuple[int, int] | None:
    context = api.get_current_span().get_span_context()
    return (context.trace_id, context.span_id) if context.is_valid else None


_SPANS: Final = Spans(_current)


def _require() -> None:
    if api is None:
        raise ConfigurationError(f"opentelemetry-sdk cannot be imported: {install_hint('otel')}.")


class WhyOpsSpanProcessor(SpanProcessor):
    """
    A span processor that records what spans tell: turns of models, tool calls, agents and steps.

    A span inside an open trace, step or call belongs to that; any other one makes a trace, whose id is that of the
    span's. Decorated functions, steps and traced clients that run in a span are inside it.

    Args:
        sdk: The client that records spans outside any trace; the default one if it is left out.

    Raises:
        ConfigurationError: if ``opentelemetry-sdk`` is not installed.

    Example::

        provider = TracerProvider()
        provider.add_span_processor(WhyOpsSpanProcessor())
    """

    def __init__(self, sdk: WhyOps | None = None) -> None:
        _require()
        self._sdk = sdk
        recorders.expect_layers()

    @guarded("recording the start of a span")
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Record the start of a span, if it tells what it is."""
        _SPANS.start(span, self._recorder)

    @guarded("recording the end of a span")
    def on_end(self, span: ReadableSpan) -> None:
        """Record the end of a span."""
        _SPANS.end(span)

    def shutdown(self) -> None:
        """Do nothing: the client of the spans goes on, and delivers at its own end."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until what the client recorded is delivered; return False if that takes longer."""
        flush = default.flush_sync if self._sdk is None else self._sdk.flush_sync
        return not any(tally.pending for tally in flush(timeout_millis / 1_000).values())

    def _recorder(self) -> Recorder | None:
        return default.default_recorder() if self._sdk is None else self._sdk.recorder


class _Attached(WhyOpsSpanProcessor):
    """The processor of a provider that was attached to: nothing can be taken out of a provider, so it goes quiet."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if _attachments:
            super().on_start(span, parent_context)

    def _recorder(self) -> Recorder | None:
        self._sdk = _attachments[-1].sdk if _attachments else None
        return super()._recorder()


_attachments: list[Attachment] = []
#: The providers that have a processor of an attachment.
_attached: WeakSet[object] = WeakSet()


def attach(sdk: WhyOps | None = None) -> Attachment:
    """
    Record the spans of the global tracer provider, of whatever framework or instrumentation.

    A provider is made only if there is none. What the program itself exports stays as it is.

    Args:
        sdk: The client that records spans outside any trace; the default one if it is left out.

    Returns:
        The attachment, whose ``detach()`` ends it. It is a context manager as well.

    Raises:
        ConfigurationError: if ``opentelemetry-sdk`` is not installed, or the global tracer provider takes no span
            processors.

    Example::

        otel.attach()
        agent.run_sync("Where is parcel 7?")  # of any framework that emits spans
    """
    _require()
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider):
        provider = TracerProvider()
        api.set_tracer_provider(provider)
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        raise ConfigurationError(
            f"The global tracer provider is {provider!r:.80}, which takes no span processors; attach before it is set,"
            " or set a TracerProvider of opentelemetry-sdk."
        )
    attachment = Attachment(_attachments, sdk)
    if provider not in _attached:
        _attached.add(provider)
        add(_Attached())
    return attachment
