"""
The hybrid checkout of PyPI whyops, in both faces: model calls through the WhyOps proxy, tools reported beside them.

Only the import is another. Without WHYOPS_API_KEY the client asks OpenAI itself, and the trace stays on this machine.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from whyops_trace import ToolCallPair, WhyOps

sdk = WhyOps(
    agent_name="customer-support-agent",
    agent_metadata={"systemPrompt": "You are helpful.", "tools": []},
)

ASKED: list[Any] = [{"role": "user", "content": "Please charge my card for order 8841."}]
CALLS: list[ToolCallPair] = [{"name": "charge_card", "arguments": {"amount": 4999, "currency": "usd"}}]
RESULTS = {"id": "ch_1", "status": "succeeded"}
CHARGED: list[Any] = [*ASKED, {"role": "user", "content": f"The card was charged: {RESULTS}"}]


def checkout(trace_id: str) -> str | None:
    """Take the workflow from synchronous code."""
    trace = sdk.trace(trace_id)
    client = sdk.openai(openai.OpenAI())
    client.default_headers = {  # type: ignore[misc]
        **(client.default_headers or {}),
        "X-Trace-ID": trace_id,
        "X-Thread-ID": trace_id,
    }
    client.chat.completions.create(model="openai/gpt-4o", messages=ASKED)
    span_id = trace.tool_call_request_sync("charge_card", CALLS)
    trace.tool_call_response_sync("charge_card", span_id, CALLS, RESULTS, latency_ms=320)
    answer = client.chat.completions.create(model="openai/gpt-4o", messages=CHARGED)
    return answer.choices[0].message.content


async def checkout_async(trace_id: str) -> str | None:
    """Take the same workflow from asynchronous code, with the trace as a block that says the ids."""
    async with sdk.openai(openai.AsyncOpenAI()) as client, sdk.trace(trace_id) as trace:
        await client.chat.completions.create(model="openai/gpt-4o", messages=ASKED)
        span_id = await trace.tool_call_request("charge_card", CALLS)
        await trace.tool_call_response("charge_card", span_id, CALLS, RESULTS, latency_ms=320)
        answer = await client.chat.completions.create(model="openai/gpt-4o", messages=CHARGED)
    return answer.choices[0].message.content


if __name__ == "__main__":
    print(checkout("checkout-8841"))
    print(asyncio.run(checkout_async("checkout-8842")))
    sdk.flush_sync()
