"""
The lines about habits of agents: what they repeat, never use, say of themselves, and claim to have done.

No rule here knows what a run is for, so none of its lines is a verdict. Each names its subject, and quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from whyops_trace._reading.excerpt import around, clean, counted, headline, shorten
from whyops_trace.story.material import Material
from whyops_trace.story.messages import fingerprint
from whyops_trace.story.retries import PlacedCall, failed
from whyops_trace.story.turns import Turn, Why

#: Numbers of calls that a cycle may have, and times that it has to come if its results differ, or are the same.
_PERIODS: Final = (2, 3, 4)
_ROUNDS: Final = 3
_ROUNDS_ALIKE: Final = 2
#: Fewest equal calls that are told though others came between them.
_AGAIN: Final = 3
#: Fewest answers in a row that are told as nearly alike, share of their words that is the same, and words that tell.
_ALIKE: Final = 3
_SHARE: Final = 0.8
_WORDS: Final = 4
#: Fewest turns, and fewest messages of a user, after which unused tools are told.
_UNUSED: Final = 4
_ASKED: Final = 2
#: Characters of a text that are looked at.
_READ: Final = 4_000
#: Largest numbers of characters of a call and of a quotation, and of names, in a line.
_CALL: Final = 90
_QUOTE: Final = 120
_NAMES: Final = 4

_STUCK: Final = re.compile(
    r"\"?is_?in_?(?:a_)?loop\"?\s*:\s*(?:\{[^{}]{0,600}?\"answer\"\s*:\s*)?true"
    r"|\b(?:i am|i'm|i seem to be|we are|we're|we seem to be|are|keep|been|be) (?:currently |now |again )?"
    r"(?:stuck in a loop|in a loop|going (?:a?round )?in circles|looping|caught in a loop|"
    r"repeating (?:myself|ourselves|the same))",
    re.I,
)
_STUCK_WORDS: Final = ("loop", "circles", "repeating")
_CONTRADICTS: Final = re.compile(
    r"\b(?:that(?:'s| is| was)? (?:not|n't) (?:right|correct|true|what i|accurate|my)"
    r"|that(?:'s| is) (?:wrong|incorrect)"
    r"|(?:doesn't|does not|didn't|did not) (?:add up|match|make sense|sound right|seem right|look right)"
    r"|i (?:never|didn't|did not) (?:asked?|said|say|want(?:ed)?|agreed?|book(?:ed)?|order(?:ed)?)"
    r"|i (?:already|just) (?:told|gave|said|mentioned|provided)|you(?:'re| are) (?:wrong|mistaken|not listening)"
    r"|no,? (?:i (?:said|asked|meant|want)|that's)|you said|you told me|are you sure"
    r"|still (?:not|isn't|doesn't|wrong))",
    re.I,
)
#: What may have been done, in the past, and the verbs in the names of tools that do it.
_DEEDS: Final = {
    "added": ("add", "update", "modify", "change", "edit"),
    "booked": ("book", "reserve", "create"),
    "cancell?ed": ("cancel", "delete", "remove"),
    "charged": ("charge", "pay", "bill"),
    "created": ("create", "make", "add", "new", "open", "book"),
    "deleted": ("delete", "remove", "cancel", "drop"),
    "issued": ("issue", "send", "create", "give", "refund"),
    "refunded": ("refund", "cancel", "return", "send", "issue"),
    "removed": ("remove", "delete", "update", "edit", "cancel"),
    "scheduled": ("schedule", "create", "book", "add"),
    "sent|emailed": ("send", "email", "mail", "notify", "message", "issue"),
    "transferred": ("transfer", "hand", "escalate", "move"),
    "updated|changed|modified": ("update", "modify", "change", "edit", "set", "add"),
    "uploaded": ("upload", "send", "put", "store", "save"),
}
_DONE: Final = "|".join(f"({done})" for done in _DEEDS)
_DOERS: Final = tuple(frozenset(verbs) for verbs in _DEEDS.values())
_CLAIM: Final = re.compile(
    rf"\b(?:i(?:'ve| have)|we(?:'ve| have)|(?:has|have) been|(?:is|are) now) (?:now |just |already |also )?"
    rf"(?:successfully |been )?(?:{_DONE})\b[^.!?\n]{{0,120}}",
    re.I,
)


def habits(material: Material) -> Iterator[Why]:
    """Yield the lines about habits, the most telling first."""
    told: set[int] = set()
    for calls in _conversations(material):
        yield from _cycles(material, calls, told)
        yield from _again(material, calls, told)
    yield from _alike(material)
    yield from _stuck(material)
    yield from _claims(material)
    yield from _unused(material)
    yield from _contradicted(material)


def _conversations(material: Material) -> Iterator[list[PlacedCall]]:
    """Yield the tool calls of each conversation, and of each place without turns, in order."""
    roots = material.arrangement.roots
    found: dict[tuple[int, int], list[PlacedCall]] = {}
    for one in material.arrangement.tool_calls:
        scope = (roots[one.turn.number], 0) if one.turn else (0, id(one.use.node.parent))
        found.setdefault(scope, []).append(one)
    yield from found.values()


def _outcome(one: PlacedCall) -> int:
    """Return a number that calls share which are the same and came to the same."""
    use = one.use
    return hash((one.key, use.problem, use.node.status, fingerprint(use.result)))


def _cycles(material: Material, calls: Sequence[PlacedCall], told: set[int]) -> Iterator[Why]:
    """The same two to four calls one after the other, again and again."""
    for period in _PERIODS:
        start = 0
        for place in range(period, len(calls) + 1):
            if place < len(calls) and calls[place].key == calls[place - period].key:
                continue
            first, start = start, place - period + 1
            row = calls[first:place]
            if len(row) < _ROUNDS_ALIKE * period or len({one.key for one in row[:period]}) < 2:
                continue
            if any(id(one) in told for one in row):
                continue
            outcomes = [*map(_outcome, row)]
            same = outcomes[period:] == outcomes[:-period]
            if len(row) < (_ROUNDS_ALIKE if same else _ROUNDS) * period:
                continue
            told.update(map(id, row))
            names = " and ".join(_call(one, _CALL // period) for one in row[:period])
            came = ", each time with the same results" if same else ""
            text = f"{names} were called in turn, {len(row)} calls in all{_between(row)}{came}"
            then, step = material.went_on(row[-1].turn)
            yield Why(
                "cycle", text, row[0].use.node.step, then, step, bad=same and len(row) >= _ROUNDS * period
            )


def _again(material: Material, calls: Sequence[PlacedCall], told: set[int]) -> Iterator[Why]:
    """The same call with the same result, though others came between."""
    by_key: dict[int, list[PlacedCall]] = {}
    for one in calls:
        if one.use.node.is_empty or failed(one.use) or one.use.result or one.use.problem:
            by_key.setdefault(one.key, []).append(one)
    groups: dict[int, list[PlacedCall]] = {}
    for one in (one for alike in by_key.values() if len(alike) >= _AGAIN for one in alike):
        groups.setdefault(_outcome(one), []).append(one)
    for group in groups.values():
        in_rows = sum(one.use.repeats > 0 for one in group)
        if (
            len(group) - in_rows < _AGAIN
            or not group[0].use.arguments
            or any(id(one) in told for one in group)
        ):
            continue
        verb = "said each time that it failed" if failed(group[0].use) else "brought the same each time"
        text = f"{_call(group[0], _CALL)} was called {len(group)} times{_between(group)}, and {verb}"
        yield Why("again", text, group[0].use.node.step, bad=failed(group[0].use))


def _alike(material: Material) -> Iterator[Why]:
    """Answers of one agent to one question that say nearly the same, one after the other."""
    groups: dict[tuple[str, str, str], list[Turn]] = {}
    for turn in material.arrangement.turns:
        if turn.answer and not turn.error:
            groups.setdefault((turn.agent, turn.node.name, _question(material, turn)), []).append(turn)
    for turns in groups.values():
        start = 0
        for place in range(1, len(turns) + 1):
            if place < len(turns) and _are_alike(turns[place - 1], turns[place]):
                continue
            row, start = turns[start:place], place
            if len(row) >= _ALIKE:
                first, last = row[0], row[-1]
                text = (
                    f"turns {material.name(first).removeprefix('turn ')} to {last.number}:"
                    f' {len(row)} answers nearly alike: "{headline(first.answer, _QUOTE)}"'
                )
                then, step = material.went_on(last)
                yield Why(
                    "alike", text, first.node.answer or first.node.step, then, step, bad=place == len(turns)
                )


def _question(material: Material, turn: Turn) -> str:
    """Return what the user said first in the conversation of a turn."""
    root = material.arrangement.turns[material.arrangement.roots[turn.number] - 1]
    return next((message.text for message in root.messages if message.role == "user"), "")


def _are_alike(one: Turn, other: Turn) -> bool:
    """Return True if two answers share most words, and ask for the same calls."""
    if _asked(one) != _asked(other):
        return False
    before, after = _words(one.answer), _words(other.answer)
    return min(len(before), len(after)) >= _WORDS and len(before & after) >= _SHARE * len(before | after)


def _asked(turn: Turn) -> list[tuple[str, int]]:
    return [(call.name, fingerprint(call.arguments)) for call in turn.calls]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text[:_READ].lower()))


def _stuck(material: Material) -> Iterator[Why]:
    """Agents that say themselves that they go round in circles."""
    found: dict[str, list[tuple[Turn, str]]] = {}
    for turn in material.arrangement.turns:
        for text in (turn.answer, *turn.thinking):
            told = any(
                word in text for word in _STUCK_WORDS
            )  # nearly no text has one, and a search takes longer
            if told and (match := _STUCK.search(text[:_READ])):
                found.setdefault(turn.agent, []).append((turn, around(text, match, _QUOTE)))
                break
    for said in found.values():
        turn, quote = said[0]
        times = f", and {counted(len(said) - 1, 'more time')}" if len(said) > 1 else ""
        then, step = material.went_on(turn)
        text = f'{material.name(turn)} says itself that it goes round in circles{times}: "{quote}"'
        yield Why("stuck", text, turn.node.answer or turn.node.step, then, step, bad=len(said) > 1)


def _claims(material: Material) -> Iterator[Why]:
    """Answers which say that something was done that no call did, told as a question."""
    turns, calls = material.arrangement.turns, material.arrangement.tool_calls
    called = [one.use.node.name for one in calls]
    tools = {name: _parts(name) for name in (*called, *(name for turn in turns for name in turn.offered))}
    done: dict[str, int] = {}
    for one in calls:
        if not failed(one.use):
            done.setdefault(one.use.node.name, one.use.node.step)
    asked: set[tuple[str, ...]] = set()
    for turn in turns if tools else ():
        text = "" if turn.calls else turn.answer[:_READ]
        for match in _CLAIM.finditer(text):
            verbs = _DOERS[(match.lastindex or 1) - 1]
            sentence = around(text, match, _QUOTE)
            able = tuple(
                name
                for name, parts in tools.items()
                if verbs & {*parts} and _shares_noun(parts, sentence, verbs)
            )
            if (
                not able
                or able in asked
                or any(done.get(name, turn.node.step) < turn.node.step for name in able)
            ):
                continue
            asked.add(able)
            names = " or ".join(clean(name) for name in able[:_NAMES])
            ever = "was never called" if {*able}.isdisjoint(called) else "did not succeed before"
            line = f'{material.name(turn)} says "{sentence}": was it done? {names} {ever}'
            yield Why("claim", line, turn.node.answer or turn.node.step, bad=True)


def _parts(name: str) -> list[str]:
    """Return the words in the name of a tool."""
    return [part.lower() for part in re.findall(r"[A-Za-z][a-z]+|[A-Z]+(?![a-z])", name)]


def _shares_noun(parts: Iterable[str], claim: str, verbs: frozenset[str]) -> bool:
    """Return True if a claim names one of the things that the name of a tool does; some names have none."""
    nouns = [part[:3] for part in parts if part not in verbs]
    lowered = claim.lower()
    return not nouns or any(re.search(rf"\b{noun}", lowered) for noun in nouns)


def _unused(material: Material) -> Iterator[Why]:
    """Tools on offer of which none was ever called, in a conversation of some length."""
    turns = material.arrangement.turns
    offering = [turn for turn in turns if turn.offered]
    asked = sum(message.role == "user" for turn in turns for message in turn.messages)
    called = material.arrangement.tool_calls or any(turn.calls for turn in turns)
    if offering and not called and len(turns) >= _UNUSED and asked >= _ASKED:
        names = list(dict.fromkeys(name for turn in offering for name in turn.offered))
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        listed = f"{', '.join(map(clean, names[:_NAMES]))}{more}"
        verb = "was on offer, and never" if len(names) == 1 else "were on offer, and none was"
        yield Why("unused", f"{listed} {verb} called in {len(turns)} turns", offering[0].node.step)


def _contradicted(material: Material) -> Iterator[Why]:
    """Users who say that something is wrong."""
    for turn in material.arrangement.turns:
        for message in turn.messages if turn.number > 1 and turn.continues else ():
            match = _CONTRADICTS.search(message.text[:_READ]) if message.role == "user" else None
            if match:
                before = material.arrangement.turns[turn.continues - 1]
                quote = around(message.text, match, _QUOTE)
                text = f'{material.name(turn)}: the user contradicts {material.name(before)}: "{quote}"'
                yield Why("contradicted", text, turn.node.step)
                break


def _between(row: Sequence[PlacedCall]) -> str:
    turns = [one.turn.number for one in (row[0], row[-1]) if one.turn]
    return f" (turns {turns[0]} to {turns[1]})" if len(set(turns)) == 2 else ""


def _call(one: PlacedCall, limit: int) -> str:
    return shorten(f"{one.use.node.name}({one.use.node.arguments})", limit)
