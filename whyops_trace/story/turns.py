"""The parts of a story: turns, messages, tool calls, and the sections they are read in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from whyops_trace._reading.nodes import Node, TraceTree

WhyKind = Literal[
    "failed", "retried", "look", "early", "loop", "cycle", "again", "alike", "stuck", "claim", "unused", "contradicted",
    "unanswered", "cut", "context", "prompt", "longest", "open", "runaway", "standin", "vain", "partial",
]  # fmt: skip


@dataclass(slots=True)
class Call:
    """
    A tool call as a model requested it.

    Attributes:
        id: The provider's id of the call, "" if it gave none.
        name: The tool.
        arguments: Its arguments: decoded JSON, or the text if it is not JSON.
        step: The step of the tool call that followed, 0 if it was never made.
    """

    id: str
    name: str
    arguments: Any
    step: int = 0


@dataclass(slots=True)
class Message:
    """
    One message to a model.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool``, or the recorded role.
        text: Its texts, one after the other.
        name: Name of the tool if it is a tool's result, else "".
        call_id: Id of the call that it answers, "" if unknown.
        calls: The tool calls in it, if it is an assistant's.
        other: Its other contents in words, such as ``2 images``; "" if it holds only text.
        blocks: These contents, as sent.
    """

    role: str
    text: str
    name: str = ""
    call_id: str = ""
    calls: list[Call] = field(default_factory=list)
    other: str = ""
    blocks: list[Any] = field(default_factory=list, compare=False)


@dataclass(slots=True)
class Change:
    """
    A member that differs between two calls of a tool.

    Attributes:
        path: Path of the member, such as ``amount`` or ``items[0].price``.
        before: Its value before, as JSON; None if it was not there.
        after: Its value after, as JSON; None if it is gone.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(slots=True)
class PromptChange:
    """
    A turn's change of the prompt of the turn before it, beyond added messages.

    Attributes:
        part: ``system`` for the system prompt, ``tools`` for the tools on offer, ``history`` for earlier messages.
        summary: The change in words, such as ``message 3 of 14 was edited`` or ``12 messages were replaced by 2``.
        diff: Lines of a unified diff of the changed texts, without its header.
    """

    part: Literal["system", "tools", "history"]
    summary: str
    diff: list[str]

    @property
    def only_removes(self) -> bool:
        """True if earlier messages were removed and not replaced, as in an agent that sends only the latest ones."""
        return self.part == "history" and not any(line.startswith("+") for line in self.diff)


@dataclass(slots=True)
class ToolUse:
    """
    A tool call as it was made: its input, its output, and its links to other calls of that tool.

    Attributes:
        node: Its node of the tree: name, status, time, the turn that requested it.
        response: The step of its response, 0 while there is none.
        arguments: Its arguments, decoded.
        result: Its result, decoded; None if it failed or has not ended.
        error: ``Type: message`` of its failure, "" if it did not fail.
        stack: The recorded stack of the exception, "" if none was recorded.
        retry_of: The step of the failed call that this one tries again, 0 if none.
        retried_by: The step of the call that tries this failed one again, 0 if none.
        changes: Differences from the arguments of the call that it tries again.
        repeats: Number of identical calls directly before it: 2 for the third.

    Its node says whether the result tells of a failure or of nothing: ``node.said_failed`` and ``node.is_empty``.
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

    @property
    def problem(self) -> str:
        """Its error, or the words in which its result says that it failed; "" if there is neither."""
        return self.error or self.node.error or self.node.said_failed


@dataclass(slots=True)
class Turn:
    """
    One call of a model, with its new messages and the tools that ran because of it.

    Attributes:
        number: 1 for the first turn of the trace.
        node: Its node of the tree: name, model, status, time, tokens, cost.
        agent: Name of the agent whose turn it is: of the run of an agent around it, else of the innermost step around
            it; "" if there is neither.
        messages: New messages since the turn that it continues, in the order sent. An assistant's message that only
            repeats that turn's answer is left out.
        earlier: Number of messages before those.
        grown: Growth of the prompt since that turn, in tokens; None if a token count or that turn is missing.
        lost: True if the cached share of its prompt is smaller than in that turn by a tenth or more; None as with
            ``grown``.
        continues: The number of the turn that it continues, 0 if it begins a conversation.
        continued_by: The number of the first turn that continues this one, 0 if none.
        next: The action in that turn, such as ``turn 7 went on with search``; "" if there was none.
        system: The system prompt if it is new or changed, else "".
        offered: Names of the tools on offer if they are new or changed, else empty.
        schemas: These tools, as sent.
        changes: Its changes of the earlier prompt. A cache holds nothing from the changed place on.
        thinking: The model's thinking blocks.
        answer: The text of the model's answer.
        calls: The tool calls that it requested.
        finish_reason: The model's reason to stop, "" if it gave none.
        error: ``Type: message`` of its failure, "" if it did not fail.
        tools: The tool calls made because of it, or between it and the next turn.
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
    schemas: list[Any] = field(default_factory=list, repr=False, compare=False)
    changes: list[PromptChange] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    answer: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    tools: list[ToolUse] = field(default_factory=list)
    retry_of: int = 0
    retried_by: int = 0
    agent: str = ""

    @property
    def cached(self) -> float | None:
        """The share of its prompt that came from a cache, 0 to 1; None if it has no token counts."""
        tokens = self.node.tokens
        return tokens.cache_read / tokens.sent if tokens and tokens.sent else None


@dataclass(slots=True)
class Section:
    """
    A piece of the transcript. Sections are in the order they began.

    Attributes:
        path: The names of the innermost 50 steps and tools that it ran in, the outermost first.
        node: The step that begins here, else None. A section with a step is a heading and holds nothing else.
        turn: The turn that it shows, None if it shows no model call.
        tools: Tool calls that belong to no turn.
        others: Embeddings and events of other kinds.
    """

    path: list[str] = field(default_factory=list)
    node: Node | None = None
    turn: Turn | None = None
    tools: list[ToolUse] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)

    @property
    def uses(self) -> list[ToolUse]:
        """All its tool calls, those of its turn first."""
        return [*(self.turn.tools if self.turn else ()), *self.tools]


@dataclass(slots=True)
class Why:
    """
    One line that explains the run.

    Attributes:
        kind: The rule it follows from.
        text: The event in words, such as ``turn 6 refund refused: PolicyError: exceeds the fee``.
        step: The step to show for it.
        then: The consequence, such as ``turn 7 tried again with amount 12.9 (was 129.0): ok``; "" if there was none.
        then_step: The step to show for the consequence, 0 if there was none.
        bad: True for a problem without recovery: a failure with no successful retry, a loop, a cut answer.
        more: Further steps that it is about.
    """

    kind: WhyKind
    text: str
    step: int
    then: str = ""
    then_step: int = 0
    bad: bool = False
    more: list[int] = field(default_factory=list)


@dataclass(slots=True)
class FailedCall:
    """
    A call that failed itself, rather than passing on the failure of a call inside it.

    Attributes:
        node: Its node of the tree.
        error: ``Type: message``, or the words in which its result says that it failed.
        recovered: True if its last retry succeeded.
    """

    node: Node
    error: str
    recovered: bool


@dataclass(slots=True)
class Story:
    """
    A whole trace, in the order of reading.

    Attributes:
        tree: Its tree, with the totals.
        asked: The user's first question, uncut.
        ended: The last answer or error, uncut; in words after which call the run stopped, if no answer came after it.
        ended_reason: The finish reason of that answer, ``error``, ``stopped`` after a call, ``rounds`` if they were
            used up, ``running``, or "" if unknown.
        ended_by: What a model said after its answer to end the run, such as ``TERMINATE``; "" if it did not.
        failed: Number of failed calls, those that only say so among them.
        said_failed: Number of calls that did not raise, but whose results say that they failed.
        recovered: Number of failed calls with a successful retry: a later call of the same tool or model.
        failed_calls: Those calls, in the order they began.
        status: The outcome in words, never a bare "ok": ``answered: 3 calls failed, 3 recovered``.
        sections: The transcript.
        whys: Lines that explain it, the most important first.
        turns: Number of turns that were answered or failed, without those that only repeat turns of clients.
        steps: Index of the section that shows a step, by the step's number.
    """

    tree: TraceTree
    asked: str = ""
    ended: str = ""
    ended_reason: str = ""
    ended_by: str = ""
    failed: int = 0
    said_failed: int = 0
    recovered: int = 0
    failed_calls: list[FailedCall] = field(default_factory=list)
    status: str = ""
    sections: list[Section] = field(default_factory=list)
    whys: list[Why] = field(default_factory=list)
    turns: int = 0
    steps: dict[int, int] = field(default_factory=dict)
