"""What is recorded of arguments and results can be chosen; options that cannot be obeyed are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from recorded import Recorded, tool

from whyops_trace import ConfigurationError, UnknownOptionError, traced_embedding, traced_llm, traced_tool

ARGUMENTS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], dict[str, Any]]] = [
    (lambda: None, (), {}, {}),
    (lambda a, b=2: None, (1,), {}, {"a": 1, "b": 2}),
    (lambda a, b=2: None, (1, 3), {}, {"a": 1, "b": 3}),
    (lambda a, b=2: None, (), {"b": 1, "a": 0}, {"a": 0, "b": 1}),
    (lambda a, /, b: None, (1, 2), {}, {"a": 1, "b": 2}),
    (lambda a, /, b: None, (1,), {"b": 2}, {"a": 1, "b": 2}),
    (lambda a, *, b=2: None, (1,), {}, {"a": 1, "b": 2}),
    (lambda a, *, b: None, (1,), {"b": 3}, {"a": 1, "b": 3}),
    (lambda *args: None, (1, 2), {}, {"args": [1, 2]}),
    (lambda a, *rest: None, (1,), {}, {"a": 1}),
    (lambda a, *rest, b=0: None, (1, 2, 3), {}, {"a": 1, "b": 0, "rest": [2, 3]}),
    (lambda **kwargs: None, (), {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (lambda a, **kwargs: None, (1,), {"x": 1}, {"a": 1, "x": 1}),
    (lambda a, /, **kwargs: None, (1,), {"a": 2}, {"a": 1, "kwargs": {"a": 2}}),
    (lambda self, a: None, ("it", 1), {}, {"a": 1}),
    (lambda self, /, **kwargs: None, ("it",), {"self": 1}, {"kwargs": {"self": 1}}),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "expected"), ARGUMENTS)
def test_arguments_are_recorded_by_name(
    events: Recorded, function: Any, args: Any, kwargs: Any, expected: dict[str, Any]
) -> None:
    """Whatever way they are passed, with the defaults of those left out."""
    traced_tool(name="t")(function)(*args, **kwargs)

    assert events.rows == tool("t", expected, {"result": None})


def test_arguments_of_a_function_that_hides_its_signature_are_recorded(events: Recorded) -> None:
    """A decorator between us and the function may pass arguments of its own; the call is recorded all the same."""

    def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function("session", *args, **kwargs)

        return wrapper

    @traced_tool
    @with_session
    def find(session: str, key: str) -> str:
        return f"{session} {key}"

    assert find("a") == "session a"
    assert events.rows == tool("find", {"args": ["a"]}, {"result": "session a"})


CAPTURES = [
    ({}, {"card": "4242", "amount": 5}),
    ({"capture_input": True}, {"card": "4242", "amount": 5}),
    ({"capture_input": False}, {}),
    ({"capture_input": ["amount"]}, {"amount": 5}),
    ({"capture_input": ("amount", "card")}, {"card": "4242", "amount": 5}),
    ({"redact": ["card"]}, {"card": "[redacted]", "amount": 5}),
    ({"redact": {"card"}, "capture_input": ["card"]}, {"card": "[redacted]"}),
]


@pytest.mark.parametrize(("options", "expected"), CAPTURES)
def test_what_is_recorded_of_the_arguments_can_be_chosen(
    events: Recorded, options: Any, expected: dict[str, Any]
) -> None:
    """All of them, none, some by name; secrets are replaced."""

    @traced_tool(**options)
    def charge(card: str, amount: int) -> str:
        return "ok"

    charge("4242", 5)

    (_, request), (_, response) = [(each[:5], each[5]) for each in events.rows]
    assert (request, response) == (expected, {"result": "ok"})


def test_a_request_tells_that_its_arguments_were_left_out(events: Recorded) -> None:
    """They may have been any; a tool without parameters has none."""

    @traced_tool(capture_input=False)
    def charge(card: str) -> str:
        return "ok"

    @traced_tool
    def count() -> int:
        return 1

    charge("4242")
    count()

    requests = [event for event in events.records if event["eventType"] == "tool_call_request"]
    assert [event["metadata"].get("captured") for event in requests] == [False, None]


def test_secrets_are_known_by_their_names(events: Recorded) -> None:
    """What is named as a password is not recorded, at any depth."""

    @traced_tool
    def login(user: str, password: str, options: dict[str, Any]) -> dict[str, str]:
        return {"api_key": "sk-1"}

    login("ada", "hunter2", {"headers": {"Authorization": "Bearer x"}})

    assert events.rows == tool(
        "login",
        {"user": "ada", "password": "[redacted]", "options": {"headers": {"Authorization": "[redacted]"}}},
        {"api_key": "[redacted]"},
    )


@pytest.mark.anyio
async def test_the_output_is_left_out_on_request(events: Recorded) -> None:
    """The response is recorded without the result, or the items."""

    @traced_tool(capture_output=False)
    def plain() -> str:
        return "secret"

    @traced_tool(capture_output=False)
    def items() -> Iterator[str]:
        yield "secret"

    plain()
    list(items())

    assert events.rows == [*tool("plain", {}, {}), *tool("items", {}, {})]


def test_a_result_that_is_an_object_is_recorded_as_it_is(events: Recorded) -> None:
    """Anything else stands under ``result``."""

    @traced_tool
    def look(value: Any) -> Any:
        return value

    look({"a": 1})
    look([1])
    look(None)

    assert [row[5] for row in events.rows[1::2]] == [{"a": 1}, {"result": [1]}, {"result": None}]


def test_name_and_metadata_are_recorded_with_each_event(events: Recorded) -> None:
    """Metadata stands in the request, the error and the response."""

    @traced_tool(name="lookup", metadata={"tier": 2, "tags": ["a"]})
    def find() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        find()

    about = {"tier": 2, "tags": ["a"]}
    error = {"type": "KeyError", "message": "'x'"}

    assert events.rows == [
        ("tool_call_request", 1, None, 0, "lookup", {}, about),
        ("error", 2, 1, 1, "lookup", error, about),
        ("tool_call_response", 3, 1, 1, "lookup", {"error": error}, {**about, "outcome": "error"}),
    ]


@pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])
def test_a_disabled_decorator_returns_the_function_itself(decorate: Any) -> None:
    """Nothing is wrapped."""

    def bare() -> None: ...

    assert decorate(enabled=False)(bare) is bare


def test_accumulate_makes_the_result_of_the_items(events: Recorded) -> None:
    """It is given all the items once the generator has ended."""

    @traced_tool(accumulate=sum)
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    list(count(4))

    assert events.rows == tool("count", {"to": 4}, {"result": 6})


def test_an_accumulate_that_fails_is_named_and_the_items_are_recorded(
    events: Recorded, said: Callable[[], list[str]]
) -> None:
    """The call goes on, its response is recorded, and the log says what to mend."""

    @traced_tool(accumulate=lambda items: items[99])
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    assert list(count(2)) == [0, 1]
    assert list(count(2)) == [0, 1]
    assert events.of(events.traces[0]) == tool("count", {"to": 2}, {"result": [0, 1]})
    assert len(said()) == 1
    assert "accumulate of 'count'" in said()[0]


WRONG_OPTIONS = [
    ({"name": 5}, "name is 5; it must be text"),
    ({"name": ""}, "name is ''"),
    ({"capture_input": 5}, "capture_input is 5"),
    ({"capture_input": "card"}, "capture_input is 'card'"),
    ({"capture_input": ["crad"]}, "crad"),
    ({"capture_output": "no"}, "capture_output is 'no'"),
    ({"capture_output": None}, "capture_output is None"),
    ({"redact": "card"}, "redact is 'card'"),
    ({"redact": ["crad"]}, "crad"),
    ({"redact": [5]}, "redact"),
    ({"redact": True}, "redact is True"),
    ({"metadata": 5}, "metadata is 5"),
    ({"metadata": {"within": 1}}, "within"),
    ({"metadata": {"tool": "x"}}, "tool"),
    ({"metadata": {"latencyMs": 1}}, "latencyMs"),
    ({"accumulate": 5}, "accumulate is 5"),
    ({"enabled": "no"}, "enabled is 'no'"),
]


@pytest.mark.parametrize(("options", "text"), WRONG_OPTIONS)
def test_a_wrongly_typed_option_is_refused_at_decoration(options: Any, text: str) -> None:
    """The error names the option and what it takes."""
    with pytest.raises(ValueError, match=text) as caught:

        @traced_tool(**options)
        def charge(card: str) -> None: ...

    assert type(caught.value).__module__ == "whyops_trace.exceptions"


@pytest.mark.parametrize("decorate", [traced_tool, traced_llm, traced_embedding])
def test_an_unknown_option_is_refused_with_the_known_ones(decorate: Any) -> None:
    """Before a function is given."""
    with pytest.raises(UnknownOptionError, match=r"no option 'nmae'; this decorator takes .*name"):
        decorate(nmae="x")


def test_options_of_models_are_no_options_of_tools() -> None:
    """Each decorator takes what it obeys."""
    with pytest.raises(UnknownOptionError, match="no option 'model'"):
        traced_tool(model="gpt")  # type: ignore[call-overload]
    with pytest.raises(UnknownOptionError, match="no option 'capture_output'"):
        traced_embedding(capture_output=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("value", ["search", 5, [], functools.cached_property(len)])
def test_what_cannot_be_called_cannot_be_decorated(value: Any) -> None:
    """Such as a name in the place of the function."""
    with pytest.raises(ConfigurationError, match="it takes a function or another callable"):
        traced_tool(value)


def test_any_names_may_be_redacted_where_any_arguments_are_taken(events: Recorded) -> None:
    """A function with ``**kwargs`` has no list of names to check against."""

    @traced_tool(redact=["card"])
    def charge(**kwargs: Any) -> None: ...

    charge(card="4242", amount=1)

    assert events.rows == tool("charge", {"card": "[redacted]", "amount": 1}, {"result": None})


def test_names_given_by_an_iterator_hold_for_every_function(events: Recorded) -> None:
    """One decorator may decorate several functions."""
    decorate = traced_tool(redact=iter(["card"]))
    first: Callable[[str], None] = decorate(lambda card: None)
    second: Callable[[str], None] = decorate(lambda card: None)

    first("1")
    second("2")

    assert [row[5] for row in events.rows[::2]] == [{"card": "[redacted]"}, {"card": "[redacted]"}]


def test_options_beside_the_function_are_obeyed_too() -> None:
    """Where the decorator is called as a function."""

    def tool() -> None:
        """Do nothing."""

    assert traced_tool(tool, enabled=False) is tool  # type: ignore[call-overload]
    with pytest.raises(UnknownOptionError):
        traced_tool(tool, speed=1)  # type: ignore[call-overload]
