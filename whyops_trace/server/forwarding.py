"""
Forwarding: what a home gets goes on to other receivers, by OTLP, in a thread for each of them.

The store is the source of events, and the inbox that of spans, which go on as they came. How far each receiver is, is
on the disk, so a server that is killed goes on where it was. A receiver that is away or hangs delays nobody else.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from whyops_trace._guard import attempt, report, warn_once
from whyops_trace._home import STORE_FILE
from whyops_trace._journal.locks import lock
from whyops_trace.exceptions import DeliveryError, StoreError
from whyops_trace.exporters.base import Outcome, backoff
from whyops_trace.exporters.otlp.forwarding import GIVEN_UP, QUIET, ForwardExporter
from whyops_trace.server.inbox import reading_inbox
from whyops_trace.settings import shown_url
from whyops_trace.store import Store
from whyops_trace.store.forwards import Forwarded, Forwards

#: Seconds between two looks for what came, between two for traces that nobody ends, and between two notes that a
#: server forwards.
_POLL: Final = 0.25
_IDLE: Final = 5.0
_ALIVE: Final = 60.0
#: Bytes of spans, and number of records, that are read at a time.
_BYTES: Final = 1 << 20
_RECORDS: Final = 200
#: The beginning of the keys of records that were made of spans, which go their own way.
_OF_SPANS: Final = "otel-"
#: Seconds that a server that ends waits for a request that is open.
_LAST: Final = 2.0


class Forwarder:
    """
    A thread that forwards to one receiver.

    Args:
        home: The home.
        exporter: The receiver.
        quiet: Seconds without a record after which nothing more is expected of a trace.
        given_up: The same of a call that is open.
    """

    def __init__(
        self, home: Path, exporter: ForwardExporter, *, quiet: float = QUIET, given_up: float = GIVEN_UP
    ) -> None:
        self.url: str = exporter.settings.endpoint
        self._exporter = exporter
        self._quiet, self._given_up = quiet, given_up
        # The connections of its thread are its own.
        self._store = Store(home / STORE_FILE)
        self._inbox = reading_inbox(home)
        self._forwards = Forwards(home)
        self._lock_file = home / f"{exporter.place}.lock"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="whyops-forward", daemon=True)
        self._failures = 0
        self._looked = time.monotonic()
        self._forwards.begin(self.url, self._store.last_number())

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the request that is open, if that does not take long."""
        self._stopping.set()
        self._thread.join(_LAST)

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            while not self._is_alone(stack):
                if self._stopping.wait(_IDLE):
                    return
            attempt(self._exporter.prepare)  # a failure is said where what failed is needed
            while not self._stopping.is_set():
                self._stopping.wait(self._go_on())
            self._exporter.close()
            self._store.close()
            self._inbox.close()
            self._forwards.close()

    def _is_alone(self, stack: contextlib.ExitStack) -> bool:
        """Tell whether no other server of this home forwards to the same receiver, and keep it so."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            warn_once(f"forward: {self.url}", "Nothing is forwarded to %s: %s", shown_url(self.url), error)
            return False
        stack.callback(os.close, descriptor)
        is_free, _ = attempt(lock, descriptor)
        if is_free is False:
            stack.pop_all().close()
        return is_free is not False  # where files cannot be locked, it is not known

    def _go_on(self) -> float:
        """Forward some of what waits; return the seconds to wait before more."""
        try:
            moved = self._send_some()
        except DeliveryError as error:
            self._failures += 1
            self._note(str(error))
            return backoff(self._failures, 0.0) if error.wait is None else error.wait
        except StoreError as error:
            warn_once(
                f"forward: {error}", "Nothing is forwarded to %s at present: %s", shown_url(self.url), error
            )
            return _IDLE
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever happens
            report(f"forwarding to {shown_url(self.url)}", error)
            self._failures += 1
            self._note(f"{type(error).__name__}: {error}")
            return backoff(self._failures, 0.0)
        self._failures = 0
        return 0.0 if moved else _POLL

    def _send_some(self) -> bool:
        if time.monotonic() - self._looked >= min(_IDLE, self._quiet):
            self._exporter.send_quiet(self._quiet, self._given_up)
            self._looked = time.monotonic()
        at = self._forwards.get(self.url)
        if at is not None and time.time() - at.seen > _ALIVE:
            self._forwards.advance(self.url)
        if at is None:  # nobody forwarded for long, or the file was damaged
            self._forwards.begin(self.url, self._store.last_number())
            return False
        # Whichever is quicker does not wait for all of the other.
        return self._send_records(at) | self._send_items(at)

    def _send_records(self, at: Forwarded) -> bool:
        events = self._store.all_after(at.records, _RECORDS)
        own = [event for event in events if not event.key.startswith(_OF_SPANS)]
        if not own:
            if events:
                self._forwards.advance(self.url, records=events[-1].number)
            elif self._store.last_number() < at.records:  # it is another file now
                self._forwards.advance(self.url, records=0)
            return bool(events)
        outcomes = self._exporter.send_records([event.line.encode() for event in own])
        passed = events[-1] if len(outcomes) == len(own) else own[len(outcomes) - 1]
        self._forwards.advance(self.url, records=passed.number, **_counts(outcomes))
        return True

    def _send_items(self, at: Forwarded) -> bool:
        items = self._inbox.outgoing(at.items, _BYTES)
        if not items:
            if self._inbox.last_number() < at.items:  # it is another file now
                self._forwards.advance(self.url, items=0)
            return False
        outcomes = self._exporter.send_items([(item.data, item.is_log) for item in items])
        self._forwards.advance(self.url, items=items[len(outcomes) - 1].number, **_counts(outcomes))
        self._inbox.drop_outgoing(min(each.items for each in self._forwards.all()))
        return True

    def _note(self, error: str) -> None:
        with contextlib.suppress(StoreError):
            self._forwards.advance(self.url, error=error)


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    forwarded = sum(outcome is Outcome.DELIVERED for outcome in outcomes)
    return {"forwarded": forwarded, "rejected": len(outcomes) - forwarded}


class Status(NamedTuple):
    """
    How far a receiver is.

    Attributes:
        url: The URL that is posted to.
        pending: Number of events, spans and log records that wait.
        forwarded: How many it took.
        rejected: How many it will never take.
        dropped: How many were deleted before, for their age or for room.
        oldest_seconds: How long the oldest of them has waited.
        seen_seconds: How long ago a server last sent something, or tried to.
        error: Why the last request failed, "" if it did not.
    """

    url: str
    pending: int
    forwarded: int
    rejected: int
    dropped: int
    oldest_seconds: float
    seen_seconds: float
    error: str


def status_of(home: Path) -> list[Status]:
    """
    Return how far a home has been forwarded to each receiver.

    Raises:
        StoreError: if a file cannot be read.
    """
    with contextlib.closing(Forwards(home)) as forwards:
        receivers = forwards.all()
        if not receivers:
            return []
        store, inbox = Store(home / STORE_FILE), reading_inbox(home)
        with contextlib.closing(store), contextlib.closing(inbox):
            waiting = [(store.unforwarded(each.records), inbox.unforwarded(each.items)) for each in receivers]
        # What was sent meanwhile waits no more, and so has to be counted.
        later = {each.url: each for each in forwards.all()}
    return [
        _status(later.get(each.url, each), *counts) for each, counts in zip(receivers, waiting, strict=True)
    ]


def _status(at: Forwarded, of_store: tuple[int, str], of_inbox: tuple[int, float]) -> Status:
    (records, first), (items, arrived) = of_store, of_inbox
    moments = [datetime.fromisoformat(first).timestamp()] if first else []
    moments += [arrived] if items else []
    now = time.time()
    oldest = max(0.0, now - min(moments)) if moments else 0.0
    return Status(
        at.url, records + items, at.forwarded, at.rejected, at.dropped,
        round(oldest, 1), round(max(0.0, now - at.seen), 1), at.error,
    )  # fmt: skip
