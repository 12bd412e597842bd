"""Token counts under the many names that spans have for them."""

from __future__ import annotations

from typing import Any, Final

from whyops_trace._models.usage import read_usage
from whyops_trace._otel.attributes import Attributes, literal
from whyops_trace._shapes import dict_of
from whyops_trace.types import TokenUsage

_INPUT: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "ai.usage.tokens",
    "input_tokens",
)
_OUTPUT: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
    "output_tokens",
)
_READ: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cache_read_input_tokens",
    "gen_ai.usage.details.cached_tokens",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.input_tokens.cached",
    "gen_ai.usage.input_token_details.cached",
    "llm.token_count.prompt_details.cache_read",
    "llm.token_count.prompt_details.cache_input",
    "ai.usage.inputTokenDetails.cacheReadTokens",
    "ai.usage.cachedInputTokens",
    "cache_read_tokens",
)
_WRITTEN: Final = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_input_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "gen_ai.usage.details.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
    "ai.usage.inputTokenDetails.cacheWriteTokens",
    "cache_creation_tokens",
)
_REASONING: Final = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.thinking_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "gen_ai.usage.output_token_details.reasoning",
    "llm.token_count.completion_details.reasoning",
    "ai.usage.outputTokenDetails.reasoningTokens",
    "ai.usage.reasoningTokens",
)
_TOTAL: Final = (
    "gen_ai.usage.total_tokens",
    "llm.usage.total_tokens",
    "llm.token_count.total",
    "ai.usage.totalTokens",
    "ag2.usage.total_tokens",
)
#: Usages as the provider wrote them, as JSON or as Python prints them.
_RAW: Final = (
    "gen_ai.usage.raw",
    "langfuse.observation.usage_details",
    "metadata.usage_object",
    "mlflow.chat.tokenUsage",
)


def read_tokens(attributes: Attributes, *, cached_beside: bool = False) -> TokenUsage:
    """
    Return the token counts of a span; prompt tokens exclude the cached ones.

    Args:
        attributes: Those of the span.
        cached_beside: True if the input of that source excludes the cached tokens already.
    """
    told = attributes.count(*_INPUT)
    counts: dict[str, int | None] = {
        "promptTokens": told,
        "completionTokens": attributes.count(*_OUTPUT),
        "cacheReadTokens": attributes.count(*_READ) or None,
        "cacheCreationTokens": attributes.count(*_WRITTEN) or None,
        "reasoningTokens": attributes.count(*_REASONING) or None,
    }
    total = attributes.count(*_TOTAL)
    cached = (counts["cacheReadTokens"] or 0) + (counts["cacheCreationTokens"] or 0)
    for name in _RAW:
        if name not in attributes.values:
            continue
        raw = read_usage({"usage": dict_of(literal(attributes.get(name)))})
        if raw and not cached:
            # It may tell of cached tokens that are part of the input above.
            cached = raw.get("cacheReadTokens", 0) + raw.get("cacheCreationTokens", 0)
        missing: dict[str, Any] = {key: value for key, value in raw.items() if counts.get(key) is None}
        counts |= missing
    # What the total has besides: cached tokens that are no part of the input, or Google's thinking.
    rest = (total or 0) - (told or 0) - (counts["completionTokens"] or 0)
    if told is not None and not cached_beside and told >= cached and rest != cached:
        counts["promptTokens"] = told - cached
    if rest > 0 and rest != cached and not counts["reasoningTokens"] and is_google(attributes):
        counts["reasoningTokens"] = rest
        counts["completionTokens"] = (counts["completionTokens"] or 0) + rest
    return with_total(counts)


def is_google(attributes: Attributes) -> bool:
    """Return True if a span names Google as the provider, which counts the thinking beside the answer."""
    provider = attributes.text("gen_ai.provider.name", "gen_ai.system", "llm.provider")
    return provider.lower().startswith(("gcp", "gemini", "google", "vertex"))


def with_total(counts: Any) -> TokenUsage:
    """Return counts without those that are unknown, and with their sum."""
    usage: Any = {key: value for key, value in counts.items() if value is not None}
    parts = ("promptTokens", "completionTokens", "cacheReadTokens", "cacheCreationTokens")
    if usage.keys() & {"promptTokens", "completionTokens"}:
        usage["totalTokens"] = sum(usage.get(part, 0) for part in parts)
    return usage  # type: ignore[no-any-return]


def richer(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    """
    Return the more detailed of two usages of one turn.

    They are not mixed, since the prompt tokens of one may include what the other counts by itself. Only the reasoning
    is a part of the same number in both.
    """
    best, less = (one, other) if len(one) >= len(other) else (other, one)
    if "reasoningTokens" in less and "reasoningTokens" not in best:
        return {**best, "reasoningTokens": less["reasoningTokens"]}
    return best
