"""``whyops-trace check``: says what is wrong with traces, and fails where that is bad enough."""

from __future__ import annotations

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
from whyops_trace.store import Filter, Store, TraceSummary

#: Findings of one rule in one trace that are printed, and steps of one finding.
_SHOWN: Final = 3
_STEPS: Final = 8
#: The value of ``--fail-on`` with which nothing fails.
_NEVER: Final = "never"

_COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


class _Checked(NamedTuple):
    """A trace, or "" for all of them together, and what was found."""

    trace_id: str
    found: list[Finding]


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
@home_option
def check(
    traces: Sequence[str],
    since: str | None,
    fail_on: str,
    ignore: Sequence[str],
    server_rules: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Say what is wrong with traces: what, where, why it matters, and what to do.

    TRACE is an id, the beginning of an id, or "latest", which is also what is checked if nothing is named.
    """
    if traces and since is not None:
        raise click.UsageError("Name traces, or give --since for all of a time; not both.")
    with stored_traces(home) as store:
        summaries = _chosen(store, traces, since)
        checked = list(_checked(store, summaries, server_rules=server_rules))
    checked = [_Checked(name, [one for one in found if one.code not in ignore]) for name, found in checked]
    every = [one for each in checked for one in each.found]
    failed = fail_on != _NEVER and any(rank(one.severity) >= SEVERITIES.index(fail_on) for one in every)
    if as_json:
        click.echo(json.dumps(_report(checked, failed=failed), indent=1))
    else:
        _print(checked)
    if failed or not summaries:
        raise SystemExit(1)


def _chosen(store: Store, names: Sequence[str], since: str | None) -> list[TraceSummary]:
    """Return the traces to check, the one recorded on last first if they are chosen by time."""
    if since is None:
        ids = dict.fromkeys(store.resolve(name) for name in names or ["latest"])
        return [store.trace(trace_id) for trace_id in ids]
    return list(store.each(Filter(since=since)))


def _checked(store: Store, traces: Sequence[TraceSummary], *, server_rules: bool) -> Iterator[_Checked]:
    for trace in tracked(traces, "checking", len(traces)) if len(traces) > 1 else traces:
        events, ended = store.events(trace.trace_id), store.ended_in(trace.trace_id)
        yield _Checked(trace.trace_id, server_findings(events) if server_rules else findings(events, ended))
    if len(traces) > 1 and not server_rules:
        yield _Checked("", findings_across(traces, store.events))


def _report(checked: Iterable[_Checked], *, failed: bool) -> dict[str, Any]:
    return {
        "failed": failed,
        "traces": [
            {"traceId": trace_id, "findings": msgspec.to_builtins(found)}
            for trace_id, found in checked
            if trace_id
        ],
        "across": [msgspec.to_builtins(one) for trace_id, found in checked for one in found if not trace_id],
    }


def _print(checked: Sequence[_Checked]) -> None:
    out = console()
    traces = [each for each in checked if each.trace_id]
    for trace_id, found in checked:
        if found:
            out.print(Text(clean(trace_id) if trace_id else "Several traces together", "bold"))
            for line in _lines(found):
                out.print(line)
    every = [one for each in checked for one in each.found]
    counts = Counter(one.severity for one in every)
    told = ", ".join(f"{counts[name]:,} {name}" for name in reversed(SEVERITIES) if counts[name])
    what = clean(traces[0].trace_id) if len(traces) == 1 else f"{len(traces):,} traces"
    if not traces:
        out.print(Text("No trace was recorded on in that time."))
    elif every:
        out.print(Text(f"{what}: {told}."))
    else:
        out.print(Text(f"{what}: nothing found."))


def _lines(found: Sequence[Finding]) -> Iterator[Padding]:
    """Yield what is printed of the findings of a trace: of each rule the first ones in full."""
    first = {one.code: place for place, one in reversed(list(enumerate(found)))}
    for code, alike in groupby(sorted(found, key=lambda one: first[one.code]), lambda one: one.code):
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
    shown = ", ".join(map(str, steps[:_STEPS]))
    more = f" and {len(steps) - _STEPS:,} more" if len(steps) > _STEPS else ""
    return f"  step{'s' if len(steps) > 1 else ''} {shown}{more}"
