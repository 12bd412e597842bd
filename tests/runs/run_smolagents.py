"""smolagents: the courier is an agent that the clerk manages; both call tools."""

from __future__ import annotations

from provider import Provider
from replies import Reply, ToolCall, Usage
from runs import shop
from runs.told import Told
from runs.with_smolagents import prepare, told_of
from smolagents import OpenAIServerModel, ToolCallingAgent, tool


def run(provider: Provider) -> Told:
    model = OpenAIServerModel(shop.MODEL, api_base=provider.openai_url, api_key=provider.openai_key)
    courier = ToolCallingAgent(
        [tool(shop.hours)], model, name="courier", description="Knows the roads.", verbosity_level=0
    )
    tools = [tool(each) for each in (shop.find, shop.weigh, shop.refund)]
    clerk = ToolCallingAgent(tools, model, name="clerk", managed_agents=[courier], verbosity_level=0)
    outputs = list(clerk.run(shop.QUESTION, stream=True))
    return told_of(clerk, courier, outputs)


def final(text: str, id: str, usage: Usage) -> Reply:
    """Return the call by which an agent of this framework ends."""
    return Reply(tool_calls=(ToolCall("final_answer", {"answer": text}, id),), usage=usage)


if __name__ == "__main__":
    *replies, times, answer = shop.script("courier", {"task": shop.ASK, "additional_args": {}})
    replies += [final(shop.TIMES, "call_times", times.usage), final(shop.ANSWER, "call_answer", answer.usage)]
    shop.play(
        run, replies, packages=("smolagents", "openinference-instrumentation-smolagents"), prepare=prepare
    )
