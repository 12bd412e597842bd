"""A trace that attacks whoever looks at it: texts that mean something to a browser or a terminal, in every field."""

from __future__ import annotations

from typing import Any

from agent_runs import Agent

#: Would run a script, ask another server, or leave the element it stands in, if it were taken for markup.
ATTACK = (
    "</script></title><script>window.harmed=1;alert(1)</script><img src=http://127.0.0.1:9/x onerror=window.harmed=1>"
    "<b style='position:fixed'>{{7*7}}</b><a href=\"javascript:window.harmed=1\">x</a>'\"&amp;"
)
#: Turns lines around, colours terminals, ends texts.
CONTROLS = "\u202ereversed\u2066 \x1b[31mred\x1b[0m \x00 \u200b\ufeff"
SAID = f"{ATTACK} {CONTROLS}"


def attacked(trace: str = "attacked") -> Agent:
    """A run with an attack in each text of each record: two turns, tools that work and fail, steps, other events."""
    agent = Agent(trace, SAID)
    agent.messages[0]["content"] = SAID
    step = agent.step(SAID)
    asked = agent.turn(SAID, (SAID, {SAID: SAID}), thinks=SAID)
    agent.tool(SAID, {SAID: SAID, "nested": {SAID: [SAID]}}, {SAID: SAID}, by=asked)
    agent.tool(SAID, SAID, by=asked, error=f"{SAID}: {SAID}")
    agent.tool(SAID, {"long": "x" * 1_000_000 + SAID}, "y" * 1_000_000, by=asked)
    agent.leave(step, SAID)
    agent.turn(SAID, reason=SAID)
    agent.add(SAID, content={SAID: SAID}, metadata={SAID: SAID})
    agent.add("error", content={"type": SAID, "message": SAID, "stack": SAID})
    agent.end()
    for event in agent.events:
        event["agentName"] = SAID
        event["externalUserId"] = SAID
        metadata: dict[str, Any] = event["metadata"]
        for name in ("model", "provider", "outcome"):
            if name in metadata:
                metadata[name] = SAID
        metadata["trace"] = {"tags": [SAID], "metadata": {SAID: SAID}}
    return agent
