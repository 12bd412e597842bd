"""
The records of several processes in one trace: in the order of time, and below the call that a process ran in.

Within a process records rise with time. Between processes their steps tell who was stored first, which may be anybody.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, NamedTuple

from whyops_trace._reading.record import moment
from whyops_trace._shapes import dict_of, text_of

#: The member of the metadata that names the call in which a process ran that knew no more than the id of the trace.
RAN_IN: Final = "ranIn"
_KEY: Final = re.compile(r"([0-9a-f]{12})-(\d+)")
#: Types of records that end a call, which is their parent, and of those that begin one that runs other code.
_ENDS: Final = ("llm_response", "tool_call_response")
_RUNS: Final = ("llm_thinking", "tool_call_request")

Event = dict[str, Any]
#: A numbering and a step of it.
Number = tuple[str, int]


class Row(NamedTuple):
    """
    A record as it is sorted.

    Attributes:
        at: Its time, never before that of a record before it in its process.
        until: The time, turned round, at which the call ends that it begins: the longer of two comes first.
        place: Its place among all records.
        number: Its own number.
        within: The number of the enclosing call, or of none.
        event: The record.
    """

    at: float
    until: float
    place: int
    number: Number
    within: Number
    event: Event


def in_time(events: list[Event]) -> list[Event]:
    """
    Return the records of a trace in the order of time, those of each process in its own.

    No record comes before the call that encloses it, whatever the clocks of two machines say. A process that knew only
    the id of the trace gets the call that it ran in as :data:`RAN_IN`, if that is certain.
    """
    keys = [text_of(event.get("idempotencyKey")) for event in events]
    if not keys or all(key.startswith(keys[0][:13]) for key in keys):
        return events
    processes = _by_process(events, keys)
    if len(processes) < 2:
        return events
    for process, rows in processes.items():
        _note_call(process, rows, processes)
    return [row.event for row in _merged(processes.values())]


def _by_process(events: list[Event], keys: list[str]) -> dict[str, list[Row]]:
    """Return the records by the token of their process; one of an unknown process is of the one before."""
    ends: dict[Number, float] = {}
    times: list[float] = []
    before, process = 0.0, ""
    for event in events:
        told = moment(text_of(event.get("timestamp")))
        before = before if told is None else told
        times.append(before)
        if event.get("eventType") in _ENDS:
            ends[_run(event), _step(event.get("parentStepId"))] = before
        elif event.get("eventType") == "step_end":
            ends[_run(event), _step(event.get("stepId"))] = before
    processes: dict[str, list[Row]] = {}
    for place, (event, key, time) in enumerate(zip(events, keys, times, strict=True)):
        process = match[1] if (match := _KEY.fullmatch(key)) else process
        rows = processes.setdefault(process, [])
        at = max(time, rows[-1].at) if rows else time
        number = _run(event), _step(event.get("stepId"))
        within = _run(event), _step(dict_of(event.get("metadata")).get("within"))
        rows.append(Row(at, -ends.get(number, at), place, number, within, event))
    return processes


def _merged(processes: Iterable[list[Row]]) -> list[Row]:
    """Return the records of all processes, the earliest first, but none before the call that encloses it."""
    merged: list[Row] = []
    queues = [deque(rows) for rows in processes]
    to_come = {row.number for rows in processes for row in rows}
    heads = [(queue[0], place) for place, queue in enumerate(queues)]
    heapq.heapify(heads)
    #: The queues whose next record waits for the call around it.
    waiting: dict[Number, list[int]] = {}
    while heads or waiting:
        if not heads:  # no two enclose each other, unless somebody has written so
            heads = [(queues[place][0], place) for place in waiting.pop(next(iter(waiting)))]
            to_come.clear()
        row, place = heapq.heappop(heads)
        if row.within[1] and row.within in to_come and row.within != row.number:
            waiting.setdefault(row.within, []).append(place)
            continue
        queues[place].popleft()
        merged.append(row)
        to_come.discard(row.number)
        for each in (place, *waiting.pop(row.number, ())):
            if queues[each]:
                heapq.heappush(heads, (queues[each][0], each))
    return merged


def _note_call(process: str, rows: list[Row], processes: dict[str, list[Row]]) -> None:
    """
    Note the call that a process ran in, in its records at the top.

    That is certain if the process made the first record of its life there, if it made all of them while a call of one
    other process was open, and if no two calls were open there side by side.
    """
    is_new = rows[0].event.get("idempotencyKey") == f"{process}-1"
    if not is_new or any(run.partition("-")[0] != process for run, _ in (row.number for row in rows)):
        return
    first, last = rows[0].at, rows[-1].at
    open_calls = [
        (other, row)
        for other, others in processes.items()
        if other != process
        for row in others
        if row.at <= first and last <= -row.until and row.event.get("eventType") in _RUNS
    ]
    chain = [row for _, row in sorted(open_calls, key=lambda each: each[1].at)]
    is_chain = all(inner.within == outer.number for outer, inner in pairwise(chain))
    if not chain or not is_chain or len({other for other, _ in open_calls}) > 1:
        return
    for row in rows:
        metadata = row.event.get("metadata")
        if isinstance(metadata, dict) and not row.within[1] and row.event.get("eventType") != "trace_end":
            metadata[RAN_IN] = chain[-1].number[1]


def _run(event: Event) -> str:
    return text_of(event.get("run"))


def _step(value: object) -> int:
    return value if type(value) is int else 0
