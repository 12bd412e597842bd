"""LlamaIndex: agents are workflows; the courier is asked in a tool of the clerk; spans are OpenInference's."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ToolCallResult
from llama_index.llms.openai import OpenAI
from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    model = OpenAI(shop.MODEL, api_base=provider.openai_url, api_key=provider.openai_key)
    told = Told({"clerk": "", "courier": "clerk"})

    def agent(name: str, prompt: str, tools: list[Any]) -> FunctionAgent:
        return FunctionAgent(
            name=name, description=name, system_prompt=prompt, tools=tools, llm=model, streaming=False
        )

    async def ask(to: FunctionAgent, question: str) -> str:
        handler = to.run(question)
        async for event in handler.stream_events():
            if isinstance(event, AgentOutput):
                calls = [Asked(call.tool_id, call.tool_name, call.tool_kwargs) for call in event.tool_calls]
                raw: Any = event.raw
                usage = raw["usage"]
                told.turns.append(
                    Turn(
                        to.name, event.response.content or "", calls, usage["prompt_tokens"],
                        usage["completion_tokens"],
                    )
                )  # fmt: skip
            elif isinstance(event, ToolCallResult):
                output = event.tool_output
                told.ran.append(
                    Ran(
                        to.name, event.tool_id, event.tool_name, event.tool_kwargs, output.content,
                        output.is_error,
                    )
                )  # fmt: skip
        return str(await handler)

    courier = agent("courier", shop.COURIER, [shop.hours])

    async def ask_courier(question: str) -> str:
        """Ask the courier."""
        return await ask(courier, question)

    clerk = agent("clerk", shop.CLERK, [shop.find, shop.weigh, shop.refund, ask_courier])
    asyncio.run(ask(clerk, shop.QUESTION))
    return told


def prepare() -> None:
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    LlamaIndexInstrumentor().instrument()


if __name__ == "__main__":
    shop.play(
        run,
        shop.script(),
        packages=("llama-index-core", "openinference-instrumentation-llama-index"),
        prepare=prepare,
    )
