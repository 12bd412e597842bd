"""
Where records go: one module for each destination, so that nobody loads what they do not use.

:mod:`.local` (a SQLite file), :mod:`.console` (a tree on a terminal) and :mod:`.memory` (a list) share the
base class :class:`Exporter`.
"""

from whyops_trace.exporters.base import Batch, Exporter, Outcome

__all__ = ["Batch", "Exporter", "Outcome"]
