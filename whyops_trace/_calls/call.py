"""
One run of a traced callable (:class:`Call`), from its request to its response.

Its :class:`~whyops_trace._calls.site.CallSite` makes the events of it.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from whyops_trace._guard import guarded
from whyops_trace._recording.line import LAST, USUAL, Content, Draft, Ending
from whyops_trace._recording.recorder import ENDS
from whyops_trace._recording.state import TraceState
from whyops_trace._values.secrets.repeats import NOTED
from whyops_trace.context import OpenTurn, Scope, advance, find_scope, set_scope
from whyops_trace.types import EventOptions

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite

C = TypeVar("C", bound="Call")


class Detached(Enum):
    """Stands in for the scope around a call once the call has left its own."""

    DETACHED = "detached"


DETACHED: Final = Detached.DETACHED

#: Largest number of items of a generator that are recorded. They are the first ones.
MAX_ITEMS: Final = 100
#: Number of characters below which a text is kept as it is until the end of a generator.
SHORT: Final = 500
#: Identities of the types of results that have nothing left to run. Other classes may refuse to be hashed.
SETTLED: Final = frozenset(
    map(id, (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset))
)


class Items:
    """
    The items of a generator that are kept until it ends.

    Attributes:
        values: Items, or the values that a kind of call makes of them.
        count: Number of all items.
        size: Bytes of the values, if they are bounded.
        most: Largest number of values, which are of the first items, if they are bounded.
    """

    __slots__ = ("count", "most", "size", "values")

    def __init__(self, values: list[Any]) -> None:
        self.values: list[Any] = values
        self.count: int = len(values)
        self.size: int = 0
        self.most: int = MAX_ITEMS


class HeldRequest(NamedTuple):
    """A request that is held back from the server, as it is recorded at the end if the call reports its own turn."""

    kind: bytes
    parent: int
    within: int
    metadata: bytes
    content: Content
    timestamp: str


class ModelCall:
    """
    The state of a call of a model until it ends.

    Attributes:
        model: The model that the arguments name, "" if they name none.
        provider: The provider that the arguments name, "" if they name none.
        streams: True if the arguments ask for a stream.
        turn: The open turn of a call that may be reported by another. It tells if turns with a report of their own were
            made in the call.
        held_request: The request that the server gets if nothing else reports it.
        proxied: True if the WhyOps proxy reports it.
        is_local: True if its records are for all destinations but the WhyOps server.
        by_client: True if a provider's client made it. Then a report by hand of the same turn is one too many.
        first_token_ms: Milliseconds from the request to the first output of a stream; None if that is not known.
        last_step: The step of its last record, 0 while it runs.
        answer: Hash of its answer, None if it has no whole one or no proxy reports it.
        thoughts: Hash of each thought in its answer.
        request_id: The provider's id of the request, "" if unknown.
        error_response: The status, headers and body with which the provider refused it, None if it did not.
    """

    __slots__ = (
        "answer",
        "by_client",
        "error_response",
        "first_token_ms",
        "held_request",
        "is_local",
        "last_step",
        "model",
        "provider",
        "proxied",
        "request_id",
        "streams",
        "thoughts",
        "turn",
    )

    def __init__(self) -> None:
        self.model: str = ""
        self.provider: str = ""
        self.streams: bool = False
        self.turn: OpenTurn | None = None
        self.held_request: HeldRequest | None = None
        self.proxied: bool = False
        self.by_client: bool = False
        self.is_local: bool = False
        self.first_token_ms: int | None = None
        self.last_step: int = 0
        self.answer: int | None = None
        self.thoughts: list[int] = []
        self.request_id: str = ""
        self.error_response: dict[str, Any] | None = None

    @property
    def wraps(self) -> bool:
        """True if turns with a report of their own were made in it."""
        return self.turn is not None and self.turn.wraps


class Call(msgspec.Struct, eq=False):
    """
    One run of a decorated callable, from its request to its response.

    A struct, because one is made for each call, in a fourth of the time that ``__init__`` takes.

    Attributes:
        site: The call site of the callable.
        state: The trace.
        step: The request's step.
        span: The span id that pairs the request with its response.
        outer: The scope around the call, which is set again when it ends.
        own: True if the trace ends with the call: it made the trace, or runs after the blocks of it were left.
        started: The time of its begin, in nanoseconds of the recorder's clock.
        items: The kept items of a generator or stream; None for other callables.
        model_call: The state of a call of a model; None for other calls.
    """

    site: CallSite
    state: TraceState
    step: int
    span: bytes
    outer: Scope | Detached | None
    own: bool
    started: int
    items: Items | None = None
    model_call: ModelCall | None = None

    @guarded("recording the end of a call", positional=2)
    def returned(self, result: Any) -> bool:
        """
        Leave the scope and record the result of a call whose function has returned it.

        Returns:
            True if the result may still run. Then nothing is done yet: the call ends when the result has.
        """
        if id(type(result)) not in SETTLED:
            return True
        elapsed = (self.state.recorder.perf_counter_ns() - self.started) // 1_000_000
        set_scope(self.outer)  # type: ignore[arg-type]
        if self.state.on:
            self.site.respond(self, result, elapsed)
        return False

    @guarded("recording the end of a call", positional=2)
    def end(self, result: Any) -> None:
        """
        Leave the scope and record the result of the call.

        The result of a generator or stream are its kept items, or what the decorator's ``accumulate`` makes of all.
        """
        perf_counter_ns = self.state.recorder.perf_counter_ns  # elapsed_ms() without its frame
        elapsed = (perf_counter_ns() - self.started) // 1_000_000
        if self.outer is not DETACHED:
            set_scope(self.outer)
        if self.state.on:
            if self.items is not None and self.site.accumulate is not None:
                values, self.items = self.items.values, None
                result = self.site.apply("accumulate", self.site.accumulate, values)
            self.site.respond(self, result, elapsed)

    @guarded("recording the failure of a call", positional=2)
    def fail(self, error: BaseException) -> None:
        """Leave the scope and record that the call raised, or was cancelled."""
        elapsed = self.elapsed_ms()
        if self.outer is not DETACHED and (type(error) is not GeneratorExit or self._is_current()):
            set_scope(self.outer)
        if self.state.on:
            if self.site.accumulate is not None:
                self.items = None  # it holds all items, for that function alone
            self.site.fail(self, error, elapsed)

    def _is_current(self) -> bool:
        """Tell whether the code that runs is in the call, and not where a coroutine was closed that ran elsewhere."""
        scope = find_scope()
        return scope is not None and scope.trace is self.state and scope.within >= self.step

    @property
    def accumulates(self) -> bool:
        """True if the decorator's ``accumulate`` makes the answer of all items."""
        return self.site.accumulate is not None

    def detach(self) -> None:
        """Leave the scope of a call whose result still runs. The call ends later, in any scope."""
        if self.outer is not DETACHED:
            set_scope(self.outer)
            self.outer = DETACHED

    def resume(self, run: type[C], scope: Scope | None) -> C:
        """Return a detached call as one that goes on here, in its own scope."""
        outer = find_scope()
        set_scope(scope)
        return run(
            self.site, self.state, self.step, self.span, outer, self.own, self.started, None, self.model_call
        )

    @guarded("recording an item", positional=2)
    def keep(self, item: Any) -> None:
        """Keep an item in the form that is recorded, or as it is for the decorator's ``accumulate``."""
        items = self.items
        if items is not None and self.state.on:
            items.count += 1
            if self.site.accumulate is None:
                self.site.keep(self, items, item)
                if NOTED:
                    self.state.note_repeats()
            else:
                items.values.append(item)

    def elapsed_ms(self, moment_ns: int | None = None) -> int:
        """Return the milliseconds from the request until now, or until a moment of the recorder's clock."""
        perf_counter_ns = self.state.recorder.perf_counter_ns
        return ((perf_counter_ns() if moment_ns is None else moment_ns) - self.started) // 1_000_000

    def settle(self) -> bool:
        """
        Decide if the call itself reports its turn, before its end is recorded.

        Returns:
            True if turns with a report of their own were made in it. Then it is no turn, but wraps them.
        """
        model_call = self.model_call
        if model_call is None:
            return False
        if model_call.wraps or model_call.proxied:
            model_call.held_request = None
            if self.state.gate is not None:
                # It has no place there if the server has events of the trace.
                with contextlib.suppress(ValueError):
                    self.state.gate.held_requests.remove(self.tell_server)
            model_call.is_local = self.state.recorder.serves
        else:
            self.tell_server()
        return model_call.wraps

    def tell_server(self, *, anyhow: bool = False) -> None:
        """Record the request that is held back from the server, unless its turn is reported elsewhere, or *anyhow*."""
        model_call = self.model_call
        request = (
            model_call
            and (anyhow or not (model_call.wraps or model_call.proxied))
            and model_call.held_request
        )
        if request and model_call:
            model_call.held_request = None
            self.state.recorder.record_draft(
                Draft(
                    self.state,
                    kind=request.kind,
                    parent=request.parent,
                    within=request.within,
                    metadata=request.metadata,
                    content=request.content,
                    span=self.span,
                    ending=Ending.SERVER,
                    given=EventOptions(timestamp=request.timestamp),
                    step=self.step,
                )
            )

    def record(self, kind: bytes, metadata: bytes, content: bytes) -> None:
        """Record one event of the call as a child of its request, such as an error."""
        model_call = self.model_call
        ending = Ending.LOCAL if model_call is not None and model_call.is_local else USUAL
        step = self.state.recorder.record(
            self.state, kind, self.step, self.step, metadata, content, ending=ending
        )
        if model_call is not None:
            model_call.last_step = step
            if kind == b"llm_thinking":
                model_call.thoughts.append(hash(content))

    def record_pair(self, *events: tuple[bytes, bytes, bytes]) -> None:
        """Record a request and its response as children of the call: event type, metadata members and content."""
        recorder, parent = self.state.recorder, self.step
        ending = Ending.LOCAL if self.model_call is not None and self.model_call.is_local else USUAL
        span = recorder.open_span()
        for kind, metadata, content in events:
            parent = recorder.record(self.state, kind, parent, parent, metadata, content, span, ending)
        recorder.close_span(span)

    def close(self, kind: bytes, metadata: bytes, content: bytes) -> int:
        """Record the last event of the call and return its step. The trace ends with it if the call is on its own."""
        state, step, ending = self.state, self.step, LAST if self.own else USUAL
        is_local = self.model_call is not None and self.model_call.is_local
        if is_local:
            ending = Ending.LAST_LOCAL if self.own else Ending.LOCAL
        last = state.recorder.record(state, kind, step, step, metadata, content, self.span, ending, ENDS)
        state.recorder.close_span(self.span)
        if self.model_call is not None:
            self.model_call.last_step = last
        if not self.own and not is_local:
            advance(state, last)
        return last


class GeneratorCall(Call, eq=False):
    """
    One run of a decorated generator, whose body has a scope of its own. The scope of the consumer is ``outer``.

    Attributes:
        short: The kept items, to which short immutable ones are added as they are; None if the site keeps all.
    """

    short: Items | None = None

    def __post_init__(self) -> None:
        items = self.items = Items([])
        self.short = items if self.site.keeps_short else None

    def pass_on(self, item: Any) -> Any:
        """Keep an item in the form that is recorded. Return the item."""
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
                items.values.append(item)
        else:
            self.keep(item)
        return item

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record that the generator is done, or that it was cancelled if its consumer closed it before the end."""
        if abandoned:
            self.fail(GeneratorExit())
        else:
            self.end(result)


class Untraced:
    """
    Stands in for the :class:`GeneratorCall` of a generator that is not recorded.

    Attributes:
        outer: A mark that it has no scope of its own.
    """

    outer: Scope | Detached | None = DETACHED

    def pass_on(self, item: Any) -> Any:
        """Return the item."""
        return item

    def finish(self, result: Any, *, abandoned: bool) -> None:
        """Record nothing."""

    def fail(self, error: BaseException) -> None:
        """Record nothing."""
