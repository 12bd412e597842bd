"""The subject of a span: a turn of a model, a tool call, an agent, a step."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from whyops_trace._models.answers import Request, Turn
from whyops_trace._otel.evaluations import SpanScore
from whyops_trace._otel.tokens import richer

#: Kinds of readings. "" is not known yet, or nothing of an agent's.
Kind: TypeAlias = Literal["", "llm", "tool", "agent", "handoff", "step", "embedding"]


class Failure(msgspec.Struct):
    """
    An error that a span tells of.

    Attributes:
        message: Its text.
        type: The class of the exception, "" if unknown.
        stack: The stack as a text, "" if unknown.
        is_sure: False if nothing but the status says so, which some put on spans that did not fail.
    """

    message: str
    type: str = ""
    stack: str = ""
    is_sure: bool = True


class Reading(msgspec.Struct):
    """
    What a span tells of. Each dialect fills in what is still missing.

    Attributes:
        kind: What it is.
        name: Of the tool, agent or step.
        request: Of a turn: messages, system prompt, tools and parameters.
        answer: Of a turn: text, thinking, tool calls, reason to stop, model, provider, id and tokens.
        model: The model that was asked for.
        call_id: Id of the tool call.
        input: Arguments of a tool; input of an agent, a step or an embedding.
        output: Result of a tool; output of an agent or a step.
        dimensions: Length of a vector of an embedding.
        error: Its failure, None if it did not fail.
        has_failed: The source says by a member of its own that it failed, or that it did not; None if it says neither.
        agent: Name of the agent that it belongs to.
        conversation: Id of the conversation.
        user: Id of the user.
        delegate: Name of the agent that a tool call runs.
        may_be_tool: A step that is a tool's call, if a turn asked for a tool of its name.
        is_copy: It repeats what other spans tell, and is a source of what they lack.
        scores: Scores that it tells of.
        calls: Tool calls in it of which no span of their own tells.
        rest: Attributes that no dialect knows.
    """

    kind: Kind = ""
    name: str = ""
    request: Request = msgspec.field(default_factory=Request)
    answer: Turn = msgspec.field(default_factory=Turn)
    model: str = ""
    call_id: str = ""
    input: Any = None
    output: Any = None
    dimensions: int = 0
    error: Failure | None = None
    has_failed: bool | None = None
    agent: str = ""
    conversation: str = ""
    user: str = ""
    delegate: str = ""
    may_be_tool: bool = False
    is_copy: bool = False
    scores: list[SpanScore] = []
    calls: list[Reading] = []
    rest: dict[str, Any] = {}

    def fill(self, **members: Any) -> None:
        """Set members that are empty so far. No arguments are something told, too."""
        for name, value in members.items():
            is_told = value or value == 0 or (name == "input" and value == {})
            if is_told and not getattr(self, name):
                setattr(self, name, value)

    def ask(self, messages: list[Any] | None = None, **metadata: Any) -> None:
        """Set what is unknown so far of the request: messages, ``systemPrompt``, ``tools`` and ``params``."""
        if messages and not self.request.messages:
            self.request.messages = messages
        for name, value in metadata.items():
            if value and not self.request.metadata.get(name):
                self.request.metadata = {**self.request.metadata, name: value}

    def reply(self, answer: Turn) -> None:
        """Take from an answer what is unknown so far."""
        mine = self.answer
        for name in (
            "content",
            "thinking",
            "tool_calls",
            "finish_reason",
            "model",
            "provider",
            "refusal",
            "id",
        ):
            value = getattr(answer, name)
            if value not in (None, "", []) and getattr(mine, name) in (None, "", []):
                setattr(mine, name, value)
        if all("id" in call for call in answer.tool_calls) and not all(
            "id" in call for call in mine.tool_calls
        ):
            mine.tool_calls = answer.tool_calls or mine.tool_calls
        mine.usage = richer(mine.usage, answer.usage)
        mine.others = mine.others or answer.others

    @property
    def is_folded(self) -> bool:
        """True if it is nothing of an agent's, or a step that repeats what others tell."""
        return self.kind == "" or (self.kind == "step" and self.is_copy)

    @property
    def has_answer(self) -> bool:
        """True if a model answered."""
        answer = self.answer
        return bool(answer.content or answer.tool_calls or answer.thinking or answer.finish_reason)
