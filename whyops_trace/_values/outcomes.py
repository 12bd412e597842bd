"""
The outcome of an exception: a failure, a cancellation, or no failure at all.

Frameworks raise exceptions to pause a graph, to try a task again or to hand a call over to somebody. Nothing went
wrong then. They are recognised by name, so that no framework is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import MemberDescriptorType, ModuleType
from typing import Any, Final, Literal

from whyops_trace._values.reflection import mro_of, name_of, namespace_of, qualname_of
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import ExceptionLike

#: Exceptions that are the control flow of a framework, or end an iteration. Subclasses count as well.
_CONTROL_FLOW: Final = (
    "StopIteration",
    "StopAsyncIteration",
    "unittest.case.SkipTest",
    "_pytest.outcomes.Skipped",
    "airflow.exceptions.AirflowRescheduleException",
    "airflow.exceptions.AirflowSkipException",
    "airflow.exceptions.DagRunTriggerException",
    "airflow.exceptions.TaskDeferred",
    "airflow.sdk.exceptions.AirflowRescheduleException",
    "airflow.sdk.exceptions.AirflowSkipException",
    "airflow.sdk.exceptions.DagRunTriggerException",
    "airflow.sdk.exceptions.TaskDeferred",
    "anyio.EndOfStream",
    "arq.worker.Retry",
    "arq.worker.RetryJob",
    "celery.exceptions.TaskPredicate",  # the base of Ignore, Reject and Retry
    "dramatiq.errors.Retry",
    "dramatiq.middleware.SkipMessage",
    "huey.exceptions.CancelExecution",
    "huey.exceptions.RetryTask",
    "langgraph.errors.GraphBubbleUp",  # the base of GraphInterrupt and ParentCommand
    "prefect.exceptions.PausedRun",
    "prefect.exceptions.PrefectSignal",  # the base of Abort and Pause
    "pydantic_ai.exceptions.ApprovalRequired",
    "pydantic_ai.exceptions.CallDeferred",
    "pydantic_ai.exceptions.SkipModelRequest",
    "pydantic_ai.exceptions.SkipToolExecution",
    "pydantic_ai.exceptions.SkipToolValidation",
    "temporalio.activity._CompleteAsyncError",
    "temporalio.workflow.ContinueAsNewError",
    "tornado.gen.Return",
    "tornado.web.Finish",
    "trio.EndOfChannel",
    "whyops_trace.exceptions.AgentStop",
)

# Readers that a class cannot override.
_members: Final = BaseExceptionGroup.__dict__["exceptions"].__get__
_exit_code: Final = SystemExit.__dict__["code"].__get__
#: Function that reads the instance ``__dict__`` of an exception.
attributes_of: Final = BaseException.__dict__["__dict__"].__get__


class NotErrors:
    """
    Exceptions that are no failures.

    Args:
        given: Classes of exceptions, and names: ``"package.module.Name"`` as it is imported, or ``"Name"`` for any
            class of that name. Subclasses count as well.

    Raises:
        ConfigurationError: if there is something else among them.
    """

    __slots__ = ("_classes", "_modules")

    def __init__(self, given: Iterable[ExceptionLike] = ()) -> None:
        self._classes: tuple[type[BaseException], ...] = ()
        #: Modules by the name of a class in them; "" for any module.
        self._modules: dict[str, set[str]] = {}
        if isinstance(given, (str, type)) or not isinstance(given, Iterable):
            raise ConfigurationError(f"not_errors is {given!r:.80}; it must be {EXPECTED}.")
        for one in given:
            if isinstance(one, str) and one:
                module, _, name = one.rpartition(".")
                self._modules.setdefault(name, set()).add(module)
            elif isinstance(one, type) and issubclass(one, BaseException):
                self._classes += (one,)
            else:
                raise ConfigurationError(f"not_errors has {one!r:.80}; it must be {EXPECTED}.")

    def cover(self, kind: type[BaseException]) -> bool:
        """Return True if exceptions of that class are no failures."""
        if not (self._classes or self._modules):
            return False
        return any(any(base is one for one in self._classes) or self._names(base) for base in mro_of(kind))

    def _names(self, kind: type) -> bool:
        modules = self._modules.get(qualname_of(kind).rpartition(".")[2])
        if modules is None:  # nearly always, and every failing call pays for this
            return False
        module, _, name = name_of(kind).rpartition(".")
        # A package may offer the class at another place than it is defined at.
        return any(one in ("", module) or _is_in(sys.modules.get(one), name, kind) for one in modules)


#: The values of ``not_errors``, in words.
EXPECTED: Final = "a list of exception classes or dotted names"
NONE: Final = NotErrors()


def not_errors_of(given: Iterable[ExceptionLike]) -> NotErrors:
    """Return exceptions that are no failures, as an argument names them. Nearly always there are none."""
    return NONE if given is NO_EXCEPTIONS else NotErrors(given)


#: The default of ``not_errors``; an empty tuple is one object.
NO_EXCEPTIONS: Final[tuple[ExceptionLike, ...]] = ()

_KNOWN: Final = NotErrors(_CONTROL_FLOW)


def outcome(error: BaseException, *not_errors: NotErrors) -> str:
    """
    Tell a failure from a cancellation, and from an exception that is neither.

    A cancellation derives from :class:`BaseException` directly, as asyncio's and trio's do, and as
    :class:`GeneratorExit` of an abandoned generator does. ``KeyboardInterrupt`` and ``SystemExit`` are failures, unless
    a program ends with the status 0. A group of exceptions is a failure if one of them is.

    Args:
        error: The exception.
        *not_errors: Exceptions that are no failures, besides the control flow of well-known frameworks.

    Returns:
        "error", "cancelled", or the name of the exception's class if it is neither.
    """
    kind = type(error)
    if _is_good_exit(error) or _KNOWN.cover(kind) or any(one.cover(kind) for one in not_errors):
        return name_of(kind).rpartition(".")[2]
    if issubclass(kind, BaseExceptionGroup):
        outcomes = [outcome(member, *not_errors) for member in _members(error)]
        others: Iterable[str] = (one for one in outcomes if one != "cancelled")
        return "error" if "error" in outcomes else next(iter(others), "cancelled")
    return _plain_outcome(kind)


def _plain_outcome(kind: type[BaseException]) -> Literal["error", "cancelled"]:
    return "error" if issubclass(kind, (Exception, KeyboardInterrupt, SystemExit)) else "cancelled"


def _is_good_exit(error: BaseException) -> bool:
    """Return True if an exception ends the program with the status 0."""
    code: Any = 1
    if issubclass(type(error), SystemExit):
        code = _exit_code(error)
    elif name_of(type(error)) == "click.exceptions.Exit":  # Typer's as well
        slot = namespace_of(type(error)).get("exit_code")
        code = slot.__get__(error) if type(slot) is MemberDescriptorType else 1
    return code is None or (type(code) in (int, bool) and code == 0)


def _is_in(module: object, name: str, kind: type) -> bool:
    return isinstance(module, ModuleType) and vars(module).get(name) is kind
