"""
Any value made safe bytes: JSON of whatever it is, without secrets, within a size.

Exceptions are values as well. Nothing here knows of traces or records.
"""
