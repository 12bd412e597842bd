"""
Whether costs stay as they are while work grows: the times within a group should be alike.

The largest steps take minutes, and are left out unless ``WHYOPS_BENCH_LARGE`` is set.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bench.compare.conversation import HELD, turns
from lines import Process, encoded, tool_request, tool_response

from whyops_trace import WhyOps, traced_llm, traced_tool
from whyops_trace.store import Store

SIZES = [1_000, 10_000, 100_000, *([1_000_000] if os.environ.get("WHYOPS_BENCH_LARGE") else [])]
#: Traces of which one page of the list is read.
LISTED = SIZES[:3]
#: Events after which a client that grows is flushed, so that its journal stays within its budget.
FLUSHED_AFTER = 100_000

growing = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size:9,}")


@traced_tool
def search(query: str, limit: int) -> str:
    """Do nothing: two events."""
    return query


@growing
def test_in_a_trace(measure: Any, sdk: WhyOps, size: int) -> None:
    """A call in a trace that has so many events already."""
    with sdk.trace():
        for event in range(0, size, 2):
            search("parcel", 5)
            if event % FLUSHED_AFTER == 0:
                sdk.flush_sync(60)
        sdk.flush_sync(60)
        measure("call in a trace that has grown", search, "parcel", 5)


@pytest.mark.parametrize("earlier", [50, 100, 200])
@pytest.mark.parametrize("held", HELD)
def test_in_a_conversation(measure: Any, sdk: WhyOps, held: str, earlier: int) -> None:
    """A turn of a conversation that has so many turns already."""
    given: Any = None

    @traced_llm(model="gpt-4o", provider="openai")
    def ask(messages: Any, tools: Any) -> Any:
        return given

    def turn() -> None:
        nonlocal given
        messages, tools, given = next(conversation)
        ask(messages, tools)

    conversation = turns(earlier + 100, held, count(1))
    with sdk.trace():
        for _ in range(earlier):
            turn()
        sdk.flush_sync(60)
        measure(f"turn of a conversation, {held}", turn, calls=1)


@growing
def test_over_traces(measure: Any, sdk: WhyOps, size: int) -> None:
    """A call in a trace of its own, in a client that has recorded so many events."""
    for event in range(0, size, 2):
        search("parcel", 5)
        if event % FLUSHED_AFTER == 0:
            sdk.flush_sync(60)
    sdk.flush_sync(60)

    measure("call in a trace of its own, after others", search, "parcel", 5)


@pytest.mark.parametrize("size", LISTED, ids=lambda size: f"{size:9,}")
@pytest.mark.parametrize("page", ["first", "last"])
def test_page(measure: Any, tmp_path: Path, size: int, page: str) -> None:
    """A page of the list, of a store that has so many traces."""
    store = Store(tmp_path / "store.db")
    batch: list[bytes] = []
    for number in range(size):
        process = Process(trace=f"trace-{number}")
        batch += map(encoded, (tool_request(process, 1, at=number), tool_response(process, 2, 1, at=number)))
        if len(batch) >= 5_000:
            store.ingest((process.token, batch))
            batch = []
    store.ingest(("9f2c41aa01be", batch))
    after = None if page == "first" else "trace-50"

    assert len(store.traces(50, after)) == 50

    measure(f"{page} page of the traces", store.traces, 50, after, calls=5)
    store.close()


@pytest.mark.parametrize("turns", [50, 100, 200], ids=lambda turns: f"{turns:9,}")
@pytest.mark.parametrize("does", ["store", "open"])
def test_conversation(measure: Any, tmp_path: Path, turns: int, does: str) -> None:
    """The last ten turns of a conversation, stored; and the conversation, opened, which takes a time for each turn."""
    process = Process()
    messages: list[dict[str, str]] = [
        {"role": "system", "content": "You are the agent of a web shop. " * 1_000}
    ]
    lines = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Where is parcel {turn}? " * 80})
        lines.append(process.line("user_message", 2 * turn + 1, content={"messages": messages}))
        answer = {"role": "assistant", "content": f"Parcel {turn} is on its way. " * 20}
        lines.append(process.line("llm_response", 2 * turn + 2, 2 * turn + 1, content=answer))
        messages.append(answer)
    store = Store(tmp_path / "store.db")
    store.ingest((process.token, lines[:-20]))
    if does == "store":

        def last() -> None:
            for start in range(len(lines) - 20, len(lines), 2):
                store.ingest((process.token, lines[start : start + 2]))

        measure("last turns of a conversation", last, calls=1, rounds=1)
    else:
        store.ingest((process.token, lines[-20:]))
        measure("conversation opened", store.events, "checkout-8841", calls=1)
    store.close()
