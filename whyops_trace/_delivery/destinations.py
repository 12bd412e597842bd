"""The destinations that the settings of a client name. Each loads what it needs when it is made."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from whyops_trace._guard import attempt
from whyops_trace._home import STORE_FILE, WAITING_FILE
from whyops_trace.exporters.base import Exporter
from whyops_trace.settings import Settings, otlp_endpoint
from whyops_trace.types import AgentMetadata

if TYPE_CHECKING:
    from whyops_trace._delivery.sampler import Sampler
    from whyops_trace._journal.journal import Journal
    from whyops_trace._recording.recorder import Recorder
    from whyops_trace.exporters.otlp import OtlpExporter
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


def otlp_destinations(settings: Settings) -> list[OtlpExporter]:
    """Return the receiver of spans of OpenTelemetry, if settings name one."""
    if not settings.otlp:
        return []
    from whyops_trace.exporters.otlp import OtlpExporter

    by_variables, _ = attempt(otlp_endpoint, True)
    return [OtlpExporter(None if settings.otlp == by_variables else settings.otlp, home=settings.home)]


def samplers_of(
    exporter: Exporter,
    settings: Settings,
    recorder: Recorder,
    journal: Journal,
    stream: str,
    server: WhyOpsExporter | None,
) -> list[Sampler]:
    """
    Return the way of records to a destination that gets the traces of some outcomes only; none if it gets all.

    Args:
        exporter: The destination.
        settings: The choice of traces, and the home.
        recorder: Knows what of a trace is open.
        journal: The journal that the records come from.
        stream: The name of its stream.
        server: The WhyOps server, to which a proxy reports as well; None if there is none.
    """
    choice = settings.tail_sampling
    if not exporter.remote or exporter.ephemeral:
        return []
    if choice is None and not os.path.exists(
        settings.home / WAITING_FILE
    ):  # left from when there was a choice
        return []
    from whyops_trace._delivery.sampler import Sampler

    make = partial(
        Sampler,
        exporter,
        journal,
        home=settings.home,
        stream=stream,
        choice=choice,
        states=recorder.traces.get,
    )
    if server is None or exporter is not server:
        return [make()]
    return [make(is_shared=server.turns.reports, takes=server.takes)]
