"""How a stream is told from an answer in one piece."""

from __future__ import annotations

import pytest

from whyops_trace._models.streams import is_stream


@pytest.mark.parametrize(
    ("start", "if_asked", "otherwise"),
    [
        (b"", None, None),
        (b"\xef\xbb\xbf", None, None),
        (b" \r\n", None, None),
        (b"d", True, True),
        (b"\xef\xbb\xbfdata: 1", True, True),
        (b"\n\nevent: ping", True, True),
        (b": keep alive", True, True),
        (b"id: 1", True, True),
        (b"retry: 9", True, True),
        (b"other: 1\ndata: 1", True, False),
        (b"<html>", True, False),
        (b'{"data": 1}', False, False),
        (b" [1]", False, False),
        (b"\0", True, True),
        (b"\0\0\1\5", True, True),
    ],
)
def test_a_stream_is_known_by_its_first_bytes(
    start: bytes, if_asked: bool | None, otherwise: bool | None
) -> None:
    """The request decides where they do not, and white space tells nothing."""
    assert is_stream(start, asked=True) is if_asked
    assert is_stream(start, asked=False) is otherwise
