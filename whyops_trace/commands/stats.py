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
from whyops_trace.stats import Figures, Stats, gather
from whyops_trace.store import Filter

By = Literal["agent", "tool", "model"]

#: Nouns for the calls of each group, and for their failures.
_CALLS: Final[dict[By, tuple[str, str]]] = {
    "agent": ("traces", "failed"),
    "tool": ("calls", "errors"),
    "model": ("calls", "errors"),
}


@click.command("stats", epilog="Example: whyops-trace stats --since 7d --by model")
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Only traces recorded on since: 7d, 12h or a date."
)
@click.option("--until", type=Moment(), metavar="TIME", help="Only traces not recorded on any more since.")
@click.option("--agent", metavar="NAME", help="Only traces of this agent.")
@click.option("--by", type=click.Choice(list(_CALLS)), help="Only the figures by agent, by tool or by model.")
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


def _groups(statistics: Stats, by: By | None) -> Iterator[tuple[By, Sequence[Figures]]]:
    """Yield the figures to show, by agent, tool and model."""
    groups: list[tuple[By, Sequence[Figures]]] = [
        ("agent", statistics.agents),
        ("tool", statistics.tools),
        ("model", statistics.models),
    ]
    for name, figures in groups:
        if by in (None, name):
            yield name, figures


def _report(statistics: Stats, by: By | None) -> dict[str, Any]:
    groups = {f"{name}s": msgspec.to_builtins(figures) for name, figures in _groups(statistics, by)}
    return {"traces": statistics.traces, **groups}


def _print(statistics: Stats, by: By | None) -> None:
    out = console()
    groups: list[tuple[By, Sequence[Figures]]] = [
        (name, figures) for name, figures in _groups(statistics, by) if figures
    ]
    for number, (name, figures) in enumerate(groups):
        if number:
            out.print()
        out.print(_table(name, figures))
    if not groups:
        click.echo(f"There are no {by}s in these traces.")
    unpriced = sum(each.unpriced for each in statistics.agents)
    if unpriced and by != "tool":
        some = f"{counted(unpriced, 'turn')} of models"
        out.print(Text(f"\nThe price of {some} is not known.", "dim"))


def _table(by: By, rows: Sequence[Figures]) -> Table:
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


def _cost(row: Figures) -> str:
    if row.known_cost is None:
        return ""
    return ("≥ " if row.unpriced else "") + dollars(row.known_cost)
