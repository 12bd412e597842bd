"""
Comparison of the turns that the WhyOps proxy reports to a server with the records of the same turns here.

The proxy reports under no key of ours, so its events cannot be told from each other. Their number says how many are
missing: first those that are equal to an earlier one, as a server keeps one of these for each trace, then those of the
turns at whose time the server has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import zip_longest
from typing import Final, Literal

from whyops_trace.commands.verification import Known, There, Turn

#: Probable causes that an event of a proxied turn is not on the server.
Cause = Literal["repeat", "not_taken", "not_reported", "not_stored"]

#: The causes in sentences, with the remedies.
REASONS: Final[dict[Cause, str]] = {
    "repeat": "dropped by the server as a repeat. Of equal events that the proxy reports in a trace it keeps one, and "
    "the tokens of the other answers are lost. Prompts that differ in anything are all kept, and so is all that a "
    "client with proxy=False reports from here.",
    "not_taken": "the server has nothing of the turn, whose request failed. Probably the proxy was down or did not "
    "take it. A client with fallback=True asks the provider then, and the turn is reported from here.",
    "not_reported": "the server has nothing of the turn, which the proxy did not report. Probably the server was down "
    "or refused it, or has it in its queue and shows it in a moment. Nothing sends it again.",
    "not_stored": "the server has the rest of the turn. Probably the answer broke off on its way, or the server "
    "refused this part, or has it in its queue and shows it in a moment.",
}


def losses(turns: Sequence[Turn], there: There) -> Iterator[tuple[Known, Cause]]:
    """
    Yield the events of proxied turns that are not on a server, with their probable causes.

    Args:
        turns: The proxied turns of a trace that are known here.
        there: The events of the trace on the server.
    """
    unanswered = _without(turns, lambda turn: turn.answer, there.answers)
    unasked = _without(turns, lambda turn: turn.prompt, there.prompts, unanswered)
    kept = {turn.prompt.said for turn in turns if turn not in unasked}
    kept |= {turn.answer.said for turn in turns if turn not in unanswered}
    for turn in turns:
        lost = [turn.prompt] * (turn in unasked) + [turn.answer] * (turn in unanswered)
        is_gone = len(lost) == 2 and any(event.said not in kept for event in lost)
        for event in lost:
            if is_gone:
                yield event, "not_taken" if turn.answer.type == "error" else "not_reported"
            else:
                yield event, "repeat" if event.said in kept else "not_stored"


def _without(
    turns: Sequence[Turn],
    part: Callable[[Turn], Known],
    moments: Sequence[int],
    lost: Set[Turn] = frozenset(),
) -> set[Turn]:
    """
    Return the turns of which a part is not on the server: as many as there are more turns than parts.

    Args:
        turns: The turns.
        part: Returns the part of a turn.
        moments: Times of the parts on the server.
        lost: Turns of which another part is not there.
    """
    ordered = sorted(turns, key=lambda turn: part(turn).moment)
    spare = len(ordered) - len(moments)
    first = {part(turn).said: turn for turn in reversed(ordered)}
    likely = {turn for turn in ordered if turn in lost or first[part(turn).said] is not turn}
    missing = likely if len(likely) <= spare else set()
    ordered = [turn for turn in ordered if turn not in missing]
    waiting = sorted(moments, reverse=True)
    for turn, following in zip_longest(ordered, ordered[1:]):
        if waiting and not (
            following is not None
            and len(missing) < spare
            and _distance(following, waiting[-1]) < _distance(turn, waiting[-1])
        ):
            waiting.pop()
        else:
            missing.add(turn)
    return missing


def _distance(turn: Turn, moment: int) -> int:
    """Return the milliseconds between a turn and a moment, 0 during the turn."""
    return max(turn.prompt.moment - moment, moment - turn.answer.moment, 0)
