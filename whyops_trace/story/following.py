"""What the agent did after each turn, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from whyops_trace._reading.excerpt import clean, excerpt
from whyops_trace.story.turns import Turn

#: Characters of an error and of an answer.
_SAID: Final = 80
#: Tools that are named.
_NAMED: Final = 3


def tell_next(turns: Sequence[Turn], after: Mapping[int, Sequence[Turn]]) -> None:
    """
    Tell each turn which one goes on from it, and what was done there.

    Args:
        turns: The turns of the trace, in order.
        after: The turns that go on from each turn, by its number.
    """
    for number, later in after.items():
        turn = turns[number - 1]
        turn.continued_by, turn.next = later[0].number, _done(later[0])


def _done(turn: Turn) -> str:
    if turn.error:
        return f"turn {turn.number} failed: {clean(excerpt(turn.error, _SAID))}"
    if turn.calls:
        names = list(dict.fromkeys(clean(call.name) for call in turn.calls))
        others = " and others" if len(names) > _NAMED else ""
        return f"turn {turn.number} went on with {', '.join(names[:_NAMED])}{others}"
    return f'turn {turn.number} answered "{clean(excerpt(turn.answer, _SAID))}"' if turn.answer else ""
