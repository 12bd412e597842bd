"""A step of a recorded run is answered otherwise, and the rest runs five times; the model is a die, and no account."""

from __future__ import annotations

import random
from typing import Any

from whyops_trace import WhyOps, flush_sync, traced_llm, traced_tool
from whyops_trace.whatif import Answer, whatif

sdk = WhyOps(agent_name="refunds", tracing="local")
die = random.Random(7)


@traced_tool
def look_up(order: int) -> dict[str, str]:
    """Ask the database, which no run of the experiment does."""
    return {"status": "sent"}


@traced_tool
def refund(order: int) -> str:
    """Pay."""
    return "done"


@traced_llm(model="die")
def decide(messages: list[dict[str, Any]]) -> str:
    """Say what to do: what is sent is refunded, and what is not, one time in three."""
    return "refund" if "sent" in messages[-1]["content"] or die.random() < 1 / 3 else "It is not sent yet."


def agent(order: int) -> str:
    """Refund what was sent."""
    with sdk.trace("refund-8841"):
        status = look_up(order)["status"]
        answer = decide([{"role": "user", "content": f"Order {order} is {status}. Refund it?"}])
        return refund(order) if answer == "refund" else answer


if __name__ == "__main__":
    agent(8841)
    flush_sync()

    experiment = whatif(
        "refund-8841",
        lambda: agent(8841),
        step=1,
        answer=Answer(result={"status": "packed"}),
        repeat=5,
        swap={"refund": lambda order: "not paid, as this is an experiment"},
        check=lambda run, result: run.not_called("refund"),
    )

    low, high = experiment.interval
    print(f"{experiment.passed} of 5 did not refund it: {low:.0%} to {high:.0%} of all runs would not.")
    for path, count in experiment.paths.items():
        print(f"{count} of 5: {path}")
