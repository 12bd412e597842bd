"""Checks of the receiver of OTLP, if spans are exported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from whyops_trace._delivery.destinations import otlp_destinations
from whyops_trace._home import command_line
from whyops_trace._reading.excerpt import clean, duration
from whyops_trace.commands.diagnosis import Finding
from whyops_trace.exceptions import ConfigurationError, StoreError
from whyops_trace.exporters._http import NoAnswerError
from whyops_trace.exporters.otlp import OtlpExporter
from whyops_trace.exporters.otlp.retry import Refused, Wait, decide
from whyops_trace.server.forwarding import status_of
from whyops_trace.settings import Settings, shown_url

#: Seconds without a request after which nobody forwards.
_SILENT: Final = 60.0


def receiver(settings: Settings) -> Iterator[Finding]:
    """Check that the receiver takes a request, which has no spans."""
    try:
        exporters = otlp_destinations(settings)
    except ConfigurationError as error:
        yield Finding("otlp", "problem", str(error))
        return
    for exporter in exporters:
        yield _asked(exporter)
        content = exporter.settings.content
        advice = "" if content else "WHYOPS_OTLP_CONTENT=on exports messages, arguments and results as well."
        yield Finding(
            "otlp content", "ok", "Content is exported." if content else "No content is exported.", advice
        )


def forwards(home: Path) -> Iterator[Finding]:
    """Check how far each receiver is that ``whyops-trace serve`` forwards to."""
    try:
        receivers = status_of(home)
    except StoreError as error:
        yield Finding("forward", "problem", str(error), "Until then nothing is forwarded.")
        return
    for each in receivers:
        url = shown_url(each.url)
        told = f"{clean(url)} took {each.forwarded:,}, rejected {each.rejected:,}; {each.pending:,} wait"
        told += f", the oldest for {duration(each.oldest_seconds * 1000)}" if each.pending else ""
        dropped = f"; {each.dropped:,} were dropped before, for their age or for room" if each.dropped else ""
        advice = ""
        if each.error:
            advice = clean(each.error)
        elif each.pending and each.seen_seconds > _SILENT:
            advice = command_line("serve", "--forward", url, home=home) + " goes on."
        is_fine = not (advice or each.dropped)
        yield Finding("forward", "ok" if is_fine else "warning", f"{told}{dropped}.", advice)


def _asked(exporter: OtlpExporter) -> Finding:
    endpoint = exporter.settings.shown
    started = time.perf_counter()
    with closing(exporter.http()) as http:
        try:
            answer = http.post("", exporter.empty_request(), timeout=exporter.settings.timeout)
        except NoAnswerError as error:
            advice = "Check OTEL_EXPORTER_OTLP_ENDPOINT and the network; spans wait in the journal meanwhile."
            return Finding("otlp", "problem", f"{clean(str(error))}.", advice)
    decision = decide(answer, attempt=1, now=datetime.now(UTC), chance=0.0)
    took = duration((time.perf_counter() - started) * 1000)
    if isinstance(decision, Wait):
        return Finding("otlp", "problem", f"{endpoint}: {decision.why}")
    if isinstance(decision, Refused) and answer.status not in (
        400,
        422,
    ):  # some take no request without spans
        return Finding("otlp", "problem", f"{endpoint} refuses a request: {decision.words}")
    return Finding("otlp", "ok", f"{endpoint} takes spans; it answered in {took}.")
