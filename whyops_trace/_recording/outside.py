"""The span of OpenTelemetry in which the running code stands, for traces that begin there."""

from __future__ import annotations

import sys
from typing import Any

from whyops_trace._guard import attempt


def active_span() -> tuple[str, str] | None:
    """Return the trace id and the span id of the current span as hexadecimal digits; None without one."""
    api = sys.modules.get("opentelemetry.trace")
    return None if api is None else attempt(_ids, api)[0]


def _ids(api: Any) -> tuple[str, str] | None:
    context = api.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
