"""What is read from the body of a stream in frames."""

from __future__ import annotations

from typing import Any

import pytest
from bedrock import event, frame
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace._models.frames import read_frames
from whyops_trace._models.streams import read_events

EVENT = {"type": "ping"}
SENT = event(EVENT)
THROTTLED = frame(
    {"message": "Too many."}, {":message-type": "exception", ":exception-type": "throttlingException"}
)
FAILED = frame(None, {":message-type": "error", ":error-code": "500", ":error-message": "Out."})


def failure(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SENT * 2, [(len(SENT), EVENT), (2 * len(SENT), EVENT)]),
        (THROTTLED, [(len(THROTTLED), failure("throttlingException", "Too many."))]),
        (FAILED, [(len(FAILED), failure("500", "Out."))]),
        (SENT + frame({"other": 1}) + frame({"bytes": "AAA"}) + SENT[:-1], [(len(SENT), EVENT)]),
    ],
    ids=["events", "exception", "error", "neither, and a part"],
)
def test_each_event_is_read_with_where_it_ends(body: bytes, expected: list[tuple[int, Any]]) -> None:
    """A failure is one as well; what is cut or no event is left out."""
    assert read_events(body) == expected


@given(st.binary() | st.tuples(st.just(SENT), st.binary()).map(b"".join))
def test_no_body_makes_reading_it_fail(body: bytes) -> None:
    """And no event ends outside of it, or before the one that came earlier."""
    ends = [end for end, _ in read_frames(body)]

    assert ends == sorted(set(ends))
    assert all(0 < end <= len(body) for end in ends)
