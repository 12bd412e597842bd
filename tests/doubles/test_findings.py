"""The double of the server's static analysis finds what the real one was seen to find."""

from __future__ import annotations

from typing import Any

import pytest
from findings import Finding, findings
from wire import Row

ASK, ANSWER, SAY, LLM, ERROR = (
    "tool_call_request",
    "tool_call_response",
    "user_message",
    "llm_response",
    "error",
)
MODEL = {"model": "m", "provider": "p"}
ORDER, LOOP = ("STEP_ORDER_DECREASED", "high"), ("IDENTICAL_TOOL_CALL_LOOP", "high")
DUPLICATE, PARENT = ("DUPLICATE_STEP_ID", "medium"), ("MISSING_PARENT_STEP", "high")
UNANSWERED, ORPHAN = ("MISSING_TOOL_CALL_RESPONSE", "high"), ("ORPHAN_TOOL_CALL_RESPONSE", "medium")
NAMELESS, UNFOLLOWED = ("MISSING_METADATA_TOOL", "low"), ("TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium")
STREAK = ("CONSECUTIVE_ERROR_STREAK", "high")


def row(kind: str, step: int, parent: int | None = None, *, at: int | None = None, **members: Any) -> Row:
    """Return a row; *at* is its time, by default that of its step."""
    metadata = {ASK: {"tool": "f"}, ANSWER: {"tool": "f"}, LLM: MODEL}.get(kind, {})
    timestamp = f"2026-01-01T00:00:00.{at if at is not None else step:03d}Z"
    about = {"eventType": kind, "stepId": step, "parentStepId": parent, "timestamp": timestamp}
    return {**about, "spanId": "s", "metadata": metadata, "content": None, **members}


def pair(step: int, call: Any, span: str = "s") -> list[Row]:
    """Return the request and the response of a tool."""
    content = {"toolCalls": [call]}
    return [row(ASK, step, content=content, spanId=span), row(ANSWER, step + 1, step, spanId=span)]


def test_a_sound_trace_has_no_findings() -> None:
    """Nor has it in another order of its rows: time and step count."""
    calls = {"toolCalls": [{"function": {"name": "f", "arguments": "{}"}}]}
    sound = [
        row(SAY, 1),
        row(LLM, 2, 1, content=calls),
        *pair(1001, {"name": "f", "arguments": {}}),
        row(LLM, 2001, 1002),
    ]

    assert findings(sound) == findings(sound[::-1]) == []


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], [("TRACE_HAS_NO_EVENTS", "critical")]),
        ([row(SAY, 2), row(SAY, 1, at=3)], [ORDER]),
        ([row(SAY, 1), row(SAY, 1), row(SAY, 1), row(SAY, 2)], [DUPLICATE]),
        ([row(SAY, 1), row(SAY, 2, 7)], [PARENT]),
        ([row(SAY, 1, 0)], []),
        ([row(ASK, 1), row(ASK, 2, 1, spanId="t"), row(ANSWER, 3, 1)], [UNANSWERED]),
        ([row(ANSWER, 1), row(ANSWER, 2)], [ORPHAN]),
        ([row(LLM, 1, metadata={"model": "m"})], [("LLM_RESPONSE_METADATA_INCOMPLETE", "high")]),
        ([*pair(1, {"name": "f"}), row(LLM, 3, content={"tool_calls": [{"name": "f"}]})], [UNFOLLOWED]),
        ([row(LLM, 1, content={"toolCalls": []})], []),
        ([row(ASK, 1, metadata={"tool": ""}), row(ANSWER, 2, 1, metadata={})], [NAMELESS, NAMELESS]),
        ([row(ERROR, n) for n in (1, 2)] + [row(SAY, 3), row(ERROR, 4)], []),
        ([row(ERROR, n) for n in (1, 2, 3, 4)], [STREAK]),
    ],
)
def test_each_rule_finds_what_breaks_it(rows: list[Row], found: list[Finding]) -> None:
    """And nothing else does."""
    assert findings(rows) == found


def test_recorded_traces_have_the_findings_of_the_server() -> None:
    """A step given twice with a parent that does not exist, and steps of the SDK among those of the proxy."""
    bad = [row(SAY, 1), row(SAY, 2, 99, at=2), row(SAY, 2, 1, at=3)]
    mixed = [row(SAY, 1), row(SAY, 2, 1), row(LLM, 3, 2), row(ASK, 2, 1, at=4), row(ANSWER, 3, 2, at=5)]

    assert findings(bad) == [DUPLICATE, PARENT]
    assert findings(mixed) == [ORDER, DUPLICATE, DUPLICATE]


A, B = {"x": 1, "y": 2}, {"y": 2, "x": 1}


@pytest.mark.parametrize(
    ("arguments", "loops"),
    [
        ([A, A], 0),
        ([A, A, A], 1),
        ([A, B, A], 1),
        ([A, A, A, B, A], 3),
        ([A, A, {}, A, A], 0),
        ([A, '{"x": 1, "y": 2}', '{"x":1,"y":2}'], 1),
        (["{broken", "{broken", "{broken"], 1),
    ],
)
def test_the_same_call_three_times_over_is_a_loop(arguments: list[Any], loops: int) -> None:
    """From the third on each is a finding, whatever stands between; the order of keys does not count."""
    pairs = [pair(3 * n + 1, {"name": "f", "arguments": given}) for n, given in enumerate(arguments)]
    rows = [each for asked, answer in pairs for each in (asked, answer, row(SAY, answer["stepId"] + 1))]

    assert findings(rows) == [LOOP] * loops


def test_several_calls_in_one_request_break_a_loop() -> None:
    """And so does another tool."""
    once, other = {"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}
    contents = [[once], [once], [once, once], [once], [once], [other], [once]]
    asked = [row(ASK, n + 1, content={"toolCalls": calls}) for n, calls in enumerate(contents)]

    assert findings([*asked, row(ANSWER, 9)]) == []


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([10] * 8 + [1000], 0),
        ([10] * 9 + [1000], 0),
        ([10] * 19 + [1000], 1),
        ([10] * 20 + [1000], 1),
        ([10] * 20 + [15], 0),
        ([10] * 20 + ["16ms"], 1),
        ([0] * 20 + [5], 0),
    ],
)
@pytest.mark.parametrize(
    ("place", "code"),
    [
        (lambda value: {"metadata": {**MODEL, "latencyMs": value}}, "LATENCY_OUTLIER"),
        (lambda value: {"content": {"latency_ms": value}}, "LATENCY_OUTLIER"),
        (lambda value: {"metadata": {**MODEL, "usage": {"totalTokens": value}}}, "TOKEN_OUTLIER"),
        (lambda value: {"metadata": {**MODEL, "usage": {"total_tokens": value}}}, "TOKEN_OUTLIER"),
    ],
)
def test_values_far_above_the_95th_percentile_are_outliers(
    values: list[Any], found: int, place: Any, code: str
) -> None:
    """By nearest rank, of ten values on, and half as much again is not yet far."""
    rows = [row(LLM, n + 1, **place(value)) for n, value in enumerate(values)]

    assert findings(rows) == [(code, "low")] * found
    assert [severity for _, severity in findings(rows, deep=True)] == [
        "medium" if code == "LATENCY_OUTLIER" else "low"
    ] * found
