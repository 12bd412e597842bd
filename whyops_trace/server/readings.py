"""
Readings: traces in the form that the page needs, computed once for each state of a trace and cached.

A long trace takes part of a second to compute. Requests for it meanwhile wait for the same result. A live trace is
computed anew only when it has grown. The least recently used readings are dropped when the cache is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from zlib import crc32

import msgspec
from anyio import to_thread

from whyops_trace._reading.nodes import parts
from whyops_trace._reading.record import StoredRecord
from whyops_trace.analysis import Finding, findings
from whyops_trace.server.skeleton import walk
from whyops_trace.server.team import Team
from whyops_trace.server.texts import matches, texts
from whyops_trace.store import Store, TraceSummary
from whyops_trace.store.reading import SCORES
from whyops_trace.story import Origin, Story, provenance, tell

T = TypeVar("T")

#: Largest total number of bytes of the records behind the cached readings, as they are stored.
KEPT: Final = 16 << 20
#: Largest number of events for which the findings are computed before the first answer: a few milliseconds.
AT_ONCE: Final = 500


@dataclass(slots=True)
class Reading:
    """
    The reading of one state of a trace.

    Attributes:
        summary: Its line in the list.
        version: Name of this state. Another state has another name.
        story: Its story.
        owners: The step of the node that shows a record, by the step of the record, for records without a node.
        size: Number of bytes that the store keeps of it.
        events: Its records, until the findings are computed.
        ended: Function from the token of a process to True if that process has ended.
        findings: Its findings, the most severe first; None until they are computed.
        origins: Where the arguments of its tool calls came from, by the steps of the calls; empty until then.
        searching: The task that computes the findings, once it has begun.
        replays: The ids of its replays, when its page was last made.
    """

    summary: TraceSummary
    version: str
    story: Story
    owners: dict[int, int]
    size: int
    events: list[dict[str, Any]]
    ended: Callable[[str], bool]
    findings: list[Finding] | None = None
    origins: dict[int, list[Origin]] = field(default_factory=dict)
    searching: asyncio.Task[None] | None = None
    replays: list[str] = field(default_factory=list)
    _results: dict[str, Any] = field(default_factory=dict)

    def node(self, step: int) -> int:
        """Return the step of the node that shows a step."""
        return self.owners.get(step, step)

    def search(self) -> None:
        """Compute the findings, and the origins of arguments."""
        self.origins = provenance(self.story)
        self.findings = findings(self.events, self.ended, story=self.story)
        self.events = []

    def matches(self, text: str) -> tuple[int, list[int]]:
        """Return the number of occurrences of a text in the cards of the trace, and the steps of those cards."""
        return matches(self.once("texts", lambda: texts(self.story)), text)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return the result of *make*, which is called only for the first request of this name."""
        if name not in self._results:
            self._results[name] = make()
        result: T = self._results[name]
        return result

    @property
    def team(self) -> Team:
        """The agents of the trace."""
        return self.once("team", lambda: Team(self.story))

    @property
    def tag(self) -> str:
        """A name for this state, which also differs until the findings are known."""
        return self.version if self.findings is not None else f"{self.version}-early"


class Readings:
    """
    The readings of a store's traces.

    Args:
        store: The store of the traces.
        room: Largest total number of bytes of the records behind the cached readings, as they are stored.
    """

    def __init__(self, store: Store, *, room: int = KEPT) -> None:
        self._store = store
        self._room = room
        self._cache: OrderedDict[str, Reading] = OrderedDict()
        self._pending: dict[str, asyncio.Task[Reading]] = {}

    async def get(self, trace_id: str) -> Reading:
        """
        Return the reading of a trace as it is now. The reading of a long trace may lack its findings.

        Raises:
            TraceNotFoundError: if there is no trace of that id.
            StoreError: if the store cannot be read.
        """
        task = self._pending.get(trace_id)
        if task is None:
            task = asyncio.create_task(self._read(trace_id))
            self._pending[trace_id] = task
            task.add_done_callback(lambda _: self._pending.pop(trace_id, None))
        # A cancelled request must not take the result from the others.
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
        summary = await to_thread.run_sync(_summary, self._store, trace_id)
        reading = self._cache.get(trace_id)
        if reading is None or reading.version != version(summary):
            reading = self._cache[trace_id] = await to_thread.run_sync(_read, self._store, trace_id)
        self._cache.move_to_end(trace_id)
        while len(self._cache) > 1 and sum(each.size for each in self._cache.values()) > self._room:
            self._cache.popitem(last=False)
        return reading


def read(store: Store, trace_id: str) -> Reading:
    """
    Return the reading of a trace as it is now, with its findings.

    Raises:
        TraceNotFoundError: if there is no trace of that id.
        StoreError: if the store cannot be read.
    """
    reading = _read(store, trace_id)
    if reading.findings is None:
        reading.search()
    return reading


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """
    Switch off the garbage collector while the block runs.

    Reading a long trace makes a million objects and no garbage. Scanning them again and again would take a quarter of
    the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
def _read(store: Store, trace_id: str) -> Reading:
    # The summary is read first. Records that come between the two reads show in the next reading.
    summary = _summary(store, trace_id)
    ended = store.ended_in(trace_id)
    events = store.events(trace_id)
    size = store.size(trace_id)
    story = tell(events, ended, priced=True)
    reading = Reading(summary, version(summary), story, owners(events, story), size, events, ended)
    if summary.event_count <= AT_ONCE:
        reading.search()
    return reading


def _summary(store: Store, trace_id: str) -> TraceSummary:
    """
    Return the summary of a trace, with all of its scores.

    Raises:
        TraceNotFoundError: if there is no trace of that id.
        StoreError: if the store cannot be read.
    """
    summary = store.trace(trace_id)
    if len(summary.scores) >= SCORES:
        summary.scores = store.scores(trace_id)
    return summary


def version(summary: TraceSummary) -> str:
    """Return a name for the state of a trace, made of the values that change with every stored record and score."""
    scores = f"-{crc32(msgspec.json.encode(summary.scores))}" if summary.scores else ""
    return f"{summary.event_count}-{summary.open_calls}-{summary.last_at}-{summary.running:d}{scores}"


def owners(events: list[dict[str, Any]], story: Story) -> dict[int, int]:
    """Return the step of the node that shows a record, by the step of the record, for records without a node."""
    nodes = {row.node.step: row.node for row in walk(story.tree.nodes)}
    ends = ((end, node.step) for node in nodes.values() for end in (node.answer, node.response))
    owner_of = {end: step for end, step in ends if end and end not in nodes}
    is_clear = True
    for event in events:
        record = StoredRecord.of(event)
        near = (step for step in (record.parent, record.within) if step in nodes)
        if (
            record.step
            and record.step not in nodes
            and record.step not in owner_of
            and (owner := next(near, 0))
        ):
            owner_of[record.step] = owner
            is_clear = is_clear and nodes[owner].kind != "step"
    # By hand, what belongs to a call in a step has the step for its parent. Finding the call takes long.
    return owner_of if is_clear else owner_of | _paired(events, nodes)


def _paired(events: list[dict[str, Any]], nodes: Container[int]) -> dict[int, int]:
    """Return the step of the node of its call, by the step of a record, for records without a node."""
    first: dict[int, int] = {}
    owner_of: dict[int, int] = {}
    for record, call in parts(events):
        if call is None or not record.step:
            continue
        if record.step in nodes:
            first.setdefault(id(call), record.step)
        elif id(call) in first:
            owner_of[record.step] = first[id(call)]
    return owner_of
