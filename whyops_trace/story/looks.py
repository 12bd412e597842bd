"""
Turns that are worth a look in a run of several agents: where such runs most often went wrong, never the cause.

The rules and their weights were chosen by cross-validation on runs whose decisive turn people had marked. In runs that
one agent leads no rule held, so of these only the first turns of work are named.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from whyops_trace._reading.excerpt import clean, headline, value
from whyops_trace.story.agents import is_chain, leader, talk
from whyops_trace.story.material import Material
from whyops_trace.story.retries import PlacedCall
from whyops_trace.story.turns import Turn, Why

#: Largest number of turns of a run whose texts are read, and of characters of each.
_TURNS: Final = 60
_READ: Final = 8_000
#: Levels of calls and steps around a turn that are looked at.
_LEVELS: Final = 500
#: Largest number of turns named by rules, and of all that are named.
_NAMED: Final = 3
#: Largest number of turns named only because they come early.
_EARLY: Final = 2
#: Fewest characters of a turn of work. A shorter one hands over, agrees or ends the run.
_WORK: Final = 60
#: Share of the words of the task that a brief for others has to have.
_SHARE: Final = 0.6
#: Fewest names and numbers from nowhere that are told.
_FACTS: Final = 3
_QUOTE: Final = 100

_ASSUMES: Final = re.compile(
    r"\b(?:assum(?:e[ds]?|ing|ptions?)|hypothetical(?:ly)?|simulat(?:ed?|ing)|synthetic|placeholder|mock|dummy"
    r"|sample data(?:set)?|for (?:demonstration|illustration))\b",
    re.IGNORECASE,
)
_HANDS_OVER: Final = re.compile(r"next (?:speaker|agent)|transfer", re.IGNORECASE)
_LETTERS: Final = re.compile(r"[^\W\d_]{4,}")
_NUMBER: Final = re.compile(r"\d[\d,]*\.?\d*")
_ADDRESS: Final = re.compile(r"https?://\S+")
_NAME: Final = re.compile(
    r"\b[A-Z][\w'\u2019.-]{1,40}(?: (?:of |the |de |and |& )?[A-Z][\w'\u2019.-]{1,40}){1,6}"
)
_QUOTED: Final = re.compile(r"[\"\u201c]([^\"\u201d\n]{4,60})[\"\u201d]")
#: Words that tell nothing of a task.
_COMMON: Final = frozenset(
    """
    about above after again against also always because been before being below between both could does doing down
    during each from further have having here into itself just more most much only other over same should some such
    than that their them then there these they this those through under until very were what when where which while
    will with within without would your using based
    """.split()  # noqa: SIM905 - a list of words is easier to read so
)


class _Look(NamedTuple):
    """A turn with its weight, the reason in words, and the step of the call that it led to."""

    turn: Turn
    weight: int
    reason: str = ""
    step: int = 0


def looks(material: Material) -> Iterator[Why]:
    """Yield the turns of a run of several agents that are worth a look, the likeliest first."""
    # An agent that is called as a tool works for its caller, and does not talk to it.
    turns = [turn for turn in material.arrangement.turns if not _is_called(turn)]
    if not talk(turns):
        return
    lead = leader(turns)
    # Who opens a run that nobody leads briefs the others.
    work = [turn for turn in turns if turn.agent != lead and turn is not turns[0] and _is_work(turn)]
    found: list[_Look] = []
    if not lead and len(turns) <= _TURNS:
        found = sorted(_judged(material, work), key=lambda look: (-look.weight, look.turn.number))[:_NAMED]
    for look in found:
        turn = look.turn
        text = f'{material.name(turn)} {look.reason}: "{headline(turn.answer, _QUOTE)}"'
        yield Why("look", text, turn.node.answer or turn.node.step, more=[look.step] if look.step else [])
    named = {look.turn.number for look in found}
    # Where the work is handed on, the last turn is what it came to.
    rest = [turn for turn in work if turn.number not in named and not (turn is turns[-1] and is_chain(turns))]
    early = rest[: min(_EARLY, _NAMED - len(found))]
    if early:
        names = " and ".join(map(material.name, early))
        first, *others = [turn.node.answer or turn.node.step for turn in early]
        verb = "is the first turn of work" if len(early) == 1 else "are the first turns of work"
        verb = verb.replace("first", "next") if found else verb
        yield Why("early", f'{names} {verb}: "{headline(early[0].answer, _QUOTE)}"', first, more=others)


def _is_called(turn: Turn) -> bool:
    """Tell whether a turn is inside the call of a tool."""
    return any(node.kind == "tool" for node in islice(turn.node.ancestors(), _LEVELS))


def _is_work(turn: Turn) -> bool:
    return len(turn.answer[: 2 * _WORK].strip()) >= _WORK and not _HANDS_OVER.match(turn.answer)


def _judged(material: Material, work: Sequence[Turn]) -> Iterator[_Look]:
    """Yield the turns on which a rule holds."""
    turns, asked = material.arrangement.turns, material.story.asked[:_READ]
    brief = turns[0]
    task = _words(asked)
    if _is_work(brief) and task and len(task & _words(brief.answer)) < _SHARE * len(task):
        yield _Look(brief, 8, "shares few words with what was asked")
    known = _Known(asked)
    led_to = _led_to(material)
    rules: set[str] = set()
    numbers = {turn.number for turn in work}
    for turn in turns:
        if turn.number in numbers:
            look = _judge(turn, led_to.get(turn.number, ()), known, rules)
            if look.reason:
                yield look
        known.add(turn.answer)
        for one in led_to.get(turn.number, ()):
            known.add(one.use.result if isinstance(one.use.result, str) else value(one.use.result))


def _judge(turn: Turn, calls: Sequence[PlacedCall], known: _Known, rules: set[str]) -> _Look:
    """Return a turn with the reasons to look at it; most rules hold only for the first turn of a run."""
    text, weight, reasons, step = turn.answer[:_READ], 2, [], 0
    if match := _ASSUMES.search(text):
        weight += 1 if "assumes" in rules else 2
        reasons.append(f"says {match[0].lower()}")
        rules.add("assumes")
    failed = next((one.use.node for one in calls if one.use.problem), None)
    empty = next((one.use.node for one in calls if one.use.node.is_empty), None)
    if failed is not None and "failed" not in rules:
        weight, step = weight + 2, failed.step
        verb = "said that it failed" if failed.said_failed else "failed"
        reasons.append(f"led to {clean(failed.name)}, which {verb}")
        rules.add("failed")
    elif failed is None and empty is not None and "```" in text and "empty" not in rules:
        weight, step = weight + 1, empty.step
        reasons.append(f"led to {clean(empty.name)}, which found nothing")
        rules.add("empty")
    if "facts" not in rules and "```" not in text and "http" not in text:
        news = known.new(text)
        if len(news) >= _FACTS:
            weight += 1
            reasons.append(f"states {', '.join(map(clean, news[:_FACTS]))}, which nothing before it says")
            rules.add("facts")
    return _Look(turn, weight, " and ".join(reasons), step)


class _Known:
    """The names and numbers that somebody, or a tool, has said so far."""

    def __init__(self, asked: str) -> None:
        self._texts: list[str] = [asked.lower()]
        self._numbers: set[str] = {*_numbers(asked)}

    def add(self, text: str) -> None:
        """Take what was said next."""
        self._texts.append(text[:_READ].lower())
        self._numbers.update(_numbers(text[:_READ]))

    def new(self, text: str) -> list[str]:
        """Return the names and numbers of a text that are not among them."""
        named = [*_NAME.findall(text), *_QUOTED.findall(text)]
        names = [name for name in named if not any(name.lower() in said for said in self._texts)]
        return list(
            dict.fromkeys([*names, *(number for number in _numbers(text) if number not in self._numbers)])
        )


def _led_to(material: Material) -> dict[int, list[PlacedCall]]:
    """Return the tool calls that came after each turn and before the next one, by its number."""
    turns = sorted(material.arrangement.turns, key=lambda turn: turn.node.answer or turn.node.step)
    steps = [turn.node.answer or turn.node.step for turn in turns]
    calls: dict[int, list[PlacedCall]] = {}
    for one in material.arrangement.tool_calls:
        place = bisect(steps, one.use.node.step)
        if place:
            calls.setdefault(turns[place - 1].number, []).append(one)
    return calls


def _words(text: str) -> set[str]:
    return {*_LETTERS.findall(text[:_READ].lower())} - _COMMON


def _numbers(text: str) -> Iterator[str]:
    for number in _NUMBER.findall(_ADDRESS.sub("", text)):
        plain = number.replace(",", "").rstrip(".")
        if len(plain) >= 2:
            yield plain
