"""What records repeat, such as the messages of a conversation: it is stored once, and comes back in every record."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import string
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lines import Process, encoded, tool_request, tool_response

from whyops_trace.server.query import Term
from whyops_trace.server.search import Index
from whyops_trace.store import Store, lifting
from whyops_trace.store.collection import SentEvent

TOKEN, OTHER = "9f2c41aa01be", "77aa00bb11cc"
#: A message, a system prompt and tools that are large enough to be taken out of a record.
MESSAGE = {"role": "user", "content": "Where is the parcel? " * 20}
TOOLS = [
    {"type": "function", "function": {"name": f"tool_{n}", "description": "Looks up. " * 20}}
    for n in range(3)
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of its own."""
    with contextlib.closing(Store(tmp_path / "traces.db")) as store:
        yield store


def conversation(trace: str, turns: int, token: str = TOKEN) -> list[bytes]:
    """Return the records of a conversation, whose turns repeat it from its beginning."""
    process = Process(token, trace=trace)
    messages: list[dict[str, Any]] = [{"role": "system", "content": f"You answer {trace}. " * 40}]
    lines = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn} of {trace}. " * 30})
        about = {"function": "ask", "tools": TOOLS}
        lines.append(
            process.line("user_message", 2 * turn + 1, metadata=about, content={"messages": messages})
        )
        answer = {"role": "assistant", "content": f"Answer {turn} to {trace}. " * 30}
        lines.append(process.line("llm_response", 2 * turn + 2, 2 * turn + 1, content=answer))
        messages.append(answer)
    return lines


def count(store: Store, table: str) -> int:
    """Return the number of rows of a table."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# What comes back

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**70, -0.0, 1e-7, "", "x" * 300, "\u2028 é\U0001f600\x7f", '"messages":[', "\\"]
    ),
    st.text(max_size=20),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "messages", "a"]), inner),
    ),
    max_leaves=6,
)
#: Messages of which conversations are made: the same ones come again, and in other places.
_POOL = [
    {"role": "system", "content": "You are helpful. " * 20},
    {"role": "user", "content": "Where is it?"},
    MESSAGE,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": {"name": "find"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": '{"messages":[{"role":"user"}]}' * 20},
    "a text",
    17,
]
_MESSAGES = st.one_of(st.sampled_from(_POOL), st.sampled_from(_POOL), _VALUES)
_TOOLS = st.one_of(st.just(TOOLS), st.just(TOOLS[:1]), st.just([]), _VALUES)


def _text_of(message: Any) -> Any:
    """Return the content of a message, such as the result of a tool."""
    return message.get("content") if isinstance(message, dict) else None


@st.composite
def _contents(draw: st.DrawFn, messages: list[Any]) -> Any:
    """Return the content of a record, mostly with messages."""
    kind = draw(st.sampled_from(["usual", "usual", "usual", "bare", "twice", "with more", "any"]))
    if kind == "bare":
        return messages
    if kind == "any":
        return draw(_VALUES)
    texts = [text for text in map(_text_of, messages) if text]
    result = st.sampled_from(texts) if texts else _VALUES
    more = (
        {"toolName": "find", "output": draw(st.one_of(_VALUES, result, result))}
        if kind == "with more"
        else {}
    )
    return {**more, "messages": messages, **({"copy": {"messages": messages}} if kind == "twice" else {})}


@st.composite
def _lines(draw: st.DrawFn) -> list[bytes]:
    """Return the records of conversations that go on, begin anew, and are edited and shortened; some come twice."""
    talks: list[list[Any]] = [[], []]
    lines: list[bytes] = []
    for step in range(1, draw(st.integers(1, 12)) + 1):
        talk = draw(st.sampled_from(talks))
        match draw(st.sampled_from(["go on", "go on", "go on", "edit", "shorten", "branch", "repeat"])):
            case "go on":
                talk += draw(st.lists(_MESSAGES, max_size=3))
            case "edit" if talk:
                talk[draw(st.integers(0, len(talk) - 1))] = draw(_MESSAGES)
            case "shorten":
                del talk[: draw(st.integers(0, len(talk)))]
            case "branch":
                talks.append(list(talk))
            case "repeat" if lines:
                lines.append(draw(st.sampled_from(lines)))
                continue
            case _:
                pass
        metadata = {"within": draw(st.integers(0, 2)), "function": "ask", "model": "gpt-4o"}
        if draw(st.booleans()):
            metadata |= {
                "tools": draw(_TOOLS),
                "systemPrompt": draw(st.sampled_from(["", "You are helpful. " * 20])),
            }
        if draw(st.integers(0, 5)) == 0:
            metadata["params"] = {"messages": talk, "tools": TOOLS}
        trace = draw(st.sampled_from(["a", "a", "b", 'q"uote']))
        run = draw(st.sampled_from([None, None, f"{TOKEN}-1"]))
        kind = draw(st.sampled_from(["user_message", "user_message", "tool_result", "llm_response", "note"]))
        event = Process(trace=trace, run=run).event(
            kind,
            step,
            draw(st.sampled_from([None, step - 1 or None])),
            metadata=metadata,
            content=draw(_contents(list(talk))),
            agentName=draw(st.sampled_from(["shop", "shop", "another", ""])),
        )
        spaced = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": "), (" , ", " : ")]))
        lines.append(json.dumps(event, separators=spaced, ensure_ascii=draw(st.booleans())).encode())
    return lines


def _first(lines: Sequence[bytes]) -> dict[tuple[str, str], str]:
    """Return the lines that count, of each trace and key the first one, by those two."""
    by_key: dict[tuple[str, str], str] = {}
    for line in lines:
        event = json.loads(line)
        by_key.setdefault((event["traceId"], event["idempotencyKey"]), line.decode())
    return by_key


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(lines=_lines(), size=st.integers(1, 5), writers=st.integers(1, 3), small=st.sampled_from([2, 256]))
def test_every_reader_gets_records_as_they_were(
    lines: list[bytes], size: int, writers: int, small: int
) -> None:
    """Byte for byte and value for value, for any conversations, batches and numbers of processes that write."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        patch.setattr(lifting, "SMALL", small)
        patch.setattr(lifting, "SMALL_RESULT", small)
        stores = [
            stack.enter_context(contextlib.closing(Store(Path(folder) / "traces.db"))) for _ in range(writers)
        ]
        for turn, start in enumerate(range(0, len(lines), size)):
            stores[turn % writers].ingest((TOKEN, lines[start : start + size]))
        store = stores[-1]
        expected = _first(lines)
        stored = store.all_after(0, -1)

        assert {(each.trace_id, each.key): each.line for each in stored} == expected
        for trace in {trace for trace, _ in expected}:
            texts = store.lines(trace)
            assert sorted(texts) == sorted(text for (name, _), text in expected.items() if name == trace)
            assert repr(store.events(trace)) == repr([json.loads(text) for text in texts])
            assert sorted(line for _, line in store.lines_after(trace, 0)) == sorted(texts)
            steps = {json.loads(text)["stepId"] for text in texts}
            assert sum(len(store.event(trace, step)) for step in steps) == len(texts)


@settings(deadline=None)
@given(lines=_lines(), size=st.integers(1, 5))
def test_the_collector_keeps_contents_as_they_were_sent(lines: list[bytes], size: int) -> None:
    """Also those of clients that write JSON in another way."""
    events = {}
    for line in _first(lines).values():
        members = {**msgspec.json.decode(line, type=dict[str, msgspec.Raw])}
        names = ("eventType", "traceId", "spanId", "stepId", "metadata", "idempotencyKey", "content")
        sent = msgspec.json.encode(
            {name: members[name] for name in names if name in members} | {"agentName": "shop"}
        )
        with contextlib.suppress(msgspec.ValidationError):
            event = msgspec.json.decode(sent, type=SentEvent)
            events[event.trace_id, event.idempotency_key] = event
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Store(Path(folder) / "traces.db")) as store,
    ):
        batch = list(events.values())
        for start in range(0, len(batch), size):
            store.collect(batch[start : start + size])
        stored = {(each.trace_id, each.key): each for each in store.all_after(0, -1)}

        assert stored.keys() == events.keys()
        for key, event in events.items():
            members = msgspec.json.decode(stored[key].line, type=dict[str, msgspec.Raw])
            assert (bytes(members["content"]), bytes(members["metadata"])) == (
                bytes(event.content),
                bytes(event.metadata),
            )


def test_the_result_of_a_tool_is_stored_with_the_message_that_has_it(store: Store) -> None:
    """It comes back in both, and takes no room of its own."""
    output = '{"state": "sent", "where": "Zürich"}' * 9
    tool = {"role": "tool", "tool_call_id": "call_1", "content": output}
    content = {"toolName": "find", "output": output, "messages": [MESSAGE, tool]}
    line = Process().line("tool_result", 1, content=content)
    store.ingest((TOKEN, [line]))
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        ((kept,),) = connection.execute("SELECT line FROM records")

    assert store.lines("checkout-8841") == [line.decode()]
    assert store.events("checkout-8841")[0]["content"] == content
    assert "sent" not in kept


@pytest.mark.parametrize(
    ("metadata", "content"),
    [
        ({"params": {"messages": [MESSAGE]}}, {"messages": [MESSAGE]}),
        ({"copy": TOOLS, "tools": TOOLS}, {"messages": [MESSAGE]}),
        ({"tools": TOOLS}, {"raw": {"messages": [MESSAGE]}, "messages": [MESSAGE]}),
        ({}, {"messages": {"messages": [MESSAGE]}}),
        ({}, '"messages":' + json.dumps([MESSAGE])),
    ],
)
def test_what_stands_in_a_record_twice_is_put_back_into_its_place(
    store: Store, metadata: dict[str, Any], content: Any
) -> None:
    """A copy of the messages in another member is not mistaken for them."""
    process = Process()
    events = [process.event("user_message", step, metadata=metadata, content=content) for step in (1, 2, 3)]
    for event in events:
        store.ingest((TOKEN, [encoded(event)]))

    assert store.events("checkout-8841") == events
    assert store.lines("checkout-8841") == [encoded(event).decode() for event in events]


def test_records_share_what_they_repeat(store: Store) -> None:
    """A reader of a long conversation has each message in memory once."""
    store.ingest((TOKEN, conversation("a", 3)))
    first, _, second, *_ = store.events("a")

    assert first["content"]["messages"][0] is second["content"]["messages"][0]
    assert first["metadata"]["tools"] is second["metadata"]["tools"]


def test_a_conversation_takes_room_for_what_is_new_in_it(store: Store) -> None:
    """Each message is stored once, and tools once for all traces."""
    for trace in ("a", "b"):
        for line in conversation(trace, 20):
            store.ingest((TOKEN, [line]))

    assert count(store, "blobs") == 2 * (1 + 20 + 19) + 1
    assert count(store, "uses") == 2 * (1 + 20 + 19 + 1)


def _sizes(path: Path, turns: int) -> tuple[int, int]:
    """Store a conversation of random texts, of which compression saves a quarter; return its size, and the store's."""
    source = random.Random(turns)

    def text(size: int) -> str:
        return "".join(source.choices(string.ascii_letters + string.digits, k=size))

    process = Process()
    messages: list[dict[str, str]] = [{"role": "system", "content": text(20_000)}]
    new = 20_000
    with contextlib.closing(Store(path)) as store:
        for turn in range(turns):
            messages.append({"role": "user", "content": text(1_000)})
            answer = {"role": "assistant", "content": text(500)}
            asked = process.line("user_message", 2 * turn + 1, content={"messages": messages})
            raw = {"rawResponse": {"choices": [{"message": answer}]}}
            answered = process.line("llm_response", 2 * turn + 2, 2 * turn + 1, metadata=raw, content=answer)
            store.ingest((TOKEN, [asked, answered]))
            messages.append(answer)
            new += 1_000 + 3 * 500
        with contextlib.closing(Index(path.parent, store)) as index:
            assert index.catch_up(30)
    return new, path.stat().st_size + path.with_name("search.db").stat().st_size


def test_the_store_grows_with_what_is_said_not_with_what_is_repeated(tmp_path: Path) -> None:
    """With the index of the search it takes no more than the texts, once each, and twice as much for twice as many."""
    sizes = []
    for turns in (100, 200):
        folder = tmp_path / str(turns)
        folder.mkdir()
        said, size = _sizes(folder / "traces.db", turns)
        sizes.append(size)

    assert size < 1.2 * said
    assert sizes[1] < 2**1.05 * sizes[0]


def test_an_event_of_a_tool_takes_less_than_250_bytes(tmp_path: Path, store: Store) -> None:
    """Beside its payload there is little that the row of it does not tell already."""
    for trace in range(200):
        process = Process(trace=f"{trace:032x}")
        lines = []
        for step in range(1, 41, 2):
            lines.append(
                encoded(tool_request(process, step, arguments={"query": f"parcel {step}", "limit": 5}))
            )
            lines.append(
                encoded(
                    tool_response(process, step + 1, step, results={"result": [f"parcel {step * trace}"]})
                )
            )
        store.ingest((TOKEN, [*lines, process.line("trace_end", 1, end=True)]))
    store.close()

    assert store.path.stat().st_size < 250 * 200 * 41


# Deletion


def test_of_two_equal_traces_one_stays_whole_when_the_other_is_deleted(store: Store) -> None:
    """What both have goes with the last of them."""
    lines = [line.replace(b'"traceId":"a"', b'"traceId":"b"') for line in conversation("a", 5)]
    store.ingest((TOKEN, conversation("a", 5)))
    store.ingest((TOKEN, lines))
    store.delete("a")
    left = store.lines("b")
    blobs = count(store, "blobs")
    store.delete("b")

    assert left == [line.decode() for line in lines]
    assert blobs > 0
    assert {
        table: count(store, table) for table in ("records", "turns", "blobs", "uses", "traces")
    } == dict.fromkeys(("records", "turns", "blobs", "uses", "traces"), 0)


@pytest.mark.parametrize("by_another", [False, True], ids=["itself", "another process"])
def test_a_conversation_goes_on_after_it_was_deleted(store: Store, by_another: bool) -> None:
    """Whoever writes it does not rely on messages that are gone; numbers of deleted ones are not used again."""
    lines = conversation("a", 6)
    store.ingest((TOKEN, lines[:6]))
    with contextlib.closing(Store(store.path)) as other:
        (other if by_another else store).delete("a")
    last = max(number for number, _ in store.messages_after(0)) if count(store, "blobs") else 0
    store.ingest((TOKEN, lines[6:]))

    assert last == 0
    assert store.lines("a") == [line.decode() for line in lines[6:]]
    assert min(number for number, _ in store.messages_after(0)) > 6


def test_an_interrupted_batch_leaves_nothing_that_the_next_relies_on(store: Store) -> None:
    """The messages of a batch that was not stored are stored with the next one."""

    class Interrupted(list[bytes]):
        def __getitem__(self, index: Any) -> Any:
            if index.start:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    lines = conversation("a", 60)
    store.ingest((TOKEN, lines[:4]))
    with pytest.raises(KeyboardInterrupt):
        store.ingest((TOKEN, Interrupted(lines[4:])))
    store.ingest((TOKEN, lines[4:]))

    assert store.lines("a") == [line.decode() for line in lines]


def test_a_record_that_is_refused_may_repeat_what_another_process_stored(store: Store) -> None:
    """Its messages are not stored a second time."""
    process = Process(run=f"{TOKEN}-1")
    store.ingest((TOKEN, [process.line("note", 1)]))
    with contextlib.closing(Store(store.path)) as other:
        other.ingest((OTHER, conversation("checkout-8841", 1, OTHER)))
    refused = {"stepId": 1, **json.loads(conversation("checkout-8841", 1)[0])}
    refused |= {"run": f"{OTHER}-1", "idempotencyKey": "unknown-form"}

    assert store.ingest((OTHER, [encoded(refused)])) == [False]
    assert len(store.events("checkout-8841")) == 3


def test_what_a_refused_record_brought_is_deleted_with_its_trace(store: Store) -> None:
    """Nothing is left that no trace has."""
    store.ingest((TOKEN, [Process(run=f"{TOKEN}-1").line("note", 1)]))
    refused = {"stepId": 1, **json.loads(conversation("checkout-8841", 1)[0])}
    refused |= {"run": f"{OTHER}-1", "idempotencyKey": "unknown-form"}
    assert store.ingest((OTHER, [encoded(refused)])) == [False]
    store.delete("checkout-8841")

    assert count(store, "blobs") == count(store, "uses") == 0


def test_what_is_not_a_record_leaves_its_messages_to_the_next(store: Store) -> None:
    """The next record of the conversation is stored with all of them, in the same batch."""
    first, _, second, _ = conversation("order-4711", 2)
    nameless = json.loads(first)
    del nameless["eventType"]

    assert store.ingest((TOKEN, [encoded(nameless), second])) == [False, True]
    assert store.lines("order-4711") == [second.decode()]


def test_a_record_that_is_refused_leaves_its_messages_to_the_next(store: Store) -> None:
    """A trace goes on with a numbering of its own, in which one record has an unknown form."""
    process = Process(run=f"{TOKEN}-1")
    store.ingest((OTHER, [Process(OTHER, run=f"{OTHER}-1").line("note", 1)]))
    asked = [process.event("user_message", 1, content={"messages": [MESSAGE] * n}) for n in (1, 2, 3)]
    first, second, third = asked
    second = {"traceId": second.pop("traceId"), **second}
    for number, event in enumerate((first, second, third), 1):
        event |= {"stepId": number, "idempotencyKey": f"{TOKEN}-{number}"}
    kept = store.ingest((TOKEN, [encoded(event) for event in (first, second, third)]))

    assert kept == [True, False, True]
    assert [len(event["content"].get("messages", ())) for event in store.events("checkout-8841")[1:]] == [
        1,
        3,
    ]


# Search


def test_a_message_is_indexed_once_and_found_in_every_trace_that_has_it(tmp_path: Path, store: Store) -> None:
    """As long as the trace is there; what tools and prompts beside the messages say is not searched."""
    both = [line.replace(b'"traceId":"a"', b'"traceId":"b"') for line in conversation("a", 5)]
    for lines in (conversation("a", 5), both):
        store.ingest((TOKEN, lines))
    with contextlib.closing(Index(tmp_path, store)) as index:
        found = index.find([Term("Question 3")], 30).trace_ids
        rows = index._database.rows("SELECT count(*) FROM words WHERE words MATCH '\"Question 3\"'")
        tools = index.find([Term("Looks up")], 30).trace_ids
        names = index.find([Term("b")], 30).trace_ids
        store.delete("a")
        left = index.find([Term("Question 3")], 30).trace_ids

    assert (found, rows, tools, names, left) == (["a", "b"], [(1,)], [], ["b"], ["b"])
