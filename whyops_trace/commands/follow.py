"""A trace shown while it is recorded: the store is polled until the trace ends."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from whyops_trace.store import Store
from whyops_trace.tree import Node, TraceTree, build, fits, render

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Seconds between two polls of the store, and polls between two of the journals, which show ended processes.
_PAUSE: Final = 0.2
_POLLS: Final = 5


def follow_events(home: Path, store: Store, trace_id: str) -> Iterator[dict[str, Any]]:
    """
    Yield the records of a trace until it ends: the present ones at once, and the others as they come.

    Raises:
        TraceNotFoundError: if the trace is deleted meanwhile.
        StoreError: if the store cannot be read.
    """
    last = 0
    for _ in _changes(home, store, trace_id):
        for number, event in store.events_after(trace_id, last):
            last = number
            yield event


def follow_tree(home: Path, store: Store, trace_id: str, depth: int | None) -> None:
    """
    Draw a trace after each change until it ends. Nothing is drawn if standard output is not a terminal.

    Only the end of a tree that is higher than the terminal is shown.
    """
    from rich.console import Console  # which takes longer to load than most commands to run
    from rich.live import Live

    out = Console(highlight=False, emoji=False)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        for _ in _changes(home, store, trace_id):
            if out.is_terminal:
                live.update(_tree_text(store, trace_id, depth, out), refresh=True)


def cut(tree: TraceTree, depth: int | None) -> int:
    """Remove the nodes below *depth* levels from a tree, none if it is None; return the number of removed nodes."""
    hidden = 0
    level: list[Node] = tree.nodes
    for _ in range(depth - 1 if depth else 0):
        level = [child for node in level for child in node.children]
    below = [] if depth is None else level
    for node in below:
        hidden += _size(node) - 1
        node.children = []
    return hidden


def _size(node: Node) -> int:
    nodes = [node]
    for each in nodes:  # the list grows meanwhile
        nodes += each.children
    return len(nodes)


def _changes(home: Path, store: Store, trace_id: str) -> Iterator[None]:
    """Yield at once, after each write to the store, and once more at the end of the trace."""
    from whyops_trace._delivery.draining import take_in

    version, polls, running = -1, 0, True
    while running:
        patient = polls % _POLLS == 0
        if patient:
            take_in(home)
        polls += 1
        current = store.version()
        if current != version or patient:  # a trace may also end by a long silence
            running = store.trace(trace_id).running
        if current != version or not running:
            version = current
            yield
        if running:  # also while much is recorded: drawing a long trace takes time
            time.sleep(_PAUSE)


def _tree_text(store: Store, trace_id: str, depth: int | None, out: Console) -> Text:
    from rich.text import Text

    tree = build(store.events(trace_id), store.ended_in(trace_id), priced=True)
    cut(tree, depth)
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    text = render(tree, width=width, color=not out.no_color, ascii_only=not fits(sys.stdout.encoding))
    header, *lines = text.split("\n")
    room = max(1, out.height - 2)
    return Text.from_ansi("\n".join([header, *lines[-room:]]))
