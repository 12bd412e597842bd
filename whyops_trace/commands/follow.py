"""Shows a trace while it is recorded: looks at the store again and again until the trace ends."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from whyops_trace._delivery.draining import take_in
from whyops_trace.store import Store
from whyops_trace.tree import Node, TraceTree, build, fits, render

#: Seconds between two looks at the store, and looks between two at the journals, which tell that a process is gone.
_PAUSE: Final = 0.2
_LOOKS: Final = 5


def follow_events(home: Path, store: Store, trace_id: str) -> Iterator[dict[str, Any]]:
    """
    Yield the records of a trace, those that are there at once and the others as they come, until it ends.

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
    Draw a trace anew whenever it changes, until it ends; nothing where standard output is no terminal.

    A tree that is higher than the terminal shows its end.
    """
    out = Console(highlight=False, emoji=False)
    with Live(console=out, auto_refresh=False, transient=True) as live:
        for _ in _changes(home, store, trace_id):
            if out.is_terminal:
                live.update(_drawn(store, trace_id, depth, out), refresh=True)


def cut(tree: TraceTree, depth: int | None) -> int:
    """Take from a tree what is deeper than *depth* levels, all of them if it is None; return how many nodes it was."""
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
    for each in nodes:  # which grows meanwhile
        nodes += each.children
    return len(nodes)


def _changes(home: Path, store: Store, trace_id: str) -> Iterator[None]:
    """Yield now, whenever something was stored, and once more when the trace has ended."""
    version, looks, running = -1, 0, True
    while running:
        patient = looks % _LOOKS == 0
        if patient:
            take_in(home)
        looks += 1
        seen = store.version()
        if seen != version or patient:  # a trace may also end because nothing more has come
            running = store.trace(trace_id).running
        if seen != version or not running:
            version = seen
            yield
        if running:  # also where much is recorded: to draw a long trace takes its time
            time.sleep(_PAUSE)


def _drawn(store: Store, trace_id: str, depth: int | None, out: Console) -> Text:
    tree = build(store.events(trace_id), store.ended_in(trace_id), priced=True)
    cut(tree, depth)
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    drawn = render(tree, width=width, color=not out.no_color, ascii_only=not fits(sys.stdout.encoding))
    header, *lines = drawn.split("\n")
    room = max(1, out.height - 2)
    return Text.from_ansi("\n".join([header, *lines[-room:]]))
