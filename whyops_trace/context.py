"""
Where in a trace the code that runs now stands: one contextvar, holding ids only.

A :data:`Scope` is immutable, so a copy of the context (a new task, a thread with :func:`propagate`) forks the
flow by itself: branches that run at the same time share the event they forked from.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeAlias, TypeVar, cast

from whyops_trace._models.links import AskedTools, ReportedTurns
from whyops_trace._values import encoding

if TYPE_CHECKING:
    from whyops_trace.recorder import Recorder

P = ParamSpec("P")
R = TypeVar("R")


class TraceState:
    """
    What this process knows of one trace: its identity and how far its numbering has come.

    Attributes:
        id: The trace id, 1 to 128 characters.
        recorder: Where its records go.
        on: Whether anything is recorded at all: tracing is on, and the trace is not sampled out.
        run: The name of its numbering, where the user chose the id or a proxy reports to the same trace; else None.
        head: The fixed start of its records, ``"traceId":...,["run":...,]"stepId":``.
        tail: The fixed part after the key, ``"agentName":...[,"externalUserId":...]``.
        steps: The next step numbers, *stride* apart; taken under the recorder's lock.
        stride: How far apart they are.
        first: The step of its first event.
        root: The step of the first one that a server has as well: what an event follows from that follows from nothing
            else.
        last: The last event at the top that was recorded outside any with-block, where the next one there chains.
        last_ms: The latest timestamp given out, in milliseconds since the epoch.
        form: What its next record is made by, unless that is its first one, or there is something to tell of the trace:
            the fixed parts of its records, with places for all else. Else nothing.
        token: The process the numbering belongs to.
        blocks: How many with-blocks of the trace are open.
        open: How many decorated calls and steps of the trace are open.
        untold: While a server has nothing of it: what records the requests held back from it, should something that is
            not held back come after them.
        asked_tools: The tool calls that models asked for in it; None if there were none.
        reported: The turns of it that clients of providers made, and so report; None if there were none.
        user: The user it acts for, if that was told.
        when: The recorder's text for the time of its last record, by identity: another one means that time has passed,
            or that this is a forked process.
        about: The metadata member, led by a comma, that tells of the trace as a whole, until an event carries it.
        given: The steps the user chose, if any.
        open_tools: For manual tool calls by span id, until their responses come: the request's step, what that is
            nested in, and the span id again if the library made it.
    """

    __slots__ = (
        "about", "asked_tools", "blocks", "first", "form", "given", "head", "id", "last", "last_ms", "on", "open",
        "open_tools", "recorder", "reported", "root", "run", "steps", "stride", "tail", "token", "untold", "user",
        "when",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        trace_id: str,
        run: str | None = None,
    ) -> None:
        self.id = trace_id
        self.recorder = recorder
        self.on = recorder.keeps(trace_id) if recorder.processor.samples else recorder.on
        self.name_run(run)
        self.tail = recorder.tail
        self.stride = recorder.stride
        self.steps: Iterator[int] = count(1, self.stride)
        self.first = 0
        self.root = 0
        self.last = 0
        self.last_ms = 0
        self.when = b""
        self.form = b""
        self.token = recorder.token
        self.untold: list[Callable[[], None]] = []
        self.about = b""
        self.user = ""
        self.asked_tools: AskedTools | None = None
        self.reported: ReportedTurns | None = None
        self.blocks = 0
        self.open = 0
        self.given: set[int] | None = None
        self.open_tools: dict[str, tuple[int, int, bytes]] = {}

    def name_run(self, run: str | None) -> None:
        """Name the numbering, before the first record: whoever stores that has to find out where it begins."""
        self.run = run
        member = b',"run":' + encoding.string(run) if run else b""
        self.head = b'"traceId":%b%b,"stepId":' % (encoding.string(self.id), member)

    def note_asked(self, step: int, tool_calls: Any) -> None:
        """Remember the tool calls, plain data, that the answer of that step asks for."""
        if self.asked_tools is None:
            self.asked_tools = AskedTools()
        self.asked_tools.note(step, tool_calls)

    def note_turn(self, step: int, models: Iterable[str], text: str | None) -> None:
        """Remember that the turn which the answer of that step ends is reported: whoever made it need not do so."""
        if self.reported is None:
            self.reported = ReportedTurns()
        self.reported.note(step, models, text)

    def tell(self, external_user_id: str | None, about: bytes) -> None:
        """
        Tell of the trace as a whole, from its next event on.

        Args:
            external_user_id: The user the agent acts for; None: no other than before.
            about: A metadata member, led by a comma, or nothing.
        """
        about = self.recorder.processor.told(about) if about else about
        with self.recorder.lock:
            if external_user_id is not None:
                self.user = external_user_id
                self.tail = b'%b,"externalUserId":%b' % (
                    self.recorder.tail,
                    encoding.string(external_user_id),
                )
            self.about = about or self.about
            self.form = b""


class OpenTurn:
    """
    A call of a model, by a traced function or a provider's client, that is not over.

    Attributes:
        outer: The one it is made in, if any.
        wraps: Whether a client's request is made in it, which is a turn with a report of its own.
    """

    __slots__ = ("outer", "wraps")

    def __init__(self, outer: OpenTurn | None) -> None:
        self.outer = outer
        self.wraps = False


#: ``(trace, within, last, turn)``: the step of the enclosing call (0 at the top of the trace); the event that the next
#: one follows from: at the top the one before in this flow (0 if there is none yet), inside a call 0, which means the
#: call's own request; and the innermost turn around.
Scope: TypeAlias = "tuple[TraceState, int, int, OpenTurn | None]"

_SCOPE: Final[ContextVar[Scope | None]] = ContextVar("whyops_trace_scope", default=None)

#: What says which scope is current, and what makes another one so: a call passes them five times, and to look a method
#: up on the variable takes longer than what it does.
get_scope: Final[Callable[[], Scope | None]] = _SCOPE.get
set_scope: Final[Callable[[Scope | None], object]] = _SCOPE.set


def advance(state: TraceState, step: int) -> None:
    """Chain the next event at the top of *state*'s trace to *step*, if this flow is there."""
    scope = get_scope()
    if scope is not None and scope[0] is state and not scope[1]:
        set_scope((state, 0, step, scope[3]))


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """
    Return *function* such that it runs in the scope that is current now, in whichever thread it is called.

    A coroutine function has that scope in whichever event loop it is awaited.

    Only the tracing scope is carried; other context variables are left as they are in that thread.

    Example::

        with trace("report-1"), ThreadPoolExecutor() as pool:
            pool.submit(propagate(fetch), url)
    """
    scope = get_scope()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
            before = get_scope()
            set_scope(scope)
            try:
                return await function(*args, **kwargs)
            finally:
                set_scope(before)

        return cast("Callable[P, R]", awaited)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = get_scope()
        set_scope(scope)
        try:
            return function(*args, **kwargs)
        finally:
            set_scope(before)

    return carried


class ThreadPropagation:
    """
    What :func:`propagate_threads` returns: call :meth:`undo`, or use it as a ``with`` block.

    Undoing while somebody else has patched ``ThreadPoolExecutor.submit`` on top leaves their patch in place
    and only stops carrying the scope. Several may be undone in any order.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    #: Those whose patch is still in place, the uppermost last.
    _patches: ClassVar[list[ThreadPropagation]] = []

    def __init__(self) -> None:
        self._active = True
        with self._lock:
            self._apply()
            self._patches.append(self)

    def _apply(self) -> None:
        original: Callable[..., Future[Any]] = ThreadPoolExecutor.submit
        self._original = original

        @functools.wraps(original)
        def submit(
            pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
        ) -> Future[Any]:
            if self._active and get_scope() is not None:
                function = propagate(function)
            return original(pool, function, *args, **kwargs)

        self._submit: Callable[..., Future[Any]] = submit
        self._patch(submit)

    def undo(self) -> None:
        """Stop carrying the scope into thread pools; calling it again does nothing."""
        with self._lock:
            self._active = False
            while self._patches:
                uppermost = self._patches[-1]
                if uppermost._active or ThreadPoolExecutor.submit is not uppermost._submit:
                    break
                self._patch(uppermost._original)
                self._patches.pop()

    @staticmethod
    def _patch(submit: Callable[..., Future[Any]]) -> None:
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]

    def __enter__(self) -> ThreadPropagation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.undo()


def propagate_threads() -> ThreadPropagation:
    """
    Make every ``ThreadPoolExecutor`` (and so ``loop.run_in_executor``) carry the scope, until undone.

    This is the only thing in the library that changes a class of the standard library, and only when asked.
    """
    return ThreadPropagation()
