"""The form of every destination of records, as the worker sees it that delivers to it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from whyops_trace._journal.segment import CHUNK
from whyops_trace.types import Audience

#: Seconds before the second try.
FIRST_BACKOFF: Final = 0.5
#: Seconds before a try at most.
LAST_BACKOFF: Final = 30.0


class Batch(NamedTuple):
    """
    Records on their way to one destination.

    Attributes:
        token: Name of the process that recorded them.
        adopted: Whether that was another process than this one.
        lines: One complete JSON object each, without a newline, in the order they were recorded.
    """

    token: str
    lines: list[bytes]
    adopted: bool = False


class Outcome(Enum):
    """The fate of one record at a destination."""

    #: The destination has it.
    DELIVERED = "delivered"
    #: The destination chose not to keep it.
    SAMPLED_OUT = "sampled out"
    #: The destination refuses it for good.
    REJECTED = "rejected"
    #: It is not meant for this destination, and does not count as emitted for it.
    WITHHELD = "withheld"


class Exporter:
    """
    A destination of records.

    An exporter is made in one thread and called from another, one call at a time. It has to survive a fork,
    and an :meth:`export` after :meth:`close` makes it start afresh. The same record may come twice, under the
    same idempotency key: after a crash, or after an :meth:`export` that raised.

    Attributes:
        name: What the destination is called in the journal and the ledger.
        remote: Whether it waits on a network, and so gets a thread of its own.
        audience: The records that it gets beside those for everyone.
        reads: Bytes of records that it is handed at a time.
        ephemeral: Whether it is for this process only: nobody delivers to it what another process left behind.
    """

    name: str
    remote: bool = False
    audience: Audience = Audience.LOCAL
    reads: int = CHUNK
    ephemeral: bool = False

    def prepare(self) -> None:
        """Load what exporting needs, while a first burst gathers; nothing has to be ready after it."""

    def introduce(self) -> None:
        """Do what has to be done once before anybody else tells the destination of what is recorded here."""

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Take a batch.

        Returns:
            What became of the records, in their order, of all or of the first ones, at least one. The others come again
            at once.

        Raises:
            DeliveryError: if no record was taken; the same ones come again after the wait it names.
            Exception: if no record was taken for any other reason; the same ones come again later.
        """
        raise NotImplementedError

    def process_ended(self, token: str) -> None:
        """Note that the process of that token is gone: calls it left open will not end."""

    def close(self) -> None:
        """Let go of files and connections."""


def backoff(attempt: int, chance: float) -> float:
    """
    Return the seconds to wait after some failures in a row: doubled by each, up to :data:`LAST_BACKOFF`.

    Args:
        attempt: How many failures there were.
        chance: 0 to 1; up to half of the wait is taken off by it.
    """
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 16)) * (1.0 - chance / 2)
