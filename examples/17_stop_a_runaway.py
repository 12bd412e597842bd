"""An agent that never gives up, stopped by the limits of its trace, and where its wrong argument came from."""

from __future__ import annotations

from whyops_trace import AgentRunaway, trace, traced_tool
from whyops_trace.story import provenance, tell
from whyops_trace.testing import capture_events


@traced_tool
def find_orders(customer: str, since: str) -> dict[str, object]:
    """Return the orders since a day."""
    return {"order_id": "A-7713" if since < "2026-02" else "A-9920", "since": since}


@traced_tool
def refund(order_id: str) -> str:
    """Refund an order that is open."""
    if order_id != "A-9920":
        raise ValueError(f"order {order_id} is closed")
    return "done"


def agent(customer: str) -> None:
    """Refund the latest order, by the id of an older one, again and again."""
    older = find_orders(customer, since="2026-01-01")
    find_orders(customer, since="2026-03-01")
    while True:
        try:
            refund(str(older["order_id"]))
        except Exception as error:  # noqa: BLE001 - as agents do, for an answer to the model
            print(f"The tool says: {error}.")
        else:
            return


if __name__ == "__main__":
    with capture_events() as records:
        try:
            with trace("refund-1", max_steps=5, max_seconds=60):
                agent("anna@example.com")
        except AgentRunaway as stopped:
            print(f"Stopped by {stopped}")
    story = tell(records)
    print(story.status)
    for origin in provenance(story)[5]:
        print(origin.text)
