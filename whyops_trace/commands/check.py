"""``whyops-trace check``: prints the problems of traces, and exits with 1 if one is severe enough."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.padding import Padding
from rich.text import Text

from whyops_trace._reading.excerpt import clean
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
from whyops_trace.commands.common import Moment, console, home_option, stored_traces, tracked
from whyops_trace.commands.elsewhere import Lens, check_lens, lens_options, named_traces
from whyops_trace.store import Filter, Store, TraceSummary

#: Largest numbers of printed findings of one rule in one trace, and of steps of one finding.
_SHOWN: Final = 3
_STEPS: Final = 8
#: The value of ``--fail-on`` with which no finding fails.
_NEVER: Final = "never"

_COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


class _TraceFindings(NamedTuple):
    """
    The findings in a trace, or in all traces together, for which the id is "".

    Attributes:
        trace_id: The trace.
        findings: Its findings.
        captured: False if arguments, results or answers in it were not captured.
    """

    trace_id: str
    findings: list[Finding]
    captured: bool = True


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
@click.option("--server-rules", is_flag=True, help="Use the rules of a WhyOps server only.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@lens_options
@home_option
def check(
    traces: Sequence[str],
    since: str | None,
    fail_on: str,
    ignore: Sequence[str],
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
        results = list(_examine(chosen, server_rules=server_rules))
    results = [
        each._replace(findings=[one for one in each.findings if one.code not in ignore]) for each in results
    ]
    every = [one for each in results for one in each.findings]
    failed = fail_on != _NEVER and any(rank(one.severity) >= SEVERITIES.index(fail_on) for one in every)
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


def _examine(chosen: Sequence[tuple[Store, TraceSummary]], *, server_rules: bool) -> Iterator[_TraceFindings]:
    for store, trace in tracked(chosen, "checking", len(chosen)) if len(chosen) > 1 else chosen:
        events, is_gone = store.events(trace.trace_id), store.ended_in(trace.trace_id)
        yield _TraceFindings(
            trace.trace_id,
            server_findings(events) if server_rules else findings(events, is_gone),
            all(dict_of(event.get("metadata")).get("captured") is not False for event in events),
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
    for trace_id, items, _ in results:
        if items:
            out.print(Text(clean(trace_id) if trace_id else "Several traces together", "bold"))
            for line in _lines(items):
                out.print(line)
    every = [one for each in results for one in each.findings]
    counts = Counter(one.severity for one in every)
    totals = ", ".join(f"{counts[name]:,} {name}" for name in reversed(SEVERITIES) if counts[name])
    subject = clean(traces[0].trace_id) if len(traces) == 1 else f"{len(traces):,} traces"
    if not traces:
        out.print(Text("No trace was recorded on in that time."))
    elif every:
        out.print(Text(f"{subject}: {totals}."))
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
