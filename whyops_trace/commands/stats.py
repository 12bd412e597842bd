"""``whyops-trace stats``: figures over the traces of a home, by agent, tool and model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import clean, counted, dollars, duration, percent
from whyops_trace.commands.common import Moment, console, home_option, stored_traces, tracked
from whyops_trace.commands.failures import print_patterns
from whyops_trace.stats import Figures, ScoreFigures, Stats, gather
from whyops_trace.store import Filter

Calls = Literal["agent", "tool", "model"]
By = Calls | Literal["score"]

#: Nouns for the calls of each group, and for their failures.
_CALLS: Final[dict[Calls, tuple[str, str]]] = {
    "agent": ("traces", "failed"),
    "tool": ("calls", "errors"),
    "model": ("calls", "errors"),
}
#: Largest number of labels of a score.
_LABELS: Final = 8


@click.command("stats", epilog="Example: whyops-trace stats --since 7d --by model")
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Only traces recorded on since: 7d, 12h or a date."
)
@click.option("--until", type=Moment(), metavar="TIME", help="Only traces not recorded on any more since.")
@click.option("--agent", metavar="NAME", help="Only traces of this agent.")
@click.option(
    "--by",
    type=click.Choice([*_CALLS, "score"]),
    metavar="WHAT",
    help="Only the figures by agent, tool, model or score.",
)
@click.option(
    "--failures", is_flag=True, help="Show what the failures of these traces have in common instead."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def stats(
    since: str | None,
    until: str | None,
    agent: str | None,
    by: By | None,
    failures: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Show the number, the failures, the latency and the cost of the calls of agents, tools and models.

    Latencies are percentiles of the nearest rank: half of the calls took at most p50, 95 of 100 at most p95. A ≥
    before a cost means that it lacks turns without a known price.
    """
    if failures and by is not None:
        raise click.UsageError("--failures groups by what failures have in common: it does not go with --by.")
    where = Filter(agent=agent, since=since, until=until)
    with stored_traces(home) as store:
        if failures:
            print_patterns(store, where, as_json=as_json)
            return
        statistics = gather(store, tracked(store.each(where), "reading traces", store.counts(where).total))
    if as_json:
        click.echo(json.dumps(_report(statistics, by), indent=1))
    elif statistics.traces:
        _print(statistics, by)
    else:
        click.echo(f"There are no such traces in {home}; `whyops-trace ls` lists what there is.")
    if not statistics.traces:
        raise SystemExit(1)


def _groups(statistics: Stats, by: By | None) -> Iterator[tuple[Calls, Sequence[Figures]]]:
    """Yield the figures to show, by agent, tool and model."""
    groups: list[tuple[Calls, Sequence[Figures]]] = [
        ("agent", statistics.agents),
        ("tool", statistics.tools),
        ("model", statistics.models),
    ]
    for name, figures in groups:
        if by in (None, name):
            yield name, figures


def _report(statistics: Stats, by: By | None) -> dict[str, Any]:
    groups = {f"{name}s": msgspec.to_builtins(figures) for name, figures in _groups(statistics, by)}
    if by in (None, "score"):
        groups["scores"] = msgspec.to_builtins(statistics.scores)
    return {"traces": statistics.traces, **groups}


def _print(statistics: Stats, by: By | None) -> None:
    out = console()
    groups: list[tuple[Calls, Sequence[Figures]]] = [
        (name, figures) for name, figures in _groups(statistics, by) if figures
    ]
    for number, (name, figures) in enumerate(groups):
        if number:
            out.print()
        out.print(_table(name, figures))
    if statistics.scores and by in (None, "score"):
        if groups:
            out.print()
        out.print(_scores(statistics.scores))
    elif not groups:
        click.echo(f"There are no {by}s in these traces.")
    unpriced = sum(each.unpriced for each in statistics.agents)
    if unpriced and by not in ("tool", "score"):
        some = f"{counted(unpriced, 'turn')} of models"
        out.print(Text(f"\nThe price of {some} is not known.", "dim"))


def _table(by: Calls, rows: Sequence[Figures]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(by, style="bold")
    said = any(row.said_failed for row in rows)
    billed = any(row.tokens.total for row in rows)
    priced = any(row.known_cost is not None for row in rows)
    tokens = ("in", "out", "cached") if billed else ()
    calls = (*_CALLS[by], "", *(("said failed",) if said else ()))
    for column in (*calls, "p50", "p95", "p99", *tokens, *(["cost"] if priced else [])):
        table.add_column(column, no_wrap=True, justify="right")
    for row in rows:
        table.add_row(
            Text(clean(row.name), no_wrap=True, overflow="ellipsis"),
            f"{row.calls:,}",
            Text(f"{row.errors:,}", "red" if row.errors else ""),
            percent(row.error_share, 1) if row.errors else "",
            *([f"{row.said_failed:,}" if row.said_failed else ""] if said else []),
            *("" if ms is None else duration(ms) for ms in (row.p50_ms, row.p95_ms, row.p99_ms)),
            *(
                [f"{row.tokens.sent:,}", f"{row.tokens.completion:,}", row.tokens.cached_share]
                if billed
                else []
            ),
            *([_cost(row)] if priced else []),
        )
    return table


def _scores(rows: Sequence[ScoreFigures]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("score", style="bold")
    for column in ("given", "mean"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("labels")
    for row in rows:
        labels = ", ".join(f"{clean(label)} {count:,}" for label, count in list(row.labels.items())[:_LABELS])
        table.add_row(
            Text(clean(row.name), no_wrap=True, overflow="ellipsis"),
            f"{row.count:,}",
            "" if row.mean is None else f"{row.mean:.4g}",
            Text(labels),
        )
    return table


def _cost(row: Figures) -> str:
    if row.known_cost is None:
        return ""
    return ("≥ " if row.unpriced else "") + dollars(row.known_cost)
