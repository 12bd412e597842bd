"""The local store: what goes in, under which numbers, and what comes out."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lines import Process, encoded, tool_request, tool_response
from programs import run_code, start_code

from whyops_trace import _database
from whyops_trace._reading.prices import cost
from whyops_trace._reading.summary import SUMMARY_COLUMNS
from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.store import Store, TraceSummary, lines, upgrade
from whyops_trace.store.reading import _TURNS_OF_TRACE
from whyops_trace.store.statements import SLICE
from whyops_trace.testing import ManualClock
from whyops_trace.tree import build

TOKEN = "9f2c41aa01be"
OTHER = "77aa00bb11cc"
#: Tokens of a turn of a model, and when the first one was.
USAGE = {"promptTokens": 1_234, "completionTokens": 56, "cacheReadTokens": 789}
START = "2026-11-21T22:30:00.000Z"
EMBEDDING = {"model": "text-embedding-3-small", "provider": "openai"}


@pytest.fixture
def clock() -> ManualClock:
    """Time of the store."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store of its own."""
    store = Store(tmp_path / "home" / "traces.db", clock=clock)
    yield store
    store.close()


def tool_call(process: Process, step: int = 1, parent: int | None = None, **members: Any) -> list[bytes]:
    """Return the two records of a tool call."""
    return [
        encoded(tool_request(process, step, parent, **members)),
        encoded(tool_response(process, step + 1, step, **members)),
    ]


def numbers(store: Store, trace: str = "checkout-8841") -> list[tuple[int, int | None, int]]:
    """Return step, parent and enclosing step of each event."""
    return [
        (event["stepId"], event.get("parentStepId"), event["metadata"]["within"])
        for event in store.events(trace)
    ]


#: The columns of a record beside its line.
COLUMNS = "id, trace, step, parent, within, type, span, timestamp, key"


def content_of(path: Path) -> list[Any]:
    """Return what a store holds, with the times of storing left out: its rows, and the lines of its records."""
    with contextlib.closing(Store(path)) as store:
        lines = [(event.number, event.line) for event in store.all_after(0, -1)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        statements = [
            f"SELECT id, last_step, process, {SUMMARY_COLUMNS} FROM traces",
            f"SELECT {COLUMNS} FROM records ORDER BY 1",
            *(f"SELECT * FROM {table} ORDER BY 1, 2" for table in ("turns", "runs", "processes")),
        ]
        return [lines, *(connection.execute(statement).fetchall() for statement in statements)]


# Events


def test_events_come_back_as_they_were_recorded(store: Store) -> None:
    """What the store returns for a trace are the records themselves."""
    process = Process()
    events = [tool_request(process, 1), tool_response(process, 2, 1)]

    assert store.ingest((TOKEN, [encoded(event) for event in events])) == [True, True]
    assert store.events("checkout-8841") == events


def test_a_batch_that_comes_twice_changes_nothing(store: Store) -> None:
    """Records are known by trace and idempotency key, also those of a run that had to be shifted."""
    store.ingest((TOKEN, tool_call(Process(run=f"{TOKEN}-1"))))
    batch = (OTHER, tool_call(Process(OTHER, run=f"{OTHER}-1")))
    store.ingest(batch)
    before = content_of(store.path)

    assert store.ingest(batch) == [True, True]
    assert content_of(store.path) == before


def test_a_batch_that_is_partly_known_adds_the_rest(store: Store) -> None:
    """After a crash between storing and committing a batch may come back longer than it was."""
    process = Process()
    first, second = tool_call(process)
    store.ingest((TOKEN, [first]))
    store.ingest((TOKEN, [first, second, second]))

    assert numbers(store) == [(1, None, 0), (2, 1, 1)]
    assert store.trace("checkout-8841").event_count == 2
    assert store.trace("checkout-8841").tool_calls == 1


def test_the_same_key_in_two_traces_is_two_records(store: Store) -> None:
    """An idempotency key is unique in its trace only, as on a server."""
    keyed: dict[str, Any] = {"idempotencyKey": "mine"}
    lines = [Process(trace=trace).line("error", 1, **keyed) for trace in ("a", "b")]
    store.ingest((TOKEN, lines))

    assert len(store.events("a")) == len(store.events("b")) == 1


def test_a_batch_of_many_slices_and_traces(store: Store) -> None:
    """Batches are inserted in slices; no record gets lost or changes place between two of them."""
    processes = [Process(trace=f"t{n}") for n in range(60)]
    lines = [process.line("error", step) for step in range(1, 11) for process in processes]

    assert len(lines) > 3 * SLICE
    assert store.ingest((TOKEN, lines)) == [True] * 600
    assert store.ingest((TOKEN, [])) == []
    assert [len(store.events(f"t{n}")) for n in range(60)] == [10] * 60
    assert store.traces(limit=1000) == [store.trace(f"t{n}") for n in reversed(range(60))]


def test_what_wraps_a_clients_turn_is_no_answer_of_its_own(store: Store) -> None:
    """It is stored, and not counted."""
    process = Process()
    store.ingest(
        (
            TOKEN,
            [
                process.line("llm_response", 1, metadata={"model": "m", "wraps": True}),
                process.line("llm_response", 2, 1, metadata={"model": "m"}),
            ],
        )
    )
    summary = store.trace("checkout-8841")

    assert (summary.llm_responses, summary.event_count) == (1, 2)


def test_the_end_of_a_step_comes_after_its_beginning_and_that_of_a_trace_last(store: Store) -> None:
    """Local records repeat the step of what they end, and follow it."""
    process = Process()
    store.ingest(
        (
            TOKEN,
            [
                process.line("llm_thinking", 1, metadata={"step": "plan"}),
                process.line("error", 2, 1, within=1),
                process.line("step_end", 1, metadata={"step": "plan"}),
                process.line("error", 3, 1),
                process.line("trace_end", 1, 1, end=True),
            ],
        )
    )

    assert [event["eventType"] for event in store.events("checkout-8841")] == [
        "llm_thinking",
        "step_end",
        "error",
        "error",
        "trace_end",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b'{"eventType":"error"}',
        b'{"eventType":"error","traceId":"t","stepId":"1","idempotencyKey":"k"}',
        b'{"eventType":"error","traceId":"t","stepId":1099511627777,"idempotencyKey":"k"}',
        b'{"eventType":"error","traceId":"t","stepId":1,"idempotencyKey":"k","content":"\xff"}',
        # From Python 3.14 on, C code follows as deep as the stack is large.
        *(
            b'{"eventType":"error","traceId":"t","stepId":1,"idempotencyKey":"k","content":%b}'
            % (b"[" * depth + b"]" * depth)
            for depth in ([1_000_000] if sys.version_info >= (3, 14) else [100_000, 1_000_000])
        ),
    ],
)
def test_a_line_that_is_no_record_is_left_out(
    store: Store, said: Callable[[], list[str]], line: bytes
) -> None:
    """One bad line never holds up the others; the first is told in the log."""
    good = Process().line("error", 1)

    assert store.ingest((TOKEN, [good, line, line])) == [True, False, False]
    assert len(store.events("checkout-8841")) == 1
    assert len(said()) == 1
    assert said()[0].startswith("Left out what is not a record")


def test_metadata_of_any_shape_is_stored(store: Store) -> None:
    """Users may put anything into metadata; what cannot be summed up is not, and the event is kept."""
    odd: list[Any] = [
        "12",
        12,
        None,
        [1],
        {"promptTokens": "12", "completionTokens": True},
        {"promptTokens": -1},
    ]
    process = Process()
    events = [
        process.event(
            "llm_response",
            step,
            metadata={"usage": usage, "tool": [1], "latencyMs": "x", "outcome": {}, "trace": usage},
            content=usage,
        )
        for step, usage in enumerate(odd, 1)
    ]
    events.append(process.event("llm_response", 9, metadata={"usage": {"promptTokens": 2**70}}))
    lines = [encoded(event) for event in events]

    assert store.ingest((TOKEN, lines)) == [True] * len(lines)
    assert store.events("checkout-8841") == events
    assert store.trace("checkout-8841").tokens.total == 0


def test_a_number_that_no_float_holds_does_not_spoil_the_record(store: Store) -> None:
    """JSON knows numbers that Python does not; such content is kept and not summed up."""
    line = Process().line("error", 1, content="N").replace(b'"N"', b'{"message":1e999}')

    assert store.ingest((TOKEN, [line])) == [True]
    assert store.trace("checkout-8841").errors == 1
    assert store.trace("checkout-8841").ended_with == "failed"


# Numbers of runs


def test_a_trace_that_comes_back_counts_on(store: Store) -> None:
    """The second run's numbers begin where the first one stopped, and its first event hangs on the last one."""
    store.ingest((TOKEN, tool_call(Process(run=f"{TOKEN}-1"))))
    store.ingest((OTHER, tool_call(Process(OTHER, run=f"{OTHER}-1"))))

    assert numbers(store) == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3)]


def test_runs_in_one_batch_count_on_too(store: Store) -> None:
    """Where a run begins is known within a batch as well as between batches."""
    store.ingest(
        (TOKEN, [line for n in range(3) for line in tool_call(Process(f"{n:012x}", run=f"{n:012x}-1"))])
    )

    assert numbers(store) == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3), (5, 4, 0), (6, 5, 5)]


def test_the_pieces_of_a_run_are_shifted_alike(store: Store) -> None:
    """A run arrives in pieces, from several processes, with records of another run between them."""
    one, two = Process(run=f"{TOKEN}-1"), Process(OTHER, run=f"{OTHER}-1")
    store.ingest((TOKEN, [one.line("error", 1)]))
    store.ingest((OTHER, [two.line("error", 1)]))
    store.ingest((TOKEN, [one.line("error", 2, 1)]))
    store.close()
    store.ingest(
        ("aaaaaaaaaaaa", [two.line("error", 2, 1), one.line("error", 3, 2), two.line("error", 3, 2)])
    )

    assert sorted(numbers(store)) == [(1, None, 0), (2, 1, 0), (2, 1, 0), (3, 2, 0), (3, 2, 0), (4, 3, 0)]


def test_the_same_run_name_in_two_traces_is_shifted_in_each(store: Store) -> None:
    """A shift belongs to a run of a trace."""
    store.ingest((TOKEN, [Process(run="a-1", trace=trace).line("error", 1) for trace in "xy"]))
    for trace in "xyz":
        process = Process(OTHER, run="b-1", trace=trace)
        store.ingest((OTHER, [process.line("error", 1), process.line("error", 2)]))

    assert [numbers(store, trace) for trace in "xyz"] == [
        [(1, None, 0), (2, 1, 0), (3, None, 0)],
        [(1, None, 0), (2, 1, 0), (3, None, 0)],
        [(1, None, 0), (2, None, 0)],
    ]


def test_numbers_the_user_gave_are_never_shifted(store: Store) -> None:
    """``given`` names them: a step, a parent, or both."""
    store.ingest((TOKEN, [Process(run=f"{TOKEN}-1").line("error", 7)]))
    process = Process(OTHER, run=f"{OTHER}-1")
    store.ingest(
        (
            OTHER,
            [
                process.line("error", 1),
                process.line("error", 50, 1, given=["stepId"]),
                process.line("error", 3, 50, given=["parentStepId"], within=1),
                process.line("error", 60, 50, given=["stepId", "parentStepId"]),
            ],
        )
    )

    assert numbers(store) == [(7, None, 0), (8, 7, 0), (10, 50, 8), (50, 8, 0), (60, 50, 0)]


def test_a_run_that_begins_with_a_step_of_the_users_is_not_shifted(store: Store) -> None:
    """Who numbers the first event keeps the numbering."""
    store.ingest((TOKEN, [Process(run=f"{TOKEN}-1").line("error", 7)]))
    process = Process(OTHER, run=f"{OTHER}-1")
    store.ingest((OTHER, [process.line("error", 20, given=["stepId"]), process.line("error", 21, 20)]))

    assert numbers(store) == [(7, None, 0), (20, None, 0), (21, 20, 0)]


def test_records_without_a_run_are_never_shifted(store: Store) -> None:
    """A trace id that was made up does not come back."""
    store.ingest((TOKEN, tool_call(Process())))
    store.ingest((OTHER, tool_call(Process(OTHER))))

    assert sorted(numbers(store)) == [(1, None, 0), (1, None, 0), (2, 1, 1), (2, 1, 1)]


@pytest.mark.parametrize("trace", ['say "stepId":1', "back\\slash\\", 'both \\" and \\\\', "ünï ✓ 日本"])
def test_a_trace_id_of_any_characters_is_renumbered(store: Store, trace: str) -> None:
    """Quotes and backslashes in an id do not confuse the numbers behind it."""
    content = {"note": '"stepId":1,"parentStepId":1,"within":1'}
    for token in (TOKEN, OTHER):
        process = Process(token, trace=trace, run=f"{token}-1")
        store.ingest(
            (token, [process.line("error", 1), process.line("error", 2, 1, within=1, content=content)])
        )

    assert numbers(store, trace) == [(1, None, 0), (2, 1, 1), (3, 2, 0), (4, 3, 3)]
    assert [event["content"] for event in store.events(trace)] == [{}, content, {}, content]


def test_local_records_are_shifted_with_their_run(store: Store) -> None:
    """The end of a step names the same step as its beginning, whatever the shift."""
    for token in (TOKEN, OTHER):
        process = Process(token, run=f"{token}-1")
        store.ingest(
            (
                token,
                [
                    process.line("llm_thinking", 1, metadata={"step": "plan"}),
                    process.line("step_end", 1, metadata={"step": "plan"}),
                    process.line("trace_end", 1, 1, end=True),
                ],
            )
        )
    process = Process("cccccccccccc", run="cccccccccccc-1")
    store.ingest((TOKEN, [process.line("trace_end", 0, end=True)]))

    assert [(event["eventType"], event["stepId"]) for event in store.events("checkout-8841")] == [
        ("llm_thinking", 1),
        ("step_end", 1),
        ("trace_end", 1),
        ("llm_thinking", 2),
        ("step_end", 2),
        ("trace_end", 2),
        ("trace_end", 0),
    ]


def test_a_record_in_another_order_that_would_have_to_be_renumbered_is_left_out(
    store: Store, said: Callable[[], list[str]]
) -> None:
    """Such a line was not written by a recorder; nobody guesses where its numbers are."""
    store.ingest((TOKEN, [Process(run=f"{TOKEN}-1").line("error", 1)]))
    event = Process(OTHER, run=f"{OTHER}-1").event("error", 1)
    strange = encoded(dict(reversed(event.items())))

    assert store.ingest((OTHER, [strange])) == [False]
    assert numbers(store) == [(1, None, 0)]
    assert said()[0].startswith("Left out a record of unknown form")


def test_the_turn_that_asked_for_a_call_is_shifted_with_its_run(store: Store) -> None:
    """It is the step of an answer, and counts on with all others; before the first step there is none."""
    asked = {"requestedBy": 2, "tool": "charge_card"}
    for token in (TOKEN, OTHER):
        process = Process(token, run=f"{token}-1")
        lines = [process.line("user_message", 1), process.line("llm_response", 2, 1)]
        store.ingest((token, [*lines, process.line("tool_call_request", 3, 2, metadata=asked)]))

    assert [event["metadata"].get("requestedBy") for event in store.events("checkout-8841")] == [
        *(None, None, 2),
        *(None, None, 5),
    ]


def test_a_record_for_this_machine_alone_is_stored_like_any_other(store: Store) -> None:
    """Also the one that ends its trace."""
    process = Process()
    lines = [process.line("error", 1), process.line("trace_end", 1, 1, end=True)]
    lines[0] = lines[0].removesuffix(b"}") + b',"for":"local"}'
    lines[1] = lines[1].replace(b',"end":true}', b',"for":"local","end":true}')

    assert store.ingest((TOKEN, lines)) == [True, True]
    assert [line.encode() for line in store.lines("checkout-8841")] == lines
    assert store.trace("checkout-8841").ended


# Summaries


def test_a_summary_of_everything(store: Store) -> None:
    """Counts, tokens, times, the question and the answer of a trace of every kind of event."""
    process = Process()
    usage = {"promptTokens": 40, "completionTokens": 60, "cacheReadTokens": 800, "cacheCreationTokens": 5}
    about = {"trace": {"metadata": {"order": 8841}, "tags": ["vip", 3]}}
    messages = [
        {"role": "system", "content": "Be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "My order\n 8841"}, {"type": "image"}, "is late"],
        },
        {"role": "assistant", "content": "Let me see"},
    ]
    store.ingest(
        (
            TOKEN,
            [
                process.line("user_message", 1, content={"messages": messages}, metadata=about, at=1000),
                process.line(
                    "llm_response", 2, 1, metadata={"usage": usage}, content={"toolCalls": []}, at=1100
                ),
                *tool_call(process, 3, 2, at=1200),
                process.line(
                    "error", 5, 2, content={"type": "ValueError", "message": "no such order"}, at=1300
                ),
                process.line("embedding_response", 6, 2, metadata={"usage": {"totalTokens": 7}}, at=1350),
                process.line("user_message", 7, 2, content={"messages": messages[:1]}, at=1400),
                process.line(
                    "llm_response",
                    8,
                    7,
                    metadata={"usage": usage},
                    content={"content": "Refunded " * 50},
                    at=1500,
                ),
                process.line("trace_end", 1, 1, metadata={"latencyMs": 900}, at=1500, end=True),
            ],
        )
    )
    summary = store.trace("checkout-8841")

    assert msgspec.structs.asdict(summary) == {
        "trace_id": "checkout-8841",
        "tags": ["vip"],
        "metadata": {"order": 8841},
        "agent_name": "shop",
        "external_user_id": None,
        "started_at": "2026-11-21T22:30:00.600Z",
        "last_at": "2026-11-21T22:30:01.500Z",
        "event_count": 8,
        "tool_calls": 1,
        "llm_responses": 2,
        "errors": 1,
        "prompt_tokens": 87,
        "completion_tokens": 120,
        "cache_read_tokens": 1600,
        "cache_creation_tokens": 10,
        "asked": "My order 8841 is late",
        "ended_with": ("Refunded " * 50)[:119] + "…",
        "failed": False,
        "ended": True,
        "repeated": 1,
        "open_calls": 0,
        "forgotten": 0,
        "said_failed": 0,
        "ending": "answer",
        "running": False,
        "cost": None,
        "scores": [],
    }
    assert store.traces() == [summary]


@pytest.mark.parametrize(
    ("events", "errors", "ended_with", "failed"),
    [
        ([("error", {"message": "boom"}, {})], 1, "boom", True),
        ([("error", {"message": "boom"}, {}), ("llm_response", {"content": "ok"}, {})], 1, "ok", False),
        ([("error", {"message": "boom"}, {}), ("trace_end", {}, {})], 1, "boom", True),
        ([("error", {"message": "boom"}, {"tool": "look"}), ("trace_end", {}, {})], 1, "", False),
        ([("step_end", {"error": {}}, {"outcome": "error"})], 1, "", False),
        ([("step_end", {}, {})], 0, "", False),
        ([("trace_end", {"error": {"type": "E", "message": "m"}}, {"outcome": "error"})], 1, "E: m", True),
        ([("trace_end", {}, {"outcome": "cancelled"})], 0, "", False),
        ([("tool_call_response", {"toolResults": {"error": {"message": "no"}}}, {})], 1, "no", True),
        ([("tool_call_response", {"toolResults": {"error": {"message": "no"}, "id": 1}}, {})], 0, "", False),
        ([("tool_call_response", {"toolResults": {"error": "no"}}, {})], 0, "", False),
        ([("tool_call_response", {"toolResults": [1]}, {})], 0, "", False),
    ],
)
def test_how_a_trace_ended(
    store: Store, events: list[tuple[str, Any, Any]], errors: int, ended_with: str, failed: bool
) -> None:
    """Errors are counted where they are reported; a failure that nothing reported counts as one."""
    process = Process()
    lines = [
        process.line(kind, step, content=content, metadata=metadata)
        for step, (kind, content, metadata) in enumerate(events, 1)
    ]
    store.ingest((TOKEN, lines))
    summary = store.trace("checkout-8841")

    assert (summary.errors, summary.ended_with, summary.failed) == (errors, ended_with, failed)


def test_a_trace_runs_until_it_ends_or_its_process_does(store: Store) -> None:
    """Whether more may come is known from the trace's end, and from that of the process that wrote last."""
    first, second = Process(run=f"{TOKEN}-1"), Process(OTHER, run=f"{OTHER}-1")

    def state() -> tuple[bool, bool]:
        summary = store.trace("checkout-8841")
        return summary.ended, summary.running

    store.ingest((TOKEN, [first.line("error", 1)]))
    states = [state()]
    store.ingest((TOKEN, [first.line("trace_end", 1, end=True)]))
    states.append(state())
    store.ingest((OTHER, [second.line("error", 1)]))
    states.append(state())
    store.process_ended(OTHER)
    store.process_ended(OTHER)
    states.append(state())

    assert states == [(False, True), (True, False), (False, True), (False, False)]
    assert store.ended_processes() == {OTHER}


def test_the_columns_of_the_table_are_those_of_the_summary(store: Store) -> None:
    """Summaries are written by position: the table and the class have to agree."""
    store.process_ended(TOKEN)
    with sqlite3.connect(store.path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(traces)")]
    connection.close()

    assert [*columns[5:-6], *columns[-3:]] == list(TraceSummary.__struct_fields__[:-3])


# Costs


def answer(process: Process, step: int, usage: Any = USAGE, model: Any = "gpt-4o", **about: Any) -> bytes:
    """Return the answer of a model."""
    metadata = {"model": model, "provider": "openai", "usage": usage, **about}
    return process.line("llm_response", step, metadata=metadata)


def price(usage: dict[str, int], model: str = "gpt-4o") -> Decimal:
    """Return what a turn costs, which has a figure."""
    amount = cost(model, "openai", usage, START)
    assert amount is not None
    return amount


def test_a_trace_costs_what_its_turns_cost(store: Store) -> None:
    """Each by its own model and tokens; what is no turn costs nothing."""
    process = Process()
    embedding = {**EMBEDDING, "usage": {"totalTokens": 700}}
    store.ingest((TOKEN, [answer(process, 1), answer(process, 2, model="o3"), *tool_call(process, 3)]))
    store.ingest((TOKEN, [process.line("embedding_response", 5, metadata=embedding)]))
    parts = [price(USAGE), price(USAGE, "o3"), price({"totalTokens": 700}, "text-embedding-3-small")]
    summary = store.trace("checkout-8841")

    assert all(parts)
    assert summary.cost == float(sum(parts))
    assert store.traces() == [summary]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-4o-of-tomorrow"},
        {"usage": None},
        {"usage": {}},
        {"usage": {"promptTokens": "7", "completionTokens": 7}},
        {"usage": {"promptTokens": 2**70, "completionTokens": 7}},
        {"provider": "unknown"},
    ],
)
def test_a_turn_without_a_price_leaves_its_trace_without(store: Store, other: dict[str, Any]) -> None:
    """What is left out of a sum does not show; another trace has its own."""
    process, cheap = Process(), Process(trace="cheap")
    store.ingest((TOKEN, [answer(process, 1), answer(process, 2, **other), answer(cheap, 1)]))

    assert {summary.trace_id: summary.cost for summary in store.traces()} == {
        "checkout-8841": None,
        "cheap": float(price(USAGE)),
    }


def test_a_turn_around_another_costs_nothing(store: Store) -> None:
    """It has no tokens of its own: the one in it has them."""
    process = Process()
    store.ingest((TOKEN, [answer(process, 1), answer(process, 2, None, wraps=True)]))

    assert store.trace("checkout-8841").cost == float(price(USAGE))


def test_a_trace_without_turns_has_no_cost(store: Store) -> None:
    """Not one of nothing either: it would fill a column."""
    store.ingest((TOKEN, tool_call(Process())))

    assert store.trace("checkout-8841").cost is None


def test_a_turn_that_comes_twice_is_paid_once(store: Store) -> None:
    """And one that is deleted is forgotten."""
    lines = [answer(Process(), 1)]
    store.ingest((TOKEN, lines))
    store.ingest((TOKEN, [*lines, *lines]))
    once = store.trace("checkout-8841").cost
    store.delete("checkout-8841")
    store.ingest((TOKEN, tool_call(Process())))

    assert once == float(price(USAGE))
    assert store.trace("checkout-8841").cost is None


def test_the_turns_of_a_trace_are_found_without_its_records(store: Store) -> None:
    """They are priced each time, so a page of long traces has to be read from an index alone."""
    store.ingest((TOKEN, [answer(Process(), 1)]))
    with sqlite3.connect(store.path) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT ({_TURNS_OF_TRACE}) FROM traces").fetchall()
    connection.close()

    assert "SEARCH turns USING PRIMARY KEY (trace=?)" in [row[3] for row in plan]


# Finding traces


def test_traces_are_listed_newest_first_and_page_by_page(store: Store) -> None:
    """The newest trace is the one that was recorded on last."""
    for at, trace in ((3, "c"), (1, "a"), (2, "b")):
        store.ingest((TOKEN, [Process(trace=trace).line("error", 1, at=at)]))

    assert [summary.trace_id for summary in store.traces()] == ["c", "b", "a"]
    assert [summary.trace_id for summary in store.traces(limit=1, after="c")] == ["b"]
    assert [summary.trace_id for summary in store.traces(after="b")] == ["a"]
    assert store.traces(after="a") == []
    with pytest.raises(TraceNotFoundError, match="'d'"):
        store.traces(after="d")
    assert store.resolve("latest") == "c"


def test_a_trace_is_found_by_a_beginning_of_its_id(store: Store) -> None:
    """An exact id wins over a beginning, and a beginning has to be of one id only."""
    store.ingest((TOKEN, [Process(trace=trace).line("error", 1) for trace in ("a", "a%c", "abc", "latest")]))

    assert store.resolve("a") == "a"
    assert store.resolve("ab") == "abc"
    assert store.resolve("a%") == "a%c"
    assert store.resolve("latest") == "latest"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("order", "5 traces begin with 'order': 'order-1', 'order-2', 'order-3', 'order-4', 'order-5'."),
        ("o", "6 traces begin with 'o': 'offer', 'order-1', 'order-2', 'order-3', 'order-4', ...."),
        ("ordr-1", "There is no trace 'ordr-1': did you mean 'order-1'"),
        ("xyz\x1b[31m", "There is no trace 'xyz\\x1b[31m': whyops-trace ls lists what there is."),
        ("", "There is no trace '': whyops-trace ls lists what there is."),
    ],
)
def test_a_trace_that_is_not_found_says_what_to_type(store: Store, name: str, message: str) -> None:
    """The error lists what could have been meant."""
    ids = ["order-5", "order-4", "order-3", "order-2", "order-1", "offer"]  # the last one is the newest
    store.ingest((TOKEN, [Process(trace=trace).line("error", 1) for trace in ids]))

    with pytest.raises(TraceNotFoundError) as caught:
        store.resolve(name)

    assert str(caught.value).startswith(message)


def test_a_trace_that_does_not_exist(store: Store) -> None:
    """Asking for its summary or deleting it is an error; it has no events."""
    for call in (store.trace, store.delete):
        with pytest.raises(TraceNotFoundError, match="There is no trace 'nope'"):
            call("nope")

    assert store.events("nope") == []


def test_reading_a_store_that_does_not_exist_makes_none(store: Store) -> None:
    """Looking is not making."""
    assert store.traces() == []
    assert store.events("a") == []
    assert store.ended_processes() == set()
    assert store.prune() == 0
    with pytest.raises(TraceNotFoundError, match="There are no traces yet"):
        store.resolve("latest")
    assert not store.path.parent.exists()


# Forgetting


def test_a_deleted_trace_is_gone_and_may_come_back(store: Store) -> None:
    """Nothing of it is left, its numbering included; other traces stay."""
    lines = tool_call(Process(run=f"{TOKEN}-1"))
    store.ingest((TOKEN, [*lines, Process(trace="other").line("error", 1)]))
    store.delete("checkout-8841")

    assert [summary.trace_id for summary in store.traces()] == ["other"]
    assert store.events("checkout-8841") == []
    store.ingest((OTHER, tool_call(Process(OTHER, run=f"{OTHER}-1"))))
    assert numbers(store) == [(1, None, 0), (2, 1, 1)]


def test_old_traces_are_pruned(store: Store, clock: ManualClock) -> None:
    """Traces go when nothing was written to them for so long, however old what they tell of is."""
    store.ingest((TOKEN, [Process(trace=trace, run="r").line("error", 1) for trace in ("old", "again")]))
    store.process_ended(TOKEN)
    clock.advance(100)
    store.ingest(
        (OTHER, [Process(OTHER, trace=trace, run="s").line("error", 1) for trace in ("again", "new")])
    )

    clock.advance(1)
    assert store.prune(max_age_seconds=100) == 0
    store.ingest((OTHER, [Process(OTHER, trace="newer").line("error", 1)]))
    clock.advance(15)
    assert store.prune(max_age_seconds=100) == 1
    assert {summary.trace_id for summary in store.traces()} == {"again", "new", "newer"}
    assert numbers(store, "again") == [(1, None, 0), (2, 1, 0)]
    # The process may have left a call open in the trace that came back.
    assert store.ended_processes() == {TOKEN}
    clock.advance(200)
    store.ingest((OTHER, [Process(OTHER, trace="last", run="s").line("error", 1)]))
    clock.advance(15)
    assert store.prune(max_age_seconds=100) == 3
    assert store.ended_processes() == set()


def test_one_wrong_reading_of_the_clock_deletes_nothing(store: Store, clock: ManualClock) -> None:
    """A clock that jumps ahead is believed when it has gone on from there, one that is behind is not believed."""

    def records(trace: str) -> None:
        store.ingest((TOKEN, [Process(trace=trace, run=trace).line("error", 1)]))

    records("a")
    clock.advance(100_000)
    records("b")
    assert store.prune(max_age_seconds=100) == 0
    clock.advance(-100_050)
    assert store.prune(max_age_seconds=100) == 0
    with pytest.raises(StoreError, match="by the clock of this machine: nothing is deleted for its age"):
        store.check_clock()
    records("c")
    clock.advance(100_100)
    store.check_clock()
    assert store.prune(max_age_seconds=100) == 1
    assert {summary.trace_id for summary in store.traces()} == {"b", "c"}


def test_a_trace_whose_beginning_was_pruned_says_so(store: Store, clock: ManualClock) -> None:
    """What was deleted for its age or for room is counted when the trace goes on, and not if somebody deleted it."""

    def records(trace: str, step: int) -> None:
        store.ingest((TOKEN, [Process(trace=trace).line("error", step)]))

    for step, trace in enumerate(("a", "b", "a", "a"), 1):
        records(trace, step)
    store.prune(max_bytes=0)
    records("a", 5)
    records("b", 6)
    store.prune(max_bytes=0)
    records("a", 7)
    store.delete("a")
    records("a", 8)
    records("b", 9)

    assert {summary.trace_id: summary.forgotten for summary in store.traces()} == {"a": 0, "b": 2}
    assert store.trace("a").beginning == ""
    assert store.trace("b").beginning == (
        "The beginning is missing: 2 earlier events went with the limits of the store."
    )


def test_a_store_that_is_too_large_forgets_the_oldest_traces(store: Store, clock: ManualClock) -> None:
    """What goes makes room for a tenth, and the file gets smaller."""
    for n in range(120):
        clock.advance(1)
        message = random.Random(n).randbytes(10_000).hex()  # of which compression saves half
        store.ingest((TOKEN, [Process(trace=f"t{n:03}").line("error", 1, content={"message": message})]))
    store.close()
    size = store.path.stat().st_size
    deleted = store.prune(max_bytes=size // 2)
    store.close()

    assert store.path.stat().st_size <= size // 2 * 9 // 10 + 8192
    assert 60 < deleted < 90
    assert [summary.trace_id for summary in store.traces(limit=200)] == [
        f"t{n:03}" for n in reversed(range(deleted, 120))
    ]
    assert store.prune(max_bytes=0) == 120 - deleted
    assert store.traces() == []


# The file


def test_only_the_owner_can_read_the_store(store: Store) -> None:
    """Traces hold what users said, whatever the umask is."""
    before = os.umask(0)
    try:
        store.process_ended(TOKEN)
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert modes == {"traces.db": 0o600, "traces.db-wal": 0o600, "traces.db-shm": 0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_store_is_used_again_after_it_was_closed(store: Store) -> None:
    """Closing lets go of the file; there is no end to a store."""
    first, second = tool_call(Process())
    store.ingest((TOKEN, [first]))
    store.close()
    store.close()
    store.ingest((TOKEN, [second]))

    assert len(store.events("checkout-8841")) == 2
    assert repr(store) == f"<Store {str(store.path)!r}>"


def test_a_program_that_ends_closes_its_store(tmp_path: Path) -> None:
    """Its log is in the file itself then, and Python 3.13 does not warn of a connection that nobody closed."""
    done = run_code(
        """
        from whyops_trace import trace
        with trace("t") as one:
            one.error_sync("x")
        """,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.glob("traces.db*")} == {"traces.db"}


def test_a_store_that_was_deleted_while_open_is_made_again(store: Store) -> None:
    """What is recorded after somebody cleaned up the home is not written to a file without a name."""
    store.ingest((TOKEN, [Process(trace="before").line("error", 1)]))
    for path in store.path.parent.iterdir():
        path.unlink()
    store.ingest((TOKEN, [Process(trace="after").line("error", 1)]))
    store.close()

    assert [summary.trace_id for summary in store.traces()] == ["after"]


@pytest.mark.parametrize(
    "content", [b"junk", b"not a database " * 1000, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_file_that_is_no_store_is_set_aside(store: Store, content: bytes) -> None:
    """The error names the file that is kept; nothing is deleted, and new records go on."""
    store.path.parent.mkdir()
    calls = (lambda: store.process_ended(TOKEN), store.traces, store.prune, lambda: store.ingest((TOKEN, [])))
    for call in calls:
        store.path.write_bytes(content)
        with pytest.raises(
            StoreError, match=r"traces\.db is damaged, or no store at all \(.*\)\. It is kept as .*\.bad, and"
        ):
            call()
        store.ingest((TOKEN, tool_call(Process())))
        assert len(store.events("checkout-8841")) == 2
        store.close()

    aside = sorted(path for path in store.path.parent.iterdir() if path.suffix == ".bad")
    names = ["traces.db.1.bad", "traces.db.2.bad", "traces.db.3.bad", "traces.db.bad"]
    assert [path.name for path in aside] == names
    assert {path.read_bytes() for path in aside} == {content}


def test_a_directory_in_the_place_of_a_store_is_set_aside(store: Store) -> None:
    """Likewise."""
    store.path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"It is kept as .*traces\.db\.bad"):
        store.traces()

    assert store.traces() == []
    assert store.path.with_name("traces.db.bad").is_dir()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the schema is no text": lambda data: data.replace(b"CREATE TABLE", b"CREATE TABL\xd6"),
    "the format is none": lambda data: data[:60] + bytes(4) + data[64:],
    "the format is absurd": lambda data: data[:60] + b"\x7f" + data[61:],
    "a table is lost": lambda data: data.replace(b"turnsturns", b"turnsturnX"),
    "it is cut": lambda data: data[:9000],
    "the row of a trace is no text": lambda data: data.replace(b"{}shop", b"{}sh\xffp"),
    "the row of a trace is no JSON": lambda data: data.replace(b"[]{}", b"[}{]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_set_aside(store: Store, damage: str) -> None:
    """Whatever of it is damaged, one error says so, the file is kept, and a new one takes what comes."""
    store.ingest((TOKEN, tool_call(Process())))
    store.close()
    whole = store.path.read_bytes()
    damaged = DAMAGES[damage](whole)
    store.path.write_bytes(damaged)

    assert damaged != whole
    with pytest.raises(StoreError, match=r"It is kept as .*traces\.db\.bad"):
        store.traces()
    assert store.path.with_name("traces.db.bad").read_bytes() == damaged
    store.ingest((TOKEN, tool_call(Process(trace="new"))))
    assert [summary.trace_id for summary in store.traces()] == ["new"]


def test_a_damaged_store_is_set_aside_while_it_is_written_to(store: Store) -> None:
    """The row of a trace that goes on cannot be understood."""
    store.ingest((TOKEN, tool_call(Process())))
    store.close()
    store.path.write_bytes(store.path.read_bytes().replace(b"[]{}", b"[}{]"))
    batch = (OTHER, tool_call(Process(OTHER, run="r")))
    with pytest.raises(StoreError, match=r"It is kept as .*traces\.db\.bad"):
        store.ingest(batch)

    assert store.ingest(batch) == [True, True]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (f"UPDATE traces SET last_step = {2**63 - 1}", "too large"),
        (
            "CREATE TRIGGER refuse BEFORE INSERT ON records WHEN new.key LIKE '%-odd'"
            " BEGIN SELECT RAISE(ABORT, 'too odd'); END",
            "too odd",
        ),
    ],
)
def test_a_record_that_cannot_be_stored_is_left_out(
    store: Store, said: Callable[[], list[str]], statement: str, reason: str
) -> None:
    """Those around it are stored, in their order, and the store stays where it is."""
    store.ingest((TOKEN, tool_call(Process(run=f"{TOKEN}-1"))))
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(statement)
    others = [Process(OTHER, trace=f"t{number}").line("error", 1) for number in range(9)]
    odd = Process(OTHER, run=f"{OTHER}-1").event("error", 1) | {"idempotencyKey": f"{OTHER}-odd"}
    batch = (OTHER, [*others[:4], encoded(odd), *others[4:]])

    assert store.ingest(batch) == [each != 4 for each in range(10)]
    assert store.ingest(batch) == [each != 4 for each in range(10)]
    assert [trace.trace_id for trace in store.each()] == ["checkout-8841", *(f"t{each}" for each in range(9))]
    assert len(store.events("checkout-8841")) == 2
    assert [path.suffix for path in store.path.parent.glob("*.bad")] == []
    assert len(said()) == 1
    assert said()[0].startswith("Left out what cannot be stored")
    assert reason in said()[0]


def test_numbers_that_nobody_can_read_are_shown_as_they_stand(store: Store) -> None:
    """A whole number may have more digits than Python reads, in a record or in a message that records share."""
    long = "9" * 5_000
    line = Process().line(
        "user_message", 1, content={"n": "N", "messages": [{"role": "user", "content": "N"}] * 9}
    )
    assert store.ingest((TOKEN, [line.replace(b'"N"', long.encode())])) == [True]
    content = store.events("checkout-8841")[0]["content"]

    assert content == {"n": long, "messages": [{"role": "user", "content": long}] * 9}
    assert store.trace("checkout-8841").event_count == 1


@pytest.mark.parametrize("latency", [10**400, 1e308, 10**30])
def test_a_latency_beyond_all_time_is_none(store: Store, latency: float) -> None:
    """The trace is shown, with the times that its records have."""
    process = Process()
    request, response = tool_request(process, 1), tool_response(process, 2, 1, about={"latencyMs": latency})
    store.ingest((TOKEN, [encoded(request), encoded(response)]))
    (node,) = build(store.events("checkout-8841")).nodes

    assert node.latency_ms is not None
    assert node.latency_ms < 1e6


@pytest.mark.parametrize("line", ["X'ff00'", "CAST(X'ff' AS TEXT)", "'[1'", "3"])
def test_a_damaged_record_is_said_with_its_trace(store: Store, line: str) -> None:
    """The other traces stay as they are, and so does the store."""
    store.ingest((TOKEN, [*tool_call(Process()), *tool_call(Process(trace="other"))]))
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE records SET line = {line} WHERE id = 1")
    reads: list[Callable[[str], object]] = [store.events, lambda trace: store.event(trace, 1)]
    for read in reads:
        with pytest.raises(
            StoreError,
            match=r"(?s)A record of the trace 'checkout-8841' in .* is damaged \(.*\): `whyops-trace rm",
        ):
            read("checkout-8841")

    assert len(store.events("other")) == len(store.traces()) == 2
    store.delete("checkout-8841")
    assert [summary.trace_id for summary in store.traces()] == ["other"]


def test_a_store_that_another_process_made_meanwhile_is_not_set_aside(store: Store) -> None:
    """Two processes found the damage, and one of them was faster."""
    store.ingest((TOKEN, tool_call(Process())))
    with pytest.raises(StoreError, match="has taken its place"), store._database.session() as connection:
        for path in list(store.path.parent.iterdir()):
            path.rename(path.with_name(path.name.replace("traces", "damaged")))
        with contextlib.closing(Store(store.path)) as other:
            other.ingest((TOKEN, tool_call(Process(trace="new"))))
        connection.execute("SELECT * FROM none")

    assert [summary.trace_id for summary in store.traces()] == ["new"]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "PRAGMA user_version = 11",
            r"traces\.db is a store of format 11 .*: upgrade it with pip install -U",
        ),
        ("CREATE TABLE notes (text)", r"traces\.db is the database of another program: move it away"),
    ],
)
def test_a_store_of_somebody_else_is_left_alone(store: Store, statement: str, message: str) -> None:
    """A newer version's store, and another program's database, are not touched."""
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute(statement)
    connection.close()
    content = store.path.read_bytes()

    for call in (lambda: store.process_ended(TOKEN), store.traces):
        with pytest.raises(StoreError, match=message):
            call()
    assert store.path.read_bytes() == content


FORMAT_1 = """
CREATE TABLE traces (
    id INTEGER PRIMARY KEY, last_step INTEGER NOT NULL, process TEXT NOT NULL, made_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL, trace_id TEXT NOT NULL UNIQUE, tags TEXT NOT NULL, metadata TEXT NOT NULL,
    agent_name TEXT NOT NULL, external_user_id TEXT, started_at TEXT NOT NULL, last_at TEXT NOT NULL,
    event_count INTEGER NOT NULL, tool_calls INTEGER NOT NULL, llm_responses INTEGER NOT NULL,
    errors INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_creation_tokens INTEGER NOT NULL, asked TEXT NOT NULL,
    ended_with TEXT NOT NULL, failed INTEGER NOT NULL, ended INTEGER NOT NULL
);
CREATE INDEX traces_by_time ON traces (last_at);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, trace INTEGER NOT NULL, step INTEGER NOT NULL, parent INTEGER,
    within INTEGER NOT NULL, type TEXT NOT NULL, span TEXT, timestamp TEXT NOT NULL, key TEXT NOT NULL,
    payload TEXT NOT NULL
);
CREATE UNIQUE INDEX events_by_key ON events (trace, key);
CREATE TABLE runs (
    run TEXT NOT NULL, trace INTEGER NOT NULL, shift INTEGER NOT NULL, PRIMARY KEY (run, trace)
) WITHOUT ROWID;
CREATE INDEX runs_by_trace ON runs (trace);
CREATE TABLE processes (token TEXT PRIMARY KEY, ended_at INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO traces SELECT
    id, last_step, process, made_at, stored_at, trace_id, tags, metadata, agent_name, external_user_id, started_at,
    last_at, event_count, tool_calls, llm_responses, errors, prompt_tokens, completion_tokens, cache_read_tokens,
    cache_creation_tokens, asked, ended_with, failed, ended
FROM new.traces;
INSERT INTO events SELECT id, trace, step, parent, within, type, span, timestamp, key, payload FROM latest;
INSERT INTO runs SELECT * FROM new.runs;
INSERT INTO processes SELECT * FROM new.processes;
PRAGMA user_version = 1;
"""
FORMAT_2 = """
ALTER TABLE events ADD COLUMN turn TEXT;
UPDATE events SET turn = (SELECT turn FROM new.turns WHERE record = main.events.id);
CREATE INDEX turns ON events (trace, turn) WHERE turn IS NOT NULL;
PRAGMA user_version = 2;
"""
FORMAT_3 = """
ALTER TABLE traces ADD COLUMN repeated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN open_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN last_call INTEGER;
ALTER TABLE traces ADD COLUMN alike INTEGER NOT NULL DEFAULT 0;
UPDATE traces SET (repeated, open_calls, last_call, alike) = (
    SELECT repeated, open_calls, last_call, alike FROM new.traces WHERE new.traces.id = main.traces.id
);
CREATE TABLE deleted AS SELECT trace, event FROM new.deleted;
CREATE TABLE agents AS SELECT * FROM new.agents;
PRAGMA user_version = 3;
"""
FORMAT_4 = """
ALTER TABLE traces ADD COLUMN ongoing TEXT;
UPDATE traces SET ongoing = (SELECT ongoing FROM new.traces WHERE new.traces.id = main.traces.id);
PRAGMA user_version = 4;
"""
#: Formats before today's that a store may have, but for that of one whose upgrade was interrupted.
EARLIER = [1, 2, 3, 4]


def to_earlier_format(store: Store, number: int) -> list[Any]:
    """Put a store of an earlier format in its place, and return what is in it."""
    store.close()
    before = content_of(store.path)
    new = store.path.rename(store.path.with_name("new.db"))
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("ATTACH ? AS new", (str(new),))
        connection.execute(f"CREATE TEMP TABLE latest AS SELECT {COLUMNS}, '' AS payload FROM new.records")
        lines = [(line, number) for number, line in before[0]]
        connection.executemany("UPDATE latest SET payload = ? WHERE id = ?", lines)
        connection.executescript("".join((FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4)[:number]))
    return before


def old_store(store: Store, turns: int = 5, number: int = 1) -> list[Any]:
    """Make a store of an earlier format, with turns of a model and a tool call; return what is in it."""
    process = Process(run=f"{TOKEN}-1")
    odd = Process(trace="odd")
    lines = [answer(process, step) for step in range(1, turns + 1)]
    tokens = {**EMBEDDING, "usage": {"totalTokens": 7}}
    embedding = process.line("embedding_response", 60, metadata=tokens)
    store.ingest((TOKEN, [*lines, *tool_call(process, 50), embedding]))
    store.ingest(
        (TOKEN, [answer(odd, 1), answer(odd, 2, usage="many", model=[1]), odd.line("llm_response", 3)])
    )
    store.process_ended(OTHER)
    return to_earlier_format(store, number)


@pytest.mark.parametrize("number", EARLIER)
def test_a_store_of_an_earlier_format_is_brought_up_to_date(store: Store, number: int) -> None:
    """Nothing of it changes, and what its turns cost is known of those that were there and of new ones."""
    before = old_store(store, number=number)
    costs = {summary.trace_id: summary.cost for summary in store.traces()}
    store.ingest((OTHER, [answer(Process(OTHER, run=f"{OTHER}-1"), 1)]))
    after = store.trace("checkout-8841").cost
    store.delete("checkout-8841")
    amount = 5 * price(USAGE) + price({"totalTokens": 7}, EMBEDDING["model"])

    assert content_of(store.path.with_name("new.db")) == before
    assert costs == {"checkout-8841": float(amount), "odd": None}
    assert after == float(amount + price(USAGE))
    assert store.trace("odd").event_count == 3


def to_format_7(store: Store) -> None:
    """Make a store one of format 7, with what it holds."""
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("ALTER TABLE traces DROP COLUMN said_failed")
        connection.execute("ALTER TABLE traces DROP COLUMN ending")
        connection.execute("DROP TABLE scores")
        connection.execute("PRAGMA user_version = 7")


def test_a_store_of_format_6_is_brought_up_to_date(store: Store) -> None:
    """It did not know which traces have lost their beginning."""
    store.ingest((TOKEN, tool_call(Process())))
    store.close()
    before = content_of(store.path)
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("ALTER TABLE traces DROP COLUMN said_failed")
        connection.execute("ALTER TABLE traces DROP COLUMN ending")
        connection.execute("ALTER TABLE traces DROP COLUMN forgotten")
        connection.execute("DROP TABLE forgotten")
        connection.execute("DROP TABLE scores")
        connection.execute("PRAGMA user_version = 6")

    assert store.trace("checkout-8841").forgotten == 0
    assert content_of(store.path) == before


def test_a_store_of_format_7_is_brought_up_to_date(store: Store) -> None:
    """It did not know which calls say that they failed."""
    process = Process()
    request, _ = tool_call(process)
    said = process.line(
        "tool_call_response", 2, 1, content={"toolResults": {"result": "Error: no such order"}}
    )
    store.ingest((TOKEN, [request, said]))
    counted = store.trace("checkout-8841").said_failed
    store.close()
    before = content_of(store.path)
    to_format_7(store)

    assert store.trace("checkout-8841").said_failed == counted == 1
    assert content_of(store.path) == before


@pytest.mark.parametrize("line", ["X'ff00'", "CAST(X'ff' AS TEXT)", "'[1'", "3"])
def test_a_damaged_record_holds_up_no_upgrade(store: Store, line: str) -> None:
    """The other records tell how their traces ended, and the damaged one is said when its trace is read."""
    process = Process()
    request, _ = tool_call(process)
    said = process.line(
        "tool_call_response", 2, 1, content={"toolResults": {"result": "Error: no such order"}}
    )
    store.ingest((TOKEN, [*tool_call(Process(trace="damaged")), request, said]))
    to_format_7(store)
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE records SET line = {line} WHERE id = 2")

    assert [each.said_failed for each in store.traces()] == [1, 0]
    with pytest.raises(StoreError, match="A record of the trace 'damaged' in"):
        store.events("damaged")


@pytest.mark.parametrize("line", ["X'ff00'", "CAST(X'ff' AS TEXT)", "'[1'", "3"])
def test_a_trace_with_a_damaged_record_goes_on(store: Store, line: str) -> None:
    """In a store that did not keep which of its calls are open, they are read from the other records."""
    process = Process()
    store.ingest((TOKEN, [*tool_call(process), encoded(tool_request(process, 3))]))
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE records SET line = {line} WHERE id = 2")
        connection.execute("UPDATE traces SET ongoing = NULL")
    store.ingest((TOKEN, [encoded(tool_response(process, 4, 3))]))

    assert store.trace("checkout-8841").open_calls == 1


@pytest.mark.parametrize("number", EARLIER)
def test_what_an_earlier_format_held_is_all_there(store: Store, number: int) -> None:
    """Row by row, in the tables of a store made today."""
    before = old_store(store, number=number)
    store.traces()
    store.close()

    assert content_of(store.path) == before


def test_a_payload_that_is_no_json_is_brought_along(store: Store) -> None:
    """It has no price, and neither has its trace."""
    old_store(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE events SET payload = '{' WHERE id IN (2, 6)")
        connection.execute("UPDATE events SET payload = '{\x01' WHERE id = 3")
        before = connection.execute("SELECT id, payload FROM events ORDER BY 1").fetchall()
    connection.close()

    assert store.trace("checkout-8841").cost is None
    assert store.trace("checkout-8841").repeated == 1
    assert content_of(store.path)[0] == before


def test_a_summary_stays_small_whatever_a_trace_says_of_itself(store: Store) -> None:
    """Every list reads it: of many tags the first are kept, and metadata that would make it large is not."""
    process = Process()
    abouts = [
        {"tags": [f"t{number}" for number in range(150)], "metadata": {"order": 8841}},
        {"tags": ["more"], "metadata": {"x" * 70_000: 1}},
    ]
    usage = {f"kind{number}": number for number in range(10_000)}
    lines = [process.line("error", step, metadata={"trace": about}) for step, about in enumerate(abouts, 1)]
    store.ingest((TOKEN, [*lines, answer(process, 3, usage=usage)]))
    summary = store.trace("checkout-8841")
    with sqlite3.connect(store.path) as connection:
        ((turn,),) = connection.execute("SELECT turn FROM turns")
    connection.close()

    assert summary.tags == [f"t{number}" for number in range(100)]
    assert (summary.metadata, summary.cost, len(turn) < 100) == ({"order": 8841}, None, True)


#: Records that begin something, and what ends it.
PAIRS = {
    "a tool": [("tool_call_request", {"tool": "ship"}), ("tool_call_response", {"tool": "ship"})],
    "a model": [("user_message", {"function": "ask"}), ("llm_response", {"function": "ask"})],
    "a model that is given a result": [
        ("tool_result", {"function": "ask"}),
        ("llm_response", {"function": "ask"}),
    ],
    "a model that fails": [("user_message", {"function": "ask"}), ("error", {"function": "ask"})],
    "an embedding": [("embedding_request", {}), ("embedding_response", {})],
    "a step": [("llm_thinking", {"step": "plan"}), ("step_end", {"step": "plan"})],
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("number", [*EARLIER[1:], 7])
def test_a_trace_whose_process_went_in_the_middle_has_stopped(
    store: Store, pair: list[tuple[str, dict[str, Any]]], number: int
) -> None:
    """Not as long as its process runs, nor once everything has ended; in a store of an earlier format as well."""
    open_, closed = Process(trace="open"), Process(trace="closed")
    (begin, about), (end, after) = pair
    for process in (open_, closed):
        lines = [process.line("user_message", 1), process.line(begin, 2, metadata=about)]
        step = 2 if end == "step_end" else 3
        lines += [process.line(end, step, 2, metadata=after)] if process is closed else []
        store.ingest((TOKEN, [*lines, process.line("llm_thinking", 4), process.line("llm_response", 5)]))
    running = [summary.stopped for summary in store.traces()]
    store.process_ended(TOKEN)
    if number in EARLIER:
        to_earlier_format(store, number)

    assert running == [False, False]
    assert {summary.trace_id: summary.stopped for summary in store.traces()} == {
        "open": True,
        "closed": False,
    }


INTERRUPTED = """
    import sys
    from whyops_trace.store import Store, lines, upgrade

    def move(connection):
        print("moving", flush=True)
        sys.stdin.readline()
        return upgrade.move(connection)

    upgrade._SECONDS = 0.0
    lines.UPGRADES = tuple(move if one is upgrade.move else one for one in upgrade.UPGRADES)
    Store({path!r}).traces()
"""


def conversing_store(store: Store, number: int) -> list[Any]:
    """Make a store of an earlier format, with two conversations that repeat themselves; return what is in it."""
    for trace in ("a", "b"):
        process = Process(trace=trace, run=f"{TOKEN}-1")
        said: list[dict[str, str]] = []
        for step in range(1, 101):
            said.append({"role": "user", "content": f"Where is parcel {step} of {trace}? " * 20})
            line = process.line("user_message", step, content={"messages": said})
            store.ingest((TOKEN, [line, process.line("note", 101 + step, content=f"x{step}")]))
    return to_earlier_format(store, number)


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_an_upgrade_that_was_killed_goes_on(store: Store, tmp_path: Path, number: int, parts: int) -> None:
    """What it has done is not done again, and nothing is lost."""
    before = conversing_store(store, number)
    program = start_code(INTERRUPTED.format(path=str(store.path)), tmp_path / "home")
    assert program.stdin is not None
    assert program.stdout is not None
    for part in range(parts):
        assert program.stdout.readline() == "moving\n"
        if part < parts - 1:
            program.stdin.write("\n")
            program.stdin.flush()
    program.kill()
    program.communicate()

    assert content_of(store.path) == before
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'earlier'").fetchall() == []
        assert connection.execute("PRAGMA user_version").fetchone() == (10,)
        assert connection.execute("PRAGMA freelist_count").fetchone() <= (1,)


def test_a_conversation_of_an_earlier_format_takes_less_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room of what it repeats is given back to the file system, many pages in each part of the upgrade."""
    parts = []
    real = upgrade.move

    def move(connection: sqlite3.Connection) -> bool:
        parts.append(connection)
        return real(connection)

    conversing_store(store, 4)
    large = store.path.stat().st_size
    monkeypatch.setattr(lines, "UPGRADES", tuple(move if one is real else one for one in upgrade.UPGRADES))
    with contextlib.closing(Store(store.path)) as new:
        new.traces()

    assert len(parts) < 10
    assert large > 4_000_000
    assert store.path.stat().st_size < 300_000


UPGRADER = """
    import sys
    from whyops_trace.store import Store

    store = Store({path!r})
    sys.stdin.readline()
    print(store.trace("checkout-8841").cost)
    store.close()
"""


def test_processes_bring_a_store_up_to_date_at_the_same_time(store: Store, tmp_path: Path) -> None:
    """One of them does it, and the others see that it is done."""
    before = old_store(store, turns=45)
    program = UPGRADER.format(path=str(store.path))
    processes = [start_code(program, tmp_path / "home") for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]

    amount = 45 * price(USAGE) + price({"totalTokens": 7}, EMBEDDING["model"])

    assert said == [(f"{float(amount)}\n", "")] * 4
    assert content_of(store.path) == before


@pytest.mark.parametrize(
    ("number", "statement", "message"),
    [
        (
            1,
            "INSERT INTO events VALUES (99, 1, 99, 1, 0, 'error', '', '', 'k', '{}')",
            "no such table: events",
        ),
        (2, f"INSERT OR REPLACE INTO traces VALUES ({', '.join(['?'] * 24)})", "32 columns but 24"),
        (3, f"INSERT OR REPLACE INTO traces VALUES ({', '.join(['?'] * 28)})", "32 columns but 28"),
        (
            4,
            "INSERT INTO events VALUES (99, 1, 99, 1, 0, 'error', '', '', 'k', '{}', '')",
            "no such table: events",
        ),
    ],
)
def test_a_process_of_an_earlier_format_writes_nothing_more_once_the_store_is_newer(
    store: Store, number: int, statement: str, message: str
) -> None:
    """Something would be missing of what it stores; it is told at its first write, and keeps it in its journal."""
    old_store(store, number=number)
    older = sqlite3.connect(store.path)
    older.execute("SELECT * FROM events").fetchall()
    store.traces()

    with pytest.raises(sqlite3.OperationalError, match=message):
        older.execute(statement, [None] * statement.count("?"))
    older.close()


def calls(process: Process, *arguments: Any, tool: str = "search") -> list[bytes]:
    """Return the requests of calls of a tool, one after the other."""
    return [
        encoded(tool_request(process, n, tool=tool, arguments=each)) for n, each in enumerate(arguments, 1)
    ]


#: Calls of a tool by their arguments, and how many in a row were alike at most.
LOOPS: list[tuple[list[Any], int]] = [
    ([], 0),
    ([{"q": "tea"}], 1),
    ([{"q": "tea"}, {"q": "tea"}, {"q": "coffee"}, {"q": "tea"}], 2),
    ([{"q": "tea"}, {"q": "coffee"}, {"q": "coffee"}, {"q": "coffee"}, {"q": "tea"}, {"q": "tea"}], 3),
    ([{"q": n % 2} for n in range(10)], 1),
    ([[], [], "x", "x", "x", "x"], 4),
]


@pytest.mark.parametrize(("arguments", "longest"), LOOPS)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_tool_called_with_the_same_arguments_is_counted(
    store: Store, arguments: list[Any], longest: int, size: int
) -> None:
    """However the calls arrive, and whatever is recorded between them."""
    process = Process()
    lines = [line for call in calls(process, *arguments) for line in (call, process.line("error", 99))]
    for start in range(0, len(lines), size):
        store.ingest((TOKEN, lines[start : start + size]))
        store.close()

    assert [summary.repeated for summary in store.traces()] == ([longest] if arguments else [])


def test_another_tool_or_several_calls_at_once_are_no_repetition(store: Store) -> None:
    """What a loop consists of is one call, by name and arguments; strange contents are none."""
    process = Process()
    lines = [line for tool in "abab" for line in calls(process, {"q": 1}, tool=tool)]
    two = {"toolCalls": [{"name": "a", "arguments": {}}] * 2}
    odd = [two, two, two, "odd", "odd", "odd", {"toolCalls": 1}, {"toolCalls": 1}, None, None, None]
    lines += [process.line("tool_call_request", 9, content=content) for content in odd]
    store.ingest((TOKEN, lines))

    assert store.trace("checkout-8841").repeated == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_loops_of_an_earlier_format_are_found(store: Store, number: int) -> None:
    """Bringing a store up to date counts what a new one counts while it is written."""
    for place, (arguments, _) in enumerate(LOOPS):
        process = Process(trace=f"t{place}")
        store.ingest((TOKEN, [process.line("error", 99), *calls(process, *arguments)]))
    to_earlier_format(store, number)

    assert [store.trace(f"t{n}").repeated for n in range(len(LOOPS))] == [longest for _, longest in LOOPS]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_trace_of_an_earlier_format_goes_on_with_its_open_calls(store: Store, number: int) -> None:
    """Which of them are open was not kept; what failed of models counts from now on, and only once."""
    process = Process(run=f"{TOKEN}-1")
    failed = {"function": "ask", "model": "gpt-4o"}
    store.ingest(
        (
            TOKEN,
            [
                encoded(tool_request(process, 1)),
                process.line("user_message", 2, metadata=failed),
                process.line("error", 3, 2, metadata=failed),
                process.line("user_message", 4, metadata=failed),
                process.line("error", 5, 4, metadata=failed | {"wraps": True}),
                process.line("embedding_request", 6, metadata=failed),
                process.line("error", 7, 6, metadata=failed),
            ],
        )
    )
    new = store.trace("checkout-8841")
    to_earlier_format(store, number)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE traces SET llm_responses = 0")
    connection.close()
    old = store.trace("checkout-8841")
    store.ingest((TOKEN, [encoded(tool_request(process, 8)), encoded(tool_response(process, 9, 1))]))
    after = store.trace("checkout-8841")

    assert [(one.tool_calls, one.llm_responses, one.open_calls) for one in (new, old, after)] == [
        (1, 1, 1),
        (1, 1, 1),
        (2, 1, 1),
    ]


def test_a_store_damaged_in_the_middle_is_set_aside(store: Store) -> None:
    """A batch that cannot be stored leaves nothing behind, and is stored when it comes again."""
    lines = [Process().line("error", 1, content={"message": "x" * 100_000})]
    store.ingest((TOKEN, lines))
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    store.path.write_bytes(content)

    with pytest.raises(StoreError, match="is damaged"):
        store.ingest((TOKEN, lines))
    assert store.path.with_name("traces.db.bad").read_bytes() == content
    assert store.ingest((TOKEN, lines)) == [True]
    assert len(store.events("checkout-8841")) == 1


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    """A home that is a file is the user's mistake, told as such."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "traces.db")

    with pytest.raises(
        StoreError, match=r"cannot be used \(.*\): its directory has to be writable and needs room"
    ):
        store.process_ended(TOKEN)
    assert store.traces() == []


def test_an_error_in_the_middle_of_a_batch_stores_nothing_of_it(store: Store) -> None:
    """A batch is stored whole or not at all, also if it is interrupted."""

    class Interrupted(list[bytes]):
        def __getitem__(self, index: Any) -> Any:
            if index.start:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    process = Process()
    lines = Interrupted(process.line("error", step) for step in range(1, 2 * SLICE))

    with pytest.raises(KeyboardInterrupt):
        store.ingest((TOKEN, lines))
    assert store.traces() == []
    assert store.ingest((TOKEN, list(lines))) == [True] * len(lines)


def test_a_store_that_another_process_keeps_busy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for another writer has an end; the batch is refused and may come again."""
    monkeypatch.setattr(_database, "BUSY_TIMEOUT", 0.01)
    lines = [Process().line("error", 1)]
    store.process_ended(TOKEN)
    store.close()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="is busy: another process"):
        store.ingest((TOKEN, lines))
    other.execute("COMMIT")
    other.close()
    assert store.ingest((TOKEN, lines)) == [True]


def test_threads_take_turns(store: Store) -> None:
    """A store may be used from several threads at once."""
    traces = [f"t{n}" for n in range(4)]

    def record(trace: str) -> None:
        process = Process(trace=trace)
        for step in range(1, 21):
            store.ingest((TOKEN, [process.line("error", step)]))

    threads = [threading.Thread(target=record, args=(trace,)) for trace in traces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [len(store.events(trace)) for trace in traces] == [20] * 4


def test_a_thread_does_not_wait_for_another_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a thread that is stuck in the store ends with an error."""
    monkeypatch.setattr(_database, "LOCK_TIMEOUT", 0.01)
    with store._database.session(), pytest.raises(StoreError, match="in use by another thread"):
        store.traces()
        store.process_ended(TOKEN)


# Other processes

WRITER = """
    import json, sys
    from whyops_trace.store import Store

    store = Store({path!r})
    for line in sys.stdin:
        store.ingest(("{token}", [record.encode() for record in json.loads(line)]))
    store.close()
"""


def test_processes_write_at_the_same_time(store: Store, tmp_path: Path) -> None:
    """Several processes make the store together and record runs of one trace into it; nothing is lost."""
    tokens = [f"{n:012x}" for n in range(4)]
    batches = {}
    for token in tokens:
        process = Process(token, run=f"{token}-1")
        batches[token] = [
            [process.line("error", 10 * batch + n + 1, within=0).decode() for n in range(10)]
            for batch in range(20)
        ]
    writers = [
        start_code(WRITER.format(path=str(store.path), token=token), tmp_path / "home") for token in tokens
    ]
    feeders = [
        threading.Thread(
            target=writer.communicate,
            args=("\n".join(map(json.dumps, batches[token])),),
            kwargs={"timeout": 60},
        )
        for writer, token in zip(writers, tokens, strict=True)
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    events = store.events("checkout-8841")
    by_run = {token: [e["stepId"] for e in events if e["run"] == f"{token}-1"] for token in tokens}

    assert [writer.returncode for writer in writers] == [0] * 4
    assert store.trace("checkout-8841").event_count == 800
    assert all(steps == list(range(steps[0], steps[0] + 200)) for steps in by_run.values())


FORKER = """
    import os, threading
    from whyops_trace.store import Store

    def line(token, trace, n):
        return (
            '{{"eventType":"error","traceId":"%s","stepId":%d,"metadata":{{"within":0}},'
            '"idempotencyKey":"%s-%d","content":{{}}}}' % (trace, n, token, n)
        ).encode()

    store = Store({path!r})
    forked = threading.Event()

    def record():
        for n in range(1, 301):
            store.ingest(("{token}", [line("{token}", "parent", n)]))
            if n == 50:
                forked.set()

    worker = threading.Thread(target=record)
    worker.start()
    forked.wait()
    children = []
    for child in range(8):
        pid = os.fork()
        if not pid:
            token = "%012x" % child
            for n in range(1, 51):
                store.ingest((token, [line(token, "child-%d" % child, n)]))
            store.close()
            os._exit(0)
        children.append(pid)
    worker.join()
    print([os.waitpid(pid, 0)[1] for pid in children])
    store.close()
"""


def test_forks_in_the_middle_of_writing(store: Store, tmp_path: Path) -> None:
    """Children born while a thread writes go on with connections of their own; the file stays whole."""
    result = run_code(FORKER.format(path=str(store.path), token=TOKEN), tmp_path / "home")
    counts = {summary.trace_id: summary.event_count for summary in store.traces()}
    with sqlite3.connect(store.path) as connection:
        integrity = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()

    assert (result.stdout.strip(), result.stderr) == (str([0] * 8), "")
    assert counts == {"parent": 300, **{f"child-{n}": 50 for n in range(8)}}
    assert integrity == [("ok",)]


BUSY_FORKER = """
    import os, threading
    from whyops_trace import _database
    from whyops_trace.store import Store

    _database.FORK_TIMEOUT = 0.01
    store = Store({path!r})
    store.process_ended("aaaaaaaaaaaa")
    inside, done = threading.Event(), threading.Event()

    def hold():
        with store._database.session():
            inside.set()
            done.wait()

    worker = threading.Thread(target=hold)
    worker.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        store.process_ended("bbbbbbbbbbbb")
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
    done.set()
    worker.join()
    store.process_ended("cccccccccccc")
    store.close()
"""


def test_a_fork_does_not_wait_for_a_transaction_for_ever(store: Store, tmp_path: Path) -> None:
    """A child that inherits an open connection leaves it alone and opens its own."""
    result = run_code(BUSY_FORKER.format(path=str(store.path)), tmp_path / "home")

    assert (result.stdout.strip(), result.stderr) == ("0", "")
    assert store.ended_processes() == {"aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"}


@pytest.mark.parametrize("ends", ["", "stores.append(stores)"], ids=["by itself", "as part of a cycle"])
def test_a_store_that_nobody_closed_goes_without_a_warning(tmp_path: Path, ends: str) -> None:
    """Python warns of the connection from 3.13 on, in whatever order it collects what belongs together."""
    done = run_code(
        f"""
        import gc, os
        from whyops_trace.store import Store

        stores = [Store(os.environ["WHYOPS_HOME"] + f"/{{n}}.db") for n in range(20)]
        for store in stores:
            store.ingest(("9f2c41aa01be", []))
        {ends}
        del stores, store
        gc.collect()
        """,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
