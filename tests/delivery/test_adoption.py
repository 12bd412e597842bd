"""The schedule by which a worker takes over the records of dead processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from journals import die, fill, make, read

from whyops_trace._delivery import adoption as adoption_module
from whyops_trace._delivery.adoption import Adoption
from whyops_trace._delivery.flag import Flag
from whyops_trace._journal import journal as journal_module
from whyops_trace.exporters.base import Exporter

#: Seconds that no test waits.
LONG = 3600.0


class Local(Exporter):
    """
    A destination that fails the first time it is told of the end of a process.

    Attributes:
        ended: The processes it was told of.
    """

    name = "local"

    def __init__(self) -> None:
        self.ended: list[str] = []

    def process_ended(self, token: str) -> None:
        self.ended.append(token)
        if len(self.ended) == 1:
            raise OSError("not now")


def leave(home: Path) -> str:
    """Let a process die that has recorded one record; return its name."""
    journal = make(home)
    token = journal.token
    fill(journal, [0])
    die(journal)
    return token


def test_other_workers_learn_of_what_was_taken_over(tmp_path: Path) -> None:
    """There may be more, until a look finds nothing."""
    leave(tmp_path)
    notices: list[str] = []
    journal = make(tmp_path)
    adoption = Adoption(
        journal, [Local()], [lambda: notices.append("first"), lambda: notices.append("second")]
    )
    looks = [adoption.look(Flag()), adoption.look(Flag())]
    records = read(journal.segments)
    journal.close()

    assert looks == [True, False]
    assert len(records) == 1
    assert notices == ["first", "second"]


def test_a_look_comes_at_its_time_or_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In between, deliveries go on without a look at the directory."""
    monkeypatch.setattr(adoption_module, "ADOPT_EVERY", LONG)
    journal = make(tmp_path)
    adoption = Adoption(journal, [Local()], [])
    looks = [adoption.look(Flag())]
    leave(tmp_path)
    looks.append(adoption.look(Flag()))
    adoption.look_soon()
    looks.append(adoption.look(Flag()))
    adopted = [segment.adopted for segment in journal.segments]
    journal.close()

    assert looks == [False, False, True]
    assert adopted == [True]


@pytest.mark.parametrize(("patience", "waits"), [(LONG, True), (0.0, False)], ids=["at first", "in the end"])
def test_a_backlog_waits_for_another_destination_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, waits: bool
) -> None:
    """No more can be taken over before every destination has passed what is held."""
    monkeypatch.setattr(journal_module, "ADOPTED_AT_ONCE", 1)
    monkeypatch.setattr(adoption_module, "PATIENCE", patience)
    leave(tmp_path)
    leave(tmp_path)
    journal = make(tmp_path)
    adoption = Adoption(journal, [Local()], [])
    stop = Flag()
    stop.set()  # so that no wait takes any time
    looks = [adoption.look(stop), adoption.look(stop)]
    read(journal.segments, "local")
    looks.append(adoption.look(stop))
    read(journal.segments, "whyops")
    journal.retire()
    looks.append(adoption.look(stop))
    journal.close()

    assert looks == [True, True, waits, True]


def test_a_destination_is_told_of_an_end_until_it_takes_it(tmp_path: Path) -> None:
    """Once nothing of that process is left to deliver to it, and never again after that."""
    token = leave(tmp_path)
    exporter = Local()
    journal = make(tmp_path)
    adoption = Adoption(journal, [exporter], [])
    adoption.look(Flag())
    adoption.tell_ends(exporter)
    before = list(exporter.ended)
    read(journal.segments, "local")
    for _ in range(3):
        adoption.tell_ends(exporter)
    journal.close()

    assert before == []
    assert exporter.ended == [token, token]
