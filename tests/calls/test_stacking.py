"""A decorated callable works wherever the bare one does: what looks at it, wraps it, copies it or calls it."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
import functools
import inspect
import multiprocessing
import pickle
import typing
import unittest.mock
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import subjects
from recorded import Recorded, tool

from whyops_trace import traced_embedding, traced_llm, traced_tool

DECORATORS = pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])


def plain(a: int, /, b: str = "x", *args: int, c: bool = False, **kwargs: Any) -> list[int]:
    """Say something in a docstring."""
    return [a]


async def coroutine(a: int, b: str = "x") -> list[int]:
    """Say something in a docstring."""
    return [a]


def generator(a: int) -> Iterator[int]:
    """Say something in a docstring."""
    yield a


async def agenerator(a: int) -> AsyncIterator[int]:
    """Say something in a docstring."""
    yield a


KINDS = pytest.mark.parametrize("bare", [plain, coroutine, generator, agenerator])


@DECORATORS
@KINDS
def test_whoever_looks_at_the_class_does_not_change_what_is_seen(decorate: Any, bare: Any) -> None:
    """Python makes an empty dict of annotations for a class that is asked for its own."""
    traced = decorate(bare)
    inspect.get_annotations(type(traced))

    assert traced.__annotations__ == bare.__annotations__
    assert typing.get_type_hints(traced) == typing.get_type_hints(bare)


@DECORATORS
@KINDS
def test_whoever_looks_sees_the_bare_function(decorate: Any, bare: Any) -> None:
    """Name, docstring, signature, hints, source, kind."""
    traced = decorate(bare)

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(traced, attribute) == getattr(bare, attribute)
    assert traced.__wrapped__ is bare
    assert inspect.unwrap(traced) is bare
    assert inspect.signature(traced) == inspect.signature(bare)
    assert typing.get_type_hints(traced) == typing.get_type_hints(bare)
    assert inspect.getsource(traced) == inspect.getsource(bare)
    assert callable(traced)
    for look in (
        inspect.isfunction, inspect.isroutine, inspect.iscoroutinefunction, inspect.isgeneratorfunction,
        inspect.isasyncgenfunction, inspect.isclass, inspect.ismethod,
    ):  # fmt: skip
        assert look(traced) == look(bare), look


@pytest.mark.anyio
async def test_what_a_coroutine_function_returns_is_a_coroutine() -> None:
    """With the function's name."""
    waiting = traced_tool(coroutine)(1)

    assert inspect.iscoroutine(waiting)
    assert waiting.__qualname__ == "coroutine"
    assert await waiting == [1]


def test_methods_look_like_methods() -> None:
    """Bound to their object."""
    owner = subjects.Plain()

    for method in (owner.times, owner.atimes):
        assert inspect.ismethod(method)
        assert method.__self__ is owner
        assert list(inspect.signature(method).parameters) == ["x"]
    assert inspect.iscoroutinefunction(owner.atimes)
    assert owner.atimes == owner.atimes


@pytest.mark.parametrize(
    "subject",
    [
        subjects.double,
        subjects.adouble,
        subjects.count,
        subjects.acount,
        subjects.ask,
        subjects.stacked,
        subjects.cached,
        subjects.Plain.times,
        subjects.Plain.atimes,
        subjects.Point,
    ],
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_functions_and_classes_are_pickled_by_reference(subject: Any, protocol: int) -> None:
    """What comes back is the decorated one."""
    assert pickle.loads(pickle.dumps(subject, protocol)) is subject


def test_methods_are_pickled_with_their_object() -> None:
    """As bare ones are."""
    owner = subjects.Plain(5)

    assert pickle.loads(pickle.dumps(owner.times))(2) == 10
    assert asyncio.run(pickle.loads(pickle.dumps(owner.atimes))(2)) == 10
    assert pickle.loads(pickle.dumps(subjects.Plain.made))(2) == 6


def test_objects_and_partials_are_pickled_with_their_decorator(events: Recorded) -> None:
    """Their copies are traced, too."""
    scaled = traced_tool(name="scaled", redact=["x"])(subjects.Scaled(3))
    times: Any = subjects.Plain(4).times
    partial = traced_tool(functools.partial(times.__func__, subjects.Plain(4)))

    assert pickle.loads(pickle.dumps(scaled))(2) == 6
    assert pickle.loads(pickle.dumps(subjects.length))("ab") == 2
    assert pickle.loads(pickle.dumps(partial))(2) == 8
    assert events.of(events.traces[0]) == tool("scaled", {"x": "[redacted]"}, {"result": 6})


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_decorated_functions_run_in_a_process_pool(method: str) -> None:
    """Sent there by reference, as ``map`` and ``submit`` do."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        doubled = list(pool.map(subjects.double, range(4)))
        times = pool.submit(subjects.Plain(5).times, 2).result()
        failed = pool.submit(subjects.double).exception()  # type: ignore[call-arg]

    assert doubled == [0, 2, 4, 6]
    assert times == 10
    assert type(failed) is TypeError


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_functions_are_copied_as_themselves(copier: Callable[[Any], Any]) -> None:
    """And methods with their object."""
    for subject in (subjects.double, subjects.adouble, subjects.count, subjects.acount, subjects.Point):
        assert copier(subject) is subject
    assert copier(subjects.Plain(5)).times(2) == 10
    assert asyncio.run(copy.deepcopy(subjects.Plain(5).atimes)(2)) == 10


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_a_copied_object_is_another_one_and_traced(events: Recorded, copier: Callable[[Any], Any]) -> None:
    """As a copy of the bare one would be."""
    traced = traced_tool(subjects.Scaled(3))
    copied = copier(traced)
    copied.factor = 4

    assert (traced(1), copied(1)) == (3, 4)
    assert len(events.rows) == 4


def test_functions_and_methods_can_be_referred_to_weakly() -> None:
    """A reference to a bound method lives as long as its object."""
    owner = subjects.Plain()
    references: list[weakref.WeakMethod[Any]] = [
        weakref.WeakMethod(owner.times),
        weakref.WeakMethod(owner.atimes),
    ]

    assert weakref.ref(subjects.double)() is subjects.double
    assert weakref.ref(subjects.adouble)() is subjects.adouble
    assert references[0]() == owner.times
    assert references[1]() == owner.atimes
    del owner
    assert [reference() for reference in references] == [None, None]


def test_under_contextmanager(events: Recorded) -> None:
    """The generator is traced: from entering to leaving."""

    @contextlib.contextmanager
    @traced_tool
    def session(name: str) -> Iterator[str]:
        with contextlib.suppress(KeyError):
            yield name

    with session("a") as opened:
        assert opened == "a"
        raise KeyError("swallowed")

    assert events.rows == tool("session", {"name": "a"}, {"items": ["a"], "count": 1})


def test_over_contextmanager() -> None:
    """The call is traced, which returns the manager."""

    @traced_tool
    @contextlib.contextmanager
    def session(name: str) -> Iterator[str]:
        yield name

    with session("a") as opened:
        assert opened == "a"


@pytest.mark.anyio
async def test_under_and_over_asynccontextmanager(events: Recorded) -> None:
    """As the plain ones."""

    @contextlib.asynccontextmanager
    @traced_tool
    async def below(name: str) -> AsyncIterator[str]:
        with contextlib.suppress(KeyError):
            yield name

    @traced_tool
    @contextlib.asynccontextmanager
    async def above(name: str) -> AsyncIterator[str]:
        yield name

    async with below("a") as opened:
        assert opened == "a"
        raise KeyError("swallowed")
    async with above("b") as opened:
        assert opened == "b"

    assert events.of(events.traces[0]) == tool("below", {"name": "a"}, {"items": ["a"], "count": 1})


def test_singledispatch_over_and_under(events: Recorded) -> None:
    """Registering works on either side."""

    @functools.singledispatch
    @traced_tool(name="fallback")
    def show(value: object) -> str:
        return "object"

    @show.register
    @traced_tool(name="number")
    def _(value: int) -> str:
        return "int"

    @traced_tool(name="under")
    @functools.singledispatch
    def other(value: object) -> str:
        return "object"

    @other.register
    def _(value: int) -> str:
        return "int"

    assert (show("a"), show(1), other("a"), other(1)) == ("object", "int", "object", "int")
    assert [row[4] for row in events.rows[::2]] == ["fallback", "number", "under", "under"]


def test_lru_cache_over_and_under(events: Recorded) -> None:
    """What is cached is not called; the cache can be looked at from either side."""

    @functools.lru_cache
    @traced_tool(name="below")
    def below(x: int) -> int:
        return x

    @traced_tool(name="above")
    @functools.lru_cache
    def above(x: int) -> int:
        return x

    assert [below(1), below(1), above(1), above(1)] == [1, 1, 1, 1]
    assert below.cache_info().hits == 1
    assert above.cache_info().hits == 1
    above.cache_clear()
    assert above.cache_info().currsize == 0
    assert [row[4] for row in events.rows[::2]] == ["below", "above", "above"]


def test_lru_cached_methods_are_bound(events: Recorded) -> None:
    """From either side."""

    class Owner:
        @traced_tool
        @functools.lru_cache  # noqa: B019 - the owner goes with the test
        def above(self, x: int) -> int:
            return x

        @functools.lru_cache  # noqa: B019 - as above
        @traced_tool
        def below(self, x: int) -> int:
            return x

    owner = Owner()

    assert [owner.above(1), owner.above(1), owner.below(2), owner.below(2)] == [1, 1, 2, 2]
    assert [row[5] for row in events.rows[::2]] == [{"x": 1}, {"x": 1}, {"x": 2}]


def test_method_descriptors_of_functools_over(events: Recorded) -> None:
    """``singledispatchmethod`` and ``partialmethod``."""

    class Owner:
        @functools.singledispatchmethod
        @traced_tool(name="fallback")
        def show(self, value: object) -> str:
            return "object"

        @show.register
        @traced_tool(name="number")
        def _(self, value: int) -> str:
            return "int"

        @traced_tool
        async def add(self, a: int, b: int) -> int:
            return a + b

        add_one = functools.partialmethod(add, 1)

    assert (Owner().show("a"), Owner().show(1)) == ("object", "int")
    assert asyncio.run(Owner().add_one(2)) == 3
    assert [row[4:6] for row in events.rows[::2]] == [
        ("fallback", {"value": "a"}),
        ("number", {"value": 1}),
        ("add", {"a": 1, "b": 2}),
    ]


def test_patching_a_decorated_method_and_back() -> None:
    """As tests of traced code do."""
    with unittest.mock.patch.object(subjects.Plain, "times", autospec=True, return_value=9) as patched:
        assert subjects.Plain().times(1) == 9
    patched.assert_called_once()

    assert subjects.Plain(2).times(2) == 4


def test_cached_property_under(events: Recorded) -> None:
    """Computed, and traced, once."""

    class Owner:
        @functools.cached_property
        @traced_tool
        def total(self) -> int:
            return 5

    owner = Owner()

    assert (owner.total, owner.total) == (5, 5)
    assert events.rows == tool("total", {}, {"result": 5})


def test_abstract_methods_stay_abstract() -> None:
    """From either side, plain and asynchronous, and as properties."""

    class Base(abc.ABC):
        @traced_tool
        @abc.abstractmethod
        def above(self) -> None: ...

        @abc.abstractmethod
        @traced_tool
        def below(self) -> None: ...

        @traced_tool
        @abc.abstractmethod
        async def aabove(self) -> None: ...

        @abc.abstractmethod
        @traced_tool
        async def abelow(self) -> None: ...

        @traced_tool  # type: ignore[prop-decorator]
        @property
        @abc.abstractmethod
        def prop(self) -> int: ...

    assert Base.__abstractmethods__ == {"above", "below", "aabove", "abelow", "prop"}
    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


def test_a_subclass_can_override_and_call_super(events: Recorded) -> None:
    """The inner call is nested in the outer one."""

    class Base:
        @traced_tool(name="base")
        def run(self, x: int) -> int:
            return x

        @traced_tool(name="abase")
        async def arun(self, x: int) -> int:
            return x

    class Sub(Base):
        @traced_tool(name="sub")
        def run(self, x: int) -> int:
            return super().run(x) + 1

        async def arun(self, x: int) -> int:
            return await super().arun(x) + 1

    assert Sub().run(1) == 2
    assert asyncio.run(Sub().arun(1)) == 2
    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "sub"),
        ("tool_call_request", 2, 1, 1, "base"),
        ("tool_call_response", 3, 2, 2, "base"),
        ("tool_call_response", 4, 1, 1, "sub"),
        ("tool_call_request", 1, None, 0, "abase"),
        ("tool_call_response", 2, 1, 1, "abase"),
    ]


def test_methods_of_dataclasses(events: Recorded) -> None:
    """Frozen and with slots, too."""

    @dataclass(frozen=True, slots=True)
    class Order:
        amount: int

        @traced_tool
        def total(self, tax: int = 0) -> int:
            return self.amount + tax

        @traced_tool
        async def atotal(self) -> int:
            return self.amount

    assert Order(5).total(1) == 6
    assert asyncio.run(Order(5).atotal()) == 5
    assert Order(5) == Order(5)
    assert events.of(events.traces[0]) == tool("total", {"tax": 1}, {"result": 6})


@KINDS
def test_somebody_elses_wrapper_looks_right(bare: Any) -> None:
    """``functools.wraps`` copies what it copies of a bare function."""
    traced = traced_tool(bare)

    @functools.wraps(traced)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        return traced(*args, **kwargs)

    assert theirs.__name__ == bare.__name__
    assert inspect.signature(theirs) == inspect.signature(bare)
    assert inspect.unwrap(theirs) is bare


def test_attributes_of_the_function_are_seen_and_can_be_set() -> None:
    """Frameworks leave marks on functions."""
    for bare in (plain, coroutine):
        traced: Any = traced_tool(bare)
        traced.mark = "theirs"

        assert traced.mark == "theirs"
        assert "mark" in vars(traced)
        bare.__dict__.pop("mark", None)


@KINDS
def test_autospec_checks_calls_as_of_the_bare_function(bare: Any) -> None:
    """Wrong arguments are refused, right ones counted."""
    spec = unittest.mock.create_autospec(traced_tool(bare))

    def called(*args: Any) -> None:
        result = spec(*args)
        if inspect.iscoroutine(result):  # since Python 3.13 it is the awaiting that counts
            asyncio.run(result)

    with pytest.raises(TypeError):
        called()
    called(1)
    spec.assert_called_once_with(1)


@DECORATORS
def test_decorators_of_ours_stack(events: Recorded, decorate: Any) -> None:
    """The inner call is nested in the outer one."""

    @traced_tool(name="outer")
    @decorate(name="inner")
    def both(text: str) -> str:
        return text

    assert both("a") == "a"
    assert [(row[1], row[2], row[3]) for row in events.rows] == [
        (1, None, 0),
        (2, 1, 1),
        (3, 2, 2),
        (4, 1, 1),
    ]
