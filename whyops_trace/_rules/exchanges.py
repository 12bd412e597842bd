"""The calls in a trace: which response belongs to which request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whyops_trace._reading.excerpt import Tokens, failure, get, message_text, problem
from whyops_trace._reading.halves import half_of
from whyops_trace._reading.pairing import Means, pair
from whyops_trace._reading.record import StoredRecord, latency
from whyops_trace._rules.finding import named
from whyops_trace._shapes import dicts_of, list_of, text_of


@dataclass(slots=True, eq=False)
class ToolCall:
    """
    A call of a tool.

    Attributes:
        request: Its request.
        response: Its response, if it has one.
        error: The error event that the call recorded of itself, if there is one.
        means: Means by which the response was found.
    """

    request: StoredRecord
    response: StoredRecord | None = None
    error: StoredRecord | None = None
    means: Means = ""

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
        """Its arguments, None if they were not recorded."""
        calls = dicts_of(get(self.request.content, "toolCalls"))
        return calls[0].get("arguments") if len(calls) == 1 else None

    @property
    def results(self) -> Any:
        """Its results, None while it has none."""
        return None if self.response is None else get(self.response.content, "toolResults")

    @property
    def failure(self) -> str:
        """Its failure as ``Type: message``, "" if it did not fail, or the message is empty."""
        error = self.error.content if self.error is not None else failure(self.results)
        return problem(error) if error is not None else ""

    @property
    def is_cancelled(self) -> bool:
        """True if it was cancelled."""
        return self.response is not None and self.response.metadata.get("outcome") == "cancelled"

    @property
    def latency_ms(self) -> float | None:
        """Its duration in milliseconds, None if unknown."""
        return _latency(self.request, self.response)


@dataclass(slots=True, eq=False)
class Turn:
    """
    A call of a model.

    Attributes:
        request: Its request, None if that was not recorded.
        response: Its answer, None if it has none.
        error: Its failure, if it failed.
    """

    request: StoredRecord | None
    response: StoredRecord | None = None
    error: StoredRecord | None = None

    @property
    def first(self) -> StoredRecord:
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
        """Its name for a sentence, safe to print."""
        return named(self.model or self.function, "a model")

    @property
    def provider(self) -> str:
        """Service that ran the model, in lower case."""
        return text_of(self.response.metadata.get("provider")).lower() if self.response is not None else ""

    @property
    def wraps(self) -> bool:
        """True if it is known to only repeat another turn."""
        return self.response is not None and self.response.metadata.get("wraps") is True

    @property
    def tokens(self) -> Tokens:
        """Its token counts."""
        return Tokens.of(self.response.metadata.get("usage")) if self.response is not None else Tokens()

    @property
    def messages(self) -> list[Any]:
        """The conversation it was given, as far as it was recorded."""
        return list_of(get(self.request.content, "messages")) if self.request is not None else []

    @property
    def text(self) -> str:
        """Text of its answer."""
        return message_text(get(self.response.content, "content")) if self.response is not None else ""

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls it asked for."""
        return dicts_of(get(self.response.content, "toolCalls")) if self.response is not None else []

    @property
    def latency_ms(self) -> float | None:
        """Its duration in milliseconds, None if unknown."""
        return None if self.response is None else _latency(self.request, self.response)


def _latency(request: StoredRecord | None, response: StoredRecord | None) -> float | None:
    if response is None:
        return None
    # A tool that ran at the provider is recorded when its turn ends.
    began = request.timestamp if request is not None and "ranAt" not in response.metadata else ""
    return latency(response.metadata.get("latencyMs"), began, response.timestamp)


@dataclass(slots=True, eq=False)
class Exchanges:
    """
    The calls in a trace, each kind in the order in which they began.

    Attributes:
        tools: The calls of tools.
        turns: The calls of models.
        orphans: Responses of tools without a request.
    """

    tools: list[ToolCall] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    orphans: list[StoredRecord] = field(default_factory=list)


def exchanges(events: Iterable[StoredRecord]) -> Exchanges:
    """Return the calls among the records of a trace."""
    records = list(events)
    found = Exchanges()
    halves = [half for place, record in enumerate(records) if (half := half_of(record, place))]
    for call in pair(halves):
        request, response, error = (
            records[half.place] if half is not None else None
            for half in (call.request, call.response, call.error)
        )
        if call.first.kind == "tool" and request is not None:
            found.tools.append(ToolCall(request, response, error, call.means))
        elif call.first.kind == "tool" and response is not None:
            found.orphans.append(response)
        elif call.first.kind == "llm" and response is not None and response.kind == "error":
            found.turns.append(Turn(request, None, response))
        elif call.first.kind == "llm":
            found.turns.append(Turn(request, response, error))
    return found
