"""Checks of the receiver of OTLP, if spans are exported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

from whyops_trace._delivery.destinations import otlp_destinations
from whyops_trace._reading.excerpt import clean, duration
from whyops_trace.commands.diagnosis import Finding
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.exporters._http import NoAnswerError
from whyops_trace.exporters.otlp import OtlpExporter
from whyops_trace.exporters.otlp.retry import Refused, Wait, decide
from whyops_trace.settings import Settings


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


def _asked(exporter: OtlpExporter) -> Finding:
    endpoint = exporter.settings.endpoint
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
