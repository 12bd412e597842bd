"""An exception is a failure, a cancellation, or neither."""

from __future__ import annotations

import asyncio
import importlib
import sys
from types import ModuleType
from typing import Any

import anyio
import click
import pytest
import trio

from whyops_trace._values.outcomes import NotErrors, outcome
from whyops_trace.exceptions import ConfigurationError


class Paused(Exception):
    """Stops a run that goes on later."""


class PausedByUser(Paused):
    """Stops it because somebody said so."""


class Named:
    """Has a class of exceptions in it."""

    class Paused(Exception):
        """Is another one of the same name."""


@pytest.mark.parametrize(
    "given",
    [Paused, "Paused", f"{__name__}.Paused", "outcomes_offered.Paused"],
    ids=["class", "name", "path", "offered"],
)
def test_exceptions_are_named_by_class_or_by_name(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """By the path under which they are imported as well; subclasses are meant with them."""
    offered = ModuleType("outcomes_offered")
    vars(offered)["Paused"] = Paused
    monkeypatch.setitem(sys.modules, "outcomes_offered", offered)
    not_errors = NotErrors([given])

    assert outcome(Paused(), not_errors) == "Paused"
    assert outcome(PausedByUser(), not_errors) == "PausedByUser"
    assert outcome(ValueError(), not_errors) == "error"
    assert (outcome(Named.Paused(), not_errors) == "error") == (given != "Paused")


def test_a_name_of_something_else_means_nothing() -> None:
    """Neither a module that is not loaded, nor another class, is an error."""
    not_errors = NotErrors(
        ["not_loaded.Paused", "asyncio.TimeoutError", "builtins.print", f"{__name__}.Named.Paused"]
    )

    assert outcome(Paused(), not_errors) == "error"
    assert outcome(Named.Paused(), not_errors) == "Paused"


@pytest.mark.parametrize("given", ["Paused", Paused, [Named], [""], [1], 1, [Paused()]])
def test_anything_but_exceptions_and_names_is_refused(given: Any) -> None:
    """With the words that say what to give."""
    with pytest.raises(ConfigurationError, match="a list of exception classes or dotted names"):
        NotErrors(given)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SystemExit(), "SystemExit"),
        (SystemExit(0), "SystemExit"),
        (SystemExit(False), "SystemExit"),
        (SystemExit(1), "error"),
        (SystemExit("no such order"), "error"),
        (click.exceptions.Exit(), "Exit"),
        (click.exceptions.Exit(2), "error"),
        (KeyboardInterrupt(), "error"),
        (GeneratorExit(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (StopIteration(), "StopIteration"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (anyio.EndOfStream(), "EndOfStream"),
        (trio.EndOfChannel(), "EndOfChannel"),
        (ExceptionGroup("g", [StopIteration()]), "StopIteration"),
        (BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit(0)]), "SystemExit"),
        (BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit(0), SystemExit(1)]), "error"),
    ],
    ids=repr,
)
def test_what_ends_well_is_no_failure(error: BaseException, expected: str) -> None:
    """A program that ends with the status 0, and the end of an iteration."""
    assert outcome(error) == expected


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("celery.exceptions", "Ignore", ()),
        ("celery.exceptions", "Reject", ("no", False)),
        ("celery.exceptions", "Retry", ("later",)),
        ("arq", "Retry", (5,)),
        ("dramatiq", "Retry", ("later",)),
        ("dramatiq.middleware", "SkipMessage", ("no",)),
        ("huey", "CancelExecution", ()),
        ("huey.exceptions", "RetryTask", ()),
        ("langgraph.errors", "GraphInterrupt", (())),
        ("langgraph.errors", "ParentCommand", (None,)),
        ("pydantic_ai", "ApprovalRequired", ()),
        ("pydantic_ai", "CallDeferred", ()),
        ("temporalio.workflow", "ContinueAsNewError", ()),
        ("unittest", "SkipTest", ("no",)),
        ("_pytest.outcomes", "Skipped", ("no",)),
    ],
)
def test_the_control_flow_of_frameworks_is_known(module: str, name: str, arguments: tuple[Any, ...]) -> None:
    """By its name, from the package itself where that is installed."""
    pytest.importorskip(module.partition(".")[0], reason="the session `frameworks` of nox installs it")
    kind = getattr(importlib.import_module(module), name)
    try:
        error = kind(*arguments)
    except (RuntimeError, TypeError):  # made by the framework alone
        error = kind.__new__(kind)

    assert outcome(error) == kind.__qualname__


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("celery.exceptions", "MaxRetriesExceededError"),
        ("langgraph.errors", "GraphRecursionError"),
        ("pydantic_ai", "ModelRetry"),
    ],
)
def test_a_tool_that_did_not_do_its_work_failed(module: str, name: str) -> None:
    """Whatever a framework makes of it afterwards."""
    pytest.importorskip(module.partition(".")[0], reason="the session `frameworks` of nox installs it")

    assert outcome(getattr(importlib.import_module(module), name)("no")) == "error"
