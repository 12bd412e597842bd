"""The calls in a trace: which response belongs to which request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whyops_trace._reading.excerpt import Tokens, get, message_text
from whyops_trace._reading.halves import half_of
from whyops_trace._reading.pairing import Means, pair
from whyops_trace._reading.record import StoredRecord, latency
from whyops_trace._rules.finding import named
from whyops_trace._shapes import dicts_of, list_of, text_of


@dataclass(slots=True, eq=False)
class Exchange:
    """
    A call of a tool or a model.

    Attributes:
        request: Its request, None if that was not recorded.
        response: Its response, None if it has none.
        error: The error event that was recorded of it, if there is one.
    """

    request: StoredRecord | None
    response: StoredRecord | None = None
    error: StoredRecord | None = None

    @property
    def end(self) -> StoredRecord | None:
        """The record that ended it, None while it is open."""
        return self.response or self.error

    @property
    def failure(self) -> str:
        """Its failure as ``Type: message``, "" if it did not fail."""
        return next((end.error for end in (self.error, self.response) if end and end.error), "")

    @property
    def is_cancelled(self) -> bool:
        """True if it was cancelled."""
        end = self.end
        return end is not None and end.metadata.get("outcome") == "cancelled" and not self.failure

    @property
    def latency_ms(self) -> float | None:
        """Its duration in milliseconds, None if unknown."""
        end = self.end
        if end is None:
            return None
        about, began = end.metadata.get, "" if self.request is None else self.request.timestamp
        return latency(about("latencyMs"), began, end.timestamp, about("ranAt"))


@dataclass(slots=True, eq=False)
class ToolCall(Exchange):
    """
    A call of a tool.

    Attributes:
        request: Its request.
        means: Means by which the response was found.
    """

    request: StoredRecord  # pyright: ignore[reportIncompatibleVariableOverride] - it always has one
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
    def said_failed(self) -> str:
        """The words in which its results say that it failed, though it did not; "" if they do not."""
        found = None if self.response is None or self.failure else self.response.verdict
        return found.words if found is not None else ""

    @property
    def results(self) -> Any:
        """Its results, None while it has none."""
        return None if self.response is None else get(self.response.content, "toolResults")


class Turn(Exchange):
    """A call of a model."""

    @property
    def first(self) -> StoredRecord:
        """The first of its events."""
        event = self.request or self.response or self.error
        assert event is not None  # noqa: S101 - a turn is made of at least one of them
        return event

    @property
    def step(self) -> int:
        """The step to show it at: of its answer, else of its error or request."""
        return (self.end or self.first).step

    @property
    def function(self) -> str:
        """The traced function or client that made it, "" for one that was reported by hand."""
        return text_of(self.first.metadata.get("function"))

    @property
    def model(self) -> str:
        """The model that answered, "" if that is not known."""
        return text_of(self.end.metadata.get("model")) if self.end is not None else ""

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
        return self.end is not None and self.end.metadata.get("wraps") is True

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
