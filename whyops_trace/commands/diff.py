"""``whyops-trace diff``: prints the first place where two traces differ, and what differs there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import counted, dollars, duration, headline
from whyops_trace.commands.common import console, home_option
from whyops_trace.commands.elsewhere import Lens, lens_options, named_traces
from whyops_trace.comparison import SHOWN, Comparison, Difference, compare
from whyops_trace.story import Change, Story

#: Names of the two traces, with their colours.
_SIDES: Final = {"A": "cyan", "B": "magenta"}
#: Largest numbers of members and of calls that are printed.
_LISTED: Final = 8
#: Characters of a value that are printed.
_VALUE: Final = 60


@click.command("diff", epilog="Example: whyops-trace diff order-8841 latest")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--ignore",
    multiple=True,
    metavar="REGEX",
    help="Texts that do not count, such as dates and ids; may be given several times.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the traces differ.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@lens_options
@home_option
def diff(
    first: str,
    second: str,
    ignore: Sequence[str],
    exit_code: bool,
    as_json: bool,
    lens: Lens,
    home: Path,
) -> None:
    """
    Compare two traces: how long they were the same, the first place where they differ, and what differs there.

    A and B are ids, the beginnings of ids, or "latest"; or addresses of traces that another product stores.
    Times, tokens, costs and the ids of calls do not count.
    """
    patterns = [_pattern(text) for text in ignore]
    with named_traces(home, (first, second), lens) as traces:
        names = [trace_id for _, trace_id in traces]
        events = [store.events(trace_id) for store, trace_id in traces]
        are_gone = [store.ended_in(trace_id) for store, trace_id in traces]
        comparison = compare(
            *events,
            ignore=patterns,
            ended=lambda process: all(is_gone(process) for is_gone in are_gone),
            priced=True,
        )
    if as_json:
        click.echo(json.dumps(_report(names, comparison), indent=1))
    else:
        _print(comparison)
    if exit_code and comparison.difference is not None:
        raise SystemExit(1)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(
            f"{text!r} is no regular expression: {error}.", param_hint="--ignore"
        ) from error


def _report(names: Sequence[str], comparison: Comparison) -> dict[str, Any]:
    return {
        "same": comparison.difference is None,
        "sameTurns": comparison.same_turns,
        "sameCalls": comparison.same_calls,
        "difference": None if comparison.difference is None else _difference(comparison.difference),
        "traces": [
            {
                "traceId": name,
                "status": story.status,
                "turns": story.turns,
                "toolCalls": story.tree.tool_calls,
                "failed": story.failed,
                "cost": story.tree.cost,
                "durationMs": story.tree.duration_ms,
                "onlyHere": only,
            }
            for name, story, only in zip(names, comparison.stories, comparison.only, strict=True)
        ],
    }


def _difference(one: Difference) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(one),
        "steps": [step or None for step in one.steps],
        "turn": one.turn or None,
    }


def _print(comparison: Comparison) -> None:
    out = console()
    out.print(_totals(comparison.stories))
    out.print()
    same = f"{counted(comparison.same_turns, 'turn')} and {counted(comparison.same_calls, 'tool call')}"
    difference = comparison.difference
    if difference is None:
        out.print(f"They are the same: {same}.")
        return
    if comparison.same_turns or comparison.same_calls:
        out.print(f"The same for {same}.")
    else:
        out.print("They differ from the beginning.")
    where = f"In turn {difference.turn}" if difference.turn else "There"
    out.print(Text(f"{where}, {difference.text}:", "bold"))
    for (name, colour), side, step in zip(_SIDES.items(), difference.sides, difference.steps, strict=True):
        place = Text(f"  #{step}", "dim") if step else Text()
        out.print(
            Padding(
                Text(f"{name}  ", colour).append(side, "default").append(place), (0, 0, 0, 2), expand=False
            )
        )
    for line in _changes(difference.changes):
        out.print(Padding(line, (0, 0, 0, 5), expand=False))
    for (name, colour), only in zip(_SIDES.items(), comparison.only, strict=True):
        if only:
            out.print(Text(f"Only {name} then calls ").append(_listed(only), colour))
    for (name, colour), story in zip(_SIDES.items(), comparison.stories, strict=True):
        if story.ended:
            out.print(Text(f"{name} ended: ", colour).append(headline(story.ended, SHOWN), "default"))


def _totals(stories: Sequence[Story]) -> Table:
    table = Table.grid(padding=(0, 2))
    for (name, colour), story in zip(_SIDES.items(), stories, strict=True):
        tree = story.tree
        table.add_row(
            Text(name, colour),
            Text(tree.trace_id, "bold"),
            Text(story.status),
            counted(story.turns, "turn"),
            counted(tree.tool_calls, "tool call"),
            "" if tree.cost is None else dollars(tree.cost),
            "" if tree.duration_ms is None else duration(tree.duration_ms),
        )
    return table


def _changes(changes: Sequence[Change]) -> Iterator[Text]:
    for change in changes[:_LISTED]:
        before, after = (
            "nothing" if side is None else headline(side, _VALUE) for side in (change.before, change.after)
        )
        path = headline(change.path, _VALUE)
        yield Text(f"{path}: " if path else "", "dim").append(f"{before} → {after}", "default")
    if len(changes) > _LISTED:
        yield Text(f"and {len(changes) - _LISTED:,} more; --json lists them", "dim")


def _listed(calls: Mapping[str, int]) -> str:
    named = [f"{call} {count} times" if count > 1 else call for call, count in [*calls.items()][:_LISTED]]
    more = f" and {len(calls) - _LISTED:,} more" if len(calls) > _LISTED else ""
    return ", ".join(named) + more
