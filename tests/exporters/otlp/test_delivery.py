"""What becomes of spans at a receiver that fails, refuses, or is away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from receiver import Cut, Fault, Hang, Partial, Receiver, Refuse

from whyops_trace import Tally, WhyOps, trace, traced_tool
from whyops_trace.exporters._http import Answer
from whyops_trace.exporters.otlp import OtlpExporter, exporter
from whyops_trace.exporters.otlp import retry as retry_module

Make = Callable[..., WhyOps]
Said = Callable[[], list[str]]


@traced_tool
def work(number: Any) -> Any:
    return number


def numbers(receiver: Receiver) -> list[str]:
    """Return the arguments of the calls that arrived, repeats included."""
    return [span.attributes["gen_ai.tool.call.arguments"] for span in receiver.arrived]


def expected(*which: int) -> list[str]:
    return [f'{{"number":{number}}}' for number in which]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for long, so that the tests do not."""
    monkeypatch.setattr("whyops_trace.exporters.base.FIRST_BACKOFF", 0.01)
    monkeypatch.setattr("whyops_trace.exporters.base.LAST_BACKOFF", 0.05)
    monkeypatch.setattr(retry_module, "LONG_WAIT", 0.05)


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(503, {"Retry-After": "0"}), Refuse(429), Refuse(502), Refuse(504), Refuse(500), Refuse(408),
        Refuse(401), Refuse(403), Refuse(404), Refuse(415), Refuse(302), Cut("request"),
    ],
    ids=str,
)  # fmt: skip
def test_spans_wait_for_a_receiver_that_takes_nothing(receiver: Receiver, client: Make, fault: Fault) -> None:
    """They come once it does, each once; the ledger adds up."""
    receiver.fail(fault, fault)
    sdk = client()
    for number in range(5):
        work(number)
    ledger = sdk.flush_sync()

    assert numbers(receiver) == expected(*range(5))
    assert ledger["otlp"] == Tally(10, 10, 0, 0, 0, 0)
    assert len(receiver.requests) == 3


def test_spans_outlast_a_receiver_that_fails(receiver: Receiver, client: Make) -> None:
    """Its database may be away: with a 500 for all nothing is rejected, however many spans it gets apart."""
    receiver.fail(*[Refuse(500)] * 15)
    sdk = client()
    for number in range(5):
        work(number)
    ledger = sdk.flush_sync()

    assert sorted(numbers(receiver)) == expected(*range(5))
    assert ledger["otlp"] == Tally(10, 10, 0, 0, 0, 0)


def test_a_span_that_a_receiver_fails_at_is_rejected(receiver: Receiver, client: Make) -> None:
    """Beside others that it takes, or alone after many tries; it is counted."""
    receiver.poison = b'{"number":3}'
    sdk = client()
    for number in range(5):
        work(number)
    beside = sdk.flush_sync()["otlp"]
    work(3)
    alone = sdk.flush_sync(timeout=20)["otlp"]

    assert sorted(numbers(receiver)) == expected(0, 1, 2, 4)
    assert beside == Tally(10, 9, 0, 0, 1, 0)
    assert alone == Tally(12, 10, 0, 0, 2, 0)


def test_a_span_that_comes_again_is_the_same(receiver: Receiver, client: Make) -> None:
    """The connection broke after the receiver had it, and so it comes twice, with the same ids and content."""
    receiver.fail(Cut("answer"))
    sdk = client()
    work(1)
    sdk.flush_sync()
    first, second = receiver.arrived

    assert first == second


def test_what_a_receiver_rejects_in_part_is_counted(receiver: Receiver, client: Make, said: Said) -> None:
    """The rest is delivered, and its words are logged."""
    receiver.fail(Partial(2, "attribute limit"))
    sdk = client()
    for number in range(5):
        work(number)
    ledger = sdk.flush_sync()

    assert ledger["otlp"] == Tally(10, 8, 0, 0, 2, 0)
    assert any("rejected 2 spans" in text and "attribute limit" in text for text in said())


def test_a_refused_request_is_sent_in_parts(
    receiver: Receiver, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is refused alone is rejected; a smaller body may be taken."""
    receiver.fail(Refuse(400, body=b"bad span"), None, Refuse(400), None, Refuse(400, body=b"bad span"))
    sdk = client()
    sdk.flush_sync()
    for number in range(4):
        work(number)
    ledger = sdk.flush_sync()

    assert numbers(receiver) == expected(0, 1, 2)
    assert ledger["otlp"] == Tally(8, 7, 0, 0, 1, 0)


def test_a_body_that_is_too_large_is_halved(receiver: Receiver, client: Make) -> None:
    """Until the receiver takes it."""
    receiver.largest = 4_000
    sdk = client()
    for number in range(60):
        work(number)
    ledger = sdk.flush_sync()

    assert sorted(numbers(receiver)) == sorted(expected(*range(60)))
    assert ledger["otlp"].delivered == 120


def test_a_request_stays_below_what_receivers_take(receiver: Receiver, client: Make) -> None:
    """Large spans are spread over requests, and one that fits into none is cut."""
    sdk = WhyOps(
        agent_name="shop",
        store=False,
        max_event_bytes=6_000_000,
        exporters=[OtlpExporter(receiver.url, content=True)],
    )
    for _ in range(3):
        work("x" * 1_500_000)
    work("y" * 3_900_000)
    ledger = sdk.flush_sync(timeout=30)
    sizes = [len(request.body) for request in receiver.requests]

    assert ledger["otlp"] == Tally(8, 8, 0, 0, 0, 0)
    assert max(sizes) < 4 << 20
    assert [span.attributes.get("whyops.cut") for span in receiver.arrived] == [None, None, None, True]


def test_what_cannot_be_delivered_now_is_by_the_next_client(receiver: Receiver, client: Make) -> None:
    """The receiver was away until the program had ended."""
    receiver.stop()
    sdk = client()
    with trace("t"):
        for number in range(3):
            work(number)
    pending = sdk.close_sync(timeout=0.1)["otlp"].pending
    receiver.start()
    other = client()
    with other.trace("later"):
        work(3)
    other.flush_sync()
    calls = [span for span in receiver.arrived if span.name == "execute_tool work"]

    assert pending == 7
    assert [span.attributes["gen_ai.tool.call.arguments"] for span in calls] == expected(0, 1, 2, 3)
    assert len([span for span in receiver.arrived if not span.parent]) == 2


def test_a_hanging_receiver_delays_no_other_destination(receiver: Receiver) -> None:
    """The other receiver and the store have all, while the first one does not answer."""
    with Receiver() as hanging:
        hanging.fail(always=Hang())
        sdk = WhyOps(
            agent_name="shop",
            store=True,
            exporters=[
                OtlpExporter(hanging.url, content=True, name="hanging"),
                OtlpExporter(receiver.url, content=True),
            ],
        )
        for number in range(3):
            work(number)
        hanging.wait_for_requests(1)
        receiver.wait(3)
        sdk.flush_sync(timeout=0.1)
        ledger = sdk.stats()
        hanging.calm()
        sdk.close_sync(timeout=0.1)

    assert ledger["hanging"].pending == 6
    assert (ledger["otlp"].delivered, ledger["local"].delivered) == (6, 6)


def test_a_call_that_lasts_over_many_batches_is_one_span(receiver: Receiver, client: Make) -> None:
    """Its request was taken long before its end, and so was the trace's begin."""
    sdk = client()
    with trace("t"):

        @traced_tool
        def outer() -> int:
            for number in range(3):
                work(number)
                sdk.flush_sync()
            return 1

        outer()
    sdk.flush_sync()

    assert [span.name for span in receiver.arrived] == [
        *["execute_tool work"] * 3,
        "execute_tool outer",
        "invoke_agent shop",
    ]
    assert len(receiver.requests) == 4


def test_open_calls_beyond_the_memory_are_on_disk(
    receiver: Receiver, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read back when they end."""
    monkeypatch.setattr(exporter, "MAX_OPEN_BYTES", 0)
    sdk = client()

    @traced_tool
    def outer(text: str) -> int:
        sdk.flush_sync()
        work(1)
        return sdk.flush_sync()["otlp"].pending

    outer("kept")
    sdk.flush_sync()

    assert receiver.spans["execute_tool outer"].attributes["gen_ai.tool.call.arguments"] == '{"text":"kept"}'
    assert receiver.spans["execute_tool work"].parent == receiver.spans["execute_tool outer"].id


def test_a_traced_call_is_never_kept_waiting(receiver: Receiver, client: Make) -> None:
    """Its spans wait in the journal while the receiver hangs."""
    receiver.fail(always=Hang())
    sdk = client()
    work(1)
    receiver.wait_for_requests(1)
    for number in range(100):
        work(number)
    pending = sdk.stats()["otlp"].pending
    receiver.calm()
    sdk.flush_sync()

    assert pending == 202
    assert len(receiver.arrived) == 101


@pytest.mark.parametrize(
    ("count", "rejected"), [('"2"', 2), ('"²"', 0), (f'"{"9" * 5_000}"', 999_999_999), ("[]", 0)]
)
def test_a_count_that_is_no_number_stops_nothing(count: str, rejected: int) -> None:
    """A receiver that speaks JSON may answer anything."""
    body = f'{{"partialSuccess": {{"rejectedSpans": {count}}}}}'.encode()
    answer = Answer(200, {"content-type": "application/json"}, body)

    decision = retry_module.decide(answer, attempt=1, now=datetime.now(UTC), chance=0.0)

    assert decision == retry_module.Taken(rejected)
