"""
Pairs of requests and responses: one set of rules for all who read traces.

Each response is used once. It belongs to the first of these requests that has none yet and is about the same:

1. the one that it names as its parent, if both have the same span, or both none;
2. one with its span, of its run: rather of the same tool, else of any;
3. the one that it names as its parent, in its run;
4. one with its span and tool in another run;
5. one of the same tool that came before it in its run.

A pair found by a parent or a span does not depend on the order in which the records are given. Where several are
left to choose from, as always in the last case, the requests are answered in the order of time, then of steps.

A *run* is one process's numbering of the steps of a trace, and the records of other SDKs are together one without a
name. ``span_0`` is no span: it is what everything carries that pairs with nothing.

Calls of models that traced functions record are told by their parents alone, and so is a failed one, whose error
stands in the place of an answer. One that was recorded by hand is a message and the next answer in the same place,
whatever was recorded between the two; a message that another one follows waits no more, unless a span or a parent
names it. What the model thought before the answer belongs to it.

An error that names its tool belongs to the first of these calls of that tool:

1. the one whose request it names as its parent, if both have the same span, or both none;
2. one with its span, of its run, that is open when the error is recorded;
3. the one whose request it names as its parent;
4. one of its run that is open when the error is recorded.

An error that names neither a tool nor a function was recorded by hand. It belongs to the call whose request it names
as its parent, if that is a call of a tool, or one of a model that was recorded by hand, in the same place. No call has
two errors, and none has one that was recorded after its response.

A tool may answer after its error, and has failed all the same. A call of a model that is answered after an error by
hand has been answered, and the error belongs to no call.

A call ends with its response, and one without a response with its error. It failed if one of them tells of an error,
and was cancelled if it did not fail and the record that ended it says so. An error that belongs to no call is no call;
but that of a traced function is one, whose request is missing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Literal

import msgspec

from whyops_trace._reading.halves import Half

#: Means by which a response was found: "exact" if span, parent and name agree; "" while there is none.
Means = Literal["", "exact", "span", "parent", "name"]


class Call(msgspec.Struct, gc=False, eq=False):
    """
    A request and its response, of which one may be missing.

    Attributes:
        first: The request, or the response where there is none.
        request: Its request.
        response: Its response.
        means: Means by which the response was found.
        error: The error that a tool's call recorded of itself, or that was recorded of it by hand.
        thoughts: Thoughts of a model before an answer that was recorded by hand.
    """

    first: Half
    request: Half | None = None
    response: Half | None = None
    means: Means = ""
    error: Half | None = None
    thoughts: tuple[Half, ...] = ()

    @property
    def is_open(self) -> bool:
        """True if it has not ended, and has to: a message that was recorded by hand may stay unanswered."""
        return self.response is None and self.error is None and not self.first.by_hand

    @property
    def end(self) -> Half | None:
        """The record that ended it: its response, else its error."""
        return self.response or self.error

    @property
    def said_failed(self) -> bool:
        """True for a call of a tool that did not fail, but whose results say that it did."""
        return self.response is not None and self.response.said_failed and self.error is None

    @property
    def is_turn(self) -> bool:
        """True for a call of a model that was answered or failed, and does not only repeat one of a client."""
        end = self.response or self.error
        return end is not None and self.first.kind == "llm" and end.counts

    @property
    def counts(self) -> bool:
        """True if it has ended, and does not only repeat a call of a client."""
        return self.end is not None and self.end.counts


def pair(halves: Iterable[Half]) -> list[Call]:
    """Return the calls that records make, in the order of the first record of each by their places."""
    pairing = _Pairing(halves)
    pairing.search()
    pairing.add_errors()
    pairing.add_thoughts()
    return pairing.calls()


class _Pairing:
    """
    Pairs requests and responses.

    Nearly all of them name each other exactly and are found on the way in; the others wait for :meth:`search`.
    """

    def __init__(self, halves: Iterable[Half]) -> None:
        self._calls: list[Call] = []
        #: By run and step: processes that record on one trace at the same time may use a number twice.
        self._asked: dict[tuple[str, int], list[Call]] = {}
        self._others: list[Half] = []
        #: Responses without a request so far.
        self._alone: list[Call] = []
        responses = []
        for half in halves:
            if half.part == "request":
                call = Call(half, half)
                self._calls.append(call)
                self._asked.setdefault((half.run, half.step), []).append(call)
            elif half.part == "response" and not half.fails:
                responses.append(half)
            else:
                self._others.append(half)
        for half in responses:
            named = self._asked.get((half.run, half.parent), ()) if half.parent else ()
            if len(named) == 1 and named[0].response is None and _is_exact(named[0].first, half):
                named[0].response, named[0].means = half, "exact"
            else:
                self._alone.append(Call(half, None, half))

    def calls(self) -> list[Call]:
        """Return the calls."""
        alone = [call for call in self._alone if call.response is not None]
        return sorted([*self._calls, *alone], key=lambda call: call.first.place) if alone else self._calls

    def search(self) -> None:
        """Find the requests of the responses that do not name one exactly."""
        if not self._alone:
            return
        twice = {(half.run, half.parent) for call in self._alone if (half := call.response)}
        for run_and_step in twice & self._asked.keys():
            self._part(self._asked[run_and_step])
        line = [call for call in self._calls if call.response is None]
        line = sorted([*line, *self._alone], key=lambda call: _order(call.first))
        for key, means, only_after in _WAYS:
            _meet(line, key, means, only_after)
            line = [call for call in line if (call.request is None) is not (call.response is None)]
        self._answer_messages([call for call in line if call.request is None and call.first.by_hand])

    def _answer_messages(self, answers: list[Call]) -> None:
        """Give answers that were recorded by hand to the messages that wait for one."""
        if not answers:
            return
        latest: dict[tuple[str, int], deque[Call]] = {}
        messages = [call for call in self._calls if call.first.by_hand]
        for call in sorted([*messages, *answers], key=lambda call: _order(call.first)):
            place = (call.first.run, call.first.within)
            if call.request is not None:
                latest[place] = deque([call] if call.response is None else [])
            else:
                _join(latest.get(place, deque()), call, "name", -1)

    def add_errors(self) -> None:
        """Find the calls that errors tell of."""
        errors = sorted((half for half in self._others if half.part != "thought"), key=_order)
        errors = [half for half in errors if not self._fail_named(half, same_span=True)]
        errors = self._fail_open(errors, _place_by_span)
        errors = [half for half in errors if not self._fail_named(half, same_span=False)]
        errors = self._fail_open(errors, _place_by_name)
        self._alone += [Call(half, None, half) for half in errors if half.name and half.part != "error"]

    def _fail_named(self, error: Half, *, same_span: bool) -> bool:
        """Give an error to the call whose request it names as its parent; return False if there is none."""
        named = self._asked.get((error.run, error.parent), ()) if error.parent else ()
        calls = [call for call in named if _fits(call, error)]
        if same_span:
            calls = [call for call in calls if call.first.span == error.span]
        if calls:
            _fail(min(calls, key=lambda call: _order(call.first)), error)
        return bool(calls)

    def _fail_open(self, errors: list[Half], key: Callable[[Half], Hashable | None]) -> list[Half]:
        """Give errors of tools to the calls of the same key that are open when they are recorded; return the others."""
        if all(key(half) is None for half in errors):
            return errors
        found: set[int] = set()
        waiting: dict[Hashable, list[Call]] = defaultdict(list)
        line = [*self._calls, *(Call(half) for half in errors)]
        for call in sorted(line, key=lambda call: _order(call.first)):
            error, common = call.first, key(call.first)
            if common is None:
                continue
            if call.request is not None:
                waiting[common].append(call)
                continue
            waiting[common] = [one for one in waiting[common] if _is_open_at(one, error)]
            if waiting[common]:
                waiting[common][0].error = error
                found.add(id(error))
        return [half for half in errors if id(half) not in found]

    def add_thoughts(self) -> None:
        """Give each answer that was recorded by hand the thoughts before it in the same place."""
        thoughts = [half for half in self._others if half.part == "thought"]
        if not thoughts:
            return
        answers = {id(call.response): call for call in self.calls() if call.first.by_hand and call.response}
        if not answers:
            return
        before: dict[tuple[str, int], list[Half]] = {}
        said = [call.response for call in answers.values() if call.response]
        for half in sorted([*thoughts, *said], key=_order):
            if half.part == "thought":
                before.setdefault((half.run, half.within), []).append(half)
            else:
                answers[id(half)].thoughts = tuple(before.pop((half.run, half.within), ()))

    def _part(self, calls: Iterable[Call]) -> None:
        """Take the responses from calls that have several to choose from."""
        for call in calls:
            if call.response is not None:
                self._alone.append(Call(call.response, None, call.response))
                call.response, call.means = None, ""


def _order(half: Half) -> tuple[Hashable, ...]:
    """Return what sorts the halves of all runs: requests before responses, where nothing else tells."""
    return (*half.order, half.part != "request", half.run, half.span, half.name)


def _fits(call: Call, error: Half) -> bool:
    """Tell whether an error may be that of a call."""
    request = call.first
    if call.error is not None:
        return False
    if error.part == "error":
        fits = request.kind == "tool" and request.name == error.name
    elif error.name:
        fits = request.kind in ("llm", "embedding") and request.name == error.name
    else:
        by_hand = request.kind in ("llm", "embedding") and not request.name
        fits = request.within == error.within and (request.kind == "tool" or by_hand)
    return fits and (call.response is None or (request.kind == "tool" and _is_open_at(call, error)))


def _is_open_at(call: Call, error: Half) -> bool:
    """Tell whether a call had neither a response nor an error when another error was recorded."""
    return call.error is None and (call.response is None or _order(error) < _order(call.response))


def _fail(call: Call, error: Half) -> None:
    """Give an error to a call: in the place of an answer, if a traced function recorded it."""
    if error.name and error.part != "error":
        call.response, call.means = error, "exact"
    else:
        call.error = error


def _meet(line: list[Call], key: Callable[[Half], Hashable | None], means: Means, only_after: bool) -> None:
    """
    Join requests and responses of one key: a response and a request before it, else, unless told so, one after it.

    Args:
        line: Requests without a response and responses without a request, in their order.
        key: Returns what two that belong together have in common, None for one that has nothing of the kind.
        means: Name of that key.
        only_after: True if a response has to come after its request.
    """
    waiting: dict[Hashable, deque[Call]] = defaultdict(deque)
    early: list[tuple[Hashable, Call]] = []
    for call in line:
        common = key(call.first)
        if common is None:
            continue
        if call.request is not None:
            waiting[common].append(call)
        elif not _join(waiting[common], call, means, -1 if call.first.by_hand else 0):
            early.append((common, call))
    for common, call in early if not only_after else ():
        _join(waiting[common], call, means, 0)


def _join(queue: deque[Call], alone: Call, means: Means, place: int) -> bool:
    """Give the request at a place of a queue a response, and return whether it could have it."""
    if not queue or not _may_follow(queue[place].first, alone.first):
        return False
    call = queue[place]
    del queue[place]
    call.response, call.means, alone.response = alone.response, means, None
    return True


def _may_follow(request: Half, response: Half) -> bool:
    """Tell whether the step of a response allows a request: within a numbering of ours it is no earlier one."""
    return not request.run or request.run != response.run or request.step <= response.step


def _number(half: Half) -> int:
    return half.step if half.part == "request" else half.parent


def _is_called(half: Half) -> bool:
    """Tell whether its call can be found by more than its parent."""
    return half.kind in ("tool", "embedding")


def _is_exact(request: Half, response: Half) -> bool:
    """Tell whether a request and the response that names it as its parent agree in all else."""
    return request.kind == response.kind and request.span == response.span and request.name == response.name


def _exactly(half: Half) -> Hashable | None:
    return (half.kind, half.run, number, half.span, half.name) if (number := _number(half)) else None


def _by_span_and_name(half: Half) -> Hashable | None:
    if not half.span or not (_is_called(half) or half.by_hand):
        return None
    return half.kind, half.run, half.span, half.within if half.by_hand else half.name


def _by_span(half: Half) -> Hashable | None:
    return (half.kind, half.run, half.span) if half.span and _is_called(half) else None


def _by_parent(half: Half) -> Hashable | None:
    return (half.kind, half.run, number, half.name) if (number := _number(half)) else None


def _place_by_span(half: Half) -> Hashable | None:
    return (half.run, half.span, half.name) if half.kind == "tool" and half.span else None


def _place_by_name(half: Half) -> Hashable | None:
    return (half.run, half.name) if half.kind == "tool" else None


def _by_span_in_other_runs(half: Half) -> Hashable | None:
    return (half.kind, half.span, half.name) if half.span and _is_called(half) else None


def _by_name(half: Half) -> Hashable | None:
    return (half.kind, half.run, half.name) if _is_called(half) else None


#: Keys that requests and responses share, their names, and True where the response has to come after its request.
_WAYS: Final[tuple[tuple[Callable[[Half], Hashable | None], Means, bool], ...]] = (
    (_exactly, "span", False),
    (_by_span_and_name, "span", False),
    (_by_span, "span", False),
    (_by_parent, "parent", False),
    (_by_span_in_other_runs, "span", False),
    (_by_name, "name", True),
)
