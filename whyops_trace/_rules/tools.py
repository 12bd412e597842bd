"""Problems of tools: spans that do not pair, loops, repeated failures, results that no model was given."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from whyops_trace._models.answers import TOOL_ROLES
from whyops_trace._reading.excerpt import value
from whyops_trace._reading.summary import LOOP
from whyops_trace._rules.exchanges import Exchanges, ToolCall, Turn
from whyops_trace._rules.finding import Finding, named
from whyops_trace._rules.server import loop, orphan, signature, unanswered
from whyops_trace._shapes import dicts_of, is_number, text_of

#: Fewest equal failures that are no accident: two may be a hiccup and its retry.
REPEATED: Final = 3
#: Number of turns that are searched for the text of a result. A loop feeds results back at once, and searching all
#: later turns would take quadratic time.
LOOKED_AHEAD: Final = 5
#: Fewest characters by which a text or number of a result is recognised in a prompt.
TELLING: Final = 3
#: Largest number of texts and numbers of a result that are searched for.
LOOKED_FOR: Final = 20
#: Largest number of characters of each.
LONGEST: Final = 60

#: Words for failures that are alike, by what is said of the calls.
_ALIKE: Final = {"failed": "with the same error", "said that it failed": "in the same words"}

_PLAIN: Final = re.compile(r"[ !#-\[\]-~]+")


def pairs(exchanges: Exchanges, is_gone: Callable[[str], bool]) -> Iterator[Finding]:
    """
    Yield the problems of requests and responses, paired by parents and tools as well as by spans.

    A call still open in a running process does not count as one without a response.
    """
    for call in exchanges.tools:
        if call.response is not None:
            same = call.request.span == call.response.span != ""
            if call.means in ("parent", "name") and not same:
                yield _unpaired(call, call.response.step)
        elif not call.request.process or is_gone(call.request.process):
            yield unanswered(call.request)
    yield from map(orphan, exchanges.orphans)


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


def loops(exchanges: Exchanges) -> Iterator[Finding]:
    """
    Yield each row of identical calls once, with all of its steps.

    The severity is high, as on the server, if all calls had the same outcome. It is low if the outcomes differ, or if
    no arguments were recorded: then a program may be waiting for something. Calls whose arguments were not captured
    may have been any.
    """
    for same, run in itertools.groupby(exchanges.tools, _signature):
        calls = list(run)
        if len(calls) < LOOP or same is None:
            continue
        outcomes = {_outcome(call) for call in calls}
        if not calls[0].arguments and outcomes == {"{}"}:
            continue  # without arguments and results nobody knows if the calls were equal
        waits = len(outcomes) > 1 or not calls[0].arguments
        yield loop([call.request for call in calls], len(calls), "low" if waits else None)


def _signature(call: ToolCall) -> str | None:
    return signature(call.request) if call.request.is_captured else None


def _outcome(call: ToolCall) -> str:
    return call.failure or value(call.results)


def failures(exchanges: Exchanges) -> Iterator[Finding]:
    """Yield calls of tools and models that repeatedly fail with the same error, or say so in the same words."""
    failed: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    last_success: dict[str, int] = {}
    for call in exchanges.tools:
        if call.failure:
            failed[call.name, "failed", named(call.failure)].append(call.step)
        elif call.said_failed:
            failed[call.name, "said that it failed", named(call.said_failed)].append(call.step)
        elif call.response is not None and not call.is_cancelled:
            last_success[call.name] = call.step
    for turn in exchanges.turns:
        if turn.failure:
            failed[turn.name, "failed", named(turn.failure)].append(turn.step)
        elif turn.response is not None and not turn.is_cancelled:
            last_success[turn.name] = turn.step
    for (name, verb, error), steps in failed.items():
        if len(steps) >= REPEATED:
            recovered = last_success.get(name, 0) > steps[-1]
            yield Finding(
                "REPEATED_FAILURE",
                "medium" if recovered else "high",
                f"{name} {verb} {len(steps):,} times {_ALIKE[verb]}: {error}",
                steps,
                "Each attempt took time and tokens, and taught the agent nothing."
                + ("" if recovered else " It never worked after that."),
                "Say in the error what would work instead, do not retry what cannot succeed, and stop after a few "
                "attempts.",
                {"name": name, "error": error, "count": len(steps), "recovered": recovered},
            )


def unused_results(exchanges: Exchanges) -> Iterator[Finding]:
    """
    Yield tool calls whose result no model was given, though a model requested it and there were later turns.

    A result was given if a later turn has a message that answers the call's id, or if one of the next turns holds one
    of the texts or numbers in it.
    """
    askers = {turn.response.step: turn for turn in exchanges.turns if turn.response is not None}
    prompts = _Prompts(exchanges.turns)
    for call in exchanges.tools:
        turn = askers.get(call.asked_by)
        if turn is None or call.response is None or call.failure or call.is_cancelled:
            continue
        words = _words(call.results)
        after = prompts.turns_after(call.response.step)
        # The input of a turn without a recorded prompt is unknown.
        if not words or not after or not all(other.messages for other in after[:LOOKED_AHEAD]):
            continue
        ids = {text_of(item.get("id")) for item in turn.calls} - {""}
        if prompts.is_answered(ids, call.response.step) or prompts.holds_any(words, after[:LOOKED_AHEAD]):
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


class _Prompts:
    """The prompts of the turns of a trace."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = sorted((turn for turn in turns if turn.request is not None), key=_first_step)
        #: First step of the last turn that was given the answer, by the id of the call.
        self._answered: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        before: list[Any] = []
        for turn in self._turns:
            messages = turn.messages
            # The earlier messages of a continued conversation have been read already.
            earlier = len(before) if before and messages[len(before) - 1 : len(before)] == before[-1:] else 0
            for message in dicts_of(messages[earlier:]):
                for block in (message, *dicts_of(message.get("content"))):
                    if call_id := _answers(block):
                        self._answered[call_id] = _first_step(turn)
            before = messages

    def turns_after(self, step: int) -> list[Turn]:
        """Return the turns that began after a step."""
        return self._turns[bisect_right(self._turns, step, key=_first_step) :]

    def is_answered(self, call_ids: set[str], step: int) -> bool:
        """Return True if a turn after a step was given the answer to one of these calls."""
        return any(self._answered.get(call_id, 0) > step for call_id in call_ids)

    def holds_any(self, words: list[str], turns: list[Turn]) -> bool:
        """Return True if the prompt of one of these turns holds one of the words."""
        return any(word in text for text in map(self._text, turns) for word in words)

    def _text(self, turn: Turn) -> str:
        if id(turn) not in self._texts:
            self._texts[id(turn)] = value(turn.messages)
        return self._texts[id(turn)]


def _first_step(turn: Turn) -> int:
    return turn.first.step


def _answers(block: dict[str, Any]) -> str:
    """Return the id of the call that a message or a block answers, "" if it is no answer."""
    kind = text_of(block.get("type"))
    if block.get("role") in TOOL_ROLES:
        return text_of(block.get("tool_call_id"))
    if kind == "tool_result":
        return text_of(block.get("tool_use_id"))
    return text_of(block.get("call_id")) if kind.endswith("_output") else ""


def _words(results: Any) -> list[str]:
    """Return the first texts and numbers of a result, 20 at most."""
    words: list[str] = []
    pending = [results]
    while pending and len(words) < LOOKED_FOR:
        thing = pending.pop()
        if isinstance(thing, dict):
            pending += thing.values()
        elif isinstance(thing, list):
            pending += thing[:LOOKED_FOR]
        elif isinstance(thing, str) or is_number(thing):
            # Characters that JSON within JSON escapes are not searched for.
            word = max(_PLAIN.findall(str(thing)[:LONGEST]), key=len, default="")
            if len(word) >= TELLING:
                words.append(word)
    return words
