"""Which call tries a failed one again, with what changed, and which calls only repeat the one before."""

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

#: How many turns of its conversation after a failed call another one of the same tool is a retry.
TURNS: Final = 3
#: How many tool calls after it, where no turn goes on from the one that made it; how many of each turn are compared.
CALLS: Final = 10
#: Differences between two sets of arguments that are told.
_CHANGES: Final = 20
#: Characters of a text that are compared word by word.
_COMPARED: Final = 1_000


class Made(NamedTuple):
    """
    A tool call in its place.

    Attributes:
        use: The call.
        turn: The turn that it belongs to, None if there is none.
        call: The call that the turn asked for, None if it asked for none like it.
    """

    use: ToolUse
    turn: Turn | None = None
    call: Call | None = None


def failed(use: ToolUse) -> bool:
    """Whether a tool call failed."""
    return bool(use.error) or use.node.status == "error"


def changes(before: Any, after: Any) -> list[Change]:
    """Return what differs between two sets of arguments, the first differences only."""
    found: list[Change] = []
    waiting = [("", before, after)]
    while waiting and len(found) < _CHANGES:
        path, old, new = waiting.pop()
        if old is not _MISSING and new is not _MISSING and fingerprint(old) == fingerprint(new):
            continue
        pairs = _members(path, old, new)
        if pairs is None:
            found.append(Change(path, _json(old), _json(new)))
        else:
            waiting += reversed(pairs)
    return found


class _Missing:
    """Stands for a member that is not there."""


_MISSING: Final = _Missing()


def _json(thing: Any) -> str | None:
    return None if thing is _MISSING else value(thing)


def _members(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]] | None:
    """Return the members of two values side by side, None if they are to be compared as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        lead = f"{path}." if path else ""
        names = dict.fromkeys([*old, *new])
        return [(f"{lead}{name}", old.get(name, _MISSING), new.get(name, _MISSING)) for name in names]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [(f"{path}[{place}]", *pair) for place, pair in enumerate(zip(old, new, strict=True))]
    return None


def followers(turns: Iterable[Turn]) -> dict[int, list[Turn]]:
    """Return the turns that go on from each turn, by its number."""
    found: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.continues:
            found.setdefault(turn.continues, []).append(turn)
    return found


def link_tools(made: Sequence[Made], after: dict[int, list[Turn]]) -> None:
    """
    Tell each failed tool call which later one tries it again.

    Args:
        made: The tool calls of the trace, in order.
        after: What :func:`followers` returned.
    """
    places = {id(one.use): place for place, one in enumerate(made)}
    asked = {id(one.use): one.call for one in made}
    worked: defaultdict[str, deque[ToolUse]] = defaultdict(lambda: deque(maxlen=CALLS))
    for one in made:
        use = one.use
        if not (failed(use) or use.node.status == "cancelled"):
            worked[use.node.name].append(use)
            continue
        ended = max(use.response, use.node.step)
        others = worked[use.node.name]
        nearest = min((_distance(use.arguments, other.arguments) for other in others), default=math.inf)
        for candidates in _later(one, made, places, after):
            possible = (
                other
                for other in candidates
                if other.node.name == use.node.name
                and other.node.step > ended
                and not other.retry_of
                and _again(one, other, asked[id(other)])
            )
            # Only so many are compared: a loop in which every call fails would take quadratic time.
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


def _again(one: Made, other: ToolUse, call: Call | None) -> bool:
    """Whether another call can be a retry: of calls asked for together each stands for itself."""
    together = one.turn is not None and call is not None and any(call is asked for asked in one.turn.calls)
    return not together or call is one.call


def _distance(before: Any, after: Any) -> float:
    """Return how far two sets of arguments are apart: 1 for each that changed, of a text the share of its words."""
    return sum(_difference(change.before or "", change.after or "") for change in changes(before, after))


def _difference(before: str, after: str) -> float:
    if before[:1] == after[:1] == '"':
        old, new = (set(re.findall(r"\w+", text[:_COMPARED])) for text in (before, after))
        return 1 - len(old & new) / max(len(old | new), 1)
    return 1


def _later(
    one: Made, made: Sequence[Made], places: dict[int, int], after: dict[int, list[Turn]]
) -> Iterator[Sequence[ToolUse]]:
    """Yield the calls among which a retry is looked for, the nearest first."""
    turn = one.turn
    if turn is not None:
        yield turn.tools
    if turn is None or turn.number not in after:
        place = places[id(one.use)]
        yield from ([other.use] for other in made[place + 1 : place + 1 + CALLS])
        return
    level = [turn]
    for _ in range(TURNS):
        level = [later for earlier in level for later in after.get(earlier.number, ())]
        yield [use for later in level for use in later.tools]


def link_turns(turns: Sequence[Turn], after: dict[int, list[Turn]]) -> None:
    """
    Tell each failed turn which later one tries it again.

    Args:
        turns: The turns of the trace, in order.
        after: What :func:`followers` returned.
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


def count_repeats(made: Iterable[Made], roots: dict[int, int]) -> list[list[Made]]:
    """
    Tell each tool call how many identical ones stood before it in a row.

    Args:
        made: The tool calls of the trace, in order.
        roots: For each turn number the number of the turn that its conversation began with.

    Returns:
        The rows of identical calls, in order; single ones are left out.
    """
    latest: dict[tuple[int, int], tuple[int, list[Made]]] = {}
    rows: list[list[Made]] = []
    for one in made:
        use = one.use
        scope = (roots[one.turn.number], 0) if one.turn else (0, id(use.node.parent))
        same = hash((use.node.name, fingerprint(use.arguments)))
        before, row = latest.get(scope, (None, []))
        if same != before:
            row = []
        row.append(one)
        latest[scope] = same, row
        use.repeats = len(row) - 1
        if len(row) == 2:
            rows.append(row)
    return rows
