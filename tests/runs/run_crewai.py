"""CrewAI: the clerk delegates to the courier, its coworker; spans are OpenInference's."""

from __future__ import annotations

import os
from typing import Any

from provider import Provider
from runs import shop
from runs.told import Asked, Ran, Told, Turn


def run(provider: Provider) -> Told:
    from crewai import LLM, Agent, Crew, Task
    from crewai.events import (
        LLMCallCompletedEvent,
        ToolUsageErrorEvent,
        ToolUsageFinishedEvent,
        crewai_event_bus,
    )
    from crewai.tools import tool

    told = Told({"clerk": "", "courier": "clerk"})

    @crewai_event_bus.on(LLMCallCompletedEvent)
    def note_turn(source: Any, event: Any) -> None:
        usage = event.usage or {}
        said = event.response
        calls = [
            Asked(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in (said if isinstance(said, list) else [])
        ]
        told.turns.append(
            Turn(
                event.agent_role or "", said if isinstance(said, str) else "", calls, usage.get("prompt_tokens"),
                usage.get("completion_tokens"),
            )
        )  # fmt: skip

    @crewai_event_bus.on(ToolUsageFinishedEvent)
    def note_result(source: Any, event: Any) -> None:
        told.ran.append(Ran(event.agent_role or "", "", event.tool_name, event.tool_args, event.output))

    @crewai_event_bus.on(ToolUsageErrorEvent)
    def note_failure(source: Any, event: Any) -> None:
        told.ran.append(
            Ran(event.agent_role or "", "", event.tool_name, event.tool_args, str(event.error), failed=True)
        )

    model = LLM(model=f"openai/{shop.MODEL}", base_url=provider.openai_url, api_key=provider.openai_key)
    courier = Agent(
        role="courier", goal="Bring parcels", backstory="Old.", llm=model, tools=[tool(shop.hours)]
    )
    clerk = Agent(
        role="clerk", goal="Answer", backstory="Young.", llm=model, allow_delegation=True,
        tools=[tool(each) for each in (shop.find, shop.weigh, shop.refund)],
    )  # fmt: skip
    task = Task(description=shop.QUESTION, expected_output="An answer", agent=clerk)
    Crew(agents=[clerk, courier], tasks=[task]).kickoff()
    crewai_event_bus.flush()
    return told


def prepare() -> None:
    from openinference.instrumentation.crewai import CrewAIInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    CrewAIInstrumentor().instrument()
    OpenAIInstrumentor().instrument()  # the other one does not tell of turns


if __name__ == "__main__":
    os.environ |= {
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "OTEL_SDK_DISABLED": "false",
    }
    ask = {"question": shop.ASK, "context": "Parcel 7", "coworker": "courier"}
    shop.play(
        run,
        shop.script("ask_question_to_coworker", ask),
        packages=("crewai", "openinference-instrumentation-crewai", "openinference-instrumentation-openai"),
        prepare=prepare,
    )
