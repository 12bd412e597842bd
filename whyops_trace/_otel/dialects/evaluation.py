"""Spans with scores, of whatever dialect else."""

from __future__ import annotations

from collections.abc import Set

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.evaluations import NAME, may_score, scores_on
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans that tell of scores."""
    return may_score(span)


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in the scores. A span that stands for one repeats what that tells."""
    reading.scores = scores_on(span)
    reading.is_copy = reading.is_copy or NAME in span.attributes
