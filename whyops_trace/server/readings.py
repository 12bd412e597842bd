"""
Traces as the page needs them, worked out once for each state of a trace and kept while they are looked at.

A long trace takes part of a second to work out. Whatever asks for it meanwhile waits for the same result, a live
trace is worked out anew only when it has grown, and what was not looked at for longest goes when there is too much.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from anyio import to_thread

from whyops_trace.analysis import Finding, findings
from whyops_trace.server.skeleton import walk
from whyops_trace.server.texts import matches, texts
from whyops_trace.store import Store, TraceSummary
from whyops_trace.story import Story, tell

#: Characters of records that the readings kept may have been made of, in all. A reading keeps what each turn added.
KEPT: Final = 64 << 20
#: Events up to which the findings are looked for before anything is shown; it takes a few milliseconds.
AT_ONCE: Final = 500


@dataclass(slots=True)
class Reading:
    """
    One state of a trace, read.

    Attributes:
        summary: Its line in the list.
        version: Names this state; another one has another name.
        story: What it tells.
        owners: For the step of each record that is no node of its own the step of the node it belongs to.
        size: Characters of the records it was made of.
        events: Its records, until its findings are known.
        gone: Tells of a process whether it was gone.
        findings: What is worth knowing about it, the most severe first; None until it was searched for them.
        searching: The search, once it has begun.
    """

    summary: TraceSummary
    version: str
    story: Story
    owners: dict[int, int]
    size: int
    events: list[dict[str, Any]]
    gone: Callable[[str], bool]
    findings: list[Finding] | None = None
    searching: asyncio.Task[None] | None = None
    _texts: list[tuple[int, str]] | None = None

    def node(self, step: int) -> int:
        """Return the step of the node that shows a step."""
        return self.owners.get(step, step)

    def search(self) -> None:
        """Work out the findings."""
        self.findings = findings(self.events, self.gone)
        self.events = []

    def matches(self, wanted: str) -> tuple[int, list[int]]:
        """Return how often the cards of the trace hold a text, and the steps of those that do."""
        if self._texts is None:
            self._texts = texts(self.story)
        return matches(self._texts, wanted)

    @property
    def tag(self) -> str:
        """What names this state and whether its findings are known."""
        return self.version if self.findings is not None else f"{self.version}-early"


class Readings:
    """
    The readings of a store's traces.

    Args:
        store: Where the traces are.
        kept: Characters of records that the readings kept may have been made of.
    """

    def __init__(self, store: Store, *, kept: int = KEPT) -> None:
        self._store = store
        self._room = kept
        self._kept: OrderedDict[str, Reading] = OrderedDict()
        self._pending: dict[str, asyncio.Task[Reading]] = {}

    async def get(self, trace_id: str) -> Reading:
        """
        Return the reading of a trace as it is now; that of a long one may not have its findings yet.

        Raises:
            TraceNotFoundError: if there is no trace of that id.
            StoreError: if the store cannot be read.
        """
        task = self._pending.get(trace_id)
        if task is None:
            task = asyncio.create_task(self._read(trace_id))
            self._pending[trace_id] = task
            task.add_done_callback(lambda _: self._pending.pop(trace_id, None))
        # One reader that goes away must not take the result from the others.
        return await asyncio.shield(task)

    async def complete(self, trace_id: str) -> Reading:
        """
        Return the reading of a trace as it is now, with its findings.

        Raises:
            TraceNotFoundError: if there is no trace of that id.
            StoreError: if the store cannot be read.
        """
        reading = await self.get(trace_id)
        if reading.findings is None:
            reading.searching = reading.searching or asyncio.create_task(to_thread.run_sync(reading.search))
            await asyncio.shield(reading.searching)
        return reading

    async def _read(self, trace_id: str) -> Reading:
        summary = await to_thread.run_sync(self._store.trace, trace_id)
        kept = self._kept.get(trace_id)
        if kept is None or kept.version != version(summary):
            kept = self._kept[trace_id] = await to_thread.run_sync(_read, self._store, trace_id)
        self._kept.move_to_end(trace_id)
        while len(self._kept) > 1 and sum(reading.size for reading in self._kept.values()) > self._room:
            self._kept.popitem(last=False)
        return kept


def read(store: Store, trace_id: str) -> Reading:
    """
    Return the reading of a trace as it is now, with its findings.

    Raises:
        TraceNotFoundError: if there is no trace of that id.
        StoreError: if the store cannot be read.
    """
    reading = _read(store, trace_id)
    reading.search()
    return reading


def _read(store: Store, trace_id: str) -> Reading:
    # The summary comes first: what is recorded between the two shows when the next one is asked for.
    summary = store.trace(trace_id)
    ended = store.ended_in(trace_id)
    lines = store.lines(trace_id)
    size = sum(map(len, lines))
    decoder, events = Decoder(), []
    # The last line comes first, and each goes when it was decoded: together they may take as much as all the rest.
    while lines:
        events.append(decoder.record(lines.pop()))
    events.reverse()
    story = tell(events, ended, priced=True)
    reading = Reading(summary, version(summary), story, owners(events, story), size, events, ended)
    if summary.event_count <= AT_ONCE:
        reading.search()
    return reading


class Decoder:
    """
    Decodes the records of one trace.

    Each turn of a conversation repeats the messages before it. Such a message is decoded once, and is the same object
    wherever it occurs, so that a trace takes the memory of what is new in it.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def record(self, line: str) -> dict[str, Any]:
        """Return a record."""
        if '"messages":' not in line:
            return _object(line)
        try:
            record: dict[str, Any] = _members(line)
            content: dict[str, Any] = _members(record["content"])
            content["messages"] = [self._message(raw) for raw in _items(content["messages"])]
        except (msgspec.DecodeError, UnicodeEncodeError, KeyError):
            return _object(line)  # something else is called so
        return _decoded(record) | {"content": _decoded(content)}

    def _message(self, raw: msgspec.Raw) -> Any:
        key = bytes(raw)
        if key not in self._known:
            self._known[key] = msgspec.json.decode(key)
        return self._known[key]


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _decoded(members: dict[str, Any]) -> dict[str, Any]:
    return {
        name: msgspec.json.decode(one) if isinstance(one, msgspec.Raw) else one
        for name, one in members.items()
    }


def _object(line: str) -> dict[str, Any]:
    """Return a record; the quick decoder does not take half a pair of surrogates."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeEncodeError):
        record = json.loads(line)
    return record if isinstance(record, dict) else {}


def version(summary: TraceSummary) -> str:
    """Return a name for the state of a trace, made of what changes whenever something of it is stored."""
    return f"{summary.event_count}-{summary.last_at}-{summary.running:d}"


def owners(events: list[dict[str, Any]], story: Story) -> dict[int, int]:
    """Return for the step of each record that is no node of its own the step of the node it belongs to."""
    found: dict[int, int] = {}
    shown = {row.node.step for row in walk(story.tree.nodes)}
    for event in events:
        step = event.get("stepId")
        if type(step) is not int or step in shown:
            continue
        metadata = event.get("metadata")
        within = metadata.get("within") if isinstance(metadata, Mapping) else None
        owner = next(
            (one for one in (event.get("parentStepId"), within) if type(one) is int and one in shown), None
        )
        if owner is not None:
            found[step] = owner
    return found
