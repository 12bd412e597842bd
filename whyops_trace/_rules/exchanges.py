"""The calls in a trace: which response belongs to which request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from whyops_trace._reading.excerpt import Tokens, failure, get, message_text, number, problem
from whyops_trace._rules.finding import named
from whyops_trace._rules.views import View
from whyops_trace._shapes import dicts_of, list_of, text_of

#: How a response was found to belong to its request; "" while there is none.
Pairing = Literal["", "span", "parent", "tool"]


@dataclass(slots=True, eq=False)
class ToolCall:
    """
    A call of a tool.

    Attributes:
        request: Its request.
        response: Its response, if it has one.
        error: The error event that the call recorded of itself, if there is one.
        pairing: How the response was found.
    """

    request: View
    response: View | None = None
    error: View | None = None
    pairing: Pairing = ""

    @property
    def name(self) -> str:
        """The tool, safe to print."""
        return named(self.request.metadata.get("tool"), "a tool")

    @property
    def step(self) -> int:
        """The step of its request."""
        return self.request.step

    @property
    def asked_by(self) -> int:
        """The step of the model's answer that asked for it, 0 if none is known."""
        step = self.request.metadata.get("requestedBy")
        return step if type(step) is int else 0

    @property
    def arguments(self) -> Any:
        """What it was called with, None if that is not told."""
        calls = dicts_of(get(self.request.content, "toolCalls"))
        return calls[0].get("arguments") if len(calls) == 1 else None

    @property
    def results(self) -> Any:
        """What it returned, None while it has not."""
        return None if self.response is None else get(self.response.content, "toolResults")

    @property
    def failure(self) -> str:
        """How it failed as ``Type: message``, "" if it did not, or the message is empty."""
        error = self.error.content if self.error is not None else failure(self.results)
        return problem(error) if error is not None else ""

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.response is not None and self.response.metadata.get("outcome") == "cancelled"

    @property
    def latency_ms(self) -> float | None:
        """How long it took, if that is known."""
        return _latency(self.request, self.response)


@dataclass(slots=True, eq=False)
class Turn:
    """
    A call of a model.

    Attributes:
        request: What it was asked, None if that was not recorded.
        response: Its answer, None if it has none.
        error: How it failed, if it did.
    """

    request: View | None
    response: View | None = None
    error: View | None = None

    @property
    def first(self) -> View:
        """The first of its events."""
        event = self.request or self.response or self.error
        assert event is not None  # noqa: S101 - a turn is made of at least one of them
        return event

    @property
    def step(self) -> int:
        """The step to show it at: of its answer, else of its failure or request."""
        return (self.response or self.error or self.first).step

    @property
    def function(self) -> str:
        """The traced function or client that made it, "" for one that was reported by hand."""
        return text_of(self.first.metadata.get("function"))

    @property
    def model(self) -> str:
        """The model that answered, "" if that is not known."""
        answer = self.response or self.error
        return text_of(answer.metadata.get("model")) if answer is not None else ""

    @property
    def name(self) -> str:
        """What to call it in a sentence, safe to print."""
        return named(self.model or self.function, "a model")

    @property
    def provider(self) -> str:
        """Who served it, in lower case."""
        return text_of(self.response.metadata.get("provider")).lower() if self.response is not None else ""

    @property
    def is_closed(self) -> bool:
        """Whether it was answered, or failed."""
        return self.response is not None or self.error is not None

    @property
    def wraps(self) -> bool:
        """Whether it only repeats another turn, and is known to."""
        return self.response is not None and self.response.metadata.get("wraps") is True

    @property
    def tokens(self) -> Tokens:
        """What it took."""
        return Tokens.of(self.response.metadata.get("usage")) if self.response is not None else Tokens()

    @property
    def messages(self) -> list[Any]:
        """The conversation it was given, as far as it was recorded."""
        return list_of(get(self.request.content, "messages")) if self.request is not None else []

    @property
    def text(self) -> str:
        """What it answered."""
        return message_text(get(self.response.content, "content")) if self.response is not None else ""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls it asked for."""
        return dicts_of(get(self.response.content, "toolCalls")) if self.response is not None else []

    @property
    def latency_ms(self) -> float | None:
        """How long it took, if that is known."""
        return None if self.response is None else _latency(self.request, self.response)


def _latency(request: View | None, response: View | None) -> float | None:
    if response is None:
        return None
    latency = number(response.metadata.get("latencyMs"))
    if latency is None and request is not None and request.moment is not None and response.moment is not None:
        latency = max(0, response.moment - request.moment)
    return latency


@dataclass(slots=True, eq=False)
class Exchanges:
    """
    The calls in a trace, each kind in the order in which they began.

    Attributes:
        tools: The calls of tools.
        turns: The calls of models.
        orphans: Responses of tools without a request.
        errors: Errors that belong to no call of these.
    """

    tools: list[ToolCall] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    orphans: list[View] = field(default_factory=list)
    errors: list[View] = field(default_factory=list)


def exchanges(events: Iterable[View]) -> Exchanges:
    """Return the calls among the events of a trace."""
    reader = _Reader()
    for event in events:
        match event.kind:
            case "tool_call_request":
                reader.open_tool(event)
            case "tool_call_response":
                reader.close_tool(event)
            case "user_message" | "tool_result":
                reader.open_turn(event)
            case "llm_response":
                reader.close_turn(event)
            case "error":
                reader.fail(event)
    return reader.found


#: Calls without a response, by their :func:`id`, in the order in which they began.
_Open: TypeAlias = dict[int, ToolCall]


class _Reader:
    """Takes the events one by one."""

    def __init__(self) -> None:
        self.found = Exchanges()
        #: By run and step: processes that record on one trace at the same time may use a number twice.
        self._tools: dict[tuple[str, int], ToolCall] = {}
        self._turns: dict[tuple[str, int], Turn] = {}
        #: Those without a response, by span and name, by span alone, and by name alone.
        self._waiting: dict[tuple[str, str], _Open] = defaultdict(dict)
        #: The latest message that was reported by hand, by the call it was reported in.
        self._reported: dict[int, Turn] = {}

    def open_tool(self, request: View) -> None:
        call = ToolCall(request)
        self.found.tools.append(call)
        self._tools[request.run, request.step] = call
        for key in _keys(call):
            self._waiting[key][id(call)] = call

    def close_tool(self, response: View) -> None:
        call, pairing = self._request_of(response)
        if call is None:
            self.found.orphans.append(response)
            return
        call.response, call.pairing = response, pairing
        for key in _keys(call):
            del self._waiting[key][id(call)]

    def _request_of(self, response: View) -> tuple[ToolCall | None, Pairing]:
        """
        Return the open call that a response answers.

        One that it shares a span with, of these its parent, or the first of the same tool; else its parent, else the
        first of the same tool.
        """
        tool = named(response.metadata.get("tool"), "a tool")
        parent = self._tools.get((response.run, response.parent))
        if parent is not None and (parent.response is not None or parent.name != tool):
            parent = None
        same_span = self._waiting.get((response.span, ""), {}) if response.span else {}
        if parent is not None and (id(parent) in same_span or not response.span or not parent.request.span):
            return parent, "span"
        if same_span:
            return self._first(response.span, tool) or self._first(response.span, ""), "span"
        if parent is not None:
            return parent, "parent"
        call = self._first("", tool)
        return (call, "tool") if call is not None else (None, "")

    def _first(self, span: str, tool: str) -> ToolCall | None:
        """Return the call that waits longest of those with a span and name, either of which may be any."""
        return next(iter(self._waiting.get((span, tool), {}).values()), None)

    def open_turn(self, request: View) -> None:
        turn = Turn(request)
        self.found.turns.append(turn)
        self._turns[request.run, request.step] = turn
        if not turn.function:
            self._reported[request.within] = turn

    def close_turn(self, response: View) -> None:
        function = text_of(response.metadata.get("function"))
        turn = self._turns.get((response.run, response.parent))
        if turn is None or turn.is_closed or turn.function != function:
            turn = None if function else self._reported.pop(response.within, None)
        if turn is None or turn.is_closed:
            turn = Turn(None)
            self.found.turns.append(turn)
        turn.response = response

    def fail(self, error: View) -> None:
        tool = self._tools.get((error.run, error.parent))
        turn = self._turns.get((error.run, error.parent))
        if tool is not None and tool.response is None and named(error.metadata.get("tool")) == tool.name:
            tool.error = error
        elif (
            turn is not None
            and turn.response is None
            and error.metadata.get("function") == turn.function != ""
        ):
            turn.error = error
        else:
            self.found.errors.append(error)


def _keys(call: ToolCall) -> list[tuple[str, str]]:
    """Return under what a call is found while it waits for its response."""
    span = call.request.span
    return [(span, call.name), (span, ""), ("", call.name)] if span else [("", call.name)]
