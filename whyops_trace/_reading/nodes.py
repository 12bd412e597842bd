"""
The records of a trace as a tree of nodes, one for each call, step or other event.

Records may hold anything: numbers used twice, parents that are missing, texts that would move a cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from whyops_trace._reading.excerpt import (
    Tokens,
    answer,
    clean,
    excerpt,
    get,
    milliseconds,
    named_values,
    number,
    problem,
    question,
    value,
)
from whyops_trace._reading.halves import half_of
from whyops_trace._reading.pairing import Call, pair
from whyops_trace._reading.prices import cost_of, is_billed, total
from whyops_trace._reading.record import StoredRecord, latency, tool_name
from whyops_trace._reading.score import SCORE
from whyops_trace._reading.verdict import Verdict
from whyops_trace._shapes import list_of, text_of

#: Stands for what was not captured.
_UNTOLD: Final = "\u2026"

Kind = Literal["tool", "llm", "step", "embedding", "event"]
Status = Literal["ok", "error", "cancelled", "running", "unfinished"]

#: Characters kept of arguments, results and errors; more never fits on a line.
_KEPT: Final = 200


@dataclass(slots=True)
class Node:
    """
    One call, step or event of a trace; its texts are single lines, safe to print.

    Attributes:
        kind: Its kind.
        name: The name of the tool, function or step; for other events what they are.
        step: Its number in the trace.
        started: When it began, ISO 8601.
        process: The token of the process that recorded it, "" if unknown.
        awaits: The type of the event that would close it, "" if nothing would.
        status: ``running`` until it is closed; ``unfinished`` if its process ended before that.
        latency_ms: Its duration in milliseconds, None if unknown.
        model: The model that answered.
        arguments: Its arguments.
        question: What the user said last to a model, where that was recorded.
        result: Its result.
        calls: The tools a model wants called.
        error: Why it failed.
        verdict: The verdict of a tool's result on its call, None if it says nothing or the call failed.
        tokens: Token counts of a call of a model.
        cost: Its cost in US dollars, None if unknown.
        answer: The step of a model's answer, 0 while there is none.
        response: The step of the record that closed it, 0 while there is none.
        tells_input: False if its arguments, or the messages of its request, were not captured.
        tells_output: False if its result or its answer was not captured.
        asked_by: The call of a model that asked for this one, if that is known.
        children: Nodes of the calls, steps and events inside it.
        parent: Node of the call or step around it, None at the top.
    """

    kind: Kind
    name: str
    step: int
    started: str
    process: str = ""
    awaits: str = ""
    status: Status = "ok"
    latency_ms: float | None = None
    model: str = ""
    arguments: str = ""
    question: str = ""
    result: str = ""
    calls: str = ""
    error: str = ""
    verdict: Verdict | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    answer: int = 0
    tells_input: bool = True
    tells_output: bool = True
    asked_by: Node | None = field(default=None, repr=False, compare=False)
    children: list[Node] = field(default_factory=list)
    response: int = 0
    parent: Node | None = field(default=None, repr=False, compare=False)

    def ancestors(self) -> Iterator[Node]:
        """Yield the nodes around it, the innermost first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def said_failed(self) -> str:
        """The words in which the result of a tool says that it failed, though it did not; "" if it does not say so."""
        return self.verdict.words if self.verdict is not None else ""

    @property
    def is_empty(self) -> bool:
        """True if the result of a tool says that there was nothing."""
        return self.verdict is not None and self.verdict.kind == "empty"


@dataclass(slots=True)
class TraceTree:
    """
    A whole trace.

    Attributes:
        trace_id: Its id, safe to print.
        agent_name: The agent that recorded it, safe to print.
        began_ms: When it began, in milliseconds since the epoch, if known.
        duration_ms: From its beginning to its latest record, if known.
        tool_calls: Number of tool calls.
        llm_responses: Number of calls of models, answered or failed, without those that only repeat calls of clients.
        errors: Calls that failed, and errors that belong to none; at least 1 if anything failed.
        said_failed: Calls of tools that did not raise, but whose results say that they failed.
        running: Calls that go on.
        unfinished: Calls that will never end, as their process has.
        tokens: Token counts of all calls of models.
        cost: Cost of all calls of models in US dollars; None if one of them is unknown.
        nodes: Nodes at the top.
    """

    trace_id: str = ""
    agent_name: str = ""
    began_ms: float | None = None
    duration_ms: float | None = None
    tool_calls: int = 0
    llm_responses: int = 0
    errors: int = 0
    said_failed: int = 0
    running: int = 0
    unfinished: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    cost: float | None = None
    nodes: list[Node] = field(default_factory=list)


def build(
    events: Iterable[Mapping[str, Any]],
    ended: Callable[[str], bool] = lambda _: False,
    *,
    priced: bool = False,
) -> TraceTree:
    """
    Return the tree of one trace.

    Args:
        events: Its records, decoded, in the order of their steps.
        ended: Says of the token of a process whether it is gone.
        priced: True to add the cost of calls of models; the first of them loads the price data.
    """
    builder = TreeBuilder(priced)
    for part in parts(events):
        builder.add(part)
    return builder.finish(ended)


class Part(NamedTuple):
    """A record, with the call that it is part of; None if it is part of none."""

    record: StoredRecord
    call: Call | None


def parts(events: Iterable[Mapping[str, Any]]) -> Iterator[Part]:
    """
    Yield the records of a trace, decoded, in their order; but a request before the end of its call.

    Scores are left out.
    """
    records = [record for event in events if (record := StoredRecord.of(event)).kind != SCORE]
    halves = [half for place, record in enumerate(records) if (half := half_of(record, place))]
    calls: dict[int, Call] = {}
    later: dict[int, list[int]] = {}
    for call in pair(halves):
        request = call.request
        for half in (request, *call.thoughts):
            if half is not None:
                calls[half.place] = call
        for half in (call.error, call.response):
            if half is not None:
                calls[half.place] = call
                if request is not None and half.place < request.place:
                    later.setdefault(request.place, []).append(half.place)
    early = {place for places in later.values() for place in places}
    for place in range(len(records)):
        if place not in early:
            for here in (place, *later.get(place, ())):
                yield Part(records[here], calls.get(here))


class TreeBuilder:
    """
    Makes nodes of records one by one. A node hangs below one that was made before it, so there are no loops.

    Args:
        priced: True to add the cost of calls of models.
    """

    def __init__(self, priced: bool) -> None:
        self.process = ""
        self._priced = priced
        self._costs: list[Decimal | None] = []
        self._tree = TraceTree()
        self._first = self._last = ""
        #: When the blocks of the trace began that have ended: each did before the first event in it.
        self._began: list[float] = []
        self._failed = False
        self._nodes: list[Node] = []
        #: Nodes whose failure is that of a turn inside, by identity.
        self._doubled: set[int] = set()
        #: By run and step: processes that record on one trace at the same time may use a number twice.
        self._by_run: dict[tuple[str, int], Node] = {}
        self._by_step: dict[int, Node] = {}
        #: Calls whose asker has not answered yet, each with its request.
        self._unnamed: list[tuple[Node, StoredRecord]] = []
        #: By the :func:`id` of the call.
        self._by_call: dict[int, Node] = {}

    def add(self, part: Part) -> Node | None:
        """Take the next record; return the node that it begins, closes or belongs to, None if there is none."""
        event = part.record
        # One with a key of the user's is by the same process as the one before.
        self.process = event.process or self.process
        tree = self._tree
        tree.trace_id = tree.trace_id or clean(event.trace_id)
        tree.agent_name = tree.agent_name or clean(event.agent_name)
        self._first = min(self._first or event.timestamp, event.timestamp)
        self._last = max(self._last, event.timestamp)
        return _HANDLERS.get(event.kind, TreeBuilder._other)(self, event, part.call)

    def finish(self, ended: Callable[[str], bool]) -> TraceTree:
        """Return the tree, once all records were added."""
        tree = self._tree
        unnamed, self._unnamed = self._unnamed, []
        for node, event in unnamed:
            self._name_asker(node, event)
        for node in self._nodes:
            if node.status == "running":
                node.status = "unfinished" if ended(node.process) else "running"
                tree.unfinished += node.status == "unfinished"
                tree.running += node.status == "running"
        failed = [
            node.kind for node in self._nodes if node.status == "error" and id(node) not in self._doubled
        ]
        tree.said_failed = sum(bool(node.said_failed) for node in self._nodes)
        tree.errors = sum(kind != "step" for kind in failed) or int(self._failed or bool(failed))
        tree.cost = _amount(total(self._costs))
        first, last = milliseconds(self._first), milliseconds(self._last)
        tree.began_ms = min([*self._began, *([] if first is None else [first])], default=None)
        if tree.began_ms is not None and last is not None:
            tree.duration_ms = last - tree.began_ms
        return tree

    def _find(self, event: StoredRecord, step: int) -> Node | None:
        return self._by_run.get((event.run, step)) or self._by_step.get(step)

    def _enclosing(self, event: StoredRecord) -> Node | None:
        return self._find(event, event.within) if event.within else None

    def _place(
        self,
        event: StoredRecord,
        call: Call | None,
        kind: Kind,
        name: str,
        awaits: str = "",
        arguments: str = "",
    ) -> Node:
        """Make a node and hang it below the call it ran in; at the top if there is no such call."""
        status: Status = "running" if awaits and kind != "event" else "ok"
        node = Node(kind, _line(name), event.step, event.timestamp, self.process, awaits, status)
        node.tells_input = event.is_captured
        node.arguments = _line(arguments) if node.tells_input else _UNTOLD
        node.parent = parent = self._enclosing(event)
        (parent.children if parent else self._tree.nodes).append(node)
        self._nodes.append(node)
        self._number(node, event)
        if call is not None:
            self._by_call[id(call)] = node
            self._tree.tool_calls += call.first.kind == "tool"
            self._tree.llm_responses += call.is_turn
        return node

    def _number(self, node: Node, event: StoredRecord) -> None:
        """Let the step of an event lead to a node."""
        if event.step:
            self._by_run[event.run, event.step] = self._by_step[event.step] = node

    def _close(self, node: Node, event: StoredRecord, error: str) -> None:
        """Note how a call ended, and the error that its end tells of. One with an error before stays failed."""
        about, began = event.metadata.get, node.started if node.awaits else ""
        node.latency_ms = latency(about("latencyMs"), began, event.timestamp, about("ranAt"))
        node.awaits = ""
        node.response = event.step
        node.tells_output = event.is_captured
        node.result = node.result if node.tells_output else _UNTOLD
        model = _line(text_of(event.metadata.get("model")))
        node.model = model if model != node.name else ""
        if error:
            node.status, node.error = "error", node.error or _line(error)
        elif node.status != "error":
            node.status = "cancelled" if event.metadata.get("outcome") == "cancelled" else "ok"

    def _tool_request(self, event: StoredRecord, call: Call | None) -> Node:
        calls = list_of(get(event.content, "toolCalls"))
        name = tool_name(event.metadata.get("tool"), lambda: event.content)
        arguments = ", ".join(named_values(get(each, "arguments")) for each in calls)
        node = self._place(event, call, "tool", name, "tool_call_response", arguments)
        self._name_asker(node, event)
        return node

    def _name_asker(self, node: Node, event: StoredRecord) -> None:
        """Note the call of a model that asked for this one. Its answer may end later, if it is a stream."""
        step = event.metadata.get("requestedBy")
        if type(step) is int and step > 0:
            asked_by = self._find(event, step)
            node.asked_by = asked_by if asked_by is not None and asked_by.answer == step else None
            if node.asked_by is None:
                self._unnamed.append((node, event))

    def _tool_response(self, event: StoredRecord, call: Call | None) -> Node:
        node = self._by_call.get(id(call))
        if node is None:
            node = self._place(
                event, call, "tool", tool_name(event.metadata.get("tool"), lambda: event.content)
            )
        results = get(event.content, "toolResults")
        error = event.error
        if not error and event.metadata.get("outcome") is None:
            alone = isinstance(results, dict) and list(results) == ["result"]
            node.result = _line(value(results["result"] if alone else results))
        node.result = _raised(results) or node.result
        self._close(node, event, error)
        found = event.verdict if node.status == "ok" else None
        node.verdict = found and found._replace(words=clean(found.words))
        return node

    def _message(self, event: StoredRecord, call: Call | None) -> Node:
        """Take the request of a model: of a traced function, or recorded by hand, where it may stay without answer."""
        if event.kind == "user_message":
            by_hand, asked = "user", question(event.content)
        else:
            by_hand, asked = (
                f"result of {text_of(get(event.content, 'toolName'))}",
                _said(get(event.content, "output")),
            )
        function = text_of(event.metadata.get("function"))
        kind: Kind = "llm" if function else "event"
        node = self._place(event, call, kind, function or by_hand, "llm_response", asked)
        node.question = node.arguments if event.kind == "user_message" else ""
        return node

    def _llm_response(self, event: StoredRecord, call: Call | None) -> Node:
        model = text_of(event.metadata.get("model"))
        node = self._by_call.get(id(call)) or self._place(event, call, "llm", model)
        if node.kind == "event":  # recorded by hand
            node.kind, node.name = "llm", _line(model)
        calls = list_of(get(event.content, "toolCalls"))
        node.calls = _line(", ".join(text_of(get(get(each, "function"), "name")) for each in calls))
        node.result = _line(answer(event.content))
        node.answer = event.step
        self._number(node, event)
        self._add_tokens(node, event)
        self._close(node, event, event.error)
        return node

    def _embedding_request(self, event: StoredRecord, call: Call | None) -> Node:
        name = text_of(event.metadata.get("function")) or "embedding"
        inputs = value(get(event.content, "input"))
        return self._place(event, call, "embedding", name, "embedding_response", inputs)

    def _embedding_response(self, event: StoredRecord, call: Call | None) -> Node:
        node = self._by_call.get(id(call)) or self._place(event, call, "embedding", "embedding")
        count, size = (get(event.content, key) for key in ("embeddingCount", "firstEmbeddingDimensions"))
        node.result = _line(f"{value(count)} x {value(size)}")
        self._add_tokens(node, event)
        self._close(node, event, event.error)
        return node

    def _thinking(self, event: StoredRecord, call: Call | None) -> Node:
        name = event.metadata.get("step")
        if isinstance(name, str):
            shown = _step_name(event)
            node = self._place(event, call, "step", shown, "step_end", _shown(event.metadata.get("input")))
            self._name_asker(node, event)
            return node
        caller = self._by_call.get(id(call)) or self._caller(event)
        thinking = text_of(get(event.content, "thinking"))
        return caller or self._place(event, None, "event", "thinking", arguments=thinking)

    def _caller(self, event: StoredRecord) -> Node | None:
        """Return the open call of a model that recorded a thought of itself; None if its body did."""
        node = self._enclosing(event)
        name = event.metadata.get("function")
        own = node is not None and node.awaits and isinstance(name, str) and _line(name) == node.name
        return node if own else None

    def _step_end(self, event: StoredRecord, call: Call | None) -> Node:
        node = self._by_call.get(id(call))
        if node is None:
            node = self._place(event, call, "step", _step_name(event))
            node.started = text_of(event.metadata.get("startedAt")) or node.started
        elif event.metadata.get("kind") is not None:
            node.name = _line(_step_name(event))  # some tell what they were at last
        node.result = _raised(event.content) or _line(_shown(get(event.content, "output")))
        self._close(node, event, event.error)
        return node

    def _error(self, event: StoredRecord, call: Call | None) -> Node:
        node = self._by_call.get(id(call))
        if node is None:  # that of a traced function is a call of a model whose request is lost
            function = text_of(event.metadata.get("function"))
            node = self._place(event, call, "llm" if call else "event", function if call else "error")
        elif node.kind == "event":  # recorded by hand
            node.kind, node.name = "llm", _line(text_of(event.metadata.get("model"))) or "model"
        node.status, node.error, node.verdict = "error", _line(event.error), None
        if event.metadata.get("doubles") is not None:
            self._doubled.add(id(node))
        if call is not None and (call.response is None or call.response.fails):
            self._close(node, event, node.error)
        return node

    def _trace_end(self, event: StoredRecord, _call: Call | None) -> Node | None:
        end, latency = milliseconds(event.timestamp), number(event.metadata.get("latencyMs"))
        if end is not None and latency is not None and latency <= end:
            self._began.append(end - latency)
        error = event.error
        if not error and event.metadata.get("outcome") != "cancelled":
            return None
        node = Node("event", "trace", 0, event.timestamp, status="error" if error else "cancelled")
        node.error = _line(error)
        self._tree.nodes.append(node)
        self._failed = self._failed or bool(error)
        return node

    def _other(self, event: StoredRecord, _call: Call | None) -> Node:
        return self._place(event, None, "event", event.kind or "event", arguments=_said(event.content))

    def _add_tokens(self, node: Node, event: StoredRecord) -> None:
        node.tokens = Tokens.of(event.metadata.get("usage"))
        if not is_billed(event.kind, event.metadata.get("wraps")):
            return
        self._tree.tokens = self._tree.tokens.plus(node.tokens)
        if self._priced:
            amount = cost_of(event.metadata, event.timestamp)
            node.cost = _amount(amount)
            self._costs.append(amount)


_HANDLERS: Final[dict[str, Callable[[TreeBuilder, StoredRecord, Call | None], Node | None]]] = {
    "tool_call_request": TreeBuilder._tool_request,
    "tool_call_response": TreeBuilder._tool_response,
    "user_message": TreeBuilder._message,
    "tool_result": TreeBuilder._message,
    "llm_response": TreeBuilder._llm_response,
    "llm_thinking": TreeBuilder._thinking,
    "embedding_request": TreeBuilder._embedding_request,
    "embedding_response": TreeBuilder._embedding_response,
    "error": TreeBuilder._error,
    "step_end": TreeBuilder._step_end,
    "trace_end": TreeBuilder._trace_end,
}


def _amount(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _step_name(event: StoredRecord) -> str:
    """Return the name of a step, with its kind if it is of a particular one."""
    kind, name = event.metadata.get("kind"), text_of(event.metadata.get("step"))
    return f"{kind} {name}" if kind in ("agent", "handoff") else name


def _line(said: str) -> str:
    return clean(excerpt(said, _KEPT)) if said else ""


def _raised(content: object) -> str:
    """Return in words that a call or block ended with an exception that is no failure, "" if it did not."""
    raised = get(content, "raised")
    return _line(f"raised {problem(raised)}") if isinstance(get(raised, "message"), str) else ""


def _said(thing: object) -> str:
    return thing if isinstance(thing, str) else _shown(thing)


def _shown(thing: object) -> str:
    return "" if thing is None else value(thing)
