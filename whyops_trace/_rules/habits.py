"""Habits of agents, as the story of a trace tells them, as findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from whyops_trace._rules.finding import Finding, Severity


class _Habit(NamedTuple):
    """A habit as a finding: its code, its severity, and of a bad one, the reason that it matters, and the remedy."""

    code: str
    severity: Severity
    bad: Severity
    why: str
    advice: str


#: The habits, by the kind of the line that tells of one.
HABITS: Final = {
    "cycle": _Habit(
        "CALL_CYCLE", "low", "medium",
        "The agent goes round in circles: each round takes time and tokens, and brings what is known already.",
        "Stop after a few rounds, or say in the results what else could be done.",
    ),
    "again": _Habit(
        "REPEATED_CALL", "low", "medium",
        "The same call brought the same again, and the agent had that result in its prompt, or had lost it.",
        "Keep results in the prompt, or answer such a call from a cache.",
    ),
    "alike": _Habit(
        "SAME_ANSWER", "low", "medium",
        "The user, or the agent itself, got the same answer again, and nothing moved on.",
        "Let the agent hand over, or ask for something else, after the second answer of a kind.",
    ),
    "runaway": _Habit(
        "AGENT_RUNAWAY", "high", "high",
        "A limit of the trace stopped the agent in the middle of its work.",
        "See what the agent did before; give the block a larger limit if it was on its way.",
    ),
    "stuck": _Habit(
        "SAYS_STUCK", "low", "medium",
        "The agent noticed that it went round in circles, and nothing follows from that by itself.",
        "Stop or plan anew where the agent says so.",
    ),
    "claim": _Habit(
        "UNDONE_CLAIM", "medium", "medium",
        "If it was not done, the user was told what is not so. The record may also lack a call that is not traced.",
        "Compare the answer with the calls before it; let the tool confirm what was done, and the answer quote that.",
    ),
    "standin": _Habit(
        "STAND_IN_DATA", "medium", "medium",
        "What follows from data that the agent made up is made up as well.",
        "See which call would have brought the real data, and why the agent did without it.",
    ),
    "vain": _Habit(
        "SEARCHED_IN_VAIN", "low", "low",
        "An agent that finds nothing again and again often answers from what it knows, or guesses.",
        "Look at what it searched for, and at what the answer rests on; let the tool say how to ask.",
    ),
    "partial": _Habit(
        "RESULT_READ_IN_PART", "low", "low",
        "The agent may have decided without what the rest says.",
        "Let the tool say how to ask for the rest, or return what is needed at once.",
    ),
    "unused": _Habit(
        "TOOLS_UNUSED", "low", "low",
        "The agent may not know that the tools can help, or has been told not to use them.",
        "Look at the descriptions of the tools and at what the system prompt says about them.",
    ),
    "contradicted": _Habit(
        "USER_CONTRADICTS", "low", "low",
        "Users often notice first what went wrong.",
        "Look at what the agent had said before, and at what it did about it.",
    ),
}  # fmt: skip
#: The codes of these findings.
HABIT_CODES: Final = tuple(habit.code for habit in HABITS.values())


def habit(kind: str, text: str, steps: Sequence[int], *, bad: bool) -> Finding | None:
    """
    Return the finding of a line of a story, None if it tells of no habit.

    Args:
        kind: The rule that the line follows from.
        text: The line.
        steps: Its steps.
        bad: True if nothing made it good.
    """
    known = HABITS.get(kind)
    if known is None:
        return None
    severity = known.bad if bad else known.severity
    return Finding(known.code, severity, text, list(steps), known.why, known.advice)
