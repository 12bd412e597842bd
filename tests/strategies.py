"""Values as programs have them: some of every kind, and strategies that make any."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import ipaddress
import pathlib
import types
from collections import OrderedDict, deque, namedtuple
from typing import Any, NamedTuple, NoReturn, TypedDict

import attrs
import msgspec
import numpy as np
import pydantic
from hypothesis import settings
from hypothesis import strategies as st


class Level(enum.Enum):
    LOW = "low"
    PAIR = (1, "x")


class Number(enum.IntEnum):
    ONE = 1


class Color(enum.StrEnum):
    RED = "red"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


Old = namedtuple("Old", "a b")


class Movie(TypedDict):
    title: str


@dataclasses.dataclass
class Card:
    number: int
    password: str
    _kind: str = "visa"
    unset: dataclasses.InitVar[int] = 0


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    n: int
    cards: list[Card]


@attrs.define
class Defined:
    x: int
    _y: str = "q"


@attrs.define(slots=False)
class Open(Defined):
    z: int = 3


class Struct(msgspec.Struct):
    a: int
    tags: list[str] = []


class Model(pydantic.BaseModel):
    name: str
    when: datetime.datetime
    key: pydantic.SecretStr
    raw: pydantic.SecretBytes = pydantic.SecretBytes(b"x")
    inner: Model | None = None
    _private: int = 5

    @property
    def computed(self) -> int:
        raise AssertionError("no property is read")


class Flexible(pydantic.BaseModel, extra="allow"):
    a: int


class Root(pydantic.RootModel[list[int]]):
    pass


class Cart:
    kind = "class attributes are not state"

    def __init__(self) -> None:
        self.id = 7
        self.owner = Account(name="Ada")
        self.rows = [Account(), Card(1, "p")]
        self._hidden = 1


class Slots:
    __slots__ = ("__weakref__", "_private", "full", "unset")

    def __init__(self) -> None:
        self.full = 1
        self._private = 2


class Mixed(Slots):
    def __init__(self) -> None:
        super().__init__()
        self.extra = 3


class Empty:
    pass


class Words(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Rows(list[int]):
    pass


class Table(dict[str, int]):
    pass


class Folder(type(pathlib.PurePosixPath())):  # type: ignore[misc]
    pass


class Moment(datetime.datetime):
    pass


class Address(ipaddress.IPv4Address):
    """An address with code of its own."""

    def __str__(self) -> str:
        raise AssertionError


class Zone(datetime.tzinfo):
    def _refuse(self, moment: datetime.datetime | None) -> NoReturn:
        raise AssertionError("a user's zone is not asked")

    utcoffset = dst = tzname = _refuse


class Declined(Exception):
    def __str__(self) -> str:
        raise AssertionError("a user's __str__ is not called")


class Renamed(KeyError):
    pass


class Account:
    """An object of no known kind."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


#: For every property test: the same examples in each run, and no limit of time.
STEADY = settings(derandomize=True, deadline=None)

#: Any text, NUL and lone surrogates included.
texts = st.text(st.characters(exclude_categories=()), max_size=20)

#: Numbers of any size, NaN and infinities included.
numbers = st.integers() | st.integers(-(2**80), 2**80) | st.floats()

scalars = st.none() | st.booleans() | numbers | texts


def _containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    return lists | lists.map(tuple) | st.dictionaries(texts, items, max_size=5)


#: What a JSON library would take, and some values that it would mangle.
json_values = st.recursive(scalars, _containers, max_leaves=20)


_leaves = (
    scalars
    | st.binary(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.complex_numbers()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.lists(texts.map(lambda text: text.replace("\0", "")), max_size=3).map(
        lambda parts: pathlib.PurePath(*parts)
    )
    | texts.map(ValueError)
    | st.sampled_from([int, len, print, datetime, Account.__init__, ..., object()])
)
_keys = scalars | st.binary(max_size=5) | st.dates() | st.tuples(scalars, scalars)


def _objects(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    mappings = st.dictionaries(_keys, items, max_size=5)
    return (
        lists
        | lists.map(tuple)
        | lists.map(deque)
        | lists.map(iter)
        | st.sets(_keys, max_size=5)
        | st.frozensets(_keys, max_size=5)
        | mappings
        | mappings.map(OrderedDict)
        | mappings.map(lambda mapping: mapping.items())
        | mappings.map(lambda mapping: mapping.values())
        | st.dictionaries(texts, items, max_size=5).map(lambda fields: Account(**fields))
        | lists.map(lambda arguments: ValueError(*arguments))
    )


#: Values of every sort.
python_values = st.recursive(_leaves, _objects, max_leaves=20)

#: A text that must never be seen.
SECRET = "hunter2-hunter2"
_secret_keys = st.sampled_from(
    ["password", "apiKey", "X-Api-Key", "access_token", b"secret", Words("cookie")]
)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.tuples(python_values, inner).map(list)
        | st.tuples(python_values, inner)
        | st.builds(lambda key, value: {key: value}, st.text(max_size=3), inner)
        | inner.map(lambda value: types.MappingProxyType({1: value}))
        | inner.map(lambda value: Account(field=value))
        | inner.map(lambda value: Card(1, value))
        | inner.map(lambda value: Slotted(1, value))
        | inner.map(lambda value: Defined(value))
        | inner.map(lambda value: Struct(1, value))
        | inner.map(lambda value: Flexible.model_construct(a=1, more=value))
        | inner.map(lambda value: Point(1, value))
        | inner.map(lambda value: np.array([value, 1], dtype=object))
    )


_secrets = (
    st.builds(
        lambda key, value: {key: value},
        _secret_keys,
        st.sampled_from([SECRET, [SECRET], {"a": SECRET}, {SECRET}]),
    )
    | st.just(Card(1, SECRET))
    | st.just(Account(api_key=SECRET))
    | st.just(Flexible.model_validate({"a": 1, "token": SECRET}))
    | st.just(
        Model(
            name="n",
            when=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
            key=pydantic.SecretStr(SECRET),
            raw=pydantic.SecretBytes(SECRET.encode()),
        )
    )
)

#: Values of every sort with a secret inside, under the name of one.
hiding_values = st.recursive(_secrets, _around, max_leaves=4)
