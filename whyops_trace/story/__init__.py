"""
The story of a trace, in the order a person reads it: the question, each turn and its news, the end, and the reasons.

A tree shows which call made which. A story shows the input of the model, its decisions, and their results. No model
is asked: every sentence follows from the records by a fixed rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from whyops_trace._reading.nodes import parts
from whyops_trace.story.arrangement import Arrangement
from whyops_trace.story.material import Material
from whyops_trace.story.moments import Explanation, Moment, moments, why
from whyops_trace.story.outcome import Failures, add_outcome, add_status
from whyops_trace.story.provenance import Origin, provenance
from whyops_trace.story.telling import Telling
from whyops_trace.story.turns import (
    Call,
    Change,
    FailedCall,
    Message,
    PromptChange,
    Section,
    Story,
    ToolUse,
    Turn,
    Why,
    WhyKind,
)
from whyops_trace.story.whys import explain

__all__ = [
    "Call",
    "Change",
    "Explanation",
    "FailedCall",
    "Message",
    "Moment",
    "Origin",
    "PromptChange",
    "Section",
    "Story",
    "ToolUse",
    "Turn",
    "Why",
    "WhyKind",
    "moments",
    "provenance",
    "tell",
    "why",
]


def tell(
    events: Iterable[Mapping[str, Any]],
    ended: Callable[[str], bool] = lambda _: False,
    *,
    priced: bool = False,
) -> Story:
    """
    Return the story of one trace.

    Of each record the story holds only the new content, as recorded. Only ``status``, the texts of ``whys`` and those
    of nodes are single lines that are safe to print.

    Args:
        events: The trace's records, decoded, in the order of their steps.
        ended: Function that takes the token of a process and returns True if that process is gone.
        priced: True to include the cost of model calls. The first such call loads the price data.
    """
    telling = Telling(priced)
    for part in parts(events):
        telling.add(part)
    story = Story(telling.finish(ended))
    arrangement = Arrangement(telling, story)
    failures = Failures(telling, arrangement)
    add_outcome(story, telling, arrangement, failures)
    story.whys = explain(Material(story, telling, arrangement, failures))
    add_status(story, telling, arrangement)
    return story
