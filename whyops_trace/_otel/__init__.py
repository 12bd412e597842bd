"""
Spans of OpenTelemetry as turns, tool calls, agents and steps.

A span is read from the wire (``span``, ``protobuf``), understood by the dialect of whoever made it (``dialects``), and
seen with the other spans of its trace (``trace``). Nothing here does any I/O.
"""
