"""The destinations of a client, and the workers that carry records there. Each loads what it needs when it is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from whyops_trace._delivery.worker import Delivery
from whyops_trace._guard import attempt
from whyops_trace._home import STORE_FILE, WAITING_FILE
from whyops_trace._journal.journal import Journal
from whyops_trace._recording.recorder import Recorder
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.exporters.base import Exporter
from whyops_trace.settings import Settings, otlp_endpoint
from whyops_trace.types import AgentMetadata

if TYPE_CHECKING:
    from whyops_trace._delivery.sampler import Sampler
    from whyops_trace.exporters.otlp import OtlpExporter
    from whyops_trace.exporters.whyops import WhyOpsExporter


def server_of(settings: Settings, agent: AgentMetadata | None) -> WhyOpsExporter | None:
    """Return the WhyOps server that settings name, None if records go to none."""
    if not settings.server:
        return None
    from whyops_trace.exporters.whyops import WhyOpsExporter

    return WhyOpsExporter(settings, agent=agent)


def destinations_of(
    settings: Settings, server: WhyOpsExporter | None, more: Sequence[Exporter]
) -> list[Exporter]:
    """
    Return the destinations of a client; none if tracing is off.

    Args:
        settings: Name some of them.
        server: The WhyOps server; None if there is none.
        more: Those of the user.

    Raises:
        ConfigurationError: if two have the same name.
    """
    if settings.tracing == "off":
        return []
    own: list[Exporter] = [server] if server else []
    destinations = [*_local_destinations(settings), *own, *otlp_destinations(settings), *more]
    names = [exporter.name for exporter in destinations]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"Two exporters have the same name: {', '.join(sorted(names))}.")
    return destinations


def deliveries_of(
    destinations: Sequence[Exporter],
    settings: Settings,
    recorder: Recorder,
    journal: Journal,
    server: WhyOpsExporter | None,
) -> list[Delivery]:
    """
    Return the workers of a client: one for all destinations on this machine, and one for each that is remote.

    Args:
        destinations: The destinations.
        settings: The home, and the choice of traces for remote destinations.
        recorder: Wakes the workers.
        journal: Holds the records.
        server: The WhyOps server among the destinations; None if there is none.
    """
    local = [exporter for exporter in destinations if not exporter.remote]
    return [
        *([Delivery(recorder, journal, local)] if local else []),
        *(
            Delivery(
                recorder, journal, [exporter], _samplers_of(exporter, settings, recorder, journal, server)
            )
            for exporter in destinations
            if exporter.remote
        ),
    ]


def _local_destinations(settings: Settings) -> list[Exporter]:
    """Return the store and the console, as far as settings ask for them."""
    exporters: list[Exporter] = []
    if settings.store:
        from whyops_trace.exporters.local import LocalExporter

        exporters.append(LocalExporter(settings.home / STORE_FILE, retention=settings.retention))
    if settings.console:
        from whyops_trace.exporters.console import ConsoleExporter

        exporters.append(ConsoleExporter())
    return exporters


def otlp_destinations(settings: Settings) -> list[OtlpExporter]:
    """Return the receiver of spans of OpenTelemetry, if settings name one."""
    if not settings.otlp:
        return []
    from whyops_trace.exporters.otlp import OtlpExporter

    by_variables, _ = attempt(otlp_endpoint, True)
    return [OtlpExporter(None if settings.otlp == by_variables else settings.otlp, home=settings.home)]


def _samplers_of(
    exporter: Exporter,
    settings: Settings,
    recorder: Recorder,
    journal: Journal,
    server: WhyOpsExporter | None,
) -> list[Sampler]:
    """Return the way of records to a remote destination that gets the traces of some outcomes; none if it gets all."""
    choice = settings.tail_sampling
    # Without a choice, something may be left from when there was one.
    if exporter.ephemeral or (choice is None and not os.path.exists(settings.home / WAITING_FILE)):
        return []
    from whyops_trace._delivery.sampler import Sampler

    make = partial(
        Sampler,
        exporter,
        journal,
        home=settings.home,
        stream=journal.stream,
        choice=choice,
        states=recorder.traces.get,
    )
    if server is None or exporter is not server:
        return [make()]
    return [make(is_shared=server.turns.reports, takes=server.takes)]
