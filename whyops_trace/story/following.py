"""The agent's next action after each turn, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from whyops_trace._reading.excerpt import clean, excerpt
from whyops_trace.story.turns import Turn

#: Largest number of characters of an error or an answer.
_TEXT: Final = 80
#: Largest number of tools named.
_TOOLS: Final = 3


def tell_next(turns: Sequence[Turn], after: Mapping[int, Sequence[Turn]]) -> None:
    """
    Add to each turn the number of the first turn that continues it, and the action there.

    Args:
        turns: The turns of the trace, in order.
        after: The turns that continue each turn, by its number.
    """
    for number, later in after.items():
        turn = turns[number - 1]
        turn.continued_by, turn.next = later[0].number, _action(later[0])


def _action(turn: Turn) -> str:
    if turn.error:
        return f"turn {turn.number} failed: {clean(excerpt(turn.error, _TEXT))}"
    if turn.calls:
        names = list(dict.fromkeys(clean(call.name) for call in turn.calls))
        others = " and others" if len(names) > _TOOLS else ""
        return f"turn {turn.number} went on with {', '.join(names[:_TOOLS])}{others}"
    return f'turn {turn.number} answered "{clean(excerpt(turn.answer, _TEXT))}"' if turn.answer else ""
