"""A trace goes on where the headers of a request say, whoever has sent them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from collector import Collector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import Recorded

from whyops_trace import (
    InvalidEventError,
    WhyOps,
    continue_from,
    inject,
    resume,
    step,
    suspend,
    trace,
    traced_tool,
)
from whyops_trace._recording import recorders
from whyops_trace._recording.places import Place, w3c_span_id
from whyops_trace.headers import Told
from whyops_trace.testing import capture_events

FOREIGN = f"00-{'ab' * 16}-{'cd' * 8}-01"


@traced_tool
def leaf() -> None:
    """Do nothing."""


def elsewhere(sdk: WhyOps) -> None:
    """Forget the traces, as another process never knew of them."""
    sdk.recorder.traces.clear()


def baggage(place: Place, secret: bytes = b"") -> dict[str, str]:
    """Return the headers that tell a place."""
    return {"baggage": f"whyops-place={place.text(secret)}"}


#: Ways to have the headers of a request, and to write them.
FORMS: dict[str, Callable[[], Any]] = {
    "dict": dict,
    "httpx": httpx.Headers,
    "pairs of texts": lambda: [("accept", "*/*")],
    "pairs of bytes": list,
}
#: Ways in which a server has the headers of a request.
READERS: dict[str, Callable[[dict[str, str]], Any]] = {
    "dict": dict,
    "upper case": lambda told: {name.upper(): value for name, value in told.items()},
    "httpx": httpx.Headers,
    "bytes": lambda told: [(name.lower().encode(), value.encode()) for name, value in told.items()],
    "environ": lambda told: {"HTTP_" + name.upper().replace("-", "_"): value for name, value in told.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_calls_after_continue_from_are_inside_the_call_that_injected(events: Recorded, form: str) -> None:
    """In the same trace, with steps between those of the caller."""
    sdk = WhyOps()
    headers = FORMS[form]()

    @traced_tool
    def ask() -> None:
        assert inject(headers) is headers
        known = sdk.recorder.traces.copy()
        elsewhere(sdk)
        asyncio.run(served())
        sdk.recorder.traces.update(known)

    async def served() -> None:
        async with continue_from(headers):
            leaf()

    with trace("t"):
        ask()
    ask_, inner, inner_end, end = events.of("t")

    assert [row[3] for row in (ask_, inner, inner_end, end)] == [0, 1, inner[1], 1]
    assert inner[2] == 1
    assert 1 < inner[1] < inner_end[1] < end[1]


@pytest.mark.parametrize("reader", READERS)
def test_headers_are_read_in_every_form(events: Recorded, reader: str) -> None:
    """Whatever the server hands them over as."""
    sdk = WhyOps()
    with trace("t"), step("plan"):
        told = inject()
    elsewhere(sdk)
    with continue_from(READERS[reader](told)):
        leaf()

    assert [row[3:5] for row in events.of("t")[:2]] == [(0, "plan"), (1, "leaf")]


def test_the_traceparent_names_the_enclosing_call(events: Recorded) -> None:
    """By the id that every process gives the call, and its trace by the id that W3C has for it."""
    sdk = WhyOps()
    with trace("ab" * 16) as outer, step("plan") as plan:
        told = inject()
        numbering = sdk.recorder.traces[outer.id].numbering

    span = w3c_span_id(outer.id, numbering, plan.step_id)
    assert told["traceparent"] == f"00-{'ab' * 16}-{span}-01"
    assert told["X-Trace-ID"] == told["X-Thread-ID"] == "ab" * 16


def test_outside_any_trace_nothing_is_injected() -> None:
    """Nor where tracing is off."""
    assert inject() == {}
    with WhyOps(tracing="off").trace("t"):
        assert inject({"a": "b"}) == {"a": "b"}


def test_what_is_no_headers_is_refused() -> None:
    """At the call, inside a trace and outside."""
    with pytest.raises(InvalidEventError, match="a dict or a list of pairs"):
        inject(())  # type: ignore[call-overload]


def test_the_trace_of_opentelemetry_goes_on_under_its_id(events: Recorded) -> None:
    """Its first record names the span that made the request, once."""
    with continue_from({"traceparent": FOREIGN, "tracestate": "a=1", "baggage": "user=ann"}):
        leaf()
        told: dict[str, str] = inject({})
    leaf_, *others = (record for record in events.records if record["traceId"] == "ab" * 16)

    assert leaf_["metadata"]["remoteParent"] == "cd" * 8
    assert [record for record in others if "remoteParent" in record["metadata"]] == []
    assert told["traceparent"].startswith(f"00-{'ab' * 16}-")
    assert told["tracestate"] == "a=1"
    assert told["baggage"].endswith(",user=ann")


def test_no_step_is_taken_twice_where_a_foreign_span_calls_into_an_open_trace(events: Recorded) -> None:
    """What it calls is in the trace that is open, and counted with it."""
    with trace("ab" * 16):
        leaf()
        with continue_from({"traceparent": FOREIGN}):
            leaf()
        leaf()
    steps = [record["stepId"] for record in events.records if record["eventType"] != "trace_end"]

    assert steps == [1, 2, 3, 4, 5, 6]
    assert not any("remoteParent" in record["metadata"] for record in events.records)


def test_a_service_that_only_passes_on_w3c_keeps_the_chain(events: Recorded) -> None:
    """Its span is between, and the baggage tells where the calls are; its own traceparent is not overwritten."""
    sdk = WhyOps()
    with trace("ab" * 16), step("plan"):
        told = inject({"traceparent": FOREIGN, "baggage": "user=ann"})
    elsewhere(sdk)
    with continue_from({name: told[name] for name in ("traceparent", "baggage")}):
        leaf()

    assert told["traceparent"] == FOREIGN
    assert [row[3:5] for row in events.of("ab" * 16)[:2]] == [(0, "plan"), (1, "leaf")]


def test_headers_that_are_passed_on_whole_tell_the_new_place(events: Recorded) -> None:
    """As a gateway does that copies the headers of its request."""
    sdk = WhyOps()
    with trace("t"), step("plan"):
        told = inject()
    elsewhere(sdk)
    with continue_from(told), step("gateway") as gateway:
        passed = inject(dict(told))
    elsewhere(sdk)
    with continue_from(passed):
        leaf()

    assert passed["traceparent"] != told["traceparent"]
    assert [row[3] for row in events.of("t")] == [0, 1, gateway.step_id, events.of("t")[2][1]]


def test_headers_that_are_used_again_tell_the_new_place() -> None:
    """In another call, and in another trace: nothing of the place before is left in them."""
    used: dict[str, str] = {}
    for name in "ab":
        with trace(name):
            for part in ("first", "second"):
                with step(part):
                    inject(used)
                    fresh = inject()
                    assert used["traceparent"] == fresh["traceparent"]


def test_headers_tell_the_first_event_of_a_numbering(collector: Collector, tmp_path: Path) -> None:
    """So that a process of another home can find the number of that on the server, where it is not known yet."""
    sdk = WhyOps("whyops_test", agent_name="shop", analyse_base_url=collector.url, home=tmp_path)
    collector.stop()
    with sdk.trace("order-7"):
        leaf()
        place = Told.read(inject(), sdk.recorder.secret).place
    collector.start()
    sdk.close_sync()

    assert place is not None
    assert place.offset == -1
    assert place.key == collector.stored[0]["metadata"]["idempotencyKey"]


def test_a_trace_without_a_record_is_told_by_its_id(events: Recorded) -> None:
    """Whoever records first, the numbers of both come from who stores them."""
    events.checked = False  # they are two numberings
    sdk = WhyOps()
    with trace() as outer:
        told = inject()
        elsewhere(sdk)
        with continue_from(told):
            leaf()
        leaf()

    runs = {record.get("run") for record in events.records if record["traceId"] == outer.id}
    assert "baggage" not in told
    assert len(runs) == 2
    assert None not in runs


def test_a_trace_id_alone_names_the_trace(events: Recorded) -> None:
    """Of either name; without any the trace has an id of its own."""
    with continue_from({"x-trace-id": "one"}):
        leaf()
    with continue_from({"X-Thread-ID": "two"}):
        leaf()
    with continue_from({}) as own:
        leaf()

    assert events.traces == ["one", "two", own.id]
    assert len(own.id) == 32


def test_a_handle_records_where_the_headers_say(events: Recorded) -> None:
    """Also without a block, and a block of its own ends no trace that goes on elsewhere."""
    sdk = WhyOps()
    with trace("t"), step("plan"):
        told = inject()
    ended = len([row for row in events.all_rows if row[0] == "trace_end"])
    elsewhere(sdk)
    handle = continue_from(told)
    handle.error_sync("a")
    with handle:
        handle.error_sync("b")

    assert [row[2:4] for row in events.of("t")[1:]] == [(1, 1), (1, 1)]
    assert len([row for row in events.all_rows if row[0] == "trace_end"]) == ended


def serve(sdk: WhyOps, told: dict[str, str], depth: int, *, deepest: int) -> None:
    """Go on where headers say as another process does, and call two more, down to some depth."""
    known = sdk.recorder.traces.copy()
    elsewhere(sdk)
    with continue_from(told), step(f"level {depth}"):
        for _ in range(2 if depth < deepest else 0):
            serve(sdk, inject(), depth + 1, deepest=deepest)
        leaf()
    sdk.recorder.traces.clear()
    sdk.recorder.traces.update(known)


def test_steps_rise_with_time_through_three_processes(events: Recorded) -> None:
    """In turns and inside each other: each is given a share of the steps of its caller, before its next one."""
    sdk = WhyOps()
    with trace("t"), step("level 0"):
        for _ in range(3):
            serve(sdk, inject(), 1, deepest=3)
            leaf()

    assert [row[1] for row in events.of("t")] == sorted({row[1] for row in events.of("t")})
    assert len(events.of("t")) == 1 + 3 * (3 * 7 + 2)


def test_no_two_processes_give_the_same_step(events: Recorded) -> None:
    """However deep they are, and with the same headers, as at a second try."""
    events.checked = False  # one after the other they go back
    sdk = WhyOps()
    with trace("t"), step("level 0"):
        told = inject()
        for _ in range(2):
            serve(sdk, told, 1, deepest=4)
    steps = [row[1] for row in events.of("t")]

    assert len(set(steps)) == len(steps)
    assert max(steps) < 2**31


def test_a_job_counts_after_its_sender(events: Recorded) -> None:
    """It runs while that goes on, which is given no gap for it."""
    sdk = WhyOps()
    with trace("t"):
        with step("plan"):
            told = inject(waits=False)
        leaf()
    elsewhere(sdk)
    with continue_from(told):
        leaf()
    steps = [row[1] for row in events.of("t")]

    assert steps[:3] == [1, 2, 3]
    assert steps == sorted(steps)
    assert steps[3] > 100_000


def test_the_trace_of_another_agent_is_reported_under_its_name(events: Recorded) -> None:
    """A server binds a trace to one agent; who reports to none says who recorded it."""
    events.checked = False  # as far as they are in one process
    key = "whyops_" + "0" * 32
    caller, callee = WhyOps(key, "front desk"), WhyOps(key, "parcels")
    alone = WhyOps(agent_name="local")
    with caller.trace("t"), step("plan"):
        told = inject()
    recorders.alive.discard(caller.recorder)  # as in another process
    for sdk in (callee, alone):
        with sdk.continue_from(told):
            leaf()

    agents = [record["agentName"] for record in events.records if record["eventType"] == "tool_call_request"]
    assert agents == ["front desk", "local"]


def test_a_place_that_no_holder_of_the_key_signed_is_a_trace_id_only(events: Recorded) -> None:
    """A stranger can name no agent and no step of an account."""
    events.checked = False  # the step was never recorded
    sdk = WhyOps("whyops_" + "0" * 32, "shop")
    place = Place("t", None, 7, 8, 1, 1, "", "theirs", True)
    for secret, within in ((b"", 0), (b"another", 0), (sdk.recorder.secret, 7)):
        elsewhere(sdk)
        with sdk.continue_from({**baggage(place, secret), "X-Trace-ID": "t"}):
            leaf()
        assert events.of("t")[-2][3] == within


@pytest.mark.parametrize("off", ["argument", "setting", "call"])
def test_headers_can_be_ignored(events: Recorded, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    """For a server that strangers reach."""
    if off == "setting":
        monkeypatch.setenv("WHYOPS_LINK", "off")
    sdk = WhyOps(link=False if off == "argument" else None)
    with sdk.continue_from({"X-Trace-ID": "theirs", "traceparent": FOREIGN}, link=off != "call") as own:
        leaf()

    assert events.traces == [own.id]
    assert own.id not in ("theirs", "ab" * 16)


def test_a_stranger_names_no_user(events: Recorded) -> None:
    """And cannot turn off that a trace is recorded."""
    events.checked = False  # its steps were never recorded
    place = Place("theirs", None, 1, 1, 1, 1, "mallory", "theirs", False)
    with WhyOps().continue_from(baggage(place)):
        leaf()

    assert [record.get("externalUserId") for record in events.records] == [None, None]


def test_a_stranger_cannot_turn_recording_on() -> None:
    """A service that keeps a share of the traces decides by the id that it is told."""
    place = Place("theirs", None, 1, 1, 1, 1, "", "theirs", True)
    with WhyOps(sample_rate=0.0) as sdk, sdk.continue_from(baggage(place)):
        leaf()

    assert sdk.stats()["local"].emitted == 0


PLACES: list[Any] = [
    [], ["t"], [True] * 11, [None] * 10_000, {}, "t",
    ["", None, 0, 0, 0, 1, "", "a", True], ["t" * 129, None, 0, 0, 0, 1, "", "a", True],
    ["t", 'a","x":"', 0, 0, 0, 1, "", "a", True], ["t", "a" * 65, 0, 0, 0, 1, "", "a", True],
    ["t", None, -1, 0, 0, 1, "", "a", True], ["t", None, 2**31, 0, 0, 1, "", "a", True],
    ["t", None, 0, 0, 0, 0, "", "a", True], ["t", None, 0, 0, 0, 1, "", "a" * 256, True],
]  # fmt: skip
TEXTS = [f"1.{base64.urlsafe_b64encode(json.dumps(place).encode()).decode()}" for place in PLACES]
HOSTILE: list[dict[Any, Any]] = [
    *({"baggage": f"whyops-place={text}"} for text in (*TEXTS, "", "1.", "1.=", "2.W10", "1." + "A" * 8_000, "1.\x00")),
    *({"traceparent": told} for told in ("", "0" * 55, f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01")),
    {"traceparent": f"00-{'a' * 32}-{'0' * 16}-01"},
    {"x-trace-id": "t" * 129}, {"x-trace-id": "a\nb"}, {"x-trace-id": "  "}, {"x-trace-id": 7}, {7: "x"},
    {"x-trace-id": "🍵" * 65},
    {b"x-trace-id": None}, {"baggage": ",,;=,=;,whyops-place"},
]  # fmt: skip


@pytest.mark.parametrize("headers", HOSTILE)
def test_what_headers_cannot_tell_is_ignored(events: Recorded, headers: dict[Any, Any]) -> None:
    """The trace has an id of its own, as without them."""
    with continue_from(headers) as own:
        leaf()

    assert events.traces == [own.id]
    assert len(own.id) == 32


def test_no_headers_are_no_mistake(events: Recorded) -> None:
    """Some gateways give None where a request has none."""
    with continue_from(None) as own:
        leaf()

    assert events.traces == [own.id]


@pytest.mark.internal_errors
@pytest.mark.parametrize("headers", [7, "traceparent", [1], [("a",)], object()])
def test_what_is_no_headers_gives_a_trace_of_its_own(events: Recorded, headers: Any) -> None:
    """No error reaches who serves a request."""
    with continue_from(headers) as own:
        leaf()

    assert events.traces == [own.id]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["traceparent", "tracestate", "baggage", "x-trace-id"]), st.text(max_size=300)
    )
)
def test_any_headers_are_harmless(headers: dict[str, str]) -> None:
    """What goes on from them is text of bounded size, and headers that can be sent."""
    with capture_events() as events, continue_from(headers):
        leaf()
        told = inject()

    assert len(events) == 2
    assert all(value.isascii() and value.isprintable() and len(value) <= 8_192 for value in told.values())


def test_the_baggage_of_others_is_bounded(events: Recorded) -> None:
    """Ours comes first, and what is too much is left out from the end."""
    others = ",".join(f"k{n}={'v' * 100}" for n in range(78))
    with continue_from({"baggage": others, "X-Trace-ID": "t"}), step("plan"):
        told = inject()["baggage"]

    assert told.startswith("whyops-place=")
    assert len(told) <= 8_192
    assert "k70=" in told


def test_a_service_that_keeps_no_trace_still_tells_its_id() -> None:
    """Those behind it decide by the same id, and so alike."""
    with WhyOps(sample_rate=0.0).trace("t"):
        told = inject()

    assert told["X-Trace-ID"] == "t"
    assert told["traceparent"].endswith("-00")
    assert "baggage" not in told


# Work that goes on later


def test_what_is_suspended_goes_on_where_it_stood(events: Recorded) -> None:
    """For the same user, in a process that never knew of it; its steps come after all others."""
    sdk = WhyOps()
    with trace("t", external_user_id="ann"):
        with step("ask a human") as asking:
            token = suspend()
        leaf()
    elsewhere(sdk)
    with resume(token):
        leaf()
    late = [record for record in events.records if record["traceId"] == "t"][-3:]

    assert [row[3] for row in events.of("t")[3:]] == [asking.step_id, events.of("t")[3][1]]
    assert {record["externalUserId"] for record in late[:2]} == {"ann"}
    assert [row[0] for row in events.all_rows].count("trace_end") == 2
    assert re.fullmatch(r"[\w.-]{1,4000}", token)


def test_what_was_suspended_before_any_record_goes_on_in_its_trace(events: Recorded) -> None:
    """As its first records, wherever they are made."""
    events.checked = False  # they are two numberings
    sdk = WhyOps()
    with trace() as made:
        token = suspend()
        elsewhere(sdk)
        with resume(token):
            leaf()
        leaf()

    assert events.traces == [made.id]
    assert len({record["run"] for record in events.records}) == 2


def test_a_token_of_another_key_goes_on_at_the_end_of_its_trace(events: Recorded) -> None:
    """Keys are changed now and then; the trace is the same."""
    events.checked = False  # they are two numberings
    with WhyOps("whyops_" + "0" * 32, "shop").trace("t"), step("ask"):
        token = suspend()
    with WhyOps("whyops_" + "1" * 32, "shop").trace("outer"), resume(token):
        leaf()

    assert events.of("t")[-2][3:5] == (0, "leaf")


@pytest.mark.parametrize("token", ["x", "1.", "1.W10", "2.W10", "1." + "A" * 8_000, "\0"])
def test_what_is_no_token_gives_a_new_trace(
    events: Recorded, said: Callable[[], list[str]], token: str
) -> None:
    """And a warning."""
    with resume(token) as made:
        leaf()

    assert events.traces == [made.id]
    assert "suspend() never returned" in said()[0]


def test_outside_any_trace_a_token_is_empty(events: Recorded) -> None:
    """It goes on with nothing, so a program works with tracing off as well."""
    assert suspend() == ""
    with resume("") as made:
        leaf()
    with WhyOps(tracing="off").trace("t"):
        assert continue_from({}).id
    assert events.traces == [made.id]
