"""Collects the turns and tool calls of a trace from its records, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from whyops_trace._reading.excerpt import failure, get, message_text, problem
from whyops_trace._reading.nodes import Node, Record, TraceTree, TreeBuilder
from whyops_trace._shapes import dicts_of, list_of, text_of
from whyops_trace.story.conversation import Conversations, Sent
from whyops_trace.story.messages import read_call, read_prompt
from whyops_trace.story.turns import ToolUse, Turn


@dataclass(slots=True)
class TurnEntry:
    """
    A turn while it is told.

    Attributes:
        turn: The turn.
        sent: What it sent, None if that was not recorded.
        wraps: Whether it only repeats turns of clients.
        inside: The turns that ran in it.
    """

    turn: Turn
    sent: Sent | None = None
    wraps: bool = False
    inside: list[TurnEntry] = field(default_factory=list)

    @property
    def repeats(self) -> bool:
        """Whether the turns inside tell all of it."""
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
        priced: Whether to tell what calls of models cost.

    Attributes:
        order: The nodes in the order they began.
        turns: The turns, by the :func:`id` of their nodes.
        uses: The tool calls, by the :func:`id` of their nodes.
        parts: The node that another one is told with, by the :func:`id` of the latter.
        steps: The node that a step number belongs to.
        answered: Ids of the calls whose results a model was given; names of tools where a result has no id.
        ended_with: What the trace ended with if it failed, whole.
        ended: Whether its block was left.
        output: What the last step at the top returned, if that is a text.
        began_with: What the first step was given, if that is a text.
    """

    def __init__(self, priced: bool) -> None:
        self.order: list[Node] = []
        self.turns: dict[int, TurnEntry] = {}
        self.uses: dict[int, ToolUse] = {}
        self.parts: dict[int, Node] = {}
        self.steps: dict[int, Node] = {}
        self.answered: set[str] = set()
        self.ended_with = ""
        self.ended = False
        self.output = ""
        self.began_with = ""
        self._builder = TreeBuilder(priced)
        self._conversations = Conversations()
        self._seen: set[int] = set()
        #: Turns recorded by hand that have no answer yet, and thoughts that no turn has yet, by where they ran.
        self._waiting: dict[int, TurnEntry] = {}
        self._thoughts: dict[int, list[tuple[Node, str]]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Take the next record."""
        record = Record.of(event, self._builder.process)
        node = self._builder.add(record)
        self.ended = self.ended or event.get("end") is True or record.kind == "trace_end"
        if record.kind == "trace_end":  # a trace that goes on after it failed may still end well
            self.ended_with = problem(get(record.content, "error"))
        if node is None:
            return
        if id(node) not in self._seen:
            self._seen.add(id(node))
            self.order.append(node)
        if record.step:
            self.steps.setdefault(record.step, node)
        handler = _HANDLERS.get(record.kind)
        if handler:
            handler(self, record, node)

    def finish(self, ended: Callable[[str], bool]) -> TraceTree:
        """Return the tree, once all records were added."""
        return self._builder.finish(ended)

    def _request(self, record: Record, node: Node) -> None:
        entry = self._open(node)
        prompt = read_prompt(record.content, record.metadata)
        entry.sent = self._conversations.open(entry.turn, prompt, _scope(node))
        results = (message for message in entry.turn.messages if message.role == "tool")
        self.answered.update(message.call_id or message.name for message in results)
        # Recorded by hand: an answer may never come, or belong to it by its place alone.
        if node.kind == "event":
            self._waiting[_scope(node)] = entry
            self._conversations.close(entry.sent)

    def _open(self, node: Node) -> TurnEntry:
        """Begin a turn."""
        entry = self.turns[id(node)] = TurnEntry(Turn(0, node))
        outer = self.turns.get(_scope(node))
        if outer is not None:
            outer.inside.append(entry)
        return entry

    def _response(self, record: Record, node: Node) -> None:
        entry = self.turns.get(id(node))
        waiting = self._waiting.get(_scope(node))
        if entry is None and waiting is not None:  # something was recorded between the request and its answer
            entry = waiting
            self.parts[id(entry.turn.node)] = node
            self.turns[id(node)], entry.turn.node = entry, node
        if entry is None:
            entry = self._open(node)
        if entry is waiting:
            del self._waiting[_scope(node)]
        turn = entry.turn
        if "function" not in record.metadata:
            for thinking, thought in self._thoughts.pop(_scope(node), ()):
                turn.thinking.append(thought)
                self.parts[id(thinking)] = node
        content = record.content
        said = content if isinstance(content, str) else message_text(get(content, "content"))
        turn.answer = said or text_of(get(content, "refusal"))
        turn.calls = [read_call(call) for call in dicts_of(get(content, "toolCalls"))]
        turn.finish_reason = text_of(get(content, "finishReason"))
        self._close(entry, record)

    def _close(self, entry: TurnEntry, record: Record) -> None:
        entry.wraps = record.metadata.get("wraps") is True
        if entry.sent is not None and not entry.repeats:
            self._conversations.close(entry.sent)

    def _thinking(self, record: Record, node: Node) -> None:
        thought = text_of(get(record.content, "thinking"))
        if id(node) in self.turns:
            self.turns[id(node)].turn.thinking.append(thought)
        elif node.kind == "event":
            self._thoughts.setdefault(_scope(node), []).append((node, thought))
        elif not self.began_with:
            self.began_with = text_of(record.metadata.get("input"))

    def _tool_request(self, record: Record, node: Node) -> None:
        use = self.uses[id(node)] = ToolUse(node)
        calls = list_of(get(record.content, "toolCalls"))
        given = [get(call, "arguments") for call in calls]
        use.arguments = given[0] if len(given) == 1 else given or None

    def _tool_response(self, record: Record, node: Node) -> None:
        use = self.uses.get(id(node))
        if use is None:
            use = self.uses[id(node)] = ToolUse(node)
        use.response = record.step
        results = get(record.content, "toolResults")
        error = failure(results)
        if error is not None or record.metadata.get("outcome") == "error":
            use.error = use.error or problem(error) or "failed"
        elif record.metadata.get("outcome") is None:
            alone = isinstance(results, dict) and list(results) == ["result"]
            use.result = results["result"] if alone else results

    def _error(self, record: Record, node: Node) -> None:
        told = problem(record.content) or "failed"
        if node.kind == "event":  # recorded by hand, maybe right after the call that failed
            call = self.steps.get(record.parent)
            if call is None or call.parent is not node.parent or not self._is_open(call):
                return
            self.parts[id(node)] = call
            node = call
        if id(node) in self.uses:
            use = self.uses[id(node)]
            use.error, use.stack = told, text_of(get(record.content, "stack"))
        elif id(node) in self.turns:
            entry = self.turns[id(node)]
            entry.turn.error = told
            entry.turn.answer = entry.turn.answer or text_of(get(record.content, "partial"))
            self._close(entry, record)

    def _is_open(self, node: Node) -> bool:
        """Whether a node is a tool call, or a turn recorded by hand, that may still fail."""
        entry = self.turns.get(id(node))
        waits = entry is not None and self._waiting.get(_scope(node)) is entry
        return waits or (node.kind == "tool" and bool(node.awaits))

    def _step_end(self, record: Record, node: Node) -> None:
        output = get(record.content, "output")
        if isinstance(output, str) and node.parent is None:
            self.output = output


def _scope(node: Node) -> int:
    """Return what tells calls that ran in the same place from others."""
    return id(node.parent) if node.parent is not None else 0


_HANDLERS: Final[dict[str, Callable[[Telling, Record, Node], None]]] = {
    "user_message": Telling._request,
    "tool_result": Telling._request,
    "llm_response": Telling._response,
    "llm_thinking": Telling._thinking,
    "tool_call_request": Telling._tool_request,
    "tool_call_response": Telling._tool_response,
    "error": Telling._error,
    "step_end": Telling._step_end,
}
