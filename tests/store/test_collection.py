"""Events that clients sent, in the store: the numbers they get, what is kept of them, what is not stored twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lines import Process
from local import event

from whyops_trace.store import Filter, Store
from whyops_trace.store.collection import SentEvent
from whyops_trace.store.selection import QUIET
from whyops_trace.testing import ManualClock
from whyops_trace.tree import build


@pytest.fixture
def clock() -> ManualClock:
    """Time of the store."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store of its own."""
    store = Store(tmp_path / "traces.db", clock=clock)
    yield store
    store.close()


def collect(store: Store, *events: dict[str, Any] | bytes) -> list[tuple[str, int, int | None]]:
    """Store events, and return the status, step and parent of each."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in events]
    sent = msgspec.json.decode(b"[" + b",".join(parts) + b"]", type=list[SentEvent])
    return [(stored.status, stored.step, stored.parent) for stored in store.collect(sent)]


def tool_call(trace: str = "t", *, arguments: Any = None, **members: Any) -> dict[str, Any]:
    """Return the request of a tool call."""
    content = {"toolCalls": [{"name": "search", "arguments": arguments or {}}]}
    return event("tool_call_request", trace, metadata={"tool": "search"}, content=content, **members)


def tool_answer(trace: str = "t", **members: Any) -> dict[str, Any]:
    """Return the response of a tool call."""
    content = {"toolCalls": [{"name": "search"}], "toolResults": {"found": 3}}
    return event("tool_call_response", trace, metadata={"tool": "search"}, content=content, **members)


def test_events_without_numbers_are_counted(store: Store) -> None:
    """Each follows from the highest step before it, in one batch or in several; a parent alone is not obeyed."""
    one = collect(store, event(), event(trace="other"), event())
    two = collect(store, event(stepId=7, parentStepId=2), event(), event(parentStepId=1))

    assert one == [("saved", 1, None), ("saved", 1, None), ("saved", 2, 1)]
    assert two == [("saved", 7, 2), ("saved", 8, 7), ("saved", 9, 8)]
    assert [record["stepId"] for record in store.events("t")] == [1, 2, 7, 8, 9]


def test_a_step_without_a_parent_follows_from_the_one_before(store: Store) -> None:
    """As on a WhyOps server, whether that exists or not; the first one follows from none."""
    assert collect(store, event(stepId=5), event(stepId=1)) == [("saved", 5, 4), ("saved", 1, None)]
    assert "parentStepId" not in store.events("t")[0]


def test_a_key_is_stored_once(store: Store) -> None:
    """In its trace, whatever else the second event says, in the same batch and in later ones; it takes no number."""
    first = event(idempotencyKey="k", spanId="s")
    batch = [first, event("error", idempotencyKey="k"), event(trace="other", idempotencyKey="k"), event()]

    assert collect(store, *batch) == [
        ("saved", 1, None),
        ("skipped", 1, None),
        ("saved", 1, None),
        ("saved", 2, 1),
    ]
    assert collect(store, event(stepId=9, idempotencyKey="k"), event()) == [
        ("skipped", 1, None),
        ("saved", 3, 2),
    ]
    assert store.trace("t").event_count == 3
    assert store.trace("t").errors == 0


def test_events_without_a_key_are_all_kept(store: Store) -> None:
    """Two users' "yes" are two events; nobody guesses that one is the other sent again."""
    yes = event(content={"messages": [{"role": "user", "content": "yes"}]})
    collect(store, yes, yes)
    collect(store, yes)

    assert store.trace("t").event_count == 3
    assert len({record["idempotencyKey"] for record in store.events("t")}) == 3


def test_the_old_tool_call_becomes_a_request_and_its_response(store: Store) -> None:
    """They share its span, the response follows from the request, and a repeat of its key is skipped."""
    content = {"toolCalls": [{"name": "f", "arguments": {"x": 1}}], "toolResults": {"r": 1}}
    sent = event("tool_call", metadata={"tool": "f"}, content=content, spanId="s", idempotencyKey="L")

    assert collect(store, event(), sent, sent, event()) == [
        ("saved", 1, None),
        ("saved", 2, 1),
        ("skipped", 2, 1),
        ("saved", 4, 3),
    ]
    assert collect(store, sent) == [("skipped", 2, 1)]
    request, response = store.events("t")[1:3]

    assert (request["eventType"], response["eventType"]) == ("tool_call_request", "tool_call_response")
    assert (request["spanId"], response["spanId"]) == ("s", "s")
    assert (request["idempotencyKey"], response["idempotencyKey"]) == ("L_request", "L_response")
    assert (response["stepId"], response["parentStepId"]) == (3, 2)
    assert request["content"] == response["content"] == content
    assert request["metadata"] == {"tool": "f", "autoGenerated": True}
    assert [node.status for node in build(store.events("t")).nodes] == ["ok"] * 3


def test_an_old_tool_call_without_a_span_or_key_is_a_pair_too(store: Store) -> None:
    """Both halves get the span that is made for it."""
    collect(store, event("tool_call", metadata={"tool": "f"}, content={}))
    spans = {record["spanId"] for record in store.events("t")}

    assert len(spans) == 1
    assert spans.pop().startswith("span_")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "text",
        12.5,
        2**70,
        [],
        {"a": "x\x00y", "b": "\x1b[31m", "c": "ünï ✓ 日本 \U0001f600", "d": {"": [1, None, True]}},
        {"within": 1, "stepId": 99},
    ],
)
def test_contents_and_metadata_are_kept_as_they_were_sent(store: Store, content: Any) -> None:
    """Whatever JSON they are: NUL characters, large numbers and fractions included."""
    metadata = {"latencyMs": 12.5, "own": content, "within": "x"}
    collect(store, event(content=content, metadata=metadata, userId="0f9c7a52-6a0f-4ac5-9d34-0c2c3f3f2f01"))
    (record,) = store.events("t")

    assert record["content"] == content
    assert record["metadata"] == metadata
    assert record["userId"] == "0f9c7a52-6a0f-4ac5-9d34-0c2c3f3f2f01"


def test_a_number_beyond_every_float_is_kept(store: Store) -> None:
    """The text of a payload is stored, not what a program would read from it."""
    collect(store, b'{"eventType":"error","traceId":"t","agentName":"a","content":{"message":1e999}}')

    assert '"content":{"message":1e999}' in store.lines("t")[0]


def test_a_record_is_one_line_however_it_was_sent(store: Store) -> None:
    """Line breaks between the members go; those in texts are escaped, and stay."""
    sent = json.dumps(event(content={"a": "1\n2"}, metadata={"b": 1}), indent=2).replace("\n", "\r\n")
    collect(store, sent.encode())
    (line,) = store.lines("t")

    assert len(line.splitlines()) == 1
    assert json.loads(line)["content"] == {"a": "1\n2"}


def test_times_are_kept_to_the_millisecond(store: Store, clock: ManualClock) -> None:
    """So that they sort as texts; an event without one happened when it came."""
    times = ["2026-11-21T10:00:00Z", "2026-11-21T10:00:00.5Z", "2026-11-21T10:00:00.123456789Z"]
    collect(store, *(event(timestamp=time) for time in times), event())
    stored = [record["timestamp"] for record in store.events("t")]

    assert stored[:3] == [
        "2026-11-21T10:00:00.000Z",
        "2026-11-21T10:00:00.500Z",
        "2026-11-21T10:00:00.123Z",
    ]
    assert len(stored[3]) == len(stored[0])


def test_what_is_collected_is_summed_up_like_what_is_recorded(store: Store) -> None:
    """The list shows the question, the answer, the tokens and the loop."""
    usage = {"promptTokens": 10, "completionTokens": 5, "cacheReadTokens": 2}
    metadata = {"model": "gpt-4o", "provider": "openai", "usage": usage}
    about = {"trace": {"tags": ["vip"], "metadata": {"order": 1}}}
    collect(
        store,
        event(content=[{"role": "user", "content": "Where is it?"}], externalUserId="u1", metadata=about),
        *[tool_call(arguments={"q": 1})] * 3,
        event("llm_response", content="It is here.", metadata=metadata),
    )
    summary = store.trace("t")

    assert (summary.asked, summary.ended_with, summary.failed) == ("Where is it?", "It is here.", False)
    assert (summary.agent_name, summary.external_user_id, summary.tags) == ("shop", "u1", ["vip"])
    assert (summary.tool_calls, summary.llm_responses, summary.repeated) == (3, 1, 3)
    assert summary.tokens.total == 17
    assert summary.cost is not None
    assert [trace.trace_id for trace in store.traces(where=Filter(looping=True, user="u1"))] == ["t"]


def test_calls_that_run_at_the_same_time_are_paired_by_their_spans(store: Store) -> None:
    """Other clients name no step; the number that a server gives says only what came before."""
    collect(
        store, tool_call(spanId="a"), tool_call(spanId="b"), tool_answer(spanId="a"), tool_answer(spanId="b")
    )
    nodes = build(store.events("t")).nodes

    assert [(node.step, node.response, node.status) for node in nodes] == [(1, 3, "ok"), (2, 4, "ok")]


def test_a_collected_trace_runs_until_it_has_been_quiet_for_some_minutes(
    store: Store, clock: ManualClock
) -> None:
    """Nobody sees the process of its client; a call that is still open then will not end."""
    collect(store, event(content="q"), tool_call())
    states = []
    for _ in range(2):
        ended = store.ended_in("t")
        states.append((store.trace("t").running, build(store.events("t"), ended).nodes[1].status))
        clock.advance(QUIET + 1)

    assert states == [(True, "running"), (False, "unfinished")]
    assert store.counts().unanswered == 1


def test_a_quiet_trace_has_stopped_if_a_call_of_it_never_ended(store: Store, clock: ManualClock) -> None:
    """One that failed has ended, and so has a step, of which no client tells the end."""
    about = {"function": "embed"}
    collect(store, tool_call("open"))
    collect(
        store, event("embedding_request", "failed", metadata=about), event("error", "failed", metadata=about)
    )
    collect(store, event("llm_thinking", "step", metadata={"step": "plan"}))
    clock.advance(QUIET + 1)

    assert {summary.trace_id for summary in store.traces(where=Filter(stopped=True))} == {"open"}


def test_a_run_that_both_recorded_and_reported_is_stored_once(tmp_path: Path) -> None:
    """A program may keep its own traces in the store that its collector writes to: in whichever order they come."""
    process = Process("9f2c41aa01be", run="9f2c41aa01be-7")
    records = [process.event("user_message", 1), process.event("error", 2, 1), process.event("error", 3, 2)]
    lines = [json.dumps(record, separators=(",", ":")).encode() for record in records]
    for order in ("recorded first", "reported first", "in turns"):
        store = Store(tmp_path / f"{order}.db")
        store.ingest(("000000000000", [Process("000000000000", run="000000000000-1").line("error", 4)]))
        # As the exporter sends them: the first is numbered by the server, which shifts the others.
        sent = [{key: value for key, value in record.items() if key != "run"} for record in records]
        sent[0].pop("stepId")
        sent[1] |= {"stepId": 6, "parentStepId": 5}
        sent[2] |= {"stepId": 7, "parentStepId": 6}
        if order == "recorded first":
            store.ingest(("9f2c41aa01be", lines))
        said = collect(store, sent[0])
        if order == "in turns":
            store.ingest(("9f2c41aa01be", lines[:2]))
        collect(store, *sent[1:])
        store.ingest(("9f2c41aa01be", lines))
        numbers = [(record["stepId"], record.get("parentStepId")) for record in store.events("checkout-8841")]
        store.close()

        assert said[0][1:] == (5, 4), order
        assert numbers == [(4, None), (5, 4), (6, 5), (7, 6)], order


def test_nothing_of_a_batch_is_stored_if_it_cannot_all_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All events of a batch are in one transaction."""
    collect(store, event())
    monkeypatch.setattr("whyops_trace.store.intake.turn_of", lambda _: object())  # no type that SQLite takes

    with pytest.raises(Exception, match="type 'object' is not supported"):
        collect(store, event(), event(trace="other"))
    assert store.trace("t").event_count == 1
    assert store.counts().total == 1


def test_many_events_of_many_traces_in_one_batch(store: Store) -> None:
    """More than one statement takes; none changes places."""
    said = collect(store, *(event(trace=f"t{n % 70}", idempotencyKey=str(n)) for n in range(700)))

    assert said == [("saved", n // 70 + 1, n // 70 or None) for n in range(700)]
    assert {summary.event_count for summary in store.traces(100)} == {10}
