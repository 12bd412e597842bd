"""
The shape of a trace without its texts: every node of its tree, with a column for each member of nodes.

Columns of small numbers compress to a few bytes a node, so the page has the whole trace, however long, and fetches
texts only when they are read. For a trace too large even for that, deep nodes are left out until they are unfolded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from whyops_trace._reading.excerpt import milliseconds, shorten
from whyops_trace._reading.score import Score
from whyops_trace.analysis import Finding
from whyops_trace.story import Section, Story
from whyops_trace.tree import Node

#: Number of nodes above which deep nodes are left out. A skeleton of that size takes some 250 KB on the wire.
WHOLE: Final = 25_000
#: Number of levels that are never left out.
LEVELS: Final = 2
#: Largest number of characters of a preview: a call's arguments or error beside its name.
PREVIEW: Final = 72
#: Largest number of nodes with previews of calls that did not fail. Beyond it they would outweigh all the rest, and
#: the page fetches those of the visible rows.
PREVIEWED: Final = 1_500

#: Columns of nodes: name, model, agent and section are indexes of lists; start and took are in milliseconds, cost is in
#: millionths of a dollar, asked is the step of the turn that requested it, and turn is its own number as a turn.
_COLUMNS: Final = (
    "kind", "state", "depth", "step", "name", "model", "start", "took", "tokens", "cost", "asked", "turn", "section",
    "agent",
)  # fmt: skip
_KINDS: Final = {"tool": "t", "llm": "l", "step": "s", "embedding": "m", "event": "e"}
_STATES: Final = {"ok": ".", "error": "x", "cancelled": "c", "running": "r", "unfinished": "u"}


class Row(NamedTuple):
    """A node with its depth, and the number of nodes left out below it."""

    node: Node
    depth: int
    hidden: int


class Columns:
    """
    Rows of a tree as columns, the form that the page reads.

    Args:
        story: The story of the trace, with the section of each node.
        agent: Function from a node to the name of its agent, "" if the trace has only one.
        previews: True to include previews of calls that did not fail.
    """

    def __init__(self, story: Story, agent: Callable[[Node], str], *, previews: bool) -> None:
        self._story = story
        self._agent = agent
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
            preview = _preview(row.node) if self._previews or _problem(row.node) else ""
            if preview:
                texts[number] = preview
            if row.hidden:
                hidden[number] = row.hidden
        letters = {name: "".join(columns[name]) for name in ("kind", "state")}
        return columns | letters | {"texts": texts, "hidden": hidden, "names": list(self._names)}

    def _values(self, row: Row) -> tuple[Any, ...]:
        """Return the members of a row, in the order of the columns."""
        node = row.node
        started = milliseconds(node.started)
        return (
            _KINDS[node.kind],
            _STATES["error" if node.said_failed else node.status],
            row.depth,
            node.step,
            self._name(node.name),
            self._name(node.model),
            0 if started is None else max(0, round(started - self._origin)),
            -1 if node.latency_ms is None else round(node.latency_ms),
            node.tokens.total if node.tokens else 0,
            0 if node.cost is None else round(node.cost * 1_000_000),
            node.asked_by.step if node.asked_by else 0,
            self._turns.get(id(node), 0),
            self._story.steps.get(node.step, 0),
            self._name(self._agent(node)),
        )

    def _name(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


def skeleton(
    story: Story,
    findings: Sequence[Finding] | None,
    version: str,
    *,
    agent: Callable[[Node], str] = lambda _: "",
    running: bool = False,
    limit: int = WHOLE,
    previewed: int = PREVIEWED,
    scored: Mapping[int, Sequence[Score]] = MappingProxyType({}),
) -> bytes:
    """
    Return the shape of a trace as JSON.

    Args:
        story: The trace.
        findings: Its findings, None if they are not computed yet.
        version: Name of this state of the trace.
        agent: Function from a node to the name of its agent, "" if the trace has only one.
        running: True if more may come.
        limit: Number of nodes above which deep nodes are left out.
        previewed: Largest number of nodes with previews of calls that did not fail; see :func:`previews`.
        scored: The scores of steps, by the step of the node that shows them.
    """
    rows = list(walk(story.tree.nodes))
    whole = len(rows) <= limit
    columns = Columns(story, agent, previews=len(rows) <= previewed)
    shape = columns.of(rows if whole else outer(story.tree.nodes))
    shape |= {
        "version": version,
        "began": round(story.tree.began_ms or 0),
        "previewed": len(rows) <= previewed,
        "duration": round(story.tree.duration_ms or 0),
        "total": len(rows),
        "findings": None if findings is None else outlined(findings),
        "links": _links(story),
        "stamps": [_stamp(section, scored) for section in story.sections],
        "running": running,
    }
    return msgspec.json.encode(shape)


def outlined(findings: Iterable[Finding]) -> list[list[Any]]:
    """Return the code, severity, title and first 20 steps of findings, which the page needs beside their texts."""
    return [[one.code, one.severity, one.title, one.steps[:20]] for one in findings]


def children(story: Story, step: int, agent: Callable[[Node], str] = lambda _: "") -> bytes:
    """
    Return all nodes below the node of a step, as JSON, with depths counted from that node.

    Args:
        story: The trace.
        step: The step.
        agent: Function from a node to the name of its agent, "" if the trace has only one.
    """
    for row in walk(story.tree.nodes):
        if row.node.step == step and row.node.children:
            columns = Columns(story, agent, previews=False)
            return msgspec.json.encode(columns.of(walk(row.node.children)))
    return msgspec.json.encode({})


def previews(story: Story, first: int, end: int) -> bytes:
    """Return the previews of the calls from step *first* to before *end*, by step, as JSON."""
    nodes = (row.node for row in walk(story.tree.nodes))
    return msgspec.json.encode({node.step: _preview(node) for node in nodes if first <= node.step < end})


def _preview(node: Node) -> str:
    """Return the text of a row beside the name of its call."""
    text = node.result or node.calls if node.kind == "llm" else node.arguments
    return shorten(_problem(node) or text, PREVIEW)


def _problem(node: Node) -> str:
    return node.error or node.said_failed


def walk(nodes: Iterable[Node]) -> Iterator[Row]:
    """Yield each node and all nodes below it, in the order of reading."""
    stack = [(node, 0) for node in reversed(list(nodes))]
    while stack:
        node, depth = stack.pop()
        yield Row(node, depth, 0)
        stack += [(child, depth + 1) for child in reversed(node.children)]


def outer(nodes: Iterable[Node]) -> Iterator[Row]:
    """Yield the nodes of the first levels and those that lead to failures, with the numbers of nodes left out."""
    failing, below = _failing(nodes)
    stack = [(node, 0) for node in reversed(list(nodes))]
    while stack:
        node, depth = stack.pop()
        chosen = [child for child in node.children if depth + 1 < LEVELS or id(child) in failing]
        left_out = sum(below[id(child)] for child in node.children) - sum(
            below[id(child)] for child in chosen
        )
        yield Row(node, depth, left_out)
        stack += [(child, depth + 1) for child in reversed(chosen)]


def _failing(nodes: Iterable[Node]) -> tuple[set[int], dict[int, int]]:
    """Return the ids of nodes that failed or hold a failed one, and the size of each node with all below it."""
    order = [row.node for row in walk(nodes)]
    failing: set[int] = set()
    below: dict[int, int] = {}
    for node in reversed(order):
        below[id(node)] = 1 + sum(below[id(child)] for child in node.children)
        if node.status == "error" or node.said_failed or any(id(child) in failing for child in node.children):
            failing.add(id(node))
    return failing, below


def _links(story: Story) -> dict[int, list[int]]:
    """Return the steps of the call that a call retries and of its own retry, 0 for none, for each such call."""
    uses = (use for section in story.sections for use in section.uses)
    return {use.node.step: [use.retry_of, use.retried_by] for use in uses if use.retry_of or use.retried_by}


def _stamp(section: Section, scored: Mapping[int, Sequence[Score]]) -> int:
    """Return a checksum of a section, which almost certainly changes with any change in it."""
    turn = section.turn
    nodes = [section.node, turn.node if turn else None, *(use.node for use in section.uses), *section.others]
    state: list[object] = [(node.step, node.status, node.latency_ms, node.answer) for node in nodes if node]
    state += [(use.retry_of, use.retried_by) for use in section.uses]
    state += [scored[node.step] for node in nodes if node and node.step in scored]
    if turn:
        broken = turn.error or any(use.error for use in turn.tools)
        state += [turn.retry_of, turn.retried_by, turn.next if broken else ""]
        state += [len(turn.thinking), len(turn.answer), *(call.step for call in turn.calls)]
    return crc32(repr(state).encode()) & 0xFFFF
