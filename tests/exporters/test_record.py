"""A record as an exporter reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lines import Process, encoded, tool_request

from whyops_trace import WhyOps, traced_tool
from whyops_trace.exporters import Audience, Batch, Exporter, Outcome, Record
from whyops_trace.testing import ManualClock

TOKEN = "9f2c41aa01be"


class Keeping(Exporter):
    """Keeps all records."""

    name = "keeping"
    ephemeral = True

    def __init__(self) -> None:
        self.records: list[Record] = []

    def export(self, batch: Batch) -> list[Outcome]:
        self.records += batch.records
        return [Outcome.DELIVERED] * len(batch.records)


@traced_tool
def charge(amount: int) -> dict[str, Any]:
    return {"id": "ch_1"}


def recorded(home: Path, trace_id: str | None = "order-1") -> tuple[WhyOps, list[Record]]:
    """Return the records of a trace with one call of a tool, and the client that made them."""
    keeping = Keeping()
    sdk = WhyOps(agent_name="shop", home=home, clock=ManualClock(), store=False, exporters=[keeping])
    with sdk.trace(trace_id, external_user_id="user-1"):
        charge(4999)
    sdk.flush_sync()
    return sdk, keeping.records


def test_a_record_tells_all_there_is_to_an_event(tmp_path: Path) -> None:
    """Each member of the line under a name of its own."""
    sdk, (request, response, end) = recorded(tmp_path)
    token = sdk.recorder.token
    read = {name: getattr(response, name) for name in dir(Record) if not name.startswith("_")}

    assert request.span_id == response.span_id
    assert read == {
        "raw": response.raw,
        "process": token,
        "type": "tool_call_response",
        "trace_id": "order-1",
        "numbering": f"{token}-1",
        "step": 2,
        "parent": 1,
        "within": 1,
        "span_id": request.span_id,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "metadata": {"within": 1, "tool": "charge", "latencyMs": 0},
        "content": {"toolCalls": [{"name": "charge"}], "toolResults": {"id": "ch_1"}},
        "agent_name": "shop",
        "external_user_id": "user-1",
        "idempotency_key": f"{token}-2",
        "audience": Audience.EVERYONE,
        "ends_trace": False,
    }
    assert (end.type, end.step, end.span_id, end.ends_trace) == ("trace_end", 1, None, True)
    assert response.raw.startswith(b'{"eventType":"tool_call_response","traceId":"order-1"')


def test_what_a_record_does_not_have_is_none(tmp_path: Path) -> None:
    """The first event follows from nothing; an id that was made up has one numbering; nobody told the user."""
    record = Record(Process().line("error", 1), TOKEN)

    assert (record.parent, record.numbering, record.external_user_id, record.within) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("end", "audience", "ends_trace"),
    [
        (b"}", Audience.EVERYONE, False),
        (b',"end":true}', Audience.EVERYONE, True),
        (b',"for":"local"}', Audience.LOCAL, False),
        (b',"for":"server","end":true}', Audience.SERVER, True),
    ],
)
def test_a_record_tells_whom_it_is_for(end: bytes, audience: Audience, ends_trace: bool) -> None:
    """And whether its trace is over."""
    record = Record(Process().line("error", 1).removesuffix(b"}") + end, TOKEN)

    assert (record.audience, record.ends_trace) == (audience, ends_trace)


@pytest.mark.parametrize(
    "line",
    [b"junk", b"[]", b'{"eventType":"error"}', b'{"eventType":7}', b"\xff", b'{"content":' + b"[" * 100_000],
    ids=["text", "a list", "no trace", "a number", "no text", "too deep"],
)
def test_what_is_no_record_is_a_value_error(line: bytes) -> None:
    """Its bytes can be had all the same."""
    record = Record(line, TOKEN)
    with pytest.raises(ValueError, match="is no record"):
        record.content  # noqa: B018

    assert (record.raw, record.process) == (line, TOKEN)
    assert repr(record).startswith("<Record b'")


def test_a_batch_has_its_records_in_order_and_makes_them_once() -> None:
    """What was decoded for one reader is there for the next."""
    process = Process()
    batch = Batch(TOKEN, [encoded(tool_request(process, step)) for step in (1, 2, 3)])

    assert [record.step for record in batch.records] == [1, 2, 3]
    assert batch.records is batch.records
    assert [record.raw for record in batch.records] == list(batch.lines)
