"""``whyops-trace ls``: lists the traces of a home."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import Tokens, clean, dollars, duration, elapsed
from whyops_trace.commands.common import (
    Duration,
    Moment,
    ScoreCondition,
    console,
    echo_json_lines,
    home_option,
    stored_traces,
    when,
)
from whyops_trace.store import Filter, TraceSummary

F = TypeVar("F", bound=Callable[..., Any])

#: Fewest columns with room for the name of the agent.
_WIDE: Final = 100
#: Largest number of scores of a trace in the list.
_SCORES: Final = 4

_HOW_TO_RECORD: Final = """\
There are no traces in {home} yet. This records one:

    from whyops_trace import trace, traced_tool

    @traced_tool
    def add(a: int, b: int) -> int:
        return a + b

    with trace("hello"):
        add(1, 2)
"""

_ELSEWHERE: Final = """
WHYOPS_API_KEY is set, and with a key traces go to the server alone; WHYOPS_STORE=on keeps them here as well.
"""


def _filters(command: F) -> F:
    """Add the options that choose traces, each with the name of its member of :class:`Filter`."""
    options = (
        click.option("--agent", metavar="NAME", help="Only traces of this agent."),
        click.option("--user", metavar="ID", help="Only traces for this user."),
        click.option("--tag", metavar="TAG", help="Only traces with this tag."),
        click.option(
            "--score",
            "scores",
            type=ScoreCondition(),
            multiple=True,
            metavar="TEST",
            help="Only traces with such a score: correct, correct<0.5, helpful=down.",
        ),
        click.option("--failed", is_flag=True, help="Only traces that ended with an error."),
        click.option("--running", is_flag=True, help="Only traces that go on."),
        click.option("--stopped", is_flag=True, help="Only traces whose process went in the middle of them."),
        click.option(
            "--looping", is_flag=True, help="Only traces that repeat a tool call three times or more."
        ),
        click.option(
            "--no-answer", "unanswered", is_flag=True, help="Only traces that ended without an answer."
        ),
        click.option(
            "--since", type=Moment(), metavar="TIME", help="Only those recorded on since: 2d or a date."
        ),
        click.option("--until", type=Moment(), metavar="TIME", help="Only those not recorded on since."),
        click.option(
            "--slower", "min_seconds", type=Duration(), metavar="TIME", help="At least so long: 30s, 5m."
        ),
        click.option("--faster", "max_seconds", type=Duration(), metavar="TIME", help="At most so long."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("ls", epilog="Example: whyops-trace ls --failed --since 2d")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Most traces to list.")
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, a trace a line.")
@home_option
def ls(limit: int, as_json: bool, home: Path, **conditions: Any) -> None:
    """
    List the traces, the latest record first.

    Their cost is shown if the extra prices is installed; in a checkout: pip install '.[prices]'
    """
    where = Filter(**{name: value for name, value in conditions.items() if value not in (None, False, ())})
    with stored_traces(home) as store:
        traces = store.traces(limit, where=where)
        fitting = store.counts(where).total if len(traces) == limit else len(traces)
        empty = not traces and not store.traces(1)
    if as_json:
        echo_json_lines(map(msgspec.to_builtins, traces))
    elif traces:
        out = console()
        out.print(_table(traces, out.width))
        if fitting > len(traces):
            click.echo(
                f"{len(traces):,} of {fitting:,} traces; --limit {fitting} lists all of them.", err=True
            )
    elif empty:
        click.echo(_HOW_TO_RECORD.format(home=home), nl=False)
        if os.environ.get("WHYOPS_API_KEY"):
            click.echo(_ELSEWHERE, nl=False)
    else:
        click.echo(f"None of the traces in {home} is of that kind.")
    if not traces:
        raise SystemExit(1)


def _table(traces: Sequence[TraceSummary], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0) if width >= _WIDE else (0, 1, 0, 0), pad_edge=False)
    table.add_column("when", no_wrap=True, style="dim")
    table.add_column("trace", style="bold")
    if width >= _WIDE:
        table.add_column("agent")
    table.add_column("asked → ended")
    priced = any(trace.cost is not None for trace in traces)
    for name in ("tools", "llm", "errors", "tokens", *(["cost"] if priced else []), "time"):
        table.add_column(name, no_wrap=True, justify="right")
    scored = any(trace.scores for trace in traces)
    if scored:
        table.add_column("scores")
    for trace in traces:
        table.add_row(
            when(trace.last_at),
            _cell(trace.trace_id),
            *([_cell(trace.agent_name)] if width >= _WIDE else []),
            _story(trace),
            f"{trace.tool_calls:,}",
            f"{trace.llm_responses:,}",
            _failures(trace),
            _tokens(trace.tokens),
            *(["" if trace.cost is None else dollars(trace.cost)] if priced else []),
            duration(elapsed(trace.started_at, trace.last_at) or 0.0),
            *([_scores(trace)] if scored else []),
        )
    return table


def _cell(text: str, style: str = "") -> Text:
    return Text(clean(text), style, no_wrap=True, overflow="ellipsis")


def _story(trace: TraceSummary) -> Text:
    """Return the question of a trace, and its end or its state."""
    story = _cell(trace.asked)
    if trace.running:
        story.append(" → running" if trace.asked else "running", "cyan")
    elif trace.stopped:
        story.append(" → no end seen" if trace.asked else "no end seen", "red")
    elif trace.ended_with:
        story.append(" → " if trace.asked else "")
        story.append(
            clean(("✗ " if trace.failed else "") + trace.ended_with),
            "red" if trace.failed else "yellow" if trace.ending in ("call", "limit") else "",
        )
    return story


def _failures(trace: TraceSummary) -> Text:
    """Return the errors of a trace, and the calls that say that they failed."""
    failures = Text(f"{trace.errors:,}", "red" if trace.errors else "")
    return failures.append(f" +{trace.said_failed:,} said", "yellow") if trace.said_failed else failures


def _scores(trace: TraceSummary) -> Text:
    """Return the first scores of a trace, without their comments; those of the trace as a whole come first."""
    some = [f"{clean(score.name)}: {score.shown or 'note'}" for score in trace.scores[:_SCORES]]
    more = len(trace.scores) - _SCORES
    return _cell(", ".join([*some, *([f"{more} more"] if more > 0 else [])]))


def _tokens(tokens: Tokens) -> str:
    if not tokens.total:
        return ""
    share = f" ({tokens.cached_share})" if tokens.cache_read else ""
    return f"{tokens.total:,}{share}" if tokens.total < 10_000 else f"{tokens.total / 1000:,.0f}k{share}"
