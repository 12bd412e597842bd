"""Strands: the courier is a tool of the clerk."""

from __future__ import annotations

import os
from typing import Any

from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn
from strands import Agent, tool
from strands.models.openai import OpenAIModel


def run(provider: Provider) -> Told:
    def agent(name: str, prompt: str, tools: list[Any]) -> Agent:
        model = OpenAIModel(
            client_args={"base_url": provider.openai_url, "api_key": provider.openai_key}, model_id=shop.MODEL
        )
        return Agent(model=model, name=name, system_prompt=prompt, tools=tools, callback_handler=None)

    courier = agent("courier", shop.COURIER, [tool(shop.hours)])

    @tool
    def ask_courier(question: str) -> str:
        """Ask the courier.

        Args:
            question: The question.
        """
        return str(courier(question)).strip()

    clerk = agent("clerk", shop.CLERK, [tool(shop.find), tool(shop.weigh), tool(shop.refund), ask_courier])
    clerk(shop.QUESTION)
    told = Told({"clerk": "", "courier": "clerk"})
    for each in (clerk, courier):
        asked: dict[str, Asked] = {}
        for message in each.messages:
            blocks = message["content"]
            if message["role"] == "assistant":
                uses = [block["toolUse"] for block in blocks if "toolUse" in block]
                calls = [Asked(use["toolUseId"], use["name"], use["input"]) for use in uses]
                asked |= {call.id: call for call in calls}
                usage = message.get("metadata", {}).get("usage", {})
                text = "".join(block.get("text", "") for block in blocks)
                told.turns.append(
                    Turn(each.name, text, calls, usage.get("inputTokens"), usage.get("outputTokens"))
                )
            for result in (block["toolResult"] for block in blocks if "toolResult" in block):
                call = asked[result["toolUseId"]]
                text = "".join(part.get("text", "") for part in result["content"])
                told.ran.append(
                    Ran(each.name, call.id, call.name, call.arguments, text, result["status"] == "error")
                )
    return told


def prepare() -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental,gen_ai_tool_definitions"


if __name__ == "__main__":
    shop.play(run, shop.script(), packages=("strands-agents",), prepare=prepare)
