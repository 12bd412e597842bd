"""
What went wrong, and what was done about it, told by a program: whyops-trace check refund-1 finds the same.

whyops-trace view refund-1 shows it in the browser.
"""

from __future__ import annotations

from whyops_trace import WhyOps, traced_tool
from whyops_trace.analysis import findings
from whyops_trace.store import Store
from whyops_trace.story import tell

sdk = WhyOps(agent_name="support", tracing="local")


@traced_tool
def refund(order: int, euros: float) -> str:
    """Pay money back, but no more than the fee of the delivery."""
    if euros > 12.9:
        raise ValueError("more than the fee of 12.9")
    return f"{euros} EUR are on their way"


@traced_tool
def find_parcel(order: int) -> str:
    """Never know anything new."""
    return "in transit"


if __name__ == "__main__":
    with sdk.trace("refund-1"):
        try:
            refund(8841, 129.0)
        except ValueError:
            refund(8841, 12.9)
        for _ in range(4):
            find_parcel(8841)
    sdk.flush_sync()

    store = Store(sdk.settings.home / "traces.db")
    events = store.events("refund-1")
    story = tell(events)
    print(story.status)
    for why in story.whys:
        print(f"- {why.text}" + (f" -> {why.then}" if why.then else ""))
    for finding in findings(events):
        print(f"- {finding.severity}: {finding.title}")
        print(f"  {finding.advice}")
