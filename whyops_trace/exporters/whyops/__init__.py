"""
A WhyOps server as a destination: everything that speaks to one.

Events, their numbers there, the agent's registration, what to do when it refuses, what it said that must be kept.
"""

from whyops_trace.exporters.whyops.exporter import WhyOpsExporter

__all__ = ["WhyOpsExporter"]
