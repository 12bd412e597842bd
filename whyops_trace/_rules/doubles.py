"""Turns of models that were reported twice."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterator, Sequence
from typing import Any, Final

from whyops_trace._models.links import TRACE_ID_ARGUMENT, asked_arguments
from whyops_trace._reading.excerpt import get, message_text
from whyops_trace._reading.record import StoredRecord
from whyops_trace._rules.exchanges import Exchanges, Turn
from whyops_trace._rules.finding import Finding
from whyops_trace._shapes import dict_of

#: Milliseconds between two reports of one turn. The same answer later is the answer to another request.
WITHIN_MS: Final = 60_000
#: Characters that the WhyOps proxy signs answers with.
_SIGNATURE: Final = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff"))


def doubled(events: Sequence[StoredRecord], exchanges: Exchanges) -> Iterator[Finding]:
    """
    Yield turns that were reported twice without either saying that it wraps the other.

    Two answers of one model that say the same, at most a minute apart, are one turn

    - if one was made inside the other, and one of them was reported by hand, or both have counted the tokens;
    - if one of them was reported by hand, and no model was asked anything else between them;
    - if both were reported by hand, or by the WhyOps proxy, and only one bears the proxy's mark.
    """
    places = _Places(events)
    latest: dict[str, Turn] = {}
    for turn in sorted((turn for turn in exchanges.turns if turn.response is not None), key=places.of_answer):
        answer = _answer_key(turn)
        before = latest.pop(answer, None)
        if turn.wraps or not answer:  # the turn itself says that it repeats the one before
            continue
        latest[answer] = turn
        if before is not None and _is_double(before, turn, places):
            yield _doubled(before, turn)


class _Places:
    """The places of events in a trace: their order, and the calls that enclose them."""

    def __init__(self, events: Sequence[StoredRecord]) -> None:
        self._positions = {id(event): position for position, event in enumerate(events)}
        self._requests = [
            n for n, event in enumerate(events) if event.kind in ("user_message", "tool_result")
        ]
        self._within = {event.step: event.within for event in reversed(events) if not event.is_local}

    def of_answer(self, turn: Turn) -> int:
        """Return the position of a turn's answer."""
        return self._positions[id(turn.response)]

    def is_inside(self, inner: Turn, outer: Turn) -> bool:
        """Return True if a turn was made inside another."""
        around, step = (outer.request.step if outer.request else 0), inner.first.step
        while 0 < around < step and (within := self._within.get(step, 0)) < step:
            if within == around:
                return True
            step = within
        return False

    def asked_between(self, first: Turn, second: Turn) -> int:
        """Return the number of model requests between two answers, without the request of the second."""
        start, end = (bisect(self._requests, self.of_answer(turn)) for turn in (first, second))
        return end - start - self.is_asked_after(first, second)

    def is_asked_after(self, first: Turn, second: Turn) -> bool:
        """Return True if the second turn's request comes after the first one's answer."""
        return second.request is not None and self._positions[id(second.request)] > self.of_answer(first)


def _is_double(first: Turn, second: Turn, places: _Places) -> bool:
    moments = [turn.response.moment for turn in (first, second) if turn.response and turn.response.moment]
    if len(moments) == 2 and moments[1] - moments[0] > WITHIN_MS:
        return False
    by_hand = sum(not turn.function for turn in (first, second))
    if by_hand < 2 and (places.is_inside(first, second) or places.is_inside(second, first)):
        return by_hand == 1 or bool(first.tokens.total and second.tokens.total)
    if places.asked_between(first, second):
        return False
    if places.is_asked_after(first, second) and _question(first) != _question(second):
        return False
    # Several answers to one question may well be the same, and be reported by hand one after the other.
    return by_hand == 1 or _is_signed(first) != _is_signed(second)


def _question(turn: Turn) -> str:
    """Return the text of the last message to a turn's model."""
    return message_text(get(turn.messages[-1], "content")) if turn.messages else ""


def _is_signed(turn: Turn) -> bool:
    """Return True if an answer came through the WhyOps proxy."""
    text = turn.text
    return text.translate(_SIGNATURE) != text or any(
        TRACE_ID_ARGUMENT in str(call.get("function")) for call in turn.calls
    )


def _doubled(first: Turn, second: Turn) -> Finding:
    extra, original = (first, second) if not first.function and second.function else (second, first)
    source = "by hand " if not extra.function else ""
    return Finding(
        "DOUBLED_TURN",
        "medium",
        f"A turn of {extra.name} is there twice: it was reported {source}again.",
        [extra.step, original.step],
        "Turns, tokens and costs count it twice, and it looks as if the model had been asked twice.",
        "Report each turn once: leave out llm_response where a traced client, the WhyOps proxy or @traced_llm reports "
        "it already.",
        {"model": extra.name, "tokensTwice": min(first.tokens.total, second.tokens.total)},
    )


def _answer_key(turn: Turn) -> str:
    """Return a text of model, answer and tool calls that is equal for one turn; "" for an empty answer."""
    text = " ".join(turn.text.translate(_SIGNATURE).split())
    calls = [_call(dict_of(call.get("function")) or call) for call in turn.calls]
    model = turn.model.rpartition("/")[2].lower()
    return json.dumps([model, text, calls], sort_keys=True) if text or calls else ""


def _call(function: dict[str, Any]) -> list[Any]:
    return [function.get("name"), asked_arguments(function.get("arguments"))]
