"""
A conversation that is reported to a WhyOps server, each turn of which could be in another process.

With WHYOPS_API_KEY set, and WHYOPS_ANALYSE_URL for a server of your own, events go there; without, they stay here.
"""

from __future__ import annotations

from whyops_trace import WhyOps, traced_llm, traced_tool

sdk = WhyOps(
    agent_name="support",
    agent_metadata={
        "systemPrompt": "You help customers of a tea shop.",
        "tools": [{"name": "find_order", "inputSchema": '{"type": "object"}'}],
    },
)


@traced_tool
def find_order(number: int) -> dict[str, object]:
    """Return an order."""
    return {"number": number, "item": "teapot", "status": "shipped"}


@traced_llm(model="example-1", provider="example")
def ask(question: str, facts: object) -> str:
    """Return an answer; a real agent asks a model here."""
    return f"{question} Here is what I know: {facts}"


def turn(conversation: str, question: str, order: int) -> str:
    """Take one turn: the trace goes on where the turn before has got to, wherever that was."""
    with sdk.trace(conversation, external_user_id="customer-17"):
        return ask(question, find_order(order))


if __name__ == "__main__":
    print(turn("conversation-17", "Where is my teapot?", 8841))
    print(turn("conversation-17", "And the cups?", 8852))
    for destination, tally in sdk.flush_sync(timeout=10).items():
        print(
            f"{destination}: {tally.delivered} of {tally.emitted} events delivered, {tally.pending} on their way"
        )
