"""
A span that is open: what it is as far as it tells, its place in a trace, and what is inside it.

Frameworks tell what a span is at its start, while it runs, or at its end. So its begin is recorded as soon as it is
known with what it was given, else when something inside it needs it as its parent, at the latest with its end. The
number of its step is kept for it from the start.

A turn is recorded when it ends, since another layer may tell of the same one: the span of a client inside the span of
its framework. Then the inner one waits for the outer one, and both are one turn with the best of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from whyops_trace._models.answers import Turn
from whyops_trace._otel.attributes import Decoded
from whyops_trace._otel.dialects import is_foreign, is_known, is_turn, names_operation, read_span
from whyops_trace._otel.layers import counts_again, is_same_agent, is_same_tool, merge_tools, merge_turns
from whyops_trace._otel.node import Node
from whyops_trace._otel.reading import Failure, Kind, Reading
from whyops_trace._otel.span import SERVER, Span
from whyops_trace._recording.state import TraceState
from whyops_trace._spans.records import Records, asked_by
from whyops_trace._spans.source import Source, form_of, span_of, told_by
from whyops_trace.context import OpenTurn, Scope, mark_wraps, turn_at
from whyops_trace.types import TokenUsage

#: Kinds of readings that are calls of models.
TURNS: Final = ("llm", "embedding")
_CALLS: Final = ("tool", *TURNS)
#: Largest number of spans around one that are looked at.
_DEEP: Final = 500
#: Largest number of things inside a span that are remembered until it ends.
_MANY: Final = 200


class Moment:
    """
    A moment at which spans are read: within it, each is looked at once for what it tells by now.

    Attributes:
        number: Its number, another one for each.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: int = 0


class OpenSpan:
    """
    A span that has begun, until its end is recorded.

    Attributes:
        source: The span of the SDK.
        parent: The open span that it is in, None if there is none.
        children: The open spans in it, by identity.
        is_over: True once it has ended.
        records: Its records.

    Args:
        state: Its trace.
        scope: The place of the code that started it; None if that is directly in the parent.
        moment: The present moment.
    """

    __slots__ = (
        "_agent", "_counted", "_decoded", "_failures", "_folded", "_inside", "_is_read", "_is_recorded", "_kind",
        "_layer_of", "_layers", "_looked_at", "_moment", "_name", "_node", "_place", "_recorded", "_seen",
        "_to_begin", "_turn", "children", "is_over", "parent", "records", "source",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        parent: OpenSpan | None,
        state: TraceState,
        scope: Scope | None,
        moment: Moment,
    ) -> None:
        self.source: Source = source
        self.parent: OpenSpan | None = parent
        self.children: dict[int, OpenSpan] = {}
        self.is_over: bool = False
        self.records: Records = Records(state)
        self._place = scope
        self._inside: Scope | None = None
        #: One item until somebody records the begin: several threads may need it.
        self._to_begin = [True]
        self._node: Node | None = None
        #: True once it has been read after its end.
        self._is_read = False
        #: What its attributes hold, decoded.
        self._decoded: Decoded = {}
        #: The numbers of its attributes and events when it was read, and of the moment when it was last looked at.
        self._seen = (0, 0)
        self._moment = moment
        self._looked_at = -1
        #: Other spans that tell of the same call, spans that are nothing of an agent's, and sure failures inside.
        self._layers: list[OpenSpan] = []
        self._folded: list[Span] = []
        self._failures: list[Failure] = []
        #: The turn that it is to the code in it.
        self._turn: OpenTurn | None = None
        #: The agent that a tool runs of which no span tells: its records, what it is, and its place.
        self._agent: tuple[Records, Node, Scope] | None = None
        #: The call that it is a layer of.
        self._layer_of: OpenSpan | None = None
        #: The name of an agent that what is folded into it tells, "" if nothing does.
        self._name = ""
        #: The kind that it was recorded as, and the calls in it that were.
        self._kind: Kind = ""
        self._recorded: list[Node] = []
        #: The tokens of the turn in it that was recorded last.
        self._counted: TokenUsage = {}
        self._is_recorded = False

    # Its kind

    @property
    def node(self) -> Node:
        """Its reading so far."""
        node = self._node
        if node is not None and (self._is_read or self._looked_at == self._moment.number):
            return node
        return self._read(node)

    def _read(self, before: Node | None) -> Node:
        """Return its reading, another one than before if it tells more."""
        self._looked_at = self._moment.number
        self._is_read = self.is_over
        source = self.source
        seen = len(source.attributes), len(source.events)
        if before is not None and not self._is_read and seen == self._seen:
            return before
        span = span_of(source) if before is None else told_by(source, before.span)
        node = self._node = Node(span, read_span(span, decoded=self._decoded))
        self._seen = seen
        if self.parent is not None:
            node.reading.conversation = ""
        elif (
            node.kind == "tool"
            and span.kind == SERVER
            and source.parent is not None
            and source.parent.is_remote
        ):
            # its client makes the call
            node.reading.kind, node.reading.name = "step", f"serve {node.reading.name}"
        return node

    @property
    def kind(self) -> str:
        """Its kind, as far as it tells. What is recorded as an agent stays one."""
        if self._kind == "agent":
            return self._kind
        reading = self.node.reading
        return "" if reading.is_folded else reading.kind

    @property
    def answer(self) -> Turn:
        """The answer of a turn."""
        return self.node.reading.answer

    def is_in(self, other: OpenSpan) -> bool:
        """Tell whether it is another one, or inside that."""
        return any(span is other for span in islice(self._ancestry(), _DEEP))

    def _ancestry(self) -> Iterator[OpenSpan]:
        span: OpenSpan | None = self
        while span is not None:
            yield span
            span = span.parent

    def _around(self) -> OpenSpan | None:
        """Return what it is in, if steps and what is folded alone are between."""
        spans = islice(self._ancestry(), 1, _DEEP)
        return next((span for span in spans if span.kind not in ("", "step")), None)

    # Its place

    def place(self) -> Scope:
        """Return its place. What it is in has begun then."""
        if self._place is None:
            assert self.parent is not None  # noqa: S101 - without one it has the place of the code
            self._place = self.parent._place_at(self.source.start_time or 0)
        return self._place

    def _place_at(self, moment_ns: int) -> Scope:
        """Return the place of a span that began in it at a moment, and tells of something else."""
        if self._to_begin and self.kind in TURNS:
            if self._turn is not None and isinstance(self._turn.layer, OpenSpan):
                self.become_step()
            elif self.node.reading.has_answer:
                self.node.span.end_ns = moment_ns  # what runs in a turn was asked for by its answer
                self.record()
        return self.room()

    def room(self) -> Scope:
        """Return the place of code that runs in it. In a turn that is where the turn is: it may report that turn."""
        if self._inside is not None:
            return self._inside
        kind = self.kind
        if kind == "" and self.parent is not None:
            return self.place()
        if kind in TURNS:
            place, turn = self.place(), self.turn
            return Scope(place.trace, place.within, place.parent, turn)
        return self.begin()

    @property
    def turn(self) -> OpenTurn:
        """The turn that it is to what runs in it."""
        if self._turn is None:
            self._turn = OpenTurn(self.place().enclosing)
        return self._turn

    # Its records

    def tells_enough(self) -> bool:
        """Tell whether it says at its start what it is, with what it was given. A turn is recorded at its end."""
        attributes = self.source.attributes.copy()
        if not attributes or is_turn(attributes):
            return False
        if not names_operation(attributes) and not is_known(form_of(self.source, attributes)):
            return False
        reading, kind = self.node.reading, self.kind
        if kind == "tool":
            return bool(reading.name) and reading.input is not None
        return kind in ("agent", "handoff", "step") and not reading.may_be_tool

    def runs_agent(self) -> bool:
        """Tell whether it is a tool that runs an agent, and is not begun."""
        return self._inside is None and self.kind == "tool" and bool(self.node.reading.delegate)

    def begin(self) -> Scope:
        """Record the begin, unless that is done. Return the place of what runs in it."""
        place = self.place()
        try:
            self._to_begin.pop()
        except IndexError:
            return self._inside or place
        node = self.node
        reading = node.reading
        asked = asked_by(place.trace, node) if reading.may_be_tool else None
        if asked is not None and asked.name == reading.name:
            reading.kind, reading.call_id = "tool", asked.id
        around = self._around() if reading.kind in ("tool", "agent") else None
        if around is not None and reading.kind == around.kind == "tool" and is_same_tool(node, around.node):
            around._layers.append(self)
            self._layer_of, self._inside = around, around.begin()
            return self._inside
        self._kind = "step" if self._is_part() else self._kind or reading.kind or "step"
        is_called = around is None or around.kind != "tool"  # else the call is what it is in
        inside = self.records.begin(self._told(), place, is_called=is_called)
        if self._kind == "tool" and node.reading.delegate and not self.is_over:
            agent = Node(node.span, Reading(kind="agent", name=node.reading.delegate))
            self._agent = Records(place.trace), agent, inside
            inside = self._agent[0].begin(agent, inside, is_called=False)
        self._inside = inside
        return inside

    def become_step(self) -> None:
        """Begin as a step, since it stands for several turns in it. One that waits in it is one of these."""
        waiting, self.turn.layer = self.turn.layer, None
        self.turn.wraps = True
        self._kind = "step"
        self.begin()
        if isinstance(waiting, OpenSpan):
            waiting.record()

    def end(self) -> None:
        """Record the end, or leave it to another layer."""
        if self._layer_of is not None:
            return
        if self._to_begin:
            source = self.source
            is_named = names_operation(source.attributes)
            if self.parent is not None and not is_named and is_foreign(form_of(source, source.attributes)):
                self._fold(span_of(source), self.parent)
                return
            if self.kind == "":
                self.records.score(self.node, self.place())
                if self.parent is not None:
                    self._fold(self.node.span, self.parent)
                    self.parent._name = self.node.reading.agent or self.parent._name
                return
            if self.node.reading.is_copy and self._is_repeated():
                return
            if self._is_told_inside() or (self.kind in TURNS and self._is_told_elsewhere()):
                return
        self.record()

    def _fold(self, span: Span, parent: OpenSpan) -> None:
        """Leave it, and what is folded into it, to its parent."""
        if len(parent._folded) < _MANY:
            parent._folded += [span, *self._folded]

    def record(self) -> None:
        """Record the end, and the begin if that is not done. Whatever comes later of it is lost."""
        inside = self.begin()
        if self._layer_of is not None or self._is_recorded:
            return
        self._is_recorded = True
        if self._kind == "step" and self.kind in ("agent", "handoff") and not self._is_part():
            self._kind = "agent" if self.kind == "agent" else "handoff"  # it says so at last
        calls = self.node.calls()
        if self._kind == "step" and self.kind in _CALLS and not self._is_told_inside():
            calls.append(self.node)
        for call in calls:
            records = Records(self.records.state)
            records.begin(call, inside)
            records.end(call, inside)
        node = self._told()
        error = node.reading.error
        parent = self.parent
        if parent is not None:
            if node.kind in _CALLS:
                parent._note_recorded(node)
            if node.kind in TURNS:
                parent._counted = node.reading.answer.usage
            if error is not None and len(parent._failures) < _MANY:
                parent._failures.append(error)
        if self._agent is not None:
            records, agent, inside = self._agent
            agent.span, agent.reading.output = node.span, node.reading.output
            records.end(agent, inside)
        place = self.place()
        self.records.end(node, place)
        turn = None if self._turn is None else self._turn.layer
        for span in (self, *self._layers, *([turn] if isinstance(turn, OpenSpan) else ())):
            self.records.score(span.node, place)

    def _note_recorded(self, node: Node) -> None:
        """Note a call that is recorded inside it, as long as it may turn out to tell of the same one."""
        reading = self.node.reading
        if (reading.kind in ("", *_CALLS) or reading.may_be_tool) and len(self._recorded) < _MANY:
            self._recorded.append(node)
        if reading.kind in ("", "step") and self.parent is not None:
            self.parent._note_recorded(node)

    def _told(self) -> Node:
        """Return what it and its layers tell so far."""
        node = self.node
        reading = node.reading
        if self._kind == "step" and reading.kind in TURNS:
            reading.fill(input=reading.request.messages, output=reading.answer.content)
        reading.kind = self._kind
        if reading.kind == "agent":
            around = self._around()
            reading.name = self._name or reading.name
            if around is not None and around.kind == "tool":
                reading.fill(name=around.node.reading.delegate or around.node.reading.name)
        for layer in self._layers:
            merge_tools(node, layer.node)
        if self._turn is not None and isinstance(self._turn.layer, OpenSpan):
            merge_turns(node, self._turn.layer.node)
        node.folded = self._folded
        if reading.error is not None and self._is_copied(reading.error):
            reading.error = None
        return node

    def _is_part(self) -> bool:
        """Tell whether it is a part of the agent that it is in."""
        around = self._around() if self.kind == "agent" else None
        return around is not None and around.kind == "agent" and is_same_agent(self.node, around.node)

    def _is_copied(self, error: Failure) -> bool:
        """Tell whether a failure is that of something inside it, which went on."""
        if self.kind == "step" and self.parent is not None:
            return any(each.message in error.message for each in self._failures)
        sure = {each.message for each in self._failures if each.is_sure}
        return not error.is_sure and bool(sure) and (error.message in sure or error.message == "failed")

    # Calls that are told of more than once

    def _is_told_inside(self) -> bool:
        """Tell whether a call in it that is recorded is the one that it tells of, as it said only at last."""
        if self._turn is not None and self._turn.wraps:
            return True
        if self.kind == "tool":
            return any(node.kind == "tool" and is_same_tool(node, self.node) for node in self._recorded)
        return self.kind in TURNS and any(node.kind in TURNS for node in self._recorded)

    def _is_repeated(self) -> bool:
        """Tell whether it counts the tokens of the turn beside it that was recorded last."""
        return self.parent is not None and counts_again(self.answer.usage, self.parent._counted)

    def _is_told_elsewhere(self) -> bool:
        """Tell whether code in a turn reports it, or something around it tells of the same turn."""
        if self._turn is not None and self._turn.wraps:
            return True
        around = self._around()
        if around is None or around.kind not in TURNS:
            around = self._beside()
        if around is not None and around._to_begin and not around.turn.wraps:
            waiting = around.turn.layer
            if isinstance(waiting, OpenSpan) and waiting.node.reading.error is None:
                around.become_step()
                return False
            return _take(around.turn, self)
        if around is not None:
            return False
        place = self.place()
        turn = turn_at(place)
        if turn is not None:
            return turn.by_client or _take(turn, self)
        mark_wraps(place.enclosing)
        return False

    def _beside(self) -> OpenSpan | None:
        """Return the open turn of another maker in the same place that began before."""
        mine = self.node.span
        spans = () if self.parent is None else tuple(self.parent.children.values())
        return next(
            (
                span
                for span in spans
                if span.kind in TURNS
                and span.node.span.scope != mine.scope
                and span.node.span.start_ns <= mine.start_ns
            ),
            None,
        )


def _take(turn: OpenTurn, span: OpenSpan) -> bool:
    """
    Leave a span to the turn around it until that ends, if both tell of one turn.

    Several turns in one are turns of their own, and it is none. One that failed was tried before the next.

    Returns:
        False if the span is a turn of its own.
    """
    if turn.wraps:
        return False
    before, turn.layer = turn.layer, None
    if isinstance(before, OpenSpan):
        before.record()
        if before.node.reading.error is None:
            turn.wraps = True
            return False
    turn.layer = span
    return True
