"""Workflows that lie scattered over several traces, because the trace id changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._reading.excerpt import elapsed, get
from whyops_trace._reading.summary import TraceSummary
from whyops_trace._rules.exchanges import Exchanges, Turn, exchanges
from whyops_trace._rules.finding import Finding, named
from whyops_trace._rules.views import View, views
from whyops_trace._shapes import dict_of, text_of

#: Traces in a row that it takes to be more than a coincidence.
FRAGMENTS: Final = 3
#: Events of a fragment at most: one request and its response.
FRAGMENT_EVENTS: Final = 2
#: Milliseconds between the end of a fragment and the beginning of the next: a workflow goes on at once.
FRAGMENT_GAP_MS: Final = 60_000
#: The headers by which requests name their trace to the WhyOps proxy.
_HEADERS: Final = frozenset({"x-trace-id", "x-thread-id"})

_WHY: Final = "What led to what cannot be seen: each trace shows a piece, and none the whole."
_ADVICE: Final = (
    "Use one trace id from the beginning of the workflow to its end: open `with trace(id):` around all of it, and hand "
    "the id on with inject() and extract() where another process goes on."
)


def changed_ids(events: Sequence[View], found: Exchanges) -> Iterator[Finding]:
    """
    Yield where a trace shows that its workflow went on, or began, under another id.

    That is where a request is sent to the WhyOps proxy with another id in its header, and where a tool's arguments
    hold another id of the proxy's.
    """
    seen: dict[str, list[int]] = {}
    for turn in found.turns:
        for other in _sent(turn):
            if turn.first.trace_id and other != turn.first.trace_id:
                seen.setdefault(other, []).append(turn.first.step)
    for call in found.tools:
        other = text_of(get(call.arguments, TRACE_ID_ARGUMENT))
        if other and call.request.trace_id and other != call.request.trace_id:
            seen.setdefault(other, []).append(call.step)
    for other, steps in seen.items():
        yield Finding(
            "TRACE_ID_CHANGED",
            "high",
            f"A part of this workflow is in another trace: {named(other)}",
            steps,
            _WHY,
            _ADVICE,
            {"traces": [named(events[0].trace_id), named(other)]},
        )


def _sent(turn: Turn) -> Iterator[str]:
    """Yield the trace ids that a request names in headers of its own."""
    params = dict_of(turn.request.metadata.get("params")) if turn.request is not None else {}
    for name in ("extra_headers", "headers", "default_headers"):
        for header, value in dict_of(params.get(name)).items():
            if header.lower() in _HEADERS and isinstance(value, str) and value:
                yield value


def scattered(
    traces: Iterable[TraceSummary], events: Callable[[str], Iterable[Mapping[str, Any]]] | None = None
) -> Iterator[Finding]:
    """
    Yield runs of traces that look like one workflow whose id changed with each event.

    They follow one another, are of one agent and user, and hold one exchange or less each. And they are pieces: some
    are of models alone and others of tools alone, or two of them and more are half an exchange.
    """
    flows: dict[tuple[str, str], list[TraceSummary]] = {}
    for trace in sorted(traces, key=lambda trace: trace.started_at):
        flows.setdefault((trace.agent_name, trace.external_user_id or ""), []).append(trace)
    for (agent, _), flow in flows.items():
        for run in _runs(flow):
            if len(run) >= FRAGMENTS and _are_pieces(run):
                yield _scattered(agent, run)
    if events is not None:
        yield from _parted(flows.values(), events)


def _runs(flow: Sequence[TraceSummary]) -> Iterator[list[TraceSummary]]:
    """Yield the traces of one agent and user that follow one another and are fragments."""
    run: list[TraceSummary] = []
    for trace in flow:
        gap = elapsed(run[-1].last_at, trace.started_at) if run else 0.0
        if trace.event_count > FRAGMENT_EVENTS or gap is None or gap > FRAGMENT_GAP_MS:
            yield run
            run = []
        if trace.event_count <= FRAGMENT_EVENTS:
            run.append(trace)
    yield run


def _are_pieces(run: Sequence[TraceSummary]) -> bool:
    of_tools = any(trace.tool_calls and not trace.llm_responses for trace in run)
    of_models = any(trace.llm_responses and not trace.tool_calls for trace in run)
    return (of_tools and of_models) or sum(trace.event_count == 1 for trace in run) > 1


def _scattered(agent: str, run: Sequence[TraceSummary]) -> Finding:
    return Finding(
        "TRACE_ID_CHANGED",
        "medium",
        f"{len(run):,} traces of {named(agent, 'an agent')} look like one workflow: each holds one call or less.",
        [],
        _WHY,
        _ADVICE,
        {"agent": named(agent), "traces": [named(trace.trace_id) for trace in run]},
    )


def _parted(
    flows: Iterable[Sequence[TraceSummary]], events: Callable[[str], Iterable[Mapping[str, Any]]]
) -> Iterator[Finding]:
    """Yield calls of tools whose request is in one trace and whose response in another."""
    for flow in flows:
        small = [trace.trace_id for trace in flow if trace.event_count <= FRAGMENT_EVENTS]
        found = {trace_id: exchanges(views(events(trace_id))) for trace_id in small}
        asked = {
            (call.name, call.request.span): (trace_id, call.step)
            for trace_id, calls in found.items()
            for call in calls.tools
            if call.response is None and call.request.span
        }
        for trace_id, calls in found.items():
            for response in calls.orphans:
                tool = named(response.metadata.get("tool"), "a tool")
                other, step = asked.get((tool, response.span), (trace_id, 0))
                if other != trace_id:
                    yield Finding(
                        "TRACE_ID_CHANGED",
                        "high",
                        f"{tool} was asked for in trace {named(other)}, and answered in trace {named(trace_id)}.",
                        [],
                        _WHY,
                        _ADVICE,
                        {
                            "traces": [named(other), named(trace_id)],
                            "tool": tool,
                            "steps": [step, response.step],
                        },
                    )
