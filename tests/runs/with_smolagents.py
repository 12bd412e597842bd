"""What the runs of smolagents share: how they make spans, and what their memory tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runs.told import Asked, Ran, Told, Turn
from smolagents.agents import ToolOutput


def prepare() -> None:
    """Make spans with OpenInference."""
    from openinference.instrumentation.smolagents import SmolagentsInstrumentor

    SmolagentsInstrumentor().instrument()


def told_of(clerk: Any, courier: Any, outputs: Iterable[Any] = ()) -> Told:
    """
    Return what the memory of two agents tells. An answer that ends an agent is no tool that ran.

    Args:
        clerk: One agent, after its run.
        courier: The other one.
        outputs: What the run of the first one yielded; in its memory the results of tools at once are one text.
    """
    told = Told({"clerk": "", "courier": "clerk"})
    results = {each.id: each.output for each in outputs if isinstance(each, ToolOutput)}
    for agent in (clerk, courier):
        for step in agent.memory.steps:
            output = getattr(step, "model_output_message", None)
            if output is None:
                continue
            calls = [
                Asked(call.id, call.function.name, call.function.arguments)
                for call in output.tool_calls or ()
            ]
            usage = step.token_usage
            told.turns.append(
                Turn(agent.name, output.content or "", calls, usage.input_tokens, usage.output_tokens)
            )
            told.ran.extend(
                Ran(
                    agent.name, call.id, call.name, call.arguments,
                    results.get(call.id, step.observations), step.error is not None,
                )
                for call in calls
                if call.name != "final_answer"
            )  # fmt: skip
    return told
