"""
Sampling by outcome: a remote destination gets the traces that are worth it, which shows when they end.

A :class:`Sampler` stands between the journal and an exporter. Records that it takes leave the journal and wait in the
:class:`~whyops_trace._delivery.room.Room`, on disk. At the end of their trace they go to the exporter, or are counted
as sampled out; and are kept for a while, as a later score or failure may change that. A trace that is kept once is kept
for good, in all processes of the home.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._delivery.flag import Flag
from whyops_trace._delivery.handover import counts_of, export_batch, exported
from whyops_trace._delivery.presence import Presence
from whyops_trace._delivery.room import Part, Room, State, Verdicts
from whyops_trace._home import WAITING, WAITING_FILE
from whyops_trace._journal.header import Counts
from whyops_trace._journal.journal import Journal
from whyops_trace._journal.segment import Segment
from whyops_trace._reading.judging import judge
from whyops_trace._recording.line import ending_of, texts_for_others
from whyops_trace._recording.numbers import read_head
from whyops_trace._recording.state import TraceState
from whyops_trace.exceptions import DeliveryError, StoreError
from whyops_trace.exporters.base import Batch, Exporter
from whyops_trace.sampling import TailSampling

#: Seconds without a record after which a trace is decided on as if it had ended.
IDLE: Final = 300.0
#: Traces that wait at most, and bytes of their records; of more, those without a record for the longest time are
#: decided on. Bytes of left out ones that stay.
MAX_TRACES: Final = 10_000
MAX_WAITING: Final = 64 << 20
MAX_LEFT_OUT: Final = 64 << 20
#: Bytes to be sent above which no further records are taken from the journal, which has a budget.
MAX_DUE: Final = 16 << 20
#: Seconds between two looks at what other processes decided, and at what they left.
LOOK_EVERY: Final = 5.0
#: Remembered traces that are kept.
MAX_KEPT: Final = 10_000

#: The start of the line of a score.
_SCORE: Final = b'{"eventType":"score",'
_decode_id: Final = msgspec.json.Decoder(str).decode

#: The process that recorded a trace, and the trace id.
Key = tuple[str, str]


class Sampler:
    """
    The way of records to one remote destination, of which it gets a part.

    Args:
        exporter: The destination.
        journal: The journal that the records come from.
        home: The home, in which they wait.
        stream: The name of the journal's stream.
        choice: The choice of traces; None to keep all, and only send what an earlier process left in the room.
        states: The traces of this process, by their ids.
        is_shared: Tells of a process and a trace id, as JSON, whether others report a part of the trace there.
        takes: Tells of a record whether the destination gets it; None if none is ever asked for by :meth:`newest`.

    Attributes:
        name: The name of the destination.
    """

    def __init__(
        self,
        exporter: Exporter,
        journal: Journal,
        *,
        home: Path,
        stream: str,
        choice: TailSampling | None,
        states: Callable[[str], TraceState | None],
        is_shared: Callable[[str, bytes], bool] = lambda _process, _trace: False,
        takes: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.name: str = exporter.name
        self._exporter = exporter
        self._journal = journal
        place = f"{stream}/{exporter.name}"
        self._room = Room(home / WAITING_FILE, place)
        self._presence = Presence(home / WAITING, hashlib.sha256(place.encode()).hexdigest()[:16])
        self._choice = choice
        self._states = states
        self._is_shared = is_shared
        self._takes = takes
        self._others = texts_for_others(exporter.audience)
        self.renew()

    def renew(self) -> None:
        """Start as a process of its own, which has taken nothing."""
        self._presence.let_go()
        self._has_due = False
        #: Traces that wait, with the time of their latest record and the bytes so far; the latest last.
        self._waiting: OrderedDict[Key, tuple[float, int]] = OrderedDict()
        self._bytes = 0
        self._kept: OrderedDict[str, None] = OrderedDict()
        #: Traces that are to be kept because their turns are at the destination.
        self._wanted: set[str] = set()
        #: The latest record of each trace that waits or is due, if somebody may have it stored ahead.
        self._newest: dict[str, bytes] = {}
        self._taken: dict[str, int] = {}
        self._has_any = True
        self._next_look = 0.0
        #: The traces that are to be decided on now: "all", or those that "ended"; "" for none.
        self._concludes = ""
        #: Processes of which the destination is told that they are gone, once nothing of them is left to send.
        self._gone: set[str] = set()
        #: Processes whose parts were taken over before their last records.
        self._took_over: set[str] = set()

    @property
    def is_due(self) -> bool:
        """True while something is to be sent, or a decision is asked for."""
        return self._has_due or bool(self._concludes or self._wanted)

    @property
    def next_look(self) -> float | None:
        """Seconds until there is something to do without a record, None if there is nothing."""
        return max(0.0, self._next_look - time.monotonic()) if self._has_any else None

    # From the journal

    @property
    def hand_over(self) -> Callable[..., Counts | None]:
        """The function that hands the next records of a segment over, called as that of a destination that gets all."""
        return partial(export_batch, self._exporter) if self._choice is None else self.take_in

    def take_in(self, segment: Segment, *, adopted: bool) -> Counts | None:
        """
        Take the next records of a segment, and move the cursor of the destination behind them.

        Args:
            segment: The segment.
            adopted: True if another process recorded them.

        Returns:
            Counts of the records by what becomes of them, None if there are none.

        Raises:
            DeliveryError: if they can wait nowhere, or the destination has not taken enough of what is to be sent.
        """
        lines, cursor = segment.read(self.name, self._exporter.batch_bytes)
        if not lines:
            return None
        try:
            if self.is_due and self._room.size(self._journal.token, State.DUE) > MAX_DUE:
                self.send(Flag())
            if adopted and segment.header.token not in self._took_over:
                self._take_over(segment.header.token)
            known = self._known(segment, lines, cursor)
            counts = self._take(segment, lines[known:], cursor)
        except StoreError as error:
            if segment.path is None:  # nothing can be written: they would be lost with the process
                return export_batch(self._exporter, segment, adopted=adopted)
            raise DeliveryError(str(error)) from error
        passed_before = sum(not line.endswith(self._others) for line in lines[:known])
        counts = counts.plus(Counts(waiting=passed_before, withheld=known - passed_before))
        segment.commit(self.name, cursor, counts)
        return counts

    def _known(self, segment: Segment, lines: list[bytes], cursor: int) -> int:
        """Return the number of lines that were taken before, by somebody who did not come to move the cursor."""
        if segment.path is None:
            return 0
        name = segment.path.name
        if name not in self._taken:
            self._taken = {name: self._room.taken(name)}
        place, known = segment.before(cursor, lines), 0
        while known < len(lines) and place < self._taken[name]:
            place += cursor - segment.before(cursor, lines[known : known + 1])
            known += 1
        return known

    def _take(self, segment: Segment, lines: Sequence[bytes], cursor: int) -> Counts:
        process = segment.header.token
        traces: dict[str, list[bytes]] = {}
        #: The number of records up to the last end of each trace that has ended.
        ends: dict[str, int] = {}
        kept: set[str] = set()
        for line in lines:
            head = read_head(line)
            trace = "" if head is None else _decode_id(head.trace)
            traces.setdefault(trace, []).append(line)
            if ending_of(line).ends_trace:
                ends[trace] = len(traces[trace])
            if head is None or self._is_flagged(line) or self._is_shared(process, head.trace):
                kept.add(trace)
        parts: list[tuple[Part, State]] = []
        left_out: set[Key] = set()
        for trace, records in traces.items():
            end = ends.get(trace, 0)
            state = self._state(process, trace, records[:end], kept)
            if state is State.LEFT_OUT:
                left_out.add((process, trace))
                parts.append((self._part(process, trace, records[:end]), state))
                del records[:end]
            if records:
                after = State.WAITS if state is State.LEFT_OUT else state
                parts.append((self._part(process, trace, records), after))
        self._decide(Verdicts(kept, left_out), parts, segment, cursor)
        for part, state in parts:
            self._note(part, state)
        return Counts(
            waiting=sum(part.records for part, state in parts if state is not State.LEFT_OUT),
            sampled_out=sum(part.records for part, state in parts if state is State.LEFT_OUT),
            withheld=len(lines) - sum(part.records for part, _ in parts),
        )

    def _part(self, process: str, trace: str, records: Sequence[bytes]) -> Part:
        own = sum(not line.endswith(self._others) for line in records)
        return Part(process, trace, own, b"\n".join(records))

    def _state(self, process: str, trace: str, records: Sequence[bytes], kept: set[str]) -> State:
        """Return the state of new records up to the end of a trace, and note it if its outcome is why it is kept."""
        if trace in kept or trace in self._kept or trace in self._wanted or self._is_in_share(trace):
            return State.DUE
        if not records:
            return State.WAITS
        earlier: list[bytes] = []
        if (process, trace) in self._waiting:
            earlier = self._room.waiting(self._journal.token, process, trace)
        if not self._keeps([*earlier, *records], is_over=True):
            return State.LEFT_OUT
        kept.add(trace)
        return State.DUE

    def _note(self, part: Part, state: State) -> None:
        """Remember new records, as far as something is to be decided or done about them."""
        key = (part.process, part.trace)
        _, size = self._waiting.pop(key, (0.0, 0))
        self._bytes -= size
        if state is State.WAITS:
            self._waiting[key] = (time.monotonic(), size + len(part.body))
            self._bytes += size + len(part.body)
        if state is State.LEFT_OUT:
            self._newest.pop(part.trace, None)
        elif (takes := self._takes) is not None:
            newest = next((line for line in reversed(part.lines) if takes(line)), None)
            self._newest.update({} if newest is None else {part.trace: newest})

    # Decisions

    def _is_in_share(self, trace: str) -> bool:
        return self._choice is None or self._choice.is_in_share(trace)

    def _is_flagged(self, line: bytes) -> bool:
        return self._choice is not None and self._choice.flagged and line.startswith(_SCORE)

    def _keeps(self, lines: Iterable[bytes], *, is_over: bool, is_cut: bool = False) -> bool:
        """
        Return True if the outcome of a trace is one to keep.

        Args:
            lines: Its records.
            is_over: True if nothing more of it is expected.
            is_cut: True if its process ended in the middle of it.
        """
        choice = self._choice
        if choice is None or (choice.failed and is_cut):
            return True
        give_way()
        judgement = judge(lines, is_over=is_over, costs=choice.costlier_than is not None)
        return (
            (choice.failed and judgement.failed)
            or (choice.flagged and judgement.flagged)
            or (choice.slower_than is not None and judgement.seconds > choice.slower_than)
            or (choice.costlier_than is not None and judgement.cost > choice.costlier_than)
        )

    def _decide(
        self,
        verdicts: Verdicts,
        parts: Sequence[tuple[Part, State]] = (),
        segment: Segment | None = None,
        cursor: int = 0,
    ) -> None:
        """Write decisions down, with new parts, and count what is left out of what was here."""
        token = self._journal.token
        name = segment.path.name if segment is not None and segment.path is not None else ""
        self._presence.show(token)
        left_out, self._has_due = self._room.take_in(token, parts, verdicts, name, cursor)
        self._has_any = True
        if name:
            self._taken[name] = cursor
        for process, records in left_out.items():
            self._settle(process, Counts(waiting=-records, sampled_out=records))
        for trace in verdicts.kept:
            self._kept[trace] = None
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        kept = [key for key in self._waiting if key[1] in verdicts.kept] if verdicts.kept else ()
        for key in (*verdicts.left_out, *kept):
            _, size = self._waiting.pop(key, (0.0, 0))
            self._bytes -= size

    def _decide_on(self, keys: Iterable[Key], *, process_ends: bool = False) -> None:
        """Decide on traces that wait, by what is known of them."""
        kept: set[str] = set()
        left_out: set[Key] = set()
        for process, trace in keys:
            goes_on = self._goes_on(process, trace)
            lines = self._room.waiting(self._journal.token, process, trace)
            is_over = process_ends or (not goes_on and self._states(trace) is not None)
            if lines and self._keeps(lines, is_over=is_over, is_cut=process_ends and goes_on):
                kept.add(trace)
            else:  # what waited may be gone already, because another process has kept the trace
                left_out.add((process, trace))
                self._newest.pop(trace, None)
        if kept or left_out:
            self._decide(Verdicts(kept, left_out))

    def _refresh(self) -> None:
        """Find out whether there is anything to send."""
        self._has_due = self._room.has_due(self._journal.token)

    def _has_read_all(self) -> bool:
        """Return True if all that this process recorded has left the journal."""
        own = (each for each in tuple(self._journal.segments) if each.header.token == self._journal.token)
        return all(segment.cursor(self.name) >= segment.end for segment in own)

    def _goes_on(self, process: str, trace: str) -> bool:
        """Return True if something of a trace is open in this process, or its process was another one, which died."""
        if process != self._journal.token:
            return True
        state = self._states(trace)
        return state is not None and bool(state.blocks or state.open or state.open_tools)

    # To the exporter

    def work(self, stop: Flag) -> None:
        """
        Do what does not wait for a record: decide, and send.

        Raises:
            DeliveryError: if the destination takes nothing, or the room cannot be used.
            Exception: if the exporter raises any other.
        """
        try:
            self._work(stop)
        except StoreError as error:
            raise DeliveryError(str(error)) from error

    def _work(self, stop: Flag) -> None:
        now = time.monotonic()
        if self._wanted:
            wanted = set(self._wanted)
            self._wanted -= wanted
            self._decide(Verdicts(wanted))
        if (concludes := self._concludes) and self._has_read_all():
            self._concludes = ""
            keys = [key for key in self._waiting if concludes == "all" or not self._goes_on(*key)]
            self._decide_on(keys, process_ends=concludes == "all")
            self._refresh()
        idle = [key for key, (latest, _) in self._waiting.items() if latest < now - IDLE]
        size = self._bytes
        for number, (key, (_, bytes_)) in enumerate(self._waiting.items()):
            if len(self._waiting) - number <= MAX_TRACES and size <= MAX_WAITING:
                break
            size -= bytes_
            idle.append(key)
        self._decide_on(dict.fromkeys(idle))
        if now >= self._next_look:
            self._look(now)
        if self.is_due:
            self.send(stop)

    def send(self, stop: Flag) -> None:
        """
        Send what is due.

        Raises:
            Exception: if the exporter raises it. The same records come again then.
        """
        token = self._journal.token
        while not stop.is_set() and (parts := self._room.due(token, self._exporter.batch_bytes)):
            self._send(parts)
            give_way()
        self._refresh()
        held = {segment.header.token for segment in tuple(self._journal.segments)} if self._gone else set()
        for process in self._gone - held if not self.is_due else ():
            self._exporter.process_ended(process)
            self._gone.discard(process)

    def _send(self, parts: Sequence[Part]) -> None:
        process = parts[0].process
        lines = [[line for line in part.lines if not line.endswith(self._others)] for part in parts]
        batch = Batch(
            process, [line for own in lines for line in own], adopted=process != self._journal.token
        )
        outcomes = exported(self._exporter, batch) if batch.lines else ()
        sent: list[int] = []
        rest: Part | None = None
        counts = Counts()
        for part, own in zip(parts, lines, strict=True):
            taken, outcomes = outcomes[: len(own)], outcomes[len(own) :]
            before = Counts(sampled_out=-len(taken)) if part.left_out else Counts(waiting=-len(taken))
            counts = counts.plus(before).plus(counts_of(taken))
            if len(taken) < len(own):
                rest = part._replace(records=len(own) - len(taken), body=b"\n".join(own[len(taken) :]))
                break
            sent.append(part.id)
            if self._newest and self._newest.get(part.trace) in own:
                del self._newest[part.trace]
        self._room.pass_parts(sent, rest)
        self._settle(process, counts)

    def _settle(self, process: str, counts: Counts) -> None:
        self._journal.settle(self.name, counts, adopted=process != self._journal.token)

    # Other processes

    def _look(self, now: float) -> None:
        """Look at what other processes decided and left, and forget what is of no use."""
        self._next_look = now + LOOK_EVERY
        token = self._journal.token
        for owner in self._room.owners():
            if owner != token and self._presence.is_gone(owner):
                self._take_over(owner)
                self._finish()
        self._has_any = self._room.has_any(token)
        if self._has_any:
            self._room.tidy(token, MAX_LEFT_OUT, self._journal.names)
            self._refresh()

    def _take_over(self, gone: str) -> None:
        """Take what a process left, which is gone; what is to come of it may end its traces."""
        self._took_over.add(gone)
        token = self._journal.token
        self._presence.show(token)
        records = self._room.take_over(token, gone)
        for process, count in records.items():
            self._journal.settle(self.name, Counts(waiting=count), adopted=process != token)
        self._gone |= {gone, *records} - {token}
        for process, trace, size in self._room.waiting_traces(token) if records else ():
            if (process, trace) not in self._waiting:
                self._waiting[process, trace] = (time.monotonic(), size)
                self._bytes += size

    def _finish(self) -> None:
        """Keep what waits of processes that are gone: nobody saw the end of it."""
        keys = [key for key in self._waiting if key[0] in self._gone]
        self._decide_on(keys, process_ends=True)
        self._refresh()

    def process_ended(self, process: str) -> None:
        """
        Note that a process is gone: keep what it left unfinished, send it, and tell the destination.

        Raises:
            Exception: if the destination takes nothing.
        """
        self._presence.is_gone(process)  # which deletes its file
        self._take_over(process)
        self._finish()
        self.send(Flag())
        if process in self._gone:  # another destination has not passed its records
            self._exporter.process_ended(process)
            self._gone.discard(process)

    # For the worker and its client

    def conclude(self, *, process_ends: bool) -> None:
        """Have decided on what has ended as far as anybody knows, or on all because the process ends."""
        if self._choice is not None and self._journal.emitted:
            self._concludes = "all" if process_ends else "ended"

    def want(self, part: bytes) -> None:
        """Keep the trace whose records have a part: the proxy of the destination is about to report a turn of it."""
        trace_id = _trace_in(part)
        if trace_id not in self._kept:
            self._wanted.add(trace_id)

    def newest(self, part: bytes) -> bytes | None:
        """Return the latest record of that trace that has left the journal and is not sent, None without any."""
        return self._newest.get(_trace_in(part))

    def close(self) -> None:
        """Leave what is here to the next process, and close the file."""
        self._presence.leave()
        self._room.close()


def _trace_in(part: bytes) -> str:
    """Return the id in a member ``"traceId":"...",`` of a record."""
    return _decode_id(part.partition(b":")[2][:-1])
