"""Assertions about what an agent did, for tests: their messages show the tree of calls, with the place marked."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

from whyops_trace._extras import install_hint
from whyops_trace._reading.excerpt import dollars, duration
from whyops_trace._replay.recording import RecordedCall, read_calls, shown
from whyops_trace._rules.finding import SEVERITIES, Severity, rank
from whyops_trace.analysis import findings
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.tree import build, render

#: Columns of a tree in a message.
_WIDTH: Final = 100


class Run:
    """
    The calls of an agent, and assertions about them. Each raises an :class:`AssertionError` that shows the tree.

    Attributes:
        events: The records, as they were recorded.
    """

    events: list[dict[str, Any]]

    @property
    def tree(self) -> str:
        """The calls as a tree without times, ids and costs, the same for the same calls: a text for snapshots."""
        return tree_of(read_calls(self.events).calls)

    def called(
        self,
        name: str,
        *,
        times: int | range | None = None,
        before: str | None = None,
        arguments: Mapping[str, Any] | Callable[[Any], Any] | None = None,
    ) -> None:
        """
        Assert that a tool, function or endpoint was called.

        Args:
            name: Its name in the trace.
            times: Number of calls, or a range of numbers; None for one at least.
            before: Name of what was called after its first call, and not before.
            arguments: Arguments of the calls that count: by name a value, a compiled pattern that is searched for in a
                text, or a function from the value to true or false; or one function from all of them.
        """
        __tracebackhide__ = True
        named = [call for call in self._calls() if call.name == name]
        fitting = [call for call in named if _fits(call, arguments)]
        told = "" if arguments is None else f" with {_told(arguments)}"
        number = len(fitting)
        if times is None and not number:
            self._fail(f"{name} was not called{told}.", named)
        if times is not None and number not in (times if isinstance(times, range) else (times,)):
            expected = f"{times.start} to {times.stop - 1}" if isinstance(times, range) else str(times)
            self._fail(f"{name} was called {number} times{told}, not {expected}.", fitting or named)
        if before is not None:
            others = [call for call in self._calls() if call.name == before]
            if not others:
                self._fail(f"{before}, which {name} should come before, was not called.", fitting)
            if others[0].number < fitting[0].number:
                self._fail(f"{before} was called before {name}{told}.", [others[0], fitting[0]])

    def not_called(self, name: str) -> None:
        """Assert that a tool, function or endpoint was not called."""
        __tracebackhide__ = True
        named = [call for call in self._calls() if call.name == name]
        if named:
            self._fail(f"{name} was called.", named)

    def called_in_order(self, *names: str) -> None:
        """Assert that these were called in this order, whatever was called between them."""
        __tracebackhide__ = True
        calls, reached = iter(self._calls()), list[RecordedCall]()
        for name in names:
            found = next((call for call in calls if call.name == name), None)
            if found is None:
                after = f" after {reached[-1].name}" if reached else ""
                self._fail(f"{name} was not called{after}; expected was {', '.join(names)}.", reached[-1:])
            reached.append(found)

    def no_loops(self, most: int = 2) -> None:
        """
        Assert that no tool was called with the same arguments more often than *most* times.

        Args:
            most: Number of equal calls that are no loop.
        """
        __tracebackhide__ = True
        tools = [call for call in self._calls() if call.kind == "tool"]
        counts = Counter(map(str, tools))
        for told, count in counts.most_common(1):
            if count > most:
                self._fail(f"{told} was called {count} times.", [call for call in tools if str(call) == told])

    def no_errors(self) -> None:
        """Assert that no call failed."""
        __tracebackhide__ = True
        failed = [call for call in self._calls() if call.error is not None]
        if failed:
            told = failed[0].error or {}
            self._fail(
                f"{failed[0]} failed: {told.get('type', '')} {told.get('message', '')}".rstrip(), failed
            )

    def no_findings(self, severity: Severity = "low", *, but: Iterable[str] = ()) -> None:
        """
        Assert that ``whyops-trace check`` finds nothing.

        Args:
            severity: The least severity that counts: low, medium, high or critical.
            but: Codes of findings that do not count.
        """
        __tracebackhide__ = True
        if severity not in SEVERITIES:
            raise ConfigurationError(f"severity is {severity!r}; it must be one of {', '.join(SEVERITIES)}.")
        passed_over = {*but}
        found = [
            one
            for events in self._traces()
            for one in findings(events)
            if rank(one.severity) >= rank(severity) and one.code not in passed_over
        ]
        if found:
            lines = [f"{one.code} ({one.severity}): {one.title} {one.advice}" for one in found]
            self._fail("\n".join(lines), steps={step for one in found for step in one.steps})

    def cost_below(self, usd: float, *, tokens: int | None = None) -> None:
        """
        Assert that the calls of models cost less than so many US dollars, and took fewer tokens.

        In a replay that is what the answers cost when they were recorded.

        Args:
            usd: The dollars.
            tokens: The tokens; None for any number.
        """
        __tracebackhide__ = True
        trees = [build(events, priced=True) for events in self._traces()]
        if any(tree.cost is None and tree.tokens.total for tree in trees):
            self._fail(
                f"The cost is not known: the model has no price, or genai-prices is missing; {install_hint('prices')}."
            )
        cost = sum(tree.cost or 0 for tree in trees)
        if cost >= usd:
            self._fail(f"The calls of models cost {dollars(cost)}, not less than {dollars(usd)}.")
        if tokens is not None:
            self.tokens_below(tokens)

    def tokens_below(self, tokens: int) -> None:
        """Assert that the calls of models took fewer tokens than that, those of prompts and answers together."""
        __tracebackhide__ = True
        taken = sum(build(events).tokens.total for events in self._traces())
        if taken >= tokens:
            self._fail(f"The calls of models took {taken:,} tokens, not fewer than {tokens:,}.")

    def turns_below(self, turns: int) -> None:
        """Assert that models were asked fewer times than that."""
        __tracebackhide__ = True
        asked = [call for call in self._calls() if call.kind == "llm" and not call.wraps]
        if len(asked) >= turns:
            self._fail(f"Models were asked {len(asked)} times, not fewer than {turns}.", asked[turns - 1 :])

    def faster_than(self, seconds: float, *, name: str | None = None) -> None:
        """
        Assert that each call, or each one of a name, took less than so many seconds.

        In a replay answered calls take no time; what runs is measured.

        Args:
            seconds: The seconds.
            name: Name of the tool, function or endpoint; None for all.
        """
        __tracebackhide__ = True
        named = [call for call in self._calls() if name in (None, call.name)]
        slow = [call for call in named if _seconds(self.events, call) >= seconds]
        if slow:
            took = duration(_seconds(self.events, slow[0]) * 1000)
            self._fail(f"{slow[0]} took {took}, not less than {duration(seconds * 1000)}.", slow)

    def _calls(self) -> list[RecordedCall]:
        return read_calls(self.events).calls

    def _traces(self) -> list[list[dict[str, Any]]]:
        """Return the records of each trace."""
        traces: dict[str, list[dict[str, Any]]] = {}
        for event in self.events:
            traces.setdefault(event["traceId"], []).append(event)
        return list(traces.values())

    def _fail(
        self, message: str, calls: Collection[RecordedCall] = (), steps: Collection[int] = ()
    ) -> NoReturn:
        __tracebackhide__ = True
        marked = {*steps, *(call.step for call in calls)}
        trees = [render(build(events), width=_WIDTH, marked=marked) for events in self._traces()]
        raise AssertionError("\n\n".join([message, *(trees or ["Nothing was recorded."])]))


def tree_of(calls: Iterable[RecordedCall]) -> str:
    """Return calls as a tree without what differs each time."""
    inside: dict[int, list[RecordedCall]] = {}
    for call in calls:
        inside.setdefault(id(call.parent), []).append(call)

    def lines(parent: RecordedCall | None, depth: int) -> Iterator[str]:
        for call in inside.get(id(parent), ()):
            path, ended = "/".join((*call.path, "")), "" if call.outcome == "ok" else f"  {call.outcome}"
            yield f"{'  ' * depth}{path}{call}{ended}"
            yield from lines(call, depth + 1)

    return "\n".join(lines(None, 0))


def check_same_tree(recorded: str, now: str, fail: Callable[[str], Any]) -> None:
    """Assert that two trees are the same; *fail* raises, given the lines that differ."""
    __tracebackhide__ = True
    if recorded != now:
        lines = difflib.unified_diff(
            recorded.split("\n"), now.split("\n"), "recorded", "now", lineterm="", n=2
        )
        fail("\n".join(["The calls are not those of the recording.", *lines]))


def _fits(call: RecordedCall, arguments: Mapping[str, Any] | Callable[[Any], Any] | None) -> bool:
    """Tell whether the arguments of a call are as they must be."""
    given = call.asked.get("arguments", call.asked)
    if arguments is None:
        return True
    if callable(arguments):
        return bool(arguments(given))
    return isinstance(given, dict) and all(
        name in given and _matches(given[name], expected) for name, expected in arguments.items()
    )


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, re.Pattern):
        return isinstance(value, str) and expected.search(value) is not None
    return bool(expected(value)) if callable(expected) else bool(expected == value)


def _told(arguments: Mapping[str, Any] | Callable[[Any], Any]) -> str:
    return shown({"arguments": dict(arguments)}) if isinstance(arguments, Mapping) else "such arguments"


def _seconds(events: Iterable[Mapping[str, Any]], call: RecordedCall) -> float:
    """Return how long a call took, 0 if that is unknown."""
    ends = (
        event["metadata"]["latencyMs"]
        for event in events
        if event.get("parentStepId") == call.step and "latencyMs" in event["metadata"]
    )
    return float(next(ends, 0)) / 1000
