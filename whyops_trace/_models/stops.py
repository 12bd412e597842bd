"""The reasons for which models stop, as their providers and OpenTelemetry name them."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

#: The end of an answer: complete, for the results of tools, cut by a limit, held back by a filter or by the model
#: itself; "" for any other reason.
Stop: TypeAlias = Literal["complete", "tools", "cut", "filtered", ""]

#: Reasons by that, in lower case and with underscores.
_REASONS: Final[dict[Stop, str]] = {
    "complete": "complete completed end_turn eos eos_token stop stop_sequence",
    "tools": "function_call function_calls tool_call tool_calls tool_use",
    "cut": "length max_output_tokens max_tokens model_context_window_exceeded model_length",
    "filtered": (
        "blocklist content_filter content_filtered guardrail_intervened language prohibited_content recitation refusal"
        " safety spii"
    ),
}
_STOPS: Final[dict[str, Stop]] = {
    reason: stop for stop, reasons in _REASONS.items() for reason in reasons.split()
}


def stop_of(reason: str) -> Stop:
    """Return the end of an answer by its reason in any spelling, as ``tool-calls`` or ``FinishReason.STOP``."""
    plain = reason.lower().rpartition(".")[2].replace("-", "_")
    return _STOPS.get(plain.removeprefix("finish_reason_"), "")
