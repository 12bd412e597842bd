"""The server of ``whyops-trace serve``: a collector with the API of a WhyOps server, and pages that show traces."""

from __future__ import annotations

from urllib.parse import quote


def trace_url(trace_id: str) -> str:
    """Return the path of the page of a trace."""
    return f"/t/{quote(trace_id, safe='', errors='replace')}"
