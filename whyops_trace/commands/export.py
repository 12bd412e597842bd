"""``whyops-trace export``: a trace as a file to send, to open offline, or to paste into a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import click

from whyops_trace._extras import install_hint
from whyops_trace._reading.excerpt import clean
from whyops_trace._replay.loading import of_store
from whyops_trace.commands.common import file_size, home_option
from whyops_trace.commands.elsewhere import Lens, lens_options, named_traces
from whyops_trace.commands.recordings import save_recording
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.export import MAX_TOKENS, export_markdown, file_name, json_pieces
from whyops_trace.store import Store

_FORMATS: Final = ("html", "json", "markdown")
_BY_ENDING: Final = {
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
}


@click.command("export", epilog="Example: whyops-trace export latest -o trace.html")
@click.argument("trace")
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="Format of the file; by the ending of FILE if left out, else markdown.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    metavar="FILE",
    help="File to write, - for standard output; TRACE.html for html if left out, else standard output.",
)
@click.option(
    "--max-tokens",
    default=MAX_TOKENS,
    show_default=True,
    type=click.IntRange(1_000),
    help="Largest length of Markdown, at four characters a token.",
)
@click.option(
    "--fixture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write the calls of the trace to, for replays of it in tests.",
)
@lens_options
@home_option
def export(
    trace: str,
    form: str | None,
    output: Path | None,
    max_tokens: int,
    fixture: Path | None,
    lens: Lens,
    home: Path,
) -> None:
    """
    Write a trace as a file: HTML that opens offline, JSON for programs, Markdown for a model, a recording for tests.

    TRACE is its id, the beginning of its id, or "latest"; or the address of a trace that another product stores.
    """
    if fixture is not None:
        if form or output:
            raise click.UsageError(
                "--fixture has a form of its own: it goes neither with --format nor with -o."
            )
        with named_traces(home, [trace], lens) as [(store, trace_id)]:
            save_recording(of_store(store, trace_id), fixture)
        return
    form = form or _format_of(output)
    with named_traces(home, [trace], lens) as [(store, trace_id)]:
        if output is None and form == "html":
            output = Path(file_name(trace_id, "html"))
        pieces = _pieces(store, trace_id, form, max_tokens)
        if output is None or str(output) == "-":
            is_terminal = sys.stdout.isatty()
            for piece in pieces:
                # In UTF-8, except to a terminal, which may use another encoding.
                click.echo(piece if is_terminal else piece.encode("utf-8", "replace"), nl=False)
            return
        first = next(pieces)  # before the file is touched
        size = 0
        with output.open("wb") as file:
            for piece in chain((first,), pieces):
                size += file.write(piece.encode("utf-8", "replace"))
    click.echo(f"Wrote {clean(str(output))} ({file_size(size)}).", err=True)


def _format_of(output: Path | None) -> str:
    """Return the format for the ending of a file, ``markdown`` without a file."""
    if output is None or str(output) == "-":
        return "markdown"
    form = _BY_ENDING.get(output.suffix.lower())
    if form is None:
        raise click.UsageError(
            f"The ending of {clean(output.name)!r} says no format; use .html, .json or .md, or give --format."
        )
    return form


def _pieces(store: Store, trace_id: str, form: str, max_tokens: int) -> Iterator[str]:
    if form == "json":
        yield from json_pieces(store, trace_id)
        return
    if form == "markdown":
        yield export_markdown(store, trace_id, max_tokens=max_tokens)
        return
    try:
        from whyops_trace.server.offline import offline_page
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("whyops_trace"):
            raise
        raise ConfigurationError(f"HTML needs more packages: {install_hint('ui')}") from error
    yield offline_page(store, trace_id)
