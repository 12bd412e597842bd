"""One step of a delivery: the next records of a segment are handed to a destination."""

from __future__ import annotations

from collections.abc import Sequence

from whyops_trace._journal.header import Counts
from whyops_trace._journal.segment import Segment
from whyops_trace._recording.line import texts_for_others
from whyops_trace.exporters.base import Batch, Exporter, Outcome


def export_batch(exporter: Exporter, segment: Segment, *, adopted: bool) -> Counts | None:
    """
    Hand the next records of a segment to a destination, and move its cursor behind those that were taken.

    Args:
        exporter: The destination.
        segment: The segment that holds the records.
        adopted: True if another process recorded them.

    Returns:
        How the records fared that were taken; None if there are none to hand over.

    Raises:
        ValueError: if the exporter does not say what became of at least one record, and at most of all.
        Exception: what the exporter raises; the same records come again then.
    """
    lines, cursor = segment.read(exporter.name, exporter.batch_bytes)
    if not lines:
        return None
    others = texts_for_others(exporter.audience)
    meant = [place for place, line in enumerate(lines) if not line.endswith(others)]
    taken = len(lines)
    outcomes: Sequence[Outcome] = ()
    if meant:
        batch = Batch(segment.header.token, [lines[place] for place in meant], adopted=adopted)
        outcomes = exporter.export(batch)
        if not 0 < len(outcomes) <= len(meant):
            raise ValueError(f"export() gave {len(outcomes)} outcomes for {len(meant)} records")
        if len(outcomes) < len(meant):
            taken = meant[len(outcomes)]
    counts = Counts(
        delivered=outcomes.count(Outcome.DELIVERED),
        sampled_out=outcomes.count(Outcome.SAMPLED_OUT),
        rejected=outcomes.count(Outcome.REJECTED),
        withheld=outcomes.count(Outcome.WITHHELD) + taken - len(outcomes),
    )
    left = lines[taken:]
    segment.commit(exporter.name, cursor - sum(map(len, left)) - len(left), counts)
    return counts
