"""
Any value as safe bytes: JSON without secrets, within a size.

Exceptions are values as well. Nothing here knows of traces or records.
"""
