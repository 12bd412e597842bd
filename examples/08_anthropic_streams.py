"""
Streams of Anthropic's package, asynchronously: each turn ends in the trace when its stream does.

Set ANTHROPIC_API_KEY. With WHYOPS_API_KEY as well, requests go through the WhyOps proxy, or, should that be down, to
Anthropic itself.
"""

from __future__ import annotations

import asyncio

import anthropic

from whyops_trace import WhyOps, step, traced_tool

sdk = WhyOps(agent_name="tea-shop")


@traced_tool
async def find_order(number: int) -> str:
    """Look an order up."""
    return f"Order {number}: one teapot, shipped on Monday."


async def answer(client: anthropic.AsyncAnthropic, question: str, facts: str) -> str:
    """Stream an answer."""
    said = ""
    async with client.messages.stream(
        model="claude-sonnet-5",
        max_tokens=300,
        system="You help customers of a tea shop.",
        messages=[{"role": "user", "content": f"{question}\n\n{facts}"}],
    ) as stream:
        async for text in stream.text_stream:
            print(text, end="", flush=True)
            said += text
    print()
    return said


async def main() -> None:
    """Take one turn of a conversation."""
    async with (
        sdk.anthropic(anthropic.AsyncAnthropic(), fallback=True) as client,
        sdk.trace("conversation-17", external_user_id="customer-9"),
    ):
        async with step("look things up"):
            facts = await find_order(8841)
        await answer(client, "Where is my teapot?", facts)
    await sdk.flush()


if __name__ == "__main__":
    asyncio.run(main())
