"""What a server would refuse or lose is refused at the call, with an error that says what it must be."""

from __future__ import annotations

from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import InvalidEventError, trace

CALLS = [{"name": "charge_card", "arguments": {"amount": 4999}}]
MESSAGES = [{"role": "user", "content": "hello"}]

WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("user_message", ("hello",), {}, r'messages is str .*it must be a list such as \[\{"role"'),
    ("user_message", (MESSAGES,), {"metadata": 5}, "metadata is int 5; it must be a dict"),
    ("user_message", (MESSAGES,), {"metadata": {"systemPrompt": ["x"]}}, "systemPrompt.*join its blocks"),
    ("user_message", (MESSAGES,), {"metadata": {"within": 3}}, "within"),
    ("llm_response", ("", "openai"), {}, "model is ''; it must be text of 1 to 200 characters"),
    ("llm_response", ("m" * 201, "openai"), {}, "model has 201 characters"),
    ("llm_response", ("m", None), {}, "provider is None"),
    ("llm_response", ("m", "p", 5), {}, "content is int 5; it must be text or None"),
    ("llm_response", ("m", "p"), {"tool_calls": "x"}, "tool_calls is str"),
    ("llm_response", ("m", "p"), {"finish_reason": 5}, "finish_reason is int 5"),
    ("llm_response", ("m", "p"), {"usage": {"promptTokens": -1}}, r"usage\['promptTokens'\] is -1"),
    ("llm_response", ("m", "p"), {"usage": {"promptTokens": "5"}}, r"usage\['promptTokens'\] is '5'"),
    ("llm_response", ("m", "p"), {"usage": 5}, "usage is int 5"),
    ("llm_response", ("m", "p"), {"latency_ms": float("nan")}, "latency_ms is nan"),
    ("llm_response", ("m", "p"), {"latency_ms": 2**31}, "latency_ms is 2147483648"),
    ("llm_response", ("m", "p"), {"latency_ms": True}, "latency_ms is True"),
    ("llm_thinking", (5,), {}, "thinking is int 5"),
    ("llm_thinking", ("x",), {"signature": 5}, "signature is int 5"),
    ("embedding_request", ("text",), {}, "inputs is str 'text'; it must be a list"),
    ("embedding_response", ("m", "p", -1, 3), {}, "embedding_count is -1"),
    ("embedding_response", ("m", "p", 1, "3"), {}, "first_embedding_dimensions is '3'"),
    ("tool_call_request", ("", CALLS), {}, "tool is ''"),
    ("tool_call_request", ("t", {"name": "t"}), {}, "tool_calls is dict"),
    (
        "tool_call_request",
        ("t", CALLS),
        {"requested_at": "noon"},
        "requested_at is 'noon'; it must be ISO 8601",
    ),
    ("tool_call_response", ("t", "", CALLS, {}), {}, "span_id is ''"),
    ("tool_call_response", ("t", 5, CALLS, {}), {}, "span_id is 5"),
    ("tool_call_response", ("t", "s", CALLS, "text"), {}, "tool_results is str 'text'; it must be a dict"),
    ("tool_call_response", ("t", "s", CALLS, {}), {"responded_at": 5}, "responded_at is 5"),
    (
        "tool_call_response",
        ("t", "s", CALLS, {}),
        {"failed": 5},
        "failed is int 5; it must be True, False or the words",
    ),
    ("tool_result", (5, {}), {}, "tool_name is 5"),
    ("error", (ValueError("x"),), {}, r"message is ValueError .*str\(exception\)"),
    ("error", ("x",), {"status": "500"}, "status is '500'"),
    ("error", ("x",), {"stack": 5}, "stack is int 5"),
    ("error", ("x",), {"span_id": "s" * 129}, "span_id has 129 characters; at most 128 are stored"),
    ("error", ("x",), {"step_id": 0}, "step_id is 0; it must be an int from 1"),
    ("error", ("x",), {"step_id": True}, "step_id is True"),
    ("error", ("x",), {"step_id": 2**31}, "step_id is 2147483648"),
    ("error", ("x",), {"parent_step_id": "1"}, "parent_step_id is '1'"),
    ("error", ("x",), {"timestamp": 5}, "timestamp is 5"),
    ("error", ("x",), {"timestamp": "yesterday"}, "timestamp is 'yesterday'"),
    ("error", ("x",), {"idempotency_key": ""}, "idempotency_key is ''"),
    ("error", ("x",), {"external_user_id": 5}, "external_user_id is 5"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "args", "kwargs", "text"), WRONG)
async def test_what_a_server_would_refuse_is_refused_at_the_call(
    events: Recorded, name: str, args: Any, kwargs: Any, text: str
) -> None:
    """In both faces, saying what it must be; no step is used up."""
    handle = trace("t")
    with pytest.raises(InvalidEventError, match=text):
        getattr(handle, f"{name}_sync")(*args, **kwargs)
    with pytest.raises(InvalidEventError, match=text):
        await getattr(handle, name)(*args, **kwargs)

    assert events.records == []
    assert handle.error_sync("first") == 1
