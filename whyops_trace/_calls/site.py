"""
The name and options of a decorated callable (:class:`CallSite`), and the begin and end of its calls.

The three kinds of call, in :mod:`whyops_trace._calls.kinds`, differ in the events that they make of a request, a result
and a failure, and in nothing else.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from whyops_trace._calls.answering import instead
from whyops_trace._calls.arguments import Arguments
from whyops_trace._calls.call import DETACHED, Call, Detached, HeldRequest, Items, ModelCall
from whyops_trace._calls.drivers import Driver, driver_of
from whyops_trace._calls.following import follow
from whyops_trace._calls.lost import warn_if_lost
from whyops_trace._calls.restored import FORMAT, restore
from whyops_trace._checks import MAX_NAME, check_metadata
from whyops_trace._clock import iso
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._recording.line import TOP, USUAL, Content, Ending
from whyops_trace._recording.recorder import BEGINS, Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace._values.outcomes import EXPECTED, NotErrors, outcome
from whyops_trace._values.processor import REDACTED, encode_metadata
from whyops_trace._values.secrets.repeats import note
from whyops_trace.context import UNSETTLED, OpenTurn, Scope, forked_in, get_scope, set_scope, settle
from whyops_trace.exceptions import ConfigurationError, UnknownOptionError

C = TypeVar("C", bound="Call")

#: A call whose body runs later: its recorded arguments by name, and the scope that it was made in. That is its place if
#: no trace is open where it runs.
Made = tuple[dict[str, Any], Scope | None]


class CallSite:
    """
    A decorated callable: its options, its arguments, and the events of its calls.

    Args:
        function: The bare callable.
        options: The decorator's options, checked by :meth:`check`.
        recorder: Function that returns the recorder of a call outside any trace, None for none.
    """

    #: The options that the decorator takes, each with the values that it may have.
    options: ClassVar[Mapping[str, str]] = {
        "name": "text",
        "capture_input": "True, False or a list of parameter names",
        "capture_output": "True or False",
        "redact": "a list of parameter names",
        "metadata": "a dict",
        "accumulate": "a function without async",
        "not_errors": EXPECTED,
        "enabled": "True or False",
    }
    #: Metadata keys that this kind of call writes itself.
    written: ClassVar[frozenset[str]] = frozenset()
    #: True if a call may turn out to be reported elsewhere, see :meth:`_hold`.
    holds: bool = False
    #: True if any iterator that a call returns is followed to its end, and not only one that is nothing else.
    follows: bool = False
    #: True if short immutable items of a generator are kept as they are, and only others by :meth:`keep`.
    keeps_short: bool = False
    #: Name of the argument that is left out of the calls, "" for none.
    strips: str = ""
    #: Function that ends a call with a result that may still run, see :mod:`whyops_trace._calls.following`.
    follow: ClassVar[Callable[..., Any]] = staticmethod(follow)
    #: Function that returns what is called for a call that is not recorded, see :mod:`whyops_trace._calls.answering`.
    instead = instead

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        recorder: Callable[[], Recorder | None],
    ) -> None:
        self._parts = function, options, recorder
        self._recorder = recorder
        #: Runs a callable that does not run when it is called; None for one that does.
        self.drive: Driver | None = driver_of(function)
        self.name: str = options.get("name") or _name_of(function)
        about = check_metadata(options.get("metadata"), self.written)
        members = encode_metadata(about)[1:-1]
        #: JSON members of the user's metadata, led by a comma, or nothing.
        self.metadata: bytes = b"," + members if members else b""
        capture = options.get("capture_input", True)
        #: Names of the parameters to record; None for all.
        self._captured_names = None if capture is True else frozenset(capture or ())
        self._redacted_names = frozenset(options.get("redact") or ())
        self.captures_input: bool = self._captured_names != frozenset()
        self._plain = self._captured_names is None and not self._redacted_names
        self.capture_output: bool = options.get("capture_output", True)
        self.accumulate: Callable[[list[Any]], Any] | None = options.get("accumulate")
        self._not_errors = NotErrors(options.get("not_errors") or ())
        self._arguments = Arguments(function)
        #: Number of positional arguments of a usual call, -1 if no call is usual, and the function that names them.
        self._usual_count = self._arguments.usual if self._plain else -1
        self._name_usual = self._arguments.name_usual
        for name in (*(self._captured_names or ()), *self._redacted_names):
            self.require(name)

    def __reduce__(self) -> Any:
        return restore, (FORMAT, type(self), *self._parts)

    def without_self(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the positional arguments of a call without self or cls."""
        return self._arguments.without_self(args)

    def require(self, name: str) -> None:
        """
        Check that calls can have an argument of that name.

        Raises:
            ConfigurationError: if they cannot.
        """
        if not self._arguments.accepts(name):
            raise ConfigurationError(
                f"{self.name} has no parameter {name!r}; capture_input, redact and tool_call_id take names of its "
                "parameters."
            )

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the checked options of a decorator.

        Raises:
            UnknownOptionError: if there is no such option.
            ConfigurationError: if one has the wrong type.
        """
        checked = dict(options)
        for option, value in options.items():
            expected = cls.options.get(option)
            if expected is None:
                names = ", ".join(sorted(cls.options))
                raise UnknownOptionError(f"There is no option {option!r}; this decorator takes {names}.")
            if (
                ("names" in expected or expected == EXPECTED)
                and isinstance(value, Iterable)
                and not isinstance(value, (str, bytes))
            ):
                checked[option] = tuple(value)  # an iterator would serve one function only
            if not _fits(expected, checked[option]):
                raise ConfigurationError(f"{option} is {value!r:.80}; it must be {expected}.")
        return checked

    def _pick(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the arguments of a call that are recorded, by name; None if Python will refuse the call."""
        if len(args) == self._usual_count and not kwargs:
            name_usual = self._name_usual
            return name_usual(args)
        named = self._arguments.named(args, kwargs)
        if named is None:
            named = self._arguments.as_they_came(args, kwargs)
            if named is not None and self._redacted_names:  # any of those without a name may be one of these
                note("", [*args])
                named = {"args": REDACTED, **kwargs} if args else dict(kwargs)
        if self._plain or named is None:
            return named
        if self._captured_names is not None:
            named = {name: value for name, value in named.items() if name in self._captured_names}
        for name in self._redacted_names.intersection(named):
            note("", named[name])
            if type(named[name]) is dict:
                encode_metadata(named[name])  # which notes what is secret in it by name
        return {name: REDACTED if name in self._redacted_names else value for name, value in named.items()}

    @guarded("recording a call", positional=3)
    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Record the request of a call that runs now, and enter its scope. Return None if nothing is recorded."""
        named = self._pick(args, kwargs)
        return None if named is None else self._open(named, Call)

    @guarded("looking at the arguments of a call", positional=3)
    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Made | None:
        """Return what :meth:`open` needs of a call whose body runs later. Return None if it cannot be recorded."""
        if len(args) == self._usual_count and not kwargs:  # _pick() without its frame
            name_usual = self._name_usual
            named: dict[str, Any] | None = name_usual(args)
        else:
            named = self._pick(args, kwargs)
        return None if named is None else (named, settle() if UNSETTLED else get_scope())

    @guarded("recording a call", positional=3)
    def open(self, made: Made, run: type[C]) -> C | None:
        """Record the request of a call whose body runs now, and enter its scope. Return None if nothing is recorded."""
        named, made_in = made
        call = self._open(named, run, made_in)
        if call is not None and call.outer is None and made_in is not None and made_in.within == TOP:
            call.state.last = call.step  # the trace goes on from here if it comes back
        return call

    def _open(self, named: dict[str, Any], run: type[C], made_in: Scope | None = None) -> C | None:
        outer = settle() if UNSETTLED else get_scope()  # find_scope() without its frame
        scope = outer or made_in or self._trace_of_its_own()
        if scope is None:
            return None
        state = scope.trace
        recorder = state.recorder
        if not state.on:
            # Calls inside a trace of its own that is sampled out must not begin another trace, nor may those of a late
            # call.
            if outer is not None or (made_in is None and not recorder.on):
                return None
            set_scope(scope)
            return run(self, state, 0, b"", outer, True, 0)
        if state.gate is not None:
            state.gate.admit(self.name, scope.parent, scope.within)
        kind, metadata, content = self.request(named, recorder)
        if state.asked_tools is not None:
            metadata = self.requested_by(state, named) + metadata
        span = recorder.open_span()
        own = outer is None and (made_in is None or not made_in.trace.blocks)
        if recorder.traces_clients and self.holds:
            call, inside = self._hold((kind, metadata, content), run, scope, outer, span, own=own)
            set_scope(inside)
            return call
        step = recorder.record(
            state, kind, scope.parent, scope.within, metadata, content, span, USUAL, BEGINS
        )
        set_scope(Scope(state, step, step, scope.enclosing))
        perf_counter_ns = recorder.perf_counter_ns
        return run(self, state, step, span, outer, own, perf_counter_ns())

    def start(
        self, named: dict[str, Any], scope: Scope, call_id: str = "", about: bytes = b""
    ) -> tuple[Call, Scope]:
        """
        Record the request of a call that code elsewhere makes, at a place in a trace. The current scope stays.

        Args:
            named: The arguments by name.
            scope: The place.
            call_id: The id that the model gave the call, "" if unknown.
            about: More metadata members, each led by a comma.

        Returns:
            The call, and the scope of what runs in it.
        """
        state = scope.trace
        recorder = state.recorder
        kind, metadata, content = self.request(named, recorder)
        if state.asked_tools is not None:
            metadata = self.requested_by(state, named, call_id) + metadata
        metadata, span = metadata + about, recorder.open_span()
        if recorder.traces_clients and self.holds:
            return self._hold((kind, metadata, content), Call, scope, DETACHED, span, own=False)
        step = recorder.record(
            state, kind, scope.parent, scope.within, metadata, content, span, USUAL, BEGINS
        )
        call = Call(self, state, step, span, DETACHED, False, recorder.perf_counter_ns())
        return call, Scope(state, step, step, scope.enclosing)

    def _hold(
        self,
        request: tuple[bytes, bytes, Content],
        run: type[C],
        scope: Scope,
        outer: Scope | Detached | None,
        span: bytes,
        *,
        own: bool,
    ) -> tuple[C, Scope]:
        """
        Record a request that the server gets when the call ends, unless its turn is reported elsewhere.

        Until then it is the parent of no event that the server gets: later events have the parent that it has itself.

        Returns:
            The call, and the scope inside it.
        """
        state, parent, within = scope.trace, scope.parent, scope.within
        recorder = state.recorder
        turn = OpenTurn(scope.enclosing)
        kind, metadata, content = request
        ending = Ending.LOCAL if recorder.serves else USUAL
        step = recorder.record(state, kind, parent, within, metadata, content, span, ending, BEGINS)
        call = run(self, state, step, span, outer, own, recorder.perf_counter_ns())
        model_call = call.model_call = ModelCall()
        model_call.turn, turn.step = turn, step
        if recorder.serves:
            model_call.held_request = HeldRequest(
                kind, parent, within, metadata, content, iso(state.last_ms * 1_000_000)
            )
            if not state.root:
                state.open_gate().held_requests.append(call.tell_server)
        return call, Scope(state, step, parent if recorder.serves else step, turn)

    def request(self, named: dict[str, Any], recorder: Recorder) -> tuple[bytes, bytes, Content]:
        """Return the event type, metadata members and content of a request."""
        raise NotImplementedError

    def respond(self, call: Call, result: Any, elapsed_ms: int) -> None:
        """Record the result of a call, or the kept items of a generator."""
        raise NotImplementedError

    def fail(self, call: Call, error: BaseException, elapsed_ms: int) -> None:
        """Record that a call raised, was cancelled, or was abandoned as a generator."""
        raise NotImplementedError

    def keep(self, call: Call, items: Items, item: Any) -> None:
        """Keep one item of a generator or stream in the form that is recorded."""
        raise NotImplementedError

    def requested_by(self, state: TraceState, named: Mapping[str, Any], call_id: str = "") -> bytes:
        """Return the metadata member that names the turn which asked for the call, led by a comma, or nothing."""
        return b""

    def outcome(self, call: Call, error: BaseException) -> str:
        """Return the outcome of a call that raised: "error", "cancelled", or the name of what is no failure."""
        return outcome(error, call.state.recorder.not_errors, self._not_errors)

    def apply(self, option: str, function: Callable[[Any], Any], value: Any) -> Any:
        """Return the result of an option's function for a value. If it raises, warn once and return the value."""
        result, error = attempt(function, value)
        if error is None:
            return result
        warn_once(
            f"{option} of {self.name}",
            "%s of %r raised %s; what it was given is recorded instead.",
            option,
            self.name,
            type(error).__name__,
        )
        return value

    def _trace_of_its_own(self) -> Scope | None:
        recorder = self._recorder()
        if recorder is None:
            return None
        if recorder.open_blocks or threading.get_ident() != threading.main_thread().ident or forked_in():
            warn_if_lost(self.name, recorder)
        return Scope(recorder.new_trace())


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, of the function in a partial, or of a callable object's class."""
    for candidate in (function, getattr(function, "func", None), type(function)):
        name = getattr(candidate, "__name__", None)
        if isinstance(name, str) and name:
            return name[:MAX_NAME]
    return "call"


def _fits(expected: str, value: object) -> bool:
    if value is None:
        return expected != "True or False"
    if expected == "text":
        return isinstance(value, str) and 0 < len(value) <= MAX_NAME
    if expected == "a function without async":
        return callable(value) and not inspect.iscoroutinefunction(value)
    if expected == "a dict":
        return isinstance(value, Mapping)
    if isinstance(value, bool):
        return expected.startswith("True")
    if expected == EXPECTED:
        return isinstance(value, tuple)  # of what, is checked when it is used
    return "names" in expected and isinstance(value, tuple) and all(isinstance(name, str) for name in value)
