"""``whyops-trace score``: gives a trace, or a step of it, a score or a note; shows and removes them."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from whyops_trace._reading.excerpt import clean
from whyops_trace._reading.score import typed_value
from whyops_trace.commands.common import (
    check_writable,
    echo_json_lines,
    home_option,
    score_line,
    stored_traces,
)
from whyops_trace.store import Store


def _refuse_options(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Return an argument, unless it is a misspelt option: unknown ones pass, for the sake of negative numbers."""
    if text is not None and text.startswith("--"):
        raise click.NoSuchOption(text, ctx=context)
    return text


@click.command(
    "score",
    epilog="Example: whyops-trace score latest correct 0.5 --comment 'Wrong city.'",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("trace")
@click.argument("name", required=False, callback=_refuse_options)
@click.argument("value", required=False, callback=_refuse_options)
@click.option("--step", type=click.IntRange(1), metavar="N", help="Judge the step of this number.")
@click.option("--comment", metavar="TEXT", help="A reason, or a note without a value.")
@click.option("--remove", is_flag=True, help="Remove the score of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as a JSON array, one a line.")
@home_option
def score(
    trace: str,
    name: str | None,
    value: str | None,
    step: int | None,
    comment: str | None,
    remove: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Score a trace: TRACE is its id, the beginning of its id, or "latest"; NAME is what is judged.

    VALUE is "up" or "down" for a thumb, a number, or any other word or two as a label. It takes the place of the score
    of that name. Without a NAME the scores of the trace are shown.
    """
    if remove and (name is None or value is not None or comment is not None):
        raise click.UsageError("--remove takes the NAME of the score, and neither a value nor a comment.")
    if name is None and (step or comment is not None):
        raise click.UsageError("Name what is judged: whyops-trace score TRACE NAME [VALUE].")
    if name is not None and not remove and value is None and comment is None:
        raise click.UsageError("Give a VALUE, or a note with --comment.")
    if name is not None:
        check_writable(home)
    with stored_traces(home) as store:
        trace_id = store.resolve(trace)
        if name is not None:
            _change(store, trace_id, name, value, comment, step or 0, remove)
        scores = store.scores(trace_id)
    if as_json:
        echo_json_lines(map(msgspec.to_builtins, scores))
        return
    for one in scores:
        click.echo(score_line(one))
    if not scores:
        click.echo(f"{clean(trace_id)} has no scores.")


def _change(
    store: Store,
    trace_id: str,
    name: str,
    value: str | None,
    comment: str | None,
    step: int,
    remove: bool,
) -> None:
    if not remove:
        if step and not store.event(trace_id, step):
            raise click.ClickException(f"There is no step {step} in {trace_id!r}.")
        store.score(trace_id, name, typed_value(value), comment=comment, step=step, source="command")
    elif not store.remove_score(trace_id, name, step):
        raise click.ClickException(f"There is no score {name!r} there.")
