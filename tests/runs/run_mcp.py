"""MCP: a client of a model calls the tools of a server in another process; spans are OpenInference's and MCP's own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from openai import OpenAI
from opentelemetry import trace
from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn

from whyops_trace.integrations import mcp

WAY = sys.argv[1]


def run(provider: Provider) -> Told:
    model = OpenAI(base_url=provider.openai_url, api_key=provider.openai_key)
    server = StdioServerParameters(
        command=sys.executable,
        args=[str(Path(__file__).with_name("mcp_server.py")), WAY],
        env=dict(os.environ),
    )
    with trace.get_tracer("shop").start_as_current_span("answer"):
        return asyncio.run(_answer(model, server))


async def _answer(model: OpenAI, server: StdioServerParameters) -> Told:
    told = Told({})
    messages: list[Any] = [
        {"role": "system", "content": shop.CLERK},
        {"role": "user", "content": shop.QUESTION},
    ]
    async with Client(stdio_client(server)) as client:
        tools: list[Any] = [
            {"type": "function", "function": {"name": tool.name, "parameters": tool.input_schema}}
            for tool in (await client.list_tools()).tools
        ]
        while True:
            answer: Any = model.chat.completions.create(model=shop.MODEL, messages=messages, tools=tools)
            message, usage = answer.choices[0].message, answer.usage
            calls = [
                Asked(call.id, call.function.name, call.function.arguments)
                for call in message.tool_calls or ()
            ]
            told.turns.append(
                Turn("", message.content or "", calls, usage.prompt_tokens, usage.completion_tokens)
            )
            if not calls:
                return told
            messages.append(message.model_dump(exclude_none=True))
            for call in calls:
                arguments = json.loads(call.arguments)
                result = await client.call_tool(call.name, arguments)
                text = result.content[0].text
                told.ran.append(Ran("", call.id, call.name, arguments, text, result.is_error))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


def prepare() -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    if WAY == "attached":
        mcp.attach()


if __name__ == "__main__":
    first, refund, *_, last = shop.script()
    shop.play(
        run,
        [first, refund, last],
        packages=("mcp", "openinference-instrumentation-openai"),
        prepare=prepare,
    )
