"""The parts of a story: what is read of a trace, in the order of reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from whyops_trace._reading.nodes import Node, TraceTree

WhyKind = Literal["failed", "retried", "loop", "unanswered", "cut", "context", "prompt", "longest", "open"]


@dataclass(slots=True)
class Call:
    """
    A tool call as a model asked for it.

    Attributes:
        id: The provider's id of the call, "" if it gave none.
        name: The tool.
        arguments: What to give it: decoded JSON, or the text where it is none.
        step: The step of the tool's request that this led to, 0 if it was never made.
    """

    id: str
    name: str
    arguments: Any
    step: int = 0


@dataclass(slots=True)
class Message:
    """
    One message that a model was given.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool``, or what the record says.
        text: Its texts, one after the other.
        name: The tool whose result it is, if it is one.
        call_id: The call that it answers, "" if unknown.
        calls: The tool calls in it, if it is an assistant's.
        other: What it holds beside texts, such as ``2 images``; "" if nothing.
    """

    role: str
    text: str
    name: str = ""
    call_id: str = ""
    calls: list[Call] = field(default_factory=list)
    other: str = ""


@dataclass(slots=True)
class Change:
    """
    A member that differs between two calls of a tool.

    Attributes:
        path: Where it is, such as ``amount`` or ``items[0].price``.
        before: Its value before, as JSON; None if it was not there.
        after: Its value after, as JSON; None if it is gone.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(slots=True)
class PromptChange:
    """
    What a turn changed in what the turn before it had sent, instead of only adding to it.

    Attributes:
        part: ``system`` for the system prompt, ``tools`` for the tools on offer, ``history`` for earlier messages.
        summary: What happened, such as ``message 3 of 14 was edited`` or ``12 messages were replaced by 2``.
        diff: The lines of a unified diff, without its header; those of the changed texts only.
    """

    part: Literal["system", "tools", "history"]
    summary: str
    diff: list[str]

    @property
    def only_removes(self) -> bool:
        """Whether earlier messages went and nothing took their place, as where only the latest ones are sent."""
        return self.part == "history" and not any(line.startswith("+") for line in self.diff)


@dataclass(slots=True)
class ToolUse:
    """
    A tool call as it was made: what went in, what came out, and how it belongs to other calls of that tool.

    Attributes:
        node: Its node of the tree: name, status, time, the turn that asked for it.
        response: The step of its response, 0 while there is none.
        arguments: What it was given, decoded.
        result: What it returned, decoded; None if it failed or has not ended.
        error: ``Type: message`` of its failure, "" if it did not fail.
        stack: Where it was raised, if that was recorded.
        retry_of: The step of the failed call that this one tries again, 0 if none.
        retried_by: The step of the call that tries this failed one again, 0 if none.
        changes: What differs from the arguments of the call it tries again.
        repeats: How many identical calls stood before it in a row: 2 for the third.
    """

    node: Node
    response: int = 0
    arguments: Any = None
    result: Any = None
    error: str = ""
    stack: str = ""
    retry_of: int = 0
    retried_by: int = 0
    changes: list[Change] = field(default_factory=list)
    repeats: int = 0


@dataclass(slots=True)
class Turn:
    """
    One call of a model, with what is new in it, and the tools that ran because of it.

    Attributes:
        number: 1 for the first turn of the trace.
        node: Its node of the tree: name, model, status, time, tokens, cost.
        messages: What is new since the turn before it in the same conversation, in the order sent; the assistant's
            message that only repeats that turn's answer is left out.
        earlier: How many messages stood before those.
        grown: Prompt tokens more than in that turn; None if one of them has no token counts or there is none.
        lost: Whether the share of its prompt that came from a cache is smaller than in that turn, by a tenth or more;
            None as with ``grown``.
        continues: The number of that turn, 0 if this one begins a conversation.
        continued_by: The number of the first turn that goes on from this one, 0 if none.
        next: What was done there, such as ``turn 7 went on with search``; "" if nothing was.
        system: The system prompt, where it is told for the first time or changed; else "".
        offered: Names of the tools on offer, where they are told for the first time or changed; else empty.
        changes: What it changed in what was sent before, which a cache does not have from there on.
        thinking: What the model thought.
        answer: What it said.
        calls: The tool calls it asked for.
        finish_reason: Why it stopped, "" if it does not say.
        error: ``Type: message`` of its failure, "" if it did not fail.
        tools: The tool calls made because of it, or after it before the next turn.
        retry_of: The number of the failed turn that this one tries again, 0 if none.
        retried_by: The number of the turn that tries this failed one again, 0 if none.
    """

    number: int
    node: Node
    messages: list[Message] = field(default_factory=list)
    earlier: int = 0
    grown: int | None = None
    lost: bool | None = None
    continues: int = 0
    continued_by: int = 0
    next: str = ""
    system: str = ""
    offered: list[str] = field(default_factory=list)
    changes: list[PromptChange] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    answer: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    tools: list[ToolUse] = field(default_factory=list)
    retry_of: int = 0
    retried_by: int = 0

    @property
    def cached(self) -> float | None:
        """The share of its prompt that came from a cache; None if it has no token counts."""
        tokens = self.node.tokens
        return tokens.cache_read / tokens.sent if tokens and tokens.sent else None


@dataclass(slots=True)
class Section:
    """
    A piece of the transcript; sections follow each other in the order they began.

    Attributes:
        path: The names of the steps and tools it ran in, the outermost first; the innermost 50 of them.
        node: The step that begins here; such a section is a heading and holds nothing else. Else None.
        turn: The turn it shows, None if no model was called.
        tools: Tools that no turn led to.
        others: Embeddings and events of other kinds.
    """

    path: list[str] = field(default_factory=list)
    node: Node | None = None
    turn: Turn | None = None
    tools: list[ToolUse] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)

    @property
    def uses(self) -> list[ToolUse]:
        """All tool calls that it shows, those of its turn first."""
        return [*(self.turn.tools if self.turn else ()), *self.tools]


@dataclass(slots=True)
class Why:
    """
    One line that explains the run.

    Attributes:
        kind: The rule it follows from.
        text: What happened, such as ``turn 6 refund refused: PolicyError: exceeds the fee``.
        step: The step to show for it.
        then: What followed, such as ``turn 7 tried again with amount 12.9 (was 129.0): ok``; "" if nothing did.
        then_step: The step to show for that, 0 if nothing followed.
        bad: Whether nothing made it good again: a failure that was not recovered from, a loop, a cut answer.
    """

    kind: WhyKind
    text: str
    step: int
    then: str = ""
    then_step: int = 0
    bad: bool = False


@dataclass(slots=True)
class Story:
    """
    A whole trace as it is read.

    Attributes:
        tree: Its tree, with the totals.
        asked: What the user asked first, whole.
        ended: The last answer or error, whole.
        ended_reason: The finish reason of that answer, ``error``, ``running``, or "" if it does not say.
        failed: Calls that failed.
        recovered: How many of them were made good: a later call of the same tool or model succeeded.
        status: The outcome in words, never a bare "ok": ``answered: 3 calls failed, 3 recovered``.
        sections: The transcript.
        whys: What explains it, the most important first.
        turns: How many turns there are.
        steps: For each step number the number of the section that shows it.
    """

    tree: TraceTree
    asked: str = ""
    ended: str = ""
    ended_reason: str = ""
    failed: int = 0
    recovered: int = 0
    status: str = ""
    sections: list[Section] = field(default_factory=list)
    whys: list[Why] = field(default_factory=list)
    turns: int = 0
    steps: dict[int, int] = field(default_factory=dict)
