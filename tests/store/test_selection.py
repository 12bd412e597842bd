"""Which traces a list shows, what is counted of them, and how a page learns of something new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lines import START_NS, Process, encoded, tool_request

from whyops_trace._clock import iso
from whyops_trace._reading.summary import LOOP
from whyops_trace.store import Counts, Filter, Store
from whyops_trace.testing import ManualClock

TOKEN = "9f2c41aa01be"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of its own."""
    store = Store(tmp_path / "traces.db", clock=ManualClock())
    yield store
    store.close()


@pytest.fixture
def several(store: Store) -> Store:
    """A store with a trace of each kind."""
    asked = {"messages": [{"role": "user", "content": "Where is it?"}]}
    about = {"trace": {"tags": ["vip", "50% off"], "metadata": {}}}
    _add(
        store,
        "good",
        [("user_message", {"content": asked}), ("llm_response", {"content": {"content": "Here."}})],
    )
    _add(store, "failed", [("error", {"content": {"message": "no"}, "agentName": "other"})], seconds=2)
    _add(store, "unanswered", [("user_message", {"content": asked, "externalUserId": "u'1"})], seconds=30)
    _add(store, "running", [("user_message", {"content": asked, "metadata": about})], end=False)
    process = Process(trace="looping")
    store.ingest((TOKEN, [encoded(tool_request(process, n, at=n * 1000)) for n in range(1, LOOP + 1)]))
    store.process_ended(TOKEN)
    return store


def _add(
    store: Store,
    trace: str,
    events: list[tuple[str, dict[str, Any]]],
    *,
    seconds: float = 1,
    end: bool = True,
) -> None:
    """Store a trace that takes some time; without an end it goes on."""
    token = "77aa00bb11cc" if not end else TOKEN
    process = Process(token, trace=trace)
    lines = [process.line(kind, n, **members) for n, (kind, members) in enumerate(events, 1)]
    if end:
        failed = events[-1][0] == "error"
        metadata = {"outcome": "error"} if failed else {}
        content = {"error": {"message": "no"}} if failed else {}
        lines.append(
            process.line("trace_end", 1, 1, at=seconds * 1000, metadata=metadata, content=content, end=True)
        )
    store.ingest((token, lines))


def ids(store: Store, **where: Any) -> set[str]:
    """Return the traces for which something holds; they are as many as are counted."""
    found = {summary.trace_id for summary in store.traces(where=Filter(**where))}

    assert store.counts(Filter(**where)).total == len(found)
    return found


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, "good failed unanswered running looping"),
        ({"failed": True}, "failed"),
        ({"failed": False}, "good unanswered running looping"),
        ({"looping": True}, "looping"),
        ({"looping": False, "failed": False}, "good unanswered running"),
        ({"running": True}, "running"),
        ({"running": False}, "good failed unanswered looping"),
        ({"stopped": True}, "looping"),
        ({"stopped": False}, "good failed unanswered running"),
        ({"unanswered": True}, "unanswered"),
        ({"unanswered": False, "running": False}, "good failed looping"),
        ({"agent": "other"}, "failed"),
        ({"agent": "oth"}, ""),
        ({"user": "u'1"}, "unanswered"),
        ({"tag": "50% off"}, "running"),
        ({"tag": "50%"}, ""),
        ({"min_seconds": 2}, "failed unanswered looping"),
        ({"min_seconds": 2, "max_seconds": 2}, "failed looping"),
        ({"max_seconds": 0.5}, "running"),
        ({"since": iso(START_NS + 10**10)}, "unanswered"),
        ({"until": iso(START_NS + 10**9)}, "running"),
        ({"ids": ["good", "nowhere", "looping"]}, "good looping"),
        ({"ids": []}, ""),
        ({"ids": ["good", "failed"], "failed": True}, "failed"),
        ({"agent": "half a character \udc80"}, ""),
        ({"user": "' OR 1 --"}, ""),
    ],
)
def test_traces_are_chosen(several: Store, where: dict[str, Any], found: str) -> None:
    """All that a filter names has to hold."""
    assert ids(several, **where) == set(found.split())


def test_pages_of_chosen_traces_follow_each_other(several: Store) -> None:
    """Each trace is on one page, in the order of the list."""
    where = Filter(failed=False)
    listed = [summary.trace_id for summary in several.traces(where=where)]
    first = several.traces(2, where=where)
    rest = several.traces(10, first[-1].trace_id, where=where)

    assert [summary.trace_id for summary in [*first, *rest]] == listed


def test_what_deserves_a_look_is_counted(several: Store) -> None:
    """Of all traces, and of those that a filter leaves."""
    assert several.counts() == Counts(total=5, failed=1, looping=1, stopped=1, unanswered=1, slow=0)
    assert several.counts(Filter(failed=True)) == Counts(total=1, failed=1)


def test_slow_is_what_takes_longer_than_95_of_100(store: Store) -> None:
    """By nearest rank: of forty traces two, of nineteen none; of none at all nothing is known."""
    assert (store.slow_seconds(), store.counts()) == (0.0, Counts())

    for n in range(1, 41):
        _add(store, f"t{n}", [("error", {})], seconds=n)
        if n == 19:
            assert (store.slow_seconds(), store.counts().slow) == (19.0, 0)
    assert (store.slow_seconds(), store.counts().slow) == (38.0, 2)
    assert store.counts(Filter(min_seconds=40)).slow == 1


def test_a_time_that_is_none_is_no_time(store: Store) -> None:
    """A record may hold any text as its time; its trace is neither slow nor quick."""
    store.ingest((TOKEN, [Process().line("error", 1, timestamp="yesterday")]))

    assert store.slow_seconds() == 0.0
    assert ids(store, min_seconds=0) == set()
    assert ids(store) == {"checkout-8841"}


def test_the_version_changes_with_whatever_is_written(store: Store) -> None:
    """By this connection and by others; reading changes nothing."""
    other = Store(store.path)
    seen = [store.version()]
    for write in (
        lambda: store.ingest((TOKEN, [Process().line("error", 1)])),
        lambda: other.ingest((TOKEN, [Process(trace="other").line("error", 1)])),
        lambda: other.process_ended(TOKEN),
        lambda: store.delete("other"),
        store.close,
    ):
        write()
        seen.append(store.version())
        store.traces()

        assert store.version() == seen[-1]
    other.close()

    assert len(set(seen)) == len(seen)


def test_a_trace_grows(store: Store) -> None:
    """What came since a record is told in the order it came, with numbers that only rise."""
    one, two = Process(), Process(trace="other")
    store.ingest((TOKEN, [one.line("error", 2), two.line("error", 1)]))
    ((number, first),) = store.events_after("checkout-8841", 0)
    store.ingest((TOKEN, [one.line("error", 1), two.line("error", 2), one.line("error", 3)]))
    later = store.events_after("checkout-8841", number)

    assert first["stepId"] == 2
    assert [record["stepId"] for _, record in later] == [1, 3]
    assert number < later[0][0] < later[1][0]
    assert store.events_after("checkout-8841", later[1][0]) == store.events_after("nowhere", 0) == []
    assert [event["stepId"] for event in store.event("checkout-8841", 3)] == [3]
    assert store.event("checkout-8841", 9) == []


def test_records_of_all_traces_are_read_in_slices(store: Store) -> None:
    """For an index of them; what is deleted is not among them, and its numbers are not used again."""
    for n in range(5):
        store.ingest((TOKEN, [Process(trace=f"t{n}").line("error", 1, content={"n": n})]))
    first = store.all_after(0, 2)
    store.delete("t4")
    store.ingest((TOKEN, [Process(trace="t5").line("error", 1, content={"n": 5})]))
    rest = store.all_after(first[-1].number)

    assert [event.trace_id for event in [*first, *rest]] == ["t0", "t1", "t2", "t3", "t5"]
    assert [event.number for event in [*first, *rest]] == [1, 2, 3, 4, 6]
    assert (rest[-1].type, rest[-1].step, rest[-1].key) == ("error", 1, f"{TOKEN}-1")
    assert '"content":{"n":5}' in rest[-1].line
