"""
One run of a traced callable (:class:`Call`), from its request to its response.

What its events look like is the business of its :class:`~whyops_trace._calls.site.CallSite`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from whyops_trace._guard import guarded
from whyops_trace._recording.line import LAST, USUAL, Draft, Ending
from whyops_trace._recording.recorder import ENDS
from whyops_trace._recording.state import TraceState
from whyops_trace._values.failures import describe, stack
from whyops_trace.context import OpenTurn, Scope, advance, set_scope
from whyops_trace.types import EventOptions

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite


class Detached(Enum):
    """Stands for the scope around a call that has been left already."""

    DETACHED = "detached"


DETACHED: Final = Detached.DETACHED

#: How many items of a generator are recorded, the first ones.
MAX_ITEMS: Final = 100
#: Characters of a text that is kept until the end of a generator as it is.
SHORT: Final = 500


class Items:
    """
    What is kept of the items of a generator.

    Attributes:
        kept: Items, or what a kind of call makes of them.
        count: How many items there were.
        size: What is kept, in bytes, where that is bounded.
        most: How many are kept at most, the first ones, where that is bounded.
    """

    __slots__ = ("count", "kept", "most", "size")

    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept
        self.count = 0
        self.size = 0
        self.most = MAX_ITEMS


class Held(NamedTuple):
    """A request of which it is not known yet who reports it to the server: what is recorded for it at the end."""

    kind: bytes
    parent: int
    within: int
    metadata: bytes
    content: bytes
    timestamp: str


class Asked:
    """
    What is known of a call of a model until it ends.

    Attributes:
        model: The model that the arguments name, "" if they name none.
        provider: Who serves it, as the arguments say.
        turn: Where the call may turn out to be reported by somebody else: whether turns of theirs were made in it.
        held: The request, as the server gets it if nobody else reports it.
        proxied: Whether somebody else does report it.
        is_local: Whether its records are for all destinations but the WhyOps server.
        by_client: Whether a provider's client made it: then a report by hand of the same turn is one too many.
        first_token_ms: Milliseconds from the request to the first output of a stream; None if that is not known.
    """

    __slots__ = ("by_client", "first_token_ms", "held", "is_local", "model", "provider", "proxied", "turn")

    def __init__(self) -> None:
        self.model = ""
        self.provider = ""
        self.turn: OpenTurn | None = None
        self.held: Held | None = None
        self.proxied = False
        self.by_client = False
        self.is_local = False
        self.first_token_ms: int | None = None

    @property
    def wraps(self) -> bool:
        """Whether turns that are reported by themselves were made in it."""
        return self.turn is not None and self.turn.wraps


class Call(msgspec.Struct, eq=False):
    """
    One run of a decorated callable, from its request to its response.

    A struct, because one is made for each call, in a fourth of the time that ``__init__`` takes.

    Attributes:
        site: What is known of the callable.
        state: The trace.
        step: The request's step.
        span: What pairs the request with its response.
        outer: The scope around the call, which is set again when it ends.
        own: Whether the call made its trace, which ends with it.
        started: When it began, as the recorder's clock tells it.
        items: What is kept of the items of a generator or stream; None for other callables.
        asked: What is known of a call of a model; None for other calls.
    """

    site: CallSite
    state: TraceState
    step: int
    span: bytes
    outer: Scope | Detached | None
    own: bool
    started: int
    items: Items | None = None
    asked: Asked | None = None

    @guarded("recording the end of a call", positional=2)
    def end(self, result: Any) -> None:
        """
        Leave the scope and record what the call returned.

        Of a generator or stream it is what its items come to, as the decorator's ``accumulate`` makes it.
        """
        perf_counter_ns = self.state.recorder.perf_counter_ns  # as elapsed_ms(), a frame less
        elapsed = (perf_counter_ns() - self.started) // 1_000_000
        if self.outer is not DETACHED:
            set_scope(self.outer)
        if self.state.on:
            if self.items is not None and self.site.accumulate is not None:
                kept, self.items = self.items.kept, None
                result = self.site.made_by("accumulate", self.site.accumulate, kept)
            self.site.respond(self, result, elapsed)

    @guarded("recording the failure of a call", positional=2)
    def fail(self, error: BaseException) -> None:
        """Leave the scope and record that the call raised, or was cancelled."""
        elapsed = self.elapsed_ms()
        if self.outer is not DETACHED:
            set_scope(self.outer)
        if self.state.on:
            if self.site.accumulate is not None:
                self.items = None  # what is kept are all the items, for it alone
            self.site.fail(self, error, elapsed)

    @property
    def accumulates(self) -> bool:
        """Whether the decorator's ``accumulate`` makes the answer of all items."""
        return self.site.accumulate is not None

    def detach(self) -> None:
        """Leave the scope, while what the call returned goes on: it ends later, wherever that is."""
        if self.outer is not DETACHED:
            set_scope(self.outer)
            self.outer = DETACHED

    def follow(self) -> None:
        """Leave the scope, and from now on keep the items of what the call returned."""
        self.detach()
        self.items = Items([])

    @guarded("recording an item", positional=2)
    def keep(self, item: Any) -> None:
        """Keep what is recorded of an item, all of it for the decorator's ``accumulate``."""
        items = self.items
        if items is not None and self.state.on:
            items.count += 1
            if self.site.accumulate is None:
                self.site.keep(self, items, item)
            else:
                items.kept.append(item)

    def elapsed_ms(self, moment_ns: int | None = None) -> int:
        """Return the milliseconds from the request until now, or until a moment of the recorder's clock."""
        perf_counter_ns = self.state.recorder.perf_counter_ns
        return ((perf_counter_ns() if moment_ns is None else moment_ns) - self.started) // 1_000_000

    def settle(self) -> bool:
        """
        Decide who reports the turn, before its end is recorded.

        Returns:
            Whether turns that are reported by themselves were made in it: then it is no turn, but what wraps them.
        """
        asked = self.asked
        if asked is None:
            return False
        if asked.wraps or asked.proxied:
            asked.held = None
            asked.is_local = self.state.recorder.serves
        else:
            self.tell_server()
        return asked.wraps

    def tell_server(self, *, anyhow: bool = False) -> None:
        """Record the request that is held back from the server, unless somebody else reports it, or *anyhow*."""
        asked = self.asked
        held = asked and (anyhow or not (asked.wraps or asked.proxied)) and asked.held
        if held and asked:
            asked.held = None
            self.state.recorder.record_draft(
                Draft(
                    self.state,
                    kind=held.kind,
                    parent=held.parent,
                    within=held.within,
                    metadata=held.metadata,
                    content=held.content,
                    span=self.span,
                    ending=Ending.SERVER,
                    given=EventOptions(timestamp=held.timestamp),
                    step=self.step,
                )
            )

    def record(self, kind: bytes, metadata: bytes, content: bytes) -> None:
        """Record one event of the call as a child of its request, such as an error."""
        ending = Ending.LOCAL if self.asked is not None and self.asked.is_local else USUAL
        self.state.recorder.record(self.state, kind, self.step, self.step, metadata, content, ending=ending)

    def close(self, kind: bytes, metadata: bytes, content: bytes) -> int:
        """Record the last event of the call and return its step; the trace ends with it if the call made it."""
        state, step, ending = self.state, self.step, LAST if self.own else USUAL
        is_local = self.asked is not None and self.asked.is_local
        if is_local:
            ending = Ending.LAST_LOCAL if self.own else Ending.LOCAL
        last = state.recorder.record(state, kind, step, step, metadata, content, self.span, ending, ENDS)
        state.recorder.close_span(self.span)
        if not self.own and not is_local:
            advance(state, last)
        return last


class GeneratorCall(Call, eq=False):
    """
    One run of a decorated generator, whose body has a scope of its own; that of the consumer is ``outer``.

    Attributes:
        short: Where items that are short and never change are kept as they are; None if all are given to the site.
    """

    short: Items | None = None

    def __post_init__(self) -> None:
        items = self.items = Items([])
        self.short = items if self.site.keeps_short else None

    def pass_on(self, item: Any) -> Any:
        """Keep what is recorded of an item; return the item."""
        kind, items = type(item), self.short
        if items is not None and (
            kind is int
            or (kind is str and len(item) < SHORT)
            or item is None
            or kind is bool
            or kind is float
        ):
            items.count = count = items.count + 1
            if count <= items.most:
                items.kept.append(item)
        else:
            self.keep(item)
        return item

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record that the generator is done, or was cancelled if its consumer closed it before it was."""
        if abandoned:
            self.fail(GeneratorExit())
        else:
            self.end(result)


class Followed:
    """
    Stands for the call site of a generator, and for its call, where a call that has begun returned it.

    What it runs is no part of the call's scope: that ended when the function returned. If nobody ever iterates over
    it, the call ends as it is dropped.

    Args:
        call: The call.

    Attributes:
        outer: That there is no scope of its own.
    """

    outer: Scope | Detached | None = DETACHED

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call
        call.follow()

    def open(self, named: dict[str, Any], run: type[Any]) -> Followed:
        """Return itself: the call has begun."""
        return self

    def pass_on(self, item: Any) -> Any:
        """Keep what is recorded of an item; return the item."""
        if self._call is not None:
            self._call.keep(item)
        return item

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record what the items came to, or that the call was cancelled if its consumer went before the end."""
        call, self._call = self._call, None
        if call is not None and abandoned:
            call.fail(GeneratorExit())
        elif call is not None:
            call.end(result)

    def fail(self, error: BaseException) -> None:
        """Record that the items ended in an error."""
        call, self._call = self._call, None
        if call is not None:
            call.fail(error)

    def __del__(self) -> None:
        self.finish(None, abandoned=True)


class Untraced:
    """
    Stands in for the :class:`GeneratorCall` of a generator that is not recorded.

    Attributes:
        outer: That there is no scope of its own.
    """

    outer: Scope | Detached | None = DETACHED

    def pass_on(self, item: Any) -> Any:
        """Return the item."""
        return item

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record nothing."""

    def fail(self, error: BaseException) -> None:
        """Record nothing."""


#: Reads the attributes of an exception, whatever its class says of them.
_attributes: Final = BaseException.__dict__["__dict__"].__get__


def error_content(error: BaseException) -> dict[str, Any]:
    """Return the content of an ``error`` event: type, message, stack, and the HTTP status if it has one."""
    content = {**describe(error), "stack": stack(error)}
    status = dict.get(_attributes(error), "status_code")
    if type(status) is int:
        content["status"] = status
    return content
