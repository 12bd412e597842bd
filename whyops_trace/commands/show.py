"""``whyops-trace show``: shows one trace as a tree, one of its events, or its growth."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from whyops_trace._lens.place import is_address
from whyops_trace._reading.excerpt import clean
from whyops_trace._reading.prices import cost_of, is_billed
from whyops_trace.commands.common import echo_json_lines, home_option, score_line
from whyops_trace.commands.elsewhere import Lens, lens_options, named_traces
from whyops_trace.commands.follow import cut, follow_events, follow_tree
from whyops_trace.store import Store, TraceSummary
from whyops_trace.story import moments, provenance, tell
from whyops_trace.tree import build, write_tree

#: Largest number of replays of a trace that are named.
_REPLAYS: Final = 5


@click.command("show", epilog="Example: whyops-trace show checkout-8841")
@click.argument("trace")
@click.option(
    "--step", type=click.IntRange(0), metavar="N", help="Print the event of this number whole, as JSON."
)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Show so many levels of the tree.")
@click.option("--origins", is_flag=True, help="Print where the arguments of each tool call came from.")
@click.option("--follow", is_flag=True, help="Show the trace as it grows, until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the events as a JSON array, an event a line.")
@lens_options
@home_option
def show(
    trace: str,
    step: int | None,
    depth: int | None,
    origins: bool,
    follow: bool,
    as_json: bool,
    lens: Lens,
    home: Path,
) -> None:
    """
    Show a trace as a tree, and below it what "why" tells.

    TRACE is its id, the beginning of its id, or "latest"; or the address of a trace that another product stores.

    With --follow and --json each event is printed as a line when it comes.
    """
    if step is not None and (follow or depth):
        raise click.UsageError("--step shows one event: it goes neither with --follow nor with --depth.")
    if follow and is_address(trace):
        raise click.UsageError(
            "--follow shows how a trace of this machine grows; fetch the address again instead."
        )
    with named_traces(home, [trace], lens) as [(store, trace_id)]:
        if step is not None:
            _show_step(store, trace_id, step, as_json)
            return
        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # ends the display, not the trace
                _follow(home, store, trace_id, depth, as_json)
            if as_json:
                return
        events = store.events(trace_id)
        summary = store.trace(trace_id)
        replays = store.replays(trace_id)
        is_gone = store.ended_in(trace_id)
        scores = store.scores(trace_id)
    if as_json:
        echo_json_lines(map(_with_cost, events))
        return
    tree = build(events, is_gone, priced=True)
    hidden = cut(tree, depth)
    write_tree(tree, sys.stdout)
    story = tell(events, is_gone)
    for call, found in provenance(story).items() if origins else ():
        for origin in found:
            click.echo(f"origin: #{call} {origin.text}")
    for moment in moments(story.whys):
        click.echo(f"why: {moment.text}  #{', '.join(map(str, moment.steps))}")
    for score in scores:
        click.echo(f"score: {score_line(score)}")
    for line in _around(summary, replays):
        click.echo(line)
    if hidden:
        click.echo(f"{hidden:,} calls and events are deeper than --depth {depth}.", err=True)


def _around(summary: TraceSummary, replays: Sequence[str]) -> Iterator[str]:
    """Yield lines about what is not in the trace: the one that it replays, its replays, its lost beginning."""
    if isinstance(source := summary.metadata.get("replayOf"), str):
        yield clean(f"replay of: {source}")
    if replays:
        more = " and more" if len(replays) > _REPLAYS else ""
        yield clean(f"replays: {', '.join(replays[:_REPLAYS])}{more}")
    if summary.beginning:
        yield summary.beginning


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
        echo_json_lines(map(_with_cost, events))
        return
    for event in events:
        pretty = json.dumps(_with_cost(event), indent=2, ensure_ascii=False)
        click.echo("\n".join(map(clean, pretty.split("\n"))))


def _with_cost(event: dict[str, Any]) -> dict[str, Any]:
    """Return a record. The record of a model turn gets its cost in US dollars, if known."""
    metadata = event.get("metadata", {})
    if is_billed(event["eventType"], metadata.get("wraps")):
        amount = cost_of(metadata, event.get("timestamp"))
        return event if amount is None else {**event, "cost": float(amount)}
    return event
