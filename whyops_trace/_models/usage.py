"""
Token counts of answers, read from the names under which providers report them.

A count that cannot be is reported as it was told, and no count is made up: a usage whose parts do not add up to its
total is left for its readers to notice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._checks import MAX_COUNT
from whyops_trace._shapes import dict_of, dicts_of, is_number
from whyops_trace.types import TokenUsage

#: Paths of each count in a usage. Where an answer has several of them the largest counts, since some servers fill the
#: names of another dialect with zeros.
_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt": (
        # OpenAI's chat completions and all who follow them: https://platform.openai.com/docs/api-reference/chat/object
        "prompt_tokens",
        # OpenAI's responses: https://platform.openai.com/docs/api-reference/responses/object
        # Anthropic's messages, without the cached ones: https://docs.anthropic.com/en/api/messages
        "input_tokens",
    ),
    "completion": ("completion_tokens", "output_tokens"),
    "total": ("total_tokens",),
    "read": (
        # OpenAI, and with it Groq, Fireworks, Cerebras, OpenRouter and Google: parts of the prompt.
        # https://platform.openai.com/docs/guides/prompt-caching
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        # DeepSeek, a part of the prompt, beside prompt_cache_miss_tokens: https://api-docs.deepseek.com/guides/kv_cache
        "prompt_cache_hit_tokens",
        # Mistral, a part of the prompt: https://docs.mistral.ai/studio-api/conversations/advanced/prompt-caching
        "num_cached_tokens",
        # Moonshot, a part of the prompt: https://platform.moonshot.ai/docs/api/chat
        "cached_tokens",
        # Anthropic, beside the prompt: https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
        "cache_read_input_tokens",
    ),
    "written": (
        # OpenAI and OpenRouter, parts of the prompt: https://openrouter.ai/docs/use-cases/usage-accounting
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        # Anthropic, beside the prompt.
        "cache_creation_input_tokens",
    ),
    # Anthropic: parts of the written ones, by how long they are kept.
    "hour": ("cache_creation.ephemeral_1h_input_tokens",),
    "minutes": ("cache_creation.ephemeral_5m_input_tokens",),
    "reasoning": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "completion_tokens_details.thinking_tokens",
        "output_tokens_details.thinking_tokens",
        # Perplexity: https://docs.perplexity.ai/api-reference/chat-completions-post
        "reasoning_tokens",
    ),
}
#: Members of a usage with the price of the answer in US dollars, as its seller tells it; the first one counts.
_COSTS: Final = (
    # OpenRouter: https://openrouter.ai/docs/use-cases/usage-accounting
    # Perplexity, with more in it: https://docs.perplexity.ai/api-reference/chat-completions-post
    "cost",
    # DeepInfra: https://deepinfra.com/docs/openai_api
    "estimated_cost",
)
#: Counts by the outer name of their paths, each with the inner name, "" for none.
_MEMBERS: Final[dict[str, list[tuple[str, str]]]] = {}
for _name, _paths in _PATHS.items():
    for _outer, _, _inner in (path.partition(".") for path in _paths):
        _MEMBERS.setdefault(_outer, []).append((_name, _inner))
_PROMPT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details")


def read_usage(answer: Mapping[str, Any]) -> TokenUsage:
    """
    Read the token counts of an answer in the protocol's own names, or in those of a provider.

    In the protocol, ``promptTokens`` excludes the tokens read from and written to the cache, since WhyOps adds the
    three. OpenAI's ``prompt_tokens`` and ``input_tokens`` include both, Anthropic's ``input_tokens`` excludes them. The
    lifetime of OpenAI's cache does not change its price.

    Reasoning that a provider counts beside the completion, as xAI does (https://docs.x.ai/docs/guides/reasoning), is
    added to it if the total shows that.

    Args:
        answer: The answer. Its usage is the member of that name, or else that of ``x_groq`` in the streams of Groq
            (https://console.groq.com/docs/api-reference), or of the first choice in those of Moonshot.
    """
    usage = _usage(answer)
    if not usage.keys().isdisjoint(("promptTokens", "completionTokens", "totalTokens")):
        return _present({key: _int(usage.get(key)) for key in TokenUsage.__annotations__}, usage)
    counts = _counts(usage)
    for each in map(_counts, _compactions(usage)):
        counts = {name: _sum(count, each[name]) for name, count in counts.items()}
    told, completion, total, reasoning = (
        counts[name] for name in ("prompt", "completion", "total", "reasoning")
    )
    read, hour = counts["read"] or 0, counts["hour"] or 0
    written = counts["written"] or hour + (counts["minutes"] or 0)
    prompt, beside = told, read + written
    if told is not None and (
        "prompt_tokens" in usage or any(dict_of(usage.get(key)) for key in _PROMPT_DETAILS)
    ):
        prompt, beside = max(0, told - read - written), 0
    if reasoning and total == (told or 0) + beside + (completion or 0) + reasoning:
        completion = (completion or 0) + reasoning
    if total is None and (told is not None or completion is not None):
        total = _int((told or 0) + beside + (completion or 0))
    return _present(
        {
            "promptTokens": prompt,
            "completionTokens": completion,
            "totalTokens": total,
            "cacheReadTokens": read or None,
            "cacheCreationTokens": written or None,
            "cacheWrite1hTokens": hour or None,
            "reasoningTokens": reasoning or None,
        },
        usage,
    )


def _usage(answer: Mapping[str, Any]) -> dict[str, Any]:
    places = (answer, dict_of(answer.get("x_groq")), *dicts_of(answer.get("choices")))
    return next((usage for place in places if (usage := dict_of(place.get("usage")))), {})


def _compactions(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """
    Return the usage of each pass in which Anthropic compacted the conversation.

    They are billed, and not in the usage of the message itself:
    https://platform.claude.com/docs/en/build-with-claude/compaction
    """
    return [each for each in dicts_of(usage.get("iterations")) if each.get("type") == "compaction"]


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first if second is None else first + second


def _present(counts: Mapping[str, int | None], usage: Mapping[str, Any]) -> TokenUsage:
    """Return the counts that are known, with the price that the seller told."""
    present: dict[str, Any] = {key: value for key, value in counts.items() if value is not None}
    for name in _COSTS:
        cost = usage.get(name)
        cost = cost.get("total_cost") if isinstance(cost, dict) else cost
        if _is_amount(cost):
            present["cost"] = cost
            break
    return present  # type: ignore[return-value]


def _counts(usage: Mapping[str, Any]) -> dict[str, int | None]:
    """Return each count of a usage by its name in :data:`_PATHS`, None if the usage has it under none."""
    counts: dict[str, int | None] = dict.fromkeys(_PATHS)
    for outer, value in usage.items():  # it has few members, and this runs in every traced call of a model
        for name, inner in _MEMBERS.get(outer, ()):
            count = _int(dict_of(value).get(inner) if inner else value)
            before = counts[name]
            if count is not None and (before is None or count > before):
                counts[name] = count
    return counts


def _int(value: Any) -> int | None:
    """Return a count that a server can store, None for anything else."""
    return round(value) if _is_amount(value) and value <= MAX_COUNT else None


def _is_amount(value: Any) -> bool:
    return is_number(value) and 0 <= value < math.inf
