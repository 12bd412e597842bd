"""DSPy: two modules that reason and act; what they want called is text; spans are OpenInference's."""

from __future__ import annotations

import json
import os
from typing import Any

from provider import Provider
from replies import Reply, Usage
from runs import shop
from runs.told import Ran, Told, Turn


def run(provider: Provider) -> Told:
    import dspy

    model = dspy.LM(
        f"openai/{shop.MODEL}", api_base=provider.openai_url, api_key=provider.openai_key, cache=False
    )
    dspy.configure(lm=model)
    told = Told({"Clerk": "", "Courier": "Clerk"})

    class Courier(dspy.ReAct):
        pass

    class Clerk(dspy.ReAct):
        pass

    courier = Courier("question -> answer", tools=[shop.hours])
    trajectories: list[tuple[str, dict[str, Any]]] = []

    def ask_courier(question: str) -> str:
        """Ask the courier."""
        done = courier(question=question)
        trajectories.append(("Courier", done.trajectory))
        return str(done.answer)

    clerk = Clerk("question -> answer", tools=[shop.find, shop.weigh, shop.refund, ask_courier])
    trajectories.append(("Clerk", clerk(question=shop.QUESTION).trajectory))
    for entry in model.history:
        prompt = json.dumps(entry["messages"])
        name = "Clerk" if "weigh" in prompt or shop.QUESTION in prompt else "Courier"
        usage = entry["usage"]
        told.turns.append(
            Turn(name, entry["outputs"][0], [], usage["prompt_tokens"], usage["completion_tokens"])
        )
    for name, trajectory in trajectories:
        for number in range(len(trajectory) // 4):
            tool = trajectory[f"tool_name_{number}"]
            observation = trajectory[f"observation_{number}"]
            failed = str(observation).startswith("Execution error")
            if tool != "finish":
                told.ran.append(Ran(name, "", tool, trajectory[f"tool_args_{number}"], observation, failed))
    return told


def prepare() -> None:
    from openinference.instrumentation.dspy import DSPyInstrumentor
    from openinference.instrumentation.litellm import LiteLLMInstrumentor

    DSPyInstrumentor().instrument()
    LiteLLMInstrumentor().instrument()  # the other one does not tell tokens


def say(usage: Usage, **fields: Any) -> Reply:
    """Return an answer in the form that DSPy asks for."""
    parts = [
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in fields.items()
    ]
    return Reply("\n\n".join([*parts, "[[ ## completed ## ]]"]), usage=usage)


def act(number: int, tool: str, **arguments: Any) -> Reply:
    """Return an answer that wants a tool called."""
    usage = Usage(fresh=100 + number, output=10 + number)
    return say(usage, next_thought="I go on.", next_tool_name=tool, next_tool_args=arguments)


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    shop.play(
        run,
        [
            act(1, "find", parcel=7),
            act(2, "weigh", parcel=7),
            act(3, "refund", parcel=7, reason="late"),
            act(4, "ask_courier", question=shop.ASK),
            act(5, "hours", day="Friday"),
            act(6, "finish"),
            say(Usage(fresh=107, output=17), reasoning="I was told.", answer=shop.TIMES),
            act(8, "finish"),
            say(Usage(fresh=109, output=19), reasoning="I was told.", answer=shop.ANSWER),
        ],
        packages=("dspy", "openinference-instrumentation-dspy", "openinference-instrumentation-litellm"),
        prepare=prepare,
    )
