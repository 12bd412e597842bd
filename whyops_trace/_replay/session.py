"""The answers to the calls of a program from a recording, while a replay is open."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from whyops_trace._calls.answering import present
from whyops_trace._calls.call import Call, GeneratorCall
from whyops_trace._calls.kinds import Llm
from whyops_trace._calls.site import CallSite, Made
from whyops_trace._recording import recorders
from whyops_trace._recording.state import TraceState
from whyops_trace._replay import clients, untraced
from whyops_trace._replay.branching import Branch
from whyops_trace._replay.finder import Finder, Match
from whyops_trace._replay.guard import Guard
from whyops_trace._replay.matching import normalised
from whyops_trace._replay.recording import (
    Key,
    Places,
    RecordedCall,
    Recording,
    ended_by,
    key_of,
    opened_by,
    read_calls,
)
from whyops_trace._replay.results import Results, home_of, in_turn, items_of
from whyops_trace._replay.turns import Turns
from whyops_trace.context import find_scope
from whyops_trace.exceptions import ReplayMiss

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True

T = TypeVar("T")
#: Types of arguments that a function cannot change.
_UNCHANGING: Final = frozenset({type(None), bool, int, float, complex, str, bytes, tuple, frozenset})

#: True while the session itself opens a call.
_OPENS: Final[ContextVar[bool]] = ContextVar("whyops_trace_replay_opens", default=False)


class Session:
    """
    Answers calls from a recording.

    Attributes:
        events: The records of the replay.
        finder: Tells which recorded call a call is.
        turns: Lets calls that run at the same time end in turn.
        notes: What else was not as it was, such as exceptions without their attributes.

    Args:
        recording: The recording.
        match: "first" to answer a call that is not in the recording with the first one of its name.
        live: Names of what runs.
        swap: Functions that answer, by the name of what they answer.
        normalise: Function from each text of a question to the text that is compared.
        network: True to leave the network open.
        branch: The place where the run leaves the recording; None if it does not.
    """

    def __init__(
        self,
        recording: Recording,
        match: Match,
        live: frozenset[str],
        swap: Mapping[str, Callable[..., Any]],
        normalise: Callable[[str], str] | None,
        *,
        network: bool,
        branch: Branch | None = None,
    ) -> None:
        self.recording = recording
        self.branch = branch
        #: Step of the first call behind the branch that ran, 0 while all are answered.
        self.live_from: int = 0
        self.events: list[dict[str, Any]] = []
        later = {call.name for call in branch.rest} if branch else set[str]()
        self.notes: list[str] = [
            f"{name} was asked for by a model, but no call of it was recorded: it runs. Decorate it with @traced_tool."
            for name in recording.undecorated
            if name not in later
        ]
        self.miss: ReplayMiss | None = None
        self._live, self._swap, self._normalise = live, swap, normalise
        swapped = frozenset[str]() if branch else frozenset(swap)
        self.finder: Finder = Finder(recording, match, live, swapped, normalise, self.fail)
        self.results: Results = Results(self.fail, self.notes)
        self.guard: Guard | None = None if network else Guard(self._refuse)
        self._lock = threading.RLock()
        self._places = Places()
        self._opened: dict[Key, RecordedCall] = {}
        #: Turns of the replay of which the callbacks of a framework tell.
        self._told: dict[Key, RecordedCall] = {}
        self.turns: Turns = Turns(recording.calls, self._lock, self.notes)
        self._undo = contextlib.ExitStack()

    # The time for which it is open

    def open(self) -> None:
        """
        Answer the calls of the process from now on.

        Raises:
            RuntimeError: if another replay is open.
        """
        if present.answerer is not None:
            raise RuntimeError("A replay is open in this process; only one can be open at a time.")
        before = recorders.sink()

        def collect(line: bytes) -> None:
            self._collect(msgspec.json.decode(line))
            if before is not None:
                before(line)

        recorders.forget_traces()  # the replay does not go on with the recorded trace, nor that with the replay
        recorders.capture(collect)
        self._undo.callback(recorders.forget_traces)
        self._undo.callback(recorders.capture, before)
        for kind in (CallSite, Llm):
            own = vars(kind)["_open"]
            kind._open = _only_ours(own)  # type: ignore[method-assign]
            self._undo.callback(setattr, kind, "_open", own)
        self._undo.enter_context(untraced.answer_told(self))
        present.answerer = self
        self._undo.callback(setattr, present, "answerer", None)
        if self.guard is not None:
            self.guard.start()
            self._undo.callback(self.guard.stop)

    def close(self) -> None:
        """Answer no more."""
        self._undo.close()

    @property
    def calls(self) -> list[RecordedCall]:
        """The calls of the replay, as those of the recording."""
        calls = read_calls(self.events).calls
        for call in calls:
            call.asked = normalised(call.asked, self._normalise)
        return calls

    @property
    def unknown(self) -> list[str]:
        """The names in ``live`` and ``swap`` that neither the recording has, nor a call of the replay."""
        known = {call.name for call in (*self.recording.calls, *self.calls)}
        return sorted({*self._live, *self._swap} - known)

    def _collect(self, event: dict[str, Any]) -> None:
        if event.get("for") == "server":
            return
        with self._lock:
            self.events.append(event)
            self._places.add_step(event)
            call = opened_by(event)
            if call is None:
                found = ended_by(event, self._places)
                if found is not None:
                    self.turns.note_end(found)
            else:
                call.step = event["stepId"]
                call.parent, call.path = self._places.around(event)
                self._opened[key_of(event)] = call
                if not _OPENS.get():  # the callbacks of a framework tell of it
                    call.asked = normalised(call.asked, self._normalise)
                    self._places.add_call(key_of(event), self.finder.take(call))
                    self._note_callback(call)
                    if call.kind == "llm":
                        self._told[key_of(event)] = call

    def _refuse(self, what: str) -> None:
        turn, advice = (
            self.told(),
            "Trace what does that, list it in live=, or open the replay with network=True.",
        )
        if turn is not None and turn.name in self._live:
            return
        if turn is not None:
            advice = (
                f"{turn.name} asks its model by a client that is not traced, and no client of OpenAI or Anthropic: "
                f"give it one that sdk.openai(...) or sdk.anthropic(...) traces, or list {turn.name!r} in live=."
            )
        self.fail(f"{what} would have left the process in a replay. {advice}")

    def fail(self, message: str) -> NoReturn:
        """
        Note that a call cannot be answered.

        Raises:
            ReplayMiss: always.
        """
        error = ReplayMiss(message)
        self.miss = self.miss or error
        raise error

    # Which recorded call a call is

    def _find(self, site: CallSite, call: Call) -> RecordedCall | None:
        """Return the recorded call that answers a call; None if it runs or is swapped, and none was recorded."""
        place = _place(call.state, call.step)
        with self._lock:
            asked = self._opened.get(place)
            if asked is None:
                self.fail(
                    f"{site.name} was not recorded, so it cannot be replayed: its trace is sampled out."
                )
            asked.asked = normalised(asked.asked, self._normalise)
            found = self.finder.take(asked) if self.has_left else self.finder.find(asked, self.turns.flow())
            if found is None and self.has_left:
                self._go_live(asked.step)
            self._places.add_call(place, found)
            return found

    @property
    def has_left(self) -> bool:
        """True once the run has left its recording: what is not in it runs."""
        if self.branch is None or self.live_from:
            return self.live_from > 0
        return self.branch.call.is_used if self.branch.answer is not None else not self.finder.unused

    def _go_live(self, step: int) -> None:
        """Let everything out from now on."""
        if not self.live_from:
            self.live_from = step
            if self.guard is not None:
                self._undo.enter_context(self.guard.lifted())

    def _note_callback(self, call: RecordedCall) -> None:
        """Note that a tool runs of which only the callbacks of a framework tell."""
        note = f"{call.name} is known from the callbacks of a framework alone: it runs. Decorate it with @traced_tool."
        if call.kind == "tool" and call.name not in self._live and note not in self.notes:
            self.notes.append(note)

    def _runs(self, site: CallSite, found: RecordedCall) -> bool:
        """Tell whether the body of a call runs: it is listed, or there are calls of models inside that are answered."""
        is_branch = self.branch is not None and found is self.branch.call
        return (site.name in self._live and not is_branch) or found.holds_model or found.wraps

    def lifted(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Return what lets a call out if it is listed as live."""
        lifts = self.guard is not None and name in self._live
        return self.guard.lifted() if self.guard is not None and lifts else contextlib.nullcontext()

    def told(self) -> RecordedCall | None:
        """Return the turn around the code that runs of which a framework tells, None if there is none."""
        scope = find_scope()
        return None if scope is None else self._told.get(_place(scope.trace, scope.within))

    def find_told(self, asked: RecordedCall) -> tuple[bool, RecordedCall | None]:
        """Return whether a request in such a turn is sent, and else what answers it, None if it is swapped."""
        with self._lock:
            place = next(each for each, call in self._told.items() if call is asked)
            found = self._places.call_at(place)
            if found is None and self.has_left and asked.name not in self._swap:
                self._go_live(asked.step)
                return True, None
            if asked.name in self._live:
                return True, None
            if found is None:
                found = self.finder.find(asked, self.turns.flow())
                self._places.add_call(place, found)
            else:
                self.finder.note_drift(found, asked, self.turns.flow())
            return False, found

    # Decorated functions

    def _begin(self, begin: Callable[[], T | None]) -> T | None:
        token = _OPENS.set(True)
        try:
            return begin()
        finally:
            _OPENS.reset(token)

    def call(
        self, site: CallSite, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call that runs when it is called, and return what answers it."""
        call = self._begin(lambda: site.begin(args, kwargs))
        if call is None:
            if site.look(args, kwargs) is not None:
                self._fail_untraced(site)
            return function(*args, **kwargs)  # whose arguments Python refuses
        try:
            found = self._find(site, call)
            swap = self.swap_for(site.name, found)
            if swap is not None:
                result = swap(*site.without_self(args), **kwargs)
            elif found is None or self._runs(site, found):
                with self.lifted(site.name):
                    result = function(*args, **kwargs)
            else:
                self.turns.wait(found)
                result = self._answer(found, function, args, kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        return site.follow(call, result) if call.returned(result) else result

    def _answer(
        self, found: RecordedCall, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what a recorded call returned, and note if it may have changed what it was given instead."""
        result = self.results.result(found, function)
        if result is None and any(type(each) not in _UNCHANGING for each in (*args, *kwargs.values())):
            self.finder.note_silent(found.name)
        return result

    def _fail_untraced(self, site: CallSite) -> NoReturn:
        self.fail(f"{site.name} is not traced, so it cannot be replayed: tracing is off.")

    async def await_call(
        self,
        site: CallSite,
        made: Made,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Record the call of a coroutine function whose body would run now, and return what answers it."""
        call = self._begin(lambda: site.open(made, Call))
        if call is None:
            self._fail_untraced(site)
        try:
            found = self._find(site, call)
            swap = self.swap_for(site.name, found)
            if swap is not None:
                result = swap(*site.without_self(args), **kwargs)
                result = await result if inspect.isawaitable(result) else result
            elif found is None or self._runs(site, found):
                with self.lifted(site.name):
                    result = await function(*args, **kwargs)
            else:
                await self.turns.wait_in_loop(found)
                result = self._answer(found, function, args, kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        return site.follow(call, result) if call.returned(result) else result

    def iterate(
        self, site: CallSite, made: Made, items: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Return the call of a generator whose body would run now, and the generator that answers it."""
        call = self._begin(lambda: site.open(made, GeneratorCall))
        if call is None:
            self._fail_untraced(site)
        is_async = inspect.isasyncgen(items)
        try:
            found = self._find(site, call)
            swap = self.swap_for(site.name, found)
            if swap is not None:
                return call, items_of(swap(*site.without_self(args), **kwargs), is_async)
            if found is None or self._runs(site, found):
                return call, items if site.name not in self._live else self._live_items(site, items, is_async)
            pieces = self.results.items(found, home_of(items))
            return call, in_turn(pieces) if is_async else pieces
        except BaseException as error:
            call.fail(error)
            raise

    def _live_items(self, site: CallSite, items: Any, is_async: bool) -> Any:
        def sync() -> Any:
            with self.lifted(site.name):
                return (yield from items)

        async def later() -> Any:
            with self.lifted(site.name):
                async for item in items:
                    yield item

        return later() if is_async else sync()

    # Clients of providers

    def respond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a client of a provider returns for a request."""
        reply = clients.Reply(self, client, request, args, kwargs, is_async=False)
        with self.lifted(request.site.name):
            answer = self._begin(reply.send)
        self._note_live(reply, request.call)
        return answer

    async def arespond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an asynchronous client returns for a request."""
        reply = clients.Reply(self, client, request, args, kwargs, is_async=True)
        token = _OPENS.set(True)
        try:
            with self.lifted(request.site.name):
                answer = await reply.send()
        finally:
            _OPENS.reset(token)
        self._note_live(reply, request.call)
        return answer

    def _note_live(self, reply: clients.Reply, call: Call | None) -> None:
        """Note that a request was made that the recording has as well."""
        if reply.is_live and call is not None:
            place = _place(call.state, call.step)
            if place in self._opened:
                self._places.add_call(place, self.finder.take(self._opened[place]))

    def find(self, site: CallSite, call: Call | None) -> RecordedCall | None:
        """Return the recorded call that answers a request of a client; None if it is swapped, and none was recorded."""
        if call is None:
            self._fail_untraced(site)
        return self._find(site, call)

    def is_live(self, site: CallSite) -> bool:
        """Tell whether a request of a client is made."""
        if site.name in self._live:
            return True
        with self._lock:
            if not self.has_left or any(call.name == site.name for call in self.finder.unused):
                return False
            self._go_live(max((event["stepId"] for event in self.events), default=0) + 1)
            return True

    def swap_for(self, name: str, found: RecordedCall | None) -> Callable[..., Any] | None:
        """
        Return the function that answers a call in its place, None if there is none.

        Before a branch the recording answers, as far as it can.
        """
        is_recorded = self.branch is not None and found is not None and found not in self.branch.lost
        return None if is_recorded else self._swap.get(name)


def _place(trace: TraceState, step: int) -> Key:
    return trace.id, trace.numbering or "", step


def _only_ours(opens: Callable[..., Any]) -> Callable[..., Any]:
    """Return what opens calls of a kind, for the session alone; None for others, so that the session is asked."""

    @functools.wraps(opens)
    def open_ours(*args: Any) -> Any:
        return opens(*args) if _OPENS.get() else None

    return open_ours
