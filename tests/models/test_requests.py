"""Requests to models as JSON: what was encoded before is known again, and the JSON is the same as if it were not."""

from __future__ import annotations

import copy
import json
import re
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from whyops_trace._models.requests import Requests
from whyops_trace._values.processor import Processor
from whyops_trace.settings import MAX_HISTORY_BYTES

#: Processors that write everything as it is, hide the matches of a pattern, and cut nearly every request.
PROCESSORS: dict[str, Callable[[], Processor]] = {
    "usual": lambda: Processor(max_event_bytes=1_000_000, sample_rate=1),
    "patterns": lambda: Processor([re.compile("b+"), "role"], max_event_bytes=1_000_000, sample_rate=1),
    "small": lambda: Processor(max_event_bytes=10_000, sample_rate=1),
}


class Word(str):
    """A text of a class of the user's."""

    __slots__ = ()


class Pair(NamedTuple):
    """A tuple that is recorded as an object."""

    a: Any
    b: Any


class Call(BaseModel):
    """A tool call as a provider's package has it, which keeps what it does not know."""

    model_config = ConfigDict(extra="allow")

    id: str
    arguments: str


class Message(BaseModel):
    """A message as a provider's package has it."""

    role: str = "assistant"
    content: str | None = None
    tool_calls: list[Call] = []


class Touchy:
    """A value whose own code must never run."""

    def __init__(self) -> None:
        self.text = "a"

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")


ATOMS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        0.0,
        -0.0,
        1.0,
        float("nan"),
        "",
        "a",
        "b",
        "bb",
        "bbb" * 50,
        "x" * 700,
        "q" * 3000,
    ]
)
FOREIGN = st.sampled_from([Word("a"), ("a", 1), Pair("a", 1), b"a", {"a"}, OrderedDict(a=1)])
NAMES = st.sampled_from(["role", "content", "name", "password", "arguments", "tool_calls", "id"])
ARGUMENTS = st.sampled_from(['{"password":"hunter2"}', '{"a":1}', "{"])
VALUES = st.recursive(
    ATOMS | ARGUMENTS | FOREIGN | st.builds(Touchy) | st.builds(Call, id=st.just("c"), arguments=ARGUMENTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4) | st.builds(
    Message,
    content=st.sampled_from(["a", "b", None]),
    tool_calls=st.lists(st.builds(Call, id=st.just("c"), arguments=ARGUMENTS)),
)

Messages = list[Any]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return all places in plain containers, and in those of models: the container, and the key or index."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        if isinstance(container, BaseModel):
            pending += [
                vars(container),
                *([container.model_extra] if container.model_extra is not None else []),
            ]
            continue
        for key in list(container) if type(container) is dict else range(len(container)):
            found.append((container, key))
            if type(container[key]) in (dict, list) or isinstance(container[key], BaseModel):
                pending.append(container[key])
    return found


@st.composite
def changed(draw: Any, messages: Messages) -> Messages:
    """Change a conversation in one of the ways in which programs do: at its end, at any place, or not at all."""
    how = draw(
        st.sampled_from(
            [
                "append",
                "append",
                "append",
                "append",
                "same",
                "copy",
                "json",
                "put",
                "drop",
                "reverse",
                "swap",
                "branch",
                "insert",
            ]
        )
    )
    if how == "append":
        messages += draw(st.lists(MESSAGES, min_size=1, max_size=3))
    elif how == "copy":
        return [copy.deepcopy(message) for message in messages]
    elif how == "json":
        try:
            messages[:] = json.loads(json.dumps(messages))
        except TypeError:
            return list(messages)
    elif how == "branch":
        return [*messages[: len(messages) // 2], *draw(st.lists(MESSAGES, min_size=1, max_size=2))]
    elif how == "insert":
        messages.insert(draw(st.integers(0, len(messages))), draw(MESSAGES))
    elif how == "drop":
        del messages[draw(st.integers(0, len(messages) - 1))]
    elif how == "swap" and len(messages) > 1:
        messages[0], messages[-1] = messages[-1], messages[0]
    elif how in ("put", "reverse"):
        container, key = draw(st.sampled_from(places(messages)))
        if how == "put":
            container[key] = draw(VALUES)
        elif type(container) is dict:
            items = list(container.items())
            container.clear()
            container.update(reversed(items))
    return messages if messages else [draw(MESSAGES)]


@pytest.mark.parametrize("make", PROCESSORS.values(), ids=PROCESSORS)
@given(st.data())
def test_the_json_is_the_same_as_without_a_memory(make: Callable[[], Processor], data: st.DataObject) -> None:
    """Whatever is said, changed in place, made anew, cut off or put in between; no value's own code runs."""
    processor = make()
    remembering, forgetful = Requests(processor, MAX_HISTORY_BYTES), Requests(processor, 0)
    tools = data.draw(st.lists(MESSAGES, max_size=3))
    messages = data.draw(st.lists(MESSAGES, min_size=1, max_size=4))
    for _ in range(data.draw(st.integers(1, 8))):
        arguments = {"model": "m", "messages": messages, "tools": tools, "temperature": 0.5}
        expected = forgetful.encode(arguments, b',"function":"f"')
        got = remembering.encode(arguments, b',"function":"f"')

        assert [joined(part) for part in got] == [joined(part) for part in expected]
        json.loads(joined(got[2]))
        messages = data.draw(changed(messages))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (0, False),
        ("a", Word("a")),
        ([1, 2], (1, 2)),
        ([1, 2], Pair(1, 2)),
        ([1, [2]], [[1], 2]),
        ([[1], []], [[], [1]]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": "x", "b": "x"}, {"b": "x", "a": "x"}),
        ({"a": 1}, {"c": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        ([{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}, {}]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
        ([{"x": [1]}], [{"x": [2]}]),
        ("a", Touchy()),
        ({"a": 1}, {1: 1}),
        ([], {}),
        ("", []),
        ("x" * 80_000, "x" * 79_999 + "y"),
        ("x" * 80_000, None),
        ("x" * 80_000, Word("x" * 80_000)),
        ([1, "x" * 80_000], [None, "x" * 80_000]),
        (["x" * 80_000, "y" * 80_000], ["y" * 80_000, "x" * 80_000]),
    ],
)
@pytest.mark.parametrize("made_anew", [False, True])
@pytest.mark.parametrize("place", [0, 5])
def test_a_change_within_an_earlier_message_is_seen(
    before: Any, after: Any, made_anew: bool, place: int
) -> None:
    """Also one between values that are equal, and whether the other messages are the same objects or made anew."""
    remembering, forgetful = (Requests(PROCESSORS["usual"](), size) for size in (MAX_HISTORY_BYTES, 0))
    messages = conversation(9)
    messages[place]["value"] = before
    for value in (before, after, before):
        messages[place]["value"] = value
        for _ in range(2):
            messages += conversation(2)
            turn = (
                [{**each, "content": f"{each['content']} "[:-1]} for each in messages]
                if made_anew
                else messages
            )
            arguments = {"messages": turn}

            assert joined(remembering.encode(arguments, b"")[2]) == joined(
                forgetful.encode(arguments, b"")[2]
            )


@pytest.mark.parametrize("nested", [False, True])
def test_a_change_within_an_object_is_seen(nested: bool) -> None:
    """Of its fields and of those that its class does not know, as a message and inside one."""
    remembering, forgetful = (Requests(PROCESSORS["usual"](), size) for size in (MAX_HISTORY_BYTES, 0))
    call = Call(id="c", arguments="{}")
    model = Message(content="a", tool_calls=[call])
    messages: Messages = [*conversation(4), {"role": "assistant", "content": [model]} if nested else model]
    changes: list[Callable[[], Any]] = [
        lambda: setattr(model, "content", "b"),
        lambda: setattr(call, "arguments", '{"a":1}'),
        lambda: setattr(call, "unknown", "c"),
        lambda: setattr(call, "unknown", "d"),
        lambda: model.tool_calls.append(Call(id="d", arguments="{}")),
        lambda: vars(model).pop("role"),
        lambda: setattr(model, "__dict__", {"content": "e"}),
    ]
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            messages += conversation(2)
            arguments = {"messages": messages}

            assert joined(remembering.encode(arguments, b"")[2]) == joined(
                forgetful.encode(arguments, b"")[2]
            )


def test_a_change_of_the_latest_message_leaves_those_before_it_remembered() -> None:
    """As where a mark of the provider's cache moves on with each turn."""
    requests = Requests(PROCESSORS["usual"](), MAX_HISTORY_BYTES)
    messages = conversation(50, 1_000)
    _, _, (_, before, _) = requests.encode({"messages": messages}, b"")
    for number in range(3):
        messages += conversation(2, 1_000)
        requests.encode({"messages": messages}, b"")
        messages[-1]["cache_control"] = {"type": "ephemeral", "turn": number}
        pieces = requests.encode({"messages": messages}, b"")[2]

        assert any(piece is before for piece in pieces)
        assert json.loads(joined(pieces))["messages"] == messages


@pytest.mark.parametrize("depth", [0, 5_000])
def test_a_message_without_an_end_is_recorded(depth: int) -> None:
    """A list that holds itself, or lists in lists without number."""
    endless: list[Any] = []
    endless.append(endless)
    for _ in range(depth):
        endless = [endless]
    said = content(
        Requests(PROCESSORS["usual"](), MAX_HISTORY_BYTES), [{"role": "user", "content": "q"}, endless]
    )

    assert said["messages"][0] == {"role": "user", "content": "q"}
    assert len(said["messages"]) == 2


def joined(part: bytes | tuple[bytes, ...]) -> bytes:
    """Return a part of a request in one piece."""
    return part if isinstance(part, bytes) else b"".join(part)


def content(requests: Requests, messages: Messages) -> Any:
    """Return the content of a request."""
    return json.loads(joined(requests.encode({"messages": messages}, b"")[2]))


def conversation(count: int, size: int = 20, start: str = "q") -> Messages:
    """Return messages with a number in each."""
    return [{"role": "user", "content": f"{start} {n} " + "x" * size} for n in range(count)]


def test_a_request_that_is_too_large_keeps_its_first_message_and_the_newest() -> None:
    """An item in between says how many are missing; the last message is the question itself."""
    requests = Requests(Processor(max_event_bytes=100_000, sample_rate=1), MAX_HISTORY_BYTES)
    messages = conversation(5_000)
    kept = content(requests, messages)["messages"]
    first, note, *newest = kept

    assert first == messages[0]
    assert newest == messages[-len(newest) :]
    assert note == f"[cut {5_000 - 1 - len(newest):,} items]"
    assert 50_000 < len(json.dumps(kept)) < 100_000


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_message_that_is_too_large_alone_is_cut(place: int) -> None:
    """Wherever it stands, the first one and the last one are there."""
    requests = Requests(Processor(max_event_bytes=100_000, sample_rate=1), MAX_HISTORY_BYTES)
    messages = conversation(3)
    messages[place]["content"] += "y" * 300_000
    kept = content(requests, messages)["messages"]

    assert kept[0]["content"].startswith("q 0 ")
    assert kept[-1]["content"].startswith("q 2 ")
    assert len(json.dumps(kept)) < 100_000


def test_what_is_remembered_is_bounded() -> None:
    """Conversations beyond the bound push out earlier ones."""
    requests = Requests(PROCESSORS["usual"](), 1 << 20)
    tracemalloc.start()
    try:
        for number in range(60):
            messages: Messages = []
            for turn in range(5):
                messages += conversation(2, 10_000, f"{number} {turn}")
                requests.encode({"messages": messages}, b"")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 3 << 20


@pytest.mark.parametrize(
    "part",
    [
        "word " * 4_000_000,
        {"type": "text", "text": "word " * 4_000_000},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgoA" * 1_500_000}},
    ],
    ids=["message", "text", "image"],
)
def test_what_is_recorded_in_part_is_not_kept_whole(part: Any) -> None:
    """A long text is cut and an image is its hash: neither lives on in the memory for its few bytes of JSON."""
    requests = Requests(PROCESSORS["usual"](), MAX_HISTORY_BYTES)
    question = {"role": "user", "content": "What is this?"}
    tracemalloc.start()
    try:
        part = json.loads(json.dumps(part))
        message = {"role": "user", "content": part if isinstance(part, str) else [part]}
        requests.encode({"messages": [question, message]}, b"")
        requests.encode({"messages": [question, message, question]}, b"")
        del message, part
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 8 << 20


def test_nothing_is_kept_of_requests_that_are_never_alike() -> None:
    """A program that asks a new question each time, with nothing before it, has no use for a memory."""
    requests = Requests(PROCESSORS["usual"](), MAX_HISTORY_BYTES)
    tracemalloc.start()
    try:
        for number in range(2_000):
            requests.encode({"messages": conversation(2, 1_000, str(number))}, b"")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 1 << 20


def test_threads_share_what_is_remembered() -> None:
    """Each gets the JSON of its own messages, also while another one changes what they have in common."""
    requests = Requests(PROCESSORS["usual"](), MAX_HISTORY_BYTES)
    common = conversation(20)
    wrong: list[str] = []
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            common[number % 20]["content"] = f"changed {number}"

    def talk(name: str) -> None:
        own = list(common)
        for turn in range(200):
            own.append({"role": "user", "content": f"{name} {turn}"})
            said = content(requests, own)["messages"]
            if [each["content"] for each in said[20:]] != [f"{name} {n}" for n in range(turn + 1)]:
                wrong.append(f"{name} {turn}")

    talkers = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    changer = threading.Thread(target=change)
    for thread in (changer, *talkers):
        thread.start()
    for thread in talkers:
        thread.join()
    stop.set()
    changer.join()

    assert not wrong
    assert content(requests, common)["messages"] == common
