"""
Tests of traced code: its events in a list, and a clock that stands still.

::

    from whyops_trace.testing import capture_events

    def test_the_card_is_charged_once() -> None:
        with capture_events() as events:
            checkout(order)

        assert [e["metadata"]["tool"] for e in events if e["eventType"] == "tool_call_request"] == ["charge_card"]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from whyops_trace._recording.line import LOCAL
from whyops_trace._recording.recorders import capture

#: Members of a record that a WhyOps server does not read.
LOCAL_MEMBERS: Final = frozenset({"run", "given", "for", "end"})


@contextmanager
def capture_events(*, local: bool = False) -> Iterator[list[dict[str, Any]]]:
    """
    Collect the events that are recorded in the block, by whichever client and thread, instead of delivering them.

    Traces that begin in the block are recorded whatever the ``sample_rate``.

    Args:
        local: True to include the records and members that no WhyOps server sees, such as the ends of steps and traces.

    Yields:
        The list the events are appended to as they are recorded: dicts as a WhyOps server gets them.
    """
    events: list[dict[str, Any]] = []

    def collect(line: bytes) -> None:
        event: dict[str, Any] = msgspec.json.decode(line)
        if event.get("for") == ("server" if local else "local"):
            return
        if local:
            events.append(event)
        elif event["eventType"] not in LOCAL:
            events.append({name: value for name, value in event.items() if name not in LOCAL_MEMBERS})

    before = capture(collect)
    try:
        yield events
    finally:
        capture(before)


class ManualClock:
    """
    A clock that moves only when told to: ``WhyOps(clock=ManualClock())``.

    Args:
        start_ns: Wall-clock time it starts at, nanoseconds since the epoch; the default is 2026-01-01 in UTC.
    """

    def __init__(self, start_ns: int = 1_767_225_600_000_000_000) -> None:
        self._now = start_ns

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass; negative ones set the wall clock back."""
        self._now += round(seconds * 1_000_000_000)

    def time_ns(self) -> int:
        """Return wall-clock time in nanoseconds since the epoch."""
        return self._now

    def perf_counter_ns(self) -> int:
        """Return the same time, as a monotonic one."""
        return self._now
