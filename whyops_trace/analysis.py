"""
Findings of a trace: mistakes and waste in it, each with its place, the reason it matters, and what to do.

There are two sets of rules. :func:`server_findings` has those of a WhyOps server's static analysis, to the letter.
:func:`findings` has them where they are right about traces of this library, and many more; see
``docs/reference/findings.md``.
Nothing here asks a model: each finding follows from the records by a fixed rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from whyops_trace._reading.record import StoredRecord
from whyops_trace._rules.conversations import Conversations
from whyops_trace._rules.doubles import doubled
from whyops_trace._rules.exchanges import Exchanges, exchanges
from whyops_trace._rules.finding import SEVERITIES, Finding, Severity, rank
from whyops_trace._rules.habits import HABIT_CODES, habit
from whyops_trace._rules.payloads import secrets
from whyops_trace._rules.prompts import missed_caches
from whyops_trace._rules.server import SERVER_RULES, Rule
from whyops_trace._rules.server import server_findings as _server_findings
from whyops_trace._rules.tools import failures, loops, pairs, unused_results
from whyops_trace._rules.turns import (
    COSTLIER_BY,
    SLOWER_BY_MS,
    changing_addresses,
    costly_turns,
    cut_answers,
    growing_contexts,
    slow_calls,
)
from whyops_trace._rules.views import views
from whyops_trace._rules.workflows import changed_ids, scattered
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.store import TraceSummary
from whyops_trace.story import Story, tell

__all__ = [
    "OWN_CODES",
    "SERVER_RULES",
    "SEVERITIES",
    "Finding",
    "Rule",
    "Severity",
    "findings",
    "findings_across",
    "rank",
    "server_findings",
]

#: The codes of the rules that a WhyOps server does not have.
OWN_CODES: Final = (
    "SECRET_IN_PAYLOAD",
    "TRACE_ID_CHANGED",
    "UNPAIRED_SPAN",
    "REPEATED_FAILURE",
    "ANSWER_CUT",
    "CONTEXT_GROWTH",
    "DOUBLED_TURN",
    "PROMPT_CACHE_MISSED",
    "ADDRESS_OVERRIDDEN",
    "COSTLY_TURN",
    "SLOW_CALL",
    "UNUSED_TOOL_RESULT",
    *HABIT_CODES,
)


def server_findings(events: Iterable[Mapping[str, Any]], *, deep: bool = False) -> list[Finding]:
    """
    Return the findings of a WhyOps server's static analysis of a trace: its thirteen rules, in its order.

    Args:
        events: The records of one trace, decoded; local ones are left out, as no server has them.
        deep: True for the server's mode ``deep``.
    """
    return list(_server_findings(_sent(views(events)), deep=deep))


def findings(
    events: Iterable[Mapping[str, Any]],
    ended: Callable[[str], bool] = lambda _: True,
    *,
    deep: bool = False,
    story: Story | None = None,
) -> list[Finding]:
    """
    Return all findings of a trace, the most severe first, then by step.

    The server's rules count where they can be trusted: a response is told from its request's parent and tool as well
    as from its span, a loop is one finding, calls that go on are not unanswered, and a slow or long step is named once,
    and not if it took less than a second or 10,000 tokens.

    Args:
        events: The records of one trace, decoded.
        ended: Returns True for the token of a process that is gone: an open call of a running one is no mistake. By
            default all are taken to be gone.
        deep: True to weigh slow steps as the server's mode ``deep`` does.
        story: The story of the trace, if it was told already.
    """
    events = list(events)
    records = views(events)
    sent = _sent(records)
    found = exchanges(sent)
    all_found = [*_own(records, sent, found, ended)]
    lines = (story or tell(events, ended)).whys
    habits = (habit(line.kind, line.text, [line.step, *line.more], bad=line.bad) for line in lines)
    all_found += filter(None, habits)
    told = {(one.code, step) for one in all_found for step in one.steps}
    unfollowed = _unfollowed(records, found, ended)
    for one in _server_findings(sent, deep=deep):
        here = one.steps[0] if one.steps else 0
        match one.code:
            case "MISSING_TOOL_CALL_RESPONSE" | "ORPHAN_TOOL_CALL_RESPONSE" | "IDENTICAL_TOOL_CALL_LOOP":
                stands = False  # decided above, by more than spans
            case "TOOL_CALL_WITHOUT_FOLLOWUP_EVENTS":
                stands = here in unfollowed
            case "LATENCY_OUTLIER":
                stands = one.evidence["latencyMs"] >= SLOWER_BY_MS and ("SLOW_CALL", here) not in told
            case "TOKEN_OUTLIER":
                stands = one.evidence["totalTokens"] >= COSTLIER_BY and ("COSTLY_TURN", here) not in told
            case _:
                stands = True
        if stands:
            all_found.append(one)
    return sorted(all_found, key=lambda one: (-rank(one.severity), one.steps[:1]))


def findings_across(
    traces: Iterable[TraceSummary], events: Callable[[str], Iterable[Mapping[str, Any]]] | None = None
) -> list[Finding]:
    """
    Return findings that only several traces together show: workflows that were scattered over many trace ids.

    Their ``evidence`` names the traces; they have no steps.

    Args:
        traces: Summaries of traces, in any order.
        events: Returns the records of a trace by its id, so that calls that began in one and ended in another are
            found as well; it is asked for traces of one or two events only.
    """
    return sorted(scattered(traces, events), key=lambda one: -rank(one.severity))


def _sent(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    return [record for record in records if not record.is_local]


def _own(
    records: Sequence[StoredRecord],
    sent: Sequence[StoredRecord],
    found: Exchanges,
    ended: Callable[[str], bool],
) -> Iterator[Finding]:
    conversations = Conversations(found.turns)
    yield from secrets(records)
    yield from changed_ids(sent, found)
    yield from pairs(found, ended)
    yield from loops(found)
    yield from failures(found)
    yield from unused_results(found)
    yield from doubled(sent, found)
    yield from cut_answers(found)
    yield from missed_caches(found, conversations)
    yield from growing_contexts(conversations)
    yield from slow_calls(found)
    yield from costly_turns(found)
    yield from changing_addresses(found)


def _unfollowed(records: Sequence[StoredRecord], found: Exchanges, ended: Callable[[str], bool]) -> set[int]:
    """
    Return the steps of answers after which something is missing if no event of a tool follows.

    Not so while their process runs, and where the request forced the model to call a tool: then the call itself often
    is the answer, in a form that the caller has chosen; nor where a step of that name follows, as a framework records
    the run of an agent, or the last answer; nor in a trace of one turn alone, as clients make outside any trace.
    """
    if len(found.turns) == 1 and not found.tools:
        return set()
    steps = {
        text_of(record.metadata.get("step")): record.step
        for record in records
        if record.kind == "llm_thinking"
    }
    return {
        turn.response.step
        for turn in found.turns
        if turn.response is not None
        and (not turn.response.process or ended(turn.response.process))
        and not (
            turn.request and isinstance(dict_of(turn.request.metadata.get("params")).get("tool_choice"), dict)
        )
        and any(
            steps.get(text_of(dict_of(call.get("function")).get("name")), 0) <= turn.response.step
            for call in turn.calls
        )
    }
