"""
An evaluator, a user and a person say how good an answer was. Then: whyops-trace show trip-17.

whyops-trace ls --score "correct<0.5" lists the traces to look at.
"""

from __future__ import annotations

from whyops_trace import WhyOps, score, step, traced_tool
from whyops_trace.store import Filter, ScoreTest, Store

sdk = WhyOps(agent_name="travel", tracing="local")


@traced_tool
def find_flight(city: str, week: int) -> str:
    """Return a flight."""
    return f"{city}, week {week + 1}"


def judge(answer: str, week: int) -> None:
    """Score the open trace, as an evaluator does that knows what is right."""
    right = answer.endswith(f"week {week}")
    score("correct", 1.0 if right else 0.0, comment=None if right else f"{answer} is not week {week}")


def on_feedback(trace_id: str, liked: bool, text: str) -> None:
    """Score a trace that is over, perhaps in another process: its id is enough."""
    sdk.trace(trace_id).score("helpful", liked, comment=text)


if __name__ == "__main__":
    with sdk.trace("trip-17") as trip:
        with step("plan") as plan:
            found = find_flight("Rome", week=23)
        judge(found, week=23)
        trip.score("tone", "polite", step=plan)
    on_feedback("trip-17", False, "I asked for another week.")
    sdk.flush_sync()

    store = Store(sdk.settings.home / "traces.db")
    for trace in store.traces(where=Filter(scores=[ScoreTest.of("correct<0.5")])):
        print(trace.trace_id)
        for one in store.scores(trace.trace_id):
            print(f"- {one.line}" + (f" (step {one.step})" if one.step else ""))
