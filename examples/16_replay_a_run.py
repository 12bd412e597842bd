"""A run is replayed with a change of the agent, and with another answer. Then: whyops-trace diff refund-1 latest."""

from __future__ import annotations

from whyops_trace import WhyOps, traced_tool
from whyops_trace.replay import ReplayMiss, replay

sdk = WhyOps(agent_name="refunds", tracing="local")


@traced_tool
def look_up(order: int) -> dict[str, str]:
    """Ask the database, which a replay does not."""
    print(f"the database is asked for {order}")
    return {"status": "sent"}


@traced_tool
def refund(order: int, amount: float) -> str:
    """Pay, which a replay does not either."""
    print(f"{amount} is paid")
    return "done"


def agent(order: int, amount: float = 12.5) -> str:
    """Refund what was sent."""
    with sdk.trace("refund-1"):
        return refund(order, amount) if look_up(order)["status"] == "sent" else "nothing to refund"


if __name__ == "__main__":
    agent(8841)

    with replay("refund-1"):
        print("replayed:", agent(8841))

    try:
        with replay("refund-1"):
            agent(8841, amount=125.0)
    except ReplayMiss as miss:
        print("changed:", miss)

    with replay("refund-1", match="first", swap={"look_up": lambda order: {"status": "packed"}}) as run:
        print("what if:", agent(8841))
    print("not called:", run.unused)
