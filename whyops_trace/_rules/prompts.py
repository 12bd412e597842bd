"""Long prompts that were sent again and not read from the provider's cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from whyops_trace._reading.excerpt import counted
from whyops_trace._rules.conversations import Change, Conversations, Step
from whyops_trace._rules.exchanges import Exchanges, Turn
from whyops_trace._rules.finding import Finding

#: Fewest tokens of a prompt that OpenAI caches, and Anthropic too for most of its models.
SHORTEST_CACHED: Final = 1_024
#: Milliseconds that a cache surely lives after its last use: Anthropic says five minutes, OpenAI five to ten.
KEPT_MS: Final = 300_000
#: Providers known to have a cache. Any other model has one if a turn of it read from or wrote to a cache.
CACHING: Final = frozenset({"openai", "anthropic"})

_CHANGED: Final[dict[Change, str]] = {
    "": "the prompt only grew",
    "tools": "the list of tools had changed",
    "system": "the system prompt had changed",
    "messages": "an earlier message had changed",
}
_ADVICE: Final[dict[Change, str]] = {
    "": "Where the provider caches only what is marked, as Anthropic does, mark the end of what stays the same; else "
    "see whether requests of one conversation go to the same endpoint and key.",
    "tools": "Offer the same tools in the same order in each turn of a conversation.",
    "system": "Keep times, ids and other things that change out of the system prompt, or put them at the end of the "
    "conversation.",
    "messages": "Only append to the conversation; where it has to be shortened, do it seldom and by a lot.",
}


def missed_caches(exchanges: Exchanges, conversations: Conversations) -> Iterator[Finding]:
    """
    Yield conversations in which turns paid the full price for a prompt that had been sent before.

    A turn counts if its model is known to have a cache and it read nothing from it, although it continues a turn that
    sent 1,024 tokens or more and was answered at most five minutes before.
    """
    cached = {turn.model for turn in exchanges.turns if turn.tokens.cache_read or turn.tokens.cache_creation}
    misses: dict[tuple[str, str, Change], list[Step]] = defaultdict(list)
    for step in conversations.steps:
        turn = step.turn
        has_cache = turn.model in cached or turn.provider in CACHING
        if has_cache and step.changed != "unknown" and _is_missed(step.before, turn):
            misses[turn.function, turn.model, step.changed].append(step)
    for (_, model, changed), steps in misses.items():
        yield _finding(steps, changed, is_proven=model in cached)


def _is_missed(before: Turn, turn: Turn) -> bool:
    if before.tokens.sent < SHORTEST_CACHED or not turn.tokens.prompt or turn.tokens.cache_read:
        return False
    answered_at = before.response.moment if before.response is not None else None
    asked_at = turn.request.moment if turn.request is not None else None
    return answered_at is not None and asked_at is not None and 0 <= asked_at - answered_at <= KEPT_MS


def _finding(steps: list[Step], changed: Change, *, is_proven: bool) -> Finding:
    turn, tokens = steps[0].turn, sum(step.before.tokens.sent for step in steps)
    message = f" (message {steps[0].message})" if changed == "messages" else ""
    return Finding(
        "PROMPT_CACHE_MISSED",
        "medium" if changed or is_proven else "low",
        f"{counted(len(steps), 'turn')} of {turn.name} read nothing from the cache, though {tokens:,} tokens had been "
        f"sent before: {_CHANGED[changed]}{message}.",
        [step.turn.step for step in steps],
        "Tokens that come from the cache cost a tenth to a half of the price, and the answer begins sooner.",
        _ADVICE[changed],
        {
            "model": turn.name,
            "turns": len(steps),
            "tokens": tokens,
            "changed": changed or "nothing",
            **({"message": steps[0].message} if steps[0].message else {}),
        },
    )
