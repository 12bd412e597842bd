"""Whom a record is for: all destinations, all but the server, or the server alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from collector import Collector
from hypothesis import given
from hypothesis import strategies as st
from journals import make
from lines import Process, encoded
from serving import DELIVERED, REJECTED, SAMPLED_OUT, WITHHELD, deliver, exporter, sent

from whyops_trace._delivery.handover import export_batch
from whyops_trace._journal.header import Counts
from whyops_trace._journal.journal import Journal
from whyops_trace._recording.line import Ending
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.console import ConsoleExporter
from whyops_trace.exporters.local import LocalExporter
from whyops_trace.exporters.memory import MemoryExporter
from whyops_trace.exporters.whyops import WhyOpsExporter
from whyops_trace.types import Audience

EVERYONE, LOCAL, SERVER = Audience.EVERYONE, Audience.LOCAL, Audience.SERVER


class Taking(Exporter):
    """
    A destination that takes so many records of each batch, the last number again and again.

    Attributes:
        taken: The numbers of the records, in order.
        asked: How often it was handed a batch.
    """

    def __init__(self, name: str, counts: Sequence[int] = (1000,), outcome: Outcome = DELIVERED) -> None:
        self.name = name
        self.audience = SERVER if name == "whyops" else LOCAL
        self.taken: list[int] = []
        self.asked = 0
        self._counts = list(counts)
        self._outcome = outcome

    def export(self, batch: Batch) -> Sequence[Outcome]:
        self.asked += 1
        count = self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]
        lines = batch.lines[:count]
        self.taken += [json.loads(line)["n"] for line in lines]
        return [self._outcome] * len(lines)


def journal(endings: Iterable[Ending]) -> Journal:
    """A journal of records with these endings."""
    made = make(None)
    for number, ending in enumerate(endings):
        made.append(b'{"n":%d%b\n' % (number, ending.text))
    return made


def hand_over_all(to: Exporter, of: Journal) -> Counts:
    """Hand everything over, as a worker does; return what came of it."""
    for segment in of.segments:
        while export_batch(to, segment, adopted=False) is not None:
            pass
    return of.totals(to.name)


@given(
    endings=st.lists(st.sampled_from(Ending)),
    counts=st.lists(st.integers(1, 3), min_size=1),
    name=st.sampled_from(["local", "whyops"]),
)
def test_each_destination_gets_what_is_for_it(endings: list[Ending], counts: list[int], name: str) -> None:
    """In order, each record once, however many it takes at a time; the others do not count as emitted for it."""
    made = journal(endings)
    to = Taking(name, counts)
    other = SERVER if name == "local" else LOCAL
    meant = [number for number, ending in enumerate(endings) if ending.audience is not other]
    totals = hand_over_all(to, made)

    assert to.taken == meant
    assert totals == Counts(delivered=len(meant), withheld=len(endings) - len(meant))
    assert all(segment.cursor(name) == segment.end for segment in made.segments)


def test_a_destination_is_not_asked_for_what_is_not_for_it() -> None:
    """Such records are passed all the same."""
    made = journal([Ending.LOCAL] * 3)
    to = Taking("whyops")

    assert export_batch(to, made.segments[0], adopted=False) == Counts(withheld=3)
    assert to.asked == 0


def test_what_is_passed_over_goes_along_with_what_was_taken() -> None:
    """Up to the first record that was not: that one comes again, and nothing before it."""
    made = journal([Ending.LOCAL, Ending.USUAL, Ending.LOCAL, Ending.SERVER, Ending.USUAL, Ending.LOCAL])
    to = Taking("whyops", [2, 1])

    assert export_batch(to, made.segments[0], adopted=False) == Counts(delivered=2, withheld=2)
    assert export_batch(to, made.segments[0], adopted=False) == Counts(delivered=1, withheld=1)
    assert export_batch(to, made.segments[0], adopted=False) is None
    assert to.taken == [1, 3, 4]


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (SAMPLED_OUT, Counts(sampled_out=2, withheld=1)),
        (REJECTED, Counts(rejected=2, withheld=1)),
        (WITHHELD, Counts(withheld=3)),
    ],
)
def test_what_a_destination_withholds_is_counted_with_what_is_passed_over(
    outcome: Outcome, counts: Counts
) -> None:
    """Neither is emitted for it."""
    made = journal([Ending.USUAL, Ending.LOCAL, Ending.LAST])

    assert hand_over_all(Taking("whyops", outcome=outcome), made) == counts


def test_a_destination_that_fails_gets_the_same_records_again() -> None:
    """Those that are passed over as well are not passed before."""
    made = journal([Ending.LOCAL, Ending.USUAL])
    to = Taking("whyops")
    to.export = lambda batch: (_ for _ in ()).throw(DeliveryError("not now"))  # type: ignore[method-assign]
    with pytest.raises(DeliveryError):
        export_batch(to, made.segments[0], adopted=False)
    del to.export

    assert made.totals("whyops") == Counts()
    assert export_batch(to, made.segments[0], adopted=False) == Counts(delivered=1, withheld=1)


@pytest.mark.parametrize("count", [0, 3])
def test_a_destination_has_to_say_what_became_of_records(count: int) -> None:
    """Of one at least, and of no more than it was handed; what is passed over is none of its business."""
    made = journal([Ending.USUAL, Ending.LOCAL, Ending.USUAL])
    to = Taking("whyops")
    to.export = lambda batch: [DELIVERED] * count  # type: ignore[method-assign]

    with pytest.raises(ValueError, match=f"{count} outcomes for 2 records"):
        export_batch(to, made.segments[0], adopted=False)
    assert made.totals("whyops") == Counts()


@pytest.mark.parametrize("name", ["local", "whyops"])
def test_what_a_user_wrote_looks_like_no_audience(name: str) -> None:
    """Content ends in a brace more, whatever is in it."""
    made = make(None)
    contents = [
        {"for": "local"},
        {"for": "server"},
        {"x": 1, "for": "local", "end": True},
        ',"for":"server"}',
    ]
    for number, content in enumerate(contents):
        event = {"n": number, **Process().event("user_message", 1), "content": {"a": 1, "given": content}}
        made.append(encoded(event) + b"\n")

    assert hand_over_all(to := Taking(name), made) == Counts(delivered=4)
    assert to.taken == [0, 1, 2, 3]


def test_only_the_server_is_passed_over_by_what_stays_here(collector: Collector, tmp_path: Path) -> None:
    """Every other destination sees the whole trace, and nothing twice."""
    server = exporter(collector, tmp_path)
    others = [LocalExporter(tmp_path / "traces.db"), ConsoleExporter(), MemoryExporter()]

    assert isinstance(server, WhyOpsExporter)
    assert server.audience is SERVER
    assert {each.audience for each in others} == {LOCAL}
    for each in (server, *others):
        each.close()


def test_the_server_does_not_see_whom_a_record_is_for(collector: Collector, tmp_path: Path) -> None:
    """That is said to this side only, as is that a trace ends."""
    process = Process()
    to = exporter(collector, tmp_path)
    lines = []
    endings = [ending for ending in Ending if ending.audience is not LOCAL]
    for number, ending in enumerate(endings, 1):
        record = process.line("user_message", number, number - 1 or None, at=number, content={"n": number})
        lines.append(record.removesuffix(b"}") + ending.text)
    outcomes = deliver(to, lines)
    to.close()

    assert outcomes == [DELIVERED] * 4
    assert [event["content"] for event in sent(collector)] == [{"n": number} for number in range(1, 5)]
    assert [event.keys() & {"for", "end"} for event in sent(collector)] == [set()] * 4
