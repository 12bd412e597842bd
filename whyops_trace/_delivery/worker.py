"""
Carries records from the journal to the exporters, in worker threads of its own.

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
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final

from whyops_trace._clock import give_way
from whyops_trace._delivery.handover import hand_over
from whyops_trace._guard import attempt, report, say, warn_once
from whyops_trace._journal.journal import Journal
from whyops_trace._recording.recorder import Recorder
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import LAST_BACKOFF, Exporter, backoff
from whyops_trace.types import Ledger, Tally

#: Seconds a worker waits after the first record, so that a burst becomes one batch.
LINGER: Final = 0.05
#: Records in that time that show that the program does little else, and seconds that it is left alone then.
BURST: Final = 1_000
LONGEST_BURST: Final = 0.5
#: Seconds between looks at what processes left that died meanwhile, such as the workers of a pool.
ADOPT_EVERY: Final = 10.0
#: Seconds a destination waits for another one, which has to pass what is held before more can be taken over.
PATIENCE: Final = 1.0
#: How many of the latest batches tell how long one takes.
RECENT: Final = 9
#: Seconds a worker has to end once told to, whatever the deadline: one that is not inside an exporter needs none.
STOP_GRACE: Final = 0.2


class Flag:
    """An event that may be set, by a signal handler or a finaliser, while its own thread is setting it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # its lock is re-entrant; that of threading.Event is not
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        with self._changed:
            self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, so many seconds at most; return whether it was, even if it is taken back already."""
        with self._changed:
            return self._is_set or self._changed.wait(timeout)


class Delivery:
    """
    One worker thread that delivers a journal's records to a group of exporters.

    Args:
        recorder: Wakes this worker.
        journal: Where records come from; what dead processes left is taken over when the worker starts.
        exporters: The destinations, served in turn. One that waits on a network gets a delivery of its own.
        linger: Seconds to let a burst gather.
    """

    def __init__(
        self, recorder: Recorder, journal: Journal, exporters: Sequence[Exporter], *, linger: float = LINGER
    ) -> None:
        self.exporters = exporters
        self._recorder = recorder
        self._journal = journal
        self._linger = linger
        self._renew()
        recorder.after_fork.append(self._renew)
        recorder.nudges.append(self._nudge)

    def _renew(self) -> None:
        self._thread: threading.Thread | None = None
        #: Held while the worker starts. Re-entrant: so may a finaliser that runs meanwhile come back to it.
        self._starting = threading.RLock()
        self._stop = Flag()
        self._wake = Flag()
        #: Set while somebody waits for the worker: no lingering, no backoff.
        self._hurry = Flag()
        #: How many wait for something that what is recorded has to come before.
        self._hurried = 0
        #: How many records had been passed when it was waited in vain for more; None if it was not.
        self._stuck_at: int | None = None
        #: Seconds that the latest batches took.
        self._recent: deque[float] = deque(maxlen=RECENT)
        #: Set when the worker has done its first work, and the exporters have introduced themselves.
        self._introduced = Flag()
        #: Whether that is so, or was waited for in vain.
        self.is_started = False
        #: Held while records are handed over, by the worker or by whoever drains without one.
        self._delivering = threading.Lock()
        self._progress = threading.Condition()
        self._failures = dict.fromkeys((exporter.name for exporter in self.exporters), 0)
        #: The exporters, by name, and the processes they know are gone.
        self._told: set[tuple[str, str]] = set()
        #: When to look next for what dead processes left, as :func:`time.monotonic` tells it.
        self._adopt_at = 0.0
        #: Until when to wait for another destination; 0 if that was not necessary since the last look.
        self._patient_until = 0.0
        self._recorder.sleepers.append(self.wake)

    def wake(self) -> None:
        """Let the worker look for records; starts it the first time."""
        if self._thread is None:
            with self._starting:
                # Once modules are taken down, a thread that is started never runs, and start() waits for ever for it.
                if self._thread is None and not sys.is_finalizing():
                    self._start()
        self._wake.set()

    def _nudge(self) -> None:
        """Let the worker look for records, if there is one."""
        if self._thread is not None:
            self._wake.set()

    def _start(self) -> None:
        self._stop = Flag()
        self._thread = thread = threading.Thread(
            target=self._run,
            args=(self._stop,),
            name="whyops-" + "-".join(exporter.name for exporter in self.exporters),
            daemon=True,
        )
        try:
            # In an empty context, which a thread may take over: it must not see, or keep alive, whatever started it.
            attempt(contextvars.Context().run, thread.start)
        finally:
            # None starts at exit from Python 3.12 on, or if an interrupt is in time; flush delivers without it.
            if thread.ident is None:
                self._thread = None

    def _run(self, stop: Flag) -> None:
        unprepared = list(self.exporters)
        while not stop.is_set():
            self._wake.wait()
            self._wake.clear()
            started, emitted = time.monotonic(), self._journal.emitted
            while unprepared:
                attempt(unprepared.pop().prepare)  # what fails here is said when it fails where it is needed
            if not self._hurried:
                self._gather(started, emitted)
            self._hurry.clear()  # before the work: whoever waits from now on has it tried again
            wait, error = attempt(self.deliver, stop)
            if error is not None:
                report("delivering records", error)
                wait = LAST_BACKOFF
            if not self._introduced.is_set():
                for exporter in self.exporters if not wait else ():
                    attempt(exporter.introduce)
                self._introduced.set()
            if wait and not stop.is_set():
                self._hurry.wait(wait)
                self._wake.set()
            else:
                self._recorder.sleepers.append(self.wake)
                if self._unread():  # recorded since the last look, when the worker was not among the sleepers
                    self._wake.set()

    def _gather(self, started: float, emitted: int) -> None:
        """
        Let a burst gather, as long as it lasts: a worker beside it would only make both slower.

        Args:
            started: When the worker was woken, as :func:`time.monotonic` tells it.
            emitted: How many records there were by then.
        """
        until = started + self._linger
        while not self._hurry.wait(max(0.0, until - time.monotonic())):
            self._journal.prepare()
            emitted, before = self._journal.emitted, emitted
            if emitted - before < BURST or until >= started + LONGEST_BURST:
                return
            until += self._linger

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
                more = self._adopt(stop)
                # A server gets what is older first: conversations go on in their order, and its agent may have had
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

    def _adopt(self, stop: Flag) -> bool:
        """Take over what processes have left that died since the last look; tell whether there may be more."""
        if time.monotonic() < self._adopt_at and not self._journal.backlog:
            return False
        if self._journal.adopt():
            self._patient_until = 0.0
            for nudge in self._recorder.nudges:
                nudge()  # the workers of other destinations have it to deliver as well
            return True
        if self._journal.backlog and (self._is_behind() or self._is_patient(stop)):
            return True
        self._adopt_at = time.monotonic() + ADOPT_EVERY
        return False

    def _is_behind(self) -> bool:
        """Tell whether something that was taken over is left to deliver."""
        adopted = [segment for segment in tuple(self._journal.segments) if segment.adopted]
        return any(not segment.passed(exporter.name) for exporter in self.exporters for segment in adopted)

    def _is_patient(self, stop: Flag) -> bool:
        """Wait a moment for another destination to pass what is held; tell whether that was not too long already."""
        now = time.monotonic()
        self._patient_until = self._patient_until or now + PATIENCE
        if now >= self._patient_until:
            return False
        stop.wait(LINGER)
        return True

    def _deliver_to(self, exporter: Exporter, stop: Flag, *, adopted_only: bool) -> float:
        for segment in tuple(self._journal.segments):
            if adopted_only and not segment.adopted:
                continue
            adopted = segment.header.token != self._journal.token
            end = segment.end  # what comes to it meanwhile may be a burst
            while segment.cursor(exporter.name) < end and not stop.is_set():
                started = time.monotonic()
                counts, error = attempt(hand_over, exporter, segment, adopted=adopted)
                if error is not None:
                    return self._failed(exporter, error)
                if counts is None:
                    break
                if counts.delivered:
                    self._recent.append(time.monotonic() - started)
                self._failures[exporter.name] = 0
                with self._progress:
                    self._progress.notify_all()
                if segment.passed(exporter.name):
                    self._journal.retire()  # now, not after a long backlog
                self._journal.prepare()
                give_way()
        self._tell_ends(exporter)
        return 0.0

    def _tell_ends(self, exporter: Exporter) -> None:
        """
        Tell an exporter once of each process that is gone, when nothing of it is left to deliver.

        Its segments may stay for a long time for another exporter, or be gone before this one looks.
        """
        untold = [token for token in tuple(self._journal.ended) if (exporter.name, token) not in self._told]
        if untold:
            segments = tuple(self._journal.segments)
            left = {segment.header.token for segment in segments if not segment.passed(exporter.name)}
            for token in untold:
                if token not in left and attempt(exporter.process_ended, token)[1] is None:
                    self._told.add((exporter.name, token))

    def _failed(self, exporter: Exporter, error: Exception) -> float:
        self._failures[exporter.name] += 1
        known = isinstance(error, DeliveryError)
        if str(error) or not known:
            warn_once(
                f"{exporter.name}: {error if known else type(error).__name__}",
                "Cannot deliver to %s; the records stay in the journal and are tried again: %s",
                exporter.name,
                error,
            )
        wait = error.wait if isinstance(error, DeliveryError) else None
        return backoff(self._failures[exporter.name], chance=0.0) if wait is None else wait

    def _unread(self) -> bool:
        return any(
            segment.cursor(exporter.name) < segment.end
            for exporter in self.exporters
            for segment in tuple(self._journal.segments)
        )

    def flush(self, deadline: float) -> None:
        """
        Wait until everything recorded so far by this process is delivered.

        Args:
            deadline: The :func:`time.monotonic` time to stop waiting at.
        """
        targets = {exporter.name: self._journal.emitted for exporter in self.exporters}
        if self._reached(targets):
            return
        self._hurry.set()
        self.wake()
        if self._thread is None:
            self.deliver()
        with self._progress:
            self._progress.wait_for(lambda: self._reached(targets), max(0.0, deadline - time.monotonic()))

    @property
    def is_behind(self) -> bool:
        """Whether something that this process recorded is not delivered yet."""
        return not self._reached({exporter.name: self._journal.emitted for exporter in self.exporters})

    def catch_up(self, timeout: float) -> None:
        """
        Wait a moment until what was recorded so far is delivered.

        It is not waited for what fails at present, nor where a batch lately took longer than the wait would be, nor
        again where a wait was in vain and nothing has been delivered since.

        Args:
            timeout: Seconds to wait at most.
        """
        if self._recent and median(self._recent) > timeout:
            self._hurry.set()
        elif self.is_behind and not any(self._failures.values()) and self._passed() != self._stuck_at:
            self.flush(time.monotonic() + timeout)
            self._stuck_at = self._passed() if self.is_behind else None

    def _passed(self) -> int:
        return sum(sum(self._journal.totals(exporter.name)) for exporter in self.exporters)

    def hurry(self) -> None:
        """Let no burst gather, until :meth:`calm` is called as often."""
        with self._progress:
            self._hurried += 1
        if not any(self._failures.values()):
            self._hurry.set()  # a burst that gathers already is let go

    def calm(self) -> None:
        """Let bursts gather again."""
        with self._progress:
            self._hurried = max(0, self._hurried - 1)

    def start(self, timeout: float) -> None:
        """
        Let the worker begin, before there is anything to deliver.

        Args:
            timeout: Seconds to wait at most until the exporters have introduced themselves.
        """
        if not self.is_started:
            self._hurry.set()
            self.wake()
            self.is_started = self._introduced.wait(timeout) or timeout > 0  # nobody waits again

    def _reached(self, targets: dict[str, int]) -> bool:
        return all(sum(self._journal.totals(name)) >= target for name, target in targets.items())

    def ledger(self) -> Ledger:
        """Return what became of this process's records, for each of this worker's destinations."""
        ledger: Ledger = {}
        for exporter in self.exporters:
            counts, emitted = self._journal.totals(exporter.name), self._journal.emitted
            ledger[exporter.name] = Tally(
                emitted=emitted - counts.withheld,
                delivered=counts.delivered,
                pending=emitted - sum(counts),
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
            process_ends: Whether calls that are still open will never end.
        """
        if any(exporter.remote for exporter in self.exporters):
            deadline = max(deadline, answered_by)
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._hurry.set()
            self._wake.set()
            if thread.ident is not None:  # else this is a signal handler in the middle of starting it
                thread.join(max(STOP_GRACE, deadline - time.monotonic()))
            # What is left behind now comes before what is recorded from now on.
            self._adopt_at = 0.0
            if self.wake not in self._recorder.sleepers:
                self._recorder.sleepers.append(self.wake)
        if thread is None or not thread.is_alive():
            for exporter in self.exporters:
                if process_ends and self._journal.emitted:
                    attempt(exporter.process_ended, self._journal.token)
                _, error = attempt(exporter.close)
                if error is not None:
                    say(logging.ERROR, "Closing the exporter %s failed.", exporter.name, error=error)
