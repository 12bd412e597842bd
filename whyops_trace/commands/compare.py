"""``whyops-trace compare``: two sets of runs, with what they cost and do, and whether a threshold is broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from whyops_trace._reading.excerpt import clean, counted, percent
from whyops_trace.commands.common import Moment, ParamType, console, home_option, stored_traces
from whyops_trace.commands.run_figures import select
from whyops_trace.commands.set_comparison import Figure, SetComparison, Threshold, compare_sets

_WORDS: Final = {
    "cost": "cost", "tokens": "tokens", "cached": "cached", "turns": "turns", "tools": "tool calls",
    "failures": "failures", "findings": "findings", "seconds": "time", "failed": "runs failed",
}  # fmt: skip
_HEADERS: Final = ("per run", "A mean", "A median", "B mean", "B median", "difference", "95 %", "")
#: Places of those for which a narrow terminal has room: all but the medians.
_NARROW: Final = (0, 1, 3, 5, 6, 7)
#: Words for a threshold, which names what must not be.
_JUDGED: Final = {"passed": "no", "open": "not decided by these runs", "failed": "yes, so this fails"}


class _Test(ParamType):
    """A threshold, such as ``cost > +10%``."""

    name = "test"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Threshold:
        """Return the threshold."""
        try:
            return Threshold.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("compare", epilog="Example: whyops-trace compare tag:main tag:change --fail-if 'cost > +10%'")
@click.argument("runs_a")
@click.argument("runs_b")
@click.option(
    "--fail-if",
    "tests",
    type=_Test(),
    multiple=True,
    metavar="TEST",
    help="Exit with 1 if that is so with confidence: 'cost > +10%'; may be given several times.",
)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Only stored traces recorded on since: 2d or a date."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a comment on a pull request.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def compare(
    runs_a: str,
    runs_b: str,
    tests: Sequence[Threshold],
    since: str | None,
    markdown: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Compare two sets of runs: what they cost, how many tokens, turns and calls they take, and how they fail.

    RUNS_A and RUNS_B each are a folder of recordings or JSON exports, or a file; tag:NAME, agent:NAME, user:ID or
    KEY:VALUE of the metadata, as in replayOf:refund-8841; the beginning of ids with a *; or one trace.
    """
    if markdown and as_json:
        raise click.UsageError("Give --markdown or --json, not both.")
    with stored_traces(home) as store:
        comparison = compare_sets(select(store, runs_a, since), select(store, runs_b, since))
    judged = [(test, test.judge(comparison)) for test in tests]
    if as_json:
        click.echo(json.dumps(_told(comparison, judged), indent=1))
    elif markdown:
        for line in _markdown(comparison, judged, (runs_a, runs_b)):
            click.echo(line)
    else:
        _print(comparison, judged, (runs_a, runs_b))
    if any(verdict == "failed" for _, verdict in judged):
        raise SystemExit(1)


def _rows(comparison: SetComparison) -> Iterator[tuple[str, ...]]:
    for figure in comparison.figures:
        means, medians = map(figure.shown, figure.means), map(figure.shown, figure.medians)
        (mean, other_mean), (middle, other_middle) = means, medians
        yield (
            _WORDS[figure.name], mean, middle, other_mean, other_middle, _difference(figure), _interval(figure),
            figure.verdict,
        )  # fmt: skip


def _difference(figure: Figure) -> str:
    difference = figure.shown(figure.difference, signed=True)
    if not figure.is_relative or not figure.difference:
        return difference
    return f"{difference} ({_change(figure.difference / figure.means[0])})"


def _interval(figure: Figure) -> str:
    if figure.told is None:
        return "too few runs"
    low, high = (
        _change(bound) if figure.is_relative else figure.shown(bound, signed=True) for bound in figure.told
    )
    return low if low == high else f"{low.removesuffix(' points')} to {high}"


def _change(share: float) -> str:
    sign = "+" if share > 0 else "-" if share else ""
    return sign + percent(abs(share), 1)


def _head(comparison: SetComparison, names: tuple[str, str]) -> Iterator[str]:
    """Yield lines that say what is compared."""
    for side, name, count in zip("AB", names, comparison.counts, strict=True):
        yield f"{side}  {name}: {counted(count, 'run')}"
    if comparison.pairs:
        yield f"Compared in {counted(comparison.pairs, 'pair')}."


def _foot(comparison: SetComparison, judged: Sequence[tuple[Threshold, str]]) -> Iterator[str]:
    """Yield lines that say what could not be compared, and what became of the thresholds."""
    if comparison.missing:
        yield f"Not known of every run: {', '.join(_WORDS[name] for name in comparison.missing)}."
    for test, verdict in judged:
        yield f"{test.text}: {_JUDGED[verdict]}"


def _print(
    comparison: SetComparison, judged: Sequence[tuple[Threshold, str]], names: tuple[str, str]
) -> None:
    out = console()
    for line in _head(comparison, names):
        out.print(Text(clean(line)))
    rows = [*_rows(comparison)]
    table = _table(rows, range(len(_HEADERS)))
    unbound = out.options.update(max_width=sys.maxsize)
    if out.measure(table, options=unbound).maximum > out.width:
        table = _table(rows, _NARROW)
    out.print(table)
    for line in _foot(comparison, judged):
        out.print(Text(clean(line)))


def _table(rows: Iterable[Sequence[str]], places: Sequence[int]) -> Table:
    table = Table(box=None, padding=(0, 2 if len(places) == len(_HEADERS) else 1, 0, 0), pad_edge=False)
    for place in places:
        table.add_column(
            _HEADERS[place],
            no_wrap=place == 0,
            overflow="fold",
            justify="right" if 0 < place < len(_HEADERS) - 1 else "left",
        )
    for row in rows:
        table.add_row(*(Text(row[place]) for place in places))
    return table


def _markdown(
    comparison: SetComparison, judged: Sequence[tuple[Threshold, str]], names: tuple[str, str]
) -> Iterator[str]:
    yield from (f"- {_escaped(line)}" for line in _head(comparison, names))
    yield ""
    yield f"| {' | '.join(_HEADERS)} |"
    yield f"|---|{'---:|' * (len(_HEADERS) - 2)}---|"
    for row in _rows(comparison):
        cells = [f"**{cell}**" if cell in ("more", "less") else cell for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from (f"- {_escaped(line)}" for line in _foot(comparison, judged))


def _escaped(line: str) -> str:
    """Return a line in which a name of the user's is no Markdown."""
    text = clean(line)
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text


def _told(comparison: SetComparison, judged: Sequence[tuple[Threshold, str]]) -> dict[str, Any]:
    return {
        "runs": [*comparison.counts],
        "pairs": comparison.pairs,
        "figures": [
            {**msgspec.to_builtins(figure), "verdict": figure.verdict} for figure in comparison.figures
        ],
        "missing": comparison.missing,
        "tests": [{"test": test.text, "verdict": verdict} for test, verdict in judged],
    }
