"""A trace id that comes back goes on where it stopped, on the server as in the store."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Reset, check
from lines import START_NS, Process, encoded, tool_request, tool_response
from programs import start_code, stored
from serving import (
    DELIVERED,
    KEY,
    TOKEN,
    client,
    conversations,
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

from whyops_trace import step, traced_tool
from whyops_trace._clock import iso
from whyops_trace.exporters.whyops import WhyOpsExporter, numbering
from whyops_trace.exporters.whyops.state import ServerState

CHILD = "77aa00bb11cc"


@traced_tool
def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def to(collector: Collector, tmp_path: Path) -> Iterator[WhyOpsExporter]:
    """An exporter to it."""
    exported = exporter(collector, tmp_path)
    yield exported
    exported.close()


def turn(process: Process, first: int = 1) -> list[bytes]:
    """A turn of a conversation: a message, two tools at the same time, the second of which is answered first."""
    events = [
        process.event("user_message", first, first - 1 or None),
        tool_request(process, first + 1, first, spanId="span_1"),
        tool_request(process, first + 2, first, spanId="span_2"),
        tool_response(process, first + 3, first + 2, spanId="span_2"),
        tool_response(process, first + 4, first + 1, spanId="span_1"),
        process.event("llm_thinking", first + 5, first + 4),
    ]
    return [encoded({**event, "timestamp": later()}) for event in events]


_clock = itertools.count()


def later() -> str:
    """A time after all others."""
    return iso(START_NS + next(_clock) * 1_000_000)


def conversation(token: str, serial: int = 1, trace: str = "conversation") -> Process:
    """A process that records on a conversation."""
    return Process(token, trace, f"{token}-{serial}")


def test_a_trace_id_of_a_user_s_own_begins_at_one(to: WhyOpsExporter, collector: Collector) -> None:
    """Its first event leaves without a number, the server gives it one, and the others follow."""
    lines = turn(conversation(TOKEN))

    assert deliver(to, lines) == [DELIVERED] * 6
    assert [len(request.json) for request in posts(collector)] == [1, 5]
    assert posts(collector)[0].json[0].keys().isdisjoint({"stepId", "parentStepId", "run", "given"})
    assert numbers(collector.stored) == [(1, None), (2, 1), (3, 1), (4, 3), (5, 2), (6, 5)]
    check(collector.trace("conversation"))


def test_a_trace_id_that_comes_back_goes_on(collector: Collector, tmp_path: Path) -> None:
    """Each process counts from 1 for itself; parents and tool pairs are intact, what is nested is nested."""
    for token in (TOKEN, CHILD, "0123456789ab"):
        to = exporter(collector, tmp_path)
        deliver(to, turn(conversation(token)), token)
        to.close()
    rows = collector.trace("conversation")

    check(rows)
    assert numbers(rows)[6:] == [
        *[(7, 6), (8, 7), (9, 7), (10, 9), (11, 8), (12, 11)],
        *[(13, 12), (14, 13), (15, 13), (16, 15), (17, 14), (18, 17)],
    ]
    assert [row["metadata"]["within"] for row in rows][6:12] == [0, 0, 0, 9, 8, 0]


def test_the_offset_is_on_disk_before_the_next_event_leaves(collector: Collector, tmp_path: Path) -> None:
    """Whoever looks while the second request is on its way finds it."""
    found: list[int | None] = []

    def script(request: Any) -> None:
        if request.path == "/api/events" and len(posts(collector)) == 1:
            found.append(ServerState(tmp_path / "server.db").offset((f"{CHILD}-1", CHILD)))

    deliver(first := exporter(collector, tmp_path), turn(conversation(TOKEN)))
    first.close()
    collector.requests.clear()
    collector.script = script
    to = exporter(collector, tmp_path)
    deliver(to, turn(conversation(CHILD)), CHILD)
    to.close()

    assert found == [6]


@pytest.mark.parametrize("another", [False, True], ids=["the same process", "the next one"])
def test_an_answer_that_is_lost_after_the_first_event_was_stored_changes_nothing(
    collector: Collector, tmp_path: Path, another: bool
) -> None:
    """The server gives the same key the same number, also if somebody else has gone on with the trace."""
    to = exporter(collector, tmp_path)
    deliver(to, turn(conversation(TOKEN)))
    lines = turn(conversation(CHILD))
    collector.fail(Reset("answer", stored=True))
    refuses(to, lines, CHILD)
    deliver(to, turn(conversation("0123456789ab")), "0123456789ab")
    if another:
        to.close()
        to = exporter(collector, tmp_path)
    outcomes = deliver(to, lines, CHILD)
    to.close()
    rows = [row for row in collector.stored if row["metadata"]["idempotencyKey"].startswith(CHILD)]

    assert outcomes == [DELIVERED] * 6
    assert len(set(keys(collector.stored))) == len(collector.stored) == 18
    assert [row["stepId"] for row in rows] == [7, 8, 9, 10, 11, 12]
    assert [event.get("stepId") for event in sent(collector) if event["idempotencyKey"] == f"{CHILD}-1"] == [
        None
    ] * 2


def test_many_conversations_begin_in_one_request(to: WhyOpsExporter, collector: Collector) -> None:
    """Then the rest leaves in as few as possible."""
    lines = conversations(50, 10)

    assert deliver(to, lines) == [DELIVERED] * 500
    assert [len(request.json) for request in posts(collector)] == [50, 180, 200, 100]
    assert len(collector.stored) == 500
    for number in range(50):
        check(collector.trace(f"conversation-{number}"))


def test_no_more_conversations_begin_at_once_than_fit_into_a_request(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """The others follow."""
    lines = conversations(450, 1)

    assert deliver(to, lines) == [DELIVERED] * 450
    assert [len(request.json) for request in posts(collector)] == [200, 200, 50]


def test_own_and_known_traces_leave_with_the_rest(to: WhyOpsExporter, collector: Collector) -> None:
    """In their order, whatever else has to be found out."""
    known, new, own = conversation(TOKEN, 1, "known"), conversation(TOKEN, 2, "new"), messages(4, "own")
    deliver(to, turn(known))
    lines = [line for lines in zip(turn(known, 7), turn(new), strict=True) for line in lines]
    lines[3:3] = own

    assert deliver(to, lines) == [DELIVERED] * 16
    for name in ("known", "new", "own"):
        check(collector.trace(name))


def test_a_trace_that_was_forgotten_goes_on_after_what_was_recorded_before(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """In one process as between two: the second run waits for the first."""
    first, second = conversation(TOKEN, 1), conversation(TOKEN, 2)
    second._keys = itertools.count(100)
    lines = [*turn(first), *turn(second), *messages(2, "own")]

    assert deliver(to, lines) == [DELIVERED] * 14
    assert [len(request.json) for request in posts(collector)] == [1, 5, 1, 7]
    check(collector.trace("conversation"))
    assert [row["stepId"] for row in collector.trace("conversation")] == list(range(1, 13))


def test_numbers_that_a_user_chose_are_never_changed(collector: Collector) -> None:
    """Neither in the first process nor in a later one; those counted by the library go on above them."""
    for first in (10, 20):
        sdk = client(collector)
        conversation = sdk.trace("chosen")
        conversation.user_message_sync([], step_id=first)
        conversation.user_message_sync([], step_id=first + 3, parent_step_id=first)
        conversation.user_message_sync([])
        tally(sdk)
        sdk.close_sync()

    assert numbers(collector.stored) == [(10, 9), (13, 10), (14, 13), (20, 19), (23, 20), (24, 23)]


def test_a_number_chosen_later_does_not_change_the_offset(collector: Collector) -> None:
    """What was counted before and after it goes on after the last turn."""
    for _ in range(2):
        sdk = client(collector)
        conversation = sdk.trace("mixed")
        conversation.user_message_sync([])
        conversation.user_message_sync([], step_id=100)
        conversation.user_message_sync([])
        tally(sdk)
        sdk.close_sync()
    collector_steps = [row["stepId"] for row in collector.stored]

    assert collector_steps == [1, 100, 101, 102, 100, 202]


def test_the_server_and_the_store_agree(collector: Collector, tmp_path: Path) -> None:
    """On every number of three turns, whoever stored them first."""
    for turn_number in range(3):
        sdk = client(collector, tmp_path, store=True)
        with sdk.trace("both"):
            with step("plan"):
                double(turn_number)
            double(0)
        ledger = sdk.flush_sync(30)
        sdk.close_sync()

        assert ledger["whyops"].delivered == 5
    local = [
        event for event in stored(tmp_path, "both") if event["eventType"] not in ("step_end", "trace_end")
    ]

    check(collector.trace("both"))
    assert [(event["stepId"], event.get("parentStepId"), event["metadata"]["within"]) for event in local] == [
        (row["stepId"], row["parentStepId"], row["metadata"]["within"]) for row in collector.trace("both")
    ]
    assert [event["idempotencyKey"] for event in local] == keys(collector.trace("both"))


TURNS = """
    import os, sys
    from whyops_trace import WhyOps, step, traced_tool
    sdk = WhyOps({key!r}, "shop", None, {proxy!r}, {url!r}, store=True)
    @traced_tool
    def double(n): return 2 * n
    print("ready", flush=True)
    for line in sys.stdin:
        with sdk.trace("conversation"):
            with step("plan"):
                double(1)
            double(2)
            tool = sdk.trace("conversation").tool_call_request_sync("search", [])
            sdk.trace("conversation").tool_call_response_sync("search", tool, [], {{}})
        if line == "flush\\n":
            ledger = sdk.flush_sync(30)
            assert ledger["whyops"].pending == ledger["local"].pending == 0, ledger
        print("done", flush=True)
"""


class Speaker:
    """A process that takes turns on a conversation."""

    def __init__(self, collector: Collector, home: Path) -> None:
        code = TURNS.format(key=KEY, proxy=collector.proxy_url, url=collector.url)
        self.process = start_code(code, home)
        self.ask("ready")

    def ask(self, answer: str, word: str = "") -> None:
        """Say a word, if any, and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if word:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        said = self.process.stdout.readline()

        assert said == f"{answer}\n", self.process.communicate()[1]

    def end(self, *, kill: bool) -> None:
        """End it, at once or in an orderly way."""
        with self.process as process:
            if kill:
                process.send_signal(signal.SIGKILL)
            _, err = process.communicate(timeout=60)

        assert (process.returncode, err) == (-9 if kill else 0, "")


def test_processes_take_turns_on_one_conversation(collector: Collector, tmp_path: Path) -> None:
    """Two are alive at a time, some are killed: one trace, in order, the same on the server and in the store."""
    speaker = Speaker(collector, tmp_path)
    for number in range(5):
        speaker.ask("done", "flush")
        last, speaker = speaker, Speaker(collector, tmp_path)
        last.end(kill=number % 3 == 2)
    speaker.end(kill=False)
    rows = collector.trace("conversation")
    local = [event for event in stored(tmp_path, "conversation") if not event["eventType"].endswith("_end")]

    assert len(rows) == 5 * 7
    check(rows)
    assert [row["stepId"] for row in rows] == list(range(1, 36))
    assert [event["idempotencyKey"] for event in local] == keys(rows)
    assert [(event["stepId"], event.get("parentStepId")) for event in local] == numbers(rows)


def test_a_turn_that_a_killed_process_left_comes_before_the_next_one(
    collector: Collector, tmp_path: Path
) -> None:
    """The next process delivers it first, although it could not be delivered at all before."""
    collector.stop()
    first = Speaker(collector, tmp_path)
    first.ask("done", "turn")
    first.end(kill=True)
    collector.start()
    second = Speaker(collector, tmp_path)
    second.ask("done", "flush")
    second.end(kill=False)
    collector.wait_for(lambda: len(collector.stored) == 14)
    local = [event for event in stored(tmp_path, "conversation") if not event["eventType"].endswith("_end")]

    check(collector.trace("conversation"))
    assert [row["stepId"] for row in collector.trace("conversation")] == list(range(1, 15))
    assert [event["idempotencyKey"] for event in local] == keys(collector.trace("conversation"))


# Forks


def forked(parent: Process, token: str, band: int, parent_step: int | None) -> list[bytes]:
    """A tool call of a child forked in the middle of its parent's trace, which goes on from there."""
    child = conversation(token)
    child.run = parent.run
    lines = [
        tool_request(child, band, parent_step, spanId="span_9"),
        tool_response(child, band + 1, band, spanId="span_9"),
    ]
    return [encoded({**event, "timestamp": later()}) for event in lines]


def test_a_forked_child_goes_on_in_its_parent_s_numbering(to: WhyOpsExporter, collector: Collector) -> None:
    """What it follows from is there, under the number it has on the server."""
    deliver(to, turn(conversation("0123456789ab")), "0123456789ab")
    parent = conversation(TOKEN)
    deliver(to, turn(parent))
    deliver(to, forked(parent, CHILD, 500_000, 3), CHILD)

    assert numbers(collector.stored)[-2:] == [(500_006, 9), (500_007, 500_006)]
    assert to._state.offset((f"{TOKEN}-1", CHILD)) == 6
    check(collector.trace("conversation"))


def test_a_forked_child_waits_for_its_parent(
    to: WhyOpsExporter, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the parent may still deliver; what is recorded after it waits, too, and nothing is sent twice."""
    parent = conversation(TOKEN)
    waits = [refuses(to, [*forked(parent, CHILD, 500_000, 1), *messages(2, "own")], CHILD) for _ in range(3)]
    asked = len(posts(collector))
    deliver(to, turn(parent))
    outcomes = deliver(to, forked(parent, CHILD, 500_000, 1), CHILD)

    assert [str(wait) for wait in waits] == [""] * 3
    assert all(wait.wait for wait in waits)
    assert asked == 0
    assert outcomes == [DELIVERED] * 2
    assert numbers(collector.stored)[-2:] == [(500_000, 1), (500_001, 500_000)]


def test_a_process_of_another_home_finds_its_caller_s_numbering_on_the_server(
    to: WhyOpsExporter, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the key of the caller's first event, as soon as that is there."""
    monkeypatch.setattr(numbering, "PAUSE", 0.0)
    deliver(to, turn(conversation("0123456789ab")), "0123456789ab")
    caller = conversation(TOKEN)
    there = exporter(collector, tmp_path / "there")
    there.offsets.expect(f"{TOKEN}-1", f"{TOKEN}-1", 1)
    refuses(there, forked(caller, CHILD, 500_000, 3), CHILD)
    deliver(to, turn(caller))
    deliver(there, forked(caller, CHILD, 500_000, 3), CHILD)
    there.close()

    assert numbers(collector.stored)[-2:] == [(500_006, 9), (500_007, 500_006)]
    check(collector.trace("conversation"))


def test_what_stands_before_an_event_that_waits_is_delivered(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """Only what comes after it waits with it."""
    own = messages(4, "own")
    lines = [*own[:2], *forked(conversation(TOKEN), CHILD, 500_000, 1), *own[2:]]

    assert export(to, lines, CHILD) == [DELIVERED] * 2
    refuses(to, lines[2:], CHILD)
    assert len(collector.stored) == 2


def test_a_forked_child_whose_parent_s_events_are_lost_goes_on_alone(
    to: WhyOpsExporter, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while. Its numbers are sound, and it keeps them when the parent turns up after all."""
    deliver(to, turn(conversation("0123456789ab")), "0123456789ab")
    monkeypatch.setattr(numbering, "PATIENCE", 0.0)
    parent = conversation(TOKEN)
    lines = forked(parent, CHILD, 500_000, 3)
    outcomes = persist(to, lines, token=CHILD)
    deliver(to, turn(parent))
    child = conversation(CHILD)
    child.run = parent.run
    child._keys = itertools.count(3)
    more = [child.line("llm_thinking", 500_002, 3), child.line("llm_thinking", 500_003, 500_001)]
    outcomes += deliver(to, more, CHILD)

    assert outcomes == [DELIVERED] * 4
    assert numbers(collector.stored)[6:8] == [(7, 6), (8, 7)]
    assert numbers(collector.stored)[8:14] == [(9, 8), (10, 9), (11, 9), (12, 11), (13, 10), (14, 13)]
    assert numbers(collector.stored)[14:] == [(9, 8), (10, 8)]


def test_a_child_of_a_process_that_had_recorded_nothing_waits_for_nobody(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """A handle made before the workers are forked: each worker's events are a turn of their own."""
    parent = conversation(TOKEN)
    for token, band in ((CHILD, 500_000), ("0123456789ab", 600_000)):
        deliver(to, forked(parent, token, band, None), token)

    assert numbers(collector.stored) == [(1, None), (2, 1), (3, 2), (4, 3)]
    check(collector.trace("conversation"))


def test_parent_and_child_of_a_fork_record_on_one_trace(collector: Collector, tmp_path: Path) -> None:
    """Whether the server knew the trace before the fork or not."""
    code = """
    import os, sys
    from whyops_trace import WhyOps, propagate, traced_tool
    sdk = WhyOps({key!r}, "shop", None, {proxy!r}, {url!r}, store=True)
    @traced_tool
    def double(n): return 2 * n
    for name in ("resolved", "unresolved"):
        with sdk.trace(name):
            double(1)
            carried = propagate(double)
            if name == "resolved":
                assert sdk.flush_sync(30)["whyops"].delivered == 2
            child = os.fork()
            carried(2)
            ledger = sdk.flush_sync(30)
            if not child:
                os._exit(ledger["whyops"].pending)
            assert ledger["whyops"].pending == 0, ledger
            assert os.waitpid(child, 0)[1] == 0
    """
    with start_code(code.format(key=KEY, proxy=collector.proxy_url, url=collector.url), tmp_path) as process:
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, "")
    for name in ("resolved", "unresolved"):
        rows = collector.trace(name)
        by_time = sorted(rows, key=lambda row: row["stepId"])

        assert len(rows) == 6
        assert numbers(by_time)[:4] == [(1, None), (2, 1), (3, 2), (4, 3)]
        assert by_time[4]["stepId"] >= 100_000
        assert numbers(by_time)[4][1] == 2
        assert numbers(by_time)[5] == (by_time[4]["stepId"] + 1, by_time[4]["stepId"])


# Traces that a proxy reports to as well


def charge(process: Process, first: int, *, asked_by: int = 0) -> list[bytes]:
    """A tool call with room for a proxy's events in it, which an answer may have asked for."""
    about = {"within": 0, **({"requestedBy": asked_by} if asked_by else {}), "tool": "charge_card"}
    request = tool_request(process, first, None, spanId="span_1") | {"metadata": about}
    response = tool_response(process, first + 1000, first, spanId="span_1")
    return [encoded({**event, "timestamp": later()}) for event in (request, response)]


def answer(process: Process, step: int) -> bytes:
    """A model's answer."""
    about = {"model": "gpt-4o", "provider": "openai"}
    return process.line("llm_response", step, metadata=about, content={"content": process.trace})


def asked_by(collector: Collector) -> list[int | None]:
    """The answers that asked for the tools that are stored."""
    requests = [row for row in collector.stored if row["eventType"] == "tool_call_request"]
    return [row["metadata"].get("requestedBy") for row in requests]


@pytest.mark.parametrize("first", [1, 1001, 7001])
def test_a_run_goes_on_after_the_proxy_s_events(to: WhyOpsExporter, collector: Collector, first: int) -> None:
    """Whichever of its own steps is the first that the server gets: it is numbered there, and the room stays."""
    deliver(to, messages(2, "conversation"))  # as if the proxy had reported them
    outcomes = deliver(to, charge(conversation(CHILD), first), CHILD)

    assert outcomes == [DELIVERED] * 2
    assert numbers(collector.stored) == [(1, None), (2, 1), (3, 2), (1003, 3)]
    assert to._state.offset((f"{CHILD}-1", CHILD)) == 3 - first


def test_which_answer_asked_for_a_tool_is_told_only_if_that_came_from_here(
    to: WhyOpsExporter, collector: Collector
) -> None:
    """The answers that a proxy reports have other numbers on the server, which nobody knows here."""
    process = conversation(TOKEN)
    deliver(
        to, [answer(process, 1), *charge(process, 1001, asked_by=1), *charge(process, 4001, asked_by=3001)]
    )

    assert asked_by(collector) == [1, None]


def test_which_answer_asked_is_renumbered_with_its_run(to: WhyOpsExporter, collector: Collector) -> None:
    """As parents are."""
    process = conversation(TOKEN)
    deliver(to, turn(conversation(CHILD)), CHILD)
    deliver(to, [answer(process, 1), *charge(process, 1001, asked_by=1)])

    assert [row["stepId"] for row in collector.stored] == [1, 2, 3, 4, 5, 6, 7, 1007, 2007]
    assert asked_by(collector) == [None, None, 7]


def test_a_bounded_number_of_answers_is_remembered(
    to: WhyOpsExporter, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that an older one asked for is delivered without saying so."""
    monkeypatch.setattr(numbering, "REMEMBERED_ANSWERS", 1)
    processes = [conversation(TOKEN, 1, "a"), conversation(TOKEN, 2, "b")]
    processes[1]._keys = itertools.count(100)
    deliver(to, [answer(process, 1) for process in processes])
    deliver(to, [line for process in processes for line in charge(process, 1001, asked_by=1)])

    assert asked_by(collector) == [None, 1]
