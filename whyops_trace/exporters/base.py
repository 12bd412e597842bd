"""The base class of all destinations of records, with the batches it takes and the outcomes it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from whyops_trace._journal.segment import CHUNK
from whyops_trace.exporters.record import Record
from whyops_trace.types import Audience

#: Seconds before the second try.
FIRST_BACKOFF: Final = 0.5
#: Largest number of seconds before a try.
LAST_BACKOFF: Final = 30.0


@dataclass(frozen=True)
class Batch:
    """
    Records on their way to one destination, in the order they were recorded. All are of one process.

    Attributes:
        process: The name of the process that recorded them: twelve hexadecimal digits.
        lines: The records as they are in the journal: one JSON object each, in UTF-8, without a newline.
        adopted: True if that was another process, which died before they were delivered.
    """

    process: str
    lines: Sequence[bytes]
    adopted: bool = False

    @cached_property
    def records(self) -> Sequence[Record]:
        """The same records with their attributes. Each is decoded when the first attribute is read that needs it."""
        return [Record(line, self.process) for line in self.lines]


class Outcome(Enum):
    """
    The fate of one record at a destination.

    With each of them the record has passed the destination, and does not come again.
    """

    #: The destination has it.
    DELIVERED = "delivered"
    #: The destination keeps a share of the traces, and this trace is not in it.
    SAMPLED_OUT = "sampled out"
    #: The destination will never take it.
    REJECTED = "rejected"
    #: It is not meant for this destination, and does not count as emitted for it.
    WITHHELD = "withheld"


class Exporter:
    """
    A destination of records. Derive from it for one of your own, and give that to ``WhyOps(exporters=[...])``.

    A client has one worker thread for all destinations on this machine, and one for each that is :attr:`remote`. The
    worker calls the methods one at a time, and never inside a traced call. If no thread can be started any more, as
    while the process ends, the thread that flushes or closes the client calls them.

    Each destination has a place of its own in the journal, which moves on when a batch is taken. A destination that
    fails or hangs loses nothing, and delays only those that share its thread. The same record may come twice, always
    under the same idempotency key: after an :meth:`export` that raised, and after a crash between the moment it was
    taken and the moment that was noted.

    After a fork the child has a worker of its own with the same exporter. Files and connections of :meth:`export` have
    to be opened again once :func:`os.getpid` has changed.

    Attributes:
        name: The name of the destination in the journal and the ledger. A client has no two of the same name. Records
            that a process left are delivered by a later one whose destinations have the same names.
        remote: True if it waits on a network, and so gets a thread of its own.
        audience: The records that it gets beside those for everyone: those for local destinations, unless it is a
            WhyOps server.
        batch_bytes: Approximate bytes of records in a batch. A larger record comes alone. The attribute is read before
            each batch.
        ephemeral: True if it is for this process only. It never gets the records that another process left behind.
        continues_spans: True if a trace that begins in a span of OpenTelemetry shall be a part of that span's trace.
    """

    name: str
    remote: bool = False
    audience: Audience = Audience.LOCAL
    batch_bytes: int = CHUNK
    ephemeral: bool = False
    continues_spans: bool = False

    def prepare(self) -> None:
        """
        Load what exporting needs, while the first records gather.

        Called once for each worker thread, before its first batch. Nothing has to be ready after it: its exceptions
        are ignored, and the first :meth:`export` has to do without.
        """

    def on_start(self) -> None:
        """
        Do the work that a destination needs once, beside taking records.

        Called once for each worker thread, after its first delivery that did not fail. If a client of a provider goes
        through the WhyOps proxy, it is called before anything is recorded. Its exceptions are ignored.
        """

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Take a batch.

        Args:
            batch: At least one record.

        Returns:
            The fate of all records, in their order, or of the first ones, at least one. The others come again at once,
            at the head of the next batch.

        Raises:
            DeliveryError: if no record was taken. The same ones come again after the seconds that it names. Without
                them it is half a second, doubled up to 30 seconds by each failure in a row. Its message is logged once
                in a process.
            Exception: if no record was taken for any other reason. The same ones come again likewise.
        """
        raise NotImplementedError

    def process_ended(self, process: str) -> None:
        """
        Note that a process is gone: calls that it left open will not end.

        Called once for each process, when all its records have passed this destination. For this process it is called
        when the client is closed at the end of the program. If it raises, it is called again after a later batch.

        Args:
            process: The name of the process.
        """

    def close(self) -> None:
        """
        Close files and connections.

        Called by the thread that closes the client, when the worker has ended. A later :meth:`export` opens them again.
        Its exceptions are logged.
        """


def backoff(attempt: int, chance: float) -> float:
    """
    Return the seconds to wait after failures in a row: doubled by each, up to :data:`LAST_BACKOFF`.

    Args:
        attempt: Number of failures in a row.
        chance: A number from 0 to 1. Half of it is the share of the wait that is taken off.
    """
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 16)) * (1.0 - chance / 2)
