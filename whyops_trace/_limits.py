"""
The limits of the block of a trace, and the meter that refuses the next call once one of them is used up.

A meter counts what is recorded, so every way to record counts: decorated functions, traced clients, frameworks, spans,
events by hand. It refuses where something of ours begins, before a tool runs or a request leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._clock import iso
from whyops_trace._extras import install_hint
from whyops_trace._guard import attempt, warn_once
from whyops_trace._reading import prices
from whyops_trace._reading.excerpt import Tokens, dollars, named_values, shorten
from whyops_trace._recording.line import TOP, Content
from whyops_trace._recording.recorder import OPEN_TOOLS
from whyops_trace._recording.state import TraceState
from whyops_trace._values.failures import describe
from whyops_trace.context import advance
from whyops_trace.exceptions import AgentRunaway, AgentStop, ConfigurationError
from whyops_trace.types import OnLoop

#: Number of calls with the same arguments and the same result that are a loop.
LOOP: Final = 5
#: Largest number of different calls that are remembered.
_CALLS: Final = 10_000
#: Types of the events with which a call begins that is recorded by hand.
BEGINS_BY_HAND: Final = frozenset({b"user_message", b"tool_call_request", b"embedding_request"})
_OF_TOOLS: Final = frozenset({b"tool_call_request", b"tool_call_response"})
#: Characters of a looping call in a message.
_CALL: Final = 120


class Limits(NamedTuple):
    """
    The limits that a block was given, None for those that it was not.

    Attributes:
        max_tokens: Tokens of models, of prompts and answers.
        max_cost: Cost of models, in US dollars.
        max_steps: Number of calls and steps.
        max_seconds: Seconds since the block was entered.
        on_loop: What to do about a loop.
    """

    max_tokens: int | None
    max_cost: Decimal | None
    max_steps: int | None
    max_seconds: float | None
    on_loop: OnLoop | None


def limits_of(
    max_tokens: int | None,
    max_cost: float | None,
    max_steps: int | None,
    max_seconds: float | None,
    on_loop: OnLoop | None,
) -> Limits | None:
    """
    Return the checked limits of a block, None if there are none.

    Raises:
        ConfigurationError: if a limit is not a positive number, *on_loop* neither "raise" nor a function, or the extra
            for *max_cost* is not installed.
    """
    whole = {"max_tokens": max_tokens, "max_steps": max_steps}
    for name, value in {**whole, "max_cost": max_cost, "max_seconds": max_seconds}.items():
        kinds = (int,) if name in whole else (int, float)
        if value is not None and not (type(value) in kinds and value > 0 and math.isfinite(value)):
            kind = "whole number" if name in whole else "number"
            raise ConfigurationError(f"{name} is {value!r:.80}; it must be a {kind} above 0.")
    if not (on_loop is None or on_loop == "raise" or callable(on_loop)) or iscoroutinefunction(on_loop):
        raise ConfigurationError(
            f'on_loop is {on_loop!r:.80}; it must be "raise" or a function without async.'
        )
    if max_cost is not None and not prices.are_known():
        raise ConfigurationError(f"max_cost needs the prices of models: {install_hint('prices')}.")
    amount = None if max_cost is None else Decimal(str(max_cost))
    limits = Limits(max_tokens, amount, max_steps, max_seconds, on_loop)
    return limits if any(limit is not None for limit in limits) else None


def runaways(error: BaseException | None) -> Iterator[AgentRunaway]:
    """Yield the errors that an exception stands for, if it is one that stops an agent or a group with such."""
    if isinstance(error, AgentStop):
        yield error.runaway
    elif isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from runaways(one)


class _Turn(msgspec.Struct):
    """The metadata of a turn that a meter reads."""

    model: Any = None
    provider: Any = None
    usage: Any = None
    wraps: Any = None


class Meter:
    """
    Counts what a trace records while one of its blocks is open, and refuses the next call once a limit is used up.

    Args:
        limits: The limits of the block.
        state: The trace.
    """

    def __init__(self, limits: Limits, state: TraceState) -> None:
        self._limits = limits
        self._state = state
        self._started = state.recorder.perf_counter_ns()
        self._tokens = 0
        self._cost = Decimal(0)
        #: Number of calls and steps that have begun, and of those that may and are not recorded yet.
        self._steps = 0
        self._admitted = 0
        #: The arguments of the tool calls without a response, by span id.
        self._asked: dict[bytes, bytes] = {}
        #: Number of calls with the same arguments and result, by both.
        self._times: dict[tuple[bytes, int], int] = {}
        #: A loop that nobody was told of: the call, and how often it came.
        self._loop: tuple[bytes, int] | None = None
        #: The reason for which every call is refused.
        self._runaway: AgentRunaway | None = None
        if state.on:
            with state.recorder.lock:
                gate = state.open_gate()
                gate.watchers = (*gate.watchers, self)
        elif state.recorder.on:
            warn_once(
                "limits of a trace that is not recorded",
                "The limits of trace %r do not hold, because it is sampled out: they count what is recorded.",
                state.id,
            )

    def close(self, error: BaseException | None) -> AgentRunaway | None:
        """
        Stop counting, as the block is left.

        Args:
            error: The exception that leaves the block, None if none does.

        Returns:
            The error that leaves it instead, None for *error* itself. Once a call is refused, whatever fails in the
            block is taken for a consequence of that: some frameworks make another exception of what they do not know.
        """
        with self._state.recorder.lock:
            gate = self._state.open_gate()
            gate.watchers = tuple(watcher for watcher in gate.watchers if watcher is not self)
        is_consequence = self._runaway is not None and (
            isinstance(error, Exception) or any(stop is self._runaway for stop in runaways(error))
        )
        return self._runaway if is_consequence else None

    # Counting

    def note(self, kind: bytes, metadata: bytes, content: Content, span: bytes, opens: int) -> None:
        """Count a record."""
        limits = self._limits
        if kind in _OF_TOOLS:
            # What was not captured may be anything, and is the same as nothing else.
            if limits.on_loop is not None and b'"captured":false' not in metadata:
                self._note_call(kind, content if isinstance(content, bytes) else b"".join(content), span)
        elif b'"usage":' in metadata and (limits.max_tokens is not None or limits.max_cost is not None):
            self._note_turn(kind.decode(), metadata)
        if opens > 0 or (not opens and kind in BEGINS_BY_HAND):
            with self._state.recorder.lock:
                self._steps += 1
                self._admitted = max(0, self._admitted - 1)

    def _note_call(self, kind: bytes, content: bytes, span: bytes) -> None:
        with self._state.recorder.lock:
            if kind == b"tool_call_request":
                self._asked[span] = content
                if len(self._asked) > OPEN_TOOLS:
                    self._asked.pop(next(iter(self._asked)))
                return
            asked = self._asked.pop(span, None)
            if asked is None:
                return
            call = asked, hash(content)
            times = self._times[call] = self._times.pop(call, 0) + 1  # the latest is the last to be forgotten
            if times >= LOOP:
                self._loop = asked, times
            if len(self._times) > _CALLS:
                self._times.pop(next(iter(self._times)))

    def _note_turn(self, kind: str, metadata: bytes) -> None:
        turn, _ = attempt(msgspec.json.decode, b"{%b}" % metadata[1:], type=_Turn)
        if turn is None or not prices.is_billed(kind, turn.wraps):
            return
        amount: Decimal | None = Decimal(0)
        if self._limits.max_cost is not None:
            amount = prices.cost(turn.model, turn.provider, turn.usage, self._now())
            if amount is None:
                warn_once(
                    f"no price: {turn.provider} {turn.model}",
                    "max_cost does not count turns of %s by %s, whose cost is not known; max_tokens counts all.",
                    turn.model,
                    turn.provider,
                )
        with self._state.recorder.lock:
            self._tokens += Tokens.of(turn.usage).total
            self._cost += amount or 0

    def _now(self) -> str:
        return iso(self._state.recorder.clock.time_ns())

    # Refusing

    def admit(self, name: str, parent: int, within: int) -> None:
        """
        Let a call or step begin.

        Raises:
            AgentStop: if a limit is used up, from now on for every call and step.
        """
        if self._runaway is None:
            with self._state.recorder.lock:
                runaway = self._used_up(name)
                self._admitted += runaway is None
            runaway = runaway or self._looped(name)
            if runaway is None:
                return
            self._stop(runaway, parent, within)
        assert self._runaway is not None  # noqa: S101 - it was set just now, here or in another thread
        raise AgentStop(self._runaway) from self._runaway.__cause__

    def _stop(self, runaway: AgentRunaway, parent: int, within: int) -> None:
        """Refuse every call from now on, and record why, once."""
        state = self._state
        with state.recorder.lock:
            if self._runaway is not None:
                return
            self._runaway = runaway
        encode = state.recorder.encode
        about = {
            "limit": runaway.limit,
            "allowed": runaway.allowed,
            "used": runaway.used,
            "refused": runaway.refused,
        }
        metadata, content = b"," + encode(about)[1:-1], encode(describe(runaway))
        step, _ = attempt(state.recorder.record, state, b"error", parent, within, metadata, content)
        if step is not None and within == TOP:
            advance(state, step)

    def _used_up(self, name: str) -> AgentRunaway | None:
        """Return the error for a limit that is used up."""
        limits, seconds, steps = self._limits, self._seconds(), self._steps + self._admitted
        if limits.max_steps is not None and steps >= limits.max_steps:
            used = f"{steps:,} of {limits.max_steps:,} calls and steps have begun"
            return self._runaway_of("max_steps", limits.max_steps, steps, used, name)
        if limits.max_tokens is not None and self._tokens >= limits.max_tokens:
            used = f"{self._tokens:,} of {limits.max_tokens:,} tokens are used"
            return self._runaway_of("max_tokens", limits.max_tokens, self._tokens, used, name)
        if limits.max_cost is not None and self._cost >= limits.max_cost:
            allowed, cost = float(limits.max_cost), float(self._cost)
            return self._runaway_of(
                "max_cost", allowed, cost, f"{dollars(cost)} of {dollars(allowed)} are spent", name
            )
        if limits.max_seconds is not None and seconds >= limits.max_seconds:
            used = f"{seconds:.1f} of {limits.max_seconds:g} seconds have passed"
            return self._runaway_of("max_seconds", float(limits.max_seconds), round(seconds, 3), used, name)
        return None

    def _seconds(self) -> float:
        return (self._state.recorder.perf_counter_ns() - self._started) / 1_000_000_000

    def _looped(self, name: str) -> AgentRunaway | None:
        """Return the error for a loop that may not go on, whose cause is what the function of the user raised."""
        with self._state.recorder.lock:
            loop, self._loop = self._loop, None
        on_loop = self._limits.on_loop
        if loop is None or on_loop is None:
            return None
        asked, times = loop
        used = f"{_told(asked)} brought the same result {times} times"
        runaway = self._runaway_of("on_loop", LOOP, times, used, name)
        if callable(on_loop):
            _, runaway.__cause__ = attempt(on_loop, runaway)
            return None if runaway.__cause__ is None else runaway
        return runaway

    def _runaway_of(self, limit: str, allowed: float, used: float, words: str, name: str) -> AgentRunaway:
        trace_id = self._state.id
        advice = "a function as on_loop" if limit == "on_loop" else "a larger limit"
        return AgentRunaway(
            f"{limit}: {words} in trace {trace_id!r}, so {name} was not started; {advice} can let the agent go on.",
            limit=limit,
            allowed=allowed,
            used=used,
            refused=name,
            trace_id=trace_id,
        )


def _told(content: bytes) -> str:
    """Return the call of a request as one line."""
    decoded, _ = attempt(msgspec.json.decode, content)
    call = decoded["toolCalls"][0] if decoded else {}
    return shorten(f"{call.get('name')}({named_values(call.get('arguments'))})", _CALL)
