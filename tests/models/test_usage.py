"""Token counts as they are read from the names and the habits of each provider."""

from __future__ import annotations

from typing import Any

import pytest

from whyops_trace._models.usage import read_usage

USAGES: list[tuple[Any, dict[str, Any]]] = [
    (None, {}),
    ("many", {}),
    ({}, {}),
    (
        {"prompt_tokens": 10, "completion_tokens": 5},
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15},
    ),
    (
        {"prompt_tokens": 10, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 6, "totalTokens": 10, "cacheReadTokens": 4},
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 6, "completionTokens": 1, "totalTokens": 11, "cacheReadTokens": 4},
    ),
    # More tokens than the prompt has: the total is of what was told, so that the parts do not add up to it.
    (
        {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        {"promptTokens": 0, "totalTokens": 3, "cacheReadTokens": 4},
    ),
    (
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 8}},
        {"promptTokens": 0, "totalTokens": 9, "cacheReadTokens": 8, "cacheCreationTokens": 8},
    ),
    ({"prompt_tokens": 3, "prompt_tokens_details": None}, {"promptTokens": 3, "totalTokens": 3}),
    (
        {
            "prompt_tokens": 3438,
            "completion_tokens": 20,
            "total_tokens": 3458,
            "prompt_tokens_details": {"cached_tokens": 3000, "cache_write_tokens": 400, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 15, "accepted_prediction_tokens": 0},
        },
        {
            "promptTokens": 38,
            "completionTokens": 20,
            "totalTokens": 3458,
            "cacheReadTokens": 3000,
            "cacheCreationTokens": 400,
            "reasoningTokens": 15,
        },
    ),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
        {"promptTokens": 6, "completionTokens": 5, "totalTokens": 15, "cacheCreationTokens": 4},
    ),
    (
        {
            "prompt_tokens": 16,
            "completion_tokens": 5,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 2,
        },
        {
            "promptTokens": 10,
            "completionTokens": 5,
            "totalTokens": 21,
            "cacheReadTokens": 4,
            "cacheCreationTokens": 2,
        },
    ),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": None,
            "cache_creation_input_tokens": 6,
            "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 2},
            "output_tokens_details": {"thinking_tokens": 3},
        },
        {
            "promptTokens": 10,
            "completionTokens": 5,
            "totalTokens": 21,
            "cacheCreationTokens": 6,
            "cacheWrite1hTokens": 4,
            "reasoningTokens": 3,
        },
    ),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 2},
        },
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 17, "cacheCreationTokens": 2},
    ),
    (
        {"completionTokens": 5, "reasoningTokens": 4, "cacheWrite1hTokens": 3, "cacheWrite5mTokens": 2},
        {"completionTokens": 5, "reasoningTokens": 4, "cacheWrite1hTokens": 3},
    ),
    (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 2,
        },
        {
            "promptTokens": 10,
            "completionTokens": 5,
            "totalTokens": 21,
            "cacheReadTokens": 4,
            "cacheCreationTokens": 2,
        },
    ),
    ({"input_tokens": None, "output_tokens": 5}, {"completionTokens": 5, "totalTokens": 5}),
    (
        {"promptTokens": 1, "completionTokens": 2, "totalTokens": 9, "cacheReadTokens": 6, "other": 5},
        {"promptTokens": 1, "completionTokens": 2, "totalTokens": 9, "cacheReadTokens": 6},
    ),
    ({"promptTokens": -1, "totalTokens": "9"}, {}),
    ({"prompt_tokens": 2**31, "completion_tokens": 1e300, "total_tokens": 5}, {"totalTokens": 5}),
    (
        {"prompt_tokens": 2**31 - 1, "completion_tokens": 1},
        {"promptTokens": 2**31 - 1, "completionTokens": 1},
    ),
    ({"prompt_tokens": True, "completion_tokens": 2.0}, {"completionTokens": 2, "totalTokens": 2}),
    # Dialects
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "num_cached_tokens": 9},
        {"promptTokens": 1, "completionTokens": 5, "totalTokens": 15, "cacheReadTokens": 9},
    ),
    (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "num_cached_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        {"promptTokens": 1, "completionTokens": 5, "totalTokens": 15, "cacheReadTokens": 9},
    ),
    (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_cache_hit_tokens": 7,
            "prompt_cache_miss_tokens": 3,
        },
        {"promptTokens": 3, "completionTokens": 5, "totalTokens": 15, "cacheReadTokens": 7},
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 4},
        {"promptTokens": 6, "completionTokens": 5, "totalTokens": 15, "cacheReadTokens": 4},
    ),
    # Reasoning beside the completion, if the total shows it.
    (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 115,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
        {
            "promptTokens": 6,
            "completionTokens": 105,
            "totalTokens": 115,
            "cacheReadTokens": 4,
            "reasoningTokens": 100,
        },
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 100},
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15, "reasoningTokens": 100},
    ),
    # A total with more than its parts: nobody says of what.
    (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 915},
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 915},
    ),
    # Costs
    ({"prompt_tokens": 1, "cost": 0.00012}, {"promptTokens": 1, "totalTokens": 1, "cost": 0.00012}),
    (
        {"prompt_tokens": 1, "cost": {"total_cost": 0.006, "request_cost": 0.005}},
        {"promptTokens": 1, "totalTokens": 1, "cost": 0.006},
    ),
    ({"prompt_tokens": 1, "estimated_cost": 0}, {"promptTokens": 1, "totalTokens": 1, "cost": 0}),
    ({"promptTokens": 1, "cost": 0.5}, {"promptTokens": 1, "cost": 0.5}),
    ({"prompt_tokens": 1, "cost": -1}, {"promptTokens": 1, "totalTokens": 1}),
    ({"prompt_tokens": 1, "cost": "a cent"}, {"promptTokens": 1, "totalTokens": 1}),
    ({"prompt_tokens": 1, "cost": True}, {"promptTokens": 1, "totalTokens": 1}),
]


@pytest.mark.parametrize(("usage", "expected"), USAGES)
def test_tokens_are_counted_without_the_cached_ones(usage: Any, expected: dict[str, Any]) -> None:
    """OpenAI counts them among the prompt's, Anthropic beside them."""
    assert read_usage({"usage": usage}) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": {"prompt_tokens": 4, "completion_tokens": 5}},
        {"usage": None, "x_groq": {"id": "req", "usage": {"prompt_tokens": 4, "completion_tokens": 5}}},
        {"choices": [{"index": 0, "usage": {"prompt_tokens": 4, "completion_tokens": 5}}]},
    ],
)
def test_a_usage_stands_in_one_of_several_places(answer: dict[str, Any]) -> None:
    """In the answer, in Groq's own member of it, or in its first choice."""
    assert read_usage(answer) == {"promptTokens": 4, "completionTokens": 5, "totalTokens": 9}


def test_the_passes_of_a_compaction_are_billed_too() -> None:
    """The usage of the message leaves them out."""
    usage = {
        "input_tokens": 181,
        "output_tokens": 8,
        "iterations": [
            {
                "type": "compaction",
                "input_tokens": 100,
                "cache_read_input_tokens": 55_096,
                "output_tokens": 83,
            },
            {"type": "message", "input_tokens": 181, "output_tokens": 8},
        ],
    }

    assert read_usage({"usage": usage}) == {
        "promptTokens": 281,
        "completionTokens": 91,
        "totalTokens": 55_468,
        "cacheReadTokens": 55_096,
    }
