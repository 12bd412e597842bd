"""
What a trace tells, in the order it is read: what was asked, each turn with what it added, how it ended, and why.

A tree shows what called what; a story shows what the model saw, what it decided, and what became of it. Nothing here
asks a model: every sentence follows from the records by a fixed rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from whyops_trace.story.arrangement import Arrangement
from whyops_trace.story.outcome import Failures, add_outcome
from whyops_trace.story.telling import Telling
from whyops_trace.story.turns import (
    Call,
    Change,
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
    "Message",
    "PromptChange",
    "Section",
    "Story",
    "ToolUse",
    "Turn",
    "Why",
    "WhyKind",
    "tell",
]


def tell(
    events: Iterable[Mapping[str, Any]],
    ended: Callable[[str], bool] = lambda _: False,
    *,
    priced: bool = False,
) -> Story:
    """
    Return the story of one trace.

    Of each record only what is new in it is kept, so they may come one by one from a file. What they hold is passed
    on as it was recorded, but for ``status``, the texts of ``whys`` and those of nodes, which are single lines and
    safe to print.

    Args:
        events: Its records, decoded, in the order of their steps.
        ended: Says of the token of a process whether it is gone.
        priced: Whether to tell what calls of models cost; for the first of them the price data is loaded.
    """
    telling = Telling(priced)
    for event in events:
        telling.add(event)
    story = Story(telling.finish(ended))
    arrangement = Arrangement(telling, story)
    failures = Failures(telling, arrangement)
    add_outcome(story, telling, arrangement, failures)
    story.whys = explain(story, telling, arrangement, failures)
    return story
