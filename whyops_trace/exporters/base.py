"""What every destination of records looks like to the worker that delivers to it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


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
    """What became of one record at a destination."""

    DELIVERED = "delivered"
    SAMPLED_OUT = "sampled out"
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
        ephemeral: Whether it is for this process only: nobody delivers to it what another process left behind.
    """

    name: str
    remote: bool = False
    ephemeral: bool = False

    def prepare(self) -> None:
        """Load what exporting needs, while a first burst gathers; nothing has to be ready after it."""

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Take a batch.

        Returns:
            What became of the records, in order: of all, or of the first ones, at least one. The others come again
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
