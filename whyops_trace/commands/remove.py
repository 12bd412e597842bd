"""``whyops-trace rm``: deletes traces from the local store, after a preview."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from whyops_trace._clock import wire_time
from whyops_trace._home import REJECTED_FILE, command_line
from whyops_trace._journal.survey import survey
from whyops_trace._reading.excerpt import counted
from whyops_trace._recording.numbers import read_head
from whyops_trace.commands.common import (
    Duration,
    Size,
    check_writable,
    file_size,
    home_option,
    stored_traces,
    tracked,
)
from whyops_trace.commands.erasing import erase_user, preview
from whyops_trace.exporters.whyops.dead_letters import read_letters
from whyops_trace.store import Filter, Store


class Remains(NamedTuple):
    """
    The records of deleted traces that remain elsewhere on this machine.

    Attributes:
        waiting: Number of records in the journals of ended processes, which a destination has not taken.
        in_use: Number of records in the journals of running processes.
        refused: Number of events that a server refused.
    """

    waiting: int = 0
    in_use: int = 0
    refused: int = 0


@click.command("rm", epilog="Example: whyops-trace rm --older-than 7d")
@click.argument("traces", metavar="[TRACE]...", nargs=-1)
@click.option(
    "--older-than", type=Duration(), metavar="AGE", help="Traces not recorded on for so long: 7d, 12h."
)
@click.option(
    "--over", type=Size(), metavar="SIZE", help="The oldest traces, until the others take that: 100MB."
)
@click.option(
    "--user",
    metavar="ID",
    help="All of one user, also in the journal and among refused events, byte for byte.",
)
@click.option("--all", "everything", is_flag=True, help="Every trace.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object; the question is on standard error."
)
@home_option
def rm(
    traces: Sequence[str],
    older_than: float | None,
    over: int | None,
    user: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    home: Path,
) -> None:
    """
    Delete traces from the local store, and free their room on the disk.

    TRACE is an id, the beginning of only one id, or "latest". Records in the journal stay, but for those of a --user,
    and so does what a WhyOps server has.
    """
    choices = [bool(traces), older_than is not None, over is not None, user is not None, everything]
    if choices.count(True) != 1:
        raise click.UsageError(
            "Name the traces to delete, or give one of --older-than, --over, --user and --all."
        )
    check_writable(home)
    if user is not None:
        erase_user(home, user, yes=yes, as_json=as_json)
        return
    with stored_traces(home) as store:
        selected = list(store.each(_where(store, traces, older_than, over)))
        if selected and not (yes and as_json):
            preview(selected, err=as_json)
        if selected and not yes:
            click.confirm("Delete this for good?", abort=True, err=as_json)
        before = store.used_bytes()
        deleted = _delete(store, [trace.trace_id for trace in selected], over)
        after = store.used_bytes()
    remains = _remains(home, set(deleted)) if deleted else Remains()
    if as_json:
        report = {
            "deleted": deleted,
            "bytesFreed": max(0, before - after),
            "bytes": after,
            "journal": {"waiting": remains.waiting, "inUse": remains.in_use},
            "refused": remains.refused,
        }
        click.echo(json.dumps(report, indent=1))
    elif not selected:
        click.echo("There is nothing to delete.")
    else:
        freed = file_size(max(0, before - after))
        click.echo(
            f"Deleted {counted(len(deleted), 'trace')}: {freed} less, the store takes {file_size(after)} now."
        )
        for line in _remaining_lines(home, remains):
            click.echo(line)


def _where(store: Store, traces: Iterable[str], older_than: float | None, over: int | None) -> Filter:
    """
    Return the filter for the traces to delete.

    Raises:
        TraceNotFoundError: if a named trace does not exist, or its name is ambiguous.
        StoreError: if the age of traces is not known for sure.
    """
    if older_than is not None:
        store.check_clock()
        try:
            return Filter(until=wire_time(datetime.now(UTC) - timedelta(seconds=older_than)))
        except OverflowError as error:
            raise click.BadParameter("no trace can be so old.", param_hint="--older-than") from error
    if over is not None:
        return Filter(ids=store.oldest_over(over))
    ids = [store.resolve(name) for name in traces]
    return Filter(ids=ids) if ids else Filter()


def _delete(store: Store, trace_ids: list[str], over: int | None) -> list[str]:
    """Delete traces and return their ids; with *over* also more, if the size of the others was underestimated."""
    from whyops_trace.server.inbox import forget_spans  # no other command should wait for them
    from whyops_trace.server.search import delete_index

    if trace_ids:
        delete_index(store.path.parent)  # first, as the disk may be full
    store.delete_all(tracked(trace_ids, "deleting", len(trace_ids)))
    while over is not None and (more := store.oldest_over(over)):
        store.delete_all(more)
        trace_ids = [*trace_ids, *more]
    if trace_ids:
        forget_spans(store.path.parent, trace_ids)
    return trace_ids


def _remains(home: Path, trace_ids: Collection[str]) -> Remains:
    """
    Count the records of traces elsewhere on this machine.

    Raises:
        OSError: if a journal cannot be read.
    """
    ours: dict[bytes, bool] = {}
    waiting = in_use = 0
    for stream in survey(home).streams:
        for segment in stream.segments:
            heads = filter(None, (read_head(line) for _, line in segment.records()))
            count = sum(ours.setdefault(head.trace, _id(head.trace) in trace_ids) for head in heads)
            if segment.in_use:
                in_use += count
            else:
                waiting += count
    refused = sum(letter.event.trace_id in trace_ids for letter in read_letters(home, _Letter))
    return Remains(waiting, in_use, refused)


def _id(encoded: bytes) -> str:
    """Return a trace id from its JSON in a record, "" if it is not text."""
    try:
        return msgspec.json.decode(encoded, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


class _Event(msgspec.Struct, rename="camel"):
    trace_id: str


class _Letter(msgspec.Struct):
    event: _Event


def _remaining_lines(home: Path, remains: Remains) -> Iterator[str]:
    """Yield lines about the remaining records, with the command that deletes them."""
    if remains.waiting:
        purge = command_line("journal", "purge", "--all", home=home)
        records = f"{counted(remains.waiting, 'record')} of deleted traces"
        yield f"The journal still has {records} for another destination; `{purge}` deletes what is in it."
    if remains.in_use:
        records = f"{counted(remains.in_use, 'record')} of deleted traces"
        yield f"The journal of a running process still has {records}, until that ends at the latest."
    if remains.refused:
        purge = command_line("journal", "purge", "--rejected", home=home)
        records = f"{counted(remains.refused, 'event')} of deleted traces"
        yield f"{REJECTED_FILE} still has {records} that a server refused; `{purge}` deletes it."
