"""AG2: the courier is asked in a tool of the clerk; a middleware makes spans."""

from __future__ import annotations

import asyncio
from typing import Any

from ag2 import Agent, MemoryStream, tool
from ag2.config import OpenAIConfig
from ag2.events import ModelResponse, ToolErrorEvent, ToolResultEvent, ToolResultsEvent
from ag2.middleware.builtin.telemetry import TelemetryMiddleware
from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    config = OpenAIConfig(model=shop.MODEL, base_url=provider.openai_url, api_key=provider.openai_key)
    told = Told({"clerk": "", "courier": "clerk"})

    def agent(name: str, prompt: str, tools: list[Any]) -> Any:
        spans = TelemetryMiddleware(agent_name=name, provider_name="openai", model_name=shop.MODEL)
        return Agent(name, prompt, config=config, tools=tools, middleware=[spans])

    async def ask(to: Any, question: str) -> str:
        stream = MemoryStream()
        asked: dict[str, Asked] = {}

        def note(event: Any) -> None:
            if isinstance(event, ModelResponse):
                calls = [Asked(call.id, call.name, call.arguments) for call in event.tool_calls.calls]
                asked.update({call.id: call for call in calls})
                text = event.message.content if event.message else ""
                usage = event.usage
                told.turns.append(
                    Turn(to.name, text or "", calls, usage.prompt_tokens, usage.completion_tokens)
                )
            elif isinstance(event, ToolResultEvent) and not isinstance(event, ToolResultsEvent):
                call = asked[event.parent_id]
                failed = isinstance(event, ToolErrorEvent)
                parts = [
                    getattr(part, "content", None) or getattr(part, "data", None)
                    for part in event.result.parts
                ]
                result = parts[0] if len(parts) == 1 else parts
                told.ran.append(Ran(to.name, call.id, call.name, call.arguments, result, failed))

        stream.subscribe(note)
        reply = await to.ask(question, stream=stream)
        return str(reply.body)

    courier = agent("courier", shop.COURIER, [tool(shop.hours)])

    @tool
    async def ask_courier(question: str) -> str:
        """Ask the courier."""
        return await ask(courier, question)

    clerk = agent("clerk", shop.CLERK, [*map(tool, (shop.find, shop.weigh, shop.refund)), ask_courier])
    asyncio.run(ask(clerk, shop.QUESTION))
    return told


if __name__ == "__main__":
    shop.play(run, shop.script(), packages=("ag2",))
