"""The conversations in a trace: each turn linked to the turn that it continues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from whyops_trace._reading.excerpt import get, value
from whyops_trace._rules.exchanges import Turn

#: Largest number of open conversations of one model that a new turn is compared with.
OPEN: Final = 8
#: Beginning of the mark that the library leaves where it cut a record that was too large.
_CUT: Final = "[cut "
#: A part of a prompt; "unknown" if too much was cut out of the record, "" for no part.
Change = Literal["", "tools", "system", "messages", "unknown"]
#: The parts of a prompt that stand beside the messages.
_PARTS: Final[tuple[tuple[Change, str], ...]] = (("tools", "tools"), ("system", "systemPrompt"))


class Step(NamedTuple):
    """
    A turn that continues another.

    Attributes:
        before: The turn that is continued.
        turn: The turn that continues it.
        changed: The part of the earlier prompt that it changed.
        message: The number of the first message that was changed, from 1; 0 if none was.
    """

    before: Turn
    turn: Turn
    changed: Change = ""
    message: int = 0


class Conversations:
    """
    The conversations in a trace.

    A turn continues an earlier turn of the same function and model if the last message of that turn is in the same
    place. An unchanged prompt is preferred, then the latest turn. A turn that changes the earlier messages must also
    add some, and keep at least half. If no messages were recorded, the turns of one function, model and enclosing call
    are one conversation.

    Attributes:
        all: The turns of each conversation.
        steps: The links from each turn to the one it continues.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.all: list[list[Turn]] = []
        self.steps: list[Step] = []
        self._open: dict[tuple[str, str], list[list[Turn]]] = defaultdict(list)
        self._without_messages: dict[tuple[str, str, int], list[Turn]] = {}
        for turn in turns:
            if turn.response is not None and not turn.wraps:
                self._add(turn)

    def _add(self, turn: Turn) -> None:
        key = turn.function, turn.model
        if not turn.messages:
            place = (*key, turn.first.within)
            if place not in self._without_messages:
                self._without_messages[place] = []
                self.all.append(self._without_messages[place])
            self._without_messages[place].append(turn)
            return
        steps = ((talk, step) for talk in reversed(self._open[key]) if (step := _step(talk[-1], turn)))
        latest = min(steps, key=lambda item: bool(item[1].changed), default=None)
        if latest is None:
            talk = [turn]
            self.all.append(talk)
        else:
            talk, step = latest
            talk.append(turn)
            self.steps.append(step)
            self._open[key].remove(talk)
        self._open[key] = [*self._open[key][1 - OPEN :], talk]


def _step(before: Turn, turn: Turn) -> Step | None:
    """Return the link from a turn to the one it continues, None if it does not continue it."""
    old, new = before.messages, turn.messages
    # The last message tells most conversations apart, and is fast to compare.
    if len(new) < len(old) or new[len(old) - 1] != old[-1]:
        return None
    parts: list[Change] = [
        part for part, name in _PARTS if _metadata(before).get(name) != _metadata(turn).get(name)
    ]
    if new[: len(old)] == old and not parts:
        return Step(before, turn)
    differing = [number for number, was in enumerate(old) if was != new[number]]
    # Two agents may get the same question. If most messages differ, the prompts only share a message.
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
