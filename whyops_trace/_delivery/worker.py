"""
The worker threads that carry records from the journal to the exporters.

A :class:`Delivery` is one daemon thread over one or more exporters. It sleeps until something is recorded, lets a
burst gather, and hands over batches in the order of the journal. An exporter that fails is asked again later with
the same batch: records leave the journal only when every destination has taken them or the disk budget is full.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from whyops_trace._clock import give_way
from whyops_trace._delivery.adoption import Adoption
from whyops_trace._delivery.flag import Flag
from whyops_trace._delivery.handover import export_batch
from whyops_trace._delivery.pace import Pace
from whyops_trace._delivery.progress import Progress
from whyops_trace._guard import attempt, report, say, warn_once
from whyops_trace._journal.header import PAGE
from whyops_trace._journal.journal import Journal
from whyops_trace._locks import is_held_here
from whyops_trace._recording.recorder import Recorder
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import LAST_BACKOFF, Exporter, backoff
from whyops_trace.types import Ledger, Tally

if TYPE_CHECKING:
    from whyops_trace._delivery.sampler import Sampler

#: Seconds a worker has to end once it is told to, even past the deadline. Only inside an exporter does it need longer.
STOP_GRACE: Final = 0.2


class Delivery:
    """
    One worker thread that delivers a journal's records to a group of exporters.

    Args:
        recorder: Wakes this worker.
        journal: Holds the records; the worker also takes over what dead processes left.
        exporters: The destinations, served in turn. One that waits on a network gets a delivery of its own.
        samplers: The ways to those of them that get the traces of some outcomes only.

    Attributes:
        is_started: True once :meth:`start` has waited for the worker's first work, be it in vain.
    """

    def __init__(
        self,
        recorder: Recorder,
        journal: Journal,
        exporters: Sequence[Exporter],
        samplers: Iterable[Sampler] = (),
    ) -> None:
        self.exporters = exporters
        self._samplers = {sampler.name: sampler for sampler in samplers}
        self._recorder = recorder
        self._journal = journal
        self._renew()
        recorder.after_fork.append(self._renew)
        recorder.listeners.append(self._notify)

    def _renew(self) -> None:
        """Start as a process of its own, whose worker has done nothing yet."""
        self._thread: threading.Thread | None = None
        #: Held while the worker starts. Re-entrant: so may a finaliser that runs meanwhile come back to it.
        self._starting = threading.RLock()
        #: Set to let the worker end.
        self._stop = Flag()
        #: Set when the worker has done its first work, and the exporters have introduced themselves unless it failed.
        self._introduced = Flag()
        self.is_started: bool = False
        #: Set while nothing of dead processes is known that the worker has not looked at.
        self._looked = Flag()
        self._looked.set()
        #: Held while records are handed over, by the worker or by a thread that drains without one. A signal handler
        #: may come back to it.
        self._delivering = threading.RLock()
        self._pace = Pace(self._journal)
        for sampler in self._samplers.values():
            sampler.renew()
        names = [exporter.name for exporter in self.exporters]
        self._progress = Progress(self._journal, names, self._is_due)
        self._adoption = Adoption(self._journal, self.exporters, self._recorder.listeners)
        self._recorder.wakeups.append(self.wake)

    def wake(self) -> None:
        """Let the worker look for records; start it the first time."""
        if self._thread is None:
            with self._starting:
                # Once modules are taken down, a thread that is started never runs, and start() waits for ever for it.
                if self._thread is None and not sys.is_finalizing():
                    self._start()
        self._pace.wake()

    def take_over(self) -> None:
        """Let the worker look for what dead processes left, if other processes have anything in the journal."""
        if self._journal.is_beside_others():
            self._looked.clear()
            self._adoption.look_soon()
            self.wake()

    def _notify(self) -> None:
        """Let the worker look for records, if there is one."""
        if self._thread is not None:
            self._pace.wake()

    def _start(self) -> None:
        self._stop = Flag()
        self._thread = thread = threading.Thread(
            target=self._run,
            args=(self._stop,),
            name="whyops-" + "-".join(exporter.name for exporter in self.exporters),
            daemon=True,
        )
        try:
            # In an empty context, because a thread may take one over: it must not see, or keep alive, its starter's.
            attempt(contextvars.Context().run, thread.start)
        finally:
            # No thread starts at exit from Python 3.12 on, or if an interrupt comes first; flush delivers without it.
            if thread.ident is None:
                self._thread = None

    def _run(self, stop: Flag) -> None:
        unprepared, unstarted = list(self.exporters), list(self.exporters)
        wait: float | None = 0.0
        while not stop.is_set():
            self._pace.rest(self._next_look())
            started, emitted = time.monotonic(), self._journal.emitted
            while unprepared:
                attempt(unprepared.pop().prepare)  # a failure is said where what failed is needed
            self._pace.gather(started, emitted, at_once=bool(wait))
            wait, error = attempt(self.deliver, stop)
            self._looked.set()
            if error is not None:
                report("delivering records", error)
                wait = LAST_BACKOFF
            while unstarted and not wait:
                attempt(unstarted.pop(0).on_start)
            self._introduced.set()
            if wait and not stop.is_set():
                self._pace.back_off(wait)
            else:
                if self.wake not in self._recorder.wakeups:
                    self._recorder.wakeups.append(self.wake)
                if self._unread():  # recorded since the last look, when no record would have woken the worker
                    self._pace.wake()

    def deliver(self, stop: Flag | None = None) -> float:
        """
        Hand over everything that is in the journal now.

        Args:
            stop: Ends the work after the batch at hand, once set.

        Returns:
            The seconds to wait before trying again; 0 if all went.
        """
        stop = stop or Flag()
        with self._delivering:
            while True:
                more = self._adoption.look(stop)
                # A server gets older records first: conversations go on in their order, and its agent may have had
                # other metadata then.
                older = more and self._journal.backlog
                wait = max(
                    self._deliver_to(exporter, stop, adopted_only=older and exporter.remote)
                    for exporter in self.exporters
                )
                self._journal.retire()
                self._journal.prepare()
                if not more or wait or stop.is_set():
                    return wait

    def _deliver_to(self, exporter: Exporter, stop: Flag, *, adopted_only: bool) -> float:
        sampler = self._samplers.get(exporter.name)
        hand_over = partial(export_batch, exporter) if sampler is None else sampler.hand_over
        for segment in tuple(self._journal.segments):
            if adopted_only and not segment.adopted:
                continue
            adopted = segment.header.token != self._journal.token
            end = segment.end  # later records may be a burst
            while segment.cursor(exporter.name) < end and not stop.is_set():
                counts, error = attempt(hand_over, segment, adopted=adopted)
                if error is not None:
                    return self._failed(exporter, error)
                if counts is None:
                    break
                if sampler is None:
                    self._progress.succeeded(exporter.name)
                if segment.passed(exporter.name):
                    self._journal.retire()  # now, not after a long backlog
                self._journal.prepare()
                give_way()
        if sampler is not None:
            _, error = attempt(sampler.work, stop)
            if error is not None:
                return self._failed(exporter, error)
            self._progress.succeeded(exporter.name)
        self._adoption.tell_ends(sampler or exporter)
        return 0.0

    def _is_due(self) -> bool:
        return any(sampler.is_due for sampler in self._samplers.values())

    def _next_look(self) -> float | None:
        """Return the seconds until there is work without a record, None if there is none."""
        looks = [sampler.next_look for sampler in self._samplers.values()]
        return min((look for look in looks if look is not None), default=None)

    def _failed(self, exporter: Exporter, error: Exception) -> float:
        if isinstance(error, DeliveryError) and error.wait is not None and not str(error):
            return error.wait  # nothing is wrong: it is too early
        failures = self._progress.failed(exporter.name)
        known = isinstance(error, DeliveryError)
        if str(error) or not known:
            warn_once(
                f"{exporter.name}: {error if known else type(error).__name__}",
                "Cannot deliver to %s; the records stay in the journal and are tried again: %s",
                exporter.name,
                error,
            )
        wait = error.wait if isinstance(error, DeliveryError) else None
        return backoff(failures, chance=0.0) if wait is None else wait

    def _unread(self) -> bool:
        return any(
            segment.cursor(exporter.name) < segment.end
            for exporter in self.exporters
            for segment in tuple(self._journal.segments)
        )

    def conclude(self, *, process_ends: bool) -> None:
        """Have the next flush decide on traces that have ended as far as anybody knows, or on all."""
        for sampler in self._samplers.values():
            sampler.conclude(process_ends=process_ends)

    def flush(self, deadline: float) -> None:
        """
        Wait until everything recorded so far by this process is delivered, and what was found of others was tried.

        Records that wait for the end of their trace are not waited for. Nor is anything in a signal handler that
        interrupted another flush of its thread, which goes on after it.

        Args:
            deadline: The :func:`time.monotonic` time to stop waiting at.
        """
        emitted = self._progress.emitted()
        if self._progress.has_passed(emitted) and self._looked.is_set():
            return
        self._pace.hasten()
        self.wake()
        if self._journal.is_locked_here or is_held_here(self._delivering):
            return  # what a signal handler interrupted has to go on before anything more is delivered
        if self._thread is None or is_held_here(self._starting):
            self.deliver()
            self._looked.set()
        self._progress.wait(emitted, deadline)
        self._looked.wait(max(0.0, deadline - time.monotonic()))

    @property
    def is_behind(self) -> bool:
        """True while something that this process recorded is not delivered yet."""
        return self._progress.is_behind

    def newest(self, exporter: Exporter, part: bytes, counts: Callable[[bytes], bool]) -> bytes | None:
        """
        Return the latest record of this process that a destination has not passed, None without any.

        Args:
            exporter: The destination.
            part: Text in the record.
            counts: Takes a record, and returns True if it may be that one.
        """
        sampler = self._samplers.get(exporter.name)
        if sampler is not None:
            sampler.want(part)
            self._pace.hasten()
            self.wake()
        for segment in reversed(tuple(self._journal.segments)):
            if segment.header.token == self._journal.token:
                line = segment.newest(exporter.name, part, counts)
                if line is not None:
                    return line
                if segment.cursor(exporter.name) > PAGE:
                    break
        return None if sampler is None else sampler.newest(part)

    @property
    def is_failing(self) -> bool:
        """True if a destination took nothing when it was last asked, though it should have."""
        return self._progress.is_failing

    def expedite(self) -> None:
        """Let no burst gather, until :meth:`relax` is called as often."""
        self._pace.expedite()
        if not self._progress.is_failing:
            self._pace.hasten()  # a burst that gathers already is let go

    def relax(self) -> None:
        """Let bursts gather again."""
        self._pace.relax()

    def start(self, timeout: float) -> None:
        """
        Let the worker begin, before there is anything to deliver.

        Args:
            timeout: Seconds to wait at most until the exporters have introduced themselves.
        """
        if not self.is_started:
            self._pace.hasten()
            self.wake()
            self.is_started = self._introduced.wait(timeout) or timeout > 0  # nobody waits again

    def ledger(self) -> Ledger:
        """Return the counts of this process's records, for each of this worker's destinations."""
        ledger = Ledger()
        for exporter in self.exporters:
            counts, pending = self._journal.standing(exporter.name)
            ledger[exporter.name] = Tally(
                emitted=sum(counts) + pending - counts.withheld,
                delivered=counts.delivered,
                pending=pending,
                sampled_out=counts.sampled_out,
                rejected=counts.rejected,
                dropped=counts.dropped,
                reasons=self._journal.reasons(exporter.name),
            )
        return ledger

    def close(self, deadline: float, answered_by: float = 0.0, *, process_ends: bool = False) -> None:
        """
        Let the worker end after the batch at hand, then close the exporters; both start again with the next record.

        An exporter that still hangs at the deadline is left alone.

        Args:
            deadline: The :func:`time.monotonic` time to wait until.
            answered_by: The same, if later, for a server that is still answering.
            process_ends: True if calls that are still open will never end.
        """
        if any(exporter.remote for exporter in self.exporters):
            deadline = max(deadline, answered_by)
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._pace.hasten()
            self._pace.wake()
            if thread.ident is not None:  # else this is a signal handler in the middle of starting it
                thread.join(max(STOP_GRACE, deadline - time.monotonic()))
            # The records that are left behind now come before those from now on.
            self._adoption.look_soon()
            if self.wake not in self._recorder.wakeups:
                self._recorder.wakeups.append(self.wake)
        if thread is None or not thread.is_alive():
            for exporter in self.exporters:
                # One that is behind is told by the process that delivers the rest.
                if process_ends and self._journal.emitted and not self._progress.is_behind:
                    attempt(exporter.process_ended, self._journal.token)
                _, error = attempt(exporter.close)
                if error is not None:
                    say(logging.ERROR, "Closing the exporter %s failed.", exporter.name, error=error)
            for sampler in self._samplers.values():
                sampler.close()
