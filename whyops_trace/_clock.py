"""Time: a clock that tests can replace, and the wire form in UTC with milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

#: Seconds that a worker leaves to other threads: enough for a waiting thread to wake up.
_MOMENT: Final = 20e-6


class Clock(Protocol):
    """The clock of a client; :class:`whyops_trace.testing.ManualClock` is one for tests."""

    def time_ns(self) -> int:
        """Return wall-clock time in nanoseconds since the epoch."""
        ...

    def perf_counter_ns(self) -> int:
        """Return a monotonic time in nanoseconds, for durations."""
        ...


def give_way() -> None:
    """
    Let other threads run, between two pieces of a worker's work.

    A thread that wants the GIL requests it only after 5 ms (:func:`sys.getswitchinterval`). Without a pause a worker
    can hold up the host program for as long.
    """
    time.sleep(_MOMENT)


class SystemClock:
    """The clock of the machine."""

    time_ns = staticmethod(time.time_ns)
    perf_counter_ns = staticmethod(time.perf_counter_ns)


def iso_seconds(seconds: int) -> bytes:
    """Return ``YYYY-MM-DDTHH:MM:SS`` in UTC for whole seconds since the epoch."""
    return b"%04d-%02d-%02dT%02d:%02d:%02d" % time.gmtime(seconds)[:6]


def iso(nanoseconds: int) -> str:
    """Return the wire form of a time: ISO 8601, UTC, milliseconds, ending in ``Z``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{iso_seconds(seconds).decode()}.{rest // 1_000_000:03d}Z"


def wire_time(value: str | datetime) -> str:
    """
    Return a user's timestamp in wire form.

    Args:
        value: A :class:`~datetime.datetime` (a naive one is local time, as in :meth:`~datetime.datetime.timestamp`)
            or an ISO 8601 string with any UTC offset (one without is UTC).

    Raises:
        ValueError: if the string is not ISO 8601, or the time is not in the years 1 to 9999 of UTC.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
    try:
        value = value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
