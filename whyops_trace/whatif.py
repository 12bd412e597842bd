"""
Experiments with a recorded run: one of its calls is answered otherwise, and what follows is run, several times.

::

    experiment = whatif(
        "refund-8841", lambda: agent("refund order 8841"), step=4, answer=Answer(result={"status": "packed"}), repeat=5
    )
    print(experiment.passed, experiment.interval, experiment.paths)

Up to the step nothing runs. Behind it models are asked and tools do what they do: it costs, and it has effects.
``docs/explanation/replay.md`` tells what an experiment proves, and what it does not.
"""

from __future__ import annotations

import inspect
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import msgspec

from whyops_trace._intervals import wilson
from whyops_trace._reading.excerpt import headline
from whyops_trace._reading.prices import cost_of, is_billed, total
from whyops_trace._replay.branching import Answer, Branch, branch
from whyops_trace._replay.failures import in_words
from whyops_trace._replay.loading import Source, load
from whyops_trace._replay.paths import moves_of, path_of
from whyops_trace._replay.recording import read_calls
from whyops_trace._replay.turns import in_event_loop
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.replay import Replay, replay
from whyops_trace.story import tell

__all__ = ["Answer", "Experiment", "ExperimentRun", "Plan", "plan", "whatif"]

#: Characters of a reason.
_SHOWN = 200

Check = Callable[[Replay, Any], object]


class Plan(msgspec.Struct, rename="camel"):
    """
    An experiment before it runs.

    Attributes:
        source: The id of the recorded trace.
        step: The step of the call that is answered otherwise.
        call: The call, in words.
        recorded: How it ended when it was recorded, in words.
        instead: The answer to it, in words; ``runs again`` if it has none.
        tools: Number of calls by tool that the recorded run made behind it.
        models: Number of turns by model.
        cost: Cost of these turns in US dollars; None if one of them has no known price, or there are none.
        passed: True if the recorded run passes, by how it ended.
    """

    source: str
    step: int
    call: str
    recorded: str
    instead: str
    tools: dict[str, int]
    models: dict[str, int]
    cost: float | None
    passed: bool


class ExperimentRun(msgspec.Struct, rename="camel"):
    """
    One run of an experiment.

    Attributes:
        trace_id: The id under which it is stored, "" if it is not.
        passed: True if it passed.
        reason: Why it did not, "" if it did.
        status: How it ended, in words.
        path: Where it went, beside the recorded run, in words.
        turns: Number of turns that were asked for.
        cost: Their cost in US dollars; None if one of them has no known price, or there are none.
        seconds: How long the run took.
        live_from: The step from which on its calls ran, 0 if none did.
        notes: What else is to be known of it, in words, such as that it could not be stored.
    """

    trace_id: str
    passed: bool
    reason: str
    status: str
    path: str
    turns: int
    cost: float | None
    seconds: float
    live_from: int
    notes: list[str]


class Experiment(msgspec.Struct, rename="camel"):
    """
    The runs of an experiment.

    Attributes:
        plan: What was tried.
        runs: The runs, in their order.
    """

    plan: Plan
    runs: list[ExperimentRun]

    @property
    def passed(self) -> int:
        """Number of runs that passed."""
        return sum(run.passed for run in self.runs)

    @property
    def interval(self) -> tuple[float, float]:
        """The shares between which the share of runs that pass lies with a confidence of 95 %, after Wilson."""
        return wilson(self.passed, len(self.runs))

    @property
    def paths(self) -> dict[str, int]:
        """Number of runs by where they went, the most frequent first."""
        return dict(Counter(run.path for run in self.runs).most_common())

    @property
    def cost(self) -> float | None:
        """Cost of what ran, in US dollars; None if that of a turn is not known, or there were none."""
        costs = [run.cost for run in self.runs if run.turns]
        return None if None in costs or not costs else sum(filter(None, costs))


def plan(
    source: Source, step: int, answer: Answer | None = None, *, home: str | os.PathLike[str] | None = None
) -> Plan:
    """
    Return what an experiment would do, and what that cost when it was recorded. Nothing runs.

    Args:
        source: The recorded run, as :func:`~whyops_trace.replay.replay` takes it, but no fixture.
        step: The step of the call.
        answer: The answer to it, None if it runs again.
        home: The home of the store; None for that of this user.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if the recording still runs, has no steps or no call at this one, or the answer does not fit.
    """
    return _planned(branch(load(source, home), step, answer))


def whatif(
    source: Source,
    agent: Callable[[], Any],
    *,
    step: int,
    answer: Answer | None = None,
    repeat: int = 1,
    check: Check | None = None,
    live: Iterable[str | Callable[..., Any]] = (),
    swap: Mapping[str, Callable[..., Any]] | None = None,
    normalise: Callable[[str], str] | None = None,
    network: bool = False,
    store: bool = True,
    home: str | os.PathLike[str] | None = None,
) -> Experiment:
    """
    Run an agent again from one step of a recorded run on, with another answer to that step, and tell how it ended.

    Args:
        source: The recorded run, as :func:`~whyops_trace.replay.replay` takes it, but no fixture.
        agent: What runs the agent, without arguments. A coroutine that it returns is run, and items are read; in an
            event loop, such as that of a notebook, by a loop of its own, for which that one waits.
        step: The step of the call that is answered otherwise.
        answer: The answer to it. None to let it run as well: how often does the agent get there from here?
        repeat: Number of runs, one after the other; 1 at least.
        check: Function that gets the run and what the agent returned. The run passes unless it returns False or raises
            an exception, as the assertions of the run do. Without it a run passes that ends with an answer, or
            finishes without a model, and in which no live call failed for good.
        live: What runs before the step, too.
        swap: Functions that answer behind the step, by the name of what they answer: of tools that must not run.
        normalise: Function from a text to one without what differs each time; for questions before the step.
        network: True to leave the network open before the step, to code that is not traced.
        store: False to store no runs. Else each is a trace, whose metadata has the recorded one as ``replayOf``.
        home: The home of the store; None for that of this user.

    Raises:
        TraceNotFoundError: if the store has no such trace.
        StoreError: if the store cannot be read.
        ReplayError: if the recording still runs, has no steps or no call at this one, if the answer does not fit, or if
            a call before it cannot be answered.
        ReplayMiss: if the agent does not come to the step: it calls something else before, or ends.
        ConfigurationError: if *repeat* is no whole number from 1 on, *agent* or *check* is no function, *check* is a
            coroutine function, or *step*, *answer* or *swap* is of another type.
    """
    if not isinstance(repeat, int) or repeat < 1:
        raise ConfigurationError(f"repeat is {repeat!r}; it must be a whole number, 1 at least.")
    if not callable(agent):
        raise ConfigurationError(
            f"agent is {agent!r:.80}; it must be a function that runs the agent: lambda: agent(8841)."
        )
    if check is not None and (not callable(check) or inspect.iscoroutinefunction(check)):
        raise ConfigurationError(f"check is {check!r:.80}; it must be a function, and no coroutine function.")
    if isinstance(source, Iterable) and not isinstance(source, str):
        source = list(source)
    found = branch(load(source, home), step, answer)
    if isinstance(source, str):
        source = found.recording.source  # which stays the same, as "latest" does not
    planned = _planned(found)
    runs = []
    for _ in range(repeat):
        returned, failure, began = None, "", time.perf_counter()
        run = replay(
            source, live=live, swap=swap, normalise=normalise, network=network, store=store, home=home,
            until=step, answer=answer,
        )  # fmt: skip
        try:
            with run:
                returned = _run(agent)
        except SystemExit as error:
            failure = f"it exited with {error.code}" if error.code else ""
        except Exception as error:  # noqa: BLE001 - how the agent ends is what is asked
            failure = f"it raised {in_words(error)}"
        seconds = time.perf_counter() - began
        runs.append(_told(run, found, returned, failure, check, seconds))
    return Experiment(planned, runs)


def _run(agent: Callable[[], Any]) -> Any:
    """Run an agent to its end."""

    async def wait(result: Any) -> Any:
        return [item async for item in result] if hasattr(result, "__aiter__") else await result

    result = agent()
    if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
        if not in_event_loop():
            return anyio.run(wait, result)
        with ThreadPoolExecutor(1) as thread:  # a thread has one event loop at a time, and this one's waits
            return thread.submit(lambda: anyio.run(wait, result)).result()
    return list(result) if hasattr(result, "__next__") else result


def _planned(found: Branch) -> Plan:
    events, rest = found.recording.events, found.rest
    turns = {call.step for call in rest if call.kind != "tool"}
    costs = [
        cost_of(event["metadata"], event.get("timestamp"))
        for event in events
        if event.get("parentStepId") in turns and _is_billed(event)
    ]
    cost = total(costs)
    failure, _ = _verdict(events, found.call.step + 1)
    return Plan(
        found.recording.source,
        found.call.step,
        str(found.call),
        found.recorded,
        "runs again" if found.answer is None else str(found.answer),
        dict(Counter(call.name for call in rest if call.kind == "tool")),
        dict(Counter(call.model or call.name for call in rest if call.kind != "tool" and not call.wraps)),
        None if cost is None else float(cost),
        not failure,
    )


def _told(
    run: Replay, found: Branch, returned: Any, failure: str, check: Check | None, seconds: float
) -> ExperimentRun:
    """Return what is told of a run that has ended."""
    start = run.live_from or max((event["stepId"] for event in run.events), default=0) + 1
    reason, status = _verdict(run.events, start)
    reason = failure or reason
    if check is not None and not failure:
        reason = _checked(check, run, returned)
    calls = [call for call in read_calls(run.events).calls if call.step >= start]
    billed = [event for event in run.events if _is_billed(event) and event["stepId"] >= start]
    cost = total(cost_of(event["metadata"], event.get("timestamp")) for event in billed)
    turns = sum(call.kind == "llm" and not call.wraps for call in found.recording.calls)
    return ExperimentRun(
        run.trace_id,
        not reason,
        headline(reason, _SHOWN),
        status,
        path_of(moves_of(found.rest), moves_of(calls), turns),
        len(billed),
        None if cost is None else float(cost),
        seconds,
        run.live_from,
        [*run.notes],
    )


def _checked(check: Check, run: Replay, returned: Any) -> str:
    """Return why a run does not pass a user's check, "" if it does."""
    __tracebackhide__ = True
    try:
        return "the check returned False" if check(run, returned) is False else ""
    except AssertionError as error:
        return str(error).partition("\n")[0] or "an assertion of the check failed"
    except Exception as error:  # noqa: BLE001 - what the runs cost would be lost with the others
        return f"the check raised {in_words(error)}"


def _verdict(events: Sequence[dict[str, Any]], start: int) -> tuple[str, str]:
    """Return why a run does not pass by how it ended, "" if it does; and how it ended."""
    first = [event for event in events if event["traceId"] == events[0]["traceId"]]
    story = tell(first, lambda _: True)
    if not story.status.startswith(("answered", "finished")):
        return story.status, story.status
    left = [each for each in story.failed_calls if each.node.step >= start and not each.recovered]
    return (f"{left[0].node.name} failed: {left[0].error}" if left else ""), story.status


def _is_billed(event: Mapping[str, Any]) -> bool:
    return is_billed(text_of(event.get("eventType")), dict_of(event.get("metadata")).get("wraps"))
