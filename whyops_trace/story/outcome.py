"""The end of a trace and its failures, in words that never say "ok" for a run with failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from whyops_trace._models.stops import stop_of
from whyops_trace._reading.excerpt import clean, counted, headline, stopped_by
from whyops_trace._reading.nodes import Node
from whyops_trace.story.agents import leader, talk
from whyops_trace.story.arrangement import Arrangement
from whyops_trace.story.asking import asks_user
from whyops_trace.story.retries import failed
from whyops_trace.story.telling import Telling
from whyops_trace.story.turns import FailedCall, Story, ToolUse, Turn

#: Largest number of characters of an error in the status.
_ERROR: Final = 160


#: Kinds of lines that tell of a run that went round in circles.
_CIRCLES: Final = frozenset({"loop", "cycle", "alike"})
#: The failure of the call that a run stopped after: the number of failures says it, too, and the end its words.
_FAILURE: Final = re.compile(", which (?:said that it )?failed: .*", re.DOTALL)
#: Reasons of the end, by the kinds of endings without an answer.
_REASONS: Final = {"error": "error", "call": "stopped", "limit": "rounds"}


class Trouble(NamedTuple):
    """
    A call that failed itself, rather than passing on the failure of a call inside it.

    Attributes:
        node: Its node.
        use: The tool call, if it is one.
        turn: The turn, if it is one.
    """

    node: Node
    use: ToolUse | None = None
    turn: Turn | None = None

    @property
    def error(self) -> str:
        """``Type: message``, uncut if the error was recorded for a call."""
        text = self.use.problem if self.use else self.turn.error if self.turn else self.node.error
        return text or self.node.error or "failed"

    @property
    def is_said(self) -> bool:
        """True if it did not raise, but its result says that it failed."""
        return bool(self.node.said_failed)


class Failures:
    """
    The failures of a trace, and their retries.

    Attributes:
        troubles: Calls that failed themselves, in the order they began.
    """

    def __init__(self, telling: Telling, arrangement: Arrangement) -> None:
        self.troubles: list[Trouble] = list(_troubles(telling, arrangement))
        self._uses = {one.use.node.step: one.use for one in arrangement.tool_calls if one.use.retry_of}
        self._turns = arrangement.turns
        self._retried = telling.retried
        #: The last try of each call and turn. Without these a long row of failures is walked for each of them.
        self._last_uses: dict[int, ToolUse] = {}
        self._last_turns: dict[int, Turn] = {}
        for one in reversed(arrangement.tool_calls):
            use = one.use
            self._last_uses[use.node.step] = self._last_uses.get(use.retried_by, use)
        for turn in reversed(arrangement.turns):
            self._last_turns[turn.number] = self._last_turns.get(turn.retried_by, turn)

    def tries_of_use(self, use: ToolUse) -> Iterator[ToolUse]:
        """Yield the retries of a tool call, one after the other."""
        while use.retried_by in self._uses:
            use = self._uses[use.retried_by]
            yield use

    def tries_of_turn(self, turn: Turn) -> Iterator[Turn]:
        """Yield the retries of a turn, one after the other."""
        while turn.retried_by:
            turn = self._turns[turn.retried_by - 1]
            yield turn

    def recovered(self, trouble: Trouble) -> bool:
        """Return True if the last retry of a failed call succeeded, or a turn by hand was answered after its error."""
        if trouble.use is not None:
            last = self._last_uses[trouble.use.node.step]
            return last.node.status == "ok" and not failed(last)
        if trouble.turn is not None:
            final = self._last_turns[trouble.turn.number]
            return final.node.status == "ok" and not final.error
        retried = self._retried.get(id(trouble.node))
        return retried is not None and retried.status == "ok" and retried.answer > 0


def _troubles(telling: Telling, arrangement: Arrangement) -> Iterator[Trouble]:
    turns = {id(turn.node): turn for turn in arrangement.turns}
    passing = _passed_on(telling.order)
    for node in telling.order:
        use, turn = telling.uses.get(id(node)), turns.get(id(node))
        entry = telling.turns.get(id(node))
        reported = id(node) in passing or id(node) in telling.parts or (entry is not None and entry.repeats)
        bad = node.status == "error" or (use and failed(use)) or (turn and turn.error)
        if bad and not reported and not is_end(node):
            yield Trouble(node, use, turn)


def is_end(node: Node) -> bool:
    """Return True if a node is the end of the trace itself, which failed or was cancelled."""
    return node.kind == "event" and node.name == "trace" and not node.step


def _passed_on(nodes: Iterable[Node]) -> set[int]:
    """Return the ids of nodes that only pass on the error of a call inside them."""
    passing: set[int] = set()
    for node in nodes:
        said = node.error or node.said_failed
        outer = node.parent if said or node.status == "error" else None
        while outer and _passes_on(outer, node) and id(outer) not in passing:
            passing.add(id(outer))
            outer = outer.parent
    return passing


def _passes_on(outer: Node, node: Node) -> bool:
    """Return True if a node failed or said so in the same words as one inside it."""
    if outer.status == "error":
        return node.status == "error" and outer.error == node.error
    return bool(outer.said_failed) and outer.said_failed == (node.said_failed or node.error)


def add_outcome(story: Story, telling: Telling, arrangement: Arrangement, failures: Failures) -> None:
    """Add the user's question, the end and the failures to a story."""
    story.turns = story.tree.llm_responses
    story.failed_calls = [
        FailedCall(trouble.node, trouble.error, failures.recovered(trouble)) for trouble in failures.troubles
    ]
    story.failed = len(story.failed_calls)
    story.said_failed = sum(trouble.is_said for trouble in failures.troubles)
    story.recovered = sum(call.recovered for call in story.failed_calls)
    story.asked = _question(telling, arrangement)
    _add_ending(story, telling, arrangement)


def _question(telling: Telling, arrangement: Arrangement) -> str:
    """Return the user's first question: the last user message of the first turn, else the input of the first step."""
    for turn in arrangement.turns:
        for message in reversed(turn.messages):
            if message.role == "user" and message.text:
                return message.text
    return telling.began_with


def _add_ending(story: Story, telling: Telling, arrangement: Arrangement) -> None:
    """Add to a story its last answer or error, and the reason of the end."""
    last = max(arrangement.turns, key=lambda turn: turn.node.response or turn.node.step, default=None)
    kind, ended, story.ended_by = telling.ending.told()
    if kind == "answer" and last is not None:
        story.ended, story.ended_reason = ended, last.finish_reason
    elif kind:
        story.ended, story.ended_reason = ended, _REASONS[kind]
    else:
        story.ended = telling.output
    if story.tree.running and not telling.ended:
        story.ended_reason = "running"


def add_status(story: Story, telling: Telling, arrangement: Arrangement) -> None:
    """Add the outcome in words to a story whose lines are there."""
    story.status = _status(story, telling, arrangement)


def _status(story: Story, telling: Telling, arrangement: Arrangement) -> str:
    tree = story.tree
    failures = _failures(story, telling)
    if tree.running and not telling.ended:
        calls = sum(node.status == "running" and node.kind != "step" for node in telling.order)
        calls_open = f"{counted(calls, 'call')} open" if calls else "between calls"
        return f"running: {calls_open}" + (f", {failures}" if story.failed else "")
    if tree.unfinished and not telling.ended:
        return "stopped: the process ended in the middle" + (f", {failures}" if story.failed else "")
    if story.ended_reason == "error":
        others = f" ({failures})" if story.failed > 1 else ""
        limit = stopped_by(story.ended)
        return f"{'stopped by' if limit else 'failed:'} {headline(limit or story.ended, _ERROR)}{others}"
    if any(is_end(node) and node.status == "cancelled" for node in tree.nodes[-1:]):
        return f"cancelled: {failures}"
    open_count = sum(
        node.status in ("running", "unfinished") and node.kind != "step" for node in telling.order
    )
    never_ended = f", {counted(open_count, 'call')} never ended" if open_count else ""
    return f"{_outcome(story, arrangement)}: {failures}{never_ended}"


def _outcome(story: Story, arrangement: Arrangement) -> str:
    reason = story.ended_reason
    if reason == "stopped":
        return headline(_FAILURE.sub("", story.ended), _ERROR)
    if reason == "rounds":
        return "used up its rounds"
    if stop_of(reason) == "cut":
        return "cut off at the token limit"
    if stop_of(reason) == "filtered":
        return "stopped by a refusal or a filter"
    # A program that asks no model may well poll.
    if arrangement.turns and any(why.bad and why.kind in _CIRCLES for why in story.whys):
        return "went round in circles"
    if left := _left_alone(arrangement.turns):
        return left
    last = max(arrangement.turns, key=lambda turn: turn.node.response or turn.node.step, default=None)
    asked = dict.fromkeys(call.name for call in last.calls if call.name and not call.step) if last else ()
    if asked:
        return f"ended with a request for {clean(', '.join(asked))}"
    if story.ended and not story.ended_by and asks_user(story.ended, anywhere=not story.tree.tool_calls):
        return "ended with a question to the user"
    if story.ended:
        return "answered" + (f" and ended by {headline(story.ended_by, _ERROR)}" if story.ended_by else "")
    if last is None:
        return "finished"
    return (
        "ended without an answer"
        if last.node.tells_output
        else "ended in a turn whose answer was not captured"
    )


def _left_alone(turns: Sequence[Turn]) -> str:
    """Return in words that a run ended in a turn which the agent that leads the others did not take up, "" if not."""
    lead = leader(turns) if talk(turns) else ""
    if not lead or turns[-1].agent == lead:
        return ""
    return f"stopped in a turn of {clean(turns[-1].agent)}, not taken up by {clean(lead)}"


def _failures(story: Story, telling: Telling) -> str:
    """Return the numbers of calls that failed, that say so, and that recovered, in words."""
    count, said, recovered = story.failed, story.said_failed, story.recovered
    if not count:
        if any(not node.tells_output for node in telling.order):
            return "no call raised, and not all results were captured"
        problems = sum(why.bad and why.kind != "cut" for why in story.whys)
        return f"no failed calls, but {counted(problems, 'problem')}" if problems else "no failures"
    if count == 1:
        verb = "said that it failed" if said else "failed"
        return f"1 call {verb}, {'recovered' if recovered else 'not recovered'}"
    verb = (
        "said that they failed" if said == count else f"failed, {said:,} only said so" if said else "failed"
    )
    return f"{count:,} calls {verb}, {recovered or 'none'} recovered"
