"""
The place in a trace of the code that runs now: one contextvar, which holds ids only.

A :class:`Scope` is immutable, so a copy of the context (a new task, a thread with ``propagate``) is a branch of its
own. Branches that run at the same time share the event that they forked from. A forked process begins outside any
trace.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Final, Protocol

import msgspec

from whyops_trace._forks import at_fork
from whyops_trace._frames import ENTERS, SUSPENDS, generator_around, nearest, running
from whyops_trace._guard import warn_once
from whyops_trace._models.answers import Turn
from whyops_trace._recording import recorders
from whyops_trace._recording.line import ROOT, TOP
from whyops_trace._recording.state import TraceState


class Enclosing:
    """
    A part of a program around the code that runs, which that code has to find again.

    Attributes:
        outer: The next one around it, if any.
    """

    __slots__ = ("outer",)

    def __init__(self, outer: Enclosing | None) -> None:
        self.outer: Enclosing | None = outer


class OpenTurn(Enclosing):
    """
    A call of a model, by a traced function or a provider's client, that is not over.

    Attributes:
        step: The step of its request; 0 if it has none yet.
        wraps: True if a client made a request in it, which is a turn with a report of its own.
        by_client: True if a client made it. Then whatever else tells of a turn in it tells of the same one.
        layer: What another layer tells of the same turn, None if none does.
        failure: The exception with which the last turn in it failed, and the step of its record; None if none failed.
    """

    __slots__ = ("by_client", "failure", "layer", "step", "wraps")

    def __init__(self, outer: Enclosing | None) -> None:
        super().__init__(outer)
        self.step: int = 0
        self.wraps: bool = False
        self.by_client: bool = False
        self.layer: Layer | None = None
        self.failure: tuple[BaseException, int] | None = None


class Layer(Protocol):
    """Another layer that tells of a turn, with its answer."""

    @property
    def answer(self) -> Turn:
        """The answer."""
        ...


class HeldBlock:
    """
    A block that stands in a generator, and so is open only for what runs in the generator.

    Attributes:
        frame: The frame of the generator.
        trace: The trace of the code in the block.
        within: The step of the block; 0 for that of a trace.
        parent: The step that the next event at the top of the block follows from.
        outer: The next part of the program around the block.
    """

    __slots__ = ("frame", "outer", "parent", "trace", "within")

    def __init__(self, frame: FrameType, scope: Scope) -> None:
        self.frame: FrameType = frame
        self.trace: TraceState = scope.trace
        self.within: int = scope.within
        self.parent: int = scope.parent
        self.outer: Enclosing | None = scope.enclosing

    def visit(self, covered: Scope | None) -> Scope:
        """Make the scope of the block the current one, in place of *covered*, and return it."""
        scope = Scope(self.trace, self.within, self.parent, Visit(self, covered))
        set_scope(scope)
        return scope


class Visit(Enclosing):
    """
    A stretch for which the scope of a :class:`HeldBlock` was made current, in one task or thread.

    The generator may be suspended, or read by another task or thread, without a word. So the scope may stay behind in
    the context of this one, and the visit tells what it covers there.

    Attributes:
        block: The block.
        covered: The scope that was current before.
        place: Function that returns the task or thread, None once that is gone.
    """

    __slots__ = ("__weakref__", "block", "covered", "place")

    def __init__(self, block: HeldBlock, covered: Scope | None) -> None:
        super().__init__(block.outer)
        self.block: HeldBlock = block
        self.covered: Scope | None = covered
        self.place: Callable[[], object] = weakref.ref(running())
        UNSETTLED[id(self)] = weakref.ref(self, functools.partial(_forget, id(self)))


class Loan(Enclosing):
    """
    The place inside an open call, which the code where it began has until the call ends.

    The end may come in another task than the begin, whose context is out of reach. There the loan stays behind, and
    tells what it covers.

    Attributes:
        covered: The scope that was current before.
        step: The step of the call.
        place: Function that returns the task or thread, None once that is gone.
        ended: True once the call has ended.
    """

    __slots__ = ("__weakref__", "covered", "ended", "place", "step")

    def __init__(self, inside: Scope, covered: Scope | None) -> None:
        super().__init__(inside.enclosing)
        self.covered: Scope | None = covered
        self.step: int = inside.within
        self.place: Callable[[], object] = weakref.ref(running())
        self.ended: bool = False

    def is_over(self) -> bool:
        """Tell whether the code that runs has its place no more."""
        return self.ended

    def end(self) -> None:
        """Make the scope before the current one again, here or wherever else the loan is found."""
        self.ended = True
        if self.place() is not running():
            self.unsettle()
        scope = get_scope()
        if _loan_of(scope) is self:
            set_scope(_without_loans(scope))

    def unsettle(self) -> None:
        """Have the scope of each call settled, as long as a context may have that of this loan."""
        UNSETTLED[id(self)] = weakref.ref(self, functools.partial(_forget, id(self)))


class Arrival(Enclosing):
    """
    The place that another program told, from which a trace goes on here.

    Attributes:
        within: The step of the enclosing call; 0 at the top.
        parent: The step that the next event follows from; 0 if there is none yet.
        goes_on: True if the trace is not over when the block here is.
        traceparent: The W3C header of that name that came with it, "" if none did.
        tracestate: Likewise.
        baggage: What the program told of other things, as W3C's header of that name; "" if nothing.
    """

    __slots__ = ("baggage", "goes_on", "parent", "traceparent", "tracestate", "within")

    def __init__(
        self,
        traceparent: str = "",
        tracestate: str = "",
        baggage: str = "",
        *,
        within: int = TOP,
        parent: int = ROOT,
        goes_on: bool = False,
    ) -> None:
        super().__init__(None)
        self.within: int = within
        self.parent: int = parent
        self.goes_on: bool = goes_on
        self.traceparent: str = traceparent
        self.tracestate: str = tracestate
        self.baggage: str = baggage

    def place(self, state: TraceState, outer: Scope | None) -> Scope:
        """Return it as a scope, inside of what is around the block."""
        self.outer: Enclosing | None = outer.enclosing if outer else None
        return Scope(state, self.within, self.parent or state.last, self)


#: The open blocks of generators, the visits and ended loans that a context may still have, and those who know places
#: and have some open, by identity. As long as it is empty, the current scope is that of the code that runs, and a call
#: pays nothing for all of these.
UNSETTLED: Final[dict[int, object]] = {}
#: Functions that know places by another context than ours: from the current scope to that of the code that runs.
PLACES: Final[list[Callable[[Scope | None], Scope | None]]] = []
#: The open blocks of generators by frame, the innermost last.
_held: Final[dict[FrameType, list[HeldBlock]]] = {}


# What a generator of the parent holds open, it holds in the parent.
at_fork(after_in_child=_held.clear)


def _forget(key: int, _: object) -> None:
    UNSETTLED.pop(key, None)


class Scope(msgspec.Struct, frozen=True, eq=False):
    """
    The place in a trace of the code that runs.

    A struct, because two are made for each call: a named tuple takes three times as long to make.

    Attributes:
        trace: The trace.
        within: The step of the enclosing call; 0 at the top.
        parent: The step that the next event follows from. Inside a call it is the step of the call's request. At the
            top it is the step of the event before in this task or thread, 0 if there is none yet.
        enclosing: The innermost enclosing call of a model or block of a generator, if any.
    """

    trace: TraceState
    within: int = TOP
    parent: int = ROOT
    enclosing: Enclosing | None = None


#: The variable itself, for looking into the context of others.
SCOPE: Final[ContextVar[Scope | None]] = ContextVar("whyops_trace_scope", default=None)

# A call uses these two five times, and to look a method up on the variable takes longer than to run it.
#: Function that returns the current scope, None outside any trace.
get_scope: Final[Callable[[], Scope | None]] = SCOPE.get
#: Function that makes a scope the current one.
set_scope: Final[Callable[[Scope | None], object]] = SCOPE.set


def find_scope() -> Scope | None:
    """
    Return the scope of the code that runs, None outside any trace, and make it current.

    That is the current one, unless a generator that has an open block was resumed or suspended since it became so.
    """
    return settle() if UNSETTLED else get_scope()


def settle() -> Scope | None:
    """Do the work of :func:`find_scope` while blocks are open in generators, or others know places."""
    before = scope = own_scope()
    for place in PLACES:
        scope = place(scope)
    if scope is not before:
        set_scope(scope)
    return scope


def own_scope() -> Scope | None:
    """Return the scope of the code that runs, as far as our own context tells, and make it current."""
    present = get_scope()
    scope = _without_loans(present)
    blocks = nearest(sys._getframe(1), _held) if _held else None
    block = blocks[-1] if blocks else None
    visit = _visit_of(scope)
    # A visit of another task or thread is not undone: it was inherited, by what was started in the block.
    while visit is not None and visit.block is not block and visit.place() is running():
        scope = visit.covered
        visit = _visit_of(scope)
    if block is not None and (visit is None or visit.block is not block):
        return block.visit(scope)
    if scope is not present:
        set_scope(scope)
    return scope


def _visit_of(scope: Scope | None) -> Visit | None:
    """Return the visit that a scope is part of, None if it is outside any block of a generator."""
    enclosing = None if scope is None else scope.enclosing
    while enclosing is not None and not isinstance(enclosing, Visit):
        enclosing = enclosing.outer
    return enclosing


def lend(inside: Scope) -> Loan:
    """Make the scope inside an open call the current one until the loan ends."""
    loan = Loan(inside, find_scope())
    set_scope(Scope(inside.trace, inside.within, inside.parent, loan))
    return loan


def _loan_of(scope: Scope | None) -> Loan | None:
    """Return the loan that a scope was made for, None if it was made otherwise."""
    loan = None if scope is None else scope.enclosing
    return loan if isinstance(loan, Loan) and scope is not None and scope.within == loan.step else None


def _without_loans(scope: Scope | None) -> Scope | None:
    """Return what a scope covers if it was lent and the loans have ended, else the scope itself."""
    while (loan := _loan_of(scope)) is not None and loan.is_over():
        scope = loan.covered
    return scope


def enter_scope(scope: Scope, outer: Scope | None, frame: FrameType) -> HeldBlock | None:
    """
    Enter the scope of a block.

    Args:
        scope: The scope.
        outer: The scope around the block.
        frame: The frame of the ``with`` statement.

    Returns:
        What :func:`leave_scope` needs to leave it, None for a block that stands in no generator.
    """
    code = frame.f_code
    if not code.co_flags & SUSPENDS and code.co_name not in ENTERS:
        set_scope(scope)
        return None
    generator, is_lost = generator_around(frame)
    if is_lost:
        warn_once(
            "block in a worker thread",
            "A block of trace %r was opened by a generator in a worker thread, as FastAPI runs a dependency without "
            "async: what the request calls is not inside the block. Write the dependency as `async def`; endpoints "
            "without async may use it as well.",
            scope.trace.id,
        )
    if generator is None:
        set_scope(scope)
        return None
    block = HeldBlock(generator, scope)
    UNSETTLED[id(block)] = block
    _held.setdefault(generator, []).append(block)
    block.visit(outer)
    return block


def leave_scope(block: HeldBlock | None, state: TraceState, within: int, outer: Scope | None) -> Scope | None:
    """
    Leave the scope of a block, which may be left in another context than it was entered in.

    What is current there is somebody else's, and stays.

    Args:
        block: What :func:`enter_scope` returned.
        state: The trace of the block.
        within: The step of the block; 0 for that of a trace.
        outer: The scope around the block.

    Returns:
        The scope that was current in the block at last; None if it is left in another context.
    """
    scope = settle() if UNSETTLED else get_scope()  # find_scope() without its frame
    if block is None:
        if scope is None or scope.trace is not state or scope.within < within:
            return None
        set_scope(outer)
        return scope
    held = _held.get(block.frame, [])
    if block in held:
        held.remove(block)
    if not held:
        _held.pop(block.frame, None)
    UNSETTLED.pop(id(block), None)
    visit = _visit_of(scope)
    if visit is not None and visit.block is block:
        set_scope(visit.covered)
    return Scope(state, block.within, block.parent)


def mark_wraps(enclosing: Enclosing | None) -> None:
    """Note in each call of a model around a turn that the turn has a report of its own."""
    for turn in turns_around(enclosing):
        turn.wraps = True


def turns_around(enclosing: Enclosing | None) -> Iterator[OpenTurn]:
    """Yield the calls of models around a place, the innermost first."""
    while enclosing is not None:
        if isinstance(enclosing, OpenTurn):
            yield enclosing
        enclosing = enclosing.outer


def turn_at(scope: Scope | None) -> OpenTurn | None:
    """Return the call of a model that a scope is directly in, None if it is in none, or in something inside one."""
    enclosing = None if scope is None else scope.enclosing
    while isinstance(enclosing, Visit | Loan):
        enclosing = enclosing.outer
    is_here = isinstance(enclosing, OpenTurn) and scope is not None and enclosing.step == scope.within
    return enclosing if is_here and isinstance(enclosing, OpenTurn) else None


def advance(state: TraceState, step: int) -> None:
    """Have the next event at the top of *state*'s trace follow from *step*, if the current scope is there."""
    scope = get_scope()
    if scope is not None and scope.trace is state and scope.within == TOP:
        enclosing = scope.enclosing
        scope = Scope(state, TOP, step, enclosing)
        set_scope(scope)
        if enclosing is not None:
            _note(scope)


def _note(scope: Scope) -> None:
    """Have a generator's block go on from a scope when it is resumed, if it is that block's."""
    visit = _visit_of(scope)
    if visit is not None and visit.place() is running():
        block = visit.block
        if block.trace is scope.trace and block.within == TOP:
            block.parent = scope.parent


def _say_late(state: TraceState) -> None:
    """Warn once of code that runs in a trace that ended long ago. A handle on one may be recorded on at any time."""
    scope = get_scope()
    if scope is not None and scope.trace is state:
        warn_once(
            "late record",
            "Trace %r ended %d seconds ago, and a task or thread that began in it still records in it. Start what "
            "outlives a trace within `with whyops_trace.detach():`, or let it call detach() first.",
            state.id,
            (state.last_ms - state.ended_ms) // 1_000,
        )


recorders.on_late.append(_say_late)


#: The trace in which this process was forked, if it was in one, and a byte that it shares with the other forks of it.
_forked_in: str | None = None
_told: memoryview | None = None


def forked_in() -> str | None:
    """Return the trace that was open where this process was forked; None if none was, or a fork has asked before."""
    if _forked_in is None or _told is None or _told[0]:
        return None
    return _forked_in


def forget_fork() -> None:
    """Let neither this process nor another fork of its parent be told of that trace again."""
    if _told is not None:
        _told[0] = 1


def _before_fork() -> None:
    global _told  # noqa: PLW0603 - of the process
    if _told is None and get_scope() is not None:
        import mmap  # where processes fork there are maps

        _told = memoryview(mmap.mmap(-1, 1))


def _leave_at_fork() -> None:
    """Begin a forked process outside any trace: its parent's goes on in the parent."""
    global _forked_in  # noqa: PLW0603 - of the process
    scope = get_scope()
    _forked_in = None if scope is None else scope.trace.id
    set_scope(None)


at_fork(before=_before_fork, after_in_child=_leave_at_fork)
