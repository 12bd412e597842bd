"""
Figures over many traces, by agent, tool and model: how often, how long, how many failed, what they cost.

A *call* is a call of a tool, a turn of a model, or for an agent a whole trace. A call of a tool is a request with its
response, or one of the two that is there alone. A turn counts under the model that answered; one that only repeats
those of clients (``metadata.wraps``) is not counted again, and a turn that failed counts under the model that was
asked. A trace counts as an error if it failed, as its summary says.

Percentiles are those of the nearest rank: of n latencies in their order, p95 is the one at place ceil(0.95 n). Each
is a latency that was measured, none is made up between two.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from statistics import fmean
from typing import Final

import msgspec

from whyops_trace._reading.excerpt import Tokens, elapsed
from whyops_trace._reading.halves import TYPES, Half, half_of_head
from whyops_trace._reading.pairing import pair
from whyops_trace._reading.prices import cost
from whyops_trace._reading.record import Head, head_of, latency
from whyops_trace._reading.summary import TraceSummary
from whyops_trace._shapes import text_of
from whyops_trace.store import Score, Store

__all__ = ["Figures", "ScoreFigures", "Stats", "gather", "percentile"]

#: Name of anything without one, as models have it in records.
_UNKNOWN: Final = "unknown"


class Figures(msgspec.Struct, rename="camel"):
    """
    The figures of one agent, tool or model.

    Attributes:
        name: Its name, as it was recorded.
        calls: Number of calls; for an agent of traces.
        errors: Number of them that failed.
        said_failed: Number of calls of a tool that did not raise, but whose results say that they failed; for an agent
            of those in its traces.
        error_share: The share of calls that failed, 0 to 1, without those that only say so.
        p50_ms: The latency that half of the calls did not exceed, in milliseconds; None if none is known.
        p95_ms: That which 95 of 100 did not exceed.
        p99_ms: That which 99 of 100 did not exceed.
        prompt_tokens: Tokens of prompts that were not cached.
        completion_tokens: Tokens of answers.
        cache_read_tokens: Tokens of prompts that came from a cache.
        cache_creation_tokens: Tokens of prompts that were written to one.
        cached_share: The share of all tokens of prompts that came from a cache, 0 to 1; None if there are none.
        cost: Cost of all turns in US dollars; None if there are none, or the price of one is unknown.
        known_cost: Cost of the turns with a known price; None if there are none.
        unpriced: The turns whose price is not known.
    """

    name: str
    calls: int = 0
    errors: int = 0
    said_failed: int = 0
    error_share: float = 0.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    cached_share: float | None = None
    cost: float | None = None
    known_cost: float | None = None
    unpriced: int = 0

    @property
    def tokens(self) -> Tokens:
        """The token counts as one value."""
        return Tokens(
            self.prompt_tokens, self.completion_tokens, self.cache_read_tokens, self.cache_creation_tokens
        )


class ScoreFigures(msgspec.Struct, rename="camel"):
    """
    The figures of the scores of one name, on traces and on their steps.

    Attributes:
        name: What is judged.
        count: Number of scores.
        mean: Mean of the numbers, of thumbs the share of those that are up; None if there are labels and notes only.
        labels: Number of scores with each label, the most frequent first.
    """

    name: str
    count: int
    mean: float | None
    labels: dict[str, int]

    @classmethod
    def of(cls, name: str, scores: Sequence[Score]) -> ScoreFigures:
        """Return the figures of scores of one name."""
        values = [score.value for score in scores if score.value is not None]
        labels = Counter(score.label for score in scores if score.label)
        return cls(name, len(scores), fmean(values) if values else None, dict(labels.most_common()))


class Stats(msgspec.Struct, rename="camel"):
    """
    Figures over some traces; each list begins with what was called most.

    Attributes:
        traces: Number of traces they are of.
        agents: By agent.
        tools: By tool.
        models: By model.
        scores: The scores of these traces, by name; of one trace the first 100.
    """

    traces: int
    agents: list[Figures]
    tools: list[Figures]
    models: list[Figures]
    scores: list[ScoreFigures] = []


def percentile(latencies: Sequence[float], share: float) -> float | None:
    """
    Return the latency at the nearest rank, None if there are none.

    Args:
        latencies: In ascending order.
        share: Of the latencies that are at most as long as the one returned: above 0, up to 1.
    """
    return latencies[math.ceil(share * len(latencies)) - 1] if latencies else None


def gather(store: Store, traces: Iterable[TraceSummary]) -> Stats:
    """
    Return the figures over some traces.

    One trace after the other is read, and one payload at a time; what is kept is a few numbers for each agent, tool
    and model, and eight bytes for each call, beside a few for each record of the trace that is read.

    Args:
        store: Store with their records.
        traces: Summaries, as :meth:`Store.each` yields them.

    Raises:
        StoreError: if the file cannot be read.
    """
    groups = _Groups()
    scores: defaultdict[str, list[Score]] = defaultdict(list)
    count = 0
    for trace in traces:
        count += 1
        for score in trace.scores:
            scores[score.name].append(score)
        groups.add(trace, store.select(trace.trace_id, TYPES, _read))
    scored = sorted(scores.items(), key=lambda each: (-len(each[1]), each[0]))
    agents, tools, models = groups.figures()
    return Stats(count, agents, tools, models, [ScoreFigures.of(name, given) for name, given in scored])


class _Seen(msgspec.Struct, gc=False):
    """
    The part of a record that is kept.

    Attributes:
        record: It, without its content.
        half: Members by which its partners are found.
        failed: True if it tells of a failure.
        said_failed: True if it is the end of a tool that says that it failed.
    """

    record: Head
    half: Half
    failed: bool
    said_failed: bool = False


_NOTHING: Final = msgspec.Raw(b"null")


def _read(line: str) -> _Seen | None:
    """Return what matters of a record, None if it is not of the usual form or part of no call."""
    try:
        record = head_of(line)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    half = half_of_head(record)
    seen = None if half is None else _Seen(record, half, half.part != "request" and bool(record.error))
    if seen is not None and (verdict := record.verdict) is not None:
        seen.said_failed = verdict.kind == "failed"
    record.content = _NOTHING  # which would keep the whole line in memory
    return seen


class _Group:
    """The sums of one agent, tool or model."""

    __slots__ = ("calls", "errors", "known", "latencies", "said_failed", "tokens", "turns", "unpriced")

    def __init__(self) -> None:
        self.calls = self.errors = self.said_failed = self.turns = self.unpriced = 0
        self.latencies = array("d")
        self.tokens = Tokens()
        self.known = Decimal(0)

    def took(self, latency: float | None) -> None:
        """Take the latency of a call, if it is known."""
        if latency is not None:
            self.latencies.append(latency)

    def spent(self, tokens: Tokens, amount: Decimal | None) -> None:
        """Take what a turn of a model took and cost."""
        self.turns += 1
        self.tokens = self.tokens.plus(tokens)
        if amount is None:
            self.unpriced += 1
        else:
            self.known += amount

    def figures(self, name: str) -> Figures:
        """Return the figures."""
        latencies = sorted(self.latencies)
        p50, p95, p99 = (percentile(latencies, share) for share in (0.50, 0.95, 0.99))
        tokens = self.tokens
        known = float(self.known) if self.turns > self.unpriced else None
        return Figures(
            name,
            calls=self.calls,
            errors=self.errors,
            said_failed=self.said_failed,
            error_share=self.errors / self.calls if self.calls else 0.0,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            cache_read_tokens=tokens.cache_read,
            cache_creation_tokens=tokens.cache_creation,
            cached_share=tokens.cache_read / tokens.sent if tokens.sent else None,
            cost=None if self.unpriced else known,
            known_cost=known,
            unpriced=self.unpriced,
        )


class _Groups:
    """The sums over the traces that were added."""

    def __init__(self) -> None:
        self._agents: defaultdict[str, _Group] = defaultdict(_Group)
        self._tools: defaultdict[str, _Group] = defaultdict(_Group)
        self._models: defaultdict[str, _Group] = defaultdict(_Group)

    def add(self, trace: TraceSummary, seen: Iterable[_Seen | None]) -> None:
        """Take a trace into account, with those of its records that could be read."""
        agent = self._agents[trace.agent_name or _UNKNOWN]
        agent.calls += 1
        agent.errors += trace.failed
        agent.said_failed += trace.said_failed
        agent.took(None if trace.running else elapsed(trace.started_at, trace.last_at))
        records = list(filter(None, seen))
        for place, each in enumerate(records):
            each.half.place = place
        for call in pair(each.half for each in records):
            request = None if call.request is None else records[call.request.place]
            response = None if call.response is None else records[call.response.place]
            error = None if call.error is None else records[call.error.place]
            end = response or error
            if call.first.kind == "tool":
                tool = self._tools[call.first.name or _UNKNOWN]
                tool.calls += 1
                if end is not None:
                    tool.took(_latency(request, end))
                    tool.errors += end.failed or error is not None
                    tool.said_failed += end.said_failed and error is None
            elif call.first.kind in ("llm", "embedding") and call.counts and end is not None:
                self._add_turn(agent, request, end)

    def _add_turn(self, agent: _Group, request: _Seen | None, end: _Seen) -> None:
        """Take a turn of a model that answered, or failed: then it told its model when it noted the error."""
        about = end.record.metadata
        model = self._models[text_of(about.model) or _UNKNOWN]
        model.calls += 1
        model.errors += end.failed
        model.took(_latency(request, end))
        if end.record.event_type != "error":
            tokens = Tokens.of(about.usage)
            amount = cost(about.model, about.provider, about.usage, end.record.timestamp)
            model.spent(tokens, amount)
            agent.spent(tokens, amount)

    def figures(self) -> Iterator[list[Figures]]:
        """Yield the figures by agent, by tool and by model."""
        for groups in (self._agents, self._tools, self._models):
            found = [group.figures(name) for name, group in groups.items()]
            yield sorted(found, key=lambda each: (-each.calls, each.name))


def _latency(request: _Seen | None, end: _Seen) -> float | None:
    about, began = end.record.metadata, "" if request is None else request.record.timestamp
    return latency(about.latency_ms, began, end.record.timestamp, about.ran_at)
