"""``whyops-trace check``: prints the problems of traces, and exits with 1 if one is severe enough."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.padding import Padding
from rich.text import Text

from whyops_trace._reading.excerpt import clean, counted
from whyops_trace._reading.score import typed_value
from whyops_trace._shapes import dict_of
from whyops_trace.analysis import (
    OWN_CODES,
    SERVER_RULES,
    SEVERITIES,
    Finding,
    findings,
    findings_across,
    rank,
    server_findings,
)
from whyops_trace.commands.common import Moment, ParamType, console, home_option, stored_traces, tracked
from whyops_trace.commands.elsewhere import Lens, check_lens, lens_options, named_traces
from whyops_trace.store import Filter, Score, Store, TraceSummary

#: Largest numbers of printed findings of one rule in one trace, and of steps of one finding.
_SHOWN: Final = 3
_STEPS: Final = 8
#: The value of ``--fail-on`` with which no finding fails.
_NEVER: Final = "never"

_COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


class ScoreLimit(NamedTuple):
    """
    A limit of a score that a trace has to keep.

    Attributes:
        name: The name of the score.
        value: The limit.
        is_largest: True if the score may not be above it, False if it may not be below.
    """

    name: str
    value: float
    is_largest: bool

    def missed(self, scores: Iterable[Score]) -> Iterator[MissedScore]:
        """Yield the scores of that name that do not keep the limit: one without a value if there is none at all."""
        named = [score for score in scores if score.name == self.name]
        for score in named:
            value = score.value
            if value is None or (value > self.value if self.is_largest else value < self.value):
                yield MissedScore(self, score)
        if not named:
            yield MissedScore(self, None)


class MissedScore(NamedTuple):
    """
    A limit that was not kept.

    Attributes:
        limit: The limit.
        score: The score, None if there is none.
    """

    limit: ScoreLimit
    score: Score | None

    @property
    def line(self) -> str:
        """The reason in one line that is safe to print."""
        name, score = clean(self.limit.name), self.score
        if score is None:
            return f"{name} is missing: the trace has no score of that name."
        if score.value is None:
            return f"{name} is {score.shown or 'a note'}, which is no number."
        side = "above" if self.limit.is_largest else "below"
        comment = f": {clean(score.comment)}" if score.comment else "."
        return f"{name} is {score.shown}, {side} {self.limit.value:g}{comment}"

    @property
    def step(self) -> int:
        """The step that was judged, 0 for the trace as a whole."""
        return 0 if self.score is None else self.score.step


class _Limit(ParamType):
    """A name and a number such as ``correct=0.8``, which become a limit."""

    name = "limit"

    def __init__(self, *, is_largest: bool) -> None:
        self._is_largest = is_largest

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ScoreLimit:
        """Return the limit."""
        name, _, text = str(value).rpartition("=")
        number = typed_value({"up": "1", "down": "0"}.get(text.strip(), text))
        if not name.strip() or not isinstance(number, float) or not math.isfinite(number):
            self.fail(
                f"{value!r} is no limit of a score; write a name and a number: correct=0.8.", param, ctx
            )
        return ScoreLimit(name.strip(), number, self._is_largest)


class _TraceFindings(NamedTuple):
    """
    The findings in a trace, or in all traces together, for which the id is "".

    Attributes:
        trace_id: The trace.
        findings: Its findings.
        captured: False if arguments, results or answers in it were not captured.
        missed: The limits of scores that it does not keep.
    """

    trace_id: str
    findings: list[Finding]
    captured: bool = True
    missed: Sequence[MissedScore] = ()


@click.command("check", epilog="Example: whyops-trace check --since 1d --fail-on critical")
@click.argument("traces", metavar="[TRACE]...", nargs=-1)
@click.option("--since", type=Moment(), metavar="TIME", help="All traces recorded on since: 2d, or a date.")
@click.option(
    "--fail-on",
    type=click.Choice([*SEVERITIES, _NEVER]),
    default="high",
    show_default=True,
    help="Exit with 1 for a finding as severe as this.",
)
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(sorted((*SERVER_RULES, *OWN_CODES))),
    metavar="CODE",
    help="Leave out the findings of this rule; may be given several times.",
)
@click.option(
    "--min-score",
    "lowest",
    multiple=True,
    type=_Limit(is_largest=False),
    metavar="NAME=VALUE",
    help="Exit with 1 for a score of this name below the value, or none; may be given several times.",
)
@click.option(
    "--max-score",
    "largest",
    multiple=True,
    type=_Limit(is_largest=True),
    metavar="NAME=VALUE",
    help="Exit with 1 for a score of this name above the value, or none; may be given several times.",
)
@click.option("--server-rules", is_flag=True, help="Use the rules of a WhyOps server only.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@lens_options
@home_option
def check(
    traces: Sequence[str],
    since: str | None,
    fail_on: str,
    ignore: Sequence[str],
    lowest: Sequence[ScoreLimit],
    largest: Sequence[ScoreLimit],
    server_rules: bool,
    as_json: bool,
    lens: Lens,
    home: Path,
) -> None:
    """
    Print the problems of traces: each with its place, the reason that it matters, and its remedy.

    TRACE is an id, the beginning of an id, or "latest"; or the address of a trace that another product stores. Without
    a TRACE the latest trace is checked.
    """
    if traces and since is not None:
        raise click.UsageError("Name traces, or give --since for all of a time; not both.")
    with _selected(home, traces, since, lens) as chosen:
        results = list(_examine(chosen, (*lowest, *largest), server_rules=server_rules))
    results = [
        each._replace(findings=[one for one in each.findings if one.code not in ignore]) for each in results
    ]
    every = [one for each in results for one in each.findings]
    failed = fail_on != _NEVER and any(rank(one.severity) >= SEVERITIES.index(fail_on) for one in every)
    failed = failed or any(each.missed for each in results)
    if as_json:
        click.echo(json.dumps(_report(results, failed=failed), indent=1))
    else:
        _print(results)
    if failed or not results:
        raise SystemExit(1)


@contextlib.contextmanager
def _selected(
    home: Path, names: Sequence[str], since: str | None, lens: Lens
) -> Iterator[list[tuple[Store, TraceSummary]]]:
    """Lend the traces to check. Those chosen by time are sorted by their last record, the latest first."""
    if since is None:
        with named_traces(home, names or ["latest"], lens) as traces:
            yield [(store, store.trace(trace_id)) for store, trace_id in dict.fromkeys(traces)]
        return
    check_lens((), lens)
    with stored_traces(home) as store:
        yield [(store, summary) for summary in store.each(Filter(since=since))]


def _examine(
    chosen: Sequence[tuple[Store, TraceSummary]], limits: Sequence[ScoreLimit], *, server_rules: bool
) -> Iterator[_TraceFindings]:
    for store, trace in tracked(chosen, "checking", len(chosen)) if len(chosen) > 1 else chosen:
        events, is_gone = store.events(trace.trace_id), store.ended_in(trace.trace_id)
        scores = store.scores(trace.trace_id) if limits else []
        yield _TraceFindings(
            trace.trace_id,
            server_findings(events) if server_rules else findings(events, is_gone),
            all(dict_of(event.get("metadata")).get("captured") is not False for event in events),
            [each for limit in limits for each in limit.missed(scores)],
        )
    if len(chosen) > 1 and not server_rules:
        stores = {trace.trace_id: store for store, trace in chosen}
        traces = [trace for _, trace in chosen]
        yield _TraceFindings("", findings_across(traces, lambda name: stores[name].events(name)))


def _report(results: Iterable[_TraceFindings], *, failed: bool) -> dict[str, Any]:
    return {
        "failed": failed,
        "traces": [
            {
                "traceId": each.trace_id,
                "captured": each.captured,
                "findings": msgspec.to_builtins(each.findings),
                "missed": [
                    {"name": one.limit.name, "step": one.step, "reason": one.line} for one in each.missed
                ],
            }
            for each in results
            if each.trace_id
        ],
        "across": [
            msgspec.to_builtins(one) for each in results if not each.trace_id for one in each.findings
        ],
    }


def _print(results: Sequence[_TraceFindings]) -> None:
    out = console()
    traces = [each for each in results if each.trace_id]
    for trace_id, items, _, missed in results:
        if items or missed:
            out.print(Text(clean(trace_id) if trace_id else "Several traces together", "bold"))
            for line in _lines(items):
                out.print(line)
            for one in missed:
                head = Text("score", "bold red").append(_steps([one.step] if one.step else []), "default")
                out.print(_indented(head, 2))
                out.print(_indented(Text(one.line), 4))
    every = [one for each in results for one in each.findings]
    counts = Counter(one.severity for one in every)
    parts = [f"{counts[name]:,} {name}" for name in reversed(SEVERITIES) if counts[name]]
    missed_limits = sum(len(each.missed) for each in results)
    if missed_limits:
        parts.append(counted(missed_limits, "missed score"))
    subject = clean(traces[0].trace_id) if len(traces) == 1 else f"{len(traces):,} traces"
    if not traces:
        out.print(Text("No trace was recorded on in that time."))
    elif parts:
        out.print(Text(f"{subject}: {', '.join(parts)}."))
    else:
        out.print(Text(f"{subject}: nothing found."))
    partial = sum(not each.captured for each in traces)
    if partial:
        where = "in it" if len(traces) == 1 else f"in {partial:,} of them"
        out.print(
            Text(f"Not all arguments, results and answers {where} were captured: findings may be missing.")
        )


def _lines(items: Sequence[Finding]) -> Iterator[Padding]:
    """Yield the printed lines of a trace's findings: the first three findings of each rule in full."""
    first = {one.code: place for place, one in reversed(list(enumerate(items)))}
    for code, alike in groupby(sorted(items, key=lambda one: first[one.code]), lambda one: one.code):
        some = list(alike)
        for one in some[:_SHOWN]:
            head = Text(one.severity, _COLOURS[one.severity]).append(
                f"  {code}{_steps(one.steps)}", "default"
            )
            yield _indented(head, 2)
            for line in (one.title, f"Why: {one.why}", f"Do: {one.advice}"):
                yield _indented(Text(line), 4)
        if len(some) > _SHOWN:
            yield _indented(Text(f"and {len(some) - _SHOWN:,} more {code}; --json lists all."), 2)


def _indented(text: Text, columns: int) -> Padding:
    return Padding(text, (0, 0, 0, columns), expand=False)


def _steps(steps: Sequence[int]) -> str:
    if not steps:
        return ""
    listed = ", ".join(map(str, steps[:_STEPS]))
    more = f" and {len(steps) - _STEPS:,} more" if len(steps) > _STEPS else ""
    return f"  step{'s' if len(steps) > 1 else ''} {listed}{more}"
