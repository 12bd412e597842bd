"""Who speaks with whom in a run of several agents, and who leads the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from whyops_trace.story.turns import Turn

#: Smallest share of the turns that the leader has, and largest number of characters of a message that only hands over.
_LEADS: Final = 0.45
_SHORT: Final = 60


def talk(turns: Sequence[Turn]) -> bool:
    """
    Return True if several agents speak, each with a system prompt of its own, or in turns where none is recorded.

    Steps that are phases of one agent share its prompt, or follow one another.
    """
    agents = {turn.agent for turn in turns}
    first = {turn.agent: turn for turn in reversed(turns)}
    prompts = sum(bool(turn.system) for turn in first.values())
    several = len(agents) > 1 and "" not in agents
    return several and (prompts == len(agents) or (not prompts and not is_chain(turns)))


def is_chain(turns: Sequence[Turn]) -> bool:
    """Return True if each agent hands the work on to another one, and hardly any gets it back."""
    switches = sum(before.agent != after.agent for before, after in pairwise(turns))
    return switches < len({turn.agent for turn in turns})


def leader(turns: Sequence[Turn]) -> str:
    """Return the agent that opens, has nearly every other turn and hands over by name; "" if there is none."""
    counts = Counter(turn.agent for turn in turns)
    (name, led), *others = counts.most_common() or [("", 0)]
    if not others or turns[0].agent != name or led < _LEADS * len(turns):
        return ""
    short = [turn.answer.lower() for turn in turns if turn.agent == name and len(turn.answer) < _SHORT]
    return name if any(other.lower() in text for text in short for other, _ in others) else ""
