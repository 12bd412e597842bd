"""The order in which a trace is read, with each tool call beside the turn that it belongs to."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

from whyops_trace._reading.nodes import Node
from whyops_trace._shapes import dict_of
from whyops_trace.story.following import tell_next
from whyops_trace.story.messages import fingerprint
from whyops_trace.story.retries import PlacedCall, count_repeats, followers, link_tools, link_turns
from whyops_trace.story.telling import Telling
from whyops_trace.story.turns import Call, Section, Story, ToolUse, Turn

#: Largest number of requested calls of one tool that are remembered until the call itself is found.
_REMEMBERED: Final = 100
#: Largest number of names in a path. A deeper path keeps its innermost names.
_DEEPEST: Final = 50
#: Smallest fall of the cached share of a prompt that means a lost cache, and not only much new text.
_LOST: Final = 0.1


class Arrangement:
    """
    The sections of a story, and the links between its turns and tool calls.

    Args:
        telling: Parts of the story, read from the records.
        story: The story. Its sections and steps are filled in here.

    Attributes:
        turns: The turns; the turn with number n is at index n - 1.
        tool_calls: The tool calls, in order.
        after: The turns that continue each turn, by its number.
        roots: Number of the first turn of the conversation, by the number of each turn in it.
        rows: Runs of two or more identical tool calls in a row.
    """

    def __init__(self, telling: Telling, story: Story) -> None:
        self.turns: list[Turn] = []
        self.tool_calls: list[PlacedCall] = []
        self.roots: dict[int, int] = {}
        self._telling = telling
        self._story = story
        self._places: dict[int, int] = {}
        self._paths: dict[int, list[str]] = {0: []}
        self._turn_before: dict[int, Turn] = {}
        self._requested: dict[str, deque[tuple[Turn, Call]]] = {}
        for node in telling.order:
            self._add(node)
        self._number_steps()
        self._link_turns()
        self.after: dict[int, list[Turn]] = followers(self.turns)
        tell_next(self.turns, self.after)
        link_turns(self.turns, self.after)
        link_tools(self.tool_calls, self.after)
        self.rows: list[list[PlacedCall]] = count_repeats(self.tool_calls, self.roots)

    def turn_of(self, step: int) -> Turn | None:
        """Return the turn that shows a step, None if no turn does."""
        place = self._story.steps.get(step)
        return None if place is None else self._story.sections[place].turn

    def _add(self, node: Node) -> None:
        telling = self._telling
        entry = telling.turns.get(id(node))
        if id(node) in telling.parts and entry is None:
            return
        if entry is not None:
            if not entry.repeats and id(entry.turn.node) not in self._places:
                self._add_turn(entry.turn)
        elif id(node) in telling.uses:
            self._add_use(telling.uses[id(node)])
        elif node.kind == "step":
            self._note_step(node)
            self._append(node, Section(self._path(node.parent), node))
        else:
            self._loose(node).others.append(node)

    def _append(self, node: Node, section: Section) -> None:
        self._places[id(node)] = len(self._story.sections)
        self._story.sections.append(section)

    def _add_turn(self, turn: Turn) -> None:
        turn.number = len(self.turns) + 1
        self.turns.append(turn)
        self._turn_before[_scope(turn.node)] = turn
        self._append(turn.node, Section(self._path(turn.node.parent), turn=turn))
        for call in turn.calls:
            self._requested.setdefault(call.name, deque(maxlen=_REMEMBERED)).append((turn, call))

    def _add_use(self, use: ToolUse) -> None:
        """Put a tool call with the turn that requested it, otherwise with the turn before it under the same parent."""
        node = use.node
        turn, call = self._asker(use)
        if call is not None:
            call.step = node.step
        turn = turn or self._turn_before.get(_scope(node))
        self.tool_calls.append(PlacedCall.of(use, turn, call))
        if turn is not None:
            turn.tools.append(use)
            self._places[id(node)] = self._places[id(turn.node)]
        else:
            self._loose(node).tools.append(use)

    def _note_step(self, node: Node) -> None:
        """Note the request that a step was made for, if its name is that of a tool: an agent, or the last answer."""
        name = node.name.removeprefix("agent ")
        for turn, call in self._requested.get(name, ()):
            if not call.step and 0 < turn.node.answer < node.step:
                call.step = node.step
                return

    def _asker(self, use: ToolUse) -> tuple[Turn | None, Call | None]:
        """Return the turn that requested a tool call, and its request."""
        node = use.node
        entry = self._telling.turns.get(id(node.asked_by)) if node.asked_by is not None else None
        inside = entry.innermost() if entry is not None else ()
        # A call may stand before the turn that is said to have asked for it.
        askers = [inner.turn for inner in inside if id(inner.turn.node) in self._places]
        if askers:
            open_calls = [
                (turn, call)
                for turn in askers
                for call in turn.calls
                if call.name == node.name and not call.step
            ]
            fitting = [one for one in open_calls if _fits(one[1], use)]
            return next(iter(fitting or open_calls), (askers[-1], None))
        for turn, call in self._requested.get(node.name, ()):
            if not call.step and 0 < turn.node.answer < node.step and _fits(call, use):
                return turn, call
        return None, None

    def _loose(self, node: Node) -> Section:
        """Return the section for a node without a turn: the last section if it holds such nodes too, else a new one."""
        path = self._path(node.parent)
        last = self._story.sections[-1] if self._story.sections else None
        if last is None or last.path != path or last.node or last.turn:
            self._story.sections.append(Section(path))
        self._places[id(node)] = len(self._story.sections) - 1
        return self._story.sections[-1]

    def _path(self, node: Node | None) -> list[str]:
        """Return the names of the steps and tools from the top down to a node."""
        inner: list[Node] = []
        while node is not None and id(node) not in self._paths:
            inner.append(node)
            node = node.parent
        path = self._paths[id(node) if node is not None else 0]
        for node in reversed(inner):
            path = [*path[1 - _DEEPEST :], node.name] if node.kind in ("step", "tool") else path
            self._paths[id(node)] = path
        return path

    def _number_steps(self) -> None:
        """Map each step to the section that shows it."""
        telling, places = self._telling, self._places
        for entry in telling.turns.values():
            turn = next(entry.innermost()).turn
            places.setdefault(id(entry.turn.node), places.get(id(turn.node), 0))
        for step, node in telling.steps.items():
            node_shown = telling.parts.get(id(node), node)
            self._story.steps[step] = places.get(id(node_shown), 0)

    def _link_turns(self) -> None:
        """Link each turn to the one it continues, with the growth of the prompt and a loss of its cache."""
        for entry in self._telling.turns.values():
            request, turn = entry.sent, entry.turn
            if request is not None and request.base is not None and turn.number:
                turn.continues = request.base.number
        for turn in self.turns:
            before = self.turns[turn.continues - 1] if turn.continues else None
            self.roots[turn.number] = self.roots.get(turn.continues, turn.number)
            tokens = [one.node.tokens for one in (before, turn) if one is not None and one.node.tokens]
            if len(tokens) == 2 and all(count.sent for count in tokens):
                turn.grown = sum(new.sent - old.sent for old, new in pairwise(tokens))
            if before is not None and before.cached is not None and turn.cached is not None:
                turn.lost = before.cached - turn.cached >= _LOST


def _fits(call: Call, use: ToolUse) -> bool:
    """Return True if a tool call has the requested arguments. Those with a default may be missing in the request."""
    if isinstance(call.arguments, dict) and isinstance(use.arguments, dict):
        arguments = dict_of(use.arguments)
        return all(
            name in arguments and _same(expected, arguments[name])
            for name, expected in call.arguments.items()
        )
    return _same(call.arguments, use.arguments)


def _same(one: object, other: object) -> bool:
    try:
        return one == other
    except RecursionError:
        return fingerprint(one) == fingerprint(other)


def _scope(node: Node) -> int:
    return id(node.parent) if node.parent is not None else 0
