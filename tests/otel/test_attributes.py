"""The attributes of a span: what is decoded of them, and how often."""

from __future__ import annotations

import json
import math

import pytest
from spans import span

from whyops_trace._otel.attributes import Attributes, Decoded
from whyops_trace._otel.dialects import Form, is_foreign, is_known, is_turn
from whyops_trace._otel.messages import read_messages
from whyops_trace._shapes import parsed

MESSAGES = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "How deep?"}]}])


def test_a_text_that_an_earlier_reading_of_a_span_decoded_is_not_decoded_again() -> None:
    """Its value is the very one of before, until the attribute is another text."""
    decoded: Decoded = {}
    first = Attributes({"asked": MESSAGES}, decoded).made(read_messages, "asked")

    again = Attributes({"asked": MESSAGES}, decoded).made(read_messages, "asked")
    other = Attributes({"asked": '"Where?"'}, decoded).made(read_messages, "asked")

    assert first == [{"role": "user", "content": "How deep?"}]
    assert again is first
    assert other == [{"role": "user", "content": "Where?"}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 1}", "{'a': 1}"),
        ("", ""),
        ("north", "north"),
        ("[1,", "[1,"),
        (' {"a": [1.5, null]}', {"a": [1.5, None]}),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1e400", math.inf),
        ("-Infinity", -math.inf),
        ('"\\ud800"', "\ud800"),
        ('"a\nb"', '"a\nb"'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_text_is_read_as_json_if_it_is_what_python_takes_for_json(text: str, value: object) -> None:
    """Also what others refuse: lone surrogates, and numbers out of range."""
    assert parsed(text) == value


def test_a_span_of_another_service_is_known_by_its_form() -> None:
    """By its kind or its attributes, unless a dialect says what it is."""
    request = Form.of(span("POST", attributes={"http.request.method": "POST"}))
    server = Form.of(span("GET /", kind=2))
    step = Form.of(span("plan"))
    turn = span("chat", kind=3, gen_ai__operation__name="chat", http__method="POST")

    assert [is_foreign(form) for form in (request, server, step, Form.of(turn))] == [True, True, False, False]
    assert [is_known(form) for form in (request, server, step, Form.of(turn))] == [False, False, False, True]
    assert is_turn(turn.attributes)
    assert not is_turn({"gen_ai.operation.name": {"a": 1}})
