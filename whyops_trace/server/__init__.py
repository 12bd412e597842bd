"""What ``whyops-trace serve`` runs: a collector that answers as a WhyOps server does, and pages that show traces."""

from __future__ import annotations

from urllib.parse import quote


def trace_url(trace_id: str) -> str:
    """Return the address of the page of a trace, without the server's."""
    return f"/t/{quote(trace_id, safe='', errors='replace')}"
