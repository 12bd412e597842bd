"""The records of several processes in one trace are read in the order of time, and below the call that they ran in."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from programs import outline

from whyops_trace._reading.processes import in_time

PARENT, CHILD, OTHER = "a" * 12, "b" * 12, "c" * 12


class Writer:
    """
    Writes the records of one process.

    Args:
        process: Its token.
        run: The numbering that it records in; its own if it is left out.
        serial: The number of records that it made before.
    """

    def __init__(self, process: str, run: str = "", serial: int = 0) -> None:
        self.records: list[dict[str, Any]] = []
        self._process, self._run, self._serial = process, run or f"{process}-1", serial

    def write(
        self, at: int, kind: str, number: int, parent: int = 0, within: int = 0, **metadata: Any
    ) -> None:
        """Write a record, at a number of milliseconds."""
        self._serial += 1
        record = {
            "eventType": kind, "traceId": "t", "run": self._run, "stepId": number, "parentStepId": parent,
            "metadata": {"within": within, **metadata}, "spanId": f"span_{parent or number}",
            "timestamp": f"2026-01-01T00:00:{at // 1000:02}.{at % 1000:03}Z", "agentName": "shop",
            "idempotencyKey": f"{self._process}-{self._serial}", "content": {},
        }  # fmt: skip
        self.records.append(record)

    def call(self, tool: str, begin: int, end: int, step: int, within: int = 0, end_step: int = 0) -> None:
        """Write a call of a tool."""
        self.write(begin, "tool_call_request", step, 0, within, tool=tool)
        self.write(end, "tool_call_response", end_step or step + 1, step, step, tool=tool)


def shown(*writers: Writer) -> list[tuple[int, str]]:
    """Return the depth and name of each node, of what was stored in that order."""
    events = [record for writer in writers for record in writer.records]
    return [(depth, name) for depth, _, name, _ in outline(in_time(events))]


def test_what_was_stored_first_is_shown_when_it_happened() -> None:
    """A process that had recorded before was not made in the call, and stays beside it."""
    inner, outer = Writer(CHILD, serial=4), Writer(PARENT)
    inner.call("inner", 10, 11, 1)
    outer.call("outer", 10, 20, 3)

    assert shown(inner, outer) == [(0, "outer"), (0, "inner")]


def test_a_process_that_began_in_a_call_is_inside_it() -> None:
    """With all that it did at the top; what it did inside of that stays there."""
    outer, child = Writer(PARENT), Writer(CHILD)
    outer.write(0, "llm_thinking", 1, step="plan")
    outer.call("outer", 10, 30, 2, within=1)
    outer.write(30, "step_end", 1, step="plan")
    child.call("first", 11, 12, 10)
    child.write(13, "tool_call_request", 12, tool="second")
    child.call("third", 14, 15, 13, within=12)
    child.write(30, "tool_call_response", 15, 12, 12, tool="second")

    expected = [(0, "plan"), (1, "outer"), (2, "first"), (2, "second"), (3, "third")]
    assert shown(child, outer) == shown(outer, child) == expected


def test_of_two_calls_side_by_side_nobody_knows_which_it_was() -> None:
    """So it is shown at the top; and so it is if it went on after the call, or began before."""
    outer, child = Writer(PARENT), Writer(CHILD)
    for step in (1, 2):
        outer.write(10, "tool_call_request", step, tool=f"outer {step}")
    for step in (1, 2):
        outer.write(30, "tool_call_response", step + 2, step, step, tool=f"outer {step}")
    child.call("inner", 11, 12, 10)
    assert shown(outer, child) == [(0, "outer 1"), (0, "outer 2"), (0, "inner")]

    for begin, end in ((11, 31), (9, 12)):
        outer, child = Writer(PARENT), Writer(CHILD)
        outer.call("outer", 10, 30, 1)
        child.call("inner", begin, end, 10)
        assert (1, "inner") not in shown(outer, child)


def test_calls_of_two_processes_at_the_same_time_leave_it_at_the_top() -> None:
    """Either of them may have made it."""
    outer, other, child = Writer(PARENT), Writer(OTHER, serial=3), Writer(CHILD)
    outer.call("outer", 10, 30, 1)
    other.call("other", 9, 30, 5)
    child.call("inner", 11, 12, 10)

    assert (0, "inner") in shown(outer, other, child)


def test_no_record_comes_before_the_call_that_encloses_it() -> None:
    """Though the clock of the machine that was called is an hour behind."""
    outer, callee = Writer(PARENT), Writer(CHILD, run=f"{PARENT}-1")
    outer.call("outer", 50_000, 50_100, 1, end_step=1_000_000)
    callee.call("inner", 10, 12, 500, within=1)

    assert shown(callee, outer) == shown(outer, callee) == [(0, "outer"), (1, "inner")]


def test_calls_that_enclose_each_other_are_read_all_the_same() -> None:
    """Somebody has written them so."""
    one, two = Writer(PARENT, run="x-1"), Writer(CHILD, run="x-1")
    one.write(1, "tool_call_request", 1, within=2, tool="one")
    two.write(2, "tool_call_request", 2, within=1, tool="two")

    assert len(in_time([*one.records, *two.records])) == 2


def test_the_records_of_one_process_stay_as_they_are() -> None:
    """Whatever their times and keys."""
    writer = Writer(PARENT)
    writer.call("late", 20, 21, 1)
    writer.call("early", 10, 11, 3)
    events = writer.records
    events[1]["idempotencyKey"] = "mine"

    assert in_time(events) == events
    assert in_time([]) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 4)), max_size=30),
    st.integers(),
)
def test_nothing_is_lost_and_each_process_keeps_its_order(
    rows: list[tuple[str, int, int]], seed: int
) -> None:
    """Whatever they say of their times and of what encloses them."""
    writers = {name: Writer(name * 12, run="x-1") for name in "abc"}
    for step, (name, at, within) in enumerate(rows, 1):
        writers[name].write(
            at, random.Random(seed).choice(["tool_call_request", "error"]), step, within=within
        )
    events = [record for writer in writers.values() for record in writer.records]
    ordered = in_time(list(events))

    assert sorted(map(id, ordered)) == sorted(map(id, events))
    for name, writer in writers.items():
        own = [event for event in ordered if event["idempotencyKey"].startswith(name * 12)]
        assert own == writer.records
