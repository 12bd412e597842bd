"""``whyops-trace journal``: shows, delivers and deletes what waits in the journals of a home."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from whyops_trace._delivery.draining import Drained, Patience, drain, why_not
from whyops_trace._journal.header import Counts
from whyops_trace._journal.journal import segments_in
from whyops_trace._journal.survey import SERVER, Stream, Survey, Waiting, survey
from whyops_trace._reading.excerpt import clean, counted
from whyops_trace.commands.common import console, home_option, when
from whyops_trace.exporters.whyops.dead_letters import letter_counts
from whyops_trace.settings import Settings, at_hand


@click.group("journal", epilog="Example: whyops-trace journal status")
def journal() -> None:
    """Look at, deliver or delete what waits to be delivered."""


@journal.command("status", epilog="Example: whyops-trace journal status --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def status(as_json: bool, home: Path) -> None:
    """Show the streams of the journal, and how many records wait for each destination."""
    settings, seen, letters = at_hand(home), survey(home), letter_counts(home)
    if as_json:
        click.echo(json.dumps(_status(home, settings, seen, letters), indent=1))
        return
    if seen.streams:
        console().print(_table(settings, seen.streams))
    else:
        click.echo(f"Nothing waits in the journal of {home}.")
    for path in seen.bad:
        click.echo(f"{path} cannot be read and is set aside.")
    if letters:
        count = sum(letters.values())
        click.echo(f"{counted(count, 'event')} refused by a server: {', '.join(map(str, letters))}")


@journal.command("flush", epilog="Example: whyops-trace journal flush --timeout 300")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to try a server that takes nothing.",
)
@home_option
def flush(timeout: float, home: Path) -> None:
    """
    Deliver what processes left that have ended.

    To the local store, and to the WhyOps server whose key is in WHYOPS_API_KEY: only what was recorded with
    that key. Exits with 1 if records stay that could have been delivered.
    """
    settings, patience = at_hand(home), Patience(timeout)
    streams = [stream for stream in survey(home).streams if stream.left]
    total = sum(waiting.left for stream in streams for waiting in stream.waiting.values())
    outcomes: dict[str, list[Drained]] = {}
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("delivering", total=total)
        for stream in streams:
            outcomes[stream.name] = drain(
                home, settings, stream, patience, lambda count: progress.advance(task, count)
            )
    after = {stream.name: stream for stream in survey(home).streams}
    told = [
        line
        for stream in streams
        for line in _told(settings, stream, outcomes[stream.name], after.get(stream.name))
    ]
    for line, _ in told:
        click.echo(line)
    if not told:
        click.echo(f"Nothing waits in the journal of {home} that a process has left.")
    if not all(done for _, done in told):
        raise SystemExit(1)


@journal.command("purge", epilog="Example: whyops-trace journal purge 3f9a0c61d2b47e85")
@click.argument("streams", metavar="[STREAM]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every stream, and files that could not be read.")
@click.option("--rejected", is_flag=True, help="The file of events that a server refused.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def purge(streams: Sequence[str], everything: bool, rejected: bool, yes: bool, home: Path) -> None:
    """
    Delete what processes left that have ended: it is never delivered then.

    STREAM is the name of a stream as `journal status` shows it, or its beginning. What a running process
    uses is never deleted.
    """
    if not (streams or everything or rejected):
        raise click.UsageError(
            "Name the streams to delete, as `whyops-trace journal status` shows them, or give --all or --rejected."
        )
    seen = survey(home)
    chosen = seen.streams if everything else [_named(name, seen.streams) for name in dict.fromkeys(streams)]
    left = [stream for stream in chosen if stream.left]
    files = [*(seen.bad if everything else []), *(letter_counts(home) if rejected else [])]
    for stream in chosen:
        if len(stream.left) < len(stream.segments):
            click.echo(f"{stream.name} is in use by a running process; what that has recorded stays.")
    if not left and not files:
        click.echo("There is nothing to delete.")
        return
    for stream in left:
        click.echo(f"{_title(stream)}: {_loss(stream)}")
    for path in files:
        click.echo(f"{path}")
    if not yes:
        click.confirm("Delete this for good?", abort=True)
    for path in files:  # first: a segment that cannot be read is renamed by whoever takes over the others
        path.unlink(missing_ok=True)
    for stream in left:
        _delete(home, stream)
    click.echo("Deleted.")


def _title(stream: Stream) -> str:
    return f"{stream.name} ({clean(stream.header.agent)})"


# status


def _state(stream: Stream) -> str:
    """Return whose the segments are."""
    left = len(stream.left)
    if left == len(stream.segments):
        return "left behind"
    return f"in use, {left} left behind" if left else "in use"


def _fate(waiting: Waiting) -> str:
    """Return what waits, and what became of the others."""
    counts = waiting.counts
    told = {
        "delivered": counts.delivered,
        "sampled out": counts.sampled_out,
        "refused": counts.rejected,
        "dropped": counts.dropped,
    }
    return ", ".join(
        [f"{waiting.pending:,} pending", *(f"{count:,} {what}" for what, count in told.items() if count)]
    )


def _table(settings: Settings, streams: Iterable[Stream]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("stream", no_wrap=True, style="bold")
    table.add_column("agent")
    table.add_column("since", no_wrap=True, style="dim")
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("state")
    table.add_column("destinations")
    for stream in streams:
        lines = [f"{name}: {_fate(waiting)}" for name, waiting in stream.waiting.items()]
        if SERVER in stream.waiting and why_not(settings, stream.header):
            lines.append(f"{SERVER} waits for its key")
        table.add_row(
            clean(stream.name),
            Text(clean(stream.header.agent), no_wrap=True, overflow="ellipsis"),
            when(stream.header.created),
            f"{counted(len(stream.segments), 'file')}, {stream.size / 1024:,.0f} KiB",
            _state(stream),
            Text("\n".join(map(clean, lines))),
        )
    return table


def _status(home: Path, settings: Settings, seen: Survey, letters: Mapping[Path, int]) -> dict[str, Any]:
    return {
        "home": str(home),
        "streams": [
            {
                "stream": stream.name,
                "agent": stream.header.agent,
                "since": stream.header.created,
                "segments": len(stream.segments),
                "inUse": len(stream.segments) - len(stream.left),
                "bytes": stream.size,
                "waitsForKey": SERVER in stream.waiting and bool(why_not(settings, stream.header)),
                "destinations": {
                    name: {
                        "pending": waiting.pending,
                        "leftBehind": waiting.left,
                        **_public(waiting.counts),
                    }
                    for name, waiting in stream.waiting.items()
                },
            }
            for stream in seen.streams
        ],
        "setAside": list(map(str, seen.bad)),
        "rejected": {str(path): count for path, count in letters.items()},
    }


def _public(counts: Counts) -> dict[str, int]:
    return {
        "delivered": counts.delivered,
        "sampledOut": counts.sampled_out,
        "rejected": counts.rejected,
        "dropped": counts.dropped,
    }


# flush


def _told(
    settings: Settings, before: Stream, outcomes: Iterable[Drained], after: Stream | None
) -> Iterator[tuple[str, bool]]:
    """Yield a line for each destination, and whether nothing stays that could have been delivered."""
    drained = {outcome.destination: outcome for outcome in outcomes}
    closed = SERVER if why_not(settings, before.header) else ""
    for name in before.waiting:
        outcome = drained.get(name)
        counts = outcome.counts if outcome else Counts()
        left = after.waiting[name].left if after and name in after.waiting else 0
        words = [f"{counts.delivered:,} delivered"]
        if counts.sampled_out:
            words.append(f"{counts.sampled_out:,} sampled out by the server")
        if counts.rejected:
            words.append(f"{counts.rejected:,} refused")
        if left:
            why = outcome.problem if outcome else "only a program that has this exporter can deliver them"
            words.append(f"{left:,} stay: {why or 'a process has left them meanwhile; flush again'}")
        if left or any(counts):
            yield f"{_title(before)} to {name}: {', '.join(words)}", not left or not outcome or name == closed


# purge


def _named(name: str, streams: Sequence[Stream]) -> Stream:
    """
    Return the stream a user means.

    Raises:
        click.BadParameter: if there is none, or more than one.
    """
    found = [stream for stream in streams if stream.name == name] or [
        stream for stream in streams if stream.name.startswith(name)
    ]
    if len(found) != 1:
        many = "no stream begins" if not found else f"{len(found)} streams begin"
        raise click.BadParameter(f"{many} with {name!r}: `whyops-trace journal status` shows what there is.")
    return found[0]


def _loss(stream: Stream) -> str:
    """Return what nobody will get any more."""
    lost = [
        f"{counted(waiting.left, 'record')} not delivered to {name}"
        for name, waiting in stream.waiting.items()
        if waiting.left
    ]
    return ", ".join(lost) or "nothing that is not delivered"


def _delete(home: Path, stream: Stream) -> None:
    """Delete the segments that were seen; what another process has left meanwhile stays."""
    seen = {segment.path for segment in stream.left}
    for segment in segments_in(home, folder=stream.name):
        if segment.path in seen:
            segment.remove()
