"""How tests of integrations read what is in a home: each trace as lines, a line for each call, indented by depth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from whyops_trace.store import Store
from whyops_trace.tree import Node, TraceTree, build


def trees(home: Path) -> list[TraceTree]:
    """Return the traces of a home, the oldest first."""
    with contextlib.closing(Store(home / "traces.db")) as store:
        ids = [summary.trace_id for summary in store.traces()]
        return [build(store.events(trace_id)) for trace_id in reversed(ids)]


def nodes(home: Path) -> list[Node]:
    """Return the nodes of all traces of a home, from top to bottom."""
    return [node for tree in trees(home) for _, node in walk(tree.nodes)]


def walk(found: list[Node], depth: int = 0) -> Iterator[tuple[int, Node]]:
    """Yield nodes and what is in them, with their depth."""
    for node in found:
        yield depth, node
        yield from walk(node.children, depth + 1)


def lines(home: Path) -> list[str]:
    """Return all traces of a home as lines."""
    return [line for tree in trees(home) for line in lines_of(tree)]


def lines_of(tree: TraceTree) -> list[str]:
    """Return a trace as lines."""
    return [f"{'  ' * depth}{line(node)}" for depth, node in walk(tree.nodes)]


def line(node: Node) -> str:
    """Return what a node says: of a tool arguments and result, of a turn tokens and tools, of a step its name."""
    status = "" if node.status == "ok" else f" {node.status}"
    if node.kind == "tool":
        asked = " asked" if node.asked_by is not None else ""
        return f"{node.name}({node.arguments}) -> {node.error or node.result}{asked}{status}"
    if node.kind == "llm":
        tokens = (
            f" {node.tokens.prompt}/{node.tokens.completion}" if node.tokens and node.tokens.total else ""
        )
        return f"{node.name} {node.model}{tokens} -> {node.calls or node.result}{status}"
    return f"{node.name}{status}"
