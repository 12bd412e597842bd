"""What is read from the body of a stream of server-sent events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace._models.sse import read_sse

BODIES: list[tuple[bytes, list[tuple[int, Any]]]] = [
    (b"", []),
    (b'data: {"a":1}\n\n', [(15, {"a": 1})]),
    (b'data: {"a":1}\r\n\r\n', [(17, {"a": 1})]),
    (b'data: {"a":1}\r\r', [(15, {"a": 1})]),
    (b"data:1\n\ndata: 2\n\n", [(8, 1), (17, 2)]),
    (b"event: ping\nid: 7\nretry: 9\ndata: 1\n\n", [(36, 1)]),
    (b": keep alive\n\ndata: 1\n\n", [(23, 1)]),
    (b'data: {"a":\ndata: 1}\n\n', [(22, {"a": 1})]),
    (b"data: 1\n\n\n\ndata: 2\n\n", [(9, 1), (20, 2)]),
    (b"\xef\xbb\xbfdata: 1\n\n", [(12, 1)]),
    (b"data: 1\n\ndata: [DONE]\n\n", [(9, 1)]),
    (b'data: {"cut\n\ndata: 1\n\n', [(22, 1)]),
    (b'data: "\xff"\n\ndata: 1\n\n', [(20, 1)]),
    (b"data: " + b"[" * 100_000 + b"\n\ndata: 1\n\n", [(100_017, 1)]),
    (b"data: 1\ndata: 2\n\n", []),
    (b"data\n\nevent: error\n\n", []),
    (b"database: 1\n\n data: 2\n\n", []),
    (b"data: 1\n\ndata: 2", [(9, 1)]),
    (b"data: 1\n\ndata: 2\n", [(9, 1)]),
    (b'{"error":{"message":"no stream"}}', []),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
def test_each_event_is_read_with_where_it_ends(body: bytes, expected: list[tuple[int, Any]]) -> None:
    """In every form that the format allows; what is cut or no JSON is left out."""
    assert read_sse(body) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_what_was_sent_is_read(values: list[Any], line_end: str, spread: bool) -> None:
    """With every line end, on one line or several."""
    body, ends = b"", []
    for value in values:
        lines = json.dumps(value, indent=1 if spread else None).split("\n")
        body += "".join(f"data: {line}{line_end}" for line in lines).encode() + line_end.encode()
        ends.append(len(body))

    assert read_sse(body) == list(zip(ends, values, strict=True))


@given(st.binary() | st.text(alphabet="data: {}[]1\r\n").map(str.encode))
def test_no_body_makes_reading_it_fail(body: bytes) -> None:
    """And no event ends outside of it, or before the one that came earlier."""
    ends = [end for end, _ in read_sse(body)]

    assert ends == sorted(set(ends))
    assert all(0 < end <= len(body) for end in ends)
