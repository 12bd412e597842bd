"""Google ADK through LiteLLM: the courier is a tool of the clerk."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    from google.adk.agents import LlmAgent
    from google.adk.models.lite_llm import LiteLlm
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.agent_tool import AgentTool
    from google.genai import types

    told = Told({"clerk": "", "courier": "clerk"})

    def note_turn(callback_context: Any, llm_response: Any) -> None:
        parts = llm_response.content.parts if llm_response.content else []
        calls = [part.function_call for part in parts if part.function_call]
        usage = llm_response.usage_metadata
        told.turns.append(
            Turn(
                callback_context.agent_name,
                "".join(part.text or "" for part in parts),
                [Asked(call.id, call.name, call.args) for call in calls],
                usage.prompt_token_count,
                usage.candidates_token_count,
            )
        )

    def note_result(tool: Any, args: dict[str, Any], tool_context: Any, tool_response: Any) -> None:
        call_id = tool_context.function_call_id
        if call_id not in [ran.id for ran in told.ran]:  # what failed is told of as well
            told.ran.append(Ran(tool_context.agent_name, call_id, tool.name, args, tool_response))

    def tell_failure(tool: Any, args: dict[str, Any], tool_context: Any, error: Exception) -> dict[str, str]:
        name, call_id = tool_context.agent_name, tool_context.function_call_id
        told.ran.append(Ran(name, call_id, tool.name, args, str(error), failed=True))
        return {"error": str(error)}

    def agent(name: str, instruction: str, tools: list[Any], **more: Any) -> LlmAgent:
        model = LiteLlm(f"openai/{shop.MODEL}", api_base=provider.openai_url, api_key=provider.openai_key)
        return LlmAgent(
            name=name, model=model, instruction=instruction, tools=tools, after_model_callback=note_turn,
            after_tool_callback=note_result, on_tool_error_callback=tell_failure, **more,
        )  # fmt: skip

    courier = agent("courier", shop.COURIER, [shop.hours], description="Knows the roads.")
    clerk = agent("clerk", shop.CLERK, [shop.find, shop.weigh, shop.refund, AgentTool(courier)])

    async def main() -> None:
        runner = InMemoryRunner(agent=clerk, app_name="shop")
        session = await runner.session_service.create_session(app_name="shop", user_id="ann")
        question = types.Content(role="user", parts=[types.Part(text=shop.QUESTION)])
        async for _ in runner.run_async(user_id="ann", session_id=session.id, new_message=question):
            pass

    asyncio.run(main())
    return told


def prepare() -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_AND_EVENT"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


if __name__ == "__main__":
    shop.play(
        run,
        shop.script("courier", {"request": shop.ASK}),
        packages=("google-adk", "litellm"),
        prepare=prepare,
    )
