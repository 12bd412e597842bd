"""``whyops-trace rm --user``: erases all of one user's data on this machine, and says what is left elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from whyops_trace._delivery.room import erase_waiting, waiting_lines
from whyops_trace._home import STORE_FILE
from whyops_trace._journal.erasure import Erased, Owned, erase_from_segments, segment_lines
from whyops_trace._reading.excerpt import clean, counted, excerpt, get
from whyops_trace.commands.common import file_size, stored_traces, tracked, when
from whyops_trace.exporters.whyops.dead_letters import erase_letters, letter_events
from whyops_trace.settings import Settings, at_hand
from whyops_trace.store import Filter, TraceSummary

#: Largest number of traces that are named before the question.
_LISTED: Final = 10
#: Seconds to wait for each part of a server's answer.
_TIMEOUT: Final = 5.0


class _AtServer(NamedTuple):
    """
    What a WhyOps server has of a user.

    Attributes:
        url: Its address, "" if there is no key.
        traces: Number of traces that it has, None if it did not say.
    """

    url: str = ""
    traces: int | None = None


def preview(selected: Sequence[TraceSummary], *, err: bool) -> None:
    """Print the traces that will be lost."""
    for trace in islice(selected, _LISTED):
        words = (when(trace.last_at), trace.trace_id, trace.agent_name, excerpt(trace.asked, 60))
        click.echo("  ".join(clean(word) for word in words if word), err=err)
    if len(selected) > _LISTED:
        click.echo(f"and {len(selected) - _LISTED:,} more", err=err)
    events = sum(trace.event_count for trace in selected)
    click.echo(f"{counted(len(selected), 'trace')} with {counted(events, 'event')}.", err=err)
    running = sum(trace.running for trace in selected)
    if running:
        click.echo(f"{counted(running, 'trace')} may go on: what is recorded later begins anew.", err=err)


def erase_user(home: Path, user: str, *, yes: bool, as_json: bool) -> None:
    """
    Erase what this machine has of a user, after a preview and a question.

    Args:
        home: The home.
        user: The user that agents acted for.
        yes: True not to ask.
        as_json: True to print a JSON object.

    Raises:
        StoreError: if the store cannot be read or written.
        OSError: if a file cannot be.
    """
    owned = Owned(user)
    with stored_traces(home) as store:
        for line in tracked(store.record_lines(), "looking for the user", store.record_count()):
            owned.find(line)
        owned.trace_ids.update(trace.trace_id for trace in store.each(Filter(user=user)))
        for line in segment_lines(home):
            owned.find(line)
        for line in letter_events(home):
            owned.find(line)
        for line in waiting_lines(home):
            owned.find(line)
        selected = list(store.each(Filter(ids=sorted(owned.trace_ids))))
        if not (yes and as_json):
            preview(selected, err=as_json)
            click.echo(
                "Their records in the journal and among refused events are erased as well.", err=as_json
            )
        if not yes:
            click.confirm("Erase this for good?", abort=True, err=as_json)
        before = store.used_bytes()
        journal = erase_from_segments(home, owned)
        refused = erase_letters(home, owned)
        waiting = erase_waiting(home, sorted(owned.trace_ids))
        deleted = [trace.trace_id for trace in selected]
        store.erase(sorted(owned.trace_ids))
        after = store.used_bytes()
    from whyops_trace.server.inbox import forget_spans  # no other command should wait for them
    from whyops_trace.server.search import delete_index

    delete_index(home)
    forget_spans(home, deleted)
    aside = sorted(home.glob(f"{STORE_FILE}*.bad*"))
    at_server = _ask(at_hand(home), user)
    if as_json:
        report = {
            "deleted": deleted,
            "bytesFreed": max(0, before - after),
            "bytes": after,
            "journal": {"erased": journal.records, "inUse": journal.in_use},
            "waiting": {"erased": waiting},
            "refused": {"erased": refused.records, "inUse": refused.in_use},
            "setAside": list(map(str, aside)),
            "server": at_server._asdict(),
        }
        click.echo(json.dumps(report, indent=1))
        return
    others = counted(journal.records + waiting + refused.records, "other record")
    click.echo(
        f"Erased {counted(len(deleted), 'trace')} and {others}; the store takes {file_size(after)} now."
    )
    for sentence in _left(journal.plus(refused), aside, at_server):
        click.echo(sentence)


def _ask(settings: Settings, user: str) -> _AtServer:
    """Ask the server of the key, if there is one, how many traces of a user it has."""
    if not settings.server:
        return _AtServer()
    from whyops_trace.exporters._http import Http, NoAnswerError  # it loads the HTTP library

    with closing(Http(settings.analyse_url, settings.api_key, read_timeout=_TIMEOUT)) as http:
        try:
            answer = http.get("/threads", {"externalUserId": user, "count": 1})
            body = msgspec.json.decode(answer.body) if answer.status == 200 else None
        except (NoAnswerError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None
    total = get(get(body, "pagination"), "total")
    return _AtServer(settings.analyse_url, total if type(total) is int else None)


def _left(files: Erased, aside: list[Path], at_server: _AtServer) -> Iterator[str]:
    """Yield sentences about what is left, and what to do about it."""
    if files.in_use:
        records = counted(files.in_use, "record")
        yield f"Running processes still have {records} of this user: repeat this when they have ended."
    for path in aside:
        yield f"{path}, a damaged store, may have more: delete it."
    if not at_server.url:
        yield "A WhyOps server that these traces were reported to still has them; it is not asked without its key."
    elif at_server.traces is None:
        yield f"{clean(at_server.url)} did not say what it still has of this user: look there."
    elif at_server.traces:
        yield f"{clean(at_server.url)} still has {counted(at_server.traces, 'trace')} of this user: delete them there."
    else:
        yield f"{clean(at_server.url)} has no trace of this user."
