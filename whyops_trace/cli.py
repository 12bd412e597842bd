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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._command import Commands, console, home_option, when
from whyops_trace._excerpt import Tokens, clean, dollars, duration, elapsed
from whyops_trace._home import STORE_FILE
from whyops_trace._journal_commands import journal
from whyops_trace._prices import cost_of, is_billed
from whyops_trace._verify import verify
from whyops_trace._version import __version__
from whyops_trace.demo import demo
from whyops_trace.exporters.local import take_in
from whyops_trace.store import Store, TraceSummary
from whyops_trace.tree import build, write_tree

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


main.add_command(demo)
main.add_command(journal)
main.add_command(verify)


@main.command("ls", epilog="Example: whyops-trace ls --limit 5")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many traces.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, a trace a line.")
@home_option
def list_traces(limit: int, as_json: bool, home: Path) -> None:
    """
    List the traces, the one recorded on last first.

    What they cost is shown where the price data is installed:
    pip install 'whyops-trace[prices]'
    """
    with _store(home) as store:
        traces = store.traces(limit)
    if as_json:
        click.echo(_json_lines(map(msgspec.to_builtins, traces)))
    elif traces:
        out = console()
        out.print(_table(traces, out.width))
    else:
        click.echo(_HOW_TO_RECORD.format(home=home), nl=False)
        if os.environ.get("WHYOPS_API_KEY"):
            click.echo(_ELSEWHERE, nl=False)
    if not traces:
        raise SystemExit(1)


@main.command("show", epilog="Example: whyops-trace show checkout-8841")
@click.argument("trace")
@click.option("--json", "as_json", is_flag=True, help="Print the events as a JSON array, an event a line.")
@home_option
def show_trace(trace: str, as_json: bool, home: Path) -> None:
    """Show a trace as a tree: TRACE is its id, the beginning of its id, or "latest"."""
    with _store(home) as store:
        events = store.events(store.resolve(trace))
        ended = store.ended_processes()
    if as_json:
        click.echo(_json_lines(map(_with_cost, events)))
    else:
        write_tree(build(events, ended.__contains__, priced=True), sys.stdout)


@contextlib.contextmanager
def _store(home: Path) -> Iterator[Store]:
    """Lend the store of a home, with what dead processes left."""
    take_in(home)
    with contextlib.closing(Store(home / STORE_FILE)) as store:
        yield store


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
