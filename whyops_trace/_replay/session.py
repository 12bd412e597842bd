"""The answers to the calls of a program from a recording, while a replay is open."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from whyops_trace._calls.answering import present
from whyops_trace._calls.call import Call, GeneratorCall
from whyops_trace._calls.kinds import Llm
from whyops_trace._calls.site import CallSite, Made
from whyops_trace._recording import recorders
from whyops_trace._replay import clients
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
from whyops_trace._replay.results import Results
from whyops_trace._replay.turns import Turns
from whyops_trace._shapes import text_of
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
                    self._places.add_call(key_of(event), self.finder.take(call))
                    self._note_callback(call)

    def _refuse(self, what: str) -> None:
        self.fail(
            f"{what} would have left the process in a replay. Trace what does that, list it in live=, or open the "
            "replay with network=True."
        )

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
        place = call.state.id, call.state.numbering or "", call.step
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

    def _lifted(self, site: CallSite) -> contextlib.AbstractContextManager[None]:
        lifts = self.guard is not None and site.name in self._live
        return self.guard.lifted() if self.guard is not None and lifts else contextlib.nullcontext()

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
            swap = self.swap_for(site, found)
            if swap is not None:
                result = swap(*site.without_self(args), **kwargs)
            elif found is None or self._runs(site, found):
                with self._lifted(site):
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
            swap = self.swap_for(site, found)
            if swap is not None:
                result = swap(*site.without_self(args), **kwargs)
                result = await result if inspect.isawaitable(result) else result
            elif found is None or self._runs(site, found):
                with self._lifted(site):
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
            swap = self.swap_for(site, found)
            if swap is not None:
                return call, _swapped(swap(*site.without_self(args), **kwargs), is_async)
            if found is None or self._runs(site, found):
                return call, items if site.name not in self._live else self._live_items(site, items, is_async)
            pieces = self.results.items(found, _home_of(items))
            return call, _in_turn(pieces) if is_async else pieces
        except BaseException as error:
            call.fail(error)
            raise

    def _live_items(self, site: CallSite, items: Any, is_async: bool) -> Any:
        def sync() -> Any:
            with self._lifted(site):
                return (yield from items)

        async def later() -> Any:
            with self._lifted(site):
                async for item in items:
                    yield item

        return later() if is_async else sync()

    # Clients of providers

    def respond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a client of a provider returns for a request."""
        reply = clients.Reply(self, client, request, args, kwargs)
        with self._lifted(request.site):
            answer = self._begin(reply.send)
        self._note_live(reply, request.call)
        return answer

    async def arespond(self, client: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an asynchronous client returns for a request."""
        reply = clients.Reply(self, client, request, args, kwargs)
        token = _OPENS.set(True)
        try:
            with self._lifted(request.site):
                answer = await reply.send()
        finally:
            _OPENS.reset(token)
        self._note_live(reply, request.call)
        return answer

    def _note_live(self, reply: clients.Reply, call: Call | None) -> None:
        """Note that a request was made that the recording has as well."""
        if reply.is_live and call is not None:
            place = call.state.id, call.state.numbering or "", call.step
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

    def swap_for(self, site: CallSite, found: RecordedCall | None) -> Callable[..., Any] | None:
        """
        Return the function that answers a call in its place, None if there is none.

        Before a branch the recording answers, as far as it can.
        """
        is_recorded = self.branch is not None and found is not None and found not in self.branch.lost
        return None if is_recorded else self._swap.get(site.name)


def _home_of(items: Any) -> str:
    """Return the name of the module of a generator that has not begun."""
    frame = getattr(items, "gi_frame", None) or getattr(items, "ag_frame", None)
    return text_of(frame.f_globals.get("__name__")) if frame is not None else ""


async def _in_turn(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def _swapped(made: Any, is_async: bool) -> Any:
    """Return the items that a user's function made in place of a generator, as a generator of its kind."""

    def sync() -> Any:
        return (yield from made)

    async def later() -> Any:
        if hasattr(made, "__aiter__"):
            async for item in made:
                yield item
        else:
            for item in made:
                yield item

    return later() if is_async else sync()


def _only_ours(opens: Callable[..., Any]) -> Callable[..., Any]:
    """Return what opens calls of a kind, for the session alone; None for others, so that the session is asked."""

    @functools.wraps(opens)
    def open_ours(*args: Any) -> Any:
        return opens(*args) if _OPENS.get() else None

    return open_ours


def names_of(listed: Iterable[str | Callable[..., Any]]) -> frozenset[str]:
    """Return the names of what a user lists: names, or functions; a name alone is taken for a list of it."""
    return frozenset(map(_name_of, [listed] if isinstance(listed, str) else listed))


def _name_of(listed: str | Callable[..., Any]) -> str:
    """Return a name, or that by which a function is recorded."""
    if isinstance(listed, str):
        return listed
    parts = [
        *getattr(listed, "_self_parts", ())
    ]  # of a decorated callable; a function has its site in a cell
    if hasattr(listed, "__wrapped__"):
        parts += [cell.cell_contents for cell in getattr(listed, "__closure__", None) or ()]
    names = (part.name for part in parts if isinstance(part, CallSite))
    return text_of(next(names, getattr(listed, "__name__", "")))
