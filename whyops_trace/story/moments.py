"""The moments of a run: the lines that explain it best, at most five, the most telling first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from whyops_trace._reading.excerpt import both_ends, clean
from whyops_trace.story.turns import Story, Why, WhyKind

#: Largest number of moments.
_MOMENTS: Final = 5
#: Kinds of lines that explain no outcome by themselves.
_ASIDE: Final[frozenset[WhyKind]] = frozenset({"context", "longest", "prompt"})
#: Largest number of characters of a question and of an answer.
_TEXT: Final = 600


class Moment(msgspec.Struct, frozen=True):
    """
    A part of a run that is worth a look.

    Attributes:
        steps: The steps to look at, the first one first.
        kind: The rule that it follows from.
        text: What happened, on one line.
    """

    steps: list[int]
    kind: WhyKind
    text: str


class Explanation(msgspec.Struct, rename="camel"):
    """
    The first screen of a run; its texts are single lines, safe to print.

    Attributes:
        trace_id: The id of its trace.
        status: Its outcome in words.
        headline: Its outcome with the most telling moment.
        asked: The user's first question; of a long one the beginning and the end.
        ended: The last answer or error, likewise.
        moments: At most five moments, the most telling first.
        counts: Numbers: ``raised`` and ``saidFailed`` calls, and of both those that ``recovered``; ``turns`` of models,
            ``toolCalls``, and ``agents``.
    """

    trace_id: str
    status: str
    headline: str
    asked: str
    ended: str
    moments: list[Moment]
    counts: dict[str, int]


def why(story: Story) -> Explanation:
    """Return the first screen of the run that a story tells of."""
    found = moments(story.whys)
    tree = story.tree
    agents = {section.turn.agent for section in story.sections if section.turn}
    return Explanation(
        tree.trace_id,
        story.status,
        f"{story.status}; {found[0].text}" if found else story.status,
        clean(both_ends(story.asked, _TEXT)),
        clean(both_ends(story.ended, _TEXT)),
        found,
        {
            "raised": tree.errors,
            "saidFailed": tree.said_failed,
            "recovered": story.recovered,
            "turns": story.turns,
            "toolCalls": tree.tool_calls,
            "agents": len(agents - {""}),
        },
    )


def moments(lines: Iterable[Why]) -> list[Moment]:
    """
    Return the first of the lines that explain a run.

    A line about a step that is in another moment is left out.
    """
    found: list[Moment] = []
    for line in lines:
        if line.kind in _ASIDE:
            continue
        if len(found) < _MOMENTS and not any(line.step in moment.steps for moment in found):
            steps = dict.fromkeys(step for step in (line.step, *line.more, line.then_step) if step)
            text = f"{line.text} -> {line.then}" if line.then else line.text
            found.append(Moment(list(steps), line.kind, text))
    return found
