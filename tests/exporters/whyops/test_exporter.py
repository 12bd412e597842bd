"""Delivery to a WhyOps server: batches, refusals, outages."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Close, Collector, Drip, Fault, Hang, Reset, Stored
from lines import Process
from programs import start_code, stored
from serving import (
    DELIVERED,
    KEY,
    REJECTED,
    SAMPLED_OUT,
    TOKEN,
    WITHHELD,
    client,
    conversations,
    dead_letters,
    deliver,
    export,
    exporter,
    keys,
    messages,
    numbers,
    persist,
    posts,
    refuses,
    sent,
    tally,
)
from wire import Answer, Event

from whyops_trace import step, traced_llm, traced_tool
from whyops_trace._home import STORE_FILE
from whyops_trace.exporters.whyops.exporter import MAX_BYTES, MAX_EVENTS, WhyOpsExporter
from whyops_trace.exporters.whyops.retry import LONG_WAIT
from whyops_trace.store import Store


@traced_tool
def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def to(collector: Collector, tmp_path: Path) -> Iterator[WhyOpsExporter]:
    """An exporter to it."""
    exported = exporter(collector, tmp_path)
    yield exported
    exported.close()


def the_key(line: bytes) -> str:
    """The idempotency key of a line."""
    return str(json.loads(line)["idempotencyKey"])


def on_keys(*lines: bytes, why: str = "MISSING_MODEL") -> Callable[[Event], str | None]:
    """A server's refusal of these events."""
    refused = {the_key(line) for line in lines}
    return lambda event: why if event["idempotencyKey"] in refused else None


def sizes(collector: Collector) -> list[int]:
    """How many events each request brought."""
    return [len(request.json) for request in posts(collector)]


# What is sent


@pytest.mark.parametrize("sends", [None, True])
@pytest.mark.parametrize("trace_id", ["conversation-1", None])
def test_the_response_of_a_provider_stays_here_unless_a_setting_sends_it(
    collector: Collector, tmp_path: Path, trace_id: str | None, sends: bool | None
) -> None:
    """Whether the server numbers the event or not; what the user's own metadata says goes along."""
    answer = {
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [{"finish_reason": "stop", "message": {"content": 'A ,"rawResponse":{} of a kind'}}],
    }

    @traced_llm(metadata={"of": {"rawResponse": answer}})
    def ask(prompt: str) -> dict[str, Any]:
        return answer

    sdk = client(collector, tmp_path, store=True, send_raw_responses=sends)
    with sdk.trace(trace_id) as handle:
        ask("Hello")
    sdk.flush_sync()
    (event,) = (event for event in collector.stored if event["eventType"] == "llm_response")
    sdk.close_sync()
    store = Store(tmp_path / STORE_FILE)
    (kept,) = (
        event["metadata"]["rawResponse"]
        for event in store.events(handle.id)
        if event["eventType"] == "llm_response"
    )
    store.close()

    assert kept == answer
    assert event["metadata"].get("rawResponse") == (answer if sends else None)
    assert event["metadata"]["of"] == {"rawResponse": answer}
    assert event["content"] == {"content": 'A ,"rawResponse":{} of a kind', "finishReason": "stop"}


def test_a_first_event_leaves_without_anybody_asking_for_it(collector: Collector) -> None:
    """It waits for no batch to fill."""
    sdk = client(collector)
    sdk.trace().user_message_sync([{"role": "user", "content": "Hello"}])
    collector.wait_for(lambda: collector.stored)

    assert collector.stored[0]["content"] == {"messages": [{"role": "user", "content": "Hello"}]}


def test_what_comes_while_a_request_is_answered_leaves_together(collector: Collector) -> None:
    """In one array, as soon as the answer is there."""
    collector.fail(Hang())
    sdk = client(collector)
    sdk.trace().user_message_sync([])
    collector.wait_for(lambda: len(posts(collector)) == 1)
    for _ in range(MAX_EVENTS):
        sdk.trace().user_message_sync([])
    collector.release()

    assert tally(sdk).delivered == MAX_EVENTS + 1
    assert sizes(collector) == [1, MAX_EVENTS]


def test_events_leave_in_arrays_of_bounded_length(to: WhyOpsExporter, collector: Collector) -> None:
    """In their order."""
    lines = messages(MAX_EVENTS * 2 + 1)

    assert deliver(to, lines) == [DELIVERED] * len(lines)
    assert sizes(collector) == [MAX_EVENTS, MAX_EVENTS, 1]
    assert keys(collector.stored) == [the_key(line) for line in lines]


def test_events_leave_in_arrays_of_bounded_size(to: WhyOpsExporter, collector: Collector) -> None:
    """One that is larger goes alone."""
    small, middle = messages(30, "small", size=90_000), messages(1, "middle", size=999_000)
    large = messages(1, "large", size=3_000_000)
    lines = [*small[:15], *large, *small[15:], *middle]

    assert deliver(to, lines) == [DELIVERED] * len(lines)
    assert sizes(collector) == [11, 4, 1, 11, 4, 1]
    assert [len(request.body) > MAX_BYTES for request in posts(collector)] == [False, False, True] + [
        False
    ] * 3
    assert keys(collector.stored) == [the_key(line) for line in lines]


def test_an_array_is_at_most_as_large_as_it_may_be(to: WhyOpsExporter, collector: Collector) -> None:
    """To the byte."""
    lines = messages(2)
    lines = messages(2, size=(MAX_BYTES - 3 - sum(map(len, lines))) // 2)
    room = MAX_BYTES - 3 - sum(map(len, lines))
    fits, exceeds = (
        [lines[0], lines[1].replace(b'"pad":"', b'"pad":"' + b"y" * more)] for more in (room, room + 1)
    )

    assert len(export(to, fits)) == 2
    assert len(export(to, exceeds)) == 1
    assert len(posts(collector)[0].body) == MAX_BYTES


def test_what_is_for_local_destinations_only_never_leaves(collector: Collector) -> None:
    """The ends of steps and traces, the names of runs: no server sees them, and they do not count."""
    sdk = client(collector)
    with sdk.trace("mine"):
        with step("plan"):
            double(2)
    ledger = tally(sdk)
    events = list(sent(collector))

    assert [event["eventType"] for event in events] == [
        "llm_thinking",
        "tool_call_request",
        "tool_call_response",
    ]
    assert [event.keys() & {"run", "given", "end"} for event in events] == [set()] * 3
    assert ledger == (3, 3, 0, 0, 0, 0, {})


def test_a_batch_of_local_records_asks_nobody(to: WhyOpsExporter, collector: Collector) -> None:
    """Not even for the agent."""
    process = Process(TOKEN)
    lines = [process.line(kind, 1, within=0, end=kind == "trace_end") for kind in ("step_end", "trace_end")]

    assert export(to, lines) == [WITHHELD] * 2
    assert collector.requests == []


def test_the_end_of_a_trace_is_not_sent_and_nothing_else_is_taken_for_it(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """A user's own word `end` stays."""
    process = Process(TOKEN)
    lines = [
        process.line("user_message", 1, content={"a": 1, "end": True}),
        process.line("user_message", 2, 1, content={"text": '","end":true}'}),
        process.line("user_message", 3, 2, content="x", end=True),
    ]

    assert deliver(to, lines) == [DELIVERED] * 3
    assert [event["content"] for event in sent(collector)] == [
        {"a": 1, "end": True},
        {"text": '","end":true}'},
        "x",
    ]
    assert all("end" not in event for event in sent(collector))


def test_numbers_that_a_user_chose_leave_as_they_are(to: WhyOpsExporter, collector: Collector) -> None:
    """Without the note that says so."""
    process = Process(TOKEN)
    lines = [
        process.line("user_message", 7, given=["stepId"]),
        process.line("user_message", 8, 3, given=["parentStepId"]),
        process.line("user_message", 20, 7, given=["stepId", "parentStepId"]),
    ]
    deliver(to, lines)

    assert [event.get("given") for event in sent(collector)] == [None] * 3
    assert numbers(collector.stored) == [(7, 6), (8, 3), (20, 7)]


def test_a_step_beyond_what_a_server_can_hold_is_left_to_it(to: WhyOpsExporter, collector: Collector) -> None:
    """It goes without a number."""
    process = Process("77aa00bb11cc", "t", "77aa00bb11cc-1")
    lines = [process.line("user_message", 2**31 - 3 + n, 2**31 - 4 + n) for n in range(3)]
    deliver(to, messages(5, "t"))
    to._state.keep_offsets({("77aa00bb11cc-1", process.token): 1})

    assert deliver(to, lines, process.token) == [DELIVERED] * 3
    assert numbers(collector.stored)[5:-1] == [(2**31 - 2, 2**31 - 3), (2**31 - 1, 2**31 - 2)]
    assert "stepId" not in list(sent(collector))[-1]


def test_what_is_no_record_is_given_up(to: WhyOpsExporter, collector: Collector, tmp_path: Path) -> None:
    """It holds up nothing, and is kept."""
    good = messages(1)

    assert deliver(to, [b'{"version":9}', *good]) == [REJECTED, DELIVERED]
    assert [(letter["reason"], letter["event"]) for letter in dead_letters(tmp_path)] == [
        ("it is no record of this version", {"version": 9})
    ]


# What a server refuses


def test_an_event_that_a_400_names_is_given_up_alone(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """One more request brings all others, and the file has it with the server's words."""
    lines = messages(500)
    bad = [lines[17], lines[18], lines[450]]
    for line in bad:
        lines[lines.index(line)] = line.replace(b'"spanId":"span_17"', b'"spanId":"%b"' % (b"x" * 129))

    assert deliver(to, lines) == [REJECTED if line not in messages(500) else DELIVERED for line in lines]
    assert sizes(collector) == [200, 198, 200, 100, 99]
    assert keys(collector.stored) == [the_key(line) for line in messages(500) if line not in bad]
    assert [(letter["reason"], letter["event"]["stepId"]) for letter in dead_letters(tmp_path)] == [
        ("400: Validation failed; spanId: Span ID must be at most 128 characters", step)
        for step in (18, 19, 451)
    ]
    assert len(said()) == 1
    assert "Span ID must be at most 128 characters" in said()[0]
    assert str(tmp_path / "rejected.ndjson") in said()[0]


def test_an_event_that_a_400_does_not_name_is_found_by_splitting(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """In a few requests; the others are stored once, in their order."""
    lines = messages(MAX_EVENTS)
    bad = lines[120]
    typed = bad.replace(b'"spanId":"span_17"', b'"spanId":17')
    lines[120] = typed

    assert deliver(to, lines) == [REJECTED if line is typed else DELIVERED for line in lines]
    assert len(posts(collector)) <= 2 * 8 + 1
    assert keys(collector.stored) == [the_key(line) for line in lines if line is not typed]
    assert [letter["reason"] for letter in dead_letters(tmp_path)] == [
        "400: Validation failed; : Invalid input"
    ]


def test_events_beside_one_that_fails_later_are_stored_once(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """A server stores the others of a call that it answers with a 400."""
    lines = messages(500)
    bad = [lines[3], lines[77], lines[78], lines[499]]
    collector.reject = on_keys(*bad)

    assert deliver(to, lines) == [REJECTED if line in bad else DELIVERED for line in lines]
    assert sorted(keys(collector.stored)) == sorted(the_key(line) for line in lines if line not in bad)
    assert [letter["event"]["stepId"] for letter in dead_letters(tmp_path)] == [4, 78, 79, 500]
    assert len(said()) == 1


def test_a_trace_of_another_agent_is_given_up_at_once(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """After its first event no other is asked about, in this request or a later one; other traces are stored."""
    other = Process("77aa00bb11cc", "taken")
    deliver(to, [other.line("user_message", 1, agentName="bank")], other.token)
    taken = messages(5, "taken")
    mine = messages(5, "mine")
    lines = [line for pair in zip(taken, mine, strict=True) for line in pair]
    first = deliver(to, lines)
    asked = len(posts(collector))
    later = Process(TOKEN, "taken")
    second = deliver(to, [later.line("user_message", n) for n in (6, 7)])

    assert first == [REJECTED, DELIVERED] * 5
    assert second == [REJECTED] * 2
    assert len(posts(collector)) == asked
    assert [row["traceId"] for row in collector.stored] == ["taken", *["mine"] * 5]
    assert sum([event["traceId"] for event in request.json] == ["taken"] for request in posts(collector)) == 2
    assert {letter["reason"] for letter in dead_letters(tmp_path)} == {
        "409: Trace is already bound to a different agent/version for this traceId"
    }
    assert len(dead_letters(tmp_path)) == 7
    assert len(said()) == 1


def test_a_conversation_of_another_agent_is_given_up_as_well(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """Where its first event would have to be numbered."""
    first = client(collector, agent_name="bank")
    first.trace("taken").user_message_sync([])
    tally(first)
    sdk = client(collector)
    for _ in range(3):
        sdk.trace("taken").user_message_sync([])
    sdk.trace("mine").user_message_sync([])

    assert tally(sdk) == (4, 1, 0, 0, 3, 0, {})
    assert [row["traceId"] for row in collector.stored] == ["taken", "mine"]
    assert len(said()) == 1


def test_a_request_that_is_too_large_is_split(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """Something before the server may take less; a single event that is too large is given up."""
    collector.max_body = 20_000
    lines = messages(40, size=1000)
    large = messages(1, "large", size=30_000)
    lines[20:20] = large

    assert deliver(to, lines) == [REJECTED if line in large else DELIVERED for line in lines]
    assert keys(collector.stored) == [the_key(line) for line in lines if line not in large]
    assert [letter["reason"] for letter in dead_letters(tmp_path)] == [
        "413: the server takes no event of this size"
    ]


@pytest.mark.parametrize("place", [0, 5, 9])
def test_an_event_at_which_a_server_breaks_is_given_up_after_another_was_taken(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path, place: int
) -> None:
    """Wherever it stands; the first times the server is given time to recover."""
    lines = messages(10)
    collector.break_on = lambda event: event["idempotencyKey"] == the_key(lines[place])
    failures = [refuses(to, lines) for _ in range(3)]

    assert persist(to, lines) == [REJECTED if line is lines[place] else DELIVERED for line in lines]
    assert {str(failure) for failure in failures} == {
        f"{collector.url}: it fails with an error of its own (500)."
    }
    assert sorted(keys(collector.stored)) == sorted(
        the_key(line) for line in lines if line is not lines[place]
    )
    assert [letter["reason"] for letter in dead_letters(tmp_path)] == [
        '500: {"error":"Failed to save event(s)"}'
    ]


def test_many_events_in_a_row_at_which_a_server_breaks_are_given_up(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """As long as there is one that it takes."""
    lines = messages(20)
    bad = {the_key(line) for line in lines[:9]}
    collector.break_on = lambda event: event["idempotencyKey"] in bad

    assert persist(to, lines, 500) == [REJECTED] * 9 + [DELIVERED] * 11
    assert len(dead_letters(tmp_path)) == 9


def test_an_event_alone_at_which_a_server_breaks_waits_for_another(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """Nobody knows whose fault it is until then."""
    lines = messages(2)
    collector.break_on = lambda event: event["idempotencyKey"] == the_key(lines[0])
    for _ in range(20):
        refuses(to, lines[:1])
    alone = list(dead_letters(tmp_path))

    assert persist(to, lines) == [REJECTED, DELIVERED]
    assert alone == []


def test_the_first_event_of_a_conversation_at_which_a_server_breaks_holds_up_nothing(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """The conversation begins with the next one, and its numbers fit."""
    lines = conversations(1, 5)
    collector.break_on = lambda event: event["idempotencyKey"] == the_key(lines[0])

    assert persist(to, lines) == [REJECTED] + [DELIVERED] * 4
    assert numbers(collector.stored) == [(1, None), (2, 1), (3, 2), (4, 3)]


def test_a_server_that_breaks_at_everything_loses_nothing(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """However long that lasts."""
    lines = [*messages(7), *conversations(3, 2)]
    collector.break_on = lambda event: True
    for _ in range(30):
        refuses(to, lines)
    collector.break_on = None

    assert persist(to, lines) == [DELIVERED] * 13
    assert dead_letters(tmp_path) == []
    assert sorted(keys(collector.stored)) == sorted(map(the_key, lines))


def test_a_server_that_goes_away_while_an_event_is_looked_for_loses_nothing(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """Only an event that fails beside another that is taken can be at fault."""
    lines = messages(64)
    fails = iter(
        [True] * 4 + [False] + [True] * 1000
    )  # the fourth makes it split; of the halves one is taken
    collector.script = lambda request: (
        Answer(500, {"error": "Failed to save event(s)"}) if next(fails) else None
    )
    for _ in range(3):
        refuses(to, lines)
    outcomes = list(export(to, lines))
    refusals = [refuses(to, lines[len(outcomes) :]) for _ in range(20)]
    collector.script = None
    outcomes += persist(to, lines[len(outcomes) :])

    assert outcomes == [DELIVERED] * 64
    assert refusals
    assert dead_letters(tmp_path) == []


def test_the_file_of_refused_events_is_private_and_the_ledger_exact(
    collector: Collector, tmp_path: Path
) -> None:
    """From the user's call to the count."""
    collector.reject = lambda event: "no" if event["content"]["messages"] == ["bad"] else None
    home = tmp_path / "mine"
    sdk = client(collector, home)
    with sdk.trace() as open_trace:
        for word in ("good", "bad", "good", "bad"):
            open_trace.user_message_sync([word])  # type: ignore[list-item]

    assert tally(sdk) == (4, 2, 0, 0, 2, 0, {})
    assert stat.S_IMODE((home / "rejected.ndjson").stat().st_mode) == 0o600
    assert [letter["event"]["content"]["messages"] for letter in dead_letters(home)] == [["bad"]] * 2


def test_an_event_is_given_up_once_though_what_stands_before_it_waits(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path
) -> None:
    """It comes again with the others, and is not counted or kept twice."""
    lines = messages(2)
    lines[1] = lines[1].replace(b'"spanId":"span_17"', b'"spanId":"%b"' % (b"x" * 129))
    collector.fail(None, *[Answer(503)] * 3)
    for _ in range(3):
        refuses(to, lines)

    assert deliver(to, lines) == [DELIVERED, REJECTED]
    assert len(dead_letters(tmp_path)) == 1
    assert sizes(collector) == [2, 1, 1, 1, 1]


# What is wrong somewhere else


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Answer(401, {"error": "Unauthorized: Authentication required"}), "Check api_key (WHYOPS_API_KEY)"),
        (Answer(403, b"<html>no</html>"), "Check api_key (WHYOPS_API_KEY)"),
        (Answer(404, {"error": "Not Found"}), "Check analyse_base_url (WHYOPS_ANALYSE_URL)"),
        (Answer(405), "answers 405"),
        (Answer(301, b"", {"Location": "https://example.com/api/events"}), "redirects (301)"),
        (Answer(200, b"<html>login</html>", content_type="text/html"), "answers 200"),
        (Answer(400, b"<html>bad</html>", content_type="text/html"), "answers 400"),
        (Answer(201, {"ok": True}), "answers 201"),
        (Answer(201, [{"id": None, "status": "forgotten"}] * 3), "answers 201"),
        (Answer(201, [{"id": "1", "status": "saved"}] * 7), "answers 201"),
        (Answer(201, b"[" * 1000), "answers 201"),
        (Answer(202, {"success": True, "accepted": True, "queuedCount": 3}), "answers 202"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_somebody_has_to_mend_loses_nothing(
    collector: Collector, said: Callable[[], list[str]], fault: Answer, words: str
) -> None:
    """It is said once, with what to check; the next flush delivers what was recorded."""
    collector.script = lambda request: fault
    sdk = client(collector, exit_timeout=0.0)
    with sdk.trace("mine") as open_trace:
        for _ in range(3):
            open_trace.user_message_sync([])
    before = sdk.flush_sync(0.3)["whyops"]
    collector.script = None
    after = tally(sdk)

    assert (before.delivered, before.pending, before.rejected) == (0, before.emitted, 0)
    assert after == (3, 3, 0, 0, 0, 0, {})
    assert [words in text for text in said()] == [True]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(503, b"busy"),
        Answer(502, b"<html>bad gateway</html>", content_type="text/html"),
        Answer(500, {"error": "Internal server error"}),
        Reset(),
        Reset("answer"),
        Reset("answer", stored=True),
        Close(),
        Stored(Answer(502)),
        Stored(Answer(202, {"success": True})),
        Drip(100),
    ],
    ids=repr,
)
def test_an_outage_loses_and_doubles_nothing(to: WhyOpsExporter, collector: Collector, fault: Fault) -> None:
    """Whether the events were stored or not before the answer was lost."""
    lines = [*messages(20), *conversations(3, 5)]
    collector.fail(*[fault] * 4)

    assert persist(to, lines) == [DELIVERED] * 35
    assert sorted(keys(collector.stored)) == sorted(map(the_key, lines))
    for number in range(3):
        assert numbers(collector.trace(f"conversation-{number}")) == [
            (1, None),
            (2, 1),
            (3, 2),
            (4, 3),
            (5, 4),
        ]


def test_a_server_that_is_not_there_is_waited_for(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """What was recorded meanwhile arrives when it is back."""
    collector.stop()
    sdk = client(collector)
    for _ in range(5):
        sdk.trace("mine").user_message_sync([])
    before = sdk.flush_sync(0.2)["whyops"]
    collector.start()

    assert (before.pending, before.delivered) == (5, 0)
    assert tally(sdk).delivered == 5
    assert len(said()) == 1
    assert "cannot be reached" in said()[0]
    assert "stay in the journal and are tried again" in said()[0]


def test_what_one_process_could_not_deliver_the_next_one_does(
    collector: Collector, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    """The warning at its end says how much stays behind."""
    collector.stop()
    first = client(collector, tmp_path, exit_timeout=0.0)
    first.trace("mine").user_message_sync([])
    first.close_sync()
    collector.start()
    second = client(collector, tmp_path)
    second.trace("mine").user_message_sync([])

    assert tally(second).delivered == 1
    assert numbers(collector.trace("mine")) == [(1, None), (2, 1)]
    assert any("1 records are not delivered yet" in text for text in said())


def test_flush_obeys_a_server_that_asks_to_be_left_alone(collector: Collector) -> None:
    """A 429 with Retry-After: nothing is sent before, whoever waits."""
    collector.fail(Answer(429, b"", {"Retry-After": "100"}))
    sdk = client(collector, exit_timeout=0.0)
    sdk.trace().user_message_sync([])
    collector.wait_for(lambda: len(posts(collector)) == 1)
    for _ in range(3):
        sdk.trace().user_message_sync([])
        sdk.flush_sync(0.1)

    assert len(posts(collector)) == 1
    assert sdk.stats()["whyops"].pending == 4


def test_it_is_asked_again_when_the_time_is_over(to: WhyOpsExporter, collector: Collector) -> None:
    """And the wait is what it asked for."""
    collector.fail(Answer(429, b"", {"Retry-After": "100"}))
    first = refuses(to, messages(1))
    early = refuses(to, messages(1))
    to._due = time.monotonic()

    assert first.wait == 100.0
    assert early.wait is not None
    assert 90 < early.wait <= 100
    assert export(to, messages(1)) == [DELIVERED]
    assert len(posts(collector)) == 2


def test_a_503_says_how_long_to_wait_too(to: WhyOpsExporter, collector: Collector) -> None:
    """But somebody who flushes may ask at once."""
    collector.fail(Answer(503, b"", {"Retry-After": "100"}))

    assert refuses(to, messages(1)).wait == 100.0
    assert export(to, messages(1)) == [DELIVERED]


def test_what_has_to_be_mended_is_not_asked_about_often(to: WhyOpsExporter, collector: Collector) -> None:
    """A wrong key stays wrong."""
    collector.fail(Answer(401), Answer(404))

    assert [refuses(to, messages(1)).wait for _ in range(2)] == [LONG_WAIT] * 2


def test_a_server_that_is_too_slow_gets_fewer_events(collector: Collector, tmp_path: Path) -> None:
    """Until it answers in time; then more again. None is stored twice."""
    to = exporter(collector, tmp_path, read_timeout=1)
    lines = messages(700)
    collector.script = lambda request: Hang(stored=True) if len(request.json) > 60 else None
    errors = [refuses(to, lines) for _ in range(2)]
    outcomes = list(export(to, lines))
    collector.script = None
    collector.stop()
    collector.start()
    outcomes += persist(to, lines[len(outcomes) :])
    to.close()

    assert ["does not answer in time" in str(error) for error in errors] == [True] * 2
    assert outcomes == [DELIVERED] * 700
    assert sizes(collector) == [200, 100, 50, 100, 200, 200, 150]
    assert keys(collector.stored) == [the_key(line) for line in lines]


def test_a_small_request_says_nothing_about_large_ones(collector: Collector, tmp_path: Path) -> None:
    """That a trace could be begun does not make requests larger again."""
    to = exporter(collector, tmp_path, read_timeout=1)
    collector.fail(Hang())
    refuses(to, messages(300))
    outcomes = deliver(to, [*conversations(1, 1), *messages(300)])
    to.close()

    assert outcomes == [DELIVERED] * 301
    assert sizes(collector) == [200, 1, 99, 100, 101]


def test_part_of_a_batch_is_taken_and_the_failure_is_said_with_the_rest(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """What was stored before it is not sent again."""
    lines = messages(8)
    collector.max_body = len(b",".join(lines[4:])) + 2
    collector.fail(None, None, Answer(503))
    outcomes = list(export(to, lines))
    error = refuses(to, lines[4:])
    asked = len(posts(collector))
    outcomes += deliver(to, lines[4:])

    assert outcomes == [DELIVERED] * 8
    assert "503" in str(error)
    assert asked == 3
    assert sizes(collector) == [8, 4, 4, 4]


def test_what_failed_before_a_close_is_forgotten_after_it(to: WhyOpsExporter, collector: Collector) -> None:
    """The next record is not held up by it."""
    lines = messages(8)
    collector.max_body = len(b",".join(lines[4:])) + 2
    collector.fail(None, None, Answer(401))
    taken = export(to, lines)
    to.close()

    assert len(taken) == 4
    assert export(to, lines[4:]) == [DELIVERED] * 4


# What a server does not keep


def test_traces_that_a_server_samples_out_are_counted(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """Whole traces, of own and of user-given ids; one warning names the setting."""
    sdk = client(collector)
    sdk.trace().user_message_sync([])
    tally(sdk)
    collector.sampling_rate = 0.0
    for name in (None, "mine", "yours"):
        with sdk.trace(name) as open_trace:
            for _ in range(3):
                open_trace.user_message_sync([])

    assert tally(sdk) == (10, 1, 0, 9, 0, 0, {})
    assert len(collector.stored) == 1
    assert ["samplingRate" in text for text in said()] == [True]


def test_the_traces_that_a_server_keeps_are_whole(collector: Collector) -> None:
    """At any rate."""
    sdk = client(collector)
    sdk.trace().user_message_sync([])
    tally(sdk)
    collector.sampling_rate = 0.4
    for number in range(40):
        with sdk.trace(f"conversation-{number}"):
            double(number)
    ledger = tally(sdk)
    kept = {row["traceId"] for row in collector.stored[1:]}

    assert 5 < len(kept) < 35
    assert ledger == (81, 1 + 2 * len(kept), 0, 2 * (40 - len(kept)), 0, 0, {})
    for name in kept:
        assert numbers(collector.trace(name)) == [(1, None), (2, 1)]


def test_a_trace_that_is_sampled_out_is_asked_about_once(to: WhyOpsExporter, collector: Collector) -> None:
    """Further events of it are counted, and not sent."""
    deliver(to, messages(1))
    collector.sampling_rate = 0.0
    lines = conversations(1, 6)
    first = deliver(to, lines[:4])
    second = deliver(to, lines[4:])

    assert first + second == [SAMPLED_OUT] * 6
    assert sizes(collector) == [1, 1]


def test_events_for_whose_span_there_is_no_room_are_counted(
    collector: Collector, said: Callable[[], list[str]]
) -> None:
    """The others of their trace are stored with sound numbers; one warning names the setting."""
    sdk = client(collector)
    with sdk.trace("mine") as open_trace:
        open_trace.user_message_sync([])
    tally(sdk)
    collector.max_spans = 1
    sdk.close_sync()
    sdk = client(collector)
    with sdk.trace("mine"):
        double(1)
        open_trace = sdk.trace("mine")
        open_trace.user_message_sync([])
        open_trace.user_message_sync([])

    assert tally(sdk) == (4, 2, 0, 2, 0, 0, {})
    assert [step for step, _ in numbers(collector.trace("mine"))] == [1, 2, 3]
    assert ["max_spans" in text for text in said()] == [True]


# Beside it


def test_a_server_that_is_down_does_not_delay_the_local_store(collector: Collector, tmp_path: Path) -> None:
    """Each destination goes at its own pace."""
    collector.stop()
    sdk = client(collector, tmp_path, store=True, exit_timeout=0.0)
    with sdk.trace("mine"):
        double(1)
    ledger = sdk.flush_sync(0.5)
    seen = stored(tmp_path, "mine")
    collector.start()

    assert (ledger["local"].delivered, ledger["whyops"].delivered) == (3, 0)
    assert [event["eventType"] for event in seen] == ["tool_call_request", "tool_call_response", "trace_end"]
    assert tally(sdk).delivered == 2


def test_a_store_that_cannot_be_written_does_not_delay_the_server(
    collector: Collector, tmp_path: Path
) -> None:
    """And the other way round."""
    with contextlib.closing(sqlite3.connect(tmp_path / "traces.db")) as connection:
        connection.execute("CREATE TABLE notes (text)")
    sdk = client(collector, tmp_path, store=True, exit_timeout=0.0)
    with sdk.trace("mine"):
        double(1)
    ledger = sdk.flush_sync(0.5)

    assert (ledger["local"].delivered, ledger["whyops"].delivered) == (0, 2)
    assert len(collector.stored) == 2


def test_two_keys_in_one_home_never_mix(collector: Collector, tmp_path: Path) -> None:
    """Not even what one of them left."""
    collector.keys["whyops_other"] = "other"
    collector.stop()
    first = client(collector, tmp_path, exit_timeout=0.0)
    first.trace().user_message_sync(["first"])  # type: ignore[list-item]
    first.close_sync()
    collector.start()
    second = client(collector, tmp_path, api_key="whyops_other")
    second.trace().user_message_sync(["second"])  # type: ignore[list-item]

    assert tally(second).delivered == 1
    assert [(row["userId"], row["content"]["messages"]) for row in collector.stored] == [
        ("other", ["second"])
    ]

    again = client(collector, tmp_path)
    again.trace().user_message_sync(["again"])  # type: ignore[list-item]

    assert tally(again).delivered == 1
    assert [row["content"]["messages"] for row in collector.stored if row["userId"] == "tenant"] == [
        ["first"],
        ["again"],
    ]


def test_the_key_is_never_written_to_disk(collector: Collector, tmp_path: Path) -> None:
    """In no file of the home."""
    collector.fail(Answer(401))
    sdk = client(collector, tmp_path, agent_metadata={"systemPrompt": "Help."}, exit_timeout=0.0)
    sdk.trace("mine").user_message_sync([])
    sdk.flush_sync(0.2)

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_events_after_close_are_delivered(collector: Collector) -> None:
    """Closing twice does nothing more."""
    sdk = client(collector)
    sdk.trace("mine").user_message_sync([])
    sdk.close_sync()
    sdk.close_sync()
    sdk.trace("mine").user_message_sync([])

    assert tally(sdk).delivered == 2
    assert numbers(collector.trace("mine")) == [(1, None), (2, 1)]


def test_a_forked_child_delivers_its_own(collector: Collector, tmp_path: Path) -> None:
    """Parent and child each have a worker and a connection."""
    code = f"""
    import os, sys
    from whyops_trace import WhyOps, traced_tool
    sdk = WhyOps({KEY!r}, "shop", None, {collector.proxy_url!r}, {collector.url!r})
    @traced_tool
    def double(n): return 2 * n
    double(1)
    assert sdk.flush_sync(30)["whyops"].delivered == 2
    children = []
    for n in range(3):
        child = os.fork()
        if not child:
            double(n)
            os._exit(sdk.flush_sync(30)["whyops"].delivered != 2)
        children.append(child)
        double(n)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(ends != [0] * 3 or sdk.flush_sync(30)["whyops"].delivered != 8)
    """
    with start_code(code, tmp_path) as process:
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, "")
    assert len(set(keys(collector.stored))) == len(collector.stored) == 14
