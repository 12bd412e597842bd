"""The way of a run behind a place: what its models decide and which calls it makes, beside the way of another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from whyops_trace._reading.excerpt import headline, named_values, value
from whyops_trace._replay.recording import RecordedCall
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: Characters of a move that are shown.
_SHOWN: Final = 100


class Move(NamedTuple):
    """
    A decision of a model, or a call of a tool.

    Attributes:
        text: It in words; moves with the same words are the same. What an answer says is not in it.
        is_turn: True if it is a decision.
    """

    text: str
    is_turn: bool


def moves_of(calls: Iterable[RecordedCall]) -> list[Move]:
    """Return the moves that calls are, in the order in which they began."""
    return [move for call in calls if (move := _move(call)) is not None]


def path_of(recorded: Sequence[Move], now: Sequence[Move], turns: int) -> str:
    """
    Return in words how long a run goes the same way as a recorded one, and where it goes then.

    Args:
        recorded: The moves of the recorded run.
        now: Those of the other one.
        turns: Number of turns before these moves.
    """
    pairs = enumerate(zip(recorded, now, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(recorded), len(now)))
    if same == len(recorded) == len(now):
        return "the same to the end"
    turns += sum(move.is_turn for move in recorded[:same])
    before, here = (each[same].text if same < len(each) else "ends" for each in (recorded, now))
    until = f"the same until turn {turns}, then it" if turns else "at once it"
    return f"{until} {here}, where the recorded run {before}"


def _move(call: RecordedCall) -> Move | None:
    if call.kind == "tool":
        failed = ", which fails" if call.error is not None else ""
        return Move(
            headline(f"calls {call.name}({named_values(call.asked.get('arguments'))})", _SHOWN) + failed,
            False,
        )
    if call.kind == "embedding" or call.wraps:
        return None
    if call.error is not None:
        return Move(f"fails to ask {call.name}", True)
    asked = [
        _asked(dict_of(each.get("function"))) for each in dicts_of(dict_of(call.answer).get("toolCalls"))
    ]
    return Move(headline(f"asks for {', '.join(asked)}", _SHOWN) if asked else "answers", True)


def _asked(function: dict[str, object]) -> str:
    arguments = function.get("arguments")
    return f"{text_of(function.get('name'))}({arguments if isinstance(arguments, str) else value(arguments)})"
