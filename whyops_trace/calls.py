"""
One traced call: what decorating a function fixed (:class:`CallSite`), and a run of it (:class:`Call`).

The three kinds of call, in :mod:`whyops_trace.kinds`, differ in the events they make of a request, a result and a
failure, and in nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from whyops_trace import _json
from whyops_trace._arguments import Arguments
from whyops_trace._checks import MAX_NAME, check_metadata
from whyops_trace._failure import describe, stack
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace.context import SCOPE, Scope, advance
from whyops_trace.exceptions import ConfigurationError, UnknownOptionError
from whyops_trace.processors import REDACTED
from whyops_trace.recorder import LINE_END, TRACE_END, Recorder

C = TypeVar("C", bound="Call")

#: How threads of pools are named, those of asyncio's ``run_in_executor(None, ...)`` too.
_POOL_THREADS: Final = ("ThreadPoolExecutor", "asyncio_")


class CallSite:
    """
    What is known of a decorated callable before it is called.

    Args:
        function: The bare callable.
        options: The decorator's options, checked by :meth:`check`.
        recorder: Returns what records a call outside any trace; None if nothing does.
    """

    #: The options the decorator takes, and what each must be.
    options: ClassVar[Mapping[str, str]] = {
        "name": "text",
        "capture_input": "True, False or a list of parameter names",
        "capture_output": "True or False",
        "redact": "a list of parameter names",
        "metadata": "a dict",
        "accumulate": "a function",
        "enabled": "True or False",
    }
    #: Metadata keys this kind of call writes itself.
    written: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        recorder: Callable[[], Recorder | None],
    ) -> None:
        self._recorder = recorder
        self.name: str = options.get("name") or _name_of(function)
        about = check_metadata(options.get("metadata"), self.written)
        members = _json.encode(about, lambda _: False)[1:-1]
        #: JSON members of the user's metadata, led by a comma, or nothing.
        self.metadata = b"," + members if members else b""
        capture = options.get("capture_input", True)
        self._captured = None if capture is True else frozenset(capture or ())
        self._redacted = frozenset(options.get("redact") or ())
        self._plain = self._captured is None and not self._redacted
        self.capture_output: bool = options.get("capture_output", True)
        self.accumulate: Callable[[list[Any]], Any] | None = options.get("accumulate")
        self._arguments = Arguments(function)
        self._names = self._arguments.positional
        #: How many arguments a call has that needs no further look.
        self._usual = self._arguments.usual if self._plain else -1
        for name in (*(self._captured or ()), *self._redacted):
            if not self._arguments.accepts(name):
                raise ConfigurationError(
                    f"{self.name} has no parameter {name!r}; capture_input and redact take names of its parameters."
                )

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return a decorator's options checked.

        Raises:
            UnknownOptionError: if there is no such option.
            ConfigurationError: if one has the wrong type.
        """
        checked = dict(options)
        for option, value in options.items():
            expected = cls.options.get(option)
            if expected is None:
                known = ", ".join(sorted(cls.options))
                raise UnknownOptionError(f"There is no option {option!r}; this decorator takes {known}.")
            if "names" in expected and isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
                checked[option] = tuple(value)  # an iterator would serve one function only
            if not _fits(expected, checked[option]):
                raise ConfigurationError(f"{option} is {value!r:.80}; it must be {expected}.")
        return checked

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is to be recorded of a call's arguments, by name; None if they do not fit the signature."""
        if len(args) == self._usual and not kwargs:
            return dict(zip(self._names, args))  # noqa: B905 - the lengths are equal
        named = self._arguments.named(args, kwargs)
        if self._plain or named is None:
            return named
        if self._captured is not None:
            named = {name: value for name, value in named.items() if name in self._captured}
        return {name: REDACTED if name in self._redacted else value for name, value in named.items()}

    @guarded("recording a call")
    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Record the request of a call that runs now, and enter its scope; None if nothing is recorded."""
        named = self.named(args, kwargs)
        return None if named is None else self._open(named, Call)

    @guarded("looking at the arguments of a call")
    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return what is to be recorded of the arguments of a call whose body runs later, for :meth:`open`."""
        return self.named(args, kwargs)

    @guarded("recording a call")
    def open(self, named: dict[str, Any], run: type[C]) -> C | None:
        """Record the request of a call whose body runs now, and enter its scope; None if nothing is recorded."""
        return self._open(named, run)

    def _open(self, named: dict[str, Any], run: type[C]) -> C | None:
        outer = SCOPE.get()
        scope = outer or self._trace_of_its_own()
        if scope is None:
            return None
        state, within, last, turn = scope
        recorder = state.recorder
        if not state.on:
            # What runs inside a trace of its own that is sampled out must not begin another one.
            return run(self, scope, outer, b"") if outer is None and recorder.on else None
        kind, metadata, content = self.request(named, recorder.hides)
        span = recorder.open_span()
        step = recorder.record(state, kind, last or within, within, metadata, content, span, opens=1)
        return run(self, (state, step, 0, turn), outer, span)

    def request(self, named: dict[str, Any], hides: Callable[[str], bool]) -> tuple[bytes, bytes, bytes]:
        """Return the event type, metadata members and content of a request."""
        raise NotImplementedError

    def respond(self, call: Call, result: Any, elapsed_ms: int) -> None:
        """Record what a call returned, or what is kept of the items it yielded."""
        raise NotImplementedError

    def fail(self, call: Call, error: BaseException, elapsed_ms: int) -> None:
        """Record that a call raised, was cancelled, or was abandoned as a generator."""
        raise NotImplementedError

    def keep(self, items: Items, item: Any, hides: Callable[[str], bool]) -> None:
        """Keep what is recorded of one item of a generator."""
        raise NotImplementedError

    def made_by(self, option: str, function: Callable[[Any], Any], value: Any) -> Any:
        """Return what the function of an option makes of a value; if it raises, the value, and say so once."""
        made, error = attempt(function, value)
        if error is None:
            return made
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
        thread = threading.current_thread().name
        if recorder.open_blocks and thread.startswith(_POOL_THREADS):
            warn_once(
                "lost scope",
                "%s was called in thread %r, which does not know the trace that is open, and makes a trace of its own. "
                "Submit whyops_trace.propagate(function), or call whyops_trace.propagate_threads() once.",
                self.name,
                thread,
            )
        return recorder.new_trace(), 0, 0, None


class Items:
    """
    What is kept of the items of a generator.

    Attributes:
        kept: Items, or what a kind of call makes of them.
        count: How many items there were.
        size: What is kept, in bytes, where that is bounded.
    """

    __slots__ = ("count", "kept", "size")

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.count = 0
        self.size = 0


class Call:
    """
    One run of a decorated callable, from its request to its response.

    Attributes:
        state: The trace.
        step: The request's step.
        items: What is kept of a generator's items; None for other callables.
        asked: The model that the arguments name, "" if they name none.
    """

    __slots__ = ("_outer", "_own", "_site", "_span", "_started", "asked", "items", "state", "step")

    def __init__(self, site: CallSite, inner: Scope, outer: Scope | None, span: bytes) -> None:
        self.state, self.step, _, _ = inner
        self.items: Items | None = None
        self.asked = ""
        self._site = site
        self._span = span
        self._outer = outer
        self._own = outer is None
        SCOPE.set(inner)
        self._started = self.state.recorder.perf_counter_ns()

    @guarded("recording the end of a call")
    def end(self, result: Any) -> None:
        """Leave the scope and record what the call returned."""
        elapsed = self._leave()
        if self.state.on:
            self._site.respond(self, result, elapsed)

    @guarded("recording the failure of a call")
    def fail(self, error: BaseException) -> None:
        """Leave the scope and record that the call raised, or was cancelled."""
        elapsed = self._leave()
        if self.state.on:
            self._site.fail(self, error, elapsed)

    def _leave(self) -> int:
        """Leave the scope; return the milliseconds since the request."""
        elapsed = (self.state.recorder.perf_counter_ns() - self._started) // 1_000_000
        SCOPE.set(self._outer)
        return elapsed

    def record(self, kind: bytes, metadata: bytes, content: bytes) -> None:
        """Record one event of the call as a child of its request, such as an error."""
        self.state.recorder.record(self.state, kind, self.step, self.step, metadata, content)

    def close(self, kind: bytes, metadata: bytes, content: bytes) -> None:
        """Record the last event of the call: it closes the pair, and the trace if the call made it."""
        state, step = self.state, self.step
        last = state.recorder.record(
            state, kind, step, step, metadata, content, self._span, TRACE_END if self._own else LINE_END,
            opens=-1,
        )  # fmt: skip
        state.recorder.close_span(self._span)
        if not self._own:
            advance(state, last)


class GeneratorCall(Call):
    """
    One run of a decorated generator: suspended while the consumer has an item, when the scope is the consumer's own.

    Attributes:
        running: Whether the body runs now.
    """

    __slots__ = ("_inner", "running")

    def __init__(self, site: CallSite, inner: Scope, outer: Scope | None, span: bytes) -> None:
        super().__init__(site, inner, outer, span)
        self.items = Items()
        self.running = True
        self._inner: Scope | None = inner

    def suspend(self, item: Any) -> Any:
        """Leave the scope while the consumer has an item; return the item."""
        self.running = False
        self._inner = SCOPE.get()
        SCOPE.set(self._outer)
        self._keep(item)
        return item

    def resume(self) -> None:
        """Enter the scope again as the body goes on."""
        self._outer = SCOPE.get()
        SCOPE.set(self._inner)
        self.running = True

    @guarded("recording an item of a generator")
    def _keep(self, item: Any) -> None:
        items = self.items
        if items is not None and self.state.on:
            items.count += 1
            if self._site.accumulate is None:
                self._site.keep(items, item, self.state.recorder.hides)
            else:
                items.kept.append(item)

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record that the generator is done, or was cancelled if its consumer closed it before it was."""
        if abandoned:
            self.fail(GeneratorExit())
        else:
            self.end(result)

    def fail(self, error: BaseException) -> None:
        """Leave the scope and record that the generator raised, or was cancelled."""
        if self._site.accumulate is not None:
            self.items = None  # what is kept are all the items, for it alone
        super().fail(error)

    @guarded("recording the end of a generator")
    def end(self, result: Any) -> None:
        """Leave the scope and record what the generator yielded, as the decorator's ``accumulate`` makes it."""
        elapsed = self._leave()
        if not self.state.on:
            return
        accumulate, items = self._site.accumulate, self.items
        if accumulate is not None and items is not None:
            result, self.items = self._site.made_by("accumulate", accumulate, items.kept), None
        self._site.respond(self, result, elapsed)


class Untraced:
    """Stands in for the :class:`GeneratorCall` of a generator that is not recorded."""

    running = True

    def suspend(self, item: Any) -> Any:
        """Return the item."""
        self.running = False
        return item

    def resume(self) -> None:
        """Note that the body goes on."""
        self.running = True

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record nothing."""

    def fail(self, error: BaseException) -> None:
        """Record nothing."""


#: Reads the attributes of an exception, whatever its class says of them.
_attributes: Final = BaseException.__dict__["__dict__"].__get__


def error_content(error: BaseException, hides: Callable[[str], bool]) -> bytes:
    """Return the content of an ``error`` event, as JSON: type, message, stack, and the HTTP status if it has one."""
    content = {**describe(error), "stack": stack(error)}
    status = dict.get(_attributes(error), "status_code")
    if type(status) is int:
        content["status"] = status
    return _json.encode(content, hides)


def _name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, of what a partial calls, or of a callable object's class."""
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
    if expected == "a function":
        return callable(value)
    if expected == "a dict":
        return isinstance(value, Mapping)
    if isinstance(value, bool):
        return expected.startswith("True")
    return "names" in expected and isinstance(value, tuple) and all(isinstance(name, str) for name in value)
