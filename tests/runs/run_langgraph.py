"""LangGraph: the courier is asked in a tool of the clerk; spans are OpenInference's."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


@wrap_tool_call
def tell_failures(request: Any, handler: Any) -> Any:
    """Tell the model of what a tool raised."""
    try:
        return handler(request)
    except ValueError as error:
        return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")


def run(provider: Provider) -> Told:
    model = ChatOpenAI(model=shop.MODEL)
    courier = create_agent(model, [tool(shop.hours)], system_prompt=shop.COURIER, name="courier")
    states: list[Any] = []

    @tool
    def ask_courier(question: str) -> str:
        """Ask the courier."""
        states.append(courier.invoke({"messages": [("user", question)]}))
        return str(states[-1]["messages"][-1].content)

    tools = [*(tool(each) for each in (shop.find, shop.weigh, shop.refund)), ask_courier]
    clerk = create_agent(model, tools, system_prompt=shop.CLERK, name="clerk", middleware=[tell_failures])
    state = clerk.invoke({"messages": [("user", shop.QUESTION)]})
    told = Told({"clerk": "", "courier": "clerk"})
    for name, each in [("clerk", state), *(("courier", one) for one in states)]:
        asked: dict[str, Asked] = {}
        for message in each["messages"]:
            if isinstance(message, AIMessage):
                calls = [Asked(str(call["id"]), call["name"], call["args"]) for call in message.tool_calls]
                asked |= {call.id: call for call in calls}
                usage: Any = message.usage_metadata
                told.turns.append(
                    Turn(name, str(message.content), calls, usage["input_tokens"], usage["output_tokens"])
                )
            elif isinstance(message, ToolMessage):
                call = asked[message.tool_call_id]
                failed = message.status == "error"
                told.ran.append(Ran(name, call.id, call.name, call.arguments, message.content, failed))
    return told


def prepare() -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument()


if __name__ == "__main__":
    shop.play(
        run,
        shop.script(),
        packages=("langgraph", "langchain", "openinference-instrumentation-langchain"),
        prepare=prepare,
    )
