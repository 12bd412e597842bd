"""How records are numbered, timed and named."""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector import Collector, check
from programs import stored

from whyops_trace import WhyOps, propagate, traced_tool
from whyops_trace._recording import recorder, recorders, shares
from whyops_trace._recording.line import ROOT, TOP, Ending
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.testing import ManualClock, capture_events


@traced_tool
def f() -> int:
    return 1


class Interrupted(Iterator[int]):
    """Steps, and what runs as soon as one was taken."""

    def __init__(self, steps: Iterator[int], handler: Callable[[], None]) -> None:
        self.steps = steps
        self.handler = handler

    def __next__(self) -> int:
        step = next(self.steps)
        self.handler()
        return step


def numbers(events: list[dict[str, Any]]) -> list[tuple[int, int | None, Any]]:
    return [(event["stepId"], event.get("parentStepId"), event.get("given")) for event in events]


def test_a_record_has_its_members_in_the_order_that_others_rely_on(tmp_path: Path) -> None:
    """Whoever renumbers a record rewrites its beginning without decoding the rest."""
    sdk = WhyOps(agent_name="shop", home=tmp_path, clock=ManualClock())
    lines: list[bytes] = []
    recorders.capture(lines.append)
    with sdk.trace('quo"te', external_user_id="u1", tags=["vip"]) as handle:
        handle.user_message_sync([{"role": "user", "content": "hi"}])
        f()
    recorders.capture(None)
    token = sdk.recorder.token

    assert lines[0].startswith(
        b'{"eventType":"user_message","traceId":"quo\\"te","run":"%b-1","stepId":1,"metadata":{"within":0,'
        b'"trace":{"tags":["vip"]}},"spanId":"span_0","timestamp":"2026-01-01T00:00:00.000Z",'
        b'"idempotencyKey":"%b-1","agentName":"shop","externalUserId":"u1","content":'
        % (token.encode(), token.encode())
    )
    assert [list(msgspec.json.decode(line)) for line in lines[1:]] == [
        ["eventType", "traceId", "run", "stepId", *parent, "metadata", "spanId", "timestamp", "idempotencyKey",
         "agentName", "externalUserId", "content", *end]
        for parent, end in ((["parentStepId"], []), (["parentStepId"], []), ([], ["end"]))
    ]  # fmt: skip
    assert all(line.endswith(b"}\n") and line.count(b"\n") == 1 for line in lines)


def test_a_record_made_while_another_takes_its_step_comes_after_it(tmp_path: Path) -> None:
    """A signal handler may run at any time; steps and times rise all the same."""
    clock = ManualClock()
    sdk = WhyOps(home=tmp_path, clock=clock)
    lines: list[bytes] = []
    handle = sdk.trace("t")
    recorders.capture(lines.append)
    handle.error_sync("before")
    state = sdk.recorder.traces["t"]

    steps = state.steps

    def handler() -> None:
        state.steps = steps
        handle.error_sync("from a signal handler")
        clock.advance(0.01)

    state.steps = Interrupted(steps, handler)
    handle.error_sync("interrupted")
    recorders.capture(None)
    events = [msgspec.json.decode(line) for line in lines]

    assert [event["stepId"] for event in events] == [1, 2, 3]
    assert [event["content"]["message"] for event in events] == [
        "before",
        "interrupted",
        "from a signal handler",
    ]
    assert sorted(event["timestamp"] for event in events) == [event["timestamp"] for event in events]


def test_only_a_trace_id_of_the_users_names_its_run() -> None:
    """An id made here never comes back, so its steps are final."""
    sdk = WhyOps()
    with capture_events(local=True) as events:
        sdk.trace().error_sync("a")
        sdk.trace("mine").error_sync("b")

    assert ["run" in event for event in events] == [False, True]


def test_numbers_chosen_by_the_user_are_marked() -> None:
    """They are never changed; a chosen step moves the counting up to it."""
    sdk = WhyOps()
    handle = sdk.trace("t")
    with capture_events(local=True) as events:
        first = handle.error_sync("1")
        handle.error_sync("7", step_id=7, parent_step_id=first)
        handle.error_sync("8")
        handle.error_sync("9", parent_step_id=500)

    assert numbers(events) == [
        (1, None, None),
        (7, 1, ["stepId"]),
        (8, 7, ["parentStepId"]),
        (9, 500, ["parentStepId"]),
    ]


def test_timestamps_never_fall_in_a_trace_when_the_clock_is_set_back(tmp_path: Path) -> None:
    """A clock that is corrected does not turn causes into effects."""
    clock = ManualClock()
    sdk = WhyOps(home=tmp_path, clock=clock)
    with capture_events() as events, sdk.trace():
        f()
        clock.advance(-3600)
        f()
        clock.advance(7200)
        f()

    assert [event["timestamp"][11:19] for event in events] == ["00:00:00"] * 4 + ["01:00:00"] * 2


def test_few_span_ids_are_used_and_none_twice_at_a_time() -> None:
    """Pairs that are open have different spans; over time they are used again."""
    sdk = WhyOps()
    with capture_events() as events:
        handle = sdk.trace("t")
        opened = [handle.tool_call_request_sync("x", []) for _ in range(300)]
        for span in opened:
            handle.tool_call_response_sync("x", span, [], {})
        for _ in range(2000):
            f()

    assert len(set(opened)) == 300
    assert len({event["spanId"] for event in events}) <= 400
    assert all(1 <= int(span.removeprefix("span_")) <= 400 for span in opened)


def test_more_open_calls_than_spans_still_work() -> None:
    """The parent tells pairs apart where spans run out."""
    handle = WhyOps().trace("t")
    with capture_events() as events:
        opened = [handle.tool_call_request_sync("x", []) for _ in range(1500)]

    assert len(events) == 1500
    assert len(set(opened)) == 400


def test_idempotency_keys_are_unique() -> None:
    """Also over traces and threads."""
    sdk = WhyOps()

    def work() -> None:
        for _ in range(200):
            sdk.trace().error_sync("same")

    with capture_events() as events:
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    assert len({event["idempotencyKey"] for event in events}) == len(events) == 1600


def test_the_same_id_goes_on_with_its_numbering_and_a_forgotten_one_starts_a_new_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The numbering of so many traces is remembered; whoever stores the records continues an older one."""
    monkeypatch.setattr(recorder, "REMEMBERED_TRACES", 3)
    sdk = WhyOps()
    with capture_events(local=True) as events:
        for name in ("a", "b", "a", "c", "d", "a", "b"):
            sdk.trace(name).error_sync(name)
    token = sdk.recorder.token

    assert [(event["traceId"], event["run"].removeprefix(f"{token}-"), event["stepId"]) for event in events] == [
        ("a", "1", 1), ("b", "2", 1), ("a", "1", 2), ("c", "3", 1), ("d", "4", 1), ("a", "1", 3), ("b", "5", 1),
    ]  # fmt: skip


def test_a_made_trace_id_is_recognised_when_it_comes_back() -> None:
    """sdk.trace(handle.id) goes on where the handle stopped."""
    sdk = WhyOps()
    with capture_events() as events:
        handle = sdk.trace()
        handle.error_sync("a")
        sdk.trace(handle.id).error_sync("b")

    assert [event["stepId"] for event in events] == [1, 2]
    assert len(handle.id) == 32


def test_what_is_told_of_a_trace_later_is_carried_by_its_next_event() -> None:
    """Tags, metadata and the user are not lost because the trace exists already."""
    sdk = WhyOps()
    with capture_events() as events:
        sdk.trace("t").error_sync("a")
        sdk.trace("t", metadata={"plan": "pro"}, external_user_id="u2").error_sync("b")
        sdk.trace("t").error_sync("c")

    assert [(event["metadata"].get("trace"), event.get("externalUserId")) for event in events] == [
        (None, None),
        ({"metadata": {"plan": "pro"}}, "u2"),
        (None, "u2"),
    ]


def test_a_capture_within_a_capture_gives_back_what_was_before() -> None:
    """And what is captured is neither delivered nor counted."""
    sdk = WhyOps()
    with capture_events() as outer:
        f()
        with capture_events() as inner:
            f()
        f()

    assert (len(outer), len(inner)) == (4, 2)
    assert sdk.flush_sync()["local"].emitted == 0


@pytest.mark.parametrize("store", ["server", "local"])
def test_two_live_processes_take_turns_on_one_conversation(tmp_path: Path, store: str) -> None:
    """Each turn goes on where the other process has got to, on a server and in the local store."""
    clock = ManualClock()

    def turn(sdk: WhyOps) -> None:
        clock.advance(2)
        with sdk.trace("conversation"), sdk.step("turn"):
            f()
        sdk.flush_sync()

    with Collector() as collector:
        options: dict[str, Any] = {"agent_name": "shop", "home": tmp_path, "clock": clock}
        if store == "server":
            options |= {"api_key": "whyops_test", "analyse_base_url": collector.url}
        with WhyOps(**options) as one, WhyOps(**options) as two:
            for sdk in (one, two, one, one, two):
                turn(sdk)
        rows = collector.trace("conversation") if store == "server" else stored(tmp_path, "conversation")
    events = [row for row in rows if row["eventType"] not in ("step_end", "trace_end")]

    check([{"parentStepId": None, **row} for row in events])
    assert [row["stepId"] for row in events] == list(range(1, 16))
    assert [row.get("parentStepId") for row in events] == [None, *range(1, 15)]


@pytest.mark.parametrize("what", ["block", "call", "step", "tool", "nothing"])
def test_a_trace_begins_no_new_run_while_something_of_it_is_open(tmp_path: Path, what: str) -> None:
    """What is open may record on with the numbers it has."""
    clock, memory = ManualClock(), MemoryExporter()
    sdk = WhyOps(home=tmp_path, clock=clock, exporters=[memory])

    @traced_tool
    def call() -> None:
        open_block.close()
        come_back()

    def come_back() -> None:
        clock.advance(2)
        sdk.trace("t").error_sync("later")

    def record() -> None:
        handle = open_block.enter_context(sdk.trace("t"))
        handle.error_sync("first")
        if what == "block":
            come_back()
        elif what == "call":
            call()
        elif what == "step":
            with sdk.step("s"):
                open_block.close()
                come_back()
        elif what == "tool":
            handle.tool_call_request_sync("x", [])

    with contextlib.ExitStack() as open_block:
        contextvars.copy_context().run(record)  # what is open may be left in a task of its own
    if what in ("tool", "nothing"):
        come_back()
    sdk.flush_sync()
    (later,) = [event for event in memory.events if event["content"] == {"message": "later"}]

    assert (later["run"] == memory.events[0]["run"]) is (what != "nothing")
    assert (later["stepId"] == 1) is (what == "nothing")


def test_a_trace_that_comes_back_keeps_its_user(tmp_path: Path) -> None:
    """What was told of a trace holds for the numberings to come."""
    clock, memory = ManualClock(), MemoryExporter()
    sdk = WhyOps(home=tmp_path, clock=clock, exporters=[memory])
    sdk.trace("t", external_user_id="user-1").error_sync("first")
    clock.advance(2)
    sdk.trace("t").error_sync("second")
    sdk.flush_sync()

    assert [event["externalUserId"] for event in memory.events] == ["user-1", "user-1"]
    assert memory.events[0]["run"] != memory.events[1]["run"]


# Room for a proxy's events


def steps(events: list[dict[str, Any]], trace_id: str) -> list[int]:
    """The steps of a trace."""
    return [event["stepId"] for event in events if event["traceId"] == trace_id]


@pytest.mark.parametrize(
    ("before", "after"),
    [(0, [1, 1001, 2001]), (1, [1001, 2001, 3001]), (3, [1001, 2001, 3001]), (1001, [2001, 3001, 4001])],
)
def test_room_is_made_in_a_trace(before: int, after: list[int]) -> None:
    """From the next number that leaves some below it, wherever the trace has got to; once is enough."""
    sdk = WhyOps()
    with capture_events() as events:
        handle = sdk.trace("t")
        for _ in range(before):
            handle.error_sync("before")
        for _ in after:
            sdk.recorder.make_room(handle._state)
            handle.error_sync("after")

    earlier, (first, second, third) = steps(events, "t")[:before], steps(events, "t")[before:]

    assert earlier == [*range(1, before + 1)]
    assert [first // 1000, second // 1000, third // 1000] == [step // 1000 for step in after]
    assert third - second == recorder.ROOM
    assert events[-1]["parentStepId"] == second


def test_processes_take_places_of_their_own_within_each_thousand() -> None:
    """After its first event, which the server numbers: two that go on with a trace at once share no number."""
    numbers = set()
    for _ in range(20):
        sdk = WhyOps()
        sdk.recorder.stride = recorder.ROOM
        with capture_events() as events:
            for _ in range(3):
                sdk.trace("t").error_sync("said")
        first, second, third = steps(events, "t")
        numbers.add(second)

        assert first == 1
        assert recorder.ROOM <= second - first < 2 * recorder.ROOM
        assert third - second == recorder.ROOM
    assert len(numbers) > 5


def test_a_trace_with_an_id_of_its_own_is_numbered_evenly() -> None:
    """Nobody else goes on with it."""
    sdk = WhyOps()
    sdk.recorder.stride = recorder.ROOM
    with capture_events() as events:
        handle = sdk.trace()
        for _ in range(3):
            handle.error_sync("said")

    assert [event["stepId"] for event in events] == [1, 1001, 2001]


def test_a_recorder_beside_a_proxy_leaves_room_in_every_trace() -> None:
    """In those that begin from now on; a step that a user chooses is followed by the same room."""
    sdk = WhyOps()
    with capture_events() as events:
        early = sdk.trace("early")
        early.error_sync("a")
        sdk.recorder.stride = recorder.ROOM
        early.error_sync("b")
        with sdk.trace("late") as late:
            f()
            late.error_sync("c", step_id=5_500)
            late.error_sync("d")

    assert steps(events, "early") == [1, 2]
    assert [steps(events, "late")[place] for place in (0, 2, 3)] == [1, 5500, 6500]


def test_a_forked_child_leaves_room_as_well(tmp_path: Path) -> None:
    """Its share of a trace is wide enough for that, and what a server can store."""
    sdk = WhyOps(home=tmp_path)
    sdk.recorder.stride = recorder.ROOM
    reading, writing = os.pipe()
    with capture_events() as events, sdk.trace("t"):
        f()
        here = propagate(f)
        child = os.fork()
        if not child:
            here()
            os.write(writing, json.dumps(steps(events, "t")).encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writing)
    with open(reading, "rb") as answer:
        first, second, third, fourth = json.load(answer)

    assert (first, second // recorder.ROOM) == (1, 1)
    assert fourth == third + recorder.ROOM
    assert third >= 10 * shares.RANGE
    assert fourth < 2**31


@pytest.mark.parametrize(
    ("endings", "named"),
    [
        ([Ending.LOCAL, Ending.USUAL], True),
        ([Ending.USUAL, Ending.LOCAL], False),
        ([Ending.SERVER, Ending.USUAL], False),
        ([Ending.USUAL, Ending.USUAL], False),
    ],
)
def test_a_trace_that_begins_with_what_the_server_gets_from_elsewhere_names_its_run(
    endings: list[Ending], named: bool
) -> None:
    """Though its id was made up: the server has to say how the rest is numbered."""
    sdk = WhyOps()
    with capture_events(local=True) as events:
        handle = sdk.trace()
        for ending in endings:
            sdk.recorder.record(handle._state, b"error", ROOT, TOP, b"", b"{}", ending=ending)
        handle.error_sync("later")
    numberings = {event.get("run") for event in events}

    assert (numberings == {None}) is not named
    assert len(numberings) == 1


def test_what_a_server_never_has_is_nobody_s_parent_there() -> None:
    """An event that follows from nothing else than that follows from the first one the server has."""
    sdk = WhyOps()
    with capture_events(local=True) as events:
        state = sdk.recorder.new_trace()
        record = sdk.recorder.record
        record(state, b"user_message", ROOT, TOP, b"", b"{}", ending=Ending.LOCAL)
        record(state, b"tool_call_request", ROOT, 1, b"", b"{}")
        record(state, b"tool_call_response", 2, 2, b"", b"{}")
        record(state, b"llm_thinking", ROOT, 1, b"", b"{}")

    assert [event.get("parentStepId") for event in events] == [None, None, 2, 2]
