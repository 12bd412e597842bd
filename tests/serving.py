"""How tests deliver to a server of their own: clients, exporters, lines, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from lines import Process, encoded
from wire import Request, Row

from whyops_trace import WhyOps
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Outcome
from whyops_trace.exporters.whyops import WhyOpsExporter
from whyops_trace.settings import resolve
from whyops_trace.types import Tally

KEY = "whyops_test"
TOKEN = "9f2c41aa01be"
DELIVERED, REJECTED = Outcome.DELIVERED, Outcome.REJECTED
SAMPLED_OUT, WITHHELD = Outcome.SAMPLED_OUT, Outcome.WITHHELD


def client(collector: Collector, home: Path | None = None, **options: Any) -> WhyOps:
    """A client of a collector; in the home of the test unless told otherwise."""
    options = {"agent_name": "shop", "proxy_base_url": collector.proxy_url, **options}
    return WhyOps(options.pop("api_key", KEY), analyse_base_url=collector.url, home=home, **options)


def exporter(collector: Collector, home: Path, *, proxy: str | None = None, **options: Any) -> WhyOpsExporter:
    """An exporter to a collector."""
    settings = resolve(
        api_key=KEY,
        agent_name="shop",
        proxy_base_url=proxy or collector.proxy_url,
        analyse_base_url=collector.url,
        home=home,
        tracing="on",
        store=False,
        console=False,
    )
    return WhyOpsExporter(settings, **options)


def messages(count: int, trace: str = "t", *, run: str | None = None, size: int = 0) -> list[bytes]:
    """Some events of one trace, which follow from one another."""
    process = Process(TOKEN, trace, run)
    return [
        process.line("user_message", n, n - 1 or None, at=n, content={"n": n, "pad": "x" * size})
        for n in range(1, count + 1)
    ]


def conversations(traces: int, count: int) -> list[bytes]:
    """Some events of each of some traces whose ids a user chose, one trace after the other."""
    lines = []
    for number in range(traces):
        process = Process(TOKEN, f"conversation-{number}", f"{TOKEN}-{number + 1}")
        for n in range(1, count + 1):
            event = process.event("user_message", n, n - 1 or None, at=n)
            event["idempotencyKey"] = f"{TOKEN}-{number * count + n}"
            lines.append(encoded(event))
    return lines


def deliver(
    to: WhyOpsExporter, lines: Sequence[bytes], token: str = TOKEN, *, adopted: bool = False
) -> list[Outcome]:
    """Hand lines over as a worker does that never waits: the rest again, until all are taken."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(lines):
        outcomes += export(to, lines[len(outcomes) :], token, adopted=adopted)
    return outcomes


def export(
    to: WhyOpsExporter, lines: Sequence[bytes], token: str = TOKEN, *, adopted: bool = False
) -> Sequence[Outcome]:
    """Hand lines over once."""
    return to.export(Batch(token, list(lines), adopted))


def refuses(to: WhyOpsExporter, lines: Sequence[bytes], token: str = TOKEN) -> DeliveryError:
    """Hand lines over once, none of which is taken; return why."""
    with pytest.raises(DeliveryError) as caught:
        export(to, lines, token)
    return caught.value


def persist(
    to: WhyOpsExporter, lines: Sequence[bytes], tries: int = 50, *, token: str = TOKEN
) -> list[Outcome]:
    """Hand lines over as a worker does, without its waits."""
    outcomes: list[Outcome] = []
    for _ in range(tries):
        try:
            outcomes += export(to, lines[len(outcomes) :], token)
        except DeliveryError:
            continue
        if len(outcomes) == len(lines):
            return outcomes
    raise AssertionError(
        f"{len(lines) - len(outcomes)} of {len(lines)} lines are not taken after {tries} tries"
    )


def posts(collector: Collector) -> list[Request]:
    """The requests that brought events."""
    return [
        request for request in collector.requests if (request.method, request.path) == ("POST", "/api/events")
    ]


def sent(collector: Collector) -> Iterator[dict[str, Any]]:
    """Every event that was sent, as often as it was."""
    for request in posts(collector):
        yield from request.json


def keys(rows: Iterable[Row]) -> list[str]:
    """The idempotency keys of rows that are stored."""
    return [row["metadata"]["idempotencyKey"] for row in rows]


def numbers(rows: Iterable[Row]) -> list[tuple[int, int | None]]:
    """The step and parent of each row."""
    return [(row["stepId"], row["parentStepId"]) for row in rows]


def tally(sdk: WhyOps, timeout: float = 30.0) -> Tally:
    """Flush, and return what became of everything at the server; the ledger always adds up."""
    whyops = sdk.flush_sync(timeout)["whyops"]

    assert whyops.emitted == sum(whyops[1:6])
    return whyops


def dead_letters(home: Path) -> list[dict[str, Any]]:
    """What was refused for good."""
    path = home / "rejected.ndjson"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
