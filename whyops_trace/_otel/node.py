"""A place in the tree of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from msgspec.structs import replace

from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span


class Node:
    """
    Something that happened, told by one span or by several.

    Attributes:
        span: The span that tells of it; of several, the outermost one.
        reading: What it was.
        parent: What it happened in, None for a root.
        children: What happened in it, in order of time.
        layers: The other spans that tell of it.
        folded: Spans in it that are nothing of an agent's, such as calls of a database.
        asked_by: Of a tool call, the turn that asked for it, if that is known.
    """

    __slots__ = ("asked_by", "children", "folded", "layers", "parent", "reading", "span")

    def __init__(self, span: Span, reading: Reading) -> None:
        self.span = span
        self.reading = reading
        self.parent: Node | None = None
        self.children: list[Node] = []
        self.layers: list[Span] = []
        self.folded: list[Span] = []
        self.asked_by: Node | None = None

    def __repr__(self) -> str:
        return f"<Node {self.reading.kind} {self.reading.name!r}>"

    @property
    def kind(self) -> str:
        """The kind of its reading."""
        return self.reading.kind

    @property
    def end_ns(self) -> int:
        """Its end, or its start if it has not ended."""
        return self.span.end_ns or self.span.start_ns

    def calls(self) -> list[Node]:
        """Return a node for each tool call that its span tells of besides."""
        if not self.reading.calls:
            return []
        spans = (replace(self.span, span_id=f"{self.span.span_id}-{number}") for number in count(1))
        return [Node(span, call) for span, call in zip(spans, self.reading.calls, strict=False)]

    def ancestry(self) -> Iterator[Node]:
        """Yield this node, its parent and so on."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, each before those below it, in order of time."""
        rest: list[Node] = [self]
        while rest:
            node = rest.pop()
            yield node
            rest.extend(reversed(node.children))

    def contains(self, other: Node) -> bool:
        """Return True if another one happened within its time."""
        return self.span.start_ns <= other.span.start_ns and other.end_ns <= self.end_ns

    def dissolve(self) -> None:
        """Take this node out of the tree; what is in it comes into what it was in."""
        parent = self.parent
        if parent is None:
            return
        parent.children.remove(self)
        for child in self.children:
            child.parent = parent
        parent.children = sorted(parent.children + self.children, key=lambda node: node.span.start_ns)
        self.children, self.parent = [], None

    def absorb(self, other: Node) -> None:
        """Make another node a layer of this one, and take over what is in it."""
        for child in list(other.children):
            if child is not self:
                child.parent = self
                self.children.append(child)
                other.children.remove(child)
        self.children.sort(key=lambda node: node.span.start_ns)
        other.dissolve()
        self.layers += [other.span, *other.layers]
        self.folded += other.folded
