"""The patterns of the failures of many traces, as ``whyops-trace stats --failures`` prints them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import clean, counted
from whyops_trace.commands.common import console, tracked
from whyops_trace.patterns import Pattern, PatternKind, gather_patterns
from whyops_trace.store import Filter, Store

#: Patterns that are printed at most.
_SHOWN: Final = 20
#: Kinds in words.
_WORDS: Final[dict[PatternKind, str]] = {
    "raised": "raised",
    "said": "said that it failed",
    "model": "failed",
    "finding": "finding",
}
_BARS: Final = "▁▂▃▄▅▆▇█"


def print_patterns(store: Store, where: Filter, *, as_json: bool) -> None:
    """Print the patterns of the failures of some traces; exit with 1 if there is no such trace."""
    traces = list(store.each(where))
    patterns = gather_patterns(
        tracked(traces, "reading traces", len(traces)), store.events, store.ended_processes().__contains__
    )
    if as_json:
        click.echo(json.dumps({"traces": len(traces), "patterns": msgspec.to_builtins(patterns)}, indent=1))
    elif patterns:
        _print(patterns, len(traces))
    else:
        click.echo(
            f"Nothing failed in {counted(len(traces), 'trace')}." if traces else "There are no such traces."
        )
    if not traces:
        raise SystemExit(1)


def _print(patterns: Sequence[Pattern], traces: int) -> None:
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("traces", "failures", "recovered"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("trend", no_wrap=True)
    table.add_column("pattern", ratio=1)
    table.add_column("latest", no_wrap=True)
    for one in patterns[:_SHOWN]:
        words = (
            Text(one.place, "bold").append(f" {_WORDS[one.kind]}: ", "default").append(one.words, "default")
        )
        example = f"{clean(one.example)} #{one.step}" if one.step else clean(one.example)
        table.add_row(
            f"{one.traces:,}",
            f"{one.failures:,}",
            f"{one.recovered:,}",
            _trend(one),
            words,
            Text(example, "dim"),
        )
    out.print(table)
    if len(patterns) > _SHOWN:
        out.print(Text(f"and {len(patterns) - _SHOWN:,} more; --json lists them", "dim"))
    out.print(
        Text(f"Patterns in {counted(traces, 'trace')}. What fails alike may have several reasons.", "dim")
    )


def _trend(one: Pattern) -> str:
    """Return the numbers of traces in each slice of time as bars, or as numbers where these cannot be printed."""
    most = max(one.trend)
    try:
        _BARS.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return " ".join(map(str, one.trend))
    return "".join(_BARS[round(count * (len(_BARS) - 1) / most)] if count else " " for count in one.trend)
