"""
The lines about where a run may have fallen short: stand-ins for data, searches in vain, results read in part.

They go by what agents and tools say themselves, and quote it: whether it mattered no rule knows. They were tried on
runs that failed and that succeeded, and kept for telling more of the failed ones also where nobody had looked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from whyops_trace._reading.excerpt import around, clean, counted, headline, shorten, value
from whyops_trace._shapes import dict_of
from whyops_trace.story.agents import talk
from whyops_trace.story.material import Material
from whyops_trace.story.retries import PlacedCall, failed
from whyops_trace.story.turns import Why

#: Characters of a text that are looked at, and of both ends of a result.
_READ: Final = 8_000
_END: Final = 400
#: Fewest calls of a tool that found nothing, and smallest share of its calls.
_VAIN: Final = 3
_VAIN_SHARE: Final = 1 / 3
#: Largest numbers of characters of a call and of a quotation.
_CALL: Final = 90
_QUOTE: Final = 140

_SHAM: Final = r"(?:placeholder|mock(?:ed)?|dummy|fake|made[- ]up|simulated|synthetic|hypothetical|sample)"
_STAND_IN: Final = re.compile(
    # using sample data | create a mock result file
    r"\b(?:us(?:e|ed|es|ing)|creat(?:e|ed|ing)|generat(?:e|ed|ing)|with|return(?:s|ing)?|insert(?:ed|ing)?|"
    rf"try(?:ing)?|writ(?:e|ing)) (?:an? |the |some |my )?{_SHAM} (?:\w{{1,20}} ){{0,2}}?"
    r"(?:apis?|clients?|credentials|data|dataset|entries|files?|implementation|metrics|models?|numbers?|prices?|"
    r"records?|responses?|results?|scores?|values?|weights)\b"
    # simulate the API response | # mock ... in code
    r"|\bsimulat(?:e|ing) (?:the |an? )?(?:\w{1,20} ){0,2}(?:apis?|calls?|data|responses?)\b"
    r"|(?:#|//|\"\"\") ?(?:mock|placeholder|dummy|fake|stub|sample data (?:based|for|from))\b[^\n]{0,60}"
    # in a real implementation, we would ... | for demonstration | replace with actual values
    r"|\bin (?:an? |the )?(?:real|actual|production)(?:[- ]world)? (?:app|application|deployment|environment|"
    r"implementation|scenario|setting|system|version|world)\b[^.\n]{0,40}\b(?:come|replace|should|would)"
    r"|\bfor (?:demo|demonstration|illustrative)(?: purposes)?\b"
    r"|\breplace (?:this |it |them )?with (?:the )?(?:actual|real) \w+",
    re.I,
)
_STAND_IN_SIGNS: Final = (
    "placeholder", "mock", "dummy", "fake", "made up", "made-up", "simulat", "synthetic", "hypothetical", "sample",
    "stub", "in real", "in a real", "in the real", "actual", "production", "for demo", "for illustrative", "the real",
)  # fmt: skip
#: Code that tests other code has such data for a reason.
_TESTS: Final = re.compile(r"(?<![a-z])(?:py|unit)?tests?(?![a-z])", re.I)
#: A word for nothing, or no items. A command that prints nothing has found nothing to complain of.
_NONE: Final = re.compile(r"\b(?:no|not|none|nothing|null|nil|zero|0 [a-z]|empty)\b|n't\b|\[\s*\]", re.I)
#: What tells that a result is only a part of what there is.
_PART: Final = re.compile(
    r"\.\.\. ?and \d{1,9} more\b|\band \d{1,9} more (?:files|items|lines|results|rows)\b"
    r"|\bhas_?more\W{1,6}true\b|\bnext_?(?:cursor|page|page_?token)\W{1,6}(?!null|none|false|\d)\w[\w/+=-]{2,}"
    r"|\b(?:content|output|response|result)s? (?:was |has been )?(?:cut off|truncated)\b|[(\[]truncated\b"
    r"|\bshowing (?:the )?(?:first |top )?\d{1,9} (?:of|out of) \d|\bpage 1 of [2-9]",
    re.I,
)


def shortfalls(material: Material) -> Iterator[Why]:
    """Yield the lines about where a run fell short. Of agents who speak with one another, others tell."""
    turns = material.arrangement.turns
    if talk(turns):
        return
    yield from _stand_ins(material)
    yield from _in_vain(material)
    yield from _parts(material)


def _stand_ins(material: Material) -> Iterator[Why]:
    """The first turn that says, or writes into a call, that its data or a service is made up."""
    if _stand_in(material.story.asked):
        return  # that is the task
    for turn in material.arrangement.turns:
        found = _stand_in(turn.answer)
        step = turn.node.answer or turn.node.step
        for use in turn.tools if not found else ():
            texts = (text for text in dict_of(use.arguments).values() if isinstance(text, str))
            found = next((quote for text in texts if (quote := _stand_in(text, code=True))), "")
            if found:
                step = use.node.step
                break
        if found:
            yield Why("standin", f'{material.name(turn)} works with a stand-in: "{found}"', step, bad=True)
            return


def _stand_in(text: str, *, code: bool = False) -> str:
    """Return the words in which a text tells of a stand-in, "" if it does not."""
    text = text[:_READ]
    lowered = text.lower()
    if not any(sign in lowered for sign in _STAND_IN_SIGNS) or (code and _TESTS.search(text)):
        return ""
    match = _STAND_IN.search(text)
    return around(text, match, _QUOTE) if match else ""


def _in_vain(material: Material) -> Iterator[Why]:
    """Tools of which many calls said that there was nothing. One that always returns nothing at all is no search."""
    by_tool: dict[str, list[PlacedCall]] = {}
    for one in material.arrangement.tool_calls:
        by_tool.setdefault(one.use.node.name, []).append(one)
    for name, calls in by_tool.items():
        vain = [one for one in calls if one.use.node.is_empty and _NONE.search(_text(one)[:_END])]
        if len(vain) >= max(_VAIN, _VAIN_SHARE * len(calls)):
            steps = [one.use.node.step for one in vain]
            text = f"{clean(name)} found nothing in {len(vain)} of {counted(len(calls), 'call')}, such as"
            call = shorten(f"{name}({vain[0].use.node.arguments})", _CALL)
            yield Why("vain", f"{text} {call}", steps[0], more=steps[1:_VAIN])


def _parts(material: Material) -> Iterator[Why]:
    """The last result which says that there is more, if its tool was not called again."""
    calls = material.arrangement.tool_calls
    names: set[str] = set()
    for one in reversed(calls):
        name = one.use.node.name
        if name not in names and not failed(one.use) and (match := _part(one)):
            call = shorten(f"{name}({one.use.node.arguments})", _CALL)
            quote = headline(match[0], _QUOTE)
            text = f'{call} brought only a part, "{quote}", and {clean(name)} was not called again'
            yield Why("partial", text, one.use.node.step)
            return
        names.add(name)


def _part(one: PlacedCall) -> re.Match[str] | None:
    text = _text(one)
    return _PART.search(text[:_END]) or _PART.search(text[-_END:])


def _text(one: PlacedCall) -> str:
    result = one.use.result
    return "" if result is None else result if isinstance(result, str) else value(result)
