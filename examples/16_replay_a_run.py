"""A run is replayed with a change of the agent, and with another answer. The last line compares two of the runs."""

from __future__ import annotations

import secrets

from whyops_trace import WhyOps, traced_tool
from whyops_trace.replay import ReplayMiss, replay

sdk = WhyOps(agent_name="refunds", tracing="local")
#: The id of the run, another one each time: a trace whose id comes back goes on, and would be replayed as a whole.
RUN = f"refund-{secrets.token_hex(4)}"


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
    with sdk.trace(RUN):
        return refund(order, amount) if look_up(order)["status"] == "sent" else "nothing to refund"


if __name__ == "__main__":
    agent(8841)

    with replay(RUN):
        print("replayed:", agent(8841))

    try:
        with replay(RUN):
            agent(8841, amount=125.0)
    except ReplayMiss as miss:
        print("changed:", miss)

    with replay(RUN, match="first", swap={"look_up": lambda order: {"status": "packed"}}) as run:
        print("what if:", agent(8841))
    print("not called:", run.unused)
    print(f"now try: whyops-trace diff {RUN} latest")
