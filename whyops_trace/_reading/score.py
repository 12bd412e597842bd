"""The scores of a trace: thumbs, numbers, labels and notes of people and evaluators."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_COMMENT, MAX_LABEL
from whyops_trace._clock import wire_time
from whyops_trace._guard import attempt
from whyops_trace._reading.excerpt import clean
from whyops_trace._reading.record import Head, decoded
from whyops_trace._shapes import dict_of, text_of

#: The event type of a score. It is no event of its trace: it has no place in its order, and may come at any time.
SCORE: Final = "score"


class Score(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """
    A judgement of a trace, or of one step of it.

    Attributes:
        name: What is judged.
        value: True or False for a thumb up or down, or a number; None if there is a label or a comment only.
        label: The judgement in a word or two, "" if there is none.
        comment: The reason, or a note; "" if there is none.
        step: The step that is judged, 0 for the trace as a whole.
        source: Where it was given: ``program``, ``command``, ``page`` or ``otel``.
        time: When it was given, ISO 8601.
    """

    name: str
    value: bool | float | None = None
    label: str = ""
    comment: str = ""
    step: int = 0
    source: str = "program"
    time: str = ""

    @property
    def shown(self) -> str:
        """The judgement in words: ``up``, ``down``, the number, the label; "" of a note. It is safe to print."""
        value, label = self.value, clean(self.label)
        if value is None:
            return label
        number = ("up" if value else "down") if isinstance(value, bool) else f"{value:.6g}"
        return f"{number} ({label})" if label else number

    @property
    def line(self) -> str:
        """The score in one line that is safe to print."""
        judgement = ": ".join(filter(None, (clean(self.name), self.shown)))
        return " - ".join(filter(None, (judgement, clean(self.comment))))


def typed_value(text: str | None) -> bool | float | str | None:
    """Return the value that a person typed: a thumb for ``up`` and ``down``, a number, else the label itself."""
    if text in ("up", "down"):
        return text == "up"
    with contextlib.suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return text


def score_of(record: Head) -> Score | None:
    """Return the score that a record holds, within the bounds of :func:`check_score`; None if it holds none."""
    content = dict_of(decoded(record.content))
    name, label = (text_of(content.get(member))[:MAX_LABEL] for member in ("name", "label"))
    value = content.get("value")
    if not isinstance(value, bool):
        number = attempt(float, value)[0] if isinstance(value, (int, float)) else None
        value = number if number is not None and math.isfinite(number) else None
    comment = text_of(content.get("comment"))[:MAX_COMMENT]
    if not name or (value is None and not label and not comment):
        return None
    return Score(
        name=name,
        value=value,
        label=label,
        comment=comment,
        step=record.step_id,
        source=text_of(record.metadata.source) or "program",
        time=_time(record.timestamp),
    )


def _time(timestamp: str) -> str:
    """Return a time as records have it, "" if it is none: any score of that name that has one takes its place."""
    return attempt(wire_time, timestamp)[0] or ""


def score_from(row: Any) -> Score:
    """Return the score in a row: name, step, value, 1 if that is a thumb, label, comment, source and time."""
    name, step, value, is_thumb, label, comment, source, time = row
    return Score(
        name=name,
        step=step,
        value=bool(value) if is_thumb else value,
        label=label,
        comment=comment,
        source=source,
        time=time,
    )
