"""Haystack: the courier is a tool of the clerk."""

from __future__ import annotations

import os
from typing import Any

from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    from haystack import Pipeline
    from haystack.components.agents import Agent
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import AgentTool, create_tool_from_function
    from haystack.utils import Secret

    told = Told({"clerk": "", "courier": "clerk"})

    def agent(prompt: str, tools: list[Any]) -> Agent:
        model = OpenAIChatGenerator(
            model=shop.MODEL, api_base_url=provider.openai_url, api_key=Secret.from_token(provider.openai_key)
        )
        return Agent(chat_generator=model, system_prompt=prompt, tools=tools)

    talks: list[tuple[str, Any]] = []

    def answer(result: Any) -> str:
        talks.append(("courier", result["messages"]))
        return str(result["last_message"].text)

    courier = AgentTool(
        agent(shop.COURIER, [create_tool_from_function(shop.hours)]),
        name="courier",
        description="Knows the roads.",
        outputs_to_string={"handler": answer},
    )
    tools = [create_tool_from_function(each) for each in (shop.find, shop.weigh, shop.refund)]
    clerk = agent(shop.CLERK, [*tools, courier])
    pipeline = Pipeline()
    pipeline.add_component("clerk", clerk)
    done = pipeline.run({"clerk": {"messages": [ChatMessage.from_user(shop.QUESTION)]}})
    talks.append(("clerk", done["clerk"]["messages"]))
    for name, messages in talks:
        for message in messages:
            if message.role == "assistant":
                calls = [Asked(call.id, call.tool_name, call.arguments) for call in message.tool_calls]
                usage = message.meta["usage"]
                told.turns.append(
                    Turn(name, message.text or "", calls, usage["prompt_tokens"], usage["completion_tokens"])
                )
            for result in message.tool_call_results:
                call = result.origin
                told.ran.append(
                    Ran(name, call.id, call.tool_name, call.arguments, result.result, result.error)
                )
    return told


def prepare() -> None:
    import haystack.tracing
    from haystack_integrations.tracing.opentelemetry import OpenTelemetryTracer
    from opentelemetry import trace

    haystack.tracing.tracer.is_content_tracing_enabled = True
    haystack.tracing.enable_tracing(OpenTelemetryTracer(trace.get_tracer("haystack")))


if __name__ == "__main__":
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    ask = {"messages": [{"role": "user", "content": [{"text": shop.ASK}]}]}
    shop.play(
        run, shop.script("courier", ask), packages=("haystack-ai", "opentelemetry-haystack"), prepare=prepare
    )
