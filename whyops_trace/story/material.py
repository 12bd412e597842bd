"""What the rules that explain a run go by: the story and its parts."""

from __future__ import annotations

from whyops_trace._reading.excerpt import clean
from whyops_trace.story.arrangement import Arrangement
from whyops_trace.story.outcome import Failures
from whyops_trace.story.provenance import Origin, provenance
from whyops_trace.story.telling import Telling
from whyops_trace.story.turns import Story, Turn


class Material:
    """
    The story of a trace and its parts.

    Attributes:
        story: The story, without its lines.
        telling: What its records tell.
        arrangement: Its sections, and the links between turns and calls.
        failures: Its failures.
        agents: Names of the agents whose turns it has.
        origins: The origins of the arguments of failed calls, by their steps.
    """

    def __init__(self, story: Story, telling: Telling, arrangement: Arrangement, failures: Failures) -> None:
        self.story = story
        self.telling = telling
        self.arrangement = arrangement
        self.failures = failures
        self.agents: list[str] = list(dict.fromkeys(turn.agent for turn in arrangement.turns))
        self.origins: dict[int, list[Origin]] = provenance(
            story, [trouble.node.step for trouble in failures.troubles if trouble.use]
        )

    def name(self, turn: Turn) -> str:
        """Return a turn in words, with its agent where there are several."""
        agent = f" ({clean(turn.agent)})" if turn.agent and len(self.agents) > 1 else ""
        return f"turn {turn.number}{agent}"

    def place(self, step: int) -> str:
        """Return the turn that shows a step, as the beginning of a line."""
        turn = self.arrangement.turn_of(step)
        return f"{self.name(turn)}: " if turn else ""

    def went_on(self, turn: Turn | None) -> tuple[str, int]:
        """Return the agent's next action after a turn, and the step to show for it."""
        if turn is None or not turn.next:
            return "", 0
        return turn.next, self.arrangement.turns[turn.continued_by - 1].node.step
