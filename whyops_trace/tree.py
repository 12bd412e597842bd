"""
One trace as a tree on a terminal: what called what, what failed, how long it took.

::

    checkout-8841 · shop · 1.2 s · 2 tools, 1 llm, 1 error · $0.0017 · 900 tokens (95 % cached)
    ├─ ● plan                                                                             12 ms
    │  ├─ ⚒ charge_card(amount=4999, currency="usd") → {"id": "ch_1"}                      8 ms
    │  └─ ✗ ship(order=8841)  ValueError: no such order                                    1 ms
    └─ ✦ ask gpt-4o  "I will…" → charge_card  840 in (800 cached) / 60 out   $0.0017   640 ms

A tool stands below the call of a model that asked for it. Where another one comes between them, ``← #9`` at the tool
names the step of that answer, and the call of the model has the same ``#9``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, TextIO

from whyops_trace._reading.excerpt import Tokens, cells, dollars, duration, shorten
from whyops_trace._reading.nodes import Kind, Node, Status, TraceTree, build

__all__ = ["Kind", "Node", "Status", "TraceTree", "build", "fits", "render", "write_tree"]

#: Every sign a tree is drawn with, and what stands for it where it cannot be encoded: one character each,
#: so that the columns stay where they are.
_ASCII: Final = str.maketrans("├└│─⋯●⚒✦≡·✗⊘◌→←…»", "|`|-~o*@#-x/.><~>")

_SIGNS: Final[dict[str, str]] = {
    "tool": "⚒", "step": "●", "llm": "✦", "embedding": "≡", "event": "·",
    "said failed": "✗", "error": "✗", "cancelled": "⊘", "running": "◌", "unfinished": "◌",
}  # fmt: skip
#: ANSI colours of kinds, and of the states that outrank them.
_COLOURS: Final[dict[str, str]] = {
    "tool": "34", "step": "1", "llm": "35", "embedding": "35", "event": "2",
    "said failed": "33", "error": "31", "cancelled": "33", "running": "36", "unfinished": "33",
}  # fmt: skip
#: What stands before a line that is marked.
_MARK: Final = "> "
_DIM: Final = "2"
_BOLD: Final = "1"


def render(
    tree: TraceTree,
    *,
    width: int = 80,
    color: bool = False,
    ascii_only: bool = False,
    marked: Collection[int] = (),
) -> str:
    """
    Return a tree as text, a line for the trace and one for each node, without a newline at the end.

    Args:
        tree: Result of :func:`build`.
        width: Columns; a line that would be longer is shortened.
        color: True to colour it with ANSI escapes.
        ascii_only: True to draw with ASCII characters only, see :func:`fits`.
        marked: Steps of the nodes whose lines begin with ``>``; if there are any, the others are indented.
    """
    if marked:
        width -= len(_MARK)
    rows = list(_rows(tree, width))
    marks = _marks(node for _, node in rows)
    lines = [_header(tree, width)]
    for question, guides, node in _with_questions(rows):
        if question:
            beside = guides[:-3] + "│  "
            said = shorten(f"» {question}", width - cells(beside))
            lines.append(f"{_coloured(beside, _DIM)}{_coloured(said, _BOLD)}" if color else beside + said)
        line = _line(node, guides, marks.get(id(node), ""), width, color)
        lines.append(line if node.step not in marked else _MARK + line)
    if marked:
        lines = [line if line.startswith(_MARK) else " " * len(_MARK) + line for line in lines]
    drawn = "\n".join(lines)
    return drawn.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else drawn


def fits(encoding: str | None) -> bool:
    """Return whether a tree can be written in an encoding; one of None takes any text."""
    try:
        "".join(map(chr, _ASCII)).encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def write_tree(tree: TraceTree, stream: TextIO) -> None:
    """
    Write a tree to a stream, as wide as the terminal.

    It is coloured if the stream is a terminal and ``NO_COLOR`` is not set. What the stream's encoding
    cannot express becomes a question mark.
    """
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    color = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = stream.encoding or "utf-8"
    drawn = render(tree, width=width, color=color, ascii_only=not fits(encoding))
    stream.write(drawn.encode(encoding, "replace").decode(encoding) + "\n")


def _rows(tree: TraceTree, width: int) -> Iterator[tuple[str, Node]]:
    """Yield each node in the order they are drawn, with the guides that lead to it."""
    # Deep trees show their last levels: the guides take up to half of the width.
    levels = max(3, width // 6)
    stack = [(node, "", node is tree.nodes[-1]) for node in reversed(tree.nodes)]
    while stack:
        node, guides, last = stack.pop()
        shown = (
            guides if len(guides) < 3 * levels else "⋯  " + guides[-3 * (levels - 2) :] if levels > 2 else ""
        )
        yield shown + ("└─ " if last else "├─ "), node
        below = (guides + ("   " if last else "│  "))[-3 * levels :]
        stack += [(child, below, child is node.children[-1]) for child in reversed(node.children)]


def _with_questions(rows: Sequence[tuple[str, Node]]) -> Iterator[tuple[str, str, Node]]:
    """Yield what the user has just said to a model, where a conversation has several such messages, and each row."""
    questions = [node.question for _, node in rows if node.kind == "llm" and node.question]
    several = len(set(questions)) > 1
    last = ""
    for guides, node in rows:
        new = several and node.kind == "llm" and node.question not in ("", last)
        last = node.question if new else last
        yield last if new else "", guides, node


def _marks(nodes: Iterable[Node]) -> dict[int, str]:
    """
    Return what tells which tool was asked for by which turn of a model.

    Args:
        nodes: In the order they are drawn.

    Returns:
        Marks of tools and of turns, by the :func:`id` of the node.
    """
    marks: dict[int, str] = {}
    for node in nodes:
        if node.asked_by is not None:
            marks[id(node)] = f" ← #{node.asked_by.answer}"
            marks[id(node.asked_by)] = f" #{node.asked_by.answer}"
    return marks


def _header(tree: TraceTree, width: int) -> str:
    counts = [(tree.tool_calls, "tools"), (tree.llm_responses, "llm"), (tree.errors, "errors")]
    counts += [(tree.running, "running"), (tree.unfinished, "unfinished")]
    counted = [f"{n:,} {noun.removesuffix('s') if n == 1 else noun}" for n, noun in counts if n]
    if tree.said_failed:
        counted.append(f"{tree.said_failed:,} said failed")
    elif not tree.errors:
        counted.append("no errors")
    parts = [
        tree.agent_name,
        "" if tree.duration_ms is None else duration(tree.duration_ms),
        ", ".join(counted),
        "" if tree.cost is None else dollars(tree.cost),
    ]
    if tree.tokens.total:
        share = tree.tokens.cached_share
        parts.append(f"{tree.tokens.total:,} tokens{f' ({share} cached)' if share else ''}")
    rest = "".join(f" · {part}" for part in parts if part)
    # Sixteen characters of an id tell it from others, and are enough to find it again.
    return shorten(shorten(tree.trace_id, max(16, width - cells(rest))) + rest, width)


def _line(node: Node, guides: str, mark: str, width: int, color: bool) -> str:
    """Return one line: guides, sign, what it is, and at the right what it cost."""
    state = "said failed" if node.said_failed else node.kind if node.status == "ok" else node.status
    cost = _cost(node, width * 3 // 5)
    room = width - cells(guides) - 2 - (cells(cost) + 2 if cost else 0)
    name, rest = _fitted(node, mark, room)
    gap = " " * (room - cells(name) - cells(rest) + 2) if cost else ""
    if not color:
        return f"{guides}{_SIGNS[state]} {name}{rest}{gap}{cost}"
    said = _coloured(f"{_SIGNS[state]} {name}", _COLOURS[state])
    rest = _coloured(rest, _COLOURS[state]) if state == "error" else rest
    return f"{_coloured(guides, _DIM)}{said}{rest}{gap}{_coloured(cost, _DIM)}"


def _fitted(node: Node, mark: str, room: int) -> tuple[str, str]:
    """Return a node's name and what follows it, shortened to *room* columns together."""
    before, given, after = _given(node)
    name = f"{node.name} {node.model}".rstrip()
    if node.kind == "llm":
        name += mark
    else:
        after += mark
    name = shorten(name, room)
    outcome = _outcome(node)
    room -= cells(name) + len(before) + len(after)
    if room < 0:
        return name, ""
    # The result matters most. The arguments keep a third of the room, and whatever the result leaves.
    given = shorten(given, max(room - cells(outcome), room // 3))
    return name, before + given + after + shorten(outcome, room - cells(given))


def _given(node: Node) -> tuple[str, str, str]:
    """Return what a node was given, or a model said, and what stands around it."""
    if node.kind in ("tool", "embedding") or (node.kind == "step" and node.arguments):
        return "(", node.arguments, ")"
    said = node.result if node.kind == "llm" and node.status == "ok" else node.arguments
    return ('  "', said, '"') if said and node.status != "error" else ("", "", "")


def _outcome(node: Node) -> str:
    """Return what came out of a node, led by spaces or an arrow."""
    if node.status == "error":
        return f"  {node.error or 'failed'}"
    if node.status != "ok":
        return f"  {node.status}"
    if node.said_failed:
        return f"  said failed: {node.said_failed}"
    came_out = node.calls if node.kind == "llm" else node.result
    return f" → {came_out}" if came_out else ""


def _cost(node: Node, room: int) -> str:
    """Return the tokens, dollars and time that a node cost; the first of them go if all do not fit into *room*."""
    parts = [_tokens(node.tokens), "" if node.cost is None else dollars(node.cost), _latency(node)]
    parts = [part for part in parts if part]
    while cells("   ".join(parts)) > room:
        del parts[0]
    return "   ".join(parts)


def _tokens(tokens: Tokens | None) -> str:
    if tokens is None or not tokens.total:
        return ""
    cached = f" ({tokens.cache_read:,} cached)" if tokens.cache_read else ""
    return f"{tokens.sent:,} in{cached} / {tokens.completion:,} out"


def _latency(node: Node) -> str:
    return "" if node.latency_ms is None else duration(node.latency_ms)


def _coloured(said: str, code: str) -> str:
    return f"\x1b[{code}m{said}\x1b[0m" if said else ""
