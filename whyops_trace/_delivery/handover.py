"""One step of a delivery: a destination takes the next records of a segment."""

from __future__ import annotations

from collections.abc import Sequence

from whyops_trace._journal.header import Counts
from whyops_trace._journal.segment import Segment
from whyops_trace._recording.line import texts_for_others
from whyops_trace.exporters.base import Batch, Exporter, Outcome


def export_batch(exporter: Exporter, segment: Segment, *, adopted: bool) -> Counts | None:
    """
    Hand the next records of a segment to a destination, and move its cursor behind those that it took.

    Args:
        exporter: The destination.
        segment: The segment that holds the records.
        adopted: True if another process recorded them.

    Returns:
        Counts of the taken records by their outcomes; None if there are none to hand over.

    Raises:
        ValueError: if the exporter returns no outcome, or more than there are records.
        Exception: if the exporter raises it. The same records come again then.
    """
    lines, cursor = segment.read(exporter.name, exporter.batch_bytes)
    if not lines:
        return None
    others = texts_for_others(exporter.audience)
    places = [place for place, line in enumerate(lines) if not line.endswith(others)]
    passed = len(lines)
    outcomes: Sequence[Outcome] = ()
    if places:
        batch = Batch(segment.header.token, [lines[place] for place in places], adopted=adopted)
        outcomes = exported(exporter, batch)
        if len(outcomes) < len(places):
            passed = places[len(outcomes)]
    counts = counts_of(outcomes).plus(Counts(withheld=passed - len(outcomes)))
    rest = lines[passed:]
    segment.commit(exporter.name, segment.before(cursor, rest), counts)
    return counts


def exported(exporter: Exporter, batch: Batch) -> Sequence[Outcome]:
    """
    Have a destination take a batch, and return the outcomes of the records that it took, one at least.

    Raises:
        ValueError: if the exporter returns no outcome, or more than there are records.
        Exception: if the exporter raises it.
    """
    outcomes = exporter.export(batch)
    if not 0 < len(outcomes) <= len(batch.lines):
        raise ValueError(f"export() gave {len(outcomes)} outcomes for {len(batch.lines)} records")
    return outcomes


def counts_of(outcomes: Sequence[Outcome]) -> Counts:
    """Return the number of each outcome."""
    return Counts(
        delivered=outcomes.count(Outcome.DELIVERED),
        sampled_out=outcomes.count(Outcome.SAMPLED_OUT),
        rejected=outcomes.count(Outcome.REJECTED),
        withheld=outcomes.count(Outcome.WITHHELD),
    )
