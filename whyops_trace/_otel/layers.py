"""Layers that tell of one thing: which of them do, and what each adds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from typing import Final

from whyops_trace._otel.node import Node
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import ERROR
from whyops_trace.types import TokenUsage

#: Kinds that separate what is in them from what they are in.
_BOUNDARIES: Final = ("agent", "tool", "handoff")
#: Largest number of earlier turns that are looked at.
_NEAR: Final = 200
#: Largest number of spans around one, or in one, that are looked at.
_DEEP: Final = 500
#: Nanoseconds that the clocks of two layers may be apart.
_SLACK_NS: Final = 2_000_000


def join(roots: list[Node]) -> None:
    """Make one of what several spans tell, in all below some roots. Roots may go, but not become others."""
    _join_by_id([node for root in roots for node in root.walk()], roots)
    for root in list(roots):
        for node in list(root.walk()):
            if node.kind == "llm" and (node.parent is not None or node is root):
                _join_inner(node)
    nodes = [node for root in roots for node in root.walk()]
    _join_beside(nodes)
    _place_copies(nodes, roots)
    for root in roots:
        for node in list(root.walk()):
            outer = _outer(node)
            if outer is not None and node.kind == outer.kind == "tool" and is_same_tool(node, outer):
                merge_tools(outer, node)
            elif outer is not None and node.kind == outer.kind == "agent" and is_same_agent(node, outer):
                node.reading.kind = "step"
            elif outer is not None and node.kind == "agent" and outer.kind == "tool":
                node.reading.fill(name=outer.reading.delegate or outer.reading.name)
        for node in list(root.walk()):
            if node.reading.delegate and node.children:
                _add_agent(node)


def clear_copied_failures(nodes: Iterable[Node]) -> None:
    """
    Clear failures that are another one's.

    Of such that nothing but a status tells of, another span says for sure that they are its own. The failure of a step
    that ended with what it is in is that of the tool in it.
    """
    nodes = list(nodes)
    for node in nodes:
        if node.kind == "step" and _was_handled(node):
            node.reading.error = None
    failed = [node.reading for node in nodes if node.reading.error is not None]
    sure = {
        reading.error.message for reading in failed if reading.error is not None and reading.error.is_sure
    }
    for reading in failed:
        error = reading.error
        if (
            error is not None
            and not error.is_sure
            and (error.message in sure or (sure and error.message == "failed"))
        ):
            reading.error = None


def _was_handled(step: Node) -> bool:
    """Return True if the failure of a step is that of a tool in it, and what it is in went on."""
    error = step.reading.error
    if error is None or step.parent is None or step.parent.span.status == ERROR:
        return False
    inner = (node.reading.error for node in islice(step.walk(), _DEEP) if node.kind == "tool")
    return any(each is not None and each.message in error.message for each in inner)


def _outer(node: Node) -> Node | None:
    """Return what a tool or an agent is directly in, through steps alone."""
    around = islice(node.ancestry(), 1, _DEEP)
    return next((outer for outer in around if outer.kind != "step"), None)


def is_same_tool(inner: Node, outer: Node) -> bool:
    """Return True for a tool in one of its name, unless both tell of arguments and these differ."""
    mine, other = inner.reading, outer.reading
    if mine.call_id and other.call_id:
        return mine.call_id == other.call_id
    return mine.name == other.name and (not mine.input or not other.input or mine.input == other.input)


def is_same_agent(inner: Node, outer: Node) -> bool:
    """Return True for an agent in one of its name, or for one without a name of its own."""
    return inner.reading.name in ("", outer.reading.name)


def _add_agent(tool: Node) -> None:
    """Put turns and calls in a tool call into the agent that it runs, unless a span tells of that agent."""
    inner = islice(tool.walk(), 1, _DEEP)
    if any(node.kind == "agent" and _outer(node) is tool for node in inner):
        return
    agent = Node(tool.span, Reading(kind="agent", name=tool.reading.delegate))
    agent.parent = tool
    agent.children = [node for node in tool.children if node.kind != "step"]
    tool.children = [*(node for node in tool.children if node.kind == "step"), agent]
    for child in agent.children:
        child.parent = agent


def merge_tools(outer: Node, inner: Node) -> None:
    """Add to a tool call what another layer tells of it."""
    told = inner.reading
    outer.reading.fill(
        call_id=told.call_id, input=told.input, output=told.output, error=told.error, agent=told.agent
    )
    outer.reading.rest = {**told.rest, **outer.reading.rest}
    outer.absorb(inner)


def merge_turns(outer: Node, inner: Node) -> None:
    """Add to a turn what another layer tells of it."""
    mine, told = outer.reading, inner.reading
    mine.ask(told.request.messages, **told.request.metadata)
    mine.reply(told.answer)
    mine.fill(
        model=told.model, agent=told.agent, conversation=told.conversation, user=told.user, name=told.name
    )
    mine.rest = {**told.rest, **mine.rest}
    mine.is_copy = mine.is_copy and told.is_copy
    if told.error is None or mine.has_answer:
        mine.error = None
    elif mine.error is not None and not mine.error.type:
        mine.error = told.error
    outer.absorb(inner)


def _join_by_id(nodes: list[Node], roots: list[Node]) -> None:
    """Join turns with the same id of the provider's answer. The outermost one, else the first one, is the place."""
    by_id: dict[str, Node] = {}
    for node in nodes:
        answer_id = node.reading.answer.id if node.kind == "llm" else ""
        if not answer_id:
            continue
        first = by_id.setdefault(answer_id, node)
        if first is node or not _may_be_one(first, node):
            continue
        # Nodes come before those in them, so the second is never around the first.
        is_inside = any(each is first for each in node.ancestry())
        place, layer = (node, first) if first.reading.is_copy and not is_inside else (first, node)
        merge_turns(place, layer)
        by_id[answer_id] = place
        roots[:] = [root for root in roots if root is not layer]


def _may_be_one(first: Node, second: Node) -> bool:
    """Return True unless two turns follow each other: a server for tests may give each answer the same id."""
    return (
        first.span.start_ns <= second.end_ns + _SLACK_NS and second.span.start_ns <= first.end_ns + _SLACK_NS
    )


def _inner_turns(node: Node) -> list[Node]:
    """Return the turns in a turn that no other one, no tool and no agent separates from it."""
    turns, rest = [], list(reversed(node.children))
    while rest:
        each = rest.pop()
        if each.kind == "llm":
            turns.append(each)
        elif each.kind not in _BOUNDARIES:
            rest += reversed(each.children)
    return turns


def _join_inner(node: Node) -> None:
    """
    Join a turn with the turn in it, which is the same seen by a client further in.

    Of several, those that failed were tried before, and stay turns of their own. A span with several answered turns in
    it is no turn, but stands for all of them.
    """
    while turns := _inner_turns(node):
        answered = [turn for turn in turns if turn.reading.error is None]
        if len(turns) == 1 or len(answered) == 1:
            merge_turns(node, (answered or turns)[-1])
            if len(turns) > 1:
                return
        elif not answered:
            return
        else:
            node.reading.kind = "step"
            node.reading.fill(input=node.reading.request.messages, output=node.reading.answer.content)
            return


def _join_beside(nodes: list[Node]) -> None:
    """Join turns of different makers in the same place, of which one happened within the time of the other."""
    beside: dict[int, list[Node]] = {}
    for node in nodes:
        if node.kind != "llm" or node.parent is None:
            continue
        earlier = beside.setdefault(id(node.parent), [])
        other = next((turn for turn in reversed(earlier[-_NEAR:]) if _are_layers(turn, node)), None)
        if other is None:
            earlier.append(node)
        elif other.contains(node):
            merge_turns(other, node)
        else:
            earlier.remove(other)
            merge_turns(node, other)
            earlier.append(node)


def _are_layers(one: Node, other: Node) -> bool:
    """Return True if two turns beside each other are one: of two makers, with no ids that differ, one in the other."""
    ids = {one.reading.answer.id, other.reading.answer.id}
    is_apart = one.span.scope == other.span.scope or ("" not in ids and len(ids) == 2)
    return not is_apart and (one.contains(other) or other.contains(one))


def _place_copies(nodes: list[Node], roots: list[Node]) -> None:
    """
    Give spans that repeat the tokens of a turn to that turn: the one that they are in, or that has the same tokens.

    One that repeats nothing is a turn.
    """
    turns = [node for node in nodes if node.kind == "llm" and not node.reading.is_copy]
    turns.sort(key=lambda turn: turn.span.start_ns)
    for node in nodes:
        if not node.reading.is_copy or node.kind != "llm":
            continue
        inside = {id(each) for each in islice(node.ancestry(), _DEEP)}
        near = [turn for turn in turns if id(turn) in inside] or nearby(turns, node)
        fitting = [
            turn
            for turn in near
            if id(turn) in inside or (_repeats(node, turn) and node not in islice(turn.ancestry(), _DEEP))
        ]
        place = max(
            fitting,
            key=lambda turn: (
                id(turn) in inside,
                turn.parent is node.parent,
                turn.span.start_ns <= node.end_ns,
            ),
            default=None,
        )
        if place is not None:
            turns.remove(place)
            merge_turns(place, node)
            roots[:] = [root for root in roots if root is not node]


def nearby(turns: list[Node], node: Node) -> list[Node]:
    """Return those of some turns, in order of time, that began last before a moment, and the next after it."""
    place = bisect_right(turns, node.end_ns, key=lambda turn: turn.span.start_ns)
    return turns[max(0, place - _NEAR) : place + 1]


def counts_again(copy: TokenUsage, turn: TokenUsage) -> bool:
    """Return True if a span counts the tokens of a turn."""
    return all(copy.get(name) == turn.get(name) for name in ("totalTokens", "completionTokens"))


def _repeats(copy: Node, turn: Node) -> bool:
    """Return True if a span counts the tokens of a turn, or that turn counts none and came just before."""
    mine, other = copy.reading.answer.usage, turn.reading.answer.usage
    return counts_again(mine, other) or (
        not other and turn.parent is copy.parent and turn.span.start_ns <= copy.span.start_ns
    )
