"""The OpenAI Agents SDK: the courier is a tool of the clerk."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, RunConfig, Runner, function_tool, set_default_openai_api, set_trace_processors
from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    courier = Agent("courier", instructions=shop.COURIER, model=shop.MODEL, tools=[function_tool(shop.hours)])
    results: list[Any] = []

    async def answer(result: Any) -> str:
        results.append(result)
        return str(result.final_output)

    clerk = Agent(
        "clerk",
        instructions=shop.CLERK,
        model=shop.MODEL,
        tools=[
            *(function_tool(each) for each in (shop.find, shop.weigh, shop.refund)),
            courier.as_tool("ask_courier", "Ask the courier.", custom_output_extractor=answer),
        ],
    )
    result = asyncio.run(Runner.run(clerk, shop.QUESTION, run_config=RunConfig(workflow_name="shop")))
    told = Told({"clerk": "", "courier": "clerk"})
    for name, each in [("clerk", result), *(("courier", one) for one in results)]:
        asked: dict[str, Asked] = {}
        for response in each.raw_responses:
            calls = [item for item in response.output if item.type == "function_call"]
            texts = [part.text for item in response.output if item.type == "message" for part in item.content]
            mine = [Asked(call.call_id, call.name, call.arguments) for call in calls]
            asked |= {call.id: call for call in mine}
            usage = response.usage
            told.turns.append(Turn(name, "".join(texts), mine, usage.input_tokens, usage.output_tokens))
        for item in each.new_items:
            if item.type == "tool_call_output_item":
                call = asked[item.raw_item["call_id"]]
                failed = call.name == "refund"  # the framework does not tell it from an answer
                told.ran.append(Ran(name, call.id, call.name, call.arguments, item.output, failed))
    return told


def prepare() -> None:
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    set_trace_processors([])
    set_default_openai_api("responses")
    OpenAIAgentsInstrumentor().instrument()


if __name__ == "__main__":
    shop.play(
        run,
        shop.script(arguments={"input": shop.ASK}),
        packages=("openai-agents", "openinference-instrumentation-openai-agents"),
        prepare=prepare,
    )
