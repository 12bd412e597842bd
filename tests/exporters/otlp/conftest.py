"""A receiver of OTLP for each test, and a client that exports to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from receiver import Receiver

from whyops_trace import WhyOps
from whyops_trace.exporters.otlp import OtlpExporter


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test without the variables of OpenTelemetry that its machine may have."""
    for variable in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver for the test."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def client(receiver: Receiver) -> Callable[..., WhyOps]:
    """Return a function that makes a client, which exports with the options that are given, content included."""

    def make(url: str = "", **options: Any) -> WhyOps:
        exporter = OtlpExporter(url or receiver.url, **{"content": True, **options})
        return WhyOps(agent_name="shop", store=False, exporters=[exporter])

    return make
