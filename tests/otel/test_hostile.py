"""Spans that no maker would send: of whatever values, nothing raises, and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

from dialects import FAILED, TOOLS, TURNS
from hypothesis import given
from hypothesis import strategies as st
from spans import span, tool, turn

from whyops_trace._otel.events import events_of
from whyops_trace._otel.packing import pack, unpack
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.span import Span, SpanEvent
from whyops_trace._otel.trace import read_trace
from whyops_trace._values.processor import Processor
from whyops_trace.settings import MAX_EVENT_BYTES

PROCESSOR = Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1)
MADE = [*TURNS.values(), *TOOLS.values(), *FAILED.values()]
NAMES = sorted(
    {name for each in MADE for name in each.attributes} | {"events", "error", "session.id", "metadata"}
)
WORDS = st.sampled_from(
    [
        "arguments",
        "assistant",
        "choices",
        "content",
        "data",
        "function",
        "generations",
        "id",
        "kwargs",
        "lc",
        "message",
    ]
)
OTHERS = st.sampled_from(
    ["messages", "name", "parts", "role", "text", "tool", "tool_calls", "type", "usage", "user"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | OTHERS | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | OTHERS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
ATTRIBUTES = VALUES | VALUES.map(lambda value: json.dumps(value, allow_nan=True)) | VALUES.map(repr)


@st.composite
def made(draw: st.DrawFn) -> Span:
    """Return a span whose attributes have the names of one that is right, and values of any kind."""
    right = draw(st.sampled_from(MADE))
    attributes: dict[str, Any] = dict(right.attributes)
    for name in draw(st.lists(st.sampled_from([*right.attributes, *NAMES]), max_size=4)):
        attributes[name] = draw(ATTRIBUTES)
    told = draw(st.dictionaries(WORDS | OTHERS, ATTRIBUTES, max_size=2))
    names = ["gen_ai.choice", "gen_ai.user.message", "exception", "tool.output", "gen_ai.tool.message"]
    return span(
        right.name,
        scope=right.scope,
        kind=draw(st.integers(0, 5)),
        at=draw(st.integers(0, 50)),
        took=draw(st.none() | st.integers(0, 50)),
        error=draw(st.none() | st.text(max_size=3)),
        events=[*right.events, SpanEvent(draw(st.sampled_from(names)), 1, told)],
        attributes=attributes,
    )


@given(st.lists(made(), min_size=1, max_size=5), st.data())
def test_any_spans_become_records(spans: list[Span], data: st.DataObject) -> None:
    """With parents of any kind, as they come and as they are kept; each line is one object."""
    ids = [each.span_id for each in spans]
    for each in spans:
        each.parent_id = data.draw(st.sampled_from(["", "00000000000000ff", *ids]))
    kept = [unpack(pack(each, PROCESSOR.encode, PROCESSOR.hides)) for each in spans]
    for some in (spans, kept):
        roots = read_trace(some)
        lines = lines_of("t", "a", events_of(roots, ended=True), PROCESSOR)

        assert sum(1 + len(node.layers) + len(node.folded) for root in roots for node in root.walk()) == len(
            spans
        )
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert not any(b"\n" in line for line in lines)


def test_ten_thousand_spans_of_any_shape_are_read() -> None:
    """In one another and beside each other; no shape takes time that grows with the square of their number."""
    count = 10_000
    root = span("app", took=count)
    beside = [
        root,
        *(
            turn(root, at=number, calls=[{"id": "c", "name": "depth", "arguments": {}}])
            for number in range(count)
        ),
    ]
    calls = [root, *(tool(root, at=number) for number in range(count))]
    foreign = [root, *(span("GET", root, kind=3, attributes={"http.url": "x"}) for _ in range(count))]
    inside = [root]
    for number in range(count):
        inside.append(span("step", inside[-1], at=number, error="deep"))
    for spans in (beside, calls, foreign, inside):
        roots = read_trace(spans)

        assert sum(1 + len(node.folded) for each in roots for node in each.walk()) == count + 1


def test_a_text_of_very_deep_json_costs_no_other_attribute() -> None:
    """It is taken as it is, where it cannot be searched for the objects of frameworks."""
    deep = '{"lc":' * 500 + "1" + "}" * 500
    told = turn()
    told.attributes |= dict.fromkeys(("input.value", "output.value", "gen_ai.input.messages"), deep)

    assert len(events_of(read_trace([told], []), 1, ended=True)) >= 2
