"""The scores of a trace, apart from the spans and log records that tell of what happened in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from whyops_trace._otel.evaluations import NAME, SpanScore, score_in, scores_on
from whyops_trace._otel.events import Event
from whyops_trace._otel.span import EVALUATION, LogRecord, Span
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: The type of the record of a score.
SCORE: Final = "score"
#: Largest number of scores that are taken of a trace.
_MANY: Final = 10_000


def take_scores(
    spans: Sequence[Span], logs: Sequence[LogRecord]
) -> tuple[list[Span], list[LogRecord], list[SpanScore]]:
    """
    Return the spans and the log records of a trace that tell of what happened, and the scores that the others tell of.

    A span that stands for a score, with nothing in it, is left out.
    """
    judges = {span.span_id: span.parent_id for span in spans if NAME in span.attributes}
    scores = [score for span in spans for score in scores_on(span)]
    for log in logs:
        if log.name == EVALUATION:
            about = {**log.attributes, **dict_of(log.body)}
            score = score_in(about, log.time_ns, judges.get(log.span_id, log.span_id))
            scores += [] if score is None else [score]
    parents = {span.parent_id for span in spans}
    happened = [span for span in spans if span.span_id not in judges or span.span_id in parents]
    return happened, [log for log in logs if log.name != EVALUATION], scores[:_MANY]


class Judged:
    """
    The steps of a trace by the spans and the answers that they were made of.

    Args:
        events: Step, enclosing step and metadata of each event, in order.
    """

    def __init__(self, events: Iterable[tuple[int, int, Mapping[str, Any]]]) -> None:
        self._steps: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        for step, within, metadata in events:
            source = dict_of(metadata.get("otel"))
            # Who judges the span around everything judges the trace.
            judged = 0 if "parent" not in source else step
            for each in (source, *dicts_of(source.get("layers")), *dicts_of(source.get("folded"))):
                self._steps.setdefault(text_of(each.get("span")), judged)
            if answer := text_of(metadata.get("responseId")):
                self._answers.setdefault(answer, within)

    def step(self, score: SpanScore) -> int:
        """Return the step that a score is of, 0 for the trace as a whole, also where what it judges is not there."""
        return self._steps.get(score.span_id) or self._answers.get(score.response_id, 0)


def score_events(scores: Iterable[SpanScore], judged: Judged) -> Iterator[Event]:
    """Yield scores as records of the store."""
    for score in scores:
        yield Event(
            SCORE,
            score.time_ns,
            score.span_id,
            "otel-score",
            {"source": "otel"},
            score.content,
            step=judged.step(score),
            is_local=True,
        )
