"""The destinations that the settings of a client name. Each loads what it needs when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyops_trace._guard import attempt
from whyops_trace._home import STORE_FILE
from whyops_trace.exporters.base import Exporter
from whyops_trace.settings import Settings, otlp_endpoint
from whyops_trace.types import AgentMetadata

if TYPE_CHECKING:
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
