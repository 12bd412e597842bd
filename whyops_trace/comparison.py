"""
Two runs side by side: how long they were the same, the first place where they differ, and what differs there.

A run is read as a row of moves: what the model was given, what it decided, what a call was given and what it returned.
The first move that is not the same tells whether the cause was given to the agent, or is a decision of its model.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from whyops_trace._reading.excerpt import headline, named_values, value
from whyops_trace._reading.nodes import Node
from whyops_trace._reading.record import StoredRecord
from whyops_trace._shapes import dict_of, list_of
from whyops_trace.story import Call, Change, Message, Section, Story, ToolUse, Turn, tell
from whyops_trace.story.messages import fingerprint, tool_names
from whyops_trace.story.retries import changes

__all__ = ["Comparison", "Difference", "MoveKind", "compare"]

MoveKind = Literal[
    "step", "prompt", "tools", "params", "message", "model", "decision", "call", "result", "event", "end"
]

#: Characters of each side that are shown of a move, and those of them before the first that differs.
SHOWN: Final = 160
_BEFORE: Final = 40
#: Characters of a call that only one run makes.
CALL: Final = 80
#: Largest number of calls behind the first difference that are aligned with each other.
_ALIGNED: Final = 1_000
#: Largest number of steps and calls around a move that tell its branch.
_DEEPEST: Final = 50

#: Differences in words, by the kind of the moves.
_WORDS: Final[Mapping[str, str]] = {
    "step": "another step begins",
    "prompt": "the system prompt is another one",
    "tools": "other tools are on offer",
    "params": "the request has other parameters",
    "message": "the model is told something else",
    "model": "another model answers",
    "decision": "given the same, the model decides otherwise",
    "call": "the program makes another call",
    "result": "the same call ends otherwise",
    "event": "another event is recorded",
}
#: Moves as nouns, for runs that go on with moves of different kinds.
_NOUNS: Final[Mapping[str, str]] = {
    "step": "a step",
    "prompt": "a system prompt",
    "tools": "tools on offer",
    "params": "parameters",
    "message": "a message",
    "model": "a turn",
    "decision": "an answer",
    "call": "a call",
    "result": "the end of a call",
    "event": "an event",
    "end": "nothing more",
}


class _Move(NamedTuple):
    """
    One move of a run.

    Attributes:
        kind: Its kind.
        key: Two moves of a kind are the same if their keys are.
        text: It in words.
        step: The step that shows it.
        turn: The number of its turn, 0 if it belongs to none.
        told: The value that is compared member by member, None for a text.
    """

    kind: MoveKind
    key: int | str
    text: str
    step: int = 0
    turn: int = 0
    told: Any = None


@dataclass(slots=True)
class Difference:
    """
    The first place where two runs differ.

    Attributes:
        kind: Kind of the move of the first run, or of the second one if the first has ended.
        text: The difference in words, such as ``given the same, the model decides otherwise``; safe to print.
        turn: The number of the turn in which it is, 0 if it is in none.
        steps: The steps that show it in both runs, 0 for a run that has ended.
        sides: Both sides in words, from shortly before the first character that differs; safe to print.
        changes: The members that differ, of the arguments or the results of a call; 20 at most.
    """

    kind: MoveKind
    text: str
    turn: int
    steps: tuple[int, int]
    sides: tuple[str, str]
    changes: list[Change] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """
    Two runs side by side.

    Attributes:
        stories: The stories of both.
        same_turns: Number of turns before the first difference.
        same_calls: Number of tool calls before it that also ended in the same way.
        difference: The first difference, None if there is none.
        only: Calls of tools from there on that only one of the runs makes, in words, with their number, for both.
    """

    stories: tuple[Story, Story]
    same_turns: int = 0
    same_calls: int = 0
    difference: Difference | None = None
    only: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))


def compare(
    first: Iterable[Mapping[str, Any]],
    second: Iterable[Mapping[str, Any]],
    *,
    ignore: Sequence[re.Pattern[str]] = (),
    ended: Callable[[str], bool] = lambda _: True,
    priced: bool = False,
) -> Comparison:
    """
    Compare two traces.

    Times, tokens, costs, the ids of calls and the words that a model says beside a tool call do not count.

    Args:
        first: The records of one trace, decoded.
        second: Those of the other one.
        ignore: Patterns of texts that do not count, such as dates and ids.
        ended: Function that takes the token of a process and returns True if that process is gone.
        priced: True to include the cost of model calls in the stories.
    """
    reader = _Reader(ignore)
    events = [*first], [*second]
    stories = tell(events[0], ended, priced=priced), tell(events[1], ended, priced=priced)
    moves = reader.moves(events[0], stories[0]), reader.moves(events[1], stories[1])
    pairs = zip(*moves, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if not _are_same(one, other)), None)
    if same is None:
        same = min(map(len, moves))
    here = [each[same] if same < len(each) else _END for each in moves]
    comparison = Comparison(
        stories,
        same_turns=sum(move.kind == "decision" for move in moves[0][:same]),
        same_calls=sum(move.kind == "result" for move in moves[0][:same]),
    )
    if here[0] is not here[1]:
        comparison.difference = _difference(*here)
        comparison.only = _only(moves[0][same:], moves[1][same:])
    return comparison


_END: Final = _Move("end", "", "the run ends")


def _are_same(one: _Move, other: _Move) -> bool:
    return one.kind == other.kind and one.key == other.key


class _Reader:
    """
    Reads runs as rows of moves.

    Args:
        ignore: Patterns of texts that do not count.
    """

    def __init__(self, ignore: Sequence[re.Pattern[str]]) -> None:
        self._ignore = ignore
        #: The places of the nodes that others are in, by their identity.
        self._places: dict[int, tuple[int, ...]] = {}

    def moves(self, events: Iterable[Mapping[str, Any]], story: Story) -> list[_Move]:
        """Return the moves of a run, in the order of its story."""
        requests = {
            record.step: record
            for record in map(StoredRecord.of, events)
            if record.kind in ("user_message", "tool_result")
        }
        moves: list[_Move] = []
        latest: dict[MoveKind, int | str] = {}
        pieces = [piece for section in story.sections for piece in self._pieces(section, requests)]
        # What runs in a branch stays together, whatever runs beside it and is faster in one of the runs.
        for _, piece in sorted(pieces, key=itemgetter(0)):
            for move in piece:
                # What stays as it was is no move.
                if move.kind in ("prompt", "tools", "params"):
                    if latest.get(move.kind) == move.key:
                        continue
                    latest[move.kind] = move.key
                moves.append(move)
        return moves

    def _pieces(
        self, section: Section, requests: Mapping[int, StoredRecord]
    ) -> Iterator[tuple[tuple[int, ...], Iterator[_Move]]]:
        """Yield the places of what is in a section, and its moves."""
        if section.node is not None:
            name = section.node.name
            yield self._place(section.node), iter([_Move("step", name, name, section.node.step)])
        if section.turn is not None:
            turn = section.turn
            yield self._place(turn.node), self._turn(turn, requests.get(turn.node.step))
        for use in section.tools:
            yield self._place(use.node), self._use(use, 0)
        for node in section.others:
            yield self._place(node), iter([_Move("event", node.name, node.name, node.step)])

    def _place(self, node: Node) -> tuple[int, ...]:
        """Return the steps of what a node is in, the outermost first, and its own."""
        inner, around = [], node.parent
        while around is not None and id(around) not in self._places:
            inner.append(around)
            around = around.parent
        place = () if around is None else self._places[id(around)]
        for each in reversed(inner):
            place = self._places[id(each)] = (*place[:_DEEPEST], each.step)
        return (*place, node.step)

    def _turn(self, turn: Turn, request: StoredRecord | None) -> Iterator[_Move]:
        step, number = turn.node.step, turn.number
        if request is not None:
            tools, params = list_of(request.metadata.get("tools")), dict_of(request.metadata.get("params"))
            yield self._move("tools", tool_names(tools), ", ".join(tool_names(tools)), step, number)
            yield self._move("params", params, value(params), step, number)
        if turn.system:
            yield self._move("prompt", turn.system, turn.system, step, number)
        for message in turn.messages:
            yield self._move(
                "message", _told(message), f"{message.name or message.role}: {_words(message)}", step, number
            )
        if turn.node.model:
            yield _Move("model", turn.node.model, turn.node.model, step, number)
        end = turn.node.answer or turn.node.response or step
        calls = [[call.name, call.arguments] for call in turn.calls]
        if turn.error:
            yield self._move("decision", turn.error, turn.error, end, number)
        elif calls:
            told = calls[0][1] if len(calls) == 1 else None
            said = self._move("decision", calls, ", ".join(map(_called, turn.calls)), end, number)
            yield said._replace(told=told)
        else:
            yield self._move("decision", turn.answer, turn.answer, end, number)
        places = {call.step: place for place, call in enumerate(turn.calls)}
        for use in sorted(turn.tools, key=lambda use: places.get(use.node.step, len(places))):
            yield from self._use(use, number)

    def _use(self, use: ToolUse, turn: int) -> Iterator[_Move]:
        node = use.node
        called = self._move("call", [node.name, use.arguments], f"{node.name}({named_values(use.arguments)})")
        yield called._replace(step=node.step, turn=turn, told=use.arguments)
        outcome = use.error or (node.status if node.status != "ok" else "")
        result = f"{node.name} → {outcome or value(use.result)}"
        ended = self._move("result", [outcome, use.result], result, use.response or node.step, turn)
        yield ended._replace(told=None if outcome else use.result)

    def _move(self, kind: MoveKind, told: object, text: str, step: int = 0, turn: int = 0) -> _Move:
        return _Move(kind, self._key(told), text, step, turn)

    def _key(self, told: object) -> int | str:
        if not self._ignore:
            return fingerprint(told)
        text = told if isinstance(told, str) else value(told)
        for pattern in self._ignore:
            text = pattern.sub("", text)
        return text


def _told(message: Message) -> list[Any]:
    calls = [[call.name, call.arguments] for call in message.calls]
    return [message.role, message.name, " ".join(message.text.split()), calls, message.other]


def _words(message: Message) -> str:
    return " ".join(filter(None, [message.text, message.other, *map(_called, message.calls)]))


def _called(call: Call) -> str:
    return f"{call.name}({named_values(call.arguments)})"


def _difference(one: _Move, other: _Move) -> Difference:
    kind = other.kind if one is _END else one.kind
    turn = one.turn or other.turn
    steps = one.step, other.step
    if one.kind != other.kind:
        text = f"the first run goes on with {_NOUNS[one.kind]}, the second one with {_NOUNS[other.kind]}"
        return Difference(kind, text, turn, steps, (headline(one.text, SHOWN), headline(other.text, SHOWN)))
    differences = [] if one.told is None or other.told is None else changes(one.told, other.told)
    if one.kind in ("decision", "call") and _tool(one) != _tool(other):
        differences = []  # they are calls of different tools
    sides = _from_difference(one.text, other.text)
    return Difference(kind, _WORDS[kind], turn, steps, sides, differences)


def _from_difference(one: str, other: str) -> tuple[str, str]:
    """Return two texts, as single lines, from shortly before the first character in which they differ."""
    one, other = " ".join(one.split()), " ".join(other.split())
    pairs = enumerate(zip(one, other, strict=False))
    start = next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
    if max(len(one), len(other)) <= SHOWN or start <= _BEFORE:
        start = 0
    lead = "…" if start else ""
    texts = [headline(lead + text[max(0, start - _BEFORE) :], SHOWN) for text in (one, other)]
    return texts[0], texts[1]


def _only(first: list[_Move], second: list[_Move]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the calls, by tool, that only one of two runs makes."""
    calls = [[move for move in moves if move.kind == "call"][:_ALIGNED] for moves in (first, second)]
    keys = [[move.key for move in moves] for moves in calls]
    only: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for verb, i1, i2, j1, j2 in difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if verb != "equal":
            only[0].update(headline(move.text, CALL) for move in calls[0][i1:i2])
            only[1].update(headline(move.text, CALL) for move in calls[1][j1:j2])
    return dict(only[0]), dict(only[1])


def _tool(move: _Move) -> str:
    return move.text.partition("(")[0]
