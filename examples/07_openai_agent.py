"""
An agent on OpenAI's package: one line traces the client, and every turn, tool call and token is in the trace.

Set OPENAI_API_KEY. With WHYOPS_API_KEY as well, requests go through the WhyOps proxy; without, the trace stays here.
"""

from __future__ import annotations

import json
from typing import Any

import openai

from whyops_trace import WhyOps, traced_tool

sdk = WhyOps(agent_name="checkout-agent", agent_metadata={"systemPrompt": "You are helpful.", "tools": []})
client = sdk.openai(openai.OpenAI())

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "charge_card",
            "parameters": {"type": "object", "properties": {"amount": {"type": "integer"}}},
        },
    }
]


@traced_tool
def charge_card(amount: int, currency: str = "usd") -> dict[str, object]:
    """Charge the card of the customer."""
    return {"id": "ch_1", "amount": amount, "currency": currency}


def checkout(trace_id: str, question: str) -> str:
    """Let the model work with its tools until it has an answer."""
    messages: list[Any] = [{"role": "user", "content": question}]
    with sdk.trace(trace_id):
        while True:
            answer = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
            message = answer.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message)
            for call in message.tool_calls:
                if call.type == "function":
                    result = charge_card(**json.loads(call.function.arguments))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})


if __name__ == "__main__":
    print(checkout("checkout-8841", "Please charge 49.99 USD for order 8841."))
    sdk.flush_sync()
