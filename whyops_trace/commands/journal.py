"""``whyops-trace journal``: shows, delivers and deletes the waiting records in the journals of a home."""

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
from whyops_trace.commands.common import check_writable, console, home_option, when
from whyops_trace.exporters.whyops.dead_letters import letter_counts
from whyops_trace.settings import Settings, at_hand


@click.group("journal", epilog="Example: whyops-trace journal status")
def journal() -> None:
    """Show, deliver or delete the records that wait for delivery."""


@journal.command("status", epilog="Example: whyops-trace journal status --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def status(as_json: bool, home: Path) -> None:
    """Show the streams of the journal, and the number of records that wait for each destination."""
    settings, state, letters = at_hand(home), survey(home), letter_counts(home)
    if as_json:
        click.echo(json.dumps(_status(home, settings, state, letters), indent=1))
        return
    if state.streams:
        console().print(_table(settings, state.streams))
    else:
        click.echo(f"Nothing waits in the journal of {home}.")
    for path in state.bad:
        click.echo(f"{path} is damaged or of another version, and is set aside.")
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
    help="Time to try a server that takes nothing.",
)
@home_option
def flush(timeout: float, home: Path) -> None:
    """
    Deliver the records that ended processes left.

    They go to the local store, and to the WhyOps server of WHYOPS_API_KEY if they were recorded with that key.
    Exits with 1 if records stay that could have been delivered.
    """
    settings, patience = at_hand(home), Patience(timeout)
    streams = [stream for stream in survey(home).streams if stream.left]
    total = sum(backlog.left for stream in streams for backlog in stream.waiting.values())
    outcomes: dict[str, list[Drained]] = {}
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("delivering", total=total)
        for stream in streams:
            outcomes[stream.name] = drain(
                home, settings, stream, patience, lambda count: progress.advance(task, count)
            )
    after = {stream.name: stream for stream in survey(home).streams}
    lines = [
        line
        for stream in streams
        for line in _results(settings, stream, outcomes[stream.name], after.get(stream.name))
    ]
    for line, _ in lines:
        click.echo(line)
    if not lines:
        click.echo(f"Nothing waits in the journal of {home} that a process has left.")
    if not all(is_done for _, is_done in lines):
        raise SystemExit(1)


@journal.command("purge", epilog="Example: whyops-trace journal purge 3f9a0c61d2b47e85")
@click.argument("streams", metavar="[STREAM]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every stream, and files that could not be read.")
@click.option("--rejected", is_flag=True, help="The file of events that a server refused.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def purge(streams: Sequence[str], everything: bool, rejected: bool, yes: bool, home: Path) -> None:
    """
    Delete the records that ended processes left. They are never delivered then.

    STREAM is the name of a stream as `journal status` shows it, or its beginning. The records of a running process
    are never deleted.
    """
    if not (streams or everything or rejected):
        raise click.UsageError(
            "Name the streams to delete, as `whyops-trace journal status` shows them, or give --all or --rejected."
        )
    check_writable(home)
    state = survey(home)
    selected = (
        state.streams
        if everything
        else [_stream_named(name, state.streams) for name in dict.fromkeys(streams)]
    )
    leftovers = [stream for stream in selected if stream.left]
    files = [*(state.bad if everything else []), *(letter_counts(home) if rejected else [])]
    for stream in selected:
        if len(stream.left) < len(stream.segments):
            click.echo(f"{stream.name} is in use by a running process; what that has recorded stays.")
    if not leftovers and not files:
        click.echo("There is nothing to delete.")
        return
    for stream in leftovers:
        click.echo(f"{_title(stream)}: {_loss(stream)}")
    for path in files:
        click.echo(f"{path}")
    if not yes:
        click.confirm("Delete this for good?", abort=True)
    for path in files:  # first: a process that adopts the other segments renames one that cannot be read
        path.unlink(missing_ok=True)
    for stream in leftovers:
        _delete(home, stream)
    click.echo("Deleted.")


def _title(stream: Stream) -> str:
    return f"{stream.name} ({clean(stream.header.agent)})"


# status


def _state(stream: Stream) -> str:
    """Return the use of the segments, in words."""
    count = len(stream.left)
    if count == len(stream.segments):
        return "left behind"
    return f"in use, {count} left behind" if count else "in use"


def _fate(backlog: Waiting) -> str:
    """Return the numbers of pending records and of the others, in words."""
    counts = backlog.counts
    others = {
        "delivered": counts.delivered,
        "sampled out": counts.sampled_out,
        "refused": counts.rejected,
        "dropped": counts.dropped,
    }
    return ", ".join(
        [
            f"{backlog.pending:,} pending",
            *(f"{count:,} {outcome}" for outcome, count in others.items() if count),
        ]
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
        lines = [f"{name}: {_fate(backlog)}" for name, backlog in stream.waiting.items()]
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


def _status(home: Path, settings: Settings, state: Survey, letters: Mapping[Path, int]) -> dict[str, Any]:
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
                        "pending": backlog.pending,
                        "leftBehind": backlog.left,
                        **_public(backlog.counts),
                    }
                    for name, backlog in stream.waiting.items()
                },
            }
            for stream in state.streams
        ],
        "setAside": list(map(str, state.bad)),
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


def _results(
    settings: Settings, before: Stream, outcomes: Iterable[Drained], after: Stream | None
) -> Iterator[tuple[str, bool]]:
    """Yield a line for each destination, and True if no record stays that could have been delivered."""
    drained = {outcome.destination: outcome for outcome in outcomes}
    closed = SERVER if why_not(settings, before.header) else ""
    for name in before.waiting:
        outcome = drained.get(name)
        counts = outcome.counts if outcome else Counts()
        remaining = after.waiting[name].left if after and name in after.waiting else 0
        words = [f"{counts.delivered:,} delivered"]
        if counts.sampled_out:
            words.append(f"{counts.sampled_out:,} sampled out by the server")
        if counts.rejected:
            words.append(f"{counts.rejected:,} refused")
        if remaining:
            reason = outcome.problem if outcome else "only a program that has this exporter can deliver them"
            words.append(f"{remaining:,} stay: {reason or 'a process has left them meanwhile; flush again'}")
        if remaining or any(counts):
            yield (
                f"{_title(before)} to {name}: {', '.join(words)}",
                not remaining or not outcome or name == closed,
            )


# purge


def _stream_named(name: str, streams: Sequence[Stream]) -> Stream:
    """
    Return the stream of a name, or of its beginning.

    Raises:
        click.BadParameter: if there is none, or more than one.
    """
    matches = [stream for stream in streams if stream.name == name] or [
        stream for stream in streams if stream.name.startswith(name)
    ]
    if len(matches) != 1:
        many = "no stream begins" if not matches else f"{len(matches)} streams begin"
        raise click.BadParameter(f"{many} with {name!r}: `whyops-trace journal status` shows what there is.")
    return matches[0]


def _loss(stream: Stream) -> str:
    """Return the records that will never be delivered, in words."""
    losses = [
        f"{counted(backlog.left, 'record')} not delivered to {name}"
        for name, backlog in stream.waiting.items()
        if backlog.left
    ]
    return ", ".join(losses) or "nothing that is not delivered"


def _delete(home: Path, stream: Stream) -> None:
    """Delete the segments of a survey. Those that another process left meanwhile stay."""
    paths = {segment.path for segment in stream.left}
    for segment in segments_in(home, folder=stream.name):
        if segment.path in paths:
            segment.remove()
