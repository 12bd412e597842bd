"""The calls of a recorded trace, as a replay and a fixture have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from whyops_trace._shapes import dict_of, list_of, text_of

Kind = Literal["tool", "llm", "embedding"]

#: Kinds of calls by the event type of their request.
OPENERS: Final[dict[str, Kind]] = {
    "tool_call_request": "tool",
    "user_message": "llm",
    "tool_result": "llm",
    "embedding_request": "embedding",
}
_ENDS: Final = frozenset({"tool_call_response", "llm_response", "embedding_response"})
#: Characters of arguments that a line about a call shows.
_SHOWN: Final = 90

#: A place in the trace: trace id, numbering, step.
Key = tuple[str, str, int]


@dataclass(slots=True, eq=False)
class RecordedCall:
    """
    One recorded call.

    Attributes:
        kind: Its kind.
        name: The name of the tool, function or endpoint.
        asked: What it was asked: ``arguments`` of a tool, ``input`` of an embedding; ``messages``, ``systemPrompt``,
            ``system``, ``tools`` and ``params`` of a model.
        number: Its place among all calls, from 1 on, in the order they began.
        step: The step of its request, 0 in a fixture.
        parent: The call around it, None at the top.
        path: Names of the steps between it and that call, the outermost first.
        began: Number of calls that had ended when it began; -1 if that is not known.
        ended: Its place among all calls in the order they ended, from 1 on; 0 if it never did.
        outcome: ``ok``, ``error``, ``cancelled``, ``open`` if it never ended, or the name of what is no failure.
        answer: What it returned, as it was recorded.
        returned: The class of that, if it is no JSON.
        error: The failure, as it was recorded.
        raw: The answer of a model as its provider had it.
        usage: The tokens of that.
        model: The model that answered.
        provider: The service that served it.
        request_id: The provider's id of the request.
        response_id: Its id of the answer, where *raw* has none.
        refusal: The status, headers and body with which the provider refused it.
        wraps: True for a function around a client that reports the turn.
        is_captured: False if the result was not recorded.
        is_redacted: True if a secret was taken out of the result.
        holds_model: True if a model was called inside.
        is_used: True once a call of the replay was answered with it.
    """

    kind: Kind
    name: str
    asked: dict[str, Any]
    number: int = 0
    step: int = 0
    parent: RecordedCall | None = None
    path: tuple[str, ...] = ()
    began: int = -1
    ended: int = 0
    outcome: str = "open"
    answer: Any = None
    returned: str = ""
    error: dict[str, Any] | None = None
    raw: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    model: str = ""
    provider: str = ""
    request_id: str = ""
    response_id: str = ""
    refusal: dict[str, Any] | None = None
    wraps: bool = False
    is_captured: bool = True
    is_redacted: bool = False
    holds_model: bool = False
    is_used: bool = False

    def __str__(self) -> str:
        return f"{self.name}({shown(self.asked)})"

    def is_before(self, other: RecordedCall) -> bool:
        """Tell whether it had ended when another one began, within the same call."""
        return self.parent is other.parent and 0 < self.ended <= other.began


@dataclass(slots=True)
class Recording:
    """
    The calls of a trace.

    Attributes:
        source: The trace id.
        agent: The name of the agent.
        calls: The calls in the order they began.
        events: The records that they were read from, [] for a fixture.
    """

    source: str
    agent: str
    calls: list[RecordedCall]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def undecorated(self) -> list[str]:
        """Names of tools that models asked for, and that no recorded call has: a replay runs them."""
        recorded = {call.name for call in self.calls if call.kind == "tool"}
        asked = {name for call in self.calls for name in _asked_tools(call)}
        return sorted(asked - recorded)


class Places:
    """The calls and steps of one or more traces, by which the call around a record is found."""

    def __init__(self) -> None:
        self._places: dict[Key, RecordedCall | tuple[str, int] | None] = {}

    def add_step(self, event: Mapping[str, Any]) -> None:
        """Take a record that may begin a step."""
        metadata = dict_of(event.get("metadata"))
        if event.get("eventType") == "llm_thinking" and isinstance(metadata.get("step"), str):
            self._places[key_of(event)] = (metadata["step"], _step(metadata.get("within")))

    def add_call(self, key: Key, call: RecordedCall | None) -> None:
        """Take a call."""
        self._places[key] = call

    def call_at(self, key: Key) -> RecordedCall | None:
        """Return the call at a place, None if there is none."""
        place = self._places.get(key)
        return place if isinstance(place, RecordedCall) else None

    def around(self, event: Mapping[str, Any]) -> tuple[RecordedCall | None, tuple[str, ...]]:
        """Return the call around a record, and the names of the steps between the two."""
        trace, run, _ = key_of(event)
        within, path = _step(dict_of(event.get("metadata")).get("within")), []
        place = self._places.get((trace, run, within))
        while isinstance(place, tuple):
            path.append(place[0])
            place = self._places.get((trace, run, place[1]))
        return place, tuple(reversed(path))


def read_calls(events: Iterable[dict[str, Any]]) -> Recording:
    """Return the calls that the records of a trace tell of."""
    events = list(events)
    places = Places()
    calls: list[RecordedCall] = []
    ends = 0
    for event in events:
        kind = text_of(event.get("eventType"))
        trace, run, _ = key_of(event)
        if (call := opened_by(event)) is not None:
            call.number, call.step = len(calls) + 1, _step(event.get("stepId"))
            call.began = ends
            call.parent, call.path = places.around(event)
            places.add_call(key_of(event), call)
            calls.append(call)
        elif kind == "llm_thinking":
            places.add_step(event)
        elif (owner := places.call_at((trace, run, _step(event.get("parentStepId"))))) is not None:
            if kind == "error":
                owner.error = dict_of(event.get("content"))
            if ended_by(event, places) is owner:
                ends += 1
                owner.ended = ends
                _end(owner, event)
    for call in calls:
        mark_models(call)
    first = events[0] if events else {}
    return Recording(text_of(first.get("traceId")), text_of(first.get("agentName")), calls, events)


def mark_models(call: RecordedCall) -> None:
    """Note in the calls around a call of a model that they hold one; vectors alone are no reason to run a function."""
    outer = call.parent if call.kind == "llm" else None
    while outer is not None:
        outer.holds_model, outer = True, outer.parent


def opened_by(event: Mapping[str, Any]) -> RecordedCall | None:
    """Return the call that a record begins, None if it begins none that a program makes."""
    kind = OPENERS.get(text_of(event.get("eventType")))
    metadata, content = dict_of(event.get("metadata")), dict_of(event.get("content"))
    if kind == "tool" and "ranAt" not in metadata and metadata.get("tool"):
        tool = dict_of(next(iter(list_of(content.get("toolCalls"))), None))
        return RecordedCall(kind, text_of(metadata["tool"]), {"arguments": tool.get("arguments")})
    if kind is None or kind == "tool" or not metadata.get("function"):  # recorded by hand
        return None
    if kind == "embedding":
        return RecordedCall(kind, text_of(metadata["function"]), {"input": content.get("input")})
    asked: dict[str, Any] = {
        name: metadata[name] for name in ("systemPrompt", "system", "tools", "params") if name in metadata
    }
    return RecordedCall(kind, text_of(metadata["function"]), {**asked, "messages": content.get("messages")})


def ended_by(event: Mapping[str, Any], places: Places) -> RecordedCall | None:
    """Return the call whose end a record tells, None if it tells of none."""
    kind = text_of(event.get("eventType"))
    trace, run, _ = key_of(event)
    owner = places.call_at((trace, run, _step(event.get("parentStepId"))))
    ends = owner is not None and (kind in _ENDS or (kind == "error" and owner.kind != "tool"))
    return owner if ends else None


def _end(call: RecordedCall, event: Mapping[str, Any]) -> None:
    """Note how a call ended."""
    metadata, content = dict_of(event.get("metadata")), event.get("content")
    call.outcome = text_of(metadata.get("outcome")) or ("error" if call.error is not None else "ok")
    call.returned, call.model = text_of(metadata.get("returned")), text_of(metadata.get("model"))
    call.provider, call.request_id = text_of(metadata.get("provider")), text_of(metadata.get("requestId"))
    call.wraps = metadata.get("wraps") is True
    call.is_captured, call.is_redacted = (
        metadata.get("captured") is not False,
        metadata.get("redacted") is True,
    )
    call.raw, call.usage = metadata.get("rawResponse"), metadata.get("usage")
    call.response_id = text_of(metadata.get("responseId")) if call.raw is None else ""
    call.refusal = metadata.get("errorResponse")
    call.answer = dict_of(content).get("toolResults") if call.kind == "tool" else content


def key_of(event: Mapping[str, Any]) -> Key:
    """Return the place of a record."""
    return text_of(event.get("traceId")), text_of(event.get("run")), _step(event.get("stepId"))


def shown(asked: Mapping[str, Any]) -> str:
    """Return in a few words what a call was asked."""
    if "messages" in asked:
        return f"{len(list_of(asked['messages']))} messages"
    given = asked.get("arguments", asked.get("input"))
    words = (
        ", ".join(f"{name}={value!r}" for name, value in given.items())
        if isinstance(given, dict)
        else repr(given)
    )
    return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"


def around(
    calls: Sequence[RecordedCall], at: RecordedCall | None, parent: RecordedCall | None
) -> Iterator[str]:
    """Yield lines of a tree: the calls beside a place, with the place marked, below the calls around it."""
    above: list[RecordedCall] = []
    outer = parent
    while outer is not None:
        above.append(outer)
        outer = outer.parent
    for depth, call in enumerate(reversed(above)):
        yield f"    {'   ' * depth}{call}"
    beside = [call for call in calls if call.parent is parent]
    place = beside.index(at) if at in beside else sum(call.is_used for call in beside)
    guides = "   " * len(above)
    if place > _BESIDE:
        yield f"    {guides}… {place - _BESIDE} before"
    for call in beside[max(0, place - _BESIDE) : place + _BESIDE + 1]:
        mark = ">" if call is at else "✓" if call.is_used else " "
        yield f"  {mark} {guides}{call}{'' if call.outcome == 'ok' else f'  {call.outcome}'}"
    if len(beside) > place + _BESIDE + 1:
        yield f"    {guides}… {len(beside) - place - _BESIDE - 1} after"


#: Calls that are shown before and after a place.
_BESIDE: Final = 3


def _asked_tools(call: RecordedCall) -> Iterator[str]:
    for asked in list_of(dict_of(call.answer).get("toolCalls")) if call.kind == "llm" else ():
        if name := text_of(dict_of(dict_of(asked).get("function")).get("name")):
            yield name


def _step(thing: object) -> int:
    return thing if type(thing) is int else 0
