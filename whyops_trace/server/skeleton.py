"""
The shape of a trace without what it says: every node of its tree, a column for each of their members.

Columns of small numbers compress to a few bytes a node, so the page has the whole trace, however long, and asks for
texts only where they are read. Of a trace too large even for that, what lies deep is left out until it is unfolded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from whyops_trace._reading.excerpt import milliseconds, shorten
from whyops_trace.analysis import Finding
from whyops_trace.story import Section, Story
from whyops_trace.tree import Node

#: Nodes from which on what lies deep is left out; the skeleton of as many takes some 250 KB on the wire.
WHOLE: Final = 25_000
#: Levels that are always there.
LEVELS: Final = 2
#: Characters of what a call was given, or failed with, beside its name.
PREVIEW: Final = 72
#: Nodes up to which there are previews of calls that did not fail: beyond, they would outweigh all the rest, and
#: those of the rows in sight are asked for.
PREVIEWED: Final = 1_500

#: What is told of each node: its step, where it is in the lists of names and of sections, its times in milliseconds,
#: its cost in millionths of a dollar, the step of the turn that asked for it, the number of the turn that it is.
_COLUMNS: Final = (
    "kind", "state", "depth", "step", "name", "model", "start", "took", "tokens", "cost", "asked", "turn", "section",
)  # fmt: skip
_KINDS: Final = {"tool": "t", "llm": "l", "step": "s", "embedding": "m", "event": "e"}
_STATES: Final = {"ok": ".", "error": "x", "cancelled": "c", "running": "r", "unfinished": "u"}


class Row(NamedTuple):
    """A node with its place: its depth, and how many nodes below it were left out."""

    node: Node
    depth: int
    hidden: int


class Columns:
    """
    Rows of a tree as columns, the form the page reads.

    Args:
        story: The trace, which tells where each of them is shown.
        previews: Whether to tell what calls that did not fail were given.
    """

    def __init__(self, story: Story, *, previews: bool) -> None:
        self._story = story
        self._previews = previews
        self._names: dict[str, int] = {}
        self._turns = {
            id(section.turn.node): section.turn.number for section in story.sections if section.turn
        }
        self._origin = story.tree.began_ms or 0.0

    def of(self, rows: Iterable[Row]) -> dict[str, Any]:
        """Return the columns of some rows."""
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        texts: dict[int, str] = {}
        hidden: dict[int, int] = {}
        for number, row in enumerate(rows):
            for name, value in zip(_COLUMNS, self._values(row), strict=True):
                columns[name].append(value)
            preview = _preview(row.node) if self._previews or row.node.error else ""
            if preview:
                texts[number] = preview
            if row.hidden:
                hidden[number] = row.hidden
        letters = {name: "".join(columns[name]) for name in ("kind", "state")}
        return columns | letters | {"texts": texts, "hidden": hidden, "names": list(self._names)}

    def _values(self, row: Row) -> tuple[Any, ...]:
        """Return the members of a row, in the order of the columns."""
        node = row.node
        began = milliseconds(node.started)
        return (
            _KINDS[node.kind],
            _STATES[node.status],
            row.depth,
            node.step,
            self._name(node.name),
            self._name(node.model),
            0 if began is None else max(0, round(began - self._origin)),
            -1 if node.latency_ms is None else round(node.latency_ms),
            node.tokens.total if node.tokens else 0,
            0 if node.cost is None else round(node.cost * 1_000_000),
            node.asked_by.step if node.asked_by else 0,
            self._turns.get(id(node), 0),
            self._story.steps.get(node.step, 0),
        )

    def _name(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


def skeleton(
    story: Story,
    found: Sequence[Finding] | None,
    version: str,
    *,
    running: bool = False,
    limit: int = WHOLE,
    previewed: int = PREVIEWED,
) -> bytes:
    """
    Return the shape of a trace as JSON.

    Args:
        story: The trace.
        found: Its findings, None if they are not known yet.
        version: Names the state of the trace this is of.
        running: Whether more may come.
        limit: Nodes from which on what lies deep is left out.
        previewed: Nodes up to which there are previews of calls that did not fail; see :func:`previews`.
    """
    rows = list(walk(story.tree.nodes))
    whole = len(rows) <= limit
    columns = Columns(story, previews=len(rows) <= previewed)
    shape = columns.of(rows if whole else outer(story.tree.nodes))
    shape |= {
        "version": version,
        "began": round(story.tree.began_ms or 0),
        "previewed": len(rows) <= previewed,
        "duration": round(story.tree.duration_ms or 0),
        "total": len(rows),
        "findings": None if found is None else outlined(found),
        "links": _links(story),
        "stamps": [_stamp(section) for section in story.sections],
        "running": running,
    }
    return msgspec.json.encode(shape)


def outlined(found: Iterable[Finding]) -> list[list[Any]]:
    """Return of findings what the page has to know beside their texts in it."""
    return [[one.code, one.severity, one.title, one.steps[:20]] for one in found]


def children(story: Story, step: int) -> bytes:
    """Return what lies below the node of a step, to its last level, as JSON; its depths count from that node."""
    for row in walk(story.tree.nodes):
        if row.node.step == step and row.node.children:
            columns = Columns(story, previews=False)
            return msgspec.json.encode(columns.of(walk(row.node.children)))
    return msgspec.json.encode({})


def previews(story: Story, first: int, end: int) -> bytes:
    """Return by step what the calls from one step up to, and without, another were given or said, as JSON."""
    nodes = (row.node for row in walk(story.tree.nodes))
    return msgspec.json.encode({node.step: _preview(node) for node in nodes if first <= node.step < end})


def _preview(node: Node) -> str:
    """Return what a row says beside the name of its call."""
    said = node.result or node.calls if node.kind == "llm" else node.arguments
    return shorten(node.error or said, PREVIEW)


def walk(nodes: Iterable[Node]) -> Iterator[Row]:
    """Yield each node below others, in the order it is read."""
    stack = [(node, 0) for node in reversed(list(nodes))]
    while stack:
        node, depth = stack.pop()
        yield Row(node, depth, 0)
        stack += [(child, depth + 1) for child in reversed(node.children)]


def outer(nodes: Iterable[Node]) -> Iterator[Row]:
    """Yield the nodes of the first levels and those that lead to failures, each with how many it lacks below."""
    kept, below = _wanted(nodes)
    stack = [(node, 0) for node in reversed(list(nodes))]
    while stack:
        node, depth = stack.pop()
        shown = [child for child in node.children if depth + 1 < LEVELS or id(child) in kept]
        left_out = sum(below[id(child)] for child in node.children) - sum(below[id(child)] for child in shown)
        yield Row(node, depth, left_out)
        stack += [(child, depth + 1) for child in reversed(shown)]


def _wanted(nodes: Iterable[Node]) -> tuple[set[int], dict[int, int]]:
    """Return the ids of nodes that failed or hold one that did, and of each node how many it is with all below it."""
    order = [row.node for row in walk(nodes)]
    kept: set[int] = set()
    below: dict[int, int] = {}
    for node in reversed(order):
        below[id(node)] = 1 + sum(below[id(child)] for child in node.children)
        if node.status == "error" or any(id(child) in kept for child in node.children):
            kept.add(id(node))
    return kept, below


def _links(story: Story) -> dict[int, list[int]]:
    """Return for each call that tries another again, or is tried again, the steps of the two; 0 where there is none."""
    made = (use for section in story.sections for use in section.uses)
    return {use.node.step: [use.retry_of, use.retried_by] for use in made if use.retry_of or use.retried_by}


def _stamp(section: Section) -> int:
    """Return a number that changes, almost certainly, when something in a section does."""
    turn = section.turn
    nodes = [section.node, turn.node if turn else None, *(use.node for use in section.uses), *section.others]
    state: list[object] = [(node.step, node.status, node.latency_ms, node.answer) for node in nodes if node]
    state += [(use.retry_of, use.retried_by) for use in section.uses]
    if turn:
        broken = turn.error or any(use.error for use in turn.tools)
        state += [turn.retry_of, turn.retried_by, turn.next if broken else ""]
        state += [len(turn.thinking), len(turn.answer), *(call.step for call in turn.calls)]
    return crc32(repr(state).encode()) & 0xFFFF
