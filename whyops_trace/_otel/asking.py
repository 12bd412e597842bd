"""The turns that asked for tool calls, and the facts that each of the two tells of the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Any, Final

from whyops_trace._models.stops import stop_of
from whyops_trace._otel.node import Node
from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of

#: Largest numbers of earlier turns, and of enclosing spans, that are looked at.
_NEAR: Final = 200
_DEEP: Final = 500


class _Asked:
    """A tool call that a turn asked for."""

    def __init__(self, turn: Node, item: Any) -> None:
        function = dict_of(item.get("function"))
        self.turn = turn
        self.item = item
        self.id = text_of(item.get("id"))
        self.name = text_of(function.get("name"))
        self.arguments = parsed(function.get("arguments"))
        self.is_made = False

    def fits(self, value: Any) -> bool:
        """Return True if a call has these arguments; it may have more, such as defaults, or be one value alone."""
        asked = dict_of(self.arguments)
        if isinstance(value, dict):
            return all(name in value and value[name] == each for name, each in asked.items())
        return value is None or [str(value)] == [str(each) for each in asked.values()]


def link(nodes: list[Node]) -> None:
    """
    Find the turn that asked for each tool call: by the id of the call, otherwise by its name and arguments.

    A step with the name of a tool that a turn before it asked for is that tool's call, and so is an agent that no
    tool call ran. Where one of the two does not tell the id or the names of the arguments, the other does.
    """
    turns = sorted((node for node in nodes if node.kind == "llm"), key=lambda node: node.span.start_ns)
    _add_ids(turns)
    requests = _Requests(
        _Asked(turn, item) for turn in turns for item in dicts_of(turn.reading.answer.tool_calls)
    )
    calls = [node for node in nodes if node.kind == "tool"]
    calls += [
        node
        for node in nodes
        if (node.kind == "agent" or (node.kind == "step" and node.reading.may_be_tool))
        and _bare(node) in requests.by_name
    ]
    for node in sorted(calls, key=lambda node: (not node.reading.call_id, node.span.start_ns)):
        one = requests.find(node)
        if one is not None:
            _connect(node, one)
        elif node.kind == "tool":
            node.asked_by = _by_place(node, turns)
    _add_results(nodes, turns)


class _Requests:
    """The tool calls that the turns of a trace asked for, in order of time."""

    def __init__(self, asked: Iterable[_Asked]) -> None:
        self.by_name: dict[str, list[_Asked]] = {}
        self._by_id: dict[str, _Asked] = {}
        for each in asked:
            self.by_name.setdefault(plain_name(each.name), []).append(each)
            if each.id:
                self._by_id[each.id] = each

    def find(self, node: Node) -> _Asked | None:
        """Return what asked for a call, None if nothing did: not yet made, and nearest in place and in time."""
        call_id = node.reading.call_id
        if call_id in self._by_id:
            return self._by_id[call_id]
        named = self.by_name.get(_bare(node), [])
        end = bisect_right(named, node.span.start_ns, key=lambda each: each.turn.span.start_ns)
        fitting = [
            each
            for each in named[max(0, end - _NEAR) : end]
            if not (call_id and each.id)
            and (node.kind == "tool" or not each.is_made)
            and (node.kind == "agent" or each.fits(node.reading.input))
        ]
        places = _places(node)
        return max(
            fitting,
            key=lambda each: (not each.is_made, _nearness(each.turn, places), each.turn.span.start_ns),
            default=None,
        )


def _places(node: Node) -> set[int]:
    """Return what a call is in."""
    return set(map(id, islice(node.ancestry(), _DEEP)))


def _bare(node: Node) -> str:
    """Return the name of a step as the tool that it may be."""
    return plain_name(node.reading.name or node.span.name)


def plain_name(name: str) -> str:
    """Return the name of a tool as a model may be told of it: without capital letters and blanks."""
    return name.casefold().replace(" ", "_")


def _by_place(node: Node, turns: list[Node]) -> Node | None:
    """
    Return the turn that asked for a call of which no turn tells: the one that it is in, or the one before it.

    The latter only if that stopped to have tools called, and tells of no call at all.
    """
    inside = next((each for each in islice(node.ancestry(), _DEEP) if each.kind == "llm"), None)
    if inside is not None:
        return inside
    places = _places(node)
    end = bisect_right(turns, node.span.start_ns, key=lambda turn: turn.span.start_ns)
    before = [turn for turn in turns[max(0, end - _NEAR) : end] if _nearness(turn, places)]
    turn = max(before, key=lambda turn: (_nearness(turn, places), turn.span.start_ns), default=None)
    if turn is None or turn.reading.answer.tool_calls:
        return None
    return turn if stops_for_tools(turn) else None


def stops_for_tools(turn: Node) -> bool:
    """Return True if a model stopped to have tools called."""
    return stop_of(turn.reading.answer.finish_reason) == "tools"


def _nearness(turn: Node, places: set[int]) -> int:
    """Return the number of places that a turn has in common with a call."""
    return sum(id(each) in places for each in islice(turn.ancestry(), _DEEP))


def _connect(node: Node, one: _Asked) -> None:
    reading = node.reading
    if node.kind == "step":
        reading.kind = "tool"
        reading.name = one.name
        if node.span.status == 2 and reading.error is None:
            reading.has_failed = True
    one.is_made = True
    node.asked_by = one.turn
    reading.fill(call_id=one.id)
    if node.kind == "agent":
        return
    if not isinstance(reading.input, dict) and isinstance(one.arguments, dict):
        reading.input = one.arguments
    if not one.id and reading.call_id:
        one.item["id"] = reading.call_id


def _history(turn: Node) -> Iterator[dict[str, Any]]:
    for message in dicts_of(turn.reading.request.messages):
        yield from dicts_of(message.get("tool_calls"))


def _add_ids(turns: list[Node]) -> None:
    """Add the ids of calls that an answer has without them, out of the request that follows."""
    taken = {each.get("id") for turn in turns for each in dicts_of(turn.reading.answer.tool_calls)}
    for turn, following in pairwise(turns):
        missing = [item for item in dicts_of(turn.reading.answer.tool_calls) if not item.get("id")]
        for item in missing:
            for call in _history(following):
                mine, other = dict_of(item.get("function")), dict_of(call.get("function"))
                same = mine.get("name") == other.get("name") and parsed(mine.get("arguments")) == parsed(
                    other.get("arguments")
                )
                if same and call.get("id") and call["id"] not in taken:
                    item["id"] = call["id"]
                    taken.add(call["id"])
                    break


def _add_results(nodes: Iterable[Node], turns: list[Node]) -> None:
    """Add the results that a model was told of tools whose own spans do not tell them."""
    results: dict[str, Any] = {}
    for turn in turns:
        for message in dicts_of(turn.reading.request.messages):
            if message.get("role") == "tool" and message.get("content") not in (None, ""):
                results.setdefault(text_of(message.get("tool_call_id")), message["content"])
    for node in nodes:
        reading = node.reading
        if node.kind == "tool" and reading.call_id and reading.output is None and reading.error is None:
            reading.output = parsed(results.get(reading.call_id))
