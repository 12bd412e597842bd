"""The numbers at the start of a record, and where a trace that goes on has them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lines import Process
from strategies import STEADY

from whyops_trace._recording.numbers import Numbers, read_head, renumbered, without_numbering

#: Ids as users choose them, with everything that JSON escapes.
ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
odd_ids = st.sampled_from(
    ['"', "\\", '\\"', 'a","run":"b', "\\u0022", "é", "日本", "\n", "{}", "\U0001f600", "\x7f"]
)
steps = st.integers(1, 2**31 - 1)
ASKED = st.fixed_dictionaries({"requestedBy": steps})
NUMBERS = st.builds(Numbers, steps, st.none() | steps, st.integers(0, 2**31), st.just(0) | steps)
GIVEN = st.sampled_from([[], ["stepId"], ["parentStepId"], ["stepId", "parentStepId"]])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Any record, as the recorder orders it."""
    process = Process(trace=draw(ids | odd_ids), run=draw(st.none() | st.just("9f2c41aa01be-3")))
    step, parent = draw(steps), draw(st.none() | steps)
    return process.event(
        draw(st.sampled_from(["user_message", "tool_call_request", "llm_response"])),
        step,
        parent,
        given=draw(GIVEN),
        within=draw(st.integers(0, 2**31)),
        metadata=draw(st.just({}) | ASKED) | {"tool": draw(ids), "stepId": 7},
        content=draw(st.none() | st.dictionaries(ids, ids)),
        end=draw(st.booleans()),
    )


def with_numbers(record: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """Return the metadata of a record with other numbers."""
    asked = {"requestedBy": numbers.requested_by} if numbers.requested_by else {}
    rest = {
        name: value for name, value in record["metadata"].items() if name not in ("within", "requestedBy")
    }
    return {"within": numbers.within, **asked, **rest}


def line_of(record: dict[str, Any], *, ascii_only: bool = False) -> bytes:
    """The record as the recorder writes it, or with everything escaped that can be."""
    return json.dumps(record, separators=(",", ":")).encode() if ascii_only else msgspec.json.encode(record)


@STEADY
@given(records(), st.booleans())
def test_the_start_of_any_record_is_read(record: dict[str, Any], ascii_only: bool) -> None:
    """Whatever the trace id holds, and however it is escaped."""
    line = line_of(record, ascii_only=ascii_only)
    head = read_head(line)

    assert head is not None
    assert head.type == record["eventType"]
    assert json.loads(head.trace) == record["traceId"]
    assert head.numbering == record.get("run", "")
    assert head.numbers == (
        record["stepId"],
        record.get("parentStepId"),
        record["metadata"]["within"],
        record["metadata"].get("requestedBy", 0),
    )
    assert head.given == set(record.get("given", []))
    assert json.loads(b'{"metadata":{"within":0' + line[head.end :])["content"] == record["content"]


@STEADY
@given(records(), NUMBERS, st.booleans())
def test_a_line_for_a_server_has_the_numbers_and_all_else(
    record: dict[str, Any], numbers: Numbers, requested: bool
) -> None:
    """It knows nothing of numberings, and every other member keeps its place and value."""
    line = line_of(record)
    head = read_head(line)
    assert head is not None
    sent = json.loads(without_numbering(line, head, numbers, requested=requested))
    expected = {name: value for name, value in record.items() if name not in ("run", "given", "parentStepId")}
    expected["stepId"] = numbers.step
    expected["metadata"] = with_numbers(record, numbers if requested else numbers._replace(requested_by=0))

    assert sent.pop("parentStepId", None) == numbers.parent
    assert sent == expected
    assert [name for name in sent if name != "stepId"] == [name for name in expected if name != "stepId"]


@STEADY
@given(records(), st.booleans())
def test_a_line_that_a_server_numbers_has_no_numbers(record: dict[str, Any], requested: bool) -> None:
    """Only what it is nested in, and what asked for it, stay if they are wanted; a server does not read them."""
    line = line_of(record)
    head = read_head(line)
    assert head is not None
    sent = json.loads(without_numbering(line, head, None, requested=requested))
    numbered = ("run", "given", "stepId", "parentStepId")
    expected = {name: value for name, value in record.items() if name not in numbered}
    if not requested:
        expected["metadata"] = with_numbers(record, head.numbers._replace(requested_by=0))

    assert sent == expected


@STEADY
@given(records(), NUMBERS)
def test_a_line_for_the_store_keeps_its_run(record: dict[str, Any], numbers: Numbers) -> None:
    """Only its numbers are others, and it is read again."""
    line = renumbered(line_of(record), numbers)
    head, before = read_head(line), read_head(line_of(record))

    assert head is not None
    assert before is not None
    assert head.numbers == numbers
    assert json.loads(line)["metadata"] == with_numbers(record, numbers)
    assert (head.type, head.trace, head.numbering, head.given) == (
        before.type,
        before.trace,
        before.numbering,
        before.given,
    )
    assert line[head.end :] == line_of(record)[before.end :]


@pytest.mark.parametrize("odd", ["7", 7.5, [7], None, -7])
def test_what_is_no_step_is_not_changed(odd: Any) -> None:
    """Whoever writes something else under the name of a number finds it as it was."""
    line = line_of(Process().event("tool_call_request", 3, 2, within=1, metadata={"requestedBy": odd}))
    head = read_head(line)
    assert head is not None
    moved = head.numbers.moved(10, (), begins=False)

    assert head.numbers == Numbers(3, 2, 1)
    assert json.loads(renumbered(line, moved))["metadata"] == {"within": 11, "requestedBy": odd}


NO_RECORDS = [
    b"",
    b"{}",
    b"not json",
    b'{"traceId":"t","eventType":"error","stepId":1,"metadata":{"within":0}}',
    b'{"eventType":"error","traceId":"t,"stepId":1,"metadata":{"within":0}}',
    b'{"eventType":"error","traceId":"t","stepId":-1,"metadata":{"within":0}}',
    b'{"eventType":"error","traceId":"t","stepId":1,"metadata":{"tool":"x","within":0}}',
]


@pytest.mark.parametrize("line", NO_RECORDS)
def test_what_is_no_record_has_no_start(line: bytes) -> None:
    """And it cannot be renumbered."""
    assert read_head(line) is None
    with pytest.raises(ValueError, match=r"^b"):
        renumbered(line, Numbers(1, None, 0))


@STEADY
@given(st.binary(max_size=60))
@example(b'{"eventType":"' + b'\\"' * 20)
def test_reading_never_fails(line: bytes) -> None:
    """Whatever stands in a journal."""
    assert read_head(line) is None or line.startswith(b'{"eventType":"')


@pytest.mark.parametrize(
    ("numbers", "offset", "given", "begins", "moved"),
    [
        (Numbers(3, 2, 1), 10, (), False, Numbers(13, 12, 11)),
        (Numbers(3, 2, 0), 10, (), False, Numbers(13, 12, 0)),
        (Numbers(1, None, 0), 10, (), True, Numbers(11, 10, 0)),
        (Numbers(1, None, 0), 0, (), True, Numbers(1, None, 0)),
        (Numbers(1, None, 0), 10, (), False, Numbers(11, None, 0)),
        (Numbers(3, 2, 1), 10, ("stepId",), False, Numbers(3, 12, 11)),
        (Numbers(3, 2, 1), 10, ("parentStepId",), False, Numbers(13, 2, 11)),
        (Numbers(3, 2, 1), 10, ("stepId", "parentStepId"), True, Numbers(3, 2, 11)),
        (Numbers(0, None, 0), 10, (), True, Numbers(0, None, 0)),
        (Numbers(500_002, 500_001, 500_001), -499_996, (), False, Numbers(6, 5, 5)),
        (Numbers(500_002, 1, 1), -499_996, (), False, Numbers(6, None, 0)),
        (Numbers(2, 1, 1), -1, (), False, Numbers(1, None, 0)),
        (Numbers(5, 4, 1, 3), 10, (), False, Numbers(15, 14, 11, 13)),
        (Numbers(5, 4, 1, 3), 10, ("stepId", "parentStepId"), False, Numbers(5, 4, 11, 13)),
        (Numbers(5, 4, 0, 2), -3, (), False, Numbers(2, 1, 0, 0)),
    ],
)
def test_an_offset_moves_the_numbers_of_its_numbering_only(
    numbers: Numbers, offset: int, given: tuple[str, ...], begins: bool, moved: Numbers
) -> None:
    """Not those a user chose; the first of a numbering follows from the step before it; none comes to stand below 1."""
    assert numbers.moved(offset, given, begins=begins) == moved
