"""
The CPU of a span until it is delivered, beside that of the SDK of OpenTelemetry: ``python tests/bench/otlp.py``.

Both record tool calls with six attributes and post them to a receiver in another process; of this library the time of
the call itself is told apart. It needs ``opentelemetry-exporter-otlp-proto-http``. The least of several runs counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from whyops_trace import WhyOps, traced_tool
from whyops_trace.exporters import Batch, Exporter, Outcome
from whyops_trace.exporters.otlp import OtlpExporter

SPANS, RUNS = 5_000, 5
RECEIVER = Path(__file__).with_name("receiving.py")


class Nothing(Exporter):
    """Takes all and does nothing."""

    name = "nothing"
    remote = True

    def export(self, batch: Batch) -> list[Outcome]:
        return [Outcome.DELIVERED] * len(batch.lines)


@traced_tool
def add(a: int, b: int) -> int:
    return a + b


def ours(exporter: Exporter) -> float:
    """Return the CPU of a call with its delivery, in microseconds."""
    sdk = WhyOps(agent_name="bench", store=False, home=tempfile.mkdtemp(), exporters=[exporter])
    with sdk.trace("warm"):
        add(1, 2)
    sdk.flush_sync()
    started = time.process_time()
    with sdk.trace("bench"):
        for number in range(SPANS):
            add(number, 1)
    ledger = sdk.flush_sync(timeout=60)[exporter.name]
    spent = time.process_time() - started
    assert ledger.delivered == ledger.emitted
    sdk.close_sync()
    return spent / SPANS * 1e6


def theirs(url: str) -> float:
    """Return the CPU of a span with its delivery, in microseconds."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=2 * SPANS, schedule_delay_millis=100)
    )
    tracer = provider.get_tracer("bench")
    started = time.process_time()
    for number in range(SPANS):
        with tracer.start_as_current_span("execute_tool add") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", "add")
            span.set_attribute("gen_ai.tool.type", "function")
            span.set_attribute("gen_ai.tool.call.arguments", json.dumps({"a": number, "b": 1}))
            span.set_attribute("gen_ai.tool.call.result", str(number + 1))
            span.set_attribute("step", number)
    provider.force_flush(60_000)
    spent = time.process_time() - started
    provider.shutdown()
    return spent / SPANS * 1e6


def main() -> None:
    """Print the figures."""
    os.environ["WHYOPS_SAMPLE_RATE"] = "1"
    with subprocess.Popen([sys.executable, RECEIVER], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}"
        figures: dict[str, list[float]] = {"call": [], "exported": [], "SDK": []}
        try:
            for _ in range(RUNS):
                figures["call"].append(ours(Nothing()))
                figures["exported"].append(ours(OtlpExporter(url, content=True, home=tempfile.mkdtemp())))
                figures["SDK"].append(theirs(url))
        finally:
            receiver.kill()
    least = {name: min(times) for name, times in figures.items()}
    print(f"a traced call that is recorded          {least['call']:6.1f} us")
    print(f"the same, exported as a span            {least['exported']:6.1f} us")
    print(f"  of which for the span                 {least['exported'] - least['call']:6.1f} us")
    print(f"a span of the SDK, batched and exported {least['SDK']:6.1f} us")


if __name__ == "__main__":
    main()
