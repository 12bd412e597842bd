"""The tree of a trace as events of the protocol, numbered in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_MODEL, MAX_NAME
from whyops_trace._clock import iso
from whyops_trace._models.answers import read_request
from whyops_trace._otel.node import Node
from whyops_trace._otel.reading import Failure
from whyops_trace._otel.span import Span
from whyops_trace._shapes import list_of

#: The name of an agent that no span names.
_NO_AGENT: Final = "opentelemetry"
#: The name of a model, a provider or a tool whose name is unknown.
_UNKNOWN: Final = "unknown"
#: The beginning of the names that SDKs give to services without one.
_UNNAMED_SERVICE: Final = "unknown_service"
#: Largest number of folded spans that are named.
_MAX_FOLDED: Final = 100


class Event(msgspec.Struct):
    """
    An event of a trace.

    Attributes:
        type: The event type.
        step: Its number in the trace; the end of a step has that of its begin.
        parent: The number of its parent, 0 for none.
        within: The number of the request of what it happened in, 0 at the top.
        time_ns: Nanoseconds since the epoch.
        span: The id that a request and its response share.
        key: The idempotency key: the same for the same part of the same span.
        metadata: Members besides ``within``.
        content: The content.
        user: The user, "" if unknown.
        is_local: No server is told of it.
        is_last: It finishes its trace.
    """

    type: str
    time_ns: int
    span: str
    key: str
    metadata: dict[str, Any]
    content: Any
    step: int = 0
    parent: int = 0
    within: int = 0
    user: str = ""
    is_local: bool = False
    is_last: bool = False


class _Place:
    """The events of a node while they are made, and the time it begins at."""

    __slots__ = ("begin", "begin_ns", "end", "node")

    def __init__(self, node: Node, begin_ns: int) -> None:
        self.node = node
        self.begin_ns = begin_ns
        self.begin: Event | None = None
        self.end: Event | None = None


def is_complete(roots: list[Node]) -> bool:
    """Return True if all spans of a trace seem to be there: each root is one, and has ended."""
    return all(root.span.end_ns and not root.span.parent_id for root in roots)


def events_of(roots: list[Node], first_step: int = 1, *, ended: bool = False) -> list[Event]:
    """
    Return the events of a trace in order.

    A clock that is behind does not put a child before its parent: it begins with it then.

    Args:
        roots: The roots of the trace.
        first_step: The number of the first event.
        ended: Nothing more is expected of the trace, so that its end is an event.
    """
    places: dict[int, _Place] = {}
    made: list[tuple[int, int, Event, Node]] = []
    keys: set[str] = set()
    for node in _in_order(roots):
        if isinstance(node, _Closing):
            place = places[id(node.node)]
            for event in ends_of(node.node, place.begin_ns):
                place.end = event
                made.append((event.time_ns, len(made), event, node.node))
            continue
        outer = places[id(node.parent)].begin_ns if node.parent is not None else 0
        place = places[id(node)] = _Place(node, max(node.span.start_ns, outer))
        place.begin = begin_of(node, place.begin_ns)
        made.append((place.begin_ns, len(made), place.begin, node))
    made.sort(key=lambda each: each[:2])
    _number([(event, node) for _, _, event, node in made], places, first_step)
    for _, _, event, _ in made:
        count = 1
        key = event.key
        while event.key in keys:
            count += 1
            event.key = f"{key}-{count}"
        keys.add(event.key)
    _name_askers(places)
    events = [event for _, _, event, _ in made]
    return [*events, _trace_end(roots, events)] if ended and events else events


def _trace_end(roots: list[Node], events: list[Event]) -> Event:
    """Return the end of a trace: the failure of its last root, if that failed."""
    last = max(roots, key=lambda root: root.end_ns)
    begin_ns, end_ns = events[0].time_ns, max(event.time_ns for event in events)
    metadata: dict[str, Any] = {"latencyMs": (end_ns - begin_ns) // 1_000_000}
    content: dict[str, Any] = {}
    if last.reading.error is not None:
        metadata["outcome"] = "error"
        content["error"] = _error(last.reading.error)
    return Event(
        "trace_end", end_ns, events[0].span, "otel-end", metadata, content, step=events[0].step, is_last=True
    )


def agent_of(roots: list[Node]) -> str:
    """Return the name of the agent that a trace is of: the outermost one, or else the service."""
    nodes = [node for root in roots for node in root.walk()]
    names = [node.reading.name for node in nodes if node.kind == "agent" and node.reading.name]
    names += [node.reading.agent for node in nodes if node.reading.agent]
    names += [node.span.service for node in nodes if not node.span.service.startswith(_UNNAMED_SERVICE)]
    return next((name[:MAX_NAME] for name in names if name), _NO_AGENT)


class _Closing:
    """Stands for the end of a node, after all that is in it."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


def _in_order(roots: list[Node]) -> Iterator[Any]:
    rest: list[Any] = list(reversed(roots))
    while rest:
        each = rest.pop()
        yield each
        if isinstance(each, Node):
            rest.append(_Closing(each))
            rest += reversed(each.children)


def _number(made: list[tuple[Event, Node]], places: dict[int, _Place], first_step: int) -> None:
    """Number events, and name their parents: the request of a response, what a request is in, or what it follows."""
    step = first_step
    root = last_top = 0
    for event, node in made:
        place = places[id(node)]
        outer = places[id(node.parent)].begin if node.parent is not None else None
        begin = place.begin
        if event is begin or event.type != "step_end":
            event.step, step = step, step + 1
        if event is begin:
            event.within = outer.step if outer is not None else 0
            event.parent = event.within or last_top
        elif begin is not None:
            event.within = begin.step
            event.parent = begin.step
            if event.type == "step_end":
                event.step, event.within, event.parent = begin.step, begin.within, begin.parent
        if node.parent is None:
            last_top = event.step if event.type != "step_end" else last_top
        root = root or event.step
        event.parent = 0 if event.parent == event.step else event.parent


def _name_askers(places: dict[int, _Place]) -> None:
    for place in places.values():
        asker = place.node.asked_by
        end = places[id(asker)].end if asker is not None and id(asker) in places else None
        if end is not None and place.begin is not None and place.node.kind in ("tool", "agent"):
            place.begin.metadata = {"requestedBy": end.step, **place.begin.metadata}


def begin_of(node: Node, begin_ns: int) -> Event:
    """Return the event of the begin of a node, at a time in nanoseconds since the epoch; it is not numbered."""
    reading = node.reading
    about = _about(node)
    if node.kind == "llm":
        request = read_request(
            {"messages": reading.request.messages or [], **_given(reading.request.metadata)}
        )
        content: dict[str, Any] = {"messages": request.messages}
        if request.tool:
            content = {"toolName": request.tool, "output": request.output, **content}
        kind, metadata = (
            "tool_result" if request.tool else "user_message",
            request.metadata | reading.request.metadata | _captured(bool(request.messages or request.tool)),
        )
    elif node.kind == "tool":
        name = reading.name[:MAX_NAME] or _UNKNOWN
        kind, metadata = (
            "tool_call_request",
            {
                "tool": name,
                **({"callId": reading.call_id} if reading.call_id else {}),
                **_captured(reading.input is not None),
            },
        )
        content = {"toolCalls": [{"name": name, "arguments": _object(reading.input, "input")}]}
    elif node.kind == "embedding":
        kind, metadata = "embedding_request", {}
        content = {
            "input": reading.input if isinstance(reading.input, list) else list(filter(None, [reading.input]))
        }
    else:
        name = reading.name[:MAX_NAME] or node.span.name[:MAX_NAME] or _UNKNOWN
        kind, metadata = "llm_thinking", {"step": name}
        if node.kind in ("agent", "handoff"):
            metadata["kind"] = node.kind
        if reading.call_id:
            metadata["callId"] = reading.call_id
        if reading.input is not None:
            metadata["input"] = reading.input
        content = {"type": "thinking", "thinking": name}
    return Event(
        kind,
        begin_ns,
        node.span.span_id,
        f"otel-{node.span.span_id}-begin",
        {**metadata, **about},
        content,
        user=reading.user[:MAX_NAME],
    )


def _given(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a request's metadata as the arguments that they were."""
    system = metadata.get("systemPrompt")
    return {"system": system} if system else {}


def ends_of(node: Node, begin_ns: int) -> Iterator[Event]:
    """Yield the events of the end of a node that began then, the last of which ends it; none if it has not ended."""
    if not node.span.end_ns:
        return
    end_ns = max(node.span.end_ns, begin_ns)
    latency = {"latencyMs": (end_ns - begin_ns) // 1_000_000}
    events = {
        "llm": _end_turn,
        "tool": _end_tool,
        "embedding": _end_embedding,
    }.get(node.kind, _end_step)(node, latency)
    for number, (kind, suffix, metadata, content) in enumerate(events):
        key = f"otel-{node.span.span_id}-{suffix}" + (f"-{number}" if suffix == "thinking" else "")
        yield Event(
            kind, end_ns, node.span.span_id, key, metadata, content, user=node.reading.user[:MAX_NAME],
            is_local=kind == "step_end",
        )  # fmt: skip


_Parts = Iterator[tuple[str, str, dict[str, Any], Any]]


def _end_turn(node: Node, latency: dict[str, int]) -> _Parts:
    reading = node.reading
    answer = reading.answer
    metadata: dict[str, Any] = {**_model(node), **latency}
    if answer.id:
        metadata["responseId"] = answer.id
    if answer.usage:
        metadata["usage"] = answer.usage
    if reading.error is not None:
        content = _error(reading.error)
        partial = {"partial": answer.content} if answer.content else {}
        yield "error", "end", metadata, {**content, **partial}
        return
    for thought in answer.thinking:
        yield "llm_thinking", "thinking", {}, thought
    content = answer.said() | answer.finish()
    metadata |= _captured(bool(answer.said() or answer.thinking))
    if answer.others:
        content["otherChoices"] = [other.said() | other.finish() for other in answer.others]
    yield "llm_response", "end", metadata, content


def _model(node: Node) -> dict[str, str]:
    reading = node.reading
    return {
        "model": (reading.answer.model or reading.model or _UNKNOWN)[:MAX_MODEL],
        "provider": (reading.answer.provider or _UNKNOWN)[:MAX_NAME],
    }


def _end_tool(node: Node, latency: dict[str, int]) -> _Parts:
    reading = node.reading
    tool: dict[str, Any] = {"tool": reading.name[:MAX_NAME] or _UNKNOWN}
    calls = [{"name": tool["tool"]}]
    if reading.error is None:
        results = _object(reading.output, "result")
        metadata = {**tool, **latency, **_captured(reading.output is not None)}
        yield "tool_call_response", "end", metadata, {"toolCalls": calls, "toolResults": results}
        return
    error = _error(reading.error)
    yield "error", "error", tool, error
    results = {"error": {name: error[name] for name in ("type", "message") if name in error}}
    metadata = {**tool, **latency, "outcome": "error"}
    if reading.output is not None:
        metadata["told"] = reading.output
    yield "tool_call_response", "end", metadata, {"toolCalls": calls, "toolResults": results}


def _end_embedding(node: Node, latency: dict[str, int]) -> _Parts:
    reading = node.reading
    metadata: dict[str, Any] = {**_model(node), **latency}
    if reading.error is not None:
        yield "error", "end", metadata, _error(reading.error)
        return
    if reading.answer.usage:
        metadata["usage"] = reading.answer.usage
    content = {
        "object": "list",
        "embeddingCount": len(list_of(reading.input)) or 1,
        "firstEmbeddingDimensions": reading.dimensions,
        "encodingFormat": "float",
    }
    yield "embedding_response", "end", metadata, content


def _end_step(node: Node, latency: dict[str, int]) -> _Parts:
    reading = node.reading
    name = reading.name[:MAX_NAME] or node.span.name[:MAX_NAME] or _UNKNOWN
    metadata: dict[str, Any] = {"step": name, "startedAt": iso(node.span.start_ns), **latency}
    content = {} if reading.output is None else {"output": reading.output}
    if node.kind in ("agent", "handoff"):
        metadata["kind"] = node.kind
    if reading.error is not None:
        metadata["outcome"] = "error"
        content["error"] = _error(reading.error)
    yield "step_end", "end", metadata, content


def _error(failure: Failure) -> dict[str, Any]:
    members = {"type": failure.type, "message": failure.message, "stack": failure.stack}
    return {name: text for name, text in members.items() if text}


def _captured(told: bool) -> dict[str, bool]:
    """Return the metadata member that tells that a content was not captured, none if it was."""
    return {} if told else {"captured": False}


def _object(value: Any, name: str) -> dict[str, Any]:
    """Return an object as it is, nothing as an empty one, and any other value under a name."""
    return value if isinstance(value, dict) else {} if value is None else {name: value}


def _about(node: Node) -> dict[str, Any]:
    """Return the metadata members that tell where an event comes from, and what no dialect understood."""
    span, reading = node.span, node.reading
    source: dict[str, Any] = {"span": span.span_id, "name": span.name, "scope": span.scope}
    if span.parent_id:
        source["parent"] = span.parent_id
    if reading.rest:
        source["attributes"] = reading.rest
    if node.layers:
        source["layers"] = [_named(each) for each in node.layers]
    if node.folded:
        source["folded"] = [_named(each) for each in node.folded[:_MAX_FOLDED]]
        source["foldedCount"] = len(node.folded)
    about: dict[str, Any] = {"otel": source}
    if reading.agent and node.kind not in ("agent", "handoff"):
        about["agent"] = reading.agent[:MAX_NAME]
    if reading.conversation and node.parent is None:
        about["conversationId"] = reading.conversation
    return about


def _named(span: Span) -> dict[str, Any]:
    elapsed = max(0, span.end_ns - span.start_ns) // 1_000_000
    return {"span": span.span_id, "name": span.name, "scope": span.scope, "latencyMs": elapsed}
