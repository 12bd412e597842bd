"""
The origins of the arguments of tool calls: the result, message or prompt before a call that has the same value.

A value is compared, never guessed: what stands before the call in the same characters is an exact match, and what no
record before it has is nowhere. Short and common values are no evidence, and are left out.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import msgspec

from whyops_trace._reading.excerpt import clean, headline, value
from whyops_trace.story.turns import Message, Story, ToolUse, Turn
from whyops_trace.story.values import TOKEN, Needle, is_telling, match_in, match_of, needle_of

#: The ways in which a value stands at its origin: in the same characters, written otherwise, as a part of a longer
#: text; or nowhere before.
Match = Literal["exact", "normalised", "part", "nowhere"]
#: Kinds of origins: the result of a tool, a message to a model, a system prompt, tools on offer, the arguments of the
#: call around, the words of the model itself.
Source = Literal["result", "message", "system", "tools", "arguments", "answer", ""]

#: Largest number of values of one call, and of members of one result, that are looked at, and their levels.
_VALUES: Final = 50
_MEMBERS: Final = 5_000
_LEVELS: Final = 12
#: Number of members up to which an index of their words takes longer than to look at each.
_FEW: Final = 30
#: Number of the latest places of a value that are compared.
_PLACES: Final = 20
#: Largest number of characters of a value in a line.
_QUOTE: Final = 60

#: The note where the middle of a value was cut off.
_CUT: Final = re.compile(r"\[cut [\d,]+ (?:of [\d,]+ )?\w+\]")
_ESCAPE: Final = re.compile(r"\\.")
_PLAIN: Final = re.compile(r"[\W_]+")


class Origin(msgspec.Struct, rename="camel"):
    """
    The origin of the value of one argument.

    Attributes:
        argument: Path of the argument, such as ``order_id`` or ``items[0].id``.
        value: Its value, as JSON.
        match: ``exact``, ``normalised`` if only case, spaces or the form of a number differ, ``part`` if it stands in a
            longer text there; ``nowhere`` if no record before the call has it.
        source: ``result`` of a tool, ``message``, ``system`` prompt, ``tools`` on offer, ``arguments`` of the call
            around it, or ``answer`` for a value that only the model itself said before; "" if there is none.
        step: The step of that record, 0 if there is none.
        name: Name of the tool, or role of the message.
        place: Path in the result or the arguments, "" in a text.
        later: Value that a later result of the same tool has at the same place, as JSON; "" if none has another one.
        later_step: The step of that result.
        named: Name that the value has at its origin, if something else there has the name of the argument; else "".
        meant: Value there that has the name of the argument, as JSON.
    """

    argument: str
    value: str
    match: Match
    source: Source = ""
    step: int = 0
    name: str = ""
    place: str = ""
    later: str = ""
    later_step: int = 0
    named: str = ""
    meant: str = ""

    @property
    def is_odd(self) -> bool:
        """True if the value is nowhere, has changed since, or has another name at its origin."""
        return self.match == "nowhere" or bool(self.later or self.named)

    @property
    def text(self) -> str:
        """The origin in words, on one line, safe to print."""
        argument = clean(self.argument)
        if self.match == "nowhere":
            said = f"; the model says it first in #{self.step}" if self.step else ""
            return f"{argument} is nowhere before this call{said}"
        how = "is a part of" if self.match == "part" else "is from"
        told = f"{argument} {how} {self._source}{f' ({clean(self.place)})' if self.place else ''}"
        told += ", written otherwise" * (self.match == "normalised")
        if self.named:
            told += f", whose {clean(_last(self.argument))} is {_quoted(self.meant)}"
        if self.later:
            told += f"; the later #{self.later_step} has {_quoted(self.later)} there"
        return told

    @property
    def _source(self) -> str:
        name = clean(self.name)
        return {
            "result": f"the result of {name} #{self.step}",
            "message": f"the {name} message #{self.step}",
            "system": f"the system prompt #{self.step}",
            "tools": f"the tools on offer #{self.step}",
            "arguments": f"the arguments of {name} #{self.step}",
        }.get(self.source, f"#{self.step}")


@dataclass(eq=False)
class _Record:
    """Something before a call that may have its values."""

    source: Source
    step: int
    name: str
    content: Any
    use: ToolUse | None = None
    is_failure: bool = False
    at: int = -1
    text: str = ""

    @cached_property
    def members(self) -> list[_Member]:
        """The values in it by their paths."""
        return [_Member(*leaf) for leaf in _leaves(self.content, _MEMBERS)]

    @cached_property
    def folded(self) -> str:
        """Its text in small letters, with one space between words."""
        return " ".join(self.text.lower().split())

    @cached_property
    def _with_word(self) -> dict[str, list[int]]:
        """The numbers of its members by the words in them: a list may have the values of thousands of calls."""
        found: dict[str, list[int]] = {}
        for number, member in enumerate(self.members):
            if type(member.value) is not bool and isinstance(member.value, (int, float, str)):
                text = member.value if isinstance(member.value, str) else value(member.value)
                for word in {*TOKEN.findall(text.lower())}:
                    found.setdefault(word, []).append(number)
        return found

    @cached_property
    def _beside(self) -> dict[str, list[_Member]]:
        found: dict[str, list[_Member]] = {}
        for member in self.members:
            found.setdefault(member.around, []).append(member)
        return found

    @cached_property
    def _values(self) -> dict[str, Any]:
        """Its values by their paths, and the first one of each name."""
        members = [*reversed(self.members)]
        return {_last(one.path): one.value for one in members} | {one.path: one.value for one in members}

    def with_words(self, words: Iterable[str]) -> list[_Member]:
        """Return its members that may have one of some words."""
        if len(self.members) <= _FEW:
            return self.members
        numbers = {number for word in words for number in self._with_word.get(word, ())}
        return [self.members[number] for number in sorted(numbers)]

    def beside(self, around: str) -> list[_Member]:
        """Return the values of one object in it."""
        if len(self.members) <= _FEW:
            return [member for member in self.members if member.around == around]
        return self._beside.get(around, [])

    def value_at(self, path: str) -> Any:
        """Return the value at a path, else the first one of that name; None if there is neither."""
        if len(self.members) > _FEW:
            return self._values.get(path, self._values.get(_last(path)))
        named = [member for member in self.members if _last(member.path) == _last(path)]
        return next((one.value for one in named if one.path == path), named[0].value if named else None)


class _Member(NamedTuple):
    """A value in a record, with its path, and that of the object or list that has it."""

    path: str
    value: Any
    around: str


class _Place(NamedTuple):
    """A place where a value stands."""

    record: _Record
    match: Match
    path: str = ""
    around: str = ""


def provenance(story: Story, steps: Iterable[int] | None = None) -> dict[int, list[Origin]]:
    """
    Return where the arguments of tool calls came from.

    Args:
        story: The story of the trace.
        steps: The steps of the calls, None for all.

    Returns:
        The origins of a call's arguments by its step, for calls with any. Short and common values have none, and
        neither has a value that is nowhere before, if it is one that a program or a model may choose, or if a record
        before it was cut, was not captured or holds a picture.
    """
    uses = [use for section in story.sections for use in section.uses]
    wanted = None if steps is None else frozenset(steps)
    calls = [use for use in uses if use.arguments is not None and (wanted is None or use.node.step in wanted)]
    if not calls:
        return {}
    turns = [section.turn for section in story.sections if section.turn]
    # The records of several processes are told in the order of time, which is not that of their steps.
    order = {step: place for place, step in enumerate(story.steps)}
    search = _Search(list(_records(story, turns, uses)), order)
    asked = {call.step: turn for turn in turns for call in turn.calls if call.step}
    given = [
        (use, [(path, one, search.needle(one)) for path, one, _ in _leaves(use.arguments, _VALUES)])
        for use in calls
    ]
    search.run()
    by_step = {use.node.step: use for use in uses}
    never = len(order)
    unreadable = min((record.at for record in search.records if _is_cut(record)), default=never)
    pictures = (
        order.get(turn.node.step, never) for turn in turns for message in turn.messages if message.other
    )
    untold = (
        order.get(node.step, never)
        for node in (*(use.node for use in uses), *(turn.node for turn in turns))
        if not node.tells_output or not node.tells_input
    )
    unseen = min((unreadable, *pictures, *untold))
    found: dict[int, list[Origin]] = {}
    for use, leaves in sorted(given, key=lambda one: order.get(one[0].node.step, 0)):
        step = use.node.step
        turn = asked.get(step)
        may_be_nowhere = turn is not None and unseen >= order.get(step, 0)
        origins = [
            origin
            for path, one, needle in leaves
            if needle is not None
            and (origin := search.origin(path, one, needle, use, by_step, may_be_nowhere)) is not None
        ]
        if origins:
            found[step] = origins
    return found


def _records(story: Story, turns: Iterable[Turn], uses: Iterable[ToolUse]) -> Iterator[_Record]:
    """Yield all that may have the value of an argument."""
    tools = {use.node.name for use in uses}
    first = True
    for turn in turns:
        step = turn.node.step
        if turn.system:
            yield _Record("system", step, "", turn.system)
        if turn.schemas:
            yield _Record("tools", step, "", turn.schemas)
        for message in turn.messages:
            if not (message.role == "tool" and message.name in tools):  # the result itself is there
                yield _Record("message", step, message.role or "other", _content(message))
        if turn.answer or turn.thinking:
            yield _Record("answer", turn.node.answer or step, "", "\n".join((*turn.thinking, turn.answer)))
        first = False
    if first and story.asked:
        yield _Record("message", 0, "first", story.asked)
    for use in uses:
        ended = use.response or use.node.step
        if use.result is not None:
            yield _Record("result", ended, use.node.name, use.result, use, bool(use.problem))
        elif use.problem:
            yield _Record("result", ended, use.node.name, use.problem, use, is_failure=True)


def _content(message: Message) -> str:
    calls = [value(call.arguments) for call in message.calls]
    return "\n".join((message.text, *calls))


class _Search:
    """
    The search for values in all records, each of which is read once.

    Args:
        records: The records.
        order: The place of each step among all.
    """

    def __init__(self, records: list[_Record], order: Mapping[int, int]) -> None:
        for record in records:
            record.at = order.get(record.step, -1)
        self.records = sorted(records, key=lambda record: record.at)
        self._order = order
        self._needles: dict[tuple[type, Any], Needle | None] = {}
        self._places: dict[Needle, list[_Place]] = {}
        self._results: dict[str, list[_Record]] = {}
        for record in self.records:
            if record.source == "result":
                self._results.setdefault(record.name, []).append(record)

    def needle(self, one: Any) -> Needle | None:
        """Return what looks for a value, None for one that is no evidence."""
        if isinstance(one, (dict, list)):  # deeper than is looked at
            return None
        key = (type(one), one)
        if key not in self._needles:
            self._needles[key] = needle_of(one)
        return self._needles[key]

    def run(self) -> None:
        """Find the places of all values."""
        keys: dict[str, list[tuple[Needle, int]]] = {}
        for needle in filter(None, self._needles.values()):
            for number, key in enumerate(needle.keys):
                keys.setdefault(key, []).append((needle, number))
        for record in self.records:
            record.text = record.content if isinstance(record.content, str) else _json(record.content)
            words = {*TOKEN.findall(record.text.lower())}
            hits: dict[Needle, None] = {}
            for key in words & keys.keys():
                for needle, number in keys[key]:
                    if needle.tokens[number] <= words:
                        hits[needle] = None
            for needle in hits:
                self._places.setdefault(needle, []).extend(_places(record, needle))

    def origin(
        self,
        path: str,
        one: Any,
        needle: Needle,
        use: ToolUse,
        by_step: Mapping[int, ToolUse],
        may_be_nowhere: bool,
    ) -> Origin | None:
        """Return where a value of a call came from, None if that is not known."""
        at, name = self._order.get(use.node.step, -1), _plain(_last(path))
        quoted = value(one)
        for outer in use.node.ancestors():
            around = by_step.get(outer.step) if outer.kind == "tool" else None
            for place, other, _ in _leaves(around.arguments, _VALUES) if around is not None else ():
                if type(other) is type(one) and other == one:
                    return Origin(path, quoted, "exact", "arguments", outer.step, outer.name, place)
        found = self._places.get(needle, [])
        count = bisect_left(found, at, key=lambda place: place.record.at)
        before = (found[number] for number in range(count - 1, -1, -1))  # a common value has thousands
        places = [*islice((place for place in before if place.record.source != "answer"), _PLACES)]
        if not places:
            if not may_be_nowhere or not is_telling(one):
                return None
            first = found[0].record.step if count else 0
            return Origin(path, quoted, "nowhere", "answer" if first else "", first)
        ranks = {"exact": 2, "normalised": 1, "part": 0, "nowhere": 0}
        best = max(
            places,
            key=lambda place: (
                not place.record.is_failure,
                _fits(name, place),
                ranks[place.match],
                place.record.source == "result",
            ),
        )
        record = best.record
        origin = Origin(path, quoted, best.match, record.source, record.step, record.name, best.path)
        if record.use is not None and best.path:
            self._compare(origin, best, needle, name, at)
        return origin

    def _compare(self, origin: Origin, place: _Place, needle: Needle, name: str, at: int) -> None:
        """Add to an origin what a later result has at its place, and what its object has under the argument's name."""
        record = place.record
        for member in record.beside(place.around) if _plain(_last(place.path)) != name else ():
            if _plain(_last(member.path)) == name and member.value != needle.value:
                origin.named, origin.meant = _last(place.path), value(member.value)
        results = self._results[record.name]
        later = results[bisect_left(results, at, key=lambda result: result.at) - 1]
        found_at = self._places[needle]
        first = bisect_left(found_at, later.at, key=lambda other: other.record.at)
        is_there = any(other.record is later for other in found_at[first : first + 1])
        if later.at > record.at and not is_there:
            found = later.value_at(place.path)
            if type(found) is type(record.value_at(place.path)) and found is not None:
                origin.later, origin.later_step = value(found), later.step


def _places(record: _Record, needle: Needle) -> Iterator[_Place]:
    """Yield where a record has a value, the best match of it in each of its members."""
    if record.is_failure and record.use is not None and _is_given(record.use, needle):
        return  # it only repeats what the call was given
    if isinstance(record.content, str):
        match = match_in(record.text, needle, record.folded)
        if match is not None:
            yield _Place(record, "exact" if match == "part" else match)
        return
    found = False
    for member in record.with_words(needle.keys):
        match = match_of(member.value, needle)
        if match is not None:
            found = True
            yield _Place(record, match, member.path, member.around)
    if (
        not found and match_in(record.text, needle, record.folded) is not None
    ):  # as a name, or among more than is looked at
        yield _Place(record, "part")


def _is_given(use: ToolUse, needle: Needle) -> bool:
    """Tell whether a value is among the arguments of a call."""
    return any(one == needle.value for _, one, _ in _leaves(use.arguments, _VALUES))


def _leaves(thing: Any, most: int) -> Iterator[tuple[str, Any, str]]:
    """Yield the values in a value by their paths, each with the path of the object or list that has it."""
    waiting: list[tuple[str, Any, str, int]] = [("", thing, "", 0)]
    count = 0
    while waiting and count < most:
        path, one, around, level = waiting.pop()
        if isinstance(one, dict) and level < _LEVELS:
            members = [(f"{path}.{name}" if path else str(name), member) for name, member in one.items()]
        elif isinstance(one, list) and level < _LEVELS:
            members = [(f"{path}[{number}]", member) for number, member in enumerate(one[: most - count])]
        else:
            count += 1
            yield path, one, around
            continue
        waiting += [(inner, member, path, level + 1) for inner, member in reversed(members)]


def _last(path: str) -> str:
    """Return the last name in a path."""
    return path.rpartition(".")[2].partition("[")[0] or path


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.lower())


def _fits(name: str, place: _Place) -> int:
    """Tell whether a place has the name of the argument (2), or one that ends alike, as ``id`` and ``order_id`` (1)."""
    here = _plain(_last(place.path))
    if not here or not name:
        return 0
    return 2 if here == name else int(name.endswith(here) or here.endswith(name))


def _is_cut(record: _Record) -> bool:
    return "[cut " in record.text and bool(_CUT.search(record.text))


def _json(thing: Any) -> str:
    try:
        # A word after a line's end is told apart from the end.
        return _ESCAPE.sub(" ", msgspec.json.encode(thing).decode())
    except (TypeError, ValueError, OverflowError, RecursionError):
        return value(thing)


def _quoted(json: str) -> str:
    return headline(json, _QUOTE)
