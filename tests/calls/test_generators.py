"""A traced generator behaves as the bare one does, and its scope is current only while its own body runs."""

from __future__ import annotations

import contextlib
import gc
import inspect
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from recorded import Recorded, cancelled_tool, failed_tool, tool

from whyops_trace import step, trace, traced_tool
from whyops_trace.context import get_scope

USER: ContextVar[str] = ContextVar("user", default="nobody")

Talker = Callable[[], Generator[Any, Any, Any]]


def bare_talk() -> Generator[Any, Any, str]:
    """Answers what is sent, says what is thrown, and stops at "stop"."""
    heard = yield "ready"
    while heard != "stop":
        try:
            heard = yield heard
        except KeyError as error:
            heard = yield f"caught {error}"
    return "done"


talk = traced_tool(name="talk")(bare_talk)
BOTH = pytest.mark.parametrize("talker", [bare_talk, talk], ids=["bare", "traced"])


@traced_tool
def leaf() -> None:
    """A call to see the scope by."""


@BOTH
def test_send_and_the_return_value_pass_through(events: Recorded, talker: Talker) -> None:
    """What is sent arrives, what is returned comes with the StopIteration."""
    it = talker()

    assert next(it) == "ready"
    assert it.send("a") == "a"
    assert next(it) is None
    with pytest.raises(StopIteration) as stopped:
        it.send("stop")
    assert stopped.value.value == "done"
    with pytest.raises(StopIteration) as again:
        next(it)
    assert again.value.value is None
    if talker is talk:
        assert events.rows == tool(
            "talk", {}, {"items": ["ready", "a", None], "count": 3, "returned": "done"}
        )


@BOTH
def test_an_exception_thrown_in_can_be_caught_by_the_body(events: Recorded, talker: Talker) -> None:
    """The generator goes on."""
    it = talker()
    next(it)
    it.send("a")

    assert it.throw(KeyError("k")) == "caught 'k'"
    assert it.send("b") == "b"
    with pytest.raises(StopIteration):
        it.send("stop")
    if talker is talk:
        items = {"items": ["ready", "a", "caught 'k'", "b"], "count": 4, "returned": "done"}
        assert events.rows == tool("talk", {}, items)


@BOTH
def test_an_exception_thrown_in_that_is_not_caught_comes_out(events: Recorded, talker: Talker) -> None:
    """The same object, with one frame of ours in its traceback."""
    it = talker()
    next(it)
    error = ValueError("v")

    with pytest.raises(ValueError, match="v") as caught:
        it.throw(error)
    assert caught.value is error
    assert error.__context__ is None
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)][1:]
    if talker is bare_talk:
        assert names == ["bare_talk"]
    else:
        assert names == ["_iterate", "bare_talk"]
        assert events.rows == failed_tool("talk", {}, {"type": "ValueError", "message": "v"})


@BOTH
def test_an_exception_class_can_be_thrown_in(talker: Talker) -> None:
    """As with a bare generator."""
    it = talker()
    next(it)
    it.send("a")

    assert it.throw(KeyError) == "caught "
    it.close()


@BOTH
def test_a_generator_that_is_not_started_can_be_closed_or_thrown_into(
    events: Recorded, talker: Talker
) -> None:
    """Its body never runs, so nothing is recorded."""
    talker().close()
    with pytest.raises(KeyError):
        talker().throw(KeyError("k"))
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        talker().send("a")

    assert events.rows == []


@BOTH
def test_closing_ends_the_body_where_it_is(events: Recorded, talker: Talker) -> None:
    """The call is recorded as cancelled, with the items that came before."""
    it = talker()
    next(it)
    it.close()
    it.close()

    assert list(it) == []
    if talker is talk:
        assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


@BOTH
def test_stop_iteration_thrown_in_becomes_a_runtime_error(events: Recorded, talker: Talker) -> None:
    """As the language has it."""
    it = talker()
    next(it)

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        it.throw(StopIteration("x"))
    if talker is talk:
        assert [row[0] for row in events.rows] == ["tool_call_request", "error", "tool_call_response"]


def stubborn() -> Generator[int, None, None]:
    """Ignores that it is closed, once."""
    try:
        yield 1
    except GeneratorExit:
        yield 2
    yield 3


@pytest.mark.parametrize("decorate", [lambda f: f, traced_tool], ids=["bare", "traced"])
def test_a_generator_that_ignores_its_closing_is_told_so(events: Recorded, decorate: Any) -> None:
    """It may go on; then it was not cancelled."""
    it = decorate(stubborn)()
    next(it)

    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        it.close()
    assert list(it) == [3]
    if decorate is traced_tool:
        assert events.rows == tool("stubborn", {}, {"items": [1, 2, 3], "count": 3})


def test_a_generator_that_returns_on_closing_was_cancelled(events: Recorded) -> None:
    """Whether it lets GeneratorExit through or ends by itself makes no difference."""

    @traced_tool
    def polite() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    it = polite()
    next(it)
    it.close()  # type: ignore[attr-defined]

    assert events.rows == cancelled_tool("polite", {}, items=[1], count=1)


def test_breaking_out_of_the_loop_cancels_the_call(events: Recorded) -> None:
    """As soon as the generator is garbage."""
    for item in talk():
        assert item == "ready"
        break
    gc.collect()

    assert get_scope() is None
    assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


def test_yield_from_passes_everything_through(events: Recorded) -> None:
    """A traced generator inside another: the inner call is nested in the outer one."""

    @traced_tool
    def outer() -> Generator[Any, Any, Any]:
        return (yield from talk())

    it = outer()

    assert next(it) == "ready"
    assert it.send("a") == "a"
    assert it.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stopped:
        it.send("stop")
    assert stopped.value.value == "done"
    items = {"items": ["ready", "a", "caught 'k'"], "count": 3, "returned": "done"}
    assert events.rows == [
        ("tool_call_request", 1, None, 0, "outer", {}),
        ("tool_call_request", 2, 1, 1, "talk", {}),
        ("tool_call_response", 3, 2, 2, "talk", items),
        ("tool_call_response", 4, 1, 1, "outer", items),
    ]


def test_closing_goes_through_yield_from(events: Recorded) -> None:
    """Both calls are cancelled, the inner one first."""

    @traced_tool
    def outer() -> Generator[Any, Any, Any]:
        yield from talk()

    it = outer()
    next(it)
    it.close()

    assert [(row[0], row[4], row[6:]) for row in events.rows] == [
        ("tool_call_request", "outer", ()),
        ("tool_call_request", "talk", ()),
        ("tool_call_response", "talk", ({"outcome": "cancelled"},)),
        ("tool_call_response", "outer", ({"outcome": "cancelled"},)),
    ]


@traced_tool
def nested() -> Iterator[int]:
    """Calls and steps in the body, some open across a yield."""
    leaf()
    with step("inner"):
        yield 1
        leaf()
        yield 2
    leaf()
    yield 3


def test_the_scope_is_the_bodys_only_while_it_runs(events: Recorded) -> None:
    """A step open across a yield is there again when the body goes on, and not for the consumer in between."""
    with trace():
        for _ in nested():
            leaf()

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "nested"),
        ("tool_call_request", 2, 1, 1, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
        ("llm_thinking", 4, 1, 1, "inner"),
        ("tool_call_request", 5, 1, 0, "leaf"),
        ("tool_call_response", 6, 5, 5, "leaf"),
        ("tool_call_request", 7, 4, 4, "leaf"),
        ("tool_call_response", 8, 7, 7, "leaf"),
        ("tool_call_request", 9, 6, 0, "leaf"),
        ("tool_call_response", 10, 9, 9, "leaf"),
        ("tool_call_request", 11, 1, 1, "leaf"),
        ("tool_call_response", 12, 11, 11, "leaf"),
        ("tool_call_request", 13, 10, 0, "leaf"),
        ("tool_call_response", 14, 13, 13, "leaf"),
        ("tool_call_response", 15, 1, 1, "nested"),
    ]


def test_two_generators_in_turn_keep_their_scopes_apart(events: Recorded) -> None:
    """Each body's calls are its own, whichever was started first."""

    @traced_tool
    def worker(name: str) -> Iterator[None]:
        yield
        traced_tool(name=f"leaf of {name}")(lambda: None)()
        yield

    with trace():
        list(zip(worker("a"), worker("b"), strict=True))

    within = {row[4]: row[3] for row in events.rows if row[0] == "tool_call_request"}
    steps = {row[5].get("name"): row[1] for row in events.rows if row[4] == "worker"}

    assert within["leaf of a"] == steps["a"]
    assert within["leaf of b"] == steps["b"]


@pytest.mark.parametrize("decorate", [lambda f: f, traced_tool], ids=["bare", "traced"])
def test_context_variables_of_the_body_are_seen_as_without_us(decorate: Any) -> None:
    """A plain generator runs in its consumer's context: both see what the other sets."""

    def body() -> Iterator[str]:
        yield USER.get()
        USER.set("body")
        yield USER.get()

    token = USER.set("consumer")
    it = decorate(body)()

    assert next(it) == "consumer"
    USER.set("later")
    assert next(it) == "body"
    assert USER.get() == "body"
    USER.reset(token)


def test_a_generator_can_be_closed_in_another_context(events: Recorded) -> None:
    """Nothing is left behind there."""
    import contextvars

    it = talk()
    next(it)
    contextvars.Context().run(it.close)

    assert get_scope() is None
    assert events.rows == cancelled_tool("talk", {}, items=["ready"], count=1)


def test_nothing_sent_or_yielded_is_kept_alive() -> None:
    """While it is suspended, the driver holds neither the item nor what was sent, nor the arguments."""

    class Thing:
        pass

    @traced_tool
    def passing(first: Thing | None) -> Generator[Any, Any, None]:
        things = [first]
        first = None
        while things:
            heard = yield things.pop()
            if heard is not None:
                things.append(heard)
            heard = None

    def alive(thing: Thing) -> weakref.ref[Thing]:
        return weakref.ref(thing)

    first = Thing()
    it = passing(first)
    next(it)
    gone = alive(first)
    del first
    second = Thing()
    it.send(second)
    gone_too = alive(second)
    del second
    gc.collect()

    assert gone() is None
    assert gone_too() is None
    it.close()


def test_what_is_seen_of_a_generator_is_the_bare_ones() -> None:
    """Function and generator pass for what they are."""
    it = talk()

    assert inspect.isgeneratorfunction(talk)
    assert not inspect.iscoroutinefunction(talk)
    assert inspect.isgenerator(it)
    assert isinstance(it, Generator)
    assert (it.__name__, it.__qualname__) == ("bare_talk", "bare_talk")
    assert inspect.getgeneratorstate(it) == inspect.GEN_CREATED
    next(it)
    assert inspect.getgeneratorstate(it) == inspect.GEN_SUSPENDED
    it.close()
    assert inspect.getgeneratorstate(it) == inspect.GEN_CLOSED


def test_wrong_arguments_are_refused_at_the_call(events: Recorded) -> None:
    """As by the bare generator function: not when it is iterated."""

    @traced_tool
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    with pytest.raises(TypeError) as caught:
        count()  # type: ignore[call-arg]

    assert str(caught.value).endswith("count() missing 1 required positional argument: 'to'")
    assert events.rows == []
