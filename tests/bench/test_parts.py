"""What the parts cost: those on the caller's path, and those that store and read."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from journals import make, read
from lines import Process, encoded, tool_request, tool_response

from whyops_trace._values.encoding import encoder
from whyops_trace._values.processor import Redactor
from whyops_trace._values.secrets import redacted
from whyops_trace.store import Store
from whyops_trace.tree import build, render

NESTED = {
    "query": "parcel 8841",
    "limit": 5,
    "filters": [{"field": "city", "values": ["Köln", "Bonn"]}, {"field": "weight", "below": 2.5}],
    "user": {"id": 8841, "name": "Ada", "address": {"street": "Ring 5", "city": "Köln", "open": True}},
}
#: Records of one batch on its way to a store.
BATCH = 200


@dataclasses.dataclass
class Order:
    """An object as programs hand them about."""

    number: int
    city: str
    items: list[str]
    paid: bool = False


def lines(trace: str, calls: int) -> list[bytes]:
    """The records of some tool calls, one after the other, in one trace."""
    process = Process(trace=trace)
    pairs = (
        (tool_request(process, step, step - 1 or None), tool_response(process, step + 1, step))
        for step in range(1, 2 * calls, 2)
    )
    return [encoded(event) for pair in pairs for event in pair]


@pytest.mark.parametrize("what", ["nested dict", "nested dict, json.dumps", "object"])
def test_encode(measure: Any, what: str) -> None:
    """A value to JSON, beside what the standard library takes for it."""
    encode = encoder(Redactor().hides)
    if what.endswith("json.dumps"):
        measure("encode", lambda: json.dumps(NESTED).encode())
    else:
        value = NESTED if what == "nested dict" else Order(8841, "Köln", ["book", "lamp"])
        measure("encode", encode, value)


@pytest.mark.parametrize(
    "what", ["50 MB of text", "50 MB of text, json.dumps", "a million numbers", "1,000 x 100 KB"]
)
def test_encode_large(measure: Any, what: str) -> None:
    """A value of which a record holds a part, beside what the standard library takes for the whole."""
    encode = encoder(Redactor().hides, 900_000)
    value: Any = "a" * 50_000_000
    if what.startswith("a million"):
        value = list(range(1_000_000))
    elif what.startswith("1,000"):
        value = [{"text": "word " * 20_000} for _ in range(1_000)]
    if what.endswith("json.dumps"):
        measure("encode large", lambda: json.dumps(value).encode(), calls=1)
    else:
        measure("encode large", encode, value, calls=1)


@pytest.mark.parametrize("what", ["small", "10 KB of text", "10 KB of words that might be tokens", "a token"])
def test_redact(measure: Any, what: str) -> None:
    """The look for secrets in a record, and what is found."""
    content = {
        "small": json.dumps(NESTED),
        "10 KB of text": json.dumps(["Where is the parcel of Ms. Lovelace? "] * 270),
        "10 KB of words that might be tokens": json.dumps(
            ["checkout/0f8fad5b-d9cb-469f-a165-70867728950e"] * 215
        ),
        "a token": json.dumps({"header": "Bearer 0f8fad5bd9cb469fa16570867728950e"}),
    }[what].encode()

    assert (redacted(content) != content) is (what == "a token")

    measure("redact", redacted, content, calls=300)


@pytest.mark.parametrize("size", [350, 10_000])
def test_append(measure: Any, benchmark: Any, tmp_path: Path, size: int) -> None:
    """A record to a journal on disk; what was appended in a round is read and removed before the next one."""
    journal = make(tmp_path, destinations=["local"])
    count = 10_000 if size < 1_000 else 500
    line = b'{"pad":"%b"}\n' % (b"x" * size)
    batch = list(itertools.repeat(line, count))

    def clear() -> None:
        journal.prepare()
        read(journal.segments)
        journal.retire()

    def append() -> None:
        for each in batch:
            journal.append(each)

    benchmark.group = f"append {count:,} records to a journal"
    benchmark.pedantic(append, setup=clear, rounds=30, warmup_rounds=1)
    journal.close()


def test_ingest(benchmark: Any, tmp_path: Path) -> None:
    """A batch of records into a store that has many already."""
    store = Store(tmp_path / "store.db")
    numbers = itertools.count()

    def batch() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((("9f2c41aa01be", lines(f"trace-{next(numbers)}", BATCH // 2)),), {})

    benchmark.group = f"store a batch of {BATCH} records"
    benchmark.pedantic(store.ingest, setup=batch, rounds=50, warmup_rounds=1)
    store.close()


@pytest.mark.parametrize("what", ["build", "draw"])
def test_tree(measure: Any, tmp_path: Path, what: str) -> None:
    """A trace of 10,000 events from the store to a tree, and to the text of it."""
    store = Store(tmp_path / "store.db")
    store.ingest(("9f2c41aa01be", lines("large", 5_000)))

    def show() -> None:
        tree = build(store.events("large"))
        if what == "draw":
            render(tree)

    measure("tree of 10,000 events", show, calls=1, rounds=10)
    store.close()
