"""The destinations that the settings of a client name. Each loads what it needs when it is made."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from whyops_trace._guard import say
from whyops_trace._home import STORE_FILE
from whyops_trace.exporters.base import Exporter
from whyops_trace.settings import Settings
from whyops_trace.types import AgentMetadata, Ledger

if TYPE_CHECKING:
    from whyops_trace.exporters.whyops import WhyOpsExporter


def server_of(settings: Settings, agent: AgentMetadata | None) -> WhyOpsExporter | None:
    """Return the WhyOps server that settings name, None if records go to none."""
    if not settings.server:
        return None
    from whyops_trace.exporters.whyops import WhyOpsExporter

    return WhyOpsExporter(settings, agent=agent)


def local_destinations(settings: Settings) -> list[Exporter]:
    """Return the store and the console, as far as settings ask for them."""
    exporters: list[Exporter] = []
    if settings.store:
        from whyops_trace.exporters.local import LocalExporter

        exporters.append(LocalExporter(settings.home / STORE_FILE, retention=settings.retention))
    if settings.console:
        from whyops_trace.exporters.console import ConsoleExporter

        exporters.append(ConsoleExporter())
    return exporters


def say_what_is_left(ledger: Ledger, server: WhyOpsExporter | None, home: Path) -> None:
    """Log of each destination what it has not got, and why."""
    for name, tally in ledger.items():
        if tally.pending:
            say(
                logging.WARNING,
                "%s: %d records are not delivered yet; they stay in %s for the next process.",
                name,
                tally.pending,
                home,
            )
        if tally.sampled_out and server is not None and name == server.name:
            say(
                logging.WARNING,
                "%s: the server did not keep %d of %d records. %s",
                name,
                tally.sampled_out,
                tally.emitted,
                server.remedy(),
            )
        if tally.dropped:
            reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.items())
            say(logging.WARNING, "%s: %d records were dropped: %s.", name, tally.dropped, reasons)
