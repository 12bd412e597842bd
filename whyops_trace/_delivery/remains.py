"""The words of a client that ends, about the records that did not reach their destinations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from whyops_trace._guard import say
from whyops_trace.types import Ledger


def say_what_is_left(ledger: Ledger, home: Path, remedies: Mapping[str, Callable[[], str]]) -> None:
    """
    Log what is pending, was not kept by a server, or was dropped.

    Args:
        ledger: The counts of each destination.
        home: The directory in which records wait.
        remedies: For each server, by its name, a function that tells what makes it keep more.
    """
    for name, tally in ledger.items():
        if tally.pending:
            say(
                logging.WARNING,
                "%s: %d records are not delivered yet; they stay in %s for the next process.",
                name,
                tally.pending,
                home,
            )
        if tally.sampled_out and name in remedies:
            say(
                logging.WARNING,
                "%s: the server did not keep %d of %d records. %s",
                name,
                tally.sampled_out,
                tally.emitted,
                remedies[name](),
            )
        if tally.dropped:
            reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.items())
            say(logging.WARNING, "%s: %d records were dropped: %s.", name, tally.dropped, reasons)
