"""Workflows scattered over several traces, because the trace id changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from whyops_trace._models.links import TRACE_ID_ARGUMENT
from whyops_trace._reading.excerpt import elapsed, get
from whyops_trace._reading.record import StoredRecord
from whyops_trace._reading.summary import TraceSummary
from whyops_trace._rules.exchanges import Exchanges, Turn, exchanges
from whyops_trace._rules.finding import Finding, named
from whyops_trace._rules.views import views
from whyops_trace._shapes import dict_of, text_of

#: Fewest traces in a row that are more than a coincidence.
FRAGMENTS: Final = 3
#: Largest number of events of a fragment: one request and its response.
FRAGMENT_EVENTS: Final = 2
#: Most milliseconds between the end of a fragment and the beginning of the next: a workflow goes on at once.
FRAGMENT_GAP_MS: Final = 60_000
#: Headers in which requests name their trace to the WhyOps proxy.
_HEADERS: Final = frozenset({"x-trace-id", "x-thread-id"})

_WHY: Final = "What led to what cannot be seen: each trace shows a piece, and none the whole."
_ADVICE: Final = (
    "Use one trace id from the beginning of the workflow to its end: open `with trace(id):` around all of it, and hand "
    "the id on with inject() and extract() where another process goes on."
)


def changed_ids(events: Sequence[StoredRecord], exchanges_of_trace: Exchanges) -> Iterator[Finding]:
    """
    Yield the places where a trace shows that its workflow began or went on under another id.

    These are requests to the WhyOps proxy with another id in their header, and tool arguments that hold another id of
    the proxy's.
    """
    steps_by_id: dict[str, list[int]] = {}
    for turn in exchanges_of_trace.turns:
        for other in _header_ids(turn):
            if turn.first.trace_id and other != turn.first.trace_id:
                steps_by_id.setdefault(other, []).append(turn.first.step)
    for call in exchanges_of_trace.tools:
        other = text_of(get(call.arguments, TRACE_ID_ARGUMENT))
        if other and call.request.trace_id and other != call.request.trace_id:
            steps_by_id.setdefault(other, []).append(call.step)
    for other, steps in steps_by_id.items():
        yield Finding(
            "TRACE_ID_CHANGED",
            "high",
            f"A part of this workflow is in another trace: {named(other)}",
            steps,
            _WHY,
            _ADVICE,
            {"traces": [named(events[0].trace_id), named(other)]},
        )


def _header_ids(turn: Turn) -> Iterator[str]:
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
    Yield rows of traces that look like one workflow whose id changed with each event.

    They follow one another, belong to one agent and user, and hold one exchange or less each. They are also pieces:
    some hold only model calls and others only tool calls, or at least two hold half an exchange.
    """
    flows: dict[tuple[str, str], list[TraceSummary]] = {}
    for trace in sorted(traces, key=lambda trace: trace.started_at):
        flows.setdefault((trace.agent_name, trace.external_user_id or ""), []).append(trace)
    for (agent, _), flow in flows.items():
        for run in _runs(flow):
            if len(run) >= FRAGMENTS and _are_pieces(run):
                yield _scattered(agent, run)
    if events is not None:
        yield from _split_calls(flows.values(), events)


def _runs(flow: Sequence[TraceSummary]) -> Iterator[list[TraceSummary]]:
    """Yield the fragments that follow one another among the traces of one agent and user."""
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


def _split_calls(
    flows: Iterable[Sequence[TraceSummary]], events: Callable[[str], Iterable[Mapping[str, Any]]]
) -> Iterator[Finding]:
    """Yield tool calls whose request is in one trace and whose response is in another."""
    for flow in flows:
        small = [trace.trace_id for trace in flow if trace.event_count <= FRAGMENT_EVENTS]
        by_trace = {trace_id: exchanges(views(events(trace_id))) for trace_id in small}
        requests = {
            (call.name, call.request.span): (trace_id, call.step)
            for trace_id, calls in by_trace.items()
            for call in calls.tools
            if call.response is None and call.request.span
        }
        for trace_id, calls in by_trace.items():
            for response in calls.orphans:
                tool = named(response.metadata.get("tool"), "a tool")
                other, step = requests.get((tool, response.span), (trace_id, 0))
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
