"""
The destinations of records, each in a module of its own, so that a program loads only the ones it uses.

:mod:`.local` (a SQLite file), :mod:`.whyops` (a server), :mod:`.console` (a tree on a terminal) and :mod:`.memory`
(a list) share the base class :class:`Exporter`, from which you derive your own.
"""

from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.record import Record
from whyops_trace.types import Audience

__all__ = ["Audience", "Batch", "Exporter", "Outcome", "Record"]
