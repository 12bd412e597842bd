"""What a WhyOps server takes: the form of an event and of an agent, and what fails only when it is stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from wire import Event

Issues = tuple[tuple[str, str], ...]
TOOL_TYPES = frozenset({"tool_call_request", "tool_call_response"})
MODEL_TYPES = frozenset({"llm_response", "embedding_response"})
OTHER_TYPES = {"user_message", "embedding_request", "llm_thinking", "tool_call", "tool_result", "error"}
TYPES = TOOL_TYPES | MODEL_TYPES | OTHER_TYPES
UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
TIMESTAMP = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z", re.ASCII
)


class _MistypedError(Exception):
    """A value of the wrong type: the validator then only says that its union fits nowhere."""


def _enum(value: Any) -> Issues:
    if not isinstance(value, str) or value not in TYPES:
        raise _MistypedError
    return ()


def _string(most: int, long: str = "", least: int = 0, short: str = "") -> Callable[[Any], Issues]:
    long = long or f"String must contain at most {most} character(s)"
    short = short or f"String must contain at least {least} character(s)"

    def check(value: Any) -> Issues:
        if not isinstance(value, str):
            raise _MistypedError
        if len(value) < least:
            return ((short, "too_small"),)
        if len(value.encode("utf-16-le", "surrogatepass")) > 2 * most:
            return ((long, "too_big"),)
        return ()

    return check


def _matching(pattern: re.Pattern[str], message: str) -> Callable[[Any], Issues]:
    def check(value: Any) -> Issues:
        if not isinstance(value, str):
            raise _MistypedError
        return () if pattern.fullmatch(value) else ((message, "invalid_string"),)

    return check


def _step(name: str) -> Callable[[Any], Issues]:
    def check(value: Any) -> Issues:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _MistypedError
        issues: Issues = ()
        if isinstance(value, float) and not value.is_integer():
            issues += (("Expected integer, received float", "invalid_type"),)
        if value < 1:
            issues += ((f"{name} must be a positive integer", "too_small"),)
        return issues

    return check


def _object(value: Any) -> Issues:
    if not isinstance(value, dict):
        raise _MistypedError
    return ()


CHECKS: dict[str, Callable[[Any], Issues]] = {
    "eventType": _enum,
    "traceId": _string(128, "Trace ID must be between 1 and 128 characters", 1),
    "spanId": _string(128, "Span ID must be at most 128 characters"),
    "stepId": _step("Step ID"),
    "parentStepId": _step("Parent Step ID"),
    "userId": _matching(UUID, "Invalid User ID format (UUID required)"),
    "externalUserId": _string(255),
    "projectId": _matching(UUID, "Invalid Project ID format (UUID required)"),
    "environmentId": _matching(UUID, "Invalid Environment ID format (UUID required)"),
    "providerId": _matching(UUID, "Invalid Provider ID format (UUID required)"),
    "agentName": _string(255, least=1, short="agentName is required"),
    "timestamp": _matching(TIMESTAMP, "Invalid timestamp format (ISO 8601 required)"),
    "metadata": _object,
    "idempotencyKey": _string(128, "Idempotency Key must be at most 128 characters"),
}


def violations(data: Any) -> list[dict[str, str]]:
    """Return what the schema has against an event or a list of them, as the ``details`` of a 400."""
    found = []
    try:
        for index, event in enumerate(data if isinstance(data, list) else [data]):
            prefix = f"{index}." if isinstance(data, list) else ""
            for name, message, code in _violations_of(event):
                found.append({"field": prefix + name, "message": message, "code": code})
    except _MistypedError:
        return [{"field": "", "message": "Invalid input", "code": "invalid_union"}]
    return found


def _violations_of(event: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(event, dict) or not event.keys() >= {"eventType", "traceId", "agentName"}:
        raise _MistypedError
    for name, check in CHECKS.items():
        if name in event:
            for message, code in check(event[name]):
                yield name, message, code
    if event["eventType"] in TOOL_TYPES and event.get("metadata", {}).get("tool") is None:
        types = "tool_call_request and tool_call_response"
        yield "metadata.tool", f"metadata.tool is required for {types}. See /api/events/help.", "custom"


TOOL_PARTS = ("name", "inputSchema", "outputSchema", "description")
#: The schema of an agent's init: objects, arrays, and strings, each by what is said of an empty one.
AGENT = {
    "agentName": "Agent name is required",
    "metadata": {
        "systemPrompt": "metadata.systemPrompt is required",
        "tools": [{part: f"tool.{part} is required" for part in TOOL_PARTS}],
    },
}
_ABSENT = object()
JAVASCRIPT = {
    str: "string",
    list: "array",
    dict: "object",
    bool: "boolean",
    type(None): "null",
    object: "undefined",
}


def init_issues(
    value: Any, schema: Any = AGENT, path: tuple[str | int, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Yield what the schema of an agent's init has against a body, as the ``issues`` of a 400."""
    expected, received = JAVASCRIPT[type(schema)], JAVASCRIPT.get(type(value), "number")
    issue = {"type": "string", "inclusive": True, "exact": False, "path": path}
    if received != expected:
        message = "Required" if value is _ABSENT else f"Expected {expected}, received {received}"
        types = {"expected": expected, "received": received}
        yield {"code": "invalid_type", **types, "path": path, "message": message}
    elif isinstance(schema, dict):
        for name, part in schema.items():
            yield from init_issues(value.get(name, _ABSENT), part, (*path, name))
    elif isinstance(schema, list):
        for index, item in enumerate(value):
            yield from init_issues(item, schema[0], (*path, index))
    elif value == "":
        yield {"code": "too_small", "minimum": 1, **issue, "message": schema}
    elif path == ("agentName",) and len(value) > 255:
        message = "String must contain at most 255 character(s)"
        yield {"code": "too_big", "maximum": 255, **issue, "message": message}


UNSTORABLE = re.compile("[\0\ud800-\udfff]")
DIGITS = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)


def unstorable(event: Event) -> str | None:
    """Return what the database has against an event, or None."""
    stored = [event.get(name) for name in ("traceId", "spanId", "idempotencyKey", "content", "metadata")]
    if any(UNSTORABLE.search(text) for text in _strings(stored)):
        return "unsupported Unicode escape sequence"
    for name in ("userId", "projectId", "environmentId", "providerId"):
        if name in event:
            return f"{name} violates foreign key constraint"
    metadata = event.get("metadata", {})
    content = event.get("content")
    finish = content.get("finishReason") if isinstance(content, dict) else None
    for value, most in ((metadata.get("model"), 200), (finish, 100)):
        if value is not None and (not isinstance(value, str) or len(value) > most):
            return f"value too long for type character varying({most})"
    for value in (event.get("stepId"), event.get("parentStepId"), *_counts(metadata)):
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if whole is not None and not DIGITS.fullmatch(str(whole)):
            return f'invalid input syntax for type integer: "{value}"'
        if whole is not None and not -(2**31) <= int(whole) < 2**31:
            return f'value "{whole}" is out of range for type integer'
    return None


def _counts(metadata: Event) -> Iterator[Any]:
    """Return what goes into a column for integers, in the server's order of preference for each."""
    usage = metadata.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    yield metadata.get("latencyMs")
    for names in (
        ("promptTokens", "inputTokens"),
        ("completionTokens", "outputTokens"),
        ("cacheReadTokens",),
        ("cacheWrite5mTokens", "cacheCreationTokens", "cacheWriteTokens"),
    ):
        yield next((usage[name] for name in names if usage.get(name) is not None), None)


def _strings(value: Any) -> Iterator[str]:
    """Yield every string within a JSON value, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
