"""What a decorated callable records, and that it behaves as the bare one does: every kind of callable."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio.lowlevel
import pytest
from recorded import Recorded, tool

from whyops_trace import traced_tool

BARE_AND_CALLED = pytest.mark.parametrize("decorate", [traced_tool, traced_tool()], ids=["bare", "called"])


@BARE_AND_CALLED
def test_a_function_is_recorded_with_arguments_and_result(events: Recorded, decorate: Any) -> None:
    """A call records what the tool was called with and what it returned."""

    @decorate
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert add(1) == 3
    assert events.rows == tool("add", {"a": 1, "b": 2}, {"result": 3})


@pytest.mark.anyio
@BARE_AND_CALLED
async def test_a_coroutine_is_recorded_when_it_is_awaited(events: Recorded, decorate: Any) -> None:
    """Calling a coroutine function records nothing; awaiting it records the call."""

    @decorate
    async def add(a: int, b: int = 2) -> int:
        await anyio.lowlevel.checkpoint()
        return a + b

    waiting = add(1)

    assert events.rows == []
    assert await waiting == 3
    assert events.rows == tool("add", {"a": 1, "b": 2}, {"result": 3})


@BARE_AND_CALLED
def test_a_generator_is_recorded_with_its_items(events: Recorded, decorate: Any) -> None:
    """A generator's call is recorded when it starts, its items when it ends."""

    @decorate
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    items = count(3)

    assert events.rows == []
    assert list(items) == [0, 1, 2]
    assert events.rows == tool("count", {"to": 3}, {"items": [0, 1, 2], "count": 3})


@pytest.mark.anyio
@BARE_AND_CALLED
async def test_an_async_generator_is_recorded_with_its_items(events: Recorded, decorate: Any) -> None:
    """An asynchronous generator is recorded as a plain one is."""

    @decorate
    async def count(to: int) -> AsyncIterator[int]:
        for n in range(to):
            await anyio.lowlevel.checkpoint()
            yield n

    items = count(3)

    assert events.rows == []
    assert [n async for n in items] == [0, 1, 2]
    assert events.rows == tool("count", {"to": 3}, {"items": [0, 1, 2], "count": 3})


class Shop:
    """Methods of every sort, decorated from above and below."""

    def __init__(self, name: str = "shop") -> None:
        self.name = name

    @traced_tool
    def plain(self, x: int) -> tuple[str, int]:
        return self.name, x

    @traced_tool
    async def coroutine(self, x: int) -> tuple[str, int]:
        return self.name, x

    @traced_tool
    def generator(self, x: int) -> Iterator[Any]:
        yield self.name
        yield x

    @traced_tool
    async def agenerator(self, x: int) -> AsyncIterator[Any]:
        yield self.name
        yield x

    @traced_tool
    @classmethod
    def class_above(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @classmethod
    @traced_tool
    def class_below(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @traced_tool
    @classmethod
    async def aclass_above(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @classmethod
    @traced_tool
    async def aclass_below(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @traced_tool
    @staticmethod
    def static_above(x: int) -> int:
        return x

    @staticmethod
    @traced_tool
    def static_below(x: int) -> int:
        return x

    @staticmethod
    @traced_tool
    async def astatic_below(x: int) -> int:
        return x

    @traced_tool  # type: ignore[prop-decorator]
    @property
    def above(self) -> str:
        return self.name

    @property
    @traced_tool
    def below(self) -> str:
        return self.name

    @below.setter
    def below(self, value: str) -> None:
        self.name = value


class Branch(Shop):
    """Inherits them."""


@pytest.mark.parametrize("owner", [Shop(), Branch("shop")], ids=["instance", "subclass"])
def test_a_method_is_recorded_without_self(events: Recorded, owner: Shop) -> None:
    """The instance is no argument of the tool."""
    assert owner.plain(1) == ("shop", 1)
    assert events.rows == tool("plain", {"x": 1}, {"result": ["shop", 1]})


def test_a_method_called_on_its_class_is_recorded_without_self(events: Recorded) -> None:
    """A method is a function, too."""
    assert Shop.plain(Shop(), x=1) == ("shop", 1)
    assert events.rows == tool("plain", {"x": 1}, {"result": ["shop", 1]})


@pytest.mark.anyio
@pytest.mark.parametrize("owner", [Shop(), Branch("shop")], ids=["instance", "subclass"])
async def test_a_coroutine_method_is_recorded_without_self(events: Recorded, owner: Shop) -> None:
    """Bound as any method is."""
    assert await owner.coroutine(1) == ("shop", 1)
    assert await Shop.coroutine(owner, 1) == ("shop", 1)
    assert events.of(events.traces[0]) == tool("coroutine", {"x": 1}, {"result": ["shop", 1]})
    assert events.of(events.traces[1]) == tool("coroutine", {"x": 1}, {"result": ["shop", 1]})


@pytest.mark.anyio
async def test_generator_methods_are_recorded_without_self(events: Recorded) -> None:
    """Both kinds of generator are bound as methods."""
    assert list(Shop().generator(1)) == ["shop", 1]
    assert [item async for item in Shop().agenerator(1)] == ["shop", 1]
    assert events.rows == [
        *tool("generator", {"x": 1}, {"items": ["shop", 1], "count": 2}),
        *tool("agenerator", {"x": 1}, {"items": ["shop", 1], "count": 2}),
    ]


@pytest.mark.parametrize("name", ["class_above", "class_below"])
@pytest.mark.parametrize("owner", [Shop, Shop(), Branch], ids=["class", "instance", "subclass"])
def test_a_class_method_is_recorded_without_cls(events: Recorded, owner: Any, name: str) -> None:
    """The decorator may stand above ``@classmethod`` or below it."""
    expected = "Branch" if owner is Branch else "Shop"

    assert getattr(owner, name)(1) == (expected, 1)
    assert events.rows == tool(name, {"x": 1}, {"result": [expected, 1]})


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["aclass_above", "aclass_below"])
async def test_a_coroutine_class_method_is_recorded_without_cls(events: Recorded, name: str) -> None:
    """As the plain ones."""
    assert await getattr(Branch, name)(1) == ("Branch", 1)
    assert events.rows == tool(name, {"x": 1}, {"result": ["Branch", 1]})


@pytest.mark.parametrize("name", ["static_above", "static_below"])
@pytest.mark.parametrize("owner", [Shop, Shop()], ids=["class", "instance"])
def test_a_static_method_is_recorded(events: Recorded, owner: Any, name: str) -> None:
    """The decorator may stand above ``@staticmethod`` or below it."""
    assert getattr(owner, name)(1) == 1
    assert events.rows == tool(name, {"x": 1}, {"result": 1})


@pytest.mark.anyio
async def test_a_coroutine_static_method_is_recorded(events: Recorded) -> None:
    """As the plain ones."""
    assert await Shop().astatic_below(1) == 1
    assert events.rows == tool("astatic_below", {"x": 1}, {"result": 1})


@pytest.mark.parametrize("name", ["above", "below"])
def test_a_property_is_recorded_when_it_is_read(events: Recorded, name: str) -> None:
    """The getter is the tool; a setter stays as it is."""
    shop = Shop()
    shop.below = "new"

    assert getattr(shop, name) == "new"
    assert events.rows == tool(name, {}, {"result": "new"})


def test_a_partial_is_recorded_under_the_name_of_its_function(events: Recorded) -> None:
    """What a partial has bound is an argument as well."""

    def add(a: int, b: int) -> int:
        return a + b

    assert traced_tool(functools.partial(add, 1))(2) == 3
    assert traced_tool(functools.partial(add, b=1))(2) == 3
    assert events.rows == [
        *tool("add", {"b": 2}, {"result": 3}),
        *tool("add", {"a": 2, "b": 1}, {"result": 3}),
    ]


@pytest.mark.anyio
async def test_a_partial_of_a_coroutine_function_is_recorded(events: Recorded) -> None:
    """Decorated over the partial, or the partial made of the decorated function."""

    async def add(a: int, b: int) -> int:
        return a + b

    assert await traced_tool(functools.partial(add, 1))(2) == 3
    assert await functools.partial(traced_tool(add), 1)(2) == 3
    assert events.rows == [
        *tool("add", {"b": 2}, {"result": 3}),
        *tool("add", {"a": 1, "b": 2}, {"result": 3}),
    ]


@pytest.mark.anyio
async def test_a_partial_of_a_generator_function_is_recorded(events: Recorded) -> None:
    """Of a plain generator and of an asynchronous one."""

    def count(to: int) -> Iterator[int]:
        yield from range(to)

    async def acount(to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n

    assert list(traced_tool(functools.partial(count, 2))()) == [0, 1]
    assert [n async for n in traced_tool(functools.partial(acount, 2))()] == [0, 1]
    assert events.rows == [
        *tool("count", {}, {"items": [0, 1], "count": 2}),
        *tool("acount", {}, {"items": [0, 1], "count": 2}),
    ]


class Plain:
    """A callable object."""

    def __call__(self, x: int) -> int:
        return x


class Coroutine:
    """A callable object with an asynchronous call."""

    async def __call__(self, x: int) -> int:
        return x


class Generator:
    """A callable object that yields."""

    def __call__(self, x: int) -> Iterator[int]:
        yield x


class AGenerator:
    """A callable object that yields asynchronously."""

    async def __call__(self, x: int) -> AsyncIterator[int]:
        yield x


@pytest.mark.anyio
async def test_callable_objects_of_every_kind_are_recorded_under_their_class(events: Recorded) -> None:
    """A callable object is driven as its call is written."""
    assert traced_tool(Plain())(1) == 1
    assert await traced_tool(Coroutine())(1) == 1
    assert list(traced_tool(Generator())(1)) == [1]
    assert [x async for x in traced_tool(AGenerator())(1)] == [1]
    assert events.rows == [
        *tool("Plain", {"x": 1}, {"result": 1}),
        *tool("Coroutine", {"x": 1}, {"result": 1}),
        *tool("Generator", {"x": 1}, {"items": [1], "count": 1}),
        *tool("AGenerator", {"x": 1}, {"items": [1], "count": 1}),
    ]


def test_a_callable_object_stays_what_it_was() -> None:
    """Attributes and class are the object's own."""
    bare: Any = Plain()
    traced = traced_tool(bare)
    traced.note = "kept"

    assert isinstance(traced, Plain)
    assert bare.note == "kept"


def test_lambdas_builtins_and_bound_methods_are_recorded(events: Recorded) -> None:
    """Whatever can be called can be traced."""
    assert traced_tool(lambda x: x + 1)(1) == 2
    assert traced_tool(len)([1, 2]) == 2
    assert traced_tool(max)(1, 2) == 2
    assert traced_tool("-".join)(["a", "b"]) == "a-b"
    assert events.rows == [
        *tool("<lambda>", {"x": 1}, {"result": 2}),
        *tool("len", {"obj": [1, 2]}, {"result": 2}),
        *tool("max", {"args": [1, 2]}, {"result": 2}),
        *tool("join", {"iterable": ["a", "b"]}, {"result": "a-b"}),
    ]


def test_a_class_is_recorded_when_it_makes_an_instance(events: Recorded) -> None:
    """It remains a class for whoever looks: instances, subclasses, attributes."""

    @traced_tool
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class Sub(Point):
        pass

    point = Point(3)

    assert isinstance(point, Point)
    assert issubclass(Sub, Point)
    assert isinstance(Sub(4), Point)
    assert [row[:5] for row in events.rows] == [
        ("tool_call_request", 1, None, 0, "Point"),
        ("tool_call_response", 2, 1, 1, "Point"),
    ]
