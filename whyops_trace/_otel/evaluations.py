"""
Scores that spans and log records tell of, in the words of GenAI and of OpenInference.

They are events named ``gen_ai.evaluation.result``, as log records or on spans; spans that stand for such an event; and
attributes that spread annotations or evaluations over names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from whyops_trace._checks import MAX_COMMENT, MAX_LABEL
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.span import EVALUATION, Span
from whyops_trace._shapes import dict_of, list_of, text_of

#: The attributes of a result.
NAME: Final = "gen_ai.evaluation.name"
_VALUE: Final = "gen_ai.evaluation.score.value"
_LABEL: Final = "gen_ai.evaluation.score.label"
_COMMENT: Final = "gen_ai.evaluation.explanation"
#: Attributes of OpenInference, by the begin of their names: the member of each item, and True if it is of the trace.
_COLLECTIONS: Final = {
    "annotations.": ("annotation", False),
    "evaluations.": ("evaluation", False),
    "trace.annotations.": ("annotation", True),
    "trace.evaluations.": ("evaluation", True),
}
_PREFIXES: Final = tuple(_COLLECTIONS)
#: A thumb as this library exports it: a number and the word for it.
_THUMBS: Final = {(1.0, "true"): True, (0.0, "false"): False}


class SpanScore(NamedTuple):
    """
    A score that a span or a log record tells of.

    Attributes:
        content: Its name, and of ``value``, ``label`` and ``comment`` what there is.
        time_ns: When it was given, in nanoseconds since the epoch.
        span_id: The span that is judged, "" for the trace as a whole.
        response_id: The answer of a model that is judged, "" if that is not told.
    """

    content: dict[str, Any]
    time_ns: int
    span_id: str = ""
    response_id: str = ""


def result_of(name: Any, value: Any = None, label: Any = None, comment: Any = None) -> dict[str, Any]:
    """Return a score of another product as the attributes of a result."""
    about = {NAME: name, _VALUE: value, _LABEL: label, _COMMENT: comment}
    return {key: member for key, member in about.items() if member not in (None, "")}


def score_in(about: Mapping[str, Any], time_ns: int, span_id: str) -> SpanScore | None:
    """Return the score in the attributes of a result; None if it has no name, or says nothing."""
    name, label = text_of(about.get(NAME))[:MAX_LABEL], text_of(about.get(_LABEL))[:MAX_LABEL]
    value, comment = about.get(_VALUE), text_of(about.get(_COMMENT))[:MAX_COMMENT]
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        value = None
    elif not isinstance(value, bool) and (value, label) in _THUMBS:
        value, label = _THUMBS[value, label], ""
    content = {"name": name} | ({} if value is None else {"value": value})
    content |= {key: text for key, text in (("label", label), ("comment", comment)) if text}
    if not name or len(content) == 1:
        return None
    return SpanScore(content, time_ns, span_id, text_of(about.get("gen_ai.response.id")))


def may_score(span: Span) -> bool:
    """Tell by the names of its attributes and events whether a span tells of scores."""
    return (
        any(name == NAME or name.startswith(_PREFIXES) for name in span.attributes)
        or any(event.name == EVALUATION for event in span.events)
    )  # fmt: skip


def scores_on(span: Span) -> list[SpanScore]:
    """Return the scores that a span tells of: of itself, of what it is in if it stands for a score, or of its trace."""
    return list(filter(None, _told(span))) if may_score(span) else []


def _told(span: Span) -> Iterator[SpanScore | None]:
    is_score, end_ns = NAME in span.attributes, span.end_ns or span.start_ns
    judged = span.parent_id if is_score else span.span_id
    results = [event for event in span.events if event.name == EVALUATION]
    for event in results:
        yield score_in(event.attributes, event.time_ns or end_ns, judged)
    if is_score and not results:
        yield score_in(span.attributes, end_ns, judged)
    for prefix, (member, is_of_trace) in _COLLECTIONS.items():
        for item in list_of(Attributes(span.attributes).nested(prefix[:-1])):
            told = dict_of(dict_of(item).get(member))
            about = result_of(*(told.get(name) for name in ("name", "score", "label", "explanation")))
            yield score_in(about, end_ns, "" if is_of_trace else judged)
