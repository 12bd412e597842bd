"""Pydantic AI: the clerk asks the courier in a tool."""

from __future__ import annotations

from typing import Any

from provider import Provider
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    model = OpenAIChatModel(shop.MODEL)
    courier = Agent(model, name="courier", instructions=shop.COURIER, tools=[shop.hours])
    clerk = Agent(model, name="clerk", instructions=shop.CLERK, tools=[shop.find, shop.weigh])
    talks: list[Any] = []

    @clerk.tool_plain
    def refund(parcel: int, reason: str) -> str:
        """Pay a parcel back."""
        try:
            return shop.refund(parcel, reason)
        except ValueError as error:
            raise ModelRetry(str(error)) from error

    @clerk.tool_plain
    async def ask_courier(question: str) -> str:
        """Ask the courier."""
        answered = await courier.run(question)
        talks.append(answered)
        return str(answered.output)

    answered = clerk.run_sync(shop.QUESTION)
    told = Told({"clerk": "", "courier": "clerk"})
    for agent, talk in [("clerk", answered), *(("courier", talk) for talk in talks)]:
        asked: dict[str, Asked] = {}
        for message in talk.all_messages():
            if isinstance(message, ModelResponse):
                calls = [
                    Asked(part.tool_call_id, part.tool_name, part.args_as_dict())
                    for part in message.parts
                    if isinstance(part, ToolCallPart)
                ]
                asked |= {call.id: call for call in calls}
                text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
                usage = message.usage
                told.turns.append(Turn(agent, text, calls, usage.input_tokens, usage.output_tokens))
                continue
            for part in message.parts:
                if isinstance(part, ToolReturnPart | RetryPromptPart):
                    call = asked[part.tool_call_id]
                    failed = part.outcome != "success"
                    told.ran.append(Ran(agent, call.id, call.name, call.arguments, part.content, failed))
    return told


if __name__ == "__main__":
    shop.play(run, shop.script(), packages=("pydantic-ai-slim",), prepare=Agent.instrument_all)
