"""The static analysis of a WhyOps server: what it finds wrong in a trace, rule by rule."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from wire import Row

Finding = tuple[str, str]
TOOLS = ("tool_call_request", "tool_call_response")


def findings(rows: list[Row], *, deep: bool = False) -> list[Finding]:
    """Return the findings over the rows of one trace, each with its severity; *deep* is the thorough mode."""
    if not rows:
        return [("TRACE_HAS_NO_EVENTS", "critical")]
    ordered = sorted(rows, key=lambda row: (row["timestamp"], row["stepId"]))
    rules = (_steps, _pairs, _contents, _loops, _errors)
    found = [finding for rule in rules for finding in rule(ordered)]
    found += _outliers(ordered, _latency, "LATENCY_OUTLIER", "medium" if deep else "low")
    found += _outliers(ordered, _tokens, "TOKEN_OUTLIER", "low")
    return found


def _steps(rows: list[Row]) -> Iterator[Finding]:
    steps = [row["stepId"] for row in rows]
    for before, step in itertools.pairwise(steps):
        if step < before:
            yield "STEP_ORDER_DECREASED", "high"
    for step in dict.fromkeys(steps):
        if steps.count(step) > 1:
            yield "DUPLICATE_STEP_ID", "medium"
    for row in rows:
        if row["parentStepId"] and row["parentStepId"] not in steps:
            yield "MISSING_PARENT_STEP", "high"


def _pairs(rows: list[Row]) -> Iterator[Finding]:
    """Compare spans: a request and a response that share one are a pair, however many there are."""
    asked, answered = (
        dict.fromkeys(row["spanId"] for row in rows if row["eventType"] == kind and row["spanId"])
        for kind in TOOLS
    )
    for span in asked:
        if span not in answered:
            yield "MISSING_TOOL_CALL_RESPONSE", "high"
    for span in answered:
        if span not in asked:
            yield "ORPHAN_TOOL_CALL_RESPONSE", "medium"


def _contents(rows: list[Row]) -> Iterator[Finding]:
    followed = max((row["stepId"] for row in rows if row["eventType"] in (*TOOLS, "tool_result")), default=0)
    for row in rows:
        metadata = row["metadata"] or {}
        if row["eventType"] == "llm_response":
            if not (metadata.get("model") and metadata.get("provider")):
                yield "LLM_RESPONSE_METADATA_INCOMPLETE", "high"
            if _calls(row) and followed <= row["stepId"]:
                yield "TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS", "medium"
        if row["eventType"] in TOOLS and not metadata.get("tool"):
            yield "MISSING_METADATA_TOOL", "low"


def _loops(rows: list[Row]) -> Iterator[Finding]:
    """Count how often a tool is asked for the same thing; what happens in between does not matter."""
    repeated, last = 1, None
    for row in rows:
        if row["eventType"] == "tool_call_request":
            calls = _calls(row)
            this = _told(calls[0]) if len(calls) == 1 else None
            repeated = repeated + 1 if this is not None and this == last else 1
            last = this
            if repeated >= 3:
                yield "IDENTICAL_TOOL_CALL_LOOP", "high"


def _errors(rows: list[Row]) -> Iterator[Finding]:
    streaks = itertools.groupby(rows, key=lambda row: row["eventType"] == "error")
    if any(failed and len(list(streak)) >= 3 for failed, streak in streaks):
        yield "CONSECUTIVE_ERROR_STREAK", "high"


def _outliers(
    rows: list[Row], measure: Callable[[Row], float | None], code: str, severity: str
) -> Iterator[Finding]:
    """Yield a finding for each value far above the 95th percentile, by nearest rank."""
    values = sorted(value for value in map(measure, rows) if value is not None)
    if len(values) >= 10:
        most = 1.5 * values[math.ceil(0.95 * len(values)) - 1]
        yield from ((code, severity) for value in values if value > most > 0)


def _latency(row: Row) -> float | None:
    return _first(part.get(name) for part in _parts(row) for name in ("latencyMs", "latency_ms"))


def _tokens(row: Row) -> float | None:
    usages = (usage for part in _parts(row) for usage in (part.get("usage"), part) if isinstance(usage, dict))
    return _first(usage.get(name) for usage in usages for name in ("totalTokens", "total_tokens"))


def _parts(row: Row) -> list[dict[str, Any]]:
    return [part for part in (row["metadata"], row["content"]) if isinstance(part, dict)]


def _first(values: Iterator[Any]) -> float | None:
    """Return the first number, of a text the digits in it."""
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and (digits := re.sub(r"[^0-9.\-]", "", value)):
            with contextlib.suppress(ValueError):
                return float(digits)
    return None


def _calls(row: Row) -> list[Any]:
    content = row["content"] if isinstance(row["content"], dict) else {}
    calls = content.get("tool_calls") if content.get("toolCalls") is None else content["toolCalls"]
    return calls if isinstance(calls, list) else []


def _told(call: Any) -> str:
    """Return a call so that equal ones are equal; the server's database forgets the order of an object's keys."""
    call = call if isinstance(call, dict) else {}
    function = call.get("function") or {}
    arguments = function.get("arguments", call.get("arguments", {}))
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    name = function.get("name") or call.get("name") or "unknown"
    return f"{name}::{json.dumps(arguments, sort_keys=True)}"
