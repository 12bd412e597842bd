"""The runs of a framework that are open, by the ids it gives them, and where in a trace each stands."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from typing import Any, Final

from whyops_trace import default
from whyops_trace._checks import MAX_MODEL, MAX_NAME, check_metadata
from whyops_trace._guard import attempt
from whyops_trace.client import WhyOps
from whyops_trace.context import find_scope
from whyops_trace.open_calls import OpenCall
from whyops_trace.tracing import Trace

#: Number of runs that are remembered. A framework does not tell the end of one whose reader left it.
MAX_RUNS: Final = 10_000

#: Function that begins the call of a run, in a trace and inside another call, None for where the code stands.
Start = Callable[[Trace, OpenCall | None], OpenCall]


class Run:
    """
    A run of a framework that is open.

    Attributes:
        trace: Its trace.
        call: Its call, or that of the run around it if it has none itself; None if neither has one.
        is_own: True if the call is its own.
        notes: Whatever an adapter has to remember of it.
    """

    __slots__ = ("call", "is_own", "notes", "trace")

    def __init__(self, trace: Trace, call: OpenCall | None, *, is_own: bool) -> None:
        self.trace = trace
        self.call = call
        self.is_own = is_own
        self.notes: dict[str, Any] = {}

    @property
    def own_call(self) -> OpenCall | None:
        """The call, if it is its own."""
        return self.call if self.is_own else None


class Runs:
    """The open runs of one framework."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Run] = {}

    def get(self, key: Hashable) -> Run | None:
        """Return an open run."""
        return self._open.get(key)

    def pop(self, key: Hashable) -> Run | None:
        """Forget a run and return it; None if it is not open, or has ended before."""
        return self._open.pop(key, None)

    def begin(
        self,
        key: Hashable,
        parent: Hashable,
        start: Start,
        *,
        sdk: WhyOps | None,
        shown: bool = True,
        about: Mapping[str, Any] | None = None,
    ) -> Run | None:
        """
        Begin a run where it belongs.

        That is where the code stands, if it is inside the run's parent; else in the parent. A run without parent that
        stands in no trace makes one, which ends with it.

        Args:
            key: The framework's id of the run.
            parent: The id of the run around it, if any.
            start: Function that begins its call.
            sdk: The client of a trace of its own; None for the default one.
            shown: False if only the runs inside are shown. One with a trace of its own is shown in any case.
            about: Metadata of a trace of its own.

        Returns:
            The run, None if a run of that id is open: a framework may tell of one twice.
        """
        if key in self._open:
            return None
        around, scope = self._open.get(parent), find_scope()
        outer = None if around is None else around.call
        owns = around is None and scope is None
        if around is not None:
            trace = around.trace
            if outer is not None and scope is not None and scope.trace is trace._state:
                outer = None if scope.within > outer.step_id else outer
        elif scope is not None:
            trace = Trace(scope.trace)
        else:
            trace = (sdk.trace if sdk is not None else default.trace)(metadata=about)
        if shown or owns:
            call = start(trace, outer)
            call.ends_trace = owns
            run = Run(trace, call, is_own=True)
        else:
            run = Run(trace, around.call if around is not None else None, is_own=False)
        self._open[key] = run
        if len(self._open) > MAX_RUNS:
            self._open.pop(next(iter(self._open)), None)
        return run


def name_of(*names: object, otherwise: str) -> str:
    """Return the first of some names that is a text, cut to what is stored."""
    return next((name for name in names if isinstance(name, str) and name), otherwise)[:MAX_NAME]


def model_of(*names: object) -> str:
    """Return the first of some names of a model that is a text, cut to what is stored."""
    return name_of(*names, otherwise="unknown")[:MAX_MODEL]


def call_id_of(call_id: object) -> str | None:
    """Return the id of a call, None if it is none that can be stored."""
    return call_id if isinstance(call_id, str) and 0 < len(call_id) <= MAX_NAME else None


def metadata_of(told: Mapping[str, Any], written: Container[str] = ()) -> dict[str, Any]:
    """Return what a framework tells of a run as metadata, without names that the library writes itself."""
    checked = (attempt(check_metadata, {name: value}, written)[0] for name, value in told.items())
    return {name: value for each in checked if each for name, value in each.items()}
