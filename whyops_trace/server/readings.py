"""
Traces as the page needs them, worked out once for each state of a trace and kept while they are looked at.

A long trace takes part of a second to work out. Whatever asks for it meanwhile waits for the same result, a live
trace is worked out anew only when it has grown, and what was not looked at for longest goes when there is too much.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from anyio import to_thread

from whyops_trace.analysis import Finding, findings
from whyops_trace.server.skeleton import walk
from whyops_trace.server.texts import matches, texts
from whyops_trace.store import Store, TraceSummary
from whyops_trace.story import Story, tell

T = TypeVar("T")

#: Characters of records that the readings kept may have been made of, in all. A reading keeps what each turn added.
KEPT: Final = 64 << 20
#: Events up to which the findings are looked for before anything is shown; it takes a few milliseconds.
AT_ONCE: Final = 500
#: Conversations of one trace that may alternate, each with messages of its own.
_CONVERSATIONS: Final = 16


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
        ended: Says of the token of a process whether it has ended.
        findings: What is worth knowing about it, the most severe first; None until it was searched for them.
        searching: The search, once it has begun.
    """

    summary: TraceSummary
    version: str
    story: Story
    owners: dict[int, int]
    size: int
    events: list[dict[str, Any]]
    ended: Callable[[str], bool]
    findings: list[Finding] | None = None
    searching: asyncio.Task[None] | None = None
    _made: dict[str, Any] = field(default_factory=dict)

    def node(self, step: int) -> int:
        """Return the step of the node that shows a step."""
        return self.owners.get(step, step)

    def search(self) -> None:
        """Work out the findings."""
        self.findings = findings(self.events, self.ended)
        self.events = []

    def matches(self, wanted: str) -> tuple[int, list[int]]:
        """Return how often the cards of the trace hold a text, and the steps of those that do."""
        return matches(self.once("texts", lambda: texts(self.story)), wanted)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what is made of this reading, which is made only for the first who asks."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

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


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """
    Look for no cycles of garbage while the block runs.

    Reading a long trace makes a million objects and no garbage; to look through them again and again would take a
    quarter of the time.
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
    # The summary comes first: what is recorded between the two shows when the next one is asked for.
    summary = store.trace(trace_id)
    ended = store.ended_in(trace_id)
    lines = store.lines(trace_id)
    size = sum(map(len, lines))
    decoder, events = Decoder(), []
    # Each line goes when it was decoded: together they may take as much as all the rest.
    lines.reverse()
    while lines:
        events.append(decoder.record(lines.pop()))
    story = tell(events, ended, priced=True)
    reading = Reading(summary, version(summary), story, owners(events, story), size, events, ended)
    if summary.event_count <= AT_ONCE:
        reading.search()
    return reading


class Decoder:
    """
    Decodes the records of one trace, in the order of their steps.

    Each turn of a conversation repeats the messages before it. What begins as an earlier turn's messages did is not
    decoded again, and shares its messages, so that a trace takes the time and memory of what is new in it.
    """

    def __init__(self) -> None:
        #: The latest lists of messages: how they were written, without the last bracket, and what they are.
        self._sent: deque[tuple[bytes, list[Any]]] = deque(maxlen=_CONVERSATIONS)

    def record(self, line: str) -> dict[str, Any]:
        """Return a record."""
        if '"messages":' not in line:
            return _object(line)
        try:
            record: dict[str, Any] = _members(line)
            content: dict[str, Any] = _members(record["content"])
            content["messages"] = self._messages(bytes(content["messages"]))
        except (msgspec.DecodeError, UnicodeEncodeError, KeyError):
            return _object(line)  # something else is called so
        return _decoded(record) | {"content": _decoded(content)}

    def _messages(self, written: bytes) -> Any:
        for index, (earlier, known) in enumerate(self._sent):
            rest = written[len(earlier) :] if written.startswith(earlier) else b""
            if rest[:1] in (b",", b"]"):
                messages = known + (msgspec.json.decode(b"[" + rest[1:]) if rest != b"]" else [])
                del self._sent[index]
                break
        else:
            messages = msgspec.json.decode(written)
            if not isinstance(messages, list) or not messages:
                return messages
        self._sent.appendleft((written[:-1], messages))
        return messages


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
    return f"{summary.event_count}-{summary.open_calls}-{summary.last_at}-{summary.running:d}"


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
