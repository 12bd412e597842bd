"""Reasons for which models stop, in the words of their providers."""

from __future__ import annotations

import pytest

from whyops_trace._models.stops import stop_of


@pytest.mark.parametrize(
    ("told", "stop"),
    [
        ("stop", "complete"),
        ("STOP", "complete"),
        ("FINISH_REASON_STOP", "complete"),
        ("end_turn", "complete"),
        ("stop_sequence", "complete"),
        ("COMPLETE", "complete"),
        ("tool_call", "tools"),
        ("tool-calls", "tools"),
        ("function_calls", "tools"),
        ("FinishReason.STOP", "complete"),
        ("TOOL_CALL", "tools"),
        ("tool_use", "tools"),
        ("MAX_TOKENS", "cut"),
        ("length", "cut"),
        ("content-filter", "filtered"),
        ("SAFETY", "filtered"),
        ("pause_turn", ""),
        ("", ""),
    ],
)
def test_reasons_are_known_in_each_spelling(told: str, stop: str) -> None:
    """Providers, OpenTelemetry and JavaScript write the same reason in different ways; an unknown one is none."""
    assert stop_of(told) == stop
