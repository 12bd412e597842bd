"""Signatures that say something else than the code takes: the call is recorded all the same, as it came."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import pytest
from recorded import Recorded, tool

from whyops_trace import traced_tool


def claims(*names: str) -> Callable[[Any], Any]:
    """Return a decorator that says a function takes certain parameters."""

    def decorate(function: Any) -> Any:
        function.__signature__ = Signature(
            [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
        return function

    return decorate


@claims("other")
def moved(city: str, days: int = 1) -> str:
    """Say something else."""
    return city


@claims("other")
async def amoved(city: str, days: int = 1) -> str:
    """Say something else, later."""
    return city


@pytest.mark.parametrize(
    ("args", "kwargs"), [(("Bern", 2), {}), (("Bern",), {"days": 2}), ((), {"city": "Bern", "days": 2})]
)
def test_arguments_that_the_code_takes_have_the_codes_names(events: Recorded, args: Any, kwargs: Any) -> None:
    """Whatever the signature calls them."""
    assert traced_tool(moved)(*args, **kwargs) == "Bern"
    assert events.rows == tool("moved", {"city": "Bern", "days": 2}, {"result": "Bern"})


@pytest.mark.anyio
async def test_a_coroutine_is_recorded_likewise(events: Recorded) -> None:
    """The body runs as ever."""
    assert await traced_tool(amoved)("Bern", days=2) == "Bern"
    assert events.rows == tool("amoved", {"city": "Bern", "days": 2}, {"result": "Bern"})


def test_what_neither_takes_is_refused_by_python(events: Recorded) -> None:
    """With its own words, and nothing is recorded."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        traced_tool(moved)(nonsense=1)

    assert events.rows == []


def weather(city: str, days: int = 1) -> str:
    """Be a tool."""
    return city


@pytest.mark.parametrize(
    ("args", "kwargs"), [(("Bern", 2), {}), (("Bern",), {"days": 2}), ((), {"city": "Bern", "days": 2})]
)
def test_a_self_that_is_made_up_takes_no_argument_away(events: Recorded, args: Any, kwargs: Any) -> None:
    """A framework that makes a method of a function says so beforehand."""

    @claims("self", "city", "days")
    @functools.wraps(weather)
    def forward(*args: Any, **kwargs: Any) -> str:
        return weather(*args, **kwargs)

    assert traced_tool(forward)(*args, **kwargs) == "Bern"
    assert events.rows == tool("weather", {"city": "Bern", "days": 2}, {"result": "Bern"})


def test_a_wrapper_that_hides_what_it_wraps_is_recorded_as_it_was_called(events: Recorded) -> None:
    """By position and by name."""

    @traced_tool(name="open")
    @claims("self", "city")
    def forward(*args: Any, **kwargs: Any) -> int:
        return len(args) + len(kwargs)

    assert (forward("Bern"), forward(city="Bern"), forward(1, 2, 3, days=1)) == (1, 1, 4)
    assert [row[5] for row in events.rows[::2]] == [
        {"args": ["Bern"]},
        {"city": "Bern"},
        {"args": [1, 2, 3], "days": 1},
    ]


def test_a_class_whose_signature_lies_is_recorded_as_it_was_called(events: Recorded) -> None:
    """Its code is not known."""

    class Order:
        __signature__ = Signature([Parameter("number", Parameter.KEYWORD_ONLY)])

        def __init__(self, *args: Any, **fields: Any) -> None:
            self.fields = fields

    assert traced_tool(Order)(1, amount=5).fields == {"amount": 5}
    assert events.rows[0][5] == {"args": [1], "amount": 5}


def test_a_method_under_a_decorator_that_adds_arguments(events: Recorded) -> None:
    """Its object is none of them."""

    def with_session(function: Any) -> Any:
        @functools.wraps(function)
        def opened(self: Any, *args: Any) -> Any:
            return function(self, "session", *args)

        return opened

    class Shop:
        @traced_tool
        @with_session
        def find(self, session: str, number: int) -> tuple[str, int]:
            return session, number

    assert Shop().find(5) == ("session", 5)
    assert events.rows == tool("find", {"args": [5]}, {"result": ["session", 5]})


def test_a_secret_without_a_name_is_not_shown(events: Recorded) -> None:
    """Where the names do not fit, any argument by position may be the one to hide."""
    traced = traced_tool(redact=["other"])(moved)

    assert traced("secret", 2) == "secret"
    assert traced(city="Bern", days=2) == "Bern"
    assert [row[5] for row in events.rows[::2]] == [{"args": "[redacted]"}, {"city": "Bern", "days": 2}]


def test_the_signature_that_is_shown_stays_as_it_is() -> None:
    """Frameworks make their schemas of it."""
    assert list(inspect.signature(traced_tool(moved)).parameters) == ["other"]
