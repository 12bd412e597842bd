"""The checkout workflow of PyPI whyops 0.1.1, in both faces: only the import is another."""

from __future__ import annotations

import asyncio
import os

from whyops_trace import MessageItem, TokenUsage, ToolCallPair, UserMessageMetadata, WhyOps

sdk = WhyOps(
    api_key=os.environ.get("WHYOPS_API_KEY"),  # without one everything stays on this machine
    agent_name="customer-support-agent",
    agent_metadata={"systemPrompt": "You are helpful.", "tools": []},
)

MESSAGES: list[MessageItem] = [{"role": "user", "content": "Please charge my card for order 8841."}]
GIVEN: UserMessageMetadata = {"systemPrompt": "You are helpful.", "params": {"temperature": 0.2}}
CALLS: list[ToolCallPair] = [{"name": "charge_card", "arguments": {"amount": 4999, "currency": "usd"}}]
RESULTS = {"id": "ch_1", "status": "succeeded"}
ANSWER = "Your card was charged 49.99 USD."
USAGE: TokenUsage = {
    "promptTokens": 120,
    "completionTokens": 30,
    "totalTokens": 950,
    "cacheReadTokens": 800,
    "cacheCreationTokens": 0,
}


def checkout(trace_id: str) -> None:
    """Record the workflow from synchronous code."""
    trace = sdk.trace(trace_id)
    trace.user_message_sync(MESSAGES, metadata=GIVEN)
    span_id = trace.tool_call_request_sync("charge_card", CALLS)
    trace.tool_call_response_sync("charge_card", span_id, CALLS, RESULTS, latency_ms=320)
    trace.llm_response_sync(
        "openai/gpt-4o", "openai", ANSWER, finish_reason="stop", usage=USAGE, latency_ms=840
    )


async def checkout_async(trace_id: str) -> None:
    """Record the same workflow from asynchronous code."""
    trace = sdk.trace(trace_id)
    await trace.user_message(MESSAGES, metadata=GIVEN)
    span_id = await trace.tool_call_request("charge_card", CALLS)
    await trace.tool_call_response("charge_card", span_id, CALLS, RESULTS, latency_ms=320)
    await trace.llm_response(
        "openai/gpt-4o", "openai", ANSWER, finish_reason="stop", usage=USAGE, latency_ms=840
    )


if __name__ == "__main__":
    checkout("checkout-8841")
    asyncio.run(checkout_async("checkout-8842"))
