"""
A WhyOps server as a destination.

Its modules send events, number them as the server does, register the agent, decide after a refusal, and keep the
server's answers that are needed later.
"""

from whyops_trace.exporters.whyops.exporter import WhyOpsExporter

__all__ = ["WhyOpsExporter"]
