"""Any value becomes safe JSON."""

from __future__ import annotations

import array
import asyncio
import contextlib
import datetime
import decimal
import fractions
import functools
import gc
import io
import ipaddress
import itertools
import json
import logging
import math
import pathlib
import re
import socket
import sys
import threading
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import httpx
import numpy as np
import pydantic
import pytest
import wrapt
from google.protobuf import descriptor_pb2, struct_pb2
from hypothesis import example, given
from strategies import (
    STEADY,
    Account,
    Address,
    Card,
    Cart,
    Color,
    Declined,
    Defined,
    Empty,
    Flexible,
    Folder,
    Level,
    Mixed,
    Model,
    Moment,
    Movie,
    Number,
    Old,
    Open,
    Permission,
    Point,
    Real,
    Renamed,
    Root,
    Rows,
    Slots,
    Slotted,
    Struct,
    Table,
    Whole,
    Words,
    Zone,
    hiding_values,
    json_values,
    python_values,
    texts,
)

from whyops_trace._values import encoding, mending
from whyops_trace._values.encoding import encoder, string
from whyops_trace._values.mending import CHANGING, CIRCULAR, TOO_DEEP, plain, plain_view
from whyops_trace._values.processor import REDACTED, Redactor
from whyops_trace._values.reflection import TOO_MANY, name_of

hides = Redactor().hides
encode = encoder(hides)


def decoded(value: object) -> Any:
    """Return what a reader of the encoded value gets, after checking that it is one safe line."""
    line = encode(value)

    assert type(line) is bytes
    assert b"\n" not in line
    assert b"\0" not in line
    assert b"\\u0000" not in line
    return json.loads(line)


def kind(value: object) -> str:
    """Name a test case."""
    return type(value).__name__


def mended(value: Any) -> Any:
    """Say in the plainest way what should become of a JSON-ish value."""
    match value:
        case None | bool():
            return value
        case str():
            joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: decode_pair(pair[0]), value)
            return re.sub("[\0\ud800-\udfff]", "\ufffd", joined)
        case int():
            return value if abs(value) <= 2**53 else str(value)
        case float():
            if math.isnan(value):
                return "NaN"
            return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
        case list() | tuple():
            return [mended(item) for item in value]
        case _:
            return {
                mended(key): "[redacted]"
                if hides(mended(key)) and not isinstance(item, bool | None)
                else mended(item)
                for key, item in value.items()
            }


def decode_pair(pair: str) -> str:
    high, low = map(ord, pair)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


@STEADY
@given(json_values)
@example({"a\0": "b", "password": ["s"], "token": None, "\ud83d\ude00": "\ude00\ud83d"})
@example([1, [2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 10**400], math.inf, -math.inf, math.nan, 5e-324])
def test_json_values_arrive_as_they_were_but_for_mending(value: Any) -> None:
    """What a server can hold is kept, what it would lose or change is mended, secrets are replaced."""
    assert decoded(value) == mended(value)
    assert plain(value, hides) == mended(value)


@STEADY
@given(python_values)
def test_any_value_is_encoded_and_both_forms_agree(value: Any) -> None:
    """Objects of many kinds, nested in one another, become one line that says the same as the plain copy."""
    line = encode(value)
    copy = plain(value, hides)

    assert json.loads(line) == copy
    assert json.loads(json.dumps(copy, allow_nan=False)) == copy
    assert b"\n" not in line
    assert b"\\u0000" not in line


@STEADY
@given(json_values | python_values | hiding_values)
def test_a_value_is_its_own_plain_copy_only_if_no_part_of_it_changes(value: Any) -> None:
    """Whoever only reads a value is given the same as a copy of it, down to the types, with secrets replaced."""
    view, copy = plain_view(value, hides), plain(value, hides)

    assert repr(view) == repr(copy)


def test_a_value_that_holds_itself_is_no_plain_copy() -> None:
    """Neither a circle nor a value that holds the same one many times over keeps a reader busy."""
    circle: list[Any] = []
    circle += [circle, circle]
    many: list[Any] = []
    for _ in range(60):
        many = [many, many]

    assert plain_view(circle, hides) == [CIRCULAR, CIRCULAR]
    assert len(json.dumps(plain_view(many, hides))) < 1_000_000


@STEADY
@given(texts)
def test_a_string_is_encoded_as_it_is_inside_a_value(text: str) -> None:
    """The names that a record's own fields hold are mended like any other text."""
    assert json.loads(string(text)) == mended(text)
    assert string(text) == encode(text)


@pytest.mark.parametrize("encode", [encode, encoding.encode], ids=["of a call", "of a program"])
def test_a_nul_is_replaced_in_keys_as_in_texts(encode: Callable[[object], bytes]) -> None:
    """No server stores one."""
    assert json.loads(encode({"a\0b": "c\0d"})) == {"a\ufffdb": "c\ufffdd"}
    assert json.loads(encode({"to\0ken": True})) == {"to\ufffdken": True}


def test_ordinary_values_are_encoded_without_a_copy() -> None:
    """Builtin data is unbounded in width, and its secrets' absence may be told."""
    wide = {
        "rows": [{"n": n, "ok": True, "token": None, "password": False} for n in range(mending.MAX_NODES)]
    }

    assert decoded(wide) == wide


def charge(amount: int) -> int:
    return amount


def numbers() -> Iterator[int]:
    yield 1


HERE = __name__
ONE_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
MOMENT = datetime.datetime(2026, 11, 21, 22, 30, 5, 123000)  # noqa: DTZ001 - a naive one is meant


def struct_of(values: dict[str, Any]) -> struct_pb2.Struct:
    """Return JSON as a message."""
    made = struct_pb2.Struct()
    made.update(values)
    return made


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("\ud83d\ude00 \ud83d x\0", "\U0001f600 \ufffd x\ufffd"),
        (Words("w\0"), "w\ufffd"),
        (True, True),
        (None, None),
        (2**53, 2**53),
        (-(2**53) - 1, "-9007199254740993"),
        (10**5000, hex(10**5000)),
        (Whole(5), 5),
        (Whole(2**60), str(2**60)),
        (Real(1.5), 1.5),
        (Real("nan"), "NaN"),
        (1 + 2j, "(1+2j)"),
        (decimal.Decimal("1.50"), "1.50"),
        (fractions.Fraction(3, 4), "3/4"),
        (b"text\n", "text\n"),
        (b"\xff\x00", {"base64": "/wA=", "bytes": 2}),
        (b"a\x00", {"base64": "YQA=", "bytes": 2}),
        (bytearray(b"text"), "text"),
        (memoryview(b"text")[::2], "tx"),
        (MOMENT, "2026-11-21T22:30:05.123000"),
        (MOMENT.replace(tzinfo=datetime.UTC), "2026-11-21T22:30:05.123000+00:00"),
        (MOMENT.replace(tzinfo=zoneinfo.ZoneInfo("UTC")), "2026-11-21T22:30:05.123000+00:00"),
        (MOMENT.replace(tzinfo=Zone()), "2026-11-21T22:30:05.123000[strategies.Zone]"),
        (Moment(2026, 1, 2), "2026-01-02T00:00:00"),
        (MOMENT.date(), "2026-11-21"),
        (MOMENT.time(), "22:30:05.123000"),
        (datetime.time(1, tzinfo=datetime.UTC), "01:00:00+00:00"),
        (datetime.time(1, tzinfo=Zone()), "01:00:00[strategies.Zone]"),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        (ONE_UUID, str(ONE_UUID)),
        (pathlib.PurePosixPath("/a/b", "c"), "/a/b/c"),
        (pathlib.PureWindowsPath("C:\\a", "b"), "C:\\a\\b"),
        (Folder("a", "b"), "a/b"),
        (Level.LOW, "low"),
        (Level.PAIR, [1, "x"]),
        (Number.ONE, 1),
        (Color.RED, "red"),
        (Permission.READ | Permission.WRITE, 3),
        (re.compile("a+"), "a+"),
        (re.compile(b"a+"), "a+"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (ipaddress.ip_interface("fe80::1/64"), "fe80::1/64"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (Address("10.0.0.1"), "<strategies.Address>"),
        (zoneinfo.ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (httpx.URL("https://a.test/b"), "https://a.test/b"),
        (pydantic.HttpUrl("https://a.test/b?c=1"), "https://a.test/b?c=1"),
        (pydantic.PostgresDsn("postgres://h/d"), "postgres://h/d"),
        (struct_pb2.Value(null_value=struct_pb2.NULL_VALUE), None),
    ],
    ids=kind,
)
def test_scalars(value: object, expected: object) -> None:
    """Everything that is one thing becomes a JSON scalar, or says what it was."""
    assert decoded(value) == expected
    assert plain(value, hides) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, [2]), [1, [2]]),
        (Rows([1, 2]), [1, 2]),
        ({3}, [3]),
        (frozenset({3}), [3]),
        (deque([1, 2], maxlen=2), [1, 2]),
        (array.array("d", [1.5]), [1.5]),
        (range(3), [0, 1, 2]),
        (Table(a=1), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Movie(title="x"), {"title": "x"}),
        (UserDict(a=1), {"$type": "collections.UserDict", "data": {"a": 1}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (types.MappingProxyType(UserDict(a=1)), {"$type": "collections.UserDict", "data": {"a": 1}}),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), {"a": 1}),
        (OrderedDict(a=1).items(), {"a": 1}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Old("p", "q"), {"a": "p", "b": "q"}),
    ],
    ids=kind,
)
def test_containers(value: object, expected: object) -> None:
    """Whatever holds a row of items is a list, whatever holds names is an object."""
    assert decoded(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Card(4111, "p4ss"), {"number": 4111, "password": REDACTED, "_kind": "visa"}),
        (
            Slotted(1, [Card(2, "p")]),
            {"n": 1, "cards": [{"number": 2, "password": REDACTED, "_kind": "visa"}]},
        ),
        (Defined(1), {"x": 1, "_y": "q"}),
        (Open(1), {"x": 1, "_y": "q", "z": 3}),
        (Struct(1, ["t"]), {"a": 1, "tags": ["t"]}),
        (
            Model(
                name="n",
                when=MOMENT,
                key=pydantic.SecretStr("k"),
                inner=Model(name="i", when=MOMENT, key=pydantic.SecretStr("k")),
            ),
            {
                "name": "n",
                "when": MOMENT.isoformat(),
                "key": REDACTED,
                "raw": REDACTED,
                "inner": {
                    "name": "i",
                    "when": MOMENT.isoformat(),
                    "key": REDACTED,
                    "raw": REDACTED,
                    "inner": None,
                },
            },
        ),
        (
            Flexible.model_validate({"a": 1, "token": "t", "more": Point(1, 2)}),
            {"a": 1, "token": REDACTED, "more": {"x": 1, "y": 2}},
        ),
        (Flexible.model_construct(a=1), {"a": 1}),
        (Root([1, 2]), [1, 2]),
        (pydantic.SecretStr("s"), REDACTED),
        (pydantic.Secret[int](5), REDACTED),
        (
            descriptor_pb2.FileDescriptorProto(
                name="f", dependency=["d"], message_type=[descriptor_pb2.DescriptorProto(name="m")]
            ),
            {"name": "f", "dependency": ["d"], "message_type": [{"name": "m"}]},
        ),
        (struct_of({"a": 1.5, "password": "p"}), {"a": 1.5, "password": REDACTED}),
        (struct_of({"list": [None, {"b": True}, []]}), {"list": [None, {"b": True}, []]}),
        (struct_of({}), {}),
        (
            pydantic.TypeAdapter(datetime.datetime).validate_python("2026-01-02T03:04:05+02:00"),
            "2026-01-02T03:04:05+02:00",
        ),
    ],
    ids=kind,
)
def test_objects_with_declared_fields(value: object, expected: object) -> None:
    """Dataclasses, attrs classes, structs, models and messages are objects of their fields; no code of theirs runs."""
    assert decoded(value) == expected


@pytest.mark.parametrize("kind", [httpx.URL, pydantic.PostgresDsn])
def test_a_password_in_a_url_is_hidden(kind: Callable[[str], object]) -> None:
    """As in a text."""
    assert decoded(kind("postgres://u:pa55word@h/d")) == f"postgres://u:{REDACTED}@h/d"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic 1 does not run on this Python")
def test_models_of_pydantic_1() -> None:
    """The second version has the first one with it, and some programs still use that."""
    import pydantic.v1

    class Earlier(pydantic.v1.BaseModel):
        a: int = 0
        inner: Any = None
        key: pydantic.v1.SecretStr = pydantic.v1.SecretStr("k")

        class Config:
            extra = "allow"

    inner = {"a": 0, "inner": None, "key": REDACTED}
    assert decoded(Earlier.parse_obj({"a": 1, "inner": Earlier(), "more": "m"})) == {
        **inner,
        "a": 1,
        "inner": inner,
        "more": "m",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.float64("nan"), "NaN"),
        (np.int64(2**60), str(2**60)),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (np.longdouble(1.5), "1.5"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(5), 5),
        (np.array([Empty(), "s"]), ["<strategies.Empty>", "s"]),
        (np.zeros((16, 16)), [[0.0] * 16] * 16),
        (
            np.zeros((16, 17), dtype="float32"),
            {"shape": [16, 17], "dtype": "float32", "head": [0.0] * 8},
        ),
        (np.ma.masked_array([1, 2]), {"shape": [2], "dtype": "int64"}),
    ],
    ids=kind,
)
def test_numpy(value: object, expected: object) -> None:
    """Scalars are numbers, small arrays are lists, of large ones shape, type and head are told."""
    assert decoded(value) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad", 3), {"type": "ValueError", "message": "('bad', 3)"}),
        (ValueError("bad"), {"type": "ValueError", "message": "bad"}),
        (ValueError("bad", Empty()), {"type": "ValueError", "message": "bad"}),
        (ValueError(), {"type": "ValueError", "message": ""}),
        (KeyError("k"), {"type": "KeyError", "message": "'k'"}),
        (Renamed("k"), {"type": "strategies.Renamed", "message": "'k'"}),
        (Declined("no", 1, Words("funds")), {"type": "strategies.Declined", "message": "no, funds"}),
        (OSError(2, "No file", "/x"), {"type": "FileNotFoundError", "message": "[Errno 2] No file: '/x'"}),
        (OSError(2, "No file", Empty()), {"type": "FileNotFoundError", "message": "No file"}),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
            {
                "type": "UnicodeDecodeError",
                "message": "'utf-8' codec can't decode byte 0xff in position 0: bad byte",
            },
        ),
        (ExceptionGroup("many", [ValueError()]), {"type": "ExceptionGroup", "message": "many"}),
        (KeyboardInterrupt(), {"type": "KeyboardInterrupt", "message": ""}),
    ],
    ids=kind,
)
def test_exceptions(error: BaseException, expected: object) -> None:
    """An exception tells its type and message, as far as no code of its class is needed."""
    assert decoded(error) == expected


async def forever() -> None:
    await asyncio.Event().wait()


async def stream() -> Any:
    yield 1


class Shop:
    def open(self) -> None:
        pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (charge, f"<function {HERE}.charge>"),
        (Shop.open, f"<function {HERE}.Shop.open>"),
        (Shop().open, f"<method {HERE}.Shop.open>"),
        (types.MethodType(len, []), "<method len>"),
        (types.MethodType(Shop, 1), "<method>"),
        (math.sqrt, "<function math.sqrt>"),
        ([].append, "<function append>"),
        (Shop, f"<class {HERE}.Shop>"),
        (int, "<class int>"),
        (Level, "<class strategies.Level>"),
        (json, "<module json>"),
        (functools.partial(charge, 1), "<functools.partial>"),
        (numbers(), f"<generator {HERE}.numbers>"),
        (stream(), f"<async_generator {HERE}.stream>"),
        (iter([1]), "<list_iterator>"),
        (zip([1], [2], strict=True), "<zip>"),
        (itertools.count(), "<itertools.count>"),
        (io.StringIO("text"), "<StringIO>"),
        (threading.Lock(), "<lock>"),
        (threading.Event(), "<threading.Event>"),
        (Empty(), "<strategies.Empty>"),
        (object(), "<object>"),
        (..., "<ellipsis>"),
        (wrapt.ObjectProxy(Account(name="x")), f"<{name_of(wrapt.ObjectProxy)}>"),
    ],
    ids=kind,
)
def test_what_is_no_data_is_named(value: object, expected: str) -> None:
    """Code, iterators, files and locks are told by a name."""
    assert decoded(value) == expected


def test_what_runs_or_is_open_stays_untouched() -> None:
    """Nothing is consumed, awaited, read or closed."""
    generator, coroutine, text = numbers(), forever(), io.StringIO("text")
    with socket.socket() as opened:
        result = decoded([generator, coroutine, text, opened])

    assert result == [
        f"<generator {HERE}.numbers>",
        f"<coroutine {HERE}.forever>",
        "<StringIO>",
        "<socket.socket>",
    ]
    assert next(generator) == 1
    assert text.read() == "text"
    coroutine.close()
    assert decoded(coroutine) == "<coroutine forever>"


def test_other_objects_tell_their_public_attributes() -> None:
    """Of an unknown class the state is told one level deep, known things inside it in full."""
    assert decoded(Cart()) == {
        "$type": "strategies.Cart",
        "id": 7,
        "owner": "<strategies.Account>",
        "rows": ["<strategies.Account>", {"number": 1, "password": REDACTED, "_kind": "visa"}],
    }
    assert [item["id"] for item in decoded([Cart(), Cart()])] == [7, 7]


def test_slots_are_attributes() -> None:
    """State counts wherever a class keeps it; an empty slot is none."""
    assert decoded(Slots()) == {"$type": "strategies.Slots", "full": 1}
    assert decoded(Mixed()) == {"$type": "strategies.Mixed", "full": 1, "extra": 3}
    assert decoded(types.SimpleNamespace(a=1)) == {"$type": "types.SimpleNamespace", "a": 1}


def test_only_so_many_attributes_are_told() -> None:
    """An object with hundreds of attributes is cut short, and says so."""
    result = decoded(Account(**{f"a{n}": n for n in range(51)}))

    assert len(result) == 52
    assert result["a49"] == 49
    assert result["..."] == TOO_MANY


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("k\0", "k\ufffd"),
        (Words("k"), "k"),
        (1, "1"),
        (2**60, str(2**60)),
        (1.5, "1.5"),
        (math.nan, "NaN"),
        (True, "true"),
        (None, "null"),
        (Level.LOW, "low"),
        (ONE_UUID, str(ONE_UUID)),
        (MOMENT.date(), "2026-11-21"),
        (b"k", "k"),
        ((1, "a"), '[1,"a"]'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Account(), "<strategies.Account>"),
        (Cart(), "<strategies.Cart>"),
        (Shop, f"<class {HERE}.Shop>"),
    ],
    ids=kind,
)
def test_keys(key: object, expected: str) -> None:
    """A key of any kind becomes the text that its value would be."""
    assert decoded({key: 1}) == {expected: 1}
    assert decoded({"nested": [{key: 1}]}) == {"nested": [{expected: 1}]}


def test_of_colliding_keys_the_last_is_kept() -> None:
    """Two keys with one text are one key."""
    assert decoded({1: "first", "1": "last"}) == {"1": "last"}


def test_cycles_are_cut() -> None:
    """What contains itself is told once; what merely occurs twice is told twice."""
    row: list[Any] = [1]
    row.append({"row": row})
    cart = Account(name="x")
    cart.self = cart  # type: ignore[attr-defined]
    error = ValueError("x")
    error.args = (error,)
    shared = [1]

    assert decoded(row) == [1, {"row": CIRCULAR}]
    assert decoded(cart) == {"$type": "strategies.Account", "name": "x", "self": CIRCULAR}
    assert decoded(types.MappingProxyType({"row": row})) == {"row": [1, {"row": CIRCULAR}]}
    assert decoded(error) == {"type": "ValueError", "message": ""}
    assert decoded([shared, shared, {1}]) == [[1], [1], [1]]


@pytest.mark.parametrize("leaf", [1, "\0"], ids=["flawless", "flawed"])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner}])
def test_depth_is_bounded(wrap: Callable[[object], object], leaf: object) -> None:
    """64 containers in one another are kept, and one more is named, whether or not there is something to mend."""
    value = functools.reduce(lambda inner, _: wrap(inner), range(mending.MAX_DEPTH), leaf)

    assert TOO_DEEP.encode() not in encode(value)
    assert encode(wrap(value)).count(TOO_DEEP.encode()) == 1


def test_endless_depth_is_bounded() -> None:
    """A structure far deeper than the stack is cut as well."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert encode(deep) == b"[" * mending.MAX_DEPTH + b'"[too deep]"' + b"]" * mending.MAX_DEPTH


def test_mended_copies_are_bounded() -> None:
    """A flaw in a huge value does not make a huge copy: what is left out of each container is told."""
    nodes = mending.MAX_NODES

    assert decoded(range(10**12)) == "range(0, 1000000000000)"
    assert decoded(Counter(map(str, range(nodes * 2)))) == Counter(map(str, range(nodes - 1))) | {
        "...": TOO_MANY
    }
    kept = ["\ufffd"] * (nodes // 2 - 1)
    assert decoded([["\0"] * nodes, 1]) == [[*kept, "[cut 2 items]", *kept], "[cut 1 item]"]


class Watch:
    """Counts every access to objects and classes made with it, and fails each."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def trap(self, name: str) -> Callable[..., Any]:
        def trapped(*args: object, **kwargs: object) -> Any:
            self.seen.append(name)
            raise RuntimeError(name)

        return trapped


METHODS = """
    __getattribute__ __getattr__ __len__ __eq__ __ne__ __lt__ __hash__ __repr__ __str__ __bytes__ __format__ __bool__
    __iter__ __next__ __reversed__ __contains__ __getitem__ __missing__ __index__ __int__ __float__ __complex__
    __call__ __enter__ __aiter__ __anext__ __await__ __dir__ __reduce_ex__ __sizeof__ __fspath__ __length_hint__
    __array__ __json__ __copy__ __deepcopy__ __instancecheck__ __subclasscheck__ __subclasshook__
    keys values items get copy dict to_dict model_dump isoformat tolist read total_seconds utcoffset as_posix
"""


def hostile(watch: Watch, *bases: type, **namespace: object) -> Any:
    """Make a class of which nothing can be asked, nor of its metaclass."""
    traps = {name: watch.trap(name) for name in METHODS.split()}
    meta = type("Meta", (type,), {name: trap for name, trap in traps.items() if name != "__call__"})
    lies = {name: property(watch.trap(name)) for name in ("__class__", "__doc__")}
    return meta("Hostile", bases, traps | lies | {"__module__": HERE} | namespace)


NAME = f"{HERE}.Hostile"


@pytest.mark.parametrize(
    ("base", "arguments", "expected"),
    [
        (object, (), f"<{NAME}>"),
        (str, ("text",), "text"),
        (int, (5,), 5),
        (float, (1.5,), 1.5),
        (complex, (1j,), "1j"),
        (bytes, (b"text",), "text"),
        (bytearray, (b"text",), "text"),
        (tuple, ([1, 2],), [1, 2]),
        (Point, (1, 2), {"x": 1, "y": 2}),
        (frozenset, ([1],), [1]),
        (set, ([1],), [1]),
        (list, ([1, 2],), [1, 2]),
        (deque, ([1, 2],), [1, 2]),
        (dict, ({"a": 1},), {"a": 1}),
        (OrderedDict, ({"a": 1},), {"a": 1}),
        (datetime.datetime, (2026, 1, 2), "2026-01-02T00:00:00"),
        (datetime.date, (2026, 1, 2), "2026-01-02"),
        (datetime.time, (1,), "01:00:00"),
        (datetime.timedelta, (1,), 86400.0),
        (decimal.Decimal, ("1.5",), "1.5"),
        (io.StringIO, ("text",), f"<{NAME}>"),
        (types.ModuleType, ("shop",), "<module shop>"),
        (ValueError, ("bad",), {"type": NAME, "message": "bad"}),
    ],
    ids=kind,
)
def test_no_code_of_a_class_runs(base: Any, arguments: tuple[Any, ...], expected: object) -> None:
    """Even if every special method of an object, and of its class, is overridden, none is called."""
    watch = Watch()
    cls = hostile(watch, base)
    value = base.__new__(cls, *arguments)
    if base.__init__ is not object.__init__:
        base.__init__(value, *arguments)
    watch.seen.clear()

    assert decoded(value) == expected
    assert decoded({"nested": [value]}) == {"nested": [expected]}
    assert decoded(cls) == f"<class {NAME}>"
    assert plain(value, hides) == expected
    assert watch.seen == []


def test_no_code_of_a_key_runs() -> None:
    """A key is not hashed or compared again."""
    watch = Watch()
    key = hostile(watch, object, __hash__=lambda self: 1)()
    value = {key: 1, **{Account(): n for n in range(3)}}

    assert decoded(value) == {f"<{NAME}>": 1, "<strategies.Account>": 2}
    assert decoded(Account(__dict__=value, **{"field": {key: 1}})) == {
        "$type": "strategies.Account",
        "field": {f"<{NAME}>": 1},
    }
    assert watch.seen == []


def test_no_code_of_an_error_or_its_arguments_runs() -> None:
    """Neither the exception's own text nor that of what it was raised with is asked for."""
    watch = Watch()
    argument = hostile(watch, object)()

    assert decoded(OSError(2, "No file", argument)) == {"type": "FileNotFoundError", "message": "No file"}
    assert decoded(StopIteration(argument)) == {"type": "StopIteration", "message": ""}
    assert decoded(hostile(watch, KeyError)("k")) == {"type": NAME, "message": "k"}
    assert watch.seen == []


def test_a_lazy_proxy_stays_unresolved() -> None:
    """Looking at a proxy would run what it stands for."""
    resolved = []

    class LazyObject:
        """As Django has it."""

        _wrapped = None

        def __init__(self, setup: Callable[[], object]) -> None:
            self.__dict__["_setup"] = setup

        def __getattr__(self, name: str) -> Any:
            return getattr(self._setup(), name)

        __class__ = property(lambda self: self._setup().__class__)
        __iter__ = property(lambda self: self._setup().__iter__)

    class LocalProxy:
        """As Werkzeug has it."""

        __slots__ = ("__wrapped", "_get_current_object")
        __dict__ = property(lambda self: resolved.append("dict"))
        __class__ = property(lambda self: resolved.append("class"))

        def __init__(self, get: Callable[[], object]) -> None:
            object.__setattr__(self, "_get_current_object", get)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._get_current_object(), name)

    def resolve() -> object:
        resolved.append("resolve")
        return [1]

    lazy = [LazyObject(resolve), LocalProxy(resolve)]
    if hasattr(wrapt, "LazyObjectProxy"):  # since wrapt 2
        lazy.append(wrapt.LazyObjectProxy(resolve))

    assert all(re.fullmatch("<.*Lazy.*>|<.*LocalProxy>", named) for named in decoded(lazy))
    assert resolved == []


def test_a_mock_records_nothing() -> None:
    """A test's mocks see the calls of the tested program only."""
    mocks = [Mock(), MagicMock(name="cart", items=3), AsyncMock(), MagicMock(spec=Cart)]

    assert decoded(mocks) == [f"<unittest.mock.{kind(mock)}>" for mock in mocks]
    assert [mock.mock_calls for mock in mocks] == [[], [], [], []]
    assert [mock._mock_children for mock in mocks] == [{}, {}, {}, {}]


def test_a_namesake_of_a_known_class_is_no_such_class() -> None:
    """What is recognised by name must be what its module has under this name."""
    for module, name in [("numpy", "ndarray"), ("pydantic.types", "SecretStr"), ("nowhere", "ndarray")]:
        cls = type(name, (), {"__module__": module, "tolist": None})

        assert decoded(cls()) == f"<{module}.{name}>"


def test_classes_with_odd_names() -> None:
    """A class may lack its module, or have any object for it, or a name with characters that a server refuses."""
    homeless: dict[str, Any] = {}
    exec("Bare = type('Bare', (), {})", homeless)
    bare, odd = homeless["Bare"], type("Odd", (), {"__module__": 5})
    odd.__qualname__ = Words("Odd\ud800\0")

    assert decoded(bare()) == "<Bare>"
    assert decoded(odd()) == "<Odd\ufffd\ufffd>"
    assert decoded({"k": Account(o=odd())}) == {
        "k": {"$type": "strategies.Account", "o": "<Odd\ufffd\ufffd>"}
    }


def test_a_class_that_is_no_object() -> None:
    """A metaclass may leave even ``object`` out of its classes' ancestors."""
    meta = type("Meta", (type,), {"mro": lambda cls: [cls, Empty]})
    alone = meta("Alone", (Empty,), {"__module__": HERE})
    value = Empty()
    value.__class__ = alone

    assert decoded(value) == f"<{HERE}.Alone>"


def test_classes_with_odd_fields() -> None:
    """Declarations of fields that are none are passed over, so is a slot that belongs to another class."""
    not_a_dataclass = type("A", (), {"__dataclass_fields__": property(lambda self: 1), "__module__": HERE})
    not_attrs = type("B", (), {"__attrs_attrs__": 5, "__module__": HERE})
    alien = type("C", (), {"__slots__": (), "__module__": HERE})
    alien.full = vars(Slots)["full"]  # type: ignore[attr-defined]
    not_named = type("D", (tuple,), {"_fields": ("a", "b")})

    assert decoded([not_a_dataclass(), not_attrs(), alien()]) == [f"<{HERE}.{name}>" for name in "ABC"]
    assert decoded(not_named([1])) == [1]


def test_a_released_memoryview() -> None:
    """There is nothing left to read in it."""
    view = memoryview(b"text")
    view.release()

    assert decoded(view) == "<memoryview>"


@pytest.mark.internal_errors
def test_what_cannot_be_read_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The last resort costs one object, and says so in the log."""
    broken = type("Broken", (), {"__dict__": vars(Account)["__dict__"], "__module__": HERE})

    with caplog.at_level(logging.ERROR, "whyops_trace"):
        result = decoded({"a": broken(), "b": 1})

    assert result == {"a": f"<unencodable {HERE}.Broken>", "b": 1}
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "Internal error while reading a value"
    ]


def test_interrupts_pass() -> None:
    """Only an Exception is ours to handle."""

    def interrupted(key: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder(interrupted)({"k": 1})
    with pytest.raises(KeyboardInterrupt):
        encoder(interrupted)({"k": {1}})


@pytest.mark.parametrize(
    "value",
    [
        {"a": [{"b": (1, "x")}]},
        {"a": [{"b": {1}}], "password": 1},
        {"when": MOMENT, "cart": Cart(), "model": Flexible(a=1), (1, 2): [decimal.Decimal(1)]},
        ValueError("x"),
    ],
    ids=["flawless", "flawed", "objects", "error"],
)
def test_a_stack_nearly_used_up(value: object, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever the caller can make one more call, it gets an answer, if a shallow one, and never RecursionError."""
    answers: list[bytes] = []

    def call() -> None:
        """Find out whether one more call is possible."""

    def dive() -> None:
        with contextlib.suppress(RecursionError):
            dive()
        try:
            call()
        except RecursionError:
            return
        answers.append(encode(value))

    dive()

    assert encode(value) == answers[-1]
    assert b'"[too deep]"' in answers
    assert all(json.loads(answer) for answer in answers)
    assert caplog.records == []


def test_containers_that_another_thread_changes() -> None:
    """A value in use elsewhere is encoded as it is at some moment."""
    shared: dict[str, Any] = {"rows": [], "table": {}, "bag": set(), "queue": deque(), "odd": {1: 1}}
    done = threading.Event()

    def change() -> None:
        for n in itertools.cycle(range(50)):
            shared["table"][f"k{n}"] = shared["rows"]
            shared["bag"].add(n)
            shared["queue"].append(n)
            shared["rows"].append(n)
            if n == 49:
                for container in shared.values():
                    container.clear()
            if done.is_set():
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(500):
            assert decoded(shared).keys() == shared.keys()
            assert decoded({"table": shared["table"]}).keys() == {"table"}
    finally:
        done.set()
        thread.join()


def test_a_container_that_changes_whenever_it_is_read() -> None:
    """If a finaliser changes it each time, it is said that it cannot be read."""
    table = {(n,): n for n in range(100)}
    left = list(range(1000))

    class Restless:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            if left:
                table[(-left.pop(),)] = 0
                Restless()

    threshold = gc.get_threshold()
    gc.collect()
    Restless()
    gc.set_threshold(1)
    try:
        line = encode(table)
    finally:
        gc.set_threshold(*threshold)
        left.clear()
        gc.collect()

    # Since Python 3.12 the collector no longer runs in the middle of a copy.
    assert line == json.dumps(CHANGING).encode() or sys.version_info >= (3, 12)
