"""Exceptions in a replay: of the class they were of, as whole as their record, and told where that cannot be."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from packages import anthropic, openai
from pydantic import BaseModel, ValidationError

from whyops_trace import traced_tool
from whyops_trace.exceptions import RecordedError
from whyops_trace.replay import Replay, replay
from whyops_trace.testing import capture_events


class OddError(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class OddGroup(ExceptionGroup[Exception]):
    def __new__(cls, members: list[Exception]) -> OddGroup:
        return super().__new__(cls, "odd", members)


class Bill(BaseModel):
    total: float
    items: list[int]


def again(error: BaseException) -> tuple[Any, Replay]:
    """Return what a tool that raises an exception raises in a replay."""

    @traced_tool
    def tool() -> None:
        raise error

    with capture_events(local=True) as events, pytest.raises(type(error)):
        tool()
    with replay(events, store=False) as run, pytest.raises(BaseException) as caught:
        tool()
    return caught.value, run


@pytest.mark.parametrize(
    "error",
    [
        ValueError("v"),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "f"),
        TimeoutError(),
        subprocess.CalledProcessError(1, "x"),
        UnicodeDecodeError("utf8", b"x", 0, 1, "r"),
        OddError(5, detail="d"),
    ],
)
def test_an_exception_is_raised_again(error: Exception) -> None:
    """An exception of a class that is loaded is an instance of it, says the same, and has its plain attributes."""
    second, run = again(error)

    assert isinstance(second, type(error))
    assert str(second) == str(error)
    assert run.notes == []
    if not isinstance(error, UnicodeDecodeError):  # which has bytes among its arguments
        assert second.args == error.args
    if isinstance(error, (OddError, FileNotFoundError)):
        assert {**vars(second)} == vars(error)
        assert getattr(second, "filename", None) == getattr(error, "filename", None)


def test_an_exception_has_those_behind_it() -> None:
    """Its cause or context and its notes are there again, each of its class."""
    error = ValueError("v")
    error.__cause__ = OddError(1, detail="cause")
    error.__cause__.__context__ = KeyError("deep")
    error.add_note("a note")
    second, _ = again(error)

    assert isinstance(second.__cause__, OddError)
    assert str(second.__cause__) == "1: cause"
    assert repr(second.__cause__.__context__) == "KeyError('deep')"
    assert second.__notes__ == ["a note"]


def test_a_group_has_its_members() -> None:
    """Groups are groups again, nested ones too, so that except* finds what it did."""
    error = ExceptionGroup("many", [ValueError("a"), ExceptionGroup("inner", [KeyError("k")])])
    second, run = again(error)

    assert repr(second) == repr(error)
    assert run.notes == []


def test_a_group_whose_class_takes_something_else_is_a_plain_one() -> None:
    """Its members are there, and a note says what it was."""
    second, run = again(OddGroup([ValueError("a")]))

    assert type(second) is ExceptionGroup
    assert repr(second.exceptions) == "(ValueError('a'),)"
    assert "OddGroup, which cannot be made again; in the replay it is ExceptionGroup" in run.notes[0]


def test_what_a_model_of_pydantic_refused_is_told_again() -> None:
    """The places, types and messages are recorded, without the values, and are there again."""
    with pytest.raises(ValidationError) as caught:
        Bill.model_validate({"total": "sk-live-4eC39HqLyjWDarjtT1zdp7dc", "items": [1, "x"]})
    second, run = again(caught.value)

    def places(error: ValidationError) -> list[Any]:
        return [(each["type"], each["loc"], each["msg"]) for each in error.errors()]

    assert places(second) == places(caught.value)
    assert (second.title, run.notes) == ("Bill", [])
    assert "items.1\n  Input should be a valid integer" in str(second)
    assert "4eC39" not in str(second)


REQUEST = httpx.Request("POST", "https://api.test/v1")


@pytest.mark.parametrize(
    "error",
    [
        openai.RateLimitError("slow", response=httpx.Response(429, request=REQUEST), body={"code": "c"}),
        anthropic.APIStatusError("busy", response=httpx.Response(529, request=REQUEST), body=None),
        httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(404, request=REQUEST)),
    ],
    ids=["openai", "anthropic", "httpx"],
)
def test_a_refused_request_has_its_status(error: Any) -> None:
    """Exceptions of HTTP are made by their own constructors, with a response that has the recorded status."""
    second, run = again(error)

    assert (type(second), str(second)) == (type(error), str(error))
    assert second.response.status_code == error.response.status_code
    assert getattr(second, "code", None) == getattr(error, "code", None)
    assert run.notes == []


@pytest.mark.parametrize(
    "error", [openai.APIConnectionError(request=REQUEST), anthropic.APITimeoutError(request=REQUEST)]
)
def test_a_lost_connection_has_a_request(error: Any) -> None:
    """So have exceptions without an answer."""
    second, _ = again(error)

    assert (type(second), str(second)) == (type(error), str(error))
    assert second.request.method == "POST"


def test_an_exception_of_a_class_that_is_not_there_is_told() -> None:
    """A failure whose class is not loaded is a RecordedError that says what it was, and a note says so."""
    second, run = again(type("GoneError", (Exception,), {"__module__": "gone"})("no more"))

    assert isinstance(second, RecordedError)
    assert (second.type, second.message, str(second)) == (
        "gone.GoneError",
        "no more",
        "gone.GoneError: no more",
    )
    assert repr(pickle.loads(pickle.dumps(second))) == repr(second)
    assert "GoneError, which cannot be made again; in the replay it is RecordedError" in run.notes[0]


def test_an_exception_of_a_class_in_a_function_is_found() -> None:
    """A class that a function made is found as long as it is there; of several the newest."""

    class LocalError(Exception):
        pass

    second, _ = again(LocalError("here"))

    assert type(second) is LocalError


AGENT = """
import dataclasses
from whyops_trace import trace, traced_tool

@dataclasses.dataclass
class Order:
    id: int

class NoOrder(Exception):
    pass

@traced_tool
def look_up(id):
    if id < 0:
        raise NoOrder(id)
    return Order(id)

def agent():
    with trace("shop"):
        try:
            look_up(-1)
        except NoOrder:
            return look_up(5).id

if __name__ == "__main__":
    assert agent() == 5
"""
REPLAYED = """
from shop import agent
from whyops_trace.replay import replay

with replay("shop") as run:
    assert agent() == 5
assert run.notes == [], run.notes
"""


def test_a_program_that_ran_as_such_is_replayed_as_a_module(tmp_path: Path) -> None:
    """Its classes were those of __main__ when it was recorded, and are those of a module in a test."""
    (tmp_path / "shop.py").write_text(AGENT)
    (tmp_path / "replayed.py").write_text(REPLAYED)
    for program in ("shop.py", "replayed.py"):
        done = subprocess.run(
            [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

        assert done.returncode == 0, done.stderr
