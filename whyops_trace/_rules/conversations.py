"""Which turns of a trace go on with which: the conversations in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from whyops_trace._reading.excerpt import get, value
from whyops_trace._rules.exchanges import Turn

#: Conversations of one model that are open at the same time and looked at.
OPEN: Final = 8
#: What the library writes where it cut something out of a record that was too large.
_CUT: Final = "[cut "
#: A part of a prompt; "unknown" where too much of it was cut out of the record, "" for nothing.
Change = Literal["", "tools", "system", "messages", "unknown"]
#: The parts of a prompt that stand beside the messages.
_PARTS: Final[tuple[tuple[Change, str], ...]] = (("tools", "tools"), ("system", "systemPrompt"))


class Step(NamedTuple):
    """
    A turn that goes on with another.

    Attributes:
        before: The other.
        turn: The turn.
        changed: What it changed of what the other had sent.
        message: The number of the first message that was changed, from 1; 0 if none was.
    """

    before: Turn
    turn: Turn
    changed: Change = ""
    message: int = 0


class Conversations:
    """
    The conversations in a trace.

    A turn goes on with an earlier one of the same function and model if the last message of that one stands where it
    stood; with the latest of them, and rather with one that it did not change. One that changes it has to add to it as
    well, and to keep half of its messages. Where no messages were recorded, turns of one function, model and enclosing
    call are taken for one conversation.

    Attributes:
        all: The turns of each.
        steps: How each of them went on.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.all: list[list[Turn]] = []
        self.steps: list[Step] = []
        self._open: dict[tuple[str, str], list[list[Turn]]] = defaultdict(list)
        self._untold: dict[tuple[str, str, int], list[Turn]] = {}
        for turn in turns:
            if turn.response is not None and not turn.wraps:
                self._add(turn)

    def _add(self, turn: Turn) -> None:
        key = turn.function, turn.model
        if not turn.messages:
            place = (*key, turn.first.within)
            if place not in self._untold:
                self._untold[place] = []
                self.all.append(self._untold[place])
            self._untold[place].append(turn)
            return
        steps = ((talk, step) for talk in reversed(self._open[key]) if (step := _step(talk[-1], turn)))
        found = min(steps, key=lambda item: bool(item[1].changed), default=None)
        if found is None:
            talk = [turn]
            self.all.append(talk)
        else:
            talk, step = found
            talk.append(turn)
            self.steps.append(step)
            self._open[key].remove(talk)
        self._open[key] = [*self._open[key][1 - OPEN :], talk]


def _step(before: Turn, turn: Turn) -> Step | None:
    """Return how a turn goes on with another, None if it does not."""
    old, new = before.messages, turn.messages
    # The last one tells most conversations apart, and takes no time.
    if len(new) < len(old) or new[len(old) - 1] != old[-1]:
        return None
    parts: list[Change] = [
        part for part, name in _PARTS if _metadata(before).get(name) != _metadata(turn).get(name)
    ]
    if new[: len(old)] == old and not parts:
        return Step(before, turn)
    differing = [number for number, was in enumerate(old) if was != new[number]]
    # Two agents may be asked the same; and where most of it differs, it is a message that they have in common.
    if len(new) == len(old) or 2 * len(differing) > len(old):
        return None
    if any(_CUT in value(messages[number]) for number in differing for messages in (old, new)):
        return Step(before, turn, "unknown")
    if parts:
        return Step(before, turn, parts[0])
    role, first = get(old[differing[0]], "role"), differing[0] + 1
    return Step(before, turn, "system" if role in ("system", "developer") else "messages", first)


def _metadata(turn: Turn) -> dict[str, Any]:
    return turn.request.metadata if turn.request is not None else {}
