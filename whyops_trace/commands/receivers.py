"""The receivers that ``whyops-trace serve`` forwards to."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from whyops_trace.exceptions import ConfigurationError
from whyops_trace.settings import otlp_endpoint

if TYPE_CHECKING:
    from whyops_trace.exporters.otlp.forwarding import ForwardExporter


def forward_exporters(
    receivers: Sequence[str], headers: Sequence[str], content: bool | None, home: Path
) -> list[ForwardExporter]:
    """
    Return what forwards to receivers.

    Args:
        receivers: Their URLs, or ``on`` for the one that the variables of OpenTelemetry name.
        headers: Headers for them, as ``NAME=VALUE``; none for those of the variables.
        content: Whether messages, arguments and results are forwarded; None for what the variable says.
        home: The home.

    Raises:
        click.UsageError: if a setting cannot be obeyed.
    """
    if not receivers:
        if headers or content is not None:
            raise click.UsageError(
                "--forward-header and --forward-content take effect with --forward URL only."
            )
        return []
    # This module takes longer to load than most commands to run.
    from whyops_trace.exporters.otlp.forwarding import ForwardExporter

    pairs = dict(_pair(header) for header in headers) or None
    exporters: list[ForwardExporter] = []
    for url in receivers:
        try:
            otlp_endpoint(url if (is_told := url != "on") else True, "the URL")
            exporters.append(
                ForwardExporter(url if is_told else None, headers=pairs, content=content, home=home)
            )
        except ConfigurationError as error:
            raise click.UsageError(f"--forward: {error}") from error
    by_url = {exporter.settings.endpoint: exporter for exporter in exporters}
    return list(by_url.values())


def _pair(header: str) -> tuple[str, str]:
    name, equals, value = header.partition("=")
    if not (equals and name.strip()):
        # It may be a key, so it is not told.
        raise click.UsageError("--forward-header takes NAME=VALUE, such as Authorization='Bearer KEY'.")
    return name.strip(), value


def check_receivers(exporters: Sequence[ForwardExporter], port: int, names: Sequence[str]) -> None:
    """
    Check that a server on this machine does not forward to itself, which would go round for ever.

    Args:
        exporters: What forwards.
        port: The port of the server.
        names: Names of this machine, beside localhost.

    Raises:
        click.UsageError: if it would.
    """
    for exporter in exporters:
        address = urlsplit(exporter.settings.endpoint)
        at = address.port or (443 if address.scheme == "https" else 80)
        host = (address.hostname or "").rstrip(".")
        if at == port and (host in map(str.lower, names) or _is_here(host)):
            raise click.UsageError(f"--forward {exporter.settings.shown} is this server itself.")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or (ip := ipaddress.ip_address(host)).is_loopback or ip.is_unspecified
    except ValueError:
        return False
