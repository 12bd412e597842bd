"""The base class of every destination of records, with the batches it takes and the outcomes it returns."""

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
#: Seconds before a try at most.
LAST_BACKOFF: Final = 30.0


@dataclass(frozen=True)
class Batch:
    """
    Records on their way to one destination, in the order they were recorded. All are of one process.

    Attributes:
        process: The name of the process that recorded them: twelve hexadecimal digits.
        lines: The records as they stand in the journal: one JSON object each, in UTF-8, without a newline.
        adopted: Whether that was another process than this one, which died before they were delivered.
    """

    process: str
    lines: Sequence[bytes]
    adopted: bool = False

    @cached_property
    def records(self) -> Sequence[Record]:
        """The same records to be read, each decoded when that is needed."""
        return [Record(line, self.process) for line in self.lines]


class Outcome(Enum):
    """
    The fate of one record at a destination.

    The record has passed that destination with any of them, and does not come again.
    """

    #: The destination has it.
    DELIVERED = "delivered"
    #: The destination keeps a share of the traces, and not this one.
    SAMPLED_OUT = "sampled out"
    #: The destination will never take it.
    REJECTED = "rejected"
    #: It is not meant for this destination, and does not count as emitted for it.
    WITHHELD = "withheld"


class Exporter:
    """
    A destination of records; derive from it for one of your own, and give it to ``WhyOps(exporters=[...])``.

    A client has one worker thread for all destinations on this machine, and one for each that is :attr:`remote`. It
    calls the methods, one at a time, so that none of them is called inside a traced call. Where no thread can be
    started any more, as while the process ends, the thread that flushes or closes the client calls them.

    Each destination has a place of its own in the journal, which moves on when a batch is taken. One that fails or
    hangs loses nothing, and holds up only those that share its thread. The same record may come twice, always under the
    same idempotency key: after an :meth:`export` that raised, and after a crash between taking it and noting that.

    After a fork the child has a worker of its own with the same exporter. What :meth:`export` opens has to be opened
    again where :func:`os.getpid` has changed.

    Attributes:
        name: The name of the destination in the journal and the ledger, the only one of that name in a client. What a
            process left is delivered by a later one whose destinations have the same names.
        remote: Whether it waits on a network, and so gets a thread of its own.
        audience: The records that it gets beside those for everyone: those for local destinations, unless it is a
            WhyOps server.
        batch_bytes: The bytes of records that it is handed at a time, about. A larger record comes alone. It is read
            before each batch.
        ephemeral: Whether it is for this process only: nobody delivers to it what another process left behind.
    """

    name: str
    remote: bool = False
    audience: Audience = Audience.LOCAL
    batch_bytes: int = CHUNK
    ephemeral: bool = False

    def prepare(self) -> None:
        """
        Load what exporting needs, while a first burst gathers.

        Called once for each worker thread, before its first batch. Nothing has to be ready after it: what it raises is
        ignored, and the first :meth:`export` has to do without.
        """

    def on_start(self) -> None:
        """
        Do what is to be done once at the destination, beside taking records.

        Called once for each worker thread, after it has delivered for the first time, unless that failed; or before
        anything is recorded, where a client of a provider goes through the WhyOps proxy. What it raises is ignored.
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
            DeliveryError: if no record was taken. The same ones come again after the seconds it names, or else after
                half a second, doubled up to 30 by each failure in a row. Its message is logged once in a process.
            Exception: if no record was taken for any other reason. The same ones come again likewise.
        """
        raise NotImplementedError

    def process_ended(self, process: str) -> None:
        """
        Note that a process is gone: calls it left open will not end.

        Called once for each process, when all that it recorded has passed this destination; for this one when the
        client is closed at the end of the program. If it raises, it is called again after a later batch.

        Args:
            process: The name of the process.
        """

    def close(self) -> None:
        """
        Let go of files and connections.

        Called by the thread that closes the client, when the worker has ended. An :meth:`export` that comes later makes
        it start afresh. What it raises is logged.
        """


def backoff(attempt: int, chance: float) -> float:
    """
    Return the seconds to wait after some failures in a row: doubled by each, up to :data:`LAST_BACKOFF`.

    Args:
        attempt: How many failures there were.
        chance: 0 to 1; up to half of the wait is taken off by it.
    """
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 16)) * (1.0 - chance / 2)
