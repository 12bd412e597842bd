"""
Spans of OpenTelemetry that run in this process, recorded as they begin and end.

The attributes of a span are read by ``_otel``; here the span gets its place among the calls and steps of its trace.
"""
