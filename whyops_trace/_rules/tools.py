"""What goes wrong with tools: spans that do not pair, loops, failures that come back, results nobody was given."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from whyops_trace._models.answers import TOOL_ROLES
from whyops_trace._reading.excerpt import problem, value
from whyops_trace._reading.summary import LOOP
from whyops_trace._rules.exchanges import Exchanges, ToolCall, Turn
from whyops_trace._rules.finding import Finding, named
from whyops_trace._rules.server import loop, orphan, signature, unanswered
from whyops_trace._shapes import dicts_of, text_of

#: The same failure so often is no accident: two may be a hiccup and its retry.
REPEATED: Final = 3
#: Turns that are searched for the text of a result. A loop feeds results back at once; searching all that follows
#: would take quadratic time.
LOOKED_AHEAD: Final = 5
#: Characters that a text or number in a result needs to be recognised in a prompt.
TELLING: Final = 3
#: Texts and numbers of a result that are looked for.
LOOKED_FOR: Final = 20
#: Characters of each that are.
LONGEST: Final = 60

_PLAIN: Final = re.compile(r"[ !#-\[\]-~]+")


def pairs(found: Exchanges, ended: Callable[[str], bool]) -> Iterator[Finding]:
    """
    Yield what is wrong with requests and responses, told apart by parents and tools as well as by spans.

    A call that a running process has open is not one without a response.
    """
    for call in found.tools:
        if call.pairing in ("parent", "tool") and call.response is not None:
            yield _unpaired(call, call.response.step)
        elif call.response is None and (not call.request.process or ended(call.request.process)):
            yield unanswered(call.request)
    yield from map(orphan, found.orphans)


def _unpaired(call: ToolCall, response: int) -> Finding:
    return Finding(
        "UNPAIRED_SPAN",
        "high",
        f"The response of {call.name} has another span id than its request.",
        [response, call.step],
        "A WhyOps server pairs them by span alone: to it the call has no response, and the response no request.",
        "Pass what tool_call_request returned as the span_id of tool_call_response.",
        {
            "tool": call.name,
            "requestSpanId": named(call.request.span),
            "responseSpanId": named(call.response.span if call.response else ""),
        },
    )


def loops(found: Exchanges) -> Iterator[Finding]:
    """
    Yield each run of identical calls once, with all of its steps.

    It is high, as the server has it, if all calls had the same outcome. If outcomes differ, or nothing tells the calls
    apart because no arguments were recorded, a program may be waiting for something: then it is low.
    """
    for same, run in itertools.groupby(found.tools, lambda call: signature(call.request)):
        calls = list(run)
        if len(calls) < LOOP or same is None:
            continue
        outcomes = {_outcome(call) for call in calls}
        if not calls[0].arguments and outcomes == {"{}"}:
            continue  # neither arguments nor results were recorded, so nothing tells whether the calls were equal
        waits = len(outcomes) > 1 or not calls[0].arguments
        yield loop([call.request for call in calls], len(calls), "low" if waits else None)


def _outcome(call: ToolCall) -> str:
    return call.failure or value(call.results)


def failures(found: Exchanges) -> Iterator[Finding]:
    """Yield calls of tools and models that fail the same way again and again."""
    failed: dict[tuple[str, str], list[int]] = defaultdict(list)
    worked: dict[str, int] = {}
    for call in found.tools:
        if call.failure:
            failed[call.name, named(call.failure)].append(call.step)
        elif call.response is not None and not call.is_cancelled:
            worked[call.name] = call.step
    for turn in found.turns:
        if turn.error is not None:
            failed[turn.name, named(problem(turn.error.content))].append(turn.step)
        elif turn.response is not None:
            worked[turn.name] = turn.step
    for (name, error), steps in failed.items():
        if len(steps) >= REPEATED:
            recovered = worked.get(name, 0) > steps[-1]
            yield Finding(
                "REPEATED_FAILURE",
                "medium" if recovered else "high",
                f"{name} failed {len(steps):,} times with the same error: {error}",
                steps,
                "Each attempt took time and tokens, and taught the agent nothing."
                + ("" if recovered else " It never worked after that."),
                "Say in the error what would work instead, do not retry what cannot succeed, and stop after a few "
                "attempts.",
                {"name": name, "error": error, "count": len(steps), "recovered": recovered},
            )


def unused_results(found: Exchanges) -> Iterator[Finding]:
    """
    Yield tools whose result no model was given, though a model asked for it and there were turns after it.

    A result was given if a later turn has a message that answers the call's id, or one of the turns that come next
    holds one of the texts or numbers in it.
    """
    asked = {turn.response.step: turn for turn in found.turns if turn.response is not None}
    given = _Given(found.turns)
    for call in found.tools:
        turn = asked.get(call.asked_by)
        if turn is None or call.response is None or call.failure or call.is_cancelled:
            continue
        words = _words(call.results)
        after = given.turns_after(call.response.step)
        # Of a turn whose prompt was not recorded nobody knows what it was given.
        if not words or not after or not all(other.messages for other in after[:LOOKED_AHEAD]):
            continue
        ids = {text_of(item.get("id")) for item in turn.calls} - {""}
        if given.is_answered(ids, call.response.step) or given.is_told(words, after[:LOOKED_AHEAD]):
            continue
        yield Finding(
            "UNUSED_TOOL_RESULT",
            "low",
            f"A model asked for {call.name}, and the turns that came next were not given the result.",
            [call.response.step, call.asked_by],
            "The model decided on without what it had asked for, so the call was for nothing.",
            "Append the result to the messages as the answer to the model's tool call before the next turn.",
            {"tool": call.name, "askedBy": call.asked_by, "turnsAfter": len(after)},
        )


class _Given:
    """What the turns of a trace were given."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = sorted((turn for turn in turns if turn.request is not None), key=_began)
        #: The last turn that was given the answer to each call.
        self._answered: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        before: list[Any] = []
        for turn in self._turns:
            messages = turn.messages
            # Where a conversation goes on, what was said before has been looked at.
            known = len(before) if before and messages[len(before) - 1 : len(before)] == before[-1:] else 0
            for message in dicts_of(messages[known:]):
                for block in (message, *dicts_of(message.get("content"))):
                    if call_id := _answers(block):
                        self._answered[call_id] = _began(turn)
            before = messages

    def turns_after(self, step: int) -> list[Turn]:
        """Return the turns that began after a step."""
        return self._turns[bisect_right(self._turns, step, key=_began) :]

    def is_answered(self, call_ids: set[str], step: int) -> bool:
        """Tell whether one of these calls was answered to a turn after a step."""
        return any(self._answered.get(call_id, 0) > step for call_id in call_ids)

    def is_told(self, words: list[str], turns: list[Turn]) -> bool:
        """Tell whether one of these turns was given one of the words."""
        return any(word in text for text in map(self._text, turns) for word in words)

    def _text(self, turn: Turn) -> str:
        if id(turn) not in self._texts:
            self._texts[id(turn)] = value(turn.messages)
        return self._texts[id(turn)]


def _began(turn: Turn) -> int:
    return turn.first.step


def _answers(block: dict[str, Any]) -> str:
    """Return the id of the call that a message, or a part of one, answers; "" if it is no answer."""
    kind = text_of(block.get("type"))
    if block.get("role") in TOOL_ROLES:
        return text_of(block.get("tool_call_id"))
    if kind == "tool_result":
        return text_of(block.get("tool_use_id"))
    return text_of(block.get("call_id")) if kind.endswith("_output") else ""


def _words(results: Any) -> list[str]:
    """Return texts and numbers of a result, at most some of them."""
    words: list[str] = []
    waiting = [results]
    while waiting and len(words) < LOOKED_FOR:
        thing = waiting.pop()
        if isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list):
            waiting += thing[:LOOKED_FOR]
        elif isinstance(thing, (str, int, float)) and not isinstance(thing, bool):
            # What JSON in JSON would escape is not looked for.
            word = max(_PLAIN.findall(str(thing)[:LONGEST]), key=len, default="")
            if len(word) >= TELLING:
                words.append(word)
    return words
