"""
The thirteen rules of a WhyOps server's static analysis: the same findings, codes and severities, in the same order.

Like the server, they look only at spans, steps and types of events.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from whyops_trace._reading.excerpt import counted, get
from whyops_trace._reading.record import StoredRecord
from whyops_trace._reading.summary import LOOP
from whyops_trace._rules.finding import Finding, Severity, named
from whyops_trace._shapes import is_number, list_of, parsed

TOOL_CALLS: Final = ("tool_call_request", "tool_call_response")
#: Fewest errors in a row that are a streak.
STREAK: Final = 3
#: Fewest values that can have outliers.
OUTLIER_VALUES: Final = 10
#: Multiple of the 95th percentile above which a value is an outlier.
OUTLIER_FACTOR: Final = 1.5


class Rule(NamedTuple):
    """
    A server's data for each finding of a rule.

    Attributes:
        severity: Weight of the problem.
        dimension: Kind of the finding, in the server's words.
        confidence: Confidence of the finding, 0 to 1.
        why: The reason that it matters.
        advice: The remedy.
    """

    severity: Severity
    dimension: str
    confidence: float
    why: str
    advice: str


SERVER_RULES: Final[dict[str, Rule]] = {
    "TRACE_HAS_NO_EVENTS": Rule(
        "critical",
        "trace_integrity",
        1.0,
        "Nothing can be said about what the agent did.",
        "Check that what runs inside the trace is decorated or reported, and that its events arrive: "
        "`whyops-trace verify` names what does not.",
    ),
    "STEP_ORDER_DECREASED": Rule(
        "high",
        "trace_integrity",
        1.0,
        "Steps and times tell different stories, so it is not certain what came first.",
        "Let the library number the events, let one process at a time record on a trace, and give no timestamps "
        "that go back.",
    ),
    "DUPLICATE_STEP_ID": Rule(
        "medium",
        "trace_integrity",
        1.0,
        "What names this step as its parent may mean one event or the other.",
        "Do not choose step ids by hand, and do not record on one trace in two processes at the same time.",
    ),
    "MISSING_PARENT_STEP": Rule(
        "high",
        "trace_integrity",
        1.0,
        "What led to this event is not in the trace: it was lost, never recorded, or is in another trace.",
        "Pass a step that a method of the same trace returned as parent_step_id, or leave it out.",
    ),
    "MISSING_TOOL_CALL_RESPONSE": Rule(
        "high",
        "tool_execution",
        1.0,
        "Nobody can see what the tool returned, whether it failed, or how long it took.",
        "Look for what ended the process, if it ended during the call. Else decorate the function with @traced_tool, "
        "which always records a response, or record one by hand also when the call fails.",
    ),
    "ORPHAN_TOOL_CALL_RESPONSE": Rule(
        "medium",
        "tool_execution",
        1.0,
        "Nobody can see what the tool was called with, or why.",
        "Record the request before the tool runs, and pass the span id that it returns to the response.",
    ),
    "LLM_RESPONSE_METADATA_INCOMPLETE": Rule(
        "high",
        "schema_mismatch",
        1.0,
        "A WhyOps server refuses such an event, and its cost cannot be told.",
        "Give llm_response the model and the provider.",
    ),
    "TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS": Rule(
        "medium",
        "tool_execution",
        0.95,
        "The model asked for tools, and the trace does not show whether they ran.",
        "Decorate the tools with @traced_tool, or record tool_call_request and tool_call_response around them.",
    ),
    "MISSING_METADATA_TOOL": Rule(
        "low",
        "schema_mismatch",
        1.0,
        "The call is in no figures of its tool.",
        "Give the tool's name with each request and response.",
    ),
    "IDENTICAL_TOOL_CALL_LOOP": Rule(
        "high",
        "retry_loop",
        0.98,
        "The same question has the same answer: the agent makes no progress, and pays for each round.",
        "Say in the tool's result or error what to do differently, and limit how often a call may be repeated.",
    ),
    "CONSECUTIVE_ERROR_STREAK": Rule(
        "high",
        "retry_loop",
        1.0,
        "One failure led to the next, and nothing worked in between.",
        "Look at the first of them; wait before trying again, and stop after a few attempts.",
    ),
    "LATENCY_OUTLIER": Rule(
        "low",
        "cost_latency",
        0.95,
        "This step alone made the user wait.",
        "Look at what it waited for, and set a timeout.",
    ),
    "TOKEN_OUTLIER": Rule(
        "low",
        "cost_latency",
        0.95,
        "This turn alone took a large share of what the trace costs.",
        "Shorten what the model is given, such as results of tools, or limit the length of its answer.",
    ),
}


def server_findings(events: Sequence[StoredRecord], *, deep: bool = False) -> Iterator[Finding]:
    """
    Yield the findings of a server's static analysis.

    Args:
        events: The events of a trace, sorted by time and step, without local records.
        deep: True to give slow steps the severity of the server's mode ``deep``.
    """
    if not events:
        yield _finding("TRACE_HAS_NO_EVENTS", "The trace has no events.", [], {})
        return
    yield from _steps(events)
    yield from _spans(events)
    yield from _contents(events)
    yield from _loops(events)
    yield from _errors(events)
    yield from _slow(events, "medium" if deep else "low")
    yield from _long(events)


def _finding(
    code: str, title: str, steps: list[int], evidence: dict[str, Any], severity: Severity | None = None
) -> Finding:
    rule = SERVER_RULES[code]
    return Finding(code, severity or rule.severity, title, steps, rule.why, rule.advice, evidence)


def _steps(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    numbered = [event for event in events if event.step]
    for before, event in itertools.pairwise(numbered):
        if event.step < before.step:
            yield _finding(
                "STEP_ORDER_DECREASED",
                f"Step {event.step} comes after step {before.step} in time.",
                [event.step, before.step],
                {"stepId": event.step, "previousStepId": before.step},
            )
    counts = Counter(event.step for event in numbered)
    for step, count in counts.items():
        if count > 1:
            yield _finding(
                "DUPLICATE_STEP_ID",
                f"Step {step} is there {count:,} times.",
                [step],
                {"stepId": step, "duplicateCount": count},
            )
    for event in events:
        if event.parent and event.parent not in counts:
            yield _finding(
                "MISSING_PARENT_STEP",
                f"Step {event.step} follows from step {event.parent}, which is not there.",
                [event.step],
                {"stepId": event.step, "parentStepId": event.parent},
            )


def _spans(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    """Yield requests and responses without a partner of the same span. One partner is enough for all of a span."""
    requests, responses = ({e.span: e for e in events if e.kind == kind and e.span} for kind in TOOL_CALLS)
    for span, event in requests.items():
        if span not in responses:
            yield unanswered(event)
    for span, event in responses.items():
        if span not in requests:
            yield orphan(event)


def unanswered(request: StoredRecord) -> Finding:
    """Return the finding for a request without a response."""
    return _finding(
        "MISSING_TOOL_CALL_RESPONSE",
        f"The call of {tool_of(request)} has no response.",
        [request.step],
        {"tool": tool_of(request), "spanId": named(request.span)},
    )


def orphan(response: StoredRecord) -> Finding:
    """Return the finding for a response without a request."""
    return _finding(
        "ORPHAN_TOOL_CALL_RESPONSE",
        f"A response of {tool_of(response)} has no request.",
        [response.step],
        {"tool": tool_of(response), "spanId": named(response.span)},
    )


def tool_of(event: StoredRecord) -> str:
    """Return the name of a tool call's tool, safe to print."""
    return named(event.metadata.get("tool"), "an unnamed tool")


def _contents(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    last_tool_step = max((e.step for e in events if e.kind in (*TOOL_CALLS, "tool_result")), default=0)
    for event in events:
        if event.kind == "llm_response":
            missing = [name for name in ("model", "provider") if not _is_true(event.metadata.get(name))]
            if missing:
                yield _finding(
                    "LLM_RESPONSE_METADATA_INCOMPLETE",
                    f"The answer does not tell its {' and '.join(missing)}.",
                    [event.step],
                    {"missing": missing},
                )
            calls = calls_of(event)
            if calls and last_tool_step <= event.step:
                yield _finding(
                    "TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS",
                    f"The model asked for {counted(len(calls), 'tool call')}, and no event of a tool "
                    "follows.",
                    [event.step],
                    {"toolCallCount": len(calls)},
                )
        elif event.kind in TOOL_CALLS and not _is_true(event.metadata.get("tool")):
            yield _finding(
                "MISSING_METADATA_TOOL",
                f"The {event.kind} does not name its tool.",
                [event.step],
                {"eventType": event.kind},
            )


def _loops(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    """Yield repeated identical tool calls. Events of other types in between do not matter."""
    repeated, last = 1, None
    for event in events:
        if event.kind == "tool_call_request":
            this = signature(event)
            repeated = repeated + 1 if this is not None and this == last else 1
            last = this
            if repeated >= LOOP:
                yield loop([event], repeated)


def loop(requests: Sequence[StoredRecord], repeated: int, severity: Severity | None = None) -> Finding:
    """Return the finding for requests that repeat a call, made *repeated* times up to the last of them."""
    tool = tool_of(requests[0])
    return _finding(
        "IDENTICAL_TOOL_CALL_LOOP",
        f"{tool} was called {repeated:,} times in a row with the same arguments.",
        [request.step for request in requests],
        {"tool": tool, "repeatCount": repeated},
        severity,
    )


def _errors(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    streaks = [list(run) for failed, run in itertools.groupby(events, lambda e: e.kind == "error") if failed]
    longest = max(streaks, key=len, default=[])
    if len(longest) >= STREAK:
        yield _finding(
            "CONSECUTIVE_ERROR_STREAK",
            f"{len(longest):,} errors stand in a row.",
            [event.step for event in longest],
            {"maxConsecutiveErrors": len(longest), "first": named(get(longest[0].content, "message"))},
        )


def _slow(events: Sequence[StoredRecord], severity: Severity) -> Iterator[Finding]:
    for event, value, most in _outliers(events, _latency):
        yield _finding(
            "LATENCY_OUTLIER",
            f"This step took {value:,.0f} ms; most take less than {most:,.0f}.",
            [event.step],
            {"latencyMs": value, "thresholdMs": most},
            severity,
        )


def _long(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    for event, value, most in _outliers(events, _tokens):
        yield _finding(
            "TOKEN_OUTLIER",
            f"This step took {value:,.0f} tokens; most take less than {most:,.0f}.",
            [event.step],
            {"totalTokens": value, "thresholdTokens": most},
        )


def _outliers(
    events: Sequence[StoredRecord], measure: Callable[[StoredRecord], float | None]
) -> Iterator[tuple[StoredRecord, float, float]]:
    """Yield the events whose value is far above the 95th percentile (nearest rank), with the value and the limit."""
    measured = [(event, value) for event in events if (value := measure(event)) is not None]
    if len(measured) < OUTLIER_VALUES:
        return
    values = sorted(value for _, value in measured)
    most = OUTLIER_FACTOR * values[math.ceil(0.95 * len(values)) - 1]
    if most > 0:
        yield from ((event, value, most) for event, value in measured if value > most)


def _latency(event: StoredRecord) -> float | None:
    return _first(get(part, name) for part in _parts(event) for name in ("latencyMs", "latency_ms"))


def _tokens(event: StoredRecord) -> float | None:
    usages = (usage for part in _parts(event) for usage in (get(part, "usage"), part))
    return _first(get(usage, name) for usage in usages for name in ("totalTokens", "total_tokens"))


def _parts(event: StoredRecord) -> tuple[object, object]:
    return event.metadata, event.content


def _first(values: Iterator[Any]) -> float | None:
    """Return the first finite number; a text counts as the number that its digits make."""
    for value in values:
        if isinstance(value, str):
            value = re.sub(r"[^0-9.\-]", "", value)  # noqa: PLW2901 - the part that counts
        elif not is_number(value):
            continue
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    return None


def calls_of(event: StoredRecord) -> list[Any]:
    """Return the tool calls in an event's content."""
    calls = get(event.content, "toolCalls")
    return list_of(calls if _is_true(calls) else get(event.content, "tool_calls"))


def signature(request: StoredRecord) -> str | None:
    """Return a text that is equal for equal tool calls, in any order of keys; None unless there is exactly one call."""
    calls = calls_of(request)
    if len(calls) != 1:
        return None
    function = get(calls[0], "function")
    arguments = get(function, "arguments")
    if arguments is None:
        arguments = get(calls[0], "arguments")
    arguments = parsed(arguments)
    names = (get(function, "name"), get(calls[0], "name"))
    name = next(filter(_is_true, names), "unknown")
    try:
        return json.dumps([name, {} if arguments is None else arguments], sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _is_true(value: object) -> bool:
    """Return True if a value counts as true on the server, where empty lists and objects do."""
    return isinstance(value, (list, dict)) or bool(value and value == value)  # noqa: PLR0124 - NaN is not itself
