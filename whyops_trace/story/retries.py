"""Retries of failed calls with their changed arguments, and calls that only repeat the one before."""

from __future__ import annotations

import math
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from whyops_trace._reading.excerpt import value
from whyops_trace.story.messages import fingerprint
from whyops_trace.story.turns import Call, Change, ToolUse, Turn

#: Number of turns after a failed one in which a turn of the same function is a retry.
TURNS: Final = 3
#: Number of turns after a failed tool call, in its conversation, that are searched for the next calls of the tool.
_SEARCHED: Final = 50
#: Number of tool calls after it instead, if no turn continues its own; also the calls compared in each turn.
CALLS: Final = 10
#: Largest number of differences between two sets of arguments that are reported.
_CHANGES: Final = 20
#: Number of characters of a text that are compared word by word.
_COMPARED: Final = 1_000


class PlacedCall(NamedTuple):
    """
    A tool call with its turn.

    Attributes:
        use: The call.
        turn: The turn that it belongs to, None if there is none.
        call: The request of the turn for it, None if the turn requested no such call.
        key: A number that calls of the same tool with the same arguments share.
    """

    use: ToolUse
    turn: Turn | None = None
    call: Call | None = None
    key: int = 0

    @classmethod
    def of(cls, use: ToolUse, turn: Turn | None, call: Call | None) -> PlacedCall:
        """Return a call with its key. One whose arguments were not captured shares it with no other."""
        told = fingerprint(use.arguments) if use.node.tells_input else id(use)
        return cls(use, turn, call, hash((use.node.name, told)))


def failed(use: ToolUse) -> bool:
    """Return True if a tool call failed, or its result says that it did."""
    return bool(use.problem) or use.node.status == "error"


def changes(before: Any, after: Any) -> list[Change]:
    """Return the first differences between two sets of arguments, 20 at most."""
    differences: list[Change] = []
    pending = [("", before, after)]
    while pending and len(differences) < _CHANGES:
        path, old, new = pending.pop()
        if old is not _MISSING and new is not _MISSING and fingerprint(old) == fingerprint(new):
            continue
        pairs = _members(path, old, new)
        if pairs is None:
            differences.append(Change(path, _json(old), _json(new)))
        else:
            pending += reversed(pairs)
    return differences


class _Missing:
    """Marker for a missing member."""


_MISSING: Final = _Missing()


def _json(thing: Any) -> str | None:
    return None if thing is _MISSING else value(thing)


def _members(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]] | None:
    """Return the members of two values side by side, None if the values are compared as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        lead = f"{path}." if path else ""
        names = dict.fromkeys([*old, *new])
        return [(f"{lead}{name}", old.get(name, _MISSING), new.get(name, _MISSING)) for name in names]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [(f"{path}[{place}]", *pair) for place, pair in enumerate(zip(old, new, strict=True))]
    return None


def followers(turns: Iterable[Turn]) -> dict[int, list[Turn]]:
    """Return the turns that continue each turn, by its number."""
    after: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.continues:
            after.setdefault(turn.continues, []).append(turn)
    return after


def link_tools(tool_calls: Sequence[PlacedCall], after: dict[int, list[Turn]]) -> None:
    """
    Link each failed tool call to its retry.

    Args:
        tool_calls: The tool calls of the trace, in order.
        after: The result of :func:`followers`.
    """
    places = {id(one.use): place for place, one in enumerate(tool_calls)}
    requests = {id(one.use): one.call for one in tool_calls}
    successes: defaultdict[str, deque[ToolUse]] = defaultdict(lambda: deque(maxlen=CALLS))
    for one in tool_calls:
        use = one.use
        if not (failed(use) or use.node.status == "cancelled"):
            successes[use.node.name].append(use)
            continue
        end = max(use.response, use.node.step)
        others = successes[use.node.name]
        nearest = min((_distance(use.arguments, other.arguments) for other in others), default=math.inf)
        for candidates in _later(one, tool_calls, places, after):
            possible = (
                other
                for other in candidates
                if other.node.name == use.node.name
                and use.node.tells_input
                and other.node.tells_input
                and other.node.step > end
                and not other.retry_of
                and _again(one, other, requests[id(other)])
            )
            # The number compared is bounded: a loop in which every call fails would take quadratic time.
            fitting = [
                other
                for other in islice(possible, CALLS)
                if not 0 < _distance(use.arguments, other.arguments) >= nearest
            ]
            if fitting:
                again = min(fitting, key=lambda other: len(changes(use.arguments, other.arguments)))
                use.retried_by, again.retry_of = again.node.step, use.node.step
                again.changes = changes(use.arguments, again.arguments)
                break


def _again(one: PlacedCall, other: ToolUse, call: Call | None) -> bool:
    """Return True if another call can be a retry: not inside the first, and not requested together with it."""
    inside = other.node.parent
    while inside is not None and inside is not one.use.node and inside.step > one.use.node.step:
        inside = inside.parent
    if inside is one.use.node:
        return False
    together = (
        one.turn is not None and call is not None and any(call is request for request in one.turn.calls)
    )
    return not together or call is one.call


def _distance(before: Any, after: Any) -> float:
    """Return the distance of two sets of arguments: 1 for each change, or the share of changed words in a text."""
    return sum(_difference(change.before or "", change.after or "") for change in changes(before, after))


def _difference(before: str, after: str) -> float:
    if before[:1] == after[:1] == '"':
        old, new = (set(re.findall(r"\w+", text[:_COMPARED])) for text in (before, after))
        return 1 - len(old & new) / max(len(old | new), 1)
    return 1


def _later(
    one: PlacedCall, tool_calls: Sequence[PlacedCall], places: dict[int, int], after: dict[int, list[Turn]]
) -> Iterator[Sequence[ToolUse]]:
    """Yield the calls that may be a retry, the nearest first."""
    turn = one.turn
    if turn is not None:
        yield turn.tools
    if turn is None or turn.number not in after:
        place = places[id(one.use)]
        yield from ([other.use] for other in tool_calls[place + 1 : place + 1 + CALLS])
        return
    level = [turn]
    for _ in range(_SEARCHED):
        if not level:
            return
        level = [later for earlier in level for later in after.get(earlier.number, ())]
        yield [use for later in level for use in later.tools]


def link_turns(turns: Sequence[Turn], after: dict[int, list[Turn]]) -> None:
    """
    Link each failed turn to its retry.

    Args:
        turns: The turns of the trace, in order.
        after: The result of :func:`followers`.
    """
    for place, turn in enumerate(turns):
        if not turn.error:
            continue
        near = turns[place + 1 : place + 1 + TURNS]
        same = [
            later
            for later in near
            if later.node.name == turn.node.name
            and later.node.parent is turn.node.parent
            and later.continues == turn.continues
        ]
        again = next((later for later in [*after.get(turn.number, ()), *same] if not later.retry_of), None)
        if again is not None:
            turn.retried_by, again.retry_of = again.number, turn.number


def count_repeats(tool_calls: Iterable[PlacedCall], roots: dict[int, int]) -> list[list[PlacedCall]]:
    """
    Add to each tool call the number of identical calls directly before it.

    Args:
        tool_calls: The tool calls of the trace, in order.
        roots: Number of the first turn of the conversation, by the number of each turn in it.

    Returns:
        The rows of two or more identical calls, in order.
    """
    latest: dict[tuple[int, int], tuple[int, list[PlacedCall]]] = {}
    rows: list[list[PlacedCall]] = []
    for one in tool_calls:
        use = one.use
        scope = (roots[one.turn.number], 0) if one.turn else (0, id(use.node.parent))
        before, row = latest.get(scope, (None, []))
        if one.key != before:
            row = []
        row.append(one)
        latest[scope] = one.key, row
        use.repeats = len(row) - 1
        if len(row) == 2:
            rows.append(row)
    return rows
