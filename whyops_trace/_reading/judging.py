"""The outcome of a trace, as the list of traces has it, from its records alone."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._reading.ongoing import Ongoing
from whyops_trace._reading.prices import cost, is_billed
from whyops_trace._reading.record import Head, moment
from whyops_trace._reading.score import SCORE
from whyops_trace._reading.summary import TraceSummary
from whyops_trace.types import Audience

#: Records between two pauses for other threads.
_RECORDS: Final = 64

#: The tag of a trace that its program wants to be kept.
KEEP: Final = "keep"

_decoder: Final = msgspec.json.Decoder(Head)


class Judgement(NamedTuple):
    """
    The outcome of a trace.

    Attributes:
        failed: True if it ended with an error, if a call in it failed or said that it did, or, of one that is over, if
            its question has no answer or something in it did not end.
        seconds: Time from its beginning to its latest record.
        cost: US dollars that its calls of models cost, as far as that is known.
        flagged: True if it has a score or a note, or the tag :data:`KEEP`.
    """

    failed: bool
    seconds: float
    cost: Decimal
    flagged: bool


def judge(lines: Iterable[bytes], *, is_over: bool, costs: bool) -> Judgement:
    """
    Return the outcome of a trace, or of a part of it.

    Args:
        lines: Its records, as they are in the journal.
        is_over: True if nothing more of it is expected.
        costs: True to find out its cost.
    """
    summary = TraceSummary("")
    ongoing = Ongoing(summary)
    amount = Decimal(0)
    scored = False
    for number, line in enumerate(lines):
        if number % _RECORDS == _RECORDS - 1:
            give_way()
        try:
            record = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if record.event_type == SCORE:
            scored = True
        elif record.audience != Audience.SERVER.value:  # the others have the same as it says
            summary.add(record)
            ongoing.add(record)
            if costs:
                amount += _cost(record)
    ongoing.count()
    is_left = summary.open_calls > 0 or (summary.asked and summary.ending in ("", "call", "limit"))
    failed = summary.failed or bool(summary.errors or summary.said_failed) or (is_over and bool(is_left))
    return Judgement(failed, _seconds(summary), amount, scored or KEEP in summary.tags)


def _cost(record: Head) -> Decimal:
    about = record.metadata
    if not is_billed(record.event_type, about.wraps):
        return Decimal(0)
    return cost(about.model, about.provider, about.usage, record.timestamp) or Decimal(0)


def _seconds(summary: TraceSummary) -> float:
    began, ended = moment(summary.started_at), moment(summary.last_at)
    return 0.0 if began is None or ended is None else (ended - began) / 1_000
