"""What each reader says of one trace, and a comparison of all of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from whyops_trace import stats
from whyops_trace._reading.excerpt import excerpt, number
from whyops_trace._reading.nodes import Node, TraceTree
from whyops_trace._reading.summary import EXCERPT
from whyops_trace._rules.exchanges import Exchanges, ToolCall, Turn, exchanges
from whyops_trace._rules.views import views
from whyops_trace.analysis import Finding, findings
from whyops_trace.commands.verification import Row, There
from whyops_trace.export import export_markdown
from whyops_trace.server.readings import read
from whyops_trace.server.skeleton import walk
from whyops_trace.store import Store, TraceSummary
from whyops_trace.store.collection import SentEvent
from whyops_trace.story import Story
from whyops_trace.tree import build

Event = dict[str, Any]


def sent(kind: str, second: int, span: str = "", *, content: Any = None, **metadata: Any) -> Event:
    """Return an event of another SDK."""
    return {
        "eventType": kind,
        "traceId": "t",
        "agentName": "x",
        "spanId": span,
        "timestamp": f"2026-01-01T00:00:{second:02d}.000Z",
        "metadata": metadata,
        "content": {"toolResults": {"r": 1}} if content is None else content,
    }


def collect(store: Store, events: Sequence[Event], size: int = 50) -> None:
    """Send events to the store, so many at a time."""
    for start in range(0, len(events), size):
        batch = events[start : start + size]
        # A number that no float can hold is drawn as a text.
        lines = (json.dumps(event).replace('"huge"', "1e999") for event in batch)
        store.collect([msgspec.json.decode(line, type=SentEvent) for line in lines])


class Call(NamedTuple):
    """What every reader has to say of a call; a step of 0 is that of nothing."""

    request: int
    response: int
    latency: float | None
    status: str


class Told:
    """What each reader says of one trace in a store."""

    def __init__(self, store: Store, trace: str = "t") -> None:
        self.records: list[Event] = store.events(trace)
        self.tree: TraceTree = build(self.records, priced=True)
        self.found: Exchanges = exchanges(views(self.records))
        self.findings: list[Finding] = findings(self.records, lambda _: True)
        self.figures: stats.Stats = stats.gather(store, store.each())
        self.summary: TraceSummary = store.trace(trace)
        self.story: Story = read(store, trace).story
        self.page: TraceTree = self.story.tree
        self.markdown: str = export_markdown(store, trace, max_tokens=1_000_000)
        self.there = There()
        for place, event in enumerate(self.records):
            if event["eventType"] not in ("step_end", "trace_end"):
                metadata = {**event["metadata"], "idempotencyKey": event["idempotencyKey"]}
                row = {**event, "id": str(place), "metadata": metadata}
                self.there.add(msgspec.convert(row, Row))

    def wraps(self, node: Node) -> bool:
        """Return True if the end of a call says that it only repeats that of a client."""
        return any(
            record["stepId"] == node.response and record["metadata"].get("wraps") is True
            for record in self.records
        )


def nodes(tree: TraceTree, *kinds: str) -> list[Node]:
    """Return the nodes of some kinds, whatever they ran in."""
    return [row.node for row in walk(tree.nodes) if row.node.kind in kinds]


def drawn(tree: TraceTree, kind: str) -> Counter[Call]:
    """Return the calls that a tree shows."""
    return Counter(_drawn(node) for node in nodes(tree, kind))


def _drawn(node: Node) -> Call:
    status = "open" if node.awaits else node.status
    return _call(node.step, node.response, node.latency_ms, status)


def checked(calls: Sequence[ToolCall | Turn]) -> Counter[Call]:
    """Return the calls that rules look at."""
    return Counter(_checked(call) for call in calls)


def _checked(call: ToolCall | Turn) -> Call:
    end = call.end
    status = (
        "error" if call.failure else "cancelled" if call.is_cancelled else "open" if end is None else "ok"
    )
    request = call.request.step if call.request is not None else 0
    return _call(request, end.step if end is not None else 0, call.latency_ms, status)


def _call(request: int, response: int, latency: float | None, status: str) -> Call:
    """Return a call; a tree does not tell a response without request from one that has the step of its request."""
    return Call(0 if request == response else request, response, latency, status)


def unanswered(there: There) -> list[str]:
    """Return the findings of verification about calls."""
    return [said for kind, said in there.findings(gaps=False) if kind == "missing_response"]


def agree(store: Store) -> None:
    """Hold together what all readers say of trace ``t``."""
    told = Told(store)
    _agree_on_calls(told)
    _agree_on_what_is_open(told)
    _agree_on_figures(told)
    _agree_with_story(told)


def _agree_on_calls(told: Told) -> None:
    tools, turns = drawn(told.tree, "tool"), drawn(told.tree, "llm")
    orphans = Counter(
        _checked(ToolCall(orphan, orphan))._replace(
            request=0, latency=number(orphan.metadata.get("latencyMs"))
        )
        for orphan in told.found.orphans
    )
    seen = [turn for turn in told.found.turns if turn.function or turn.end is not None]
    closed = [turn for turn in seen if turn.end is not None and not turn.wraps]

    assert tools == checked(told.found.tools) + orphans == drawn(told.page, "tool")
    assert turns == checked(seen) == drawn(told.page, "llm")
    assert drawn(told.tree, "embedding") == drawn(told.page, "embedding")
    assert told.tree.tool_calls == told.summary.tool_calls == tools.total() == told.page.tool_calls
    assert told.tree.llm_responses == told.summary.llm_responses == len(closed) == told.page.llm_responses
    assert told.tree.errors == told.page.errors == told.summary.errors
    said = [ToolCall(orphan, orphan) for orphan in told.found.orphans] + told.found.tools
    said_failed = sum(bool(call.said_failed) for call in said)
    assert told.tree.said_failed == told.page.said_failed == told.summary.said_failed == said_failed


def _agree_on_what_is_open(told: Told) -> None:
    calls = nodes(told.tree, "tool", "embedding")
    tools = [node for node in calls if node.kind == "tool"]
    without_response = len(told.found.tools) - sum(call.response is not None for call in told.found.tools)
    failed_alone = without_response - sum(bool(node.awaits) for node in tools)

    assert told.tree.running == told.summary.open_calls == told.page.running
    assert len(unanswered(told.there)) == failed_alone + sum(bool(node.awaits) for node in calls)
    assert without_response == sum(one.code == "MISSING_TOOL_CALL_RESPONSE" for one in told.findings)
    assert len(told.found.orphans) == sum(one.code == "ORPHAN_TOOL_CALL_RESPONSE" for one in told.findings)


def _agree_on_figures(told: Told) -> None:
    tools = nodes(told.tree, "tool")
    models = [node for node in nodes(told.tree, "llm", "embedding") if node.response and not told.wraps(node)]

    assert {each.name: (each.calls, each.errors, each.p99_ms) for each in told.figures.tools} == {
        name or "unknown": _figures([node for node in tools if node.name == name])
        for name in {node.name for node in tools}
    }
    assert _sums(told.figures.models) == _figures(models)
    assert sum(each.said_failed for each in told.figures.tools) == told.summary.said_failed
    tokens = told.tree.tokens
    assert tokens == told.page.tokens == told.summary.tokens
    assert tokens.total == sum(each.tokens.total for each in told.figures.models)
    assert told.tree.cost == told.page.cost
    assert (told.tree.cost or 0) == pytest.approx(told.summary.cost or 0)


def _figures(calls: Sequence[Node]) -> tuple[int, int, float | None]:
    known = [node.latency_ms for node in calls if node.latency_ms is not None]
    return len(calls), sum(node.status == "error" for node in calls), max(known, default=None)


def _sums(figures: Sequence[stats.Figures]) -> tuple[int, int, float | None]:
    known = [each.p99_ms for each in figures if each.p99_ms is not None]
    return (
        sum(each.calls for each in figures),
        sum(each.errors for each in figures),
        max(known, default=None),
    )


def _agree_with_story(told: Told) -> None:
    shown = list(_shown(told.story))
    failed = sum(bool(error) for _, error in shown)

    assert len({id(node) for node, _ in shown}) == len(shown)
    assert {id(node) for node in nodes(told.page, "tool")} <= {id(node) for node, _ in shown}
    assert all(bool(error) == (node.status == "error") for node, error in shown)
    assert told.story.turns == told.tree.llm_responses
    ended = excerpt(told.story.ended, EXCERPT)
    running = told.story.ended_reason == "running"
    assert running or told.summary.failed == (told.story.ended_reason == "error")
    assert told.summary.ended_with == ended or not (told.summary.ended_with or told.summary.failed)
    assert f"- tool calls: {told.tree.tool_calls:,}\n" in told.markdown
    assert f"- turns of models: {told.tree.llm_responses:,}\n" in told.markdown
    assert len(re.findall("FAILED: ", told.markdown)) == failed
    assert told.markdown.count("; said that it failed") == told.tree.said_failed


def _shown(story: Story) -> Iterator[tuple[Node, str]]:
    """Yield the nodes of a story, and the error that it tells of each."""
    for section in story.sections:
        if section.turn is not None:
            yield section.turn.node, section.turn.error
        for use in section.uses:
            yield use.node, use.error
        for node in section.others:
            yield node, node.error
