"""
The destination of spans of OpenTelemetry: a collector, or any backend that takes OTLP over HTTP.

``WhyOps(otlp=True)`` and ``WHYOPS_OTLP=on`` use it; an :class:`OtlpExporter` made by hand has more options.
"""

from whyops_trace.exporters.otlp.exporter import OtlpExporter
from whyops_trace.exporters.otlp.settings import OtlpSettings

__all__ = ["OtlpExporter", "OtlpSettings"]
