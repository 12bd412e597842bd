"""Stored events and traces in the form of a WhyOps server, which calls traces threads."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw

from whyops_trace._reading.excerpt import elapsed, get, number
from whyops_trace._reading.prices import cost
from whyops_trace._reading.record import decoded
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.store import Store, StoredEvent, TraceSummary
from whyops_trace.store.agents import AgentVersion

#: The token counts of an event, each by the names it may have, of which the first that is there counts.
_COUNTS: Final = {
    "promptTokens": ("promptTokens", "inputTokens"),
    "completionTokens": ("completionTokens", "outputTokens"),
    "cacheReadTokens": ("cacheReadTokens",),
    "cacheWriteTokens": ("cacheWrite5mTokens", "cacheCreationTokens", "cacheWriteTokens"),
}

Json = dict[str, Any]


class _Record(msgspec.Struct, rename="camel"):
    """
    The members of a record that are told of it as they were written, whatever they hold.

    Others read a :class:`~whyops_trace._reading.record.StoredRecord`, whose strange values became empty ones.
    """

    agent_name: Any = ""
    parent_step_id: Any = None
    span_id: Any = None
    timestamp: Any = ""
    external_user_id: Any = None
    user_id: Any = None
    provider_id: Any = None
    metadata: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))
    content: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))


_records: Final = msgspec.json.Decoder(_Record)


def event_id(number: int) -> str:
    """Return the id of an event by its number in the store: a UUID of the kind that is made to one's own scheme."""
    digits = f"{number:016x}"
    return f"{digits[:8]}-0000-8000-8000-0000{digits[8:]}"


def event_number(identifier: str) -> int:
    """Return the number of an event by its id, 0 for what is no id of ours."""
    digits = identifier[:8] + identifier[-8:]
    try:
        found = int(digits, 16)
    except ValueError:
        return 0
    return found if event_id(found) == identifier.lower() else 0


def told_event(event: StoredEvent, included: Collection[str]) -> Json:
    """
    Return an event as a list of events has it.

    Args:
        event: The event.
        included: Those of ``content`` and ``metadata`` that it has.
    """
    record = _records.decode(event.line if included else event.light_line)
    told = {
        "id": event_id(event.number),
        "traceId": event.trace_id,
        "spanId": record.span_id,
        "stepId": event.step,
        "parentStepId": record.parent_step_id,
        "eventType": event.type,
        "timestamp": record.timestamp,
        "userId": record.user_id,
        "providerId": record.provider_id,
        "externalUserId": record.external_user_id,
        "createdAt": record.timestamp,
    }
    return told | _payload(event, record, included)


def told_thread(store: Store, trace_id: str, included: Collection[str], limit: int, offset: int) -> Json:
    """
    Return a trace, with a page of its events in the order of their time.

    Args:
        store: Store that has it.
        trace_id: The trace.
        included: Those of ``content`` and ``metadata`` that its events have.
        limit: Largest number of events.
        offset: Number of events to leave out before them.

    Raises:
        TraceNotFoundError: if there is no such trace.
        StoreError: if the file cannot be read.
    """
    summary = store.trace(trace_id)
    events = store.latest(trace_id, -1, 0)[0][::-1]
    details = list(_details(events))
    page = slice(offset, offset + limit)
    start = text_of(details[0]["timestamp"]) if details else summary.started_at
    end = text_of(details[-1]["timestamp"]) if details else summary.last_at
    latencies = [detail["latencyMs"] for detail in details if detail["latencyMs"] is not None]
    models = _models(events)
    return {
        "sampledOut": False,
        "sampledIn": True,
        **told_summary(summary, store.agents()),
        "model": models[-1]["model"] if models else None,
        "firstEventTimestamp": start,
        "lastEventTimestamp": end,
        "duration": elapsed(start, end) or 0,
        "totalTokens": sum(model["totalTokens"] for model in models),
        "totalLatency": sum(latencies),
        "avgLatency": sum(latencies) / len(details) if details else 0,
        "errorCount": sum(detail["eventType"] == "error" for detail in details),
        "events": [
            detail | _payload(event, _records.decode(event.line), included) if included else detail
            for detail, event in zip(details[page], events[page], strict=True)
        ],
        "hasLateEvents": any(detail["isLateEvent"] for detail in details),
        "eventsPagination": pagination(len(details), limit, offset),
        "cost": [],
        "models": models,
        "totalCost": summary.cost or 0,
    }


def told_summary(summary: TraceSummary, agents: Sequence[AgentVersion]) -> Json:
    """Return a trace as a list of traces has it, with the ids of its agent if that was registered."""
    versions = [version for version in agents if version.name == summary.agent_name]
    return {
        "threadId": summary.trace_id,
        "userId": None,
        "externalUserId": summary.external_user_id,
        "providerId": None,
        "agentId": versions[0].agent_id if versions else None,
        "entityId": versions[0].version_id if versions else None,
        "entityName": summary.agent_name,
        "metadata": summary.metadata,
        "lastActivity": summary.last_at,
        "lastEventTimestamp": summary.last_at,
        "firstEventTimestamp": summary.started_at,
        "duration": elapsed(summary.started_at, summary.last_at),
        "eventCount": summary.event_count,
    }


def told_graph(store: Store, trace_id: str) -> Json:
    """
    Return which event of a trace follows from which.

    Raises:
        StoreError: if the file cannot be read.
    """
    events, _ = store.latest(trace_id, -1, 0)
    details = list(_details(events[::-1]))
    by_step = {detail["stepId"]: detail["id"] for detail in details}
    names = ("id", "stepId", "parentStepId", "model", "timestamp", "latencyMs", "duration", "timeSinceStart")
    nodes = [
        {
            **{name: detail.get(name) for name in names},
            "type": detail["eventType"],
            "hasError": detail["eventType"] == "error",
        }
        for detail in details
    ]
    edges = [
        {"from": by_step[detail["parentStepId"]], "to": detail["id"]}
        for detail in details
        if detail["parentStepId"] in by_step
    ]
    return {"nodes": nodes, "edges": edges}


def pagination(total: int, limit: int, offset: int) -> Json:
    """Return which part of a list was told."""
    return {"total": total, "limit": limit, "offset": offset, "hasMore": offset + limit < total}


def _details(events: Sequence[StoredEvent]) -> Iterator[Json]:
    """Yield the events of a trace as a thread has them; a call takes until its response, if it does not say."""
    records = [_records.decode(event.light_line) for event in events]
    start = records[0].timestamp if records else ""
    asked: dict[Any, Any] = {}
    highest = 0
    following = [*(record.timestamp for record in records[1:]), None]
    for event, record, then in zip(events, records, following, strict=True):
        metadata, content = (decoded(raw) for raw in (record.metadata, record.content))
        latency = number(get(metadata, "latencyMs"))
        if event.type == "tool_call_request":
            asked[text_of(record.span_id)] = record.timestamp
        elif event.type == "tool_call_response" and latency is None:
            latency = elapsed(asked.get(text_of(record.span_id)), record.timestamp)
        usage = get(metadata, "usage")
        detail: Json = {
            "id": event_id(event.number),
            "stepId": event.step,
            "parentStepId": record.parent_step_id if type(record.parent_step_id) is int else None,
            "spanId": record.span_id,
            "eventType": event.type,
            "timestamp": record.timestamp,
            "model": get(metadata, "model"),
            **{name: _count(usage, names) for name, names in _COUNTS.items()},
            "latencyMs": latency,
            "finishReason": get(content, "finishReason"),
            **({} if then is None else {"duration": elapsed(record.timestamp, then)}),
            "timeSinceStart": elapsed(start, record.timestamp),
            "isLateEvent": event.step < highest,
        }
        highest = max(highest, event.step)
        yield detail


def _payload(event: StoredEvent, record: _Record, included: Collection[str]) -> Json:
    told: Json = {}
    if "content" in included:
        told["content"] = record.content
    if "metadata" in included:
        told["metadata"] = {**_members(record.metadata), "idempotencyKey": event.key}
    return told


def _members(metadata: Raw) -> dict[str, Raw]:
    """Return the members of an object as they were written, none of what is no object."""
    try:
        return msgspec.json.decode(metadata, type=dict[str, Raw])
    except msgspec.DecodeError:
        return {}


def _models(events: Sequence[StoredEvent]) -> list[Json]:
    """Return what each model took, the one that answered last at the end."""
    turns = []
    for event in events:
        if event.type in ("llm_response", "embedding_response"):
            record = _records.decode(event.light_line)
            turns.append((dict_of(decoded(record.metadata)), record.timestamp))
    last = {text_of(metadata.get("model")): place for place, (metadata, _) in enumerate(turns)}
    by_model = sorted(turns, key=lambda turn: last[text_of(turn[0].get("model"))])
    return [
        _model(name, list(some), is_last=name == text_of(turns[-1][0].get("model")))
        for name, some in itertools.groupby(by_model, key=lambda turn: text_of(turn[0].get("model")))
    ]


def _model(name: str, turns: Sequence[tuple[Mapping[str, Any], Any]], *, is_last: bool) -> Json:
    usages = [metadata.get("usage") for metadata, _ in turns]
    counts = {count: sum(_count(usage, names) or 0 for usage in usages) for count, names in _COUNTS.items()}
    costs = [
        cost(name, metadata.get("provider"), metadata.get("usage"), timestamp)
        for metadata, timestamp in turns
    ]
    total = counts["promptTokens"] + counts["completionTokens"]
    return {
        "model": name,
        "inputTokens": counts["promptTokens"],
        "outputTokens": counts["completionTokens"],
        "cacheWrite5mTokens": counts["cacheWriteTokens"],
        "cacheWrite1hTokens": sum(_count(usage, ("cacheWrite1hTokens",)) or 0 for usage in usages),
        "cacheCreationTokens": sum(_count(usage, ("cacheCreationTokens",)) or 0 for usage in usages),
        "cacheReadTokens": counts["cacheReadTokens"],
        "totalTokens": total or sum(_count(usage, ("totalTokens",)) or 0 for usage in usages),
        "totalCost": float(sum((each for each in costs if each is not None), Decimal(0))),
        "cost": None,
        "isLastModel": is_last,
    }


def _count(usage: object, names: Sequence[str]) -> int | None:
    found = (get(usage, name) for name in names)
    return next((count for count in found if type(count) is int and 0 <= count < 2**53), None)
