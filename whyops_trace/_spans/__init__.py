"""
Spans of OpenTelemetry that run in this process, recorded as they begin and end.

What a span tells is read by ``_otel``; here it gets its place among the calls and steps of its trace.
"""
