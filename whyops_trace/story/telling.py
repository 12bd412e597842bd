"""Collects the turns and tool calls of a trace from its records, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from whyops_trace._reading.ending import Ending
from whyops_trace._reading.excerpt import answer, get, raised_at
from whyops_trace._reading.nodes import Node, Part, TraceTree, TreeBuilder
from whyops_trace._reading.pairing import Call
from whyops_trace._reading.record import StoredRecord
from whyops_trace._shapes import dicts_of, list_of, text_of
from whyops_trace.story.conversation import Conversations, Sent
from whyops_trace.story.messages import read_call, read_prompt
from whyops_trace.story.turns import ToolUse, Turn

#: Number of calls around a turn that are searched for its agent.
_LEVELS: Final = 50


@dataclass(slots=True)
class TurnEntry:
    """
    A turn while it is told.

    Attributes:
        turn: The turn.
        sent: Its prompt, None if that was not recorded.
        wraps: True if it only repeats turns of clients.
        inside: The turns that ran in it.
    """

    turn: Turn
    sent: Sent | None = None
    wraps: bool = False
    inside: list[TurnEntry] = field(default_factory=list)

    @property
    def repeats(self) -> bool:
        """True if the turns inside tell all of it."""
        return self.wraps and bool(self.inside)

    def innermost(self) -> Iterator[TurnEntry]:
        """Yield the turns that tell what this one repeats, or itself, in order."""
        waiting: list[TurnEntry] = [self]
        while waiting:
            entry = waiting.pop()
            if entry.repeats:
                waiting += reversed(entry.inside)
            else:
                yield entry


class Telling:
    """
    Everything that the records of a trace tell, before it is put in order.

    Args:
        priced: True to add the cost of calls of models.

    Attributes:
        order: The nodes in the order they began.
        turns: The turns, by the :func:`id` of their nodes.
        uses: The tool calls, by the :func:`id` of their nodes.
        parts: The node that another one is told with, by the :func:`id` of the latter.
        retried: The turn by hand that was answered after an error, by the :func:`id` of the node of that error.
        steps: The node that a step number belongs to.
        answered: Ids of the calls whose results a model was given; names of tools where a result has no id.
        ending: What the trace ended with, whole.
        ended: True once its block was left.
        output: Output of the last step at the top, if that is a text.
        began_with: Input of the first step, if that is a text.
    """

    def __init__(self, priced: bool) -> None:
        self.order: list[Node] = []
        self.turns: dict[int, TurnEntry] = {}
        self.uses: dict[int, ToolUse] = {}
        self.parts: dict[int, Node] = {}
        self.retried: dict[int, Node] = {}
        self.steps: dict[int, Node] = {}
        self.answered: set[str] = set()
        self.ending: Ending = Ending()
        self.ended: bool = False
        self.output: str = ""
        self.began_with: str = ""
        self._builder = TreeBuilder(priced)
        self._conversations = Conversations()
        self._seen: set[int] = set()
        #: Thoughts that were recorded before all else of their turn, by the :func:`id` of its call.
        self._thoughts: dict[int, list[tuple[Node, str]]] = {}

    def add(self, part: Part) -> None:
        """Take the next record."""
        record, node = part.record, self._builder.add(part)
        self.ended = self.ended or record.ends or record.kind == "trace_end"
        error, tool = record.error, record.metadata.get("tool")
        verdict = record.verdict if record.kind == "tool_call_response" and not error else None
        self.ending.add(record.kind, record.step, error, content=record.content, tool=tool, verdict=verdict)
        if node is None:
            return
        if id(node) not in self._seen:
            self._seen.add(id(node))
            self.order.append(node)
        if record.step:
            self.steps.setdefault(record.step, node)
        handler = _HANDLERS.get(record.kind)
        if handler:
            handler(self, record, node, part.call)

    def finish(self, ended: Callable[[str], bool]) -> TraceTree:
        """Return the tree, once all records were added."""
        return self._builder.finish(ended)

    def _request(self, record: StoredRecord, node: Node, _call: Call | None) -> None:
        entry = self._open(node)
        prompt = read_prompt(record.content, record.metadata)
        entry.sent = self._conversations.open(entry.turn, prompt, _scope(node))
        results = (message for message in entry.turn.messages if message.role == "tool")
        self.answered.update(message.call_id or message.name for message in results)
        if node.kind == "event":  # recorded by hand: an answer may never come
            self._conversations.close(entry.sent)

    def _open(self, node: Node) -> TurnEntry:
        """Begin a turn."""
        entry = self.turns[id(node)] = TurnEntry(Turn(0, node, agent=_agent(node)))
        outer = self.turns.get(_scope(node))
        if outer is not None:
            outer.inside.append(entry)
        return entry

    def _response(self, record: StoredRecord, node: Node, call: Call | None) -> None:
        entry = self.turns.get(id(node)) or self._open(node)
        turn = entry.turn
        for thinking, thought in self._thoughts.pop(id(call), ()):
            turn.thinking.append(thought)
            self.parts[id(thinking)] = node
        content = record.content
        turn.answer = answer(content)
        turn.calls = [read_call(call) for call in dicts_of(get(content, "toolCalls"))]
        turn.finish_reason = text_of(get(content, "finishReason"))
        turn.error = turn.error or record.error
        self._close(entry, record)

    def _close(self, entry: TurnEntry, record: StoredRecord) -> None:
        entry.wraps = record.metadata.get("wraps") is True
        if entry.sent is not None and not entry.repeats:
            self._conversations.close(entry.sent)

    def _thinking(self, record: StoredRecord, node: Node, call: Call | None) -> None:
        thought = text_of(get(record.content, "thinking"))
        if id(node) in self.turns:
            self.turns[id(node)].turn.thinking.append(thought)
        elif node.kind == "event":
            self._thoughts.setdefault(id(call), []).append((node, thought))
        elif not self.began_with:
            self.began_with = text_of(record.metadata.get("input"))

    def _tool_request(self, record: StoredRecord, node: Node, _call: Call | None) -> None:
        use = self.uses[id(node)] = ToolUse(node)
        calls = list_of(get(record.content, "toolCalls"))
        given = [get(call, "arguments") for call in calls]
        use.arguments = given[0] if len(given) == 1 else given or None

    def _tool_response(self, record: StoredRecord, node: Node, _call: Call | None) -> None:
        use = self.uses.get(id(node))
        if use is None:
            use = self.uses[id(node)] = ToolUse(node)
        use.response = record.step
        results = get(record.content, "toolResults")
        error = record.error
        if error:
            use.error = use.error or error
        elif record.metadata.get("outcome") != "cancelled":
            alone = isinstance(results, dict) and list(results) == ["result"]
            use.result = results["result"] if alone else results

    def _error(self, record: StoredRecord, node: Node, _call: Call | None) -> None:
        if id(node) in self.uses:
            use = self.uses[id(node)]
            use.error, use.stack = record.error, raised_at(record.content)
        elif node.kind == "llm":
            entry = self.turns.get(id(node)) or self._open(node)
            entry.turn.error = record.error
            entry.turn.answer = entry.turn.answer or text_of(get(record.content, "partial"))
            self._close(entry, record)
        elif (message := self.steps.get(record.parent)) and id(message) in self.turns and not message.answer:
            self.retried[id(node)] = message

    def _step_end(self, record: StoredRecord, node: Node, _call: Call | None) -> None:
        output = get(record.content, "output")
        if isinstance(output, str) and node.parent is None:
            self.output = output


def _agent(node: Node) -> str:
    """Return the agent that a node runs in: the innermost run of an agent, else the innermost step; "" if neither."""
    step = ""
    for outer in islice(node.ancestors(), _LEVELS):
        if outer.kind == "step":
            kind, _, name = outer.name.partition(" ")
            if kind == "agent" and name:
                return name
            step = step or outer.name
    return step


def _scope(node: Node) -> int:
    """Return what tells calls that ran in the same place from others."""
    return id(node.parent) if node.parent is not None else 0


_HANDLERS: Final[dict[str, Callable[[Telling, StoredRecord, Node, Call | None], None]]] = {
    "user_message": Telling._request,
    "tool_result": Telling._request,
    "llm_response": Telling._response,
    "llm_thinking": Telling._thinking,
    "tool_call_request": Telling._tool_request,
    "tool_call_response": Telling._tool_response,
    "error": Telling._error,
    "step_end": Telling._step_end,
}
