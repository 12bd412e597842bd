"""
The spans of a trace as a tree of what happened: each turn, tool call, agent and step once.

Several layers may tell of one turn, a framework, a client, a gateway and those who count tokens. They become one, with
the best of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from whyops_trace._otel import asking, layers
from whyops_trace._otel.dialects import read_span
from whyops_trace._otel.node import Node
from whyops_trace._otel.span import LogRecord, Span
from whyops_trace._shapes import text_of

#: Attributes that name the tool call or the request that a span or a log record is of.
_OWN_IDS: Final = ("tool_use_id", "request_id")


def read_trace(spans: Iterable[Span], logs: Iterable[LogRecord] = ()) -> list[Node]:
    """
    Return the roots of a trace, in order of time, with everything below them.

    A span whose parent is not there is a root. The same span twice is one, the one that has ended.

    Args:
        spans: Spans of one trace in any order.
        logs: Their log records in any order. Those of spans that are not there are ignored.
    """
    nodes = _nodes(spans, logs)
    _link(nodes)
    roots = _folded([node for node in nodes if node.parent is None])
    layers.join(roots)
    everything = [node for root in roots for node in root.walk()]
    asking.link(everything)
    layers.clear_copied_failures(everything)
    return roots


def _nodes(spans: Iterable[Span], logs: Iterable[LogRecord]) -> list[Node]:
    by_id: dict[tuple[str, int], Span] = {}
    for span in spans:
        key = (span.span_id, span.start_ns)
        before = by_id.get(key)
        if before is None or (span.end_ns, len(span.attributes)) > (before.end_ns, len(before.attributes)):
            by_id[key] = span
    ordered = sorted(by_id.values(), key=lambda span: (span.start_ns, -span.end_ns))
    told = _told(ordered, sorted(logs, key=lambda log: log.time_ns))
    return [Node(span, read_span(span, told.get(span.span_id, ()))) for span in ordered]


def _told(spans: list[Span], logs: list[LogRecord]) -> dict[str, list[LogRecord]]:
    """
    Return log records by the id of the span that they tell of, each in order of time.

    It is the one whose tool call or whose request they name, for Claude Code makes them all in the span of the whole.
    """
    owners: dict[tuple[str, str], str] = {}
    requests: dict[str, str] = {}
    for span in spans if logs else ():
        for name in _OWN_IDS:
            if own_id := text_of(span.attributes.get(name)):
                owners.setdefault((name, own_id), span.span_id)
    for log in logs:
        if body := text_of(log.attributes.get("request_body_id")):
            requests[body] = text_of(log.attributes.get("request_id")) or requests.get(body, "")
    told: dict[str, list[LogRecord]] = {}
    for log in logs:
        about = log.attributes
        if "request_id" not in about and "request_body_id" in about:
            about = {**about, "request_id": requests[text_of(about["request_body_id"])]}
        named = (owners.get((name, text_of(about.get(name)))) for name in _OWN_IDS)
        told.setdefault(next(filter(None, named), log.span_id), []).append(log)
    return told


def _link(nodes: list[Node]) -> None:
    """Link children and parents. Spans that are each other's ancestors have one of them as a root."""
    by_id: dict[str, Node] = {}
    for node in nodes:
        by_id.setdefault(node.span.span_id, node)
    for node in nodes:
        node.parent = by_id.get(node.span.parent_id)
    safe: set[int] = set()
    for node in nodes:
        way: dict[int, Node] = {}
        each: Node | None = node
        while each is not None and id(each) not in safe and id(each) not in way:
            way[id(each)] = each
            each = each.parent
        if each is not None and id(each) in way:
            each.parent = None
        safe.update(way)
    for node in nodes:
        if node.parent is not None:
            node.parent.children.append(node)
        for call in node.calls():
            call.parent = node
            node.children.append(call)


def _folded(roots: list[Node]) -> list[Node]:
    """Fold spans that are nothing of an agent's into what they are in. A root has nothing to be folded into."""
    for root in roots:
        root.reading.kind = root.reading.kind or "step"
        for node in reversed(list(root.walk())):  # those inside come first
            folded = [child for child in node.children if child.reading.is_folded]
            if folded:
                if node.kind == "agent":  # the first one, which may hand over to others
                    named = (each.reading.agent for each in folded)
                    node.reading.name = next(filter(None, named), node.reading.name)
                kept = [child for child in node.children if not child.reading.is_folded]
                for each in folded:
                    node.folded += [each.span, *each.folded]
                    kept += each.children
                    for child in each.children:
                        child.parent = node
                node.children = sorted(kept, key=lambda child: child.span.start_ns)
    return roots
