"""
The destinations of records: one module for each, so that nobody loads what they do not use.

:mod:`.local` (a SQLite file), :mod:`.whyops` (a server), :mod:`.console` (a tree on a terminal) and :mod:`.memory`
(a list) share the base class :class:`Exporter`.
"""

from whyops_trace.exporters.base import Batch, Exporter, Outcome

__all__ = ["Batch", "Exporter", "Outcome"]
