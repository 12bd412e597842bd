"""
The command line: ``whyops-trace ls`` and ``whyops-trace show``, and all that joins them.

A command that is at home in another module joins with ``main.add_command(command)``; what commands have in common
is in :mod:`whyops_trace._command`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._check import check
from whyops_trace._command import Commands, Duration, Moment, console, home_option, stored_traces, when
from whyops_trace._doctor import doctor
from whyops_trace._excerpt import Tokens, clean, dollars, duration, elapsed
from whyops_trace._export_command import export
from whyops_trace._follow import cut, follow_events, follow_tree
from whyops_trace._journal_commands import journal
from whyops_trace._prices import cost_of, is_billed
from whyops_trace._remove import rm
from whyops_trace._serve import serve, view
from whyops_trace._stats_command import stats
from whyops_trace._verify import verify
from whyops_trace._version import __version__
from whyops_trace.demo import demo
from whyops_trace.store import Filter, Store, TraceSummary
from whyops_trace.tree import build, write_tree

F = TypeVar("F", bound=Callable[..., Any])

#: Columns from which on there is room for the name of the agent.
_WIDE: Final = 100

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


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: whyops-trace show latest",
)
@click.version_option(__version__, prog_name="whyops-trace")
def main() -> None:
    """Why did my agent do that? Looks at the traces recorded on this machine."""


main.add_command(check)
main.add_command(demo)
main.add_command(doctor)
main.add_command(export)
main.add_command(journal)
main.add_command(rm)
main.add_command(stats)
main.add_command(serve)
main.add_command(verify)
main.add_command(view)


def _filters(command: F) -> F:
    """Add the options that choose traces, each called as the member of a :class:`Filter`."""
    options = (
        click.option("--agent", metavar="NAME", help="Only traces of this agent."),
        click.option("--user", metavar="ID", help="Only traces for this user."),
        click.option("--tag", metavar="TAG", help="Only traces with this tag."),
        click.option("--failed", is_flag=True, help="Only traces that ended with an error."),
        click.option("--running", is_flag=True, help="Only traces that go on."),
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


@main.command("ls", epilog="Example: whyops-trace ls --failed --since 2d")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many traces.")
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, a trace a line.")
@home_option
def list_traces(limit: int, as_json: bool, home: Path, **wanted: Any) -> None:
    """
    List the traces, the one recorded on last first.

    What they cost is shown where the price data is installed:
    pip install 'whyops-trace[prices]'
    """
    where = Filter(**{name: value for name, value in wanted.items() if value not in (None, False)})
    with stored_traces(home) as store:
        traces = store.traces(limit, where=where)
        fitting = store.counts(where).total if len(traces) == limit else len(traces)
        empty = not traces and not store.traces(1)
    if as_json:
        click.echo(_json_lines(map(msgspec.to_builtins, traces)))
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


@main.command("show", epilog="Example: whyops-trace show checkout-8841")
@click.argument("trace")
@click.option(
    "--step", type=click.IntRange(0), metavar="N", help="Print the event of this number whole, as JSON."
)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Show so many levels of the tree.")
@click.option("--follow", is_flag=True, help="Show the trace as it grows, until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the events as a JSON array, an event a line.")
@home_option
def show_trace(
    trace: str, step: int | None, depth: int | None, follow: bool, as_json: bool, home: Path
) -> None:
    """
    Show a trace as a tree: TRACE is its id, the beginning of its id, or "latest".

    With --follow and --json each event is printed as a line when it comes.
    """
    if step is not None and (follow or depth):
        raise click.UsageError("--step shows one event: it goes neither with --follow nor with --depth.")
    with stored_traces(home) as store:
        trace_id = store.resolve(trace)
        if step is not None:
            _show_step(store, trace_id, step, as_json)
            return
        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # stops looking, not the trace
                _follow(home, store, trace_id, depth, as_json)
            if as_json:
                return
        events = store.events(trace_id)
        ended = store.ended_in(trace_id)
    if as_json:
        click.echo(_json_lines(map(_with_cost, events)))
        return
    tree = build(events, ended, priced=True)
    hidden = cut(tree, depth)
    write_tree(tree, sys.stdout)
    if hidden:
        click.echo(f"{hidden:,} calls and events are deeper than --depth {depth}.", err=True)


def _follow(home: Path, store: Store, trace_id: str, depth: int | None, as_json: bool) -> None:
    if not as_json:
        follow_tree(home, store, trace_id, depth)
        return
    for event in follow_events(home, store, trace_id):
        click.echo(json.dumps(_with_cost(event)))


def _show_step(store: Store, trace_id: str, step: int, as_json: bool) -> None:
    events = store.event(trace_id, step)
    if not events:
        raise click.ClickException(f"There is no step {step} in {trace_id!r}.")
    if as_json:
        click.echo(_json_lines(map(_with_cost, events)))
        return
    for event in events:
        pretty = json.dumps(_with_cost(event), indent=2, ensure_ascii=False)
        click.echo("\n".join(map(clean, pretty.split("\n"))))


def _json_lines(items: Iterable[Mapping[str, Any]]) -> str:
    # In ASCII, so that no text in it does anything to a terminal.
    return "[" + ",\n".join(map(json.dumps, items)) + "]"


def _with_cost(event: dict[str, Any]) -> dict[str, Any]:
    """Return a record; that of a turn of a model with what it cost, in US dollars, if that is known."""
    metadata = event.get("metadata", {})
    if is_billed(event["eventType"], metadata.get("wraps")):
        amount = cost_of(metadata, event.get("timestamp"))
        return event if amount is None else {**event, "cost": float(amount)}
    return event


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
    for trace in traces:
        table.add_row(
            when(trace.last_at),
            _cell(trace.trace_id),
            *([_cell(trace.agent_name)] if width >= _WIDE else []),
            _story(trace),
            f"{trace.tool_calls:,}",
            f"{trace.llm_responses:,}",
            Text(f"{trace.errors:,}", "red" if trace.errors else ""),
            _tokens(trace.tokens),
            *(["" if trace.cost is None else dollars(trace.cost)] if priced else []),
            duration(elapsed(trace.started_at, trace.last_at) or 0.0),
        )
    return table


def _cell(text: str, style: str = "") -> Text:
    return Text(clean(text), style, no_wrap=True, overflow="ellipsis")


def _story(trace: TraceSummary) -> Text:
    """Return what was asked, and how it ended or that it has not."""
    story = _cell(trace.asked)
    if trace.running:
        story.append(" → running" if trace.asked else "running", "cyan")
    elif trace.ended_with:
        story.append(" → " if trace.asked else "")
        story.append(clean(("✗ " if trace.failed else "") + trace.ended_with), "red" if trace.failed else "")
    return story


def _tokens(tokens: Tokens) -> str:
    if not tokens.total:
        return ""
    share = f" ({tokens.cached_share})" if tokens.cache_read else ""
    return f"{tokens.total:,}{share}" if tokens.total < 10_000 else f"{tokens.total / 1000:,.0f}k{share}"
