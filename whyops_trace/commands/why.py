"""``whyops-trace why``: the first screen of a trace: how it ended, and what is worth a look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.padding import Padding
from rich.text import Text

from whyops_trace._reading.excerpt import clean
from whyops_trace.commands.common import console, home_option, score_line
from whyops_trace.commands.elsewhere import Lens, lens_options, named_traces
from whyops_trace.store import Score
from whyops_trace.story import Explanation, tell
from whyops_trace.story import why as explain


@click.command("why", epilog="Example: whyops-trace why latest")
@click.argument("trace")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@lens_options
@home_option
def why(trace: str, as_json: bool, lens: Lens, home: Path) -> None:
    """
    Tell how a trace ended, and what is worth a look.

    TRACE is its id, the beginning of its id, or "latest"; or the address of a trace that another product stores.

    At most five moments are told, the most telling first, each with the steps that "show --step" prints. None of them
    is a verdict: they follow from the records by fixed rules, and no model is asked.
    """
    with named_traces(home, [trace], lens) as [(store, trace_id)]:
        story = tell(store.events(trace_id), store.ended_in(trace_id))
        scores = store.scores(trace_id)
    explanation = explain(story)
    explanation.trace_id = trace_id
    if as_json:
        click.echo(
            json.dumps({**msgspec.to_builtins(explanation), "scores": msgspec.to_builtins(scores)}, indent=1)
        )
    else:
        _print(explanation, scores)


def _print(explanation: Explanation, scores: Sequence[Score]) -> None:
    out = console()
    out.print(Text(clean(explanation.trace_id), "bold").append(f": {explanation.status}", "default"))
    for name, text in (("asked", explanation.asked), ("ended", explanation.ended)):
        if text:
            out.print(Padding(Text(f"{name}: ", "dim").append(text, "default"), (0, 0, 0, 2), expand=False))
    for moment in explanation.moments:
        steps = ", ".join(map(str, moment.steps))
        out.print(Padding(Text(f"{moment.text}  ").append(f"#{steps}", "dim"), (0, 0, 0, 2), expand=False))
    if not explanation.moments:
        out.print(Text("Nothing in it stands out.", "dim"))
    for score in scores:
        line = Text("score: ", "dim").append(score_line(score), "default")
        out.print(Padding(line, (0, 0, 0, 2), expand=False))
