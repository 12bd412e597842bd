"""``whyops-trace verify``: reads a trace back from the server and names the events missing there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from whyops_trace._delivery.draining import take_in, why_not
from whyops_trace._home import SERVER_FILE, STORE_FILE, command_line
from whyops_trace._reading.excerpt import clean
from whyops_trace.commands.common import home_option
from whyops_trace.commands.proxied import REASONS, losses
from whyops_trace.commands.verification import Known, Recorded, Row, There, recorded_events
from whyops_trace.exporters._http import Answer, Http, NoAnswerError
from whyops_trace.exporters.whyops.registration import keep_more
from whyops_trace.exporters.whyops.retry import Split, Wait, decide, misconfiguration
from whyops_trace.exporters.whyops.state import ServerState
from whyops_trace.settings import Settings, at_hand, shown_url
from whyops_trace.store import Store

#: Number of events of a page: the most that a server gives, and fewer after an answer that was too long.
_PAGE: Final = 200
_SMALL_PAGE: Final = 20
#: Most readings of the list, until every event was seen. A server sorts it by time alone, so events of the same
#: millisecond may change places between two pages, and one of them is then on neither.
_READINGS: Final = 3
#: Most requests for a page, and most seconds to wait before the next request.
_TRIES: Final = 3
_LONGEST_WAIT: Final = 10.0


class Missing(NamedTuple):
    """
    An event that is not on the server.

    Attributes:
        event: The event.
        cause: The probable cause, in one word.
        reason: The probable cause in a sentence, with the remedy.
    """

    event: Known
    cause: str
    reason: str


class _Pagination(msgspec.Struct, rename="camel"):
    total: int
    has_more: bool


class _Page(msgspec.Struct):
    events: list[Row]
    pagination: _Pagination


@click.command("verify", epilog="Example: whyops-trace verify checkout-8841")
@click.argument("trace")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@home_option
def verify(trace: str, as_json: bool, home: Path) -> None:
    """
    Compare a trace on the WhyOps server with the records here.

    TRACE is its id, or "latest" for the last one in the local store. The server is the one of WHYOPS_API_KEY
    and WHYOPS_ANALYSE_URL. Exits with 1 if something is missing or wrong there.
    """
    settings = at_hand(home)
    if not settings.api_key:
        raise click.ClickException("WHYOPS_API_KEY is not set: it names the account that the trace is in.")
    take_in(home)
    trace_id = _latest(home) if trace == "latest" else trace
    # The local events first: those delivered meanwhile are then found on the server.
    recorded = recorded_events(home, trace_id)
    there, total = _read_trace(settings, trace_id)
    missing = list(_missing(settings, home, recorded, there))
    findings = list(there.findings(gaps=not recorded.total))
    hidden = total - len(there.ids)
    if hidden > 0 and (missing or not recorded.total):
        why = "it lists events of the same time in no fixed order, so they may be among those named missing"
        findings.append(("hidden", f"The server counts {hidden:,} more events than it shows: {why}."))
    if not (recorded.total or there.ids):
        findings.append(("unknown_trace", "Neither the server nor this home knows anything of this trace."))
    if as_json:
        report = _report(trace_id, settings, recorded, there, missing, findings)
        click.echo(json.dumps(report, indent=1))
    else:
        for line in _lines(trace_id, settings, recorded, there, missing, findings):
            click.echo(line)
    if missing or findings:
        raise SystemExit(1)


def _latest(home: Path) -> str:
    with contextlib.closing(Store(home / STORE_FILE)) as store:
        return store.resolve("latest")


# Reading


def _read_trace(settings: Settings, trace_id: str) -> tuple[There, int]:
    """Return the events of a trace on the server, and the server's count of them."""
    there, total = There(), 0
    http = Http(settings.analyse_url, settings.api_key)
    with contextlib.closing(http):
        for reading in range(_READINGS):
            # Pages of another size split other events of the same time.
            total = _read_once(http, trace_id, there, _PAGE - reading)
            if len(there.ids) >= total:
                break
    return there, total


def _read_once(http: Http, trace_id: str, there: There, limit: int) -> int:
    offset = total = 0
    more = True
    while more:
        try:
            page = _ask(http, trace_id, offset, limit)
        except NoAnswerError as error:
            if error.timed_out or limit == _SMALL_PAGE:
                raise _failed(str(error)) from error
            limit = _SMALL_PAGE  # the answer may have been too long
            continue
        for row in page.events:
            there.add(row)
        offset += len(page.events)
        total = page.pagination.total
        more = page.pagination.has_more and bool(page.events) and offset < total
    return total


def _ask(http: Http, trace_id: str, offset: int, limit: int) -> _Page:
    """
    Return a page of the list.

    Raises:
        NoAnswerError: if there is no answer.
        click.ClickException: if the answer is not a list.
    """
    params: dict[str, str | int] = {
        "traceId": trace_id,
        "limit": limit,
        "offset": offset,
        "include": "metadata",
    }
    attempt = 0
    while True:
        attempt += 1
        answer = http.get("/events", params)
        if answer.status == 200:
            return _decoded(http, answer)
        decision = decide(answer, attempt=attempt, events=1, now=datetime.now(UTC), chance=0.0)
        if attempt == _TRIES or not isinstance(decision, Wait) or decision.seconds > _LONGEST_WAIT:
            why = misconfiguration(answer) if isinstance(decision, Split) else decision.why
            raise _failed(f"{shown_url(http.base_url)}: {why}")
        time.sleep(decision.seconds)


def _decoded(http: Http, answer: Answer) -> _Page:
    try:
        return msgspec.json.decode(answer.body, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _failed(f"{shown_url(http.base_url)}: {misconfiguration(answer)}") from error


def _failed(why: str) -> click.ClickException:
    return click.ClickException(f"The trace cannot be read back: {why.rstrip('.')}.")


# Comparing


def _missing(settings: Settings, home: Path, recorded: Recorded, there: There) -> Iterator[Missing]:
    """Yield the events that are not on the server: those that it gets from here, then those of the proxy."""
    for key, event in recorded.events.items():
        if key not in there.keys:
            yield _explain(settings, home, event, there)
    for event, cause in losses(recorded.turns, there):
        if there.ids or cause == "not_taken":
            yield Missing(event, cause, REASONS[cause])
        else:
            yield _without_trace(settings, event)


def _explain(settings: Settings, home: Path, event: Known, there: There) -> Missing:
    """Return an event with the probable reason that it is not on the server."""
    if event.waits is not None:
        header, in_use = event.waits
        reason = why_not(settings, header)
        if reason:
            return Missing(event, "waits_for_key", f"waiting in the journal: {reason}.")
        if in_use:
            return Missing(
                event, "pending", "waiting in the journal of a running process, which delivers it."
            )
        flush = command_line("journal", "flush", home=home)
        return Missing(event, "pending", f"waiting in the journal: `{flush}` delivers it.")
    if event.refused:
        conflict = "already bound to a different agent" in event.refused
        more = ": the agent's metadata or name changed while the trace was open" if conflict else ""
        cause = "agent_conflict" if conflict else "refused"
        return Missing(event, cause, f"refused by the server, {event.refused.rstrip('.')}{more}.")
    if not there.ids:
        return _without_trace(settings, event)
    if event.span not in there.spans:
        return Missing(
            event,
            "span_quota",
            "no event of its span is there. Probably the agent has used up the span ids it may have in its life "
            "(maxSpans, 1,000 by default).",
        )
    return Missing(
        event,
        "unknown",
        "nothing here says why; `whyops-trace journal status` counts what was dropped for lack of room.",
    )


def _without_trace(settings: Settings, event: Known) -> Missing:
    with contextlib.closing(ServerState(settings.home / SERVER_FILE)) as state:
        agent = state.agent(settings.stream(()))
    return Missing(
        event,
        "trace",
        "the server has nothing of this trace. Probably the agent's sampling left it out, or the agent has as many "
        f"traces as it may, or it was recorded without this key. {keep_more(settings.analyse_url, agent.id)}",
    )


# Telling


def _lines(
    trace_id: str,
    settings: Settings,
    recorded: Recorded,
    there: There,
    missing: Iterable[Missing],
    findings: Iterable[tuple[str, str]],
) -> Iterator[str]:
    where = f"{clean(trace_id)} at {shown_url(settings.analyse_url)}"
    reasons: dict[str, list[Known]] = {}
    for each in missing:
        reasons.setdefault(each.reason, []).append(each.event)
    if not recorded.total:
        yield (
            f"{where}: {len(there.ids):,} events. This home knows nothing of the trace, so it is only checked against "
            "itself."
        )
    else:
        known_there = recorded.total - sum(map(len, reasons.values()))
        yield f"{where}: {known_there:,} of {recorded.total:,} events are there."
        others = len(there.ids) - known_there
        if others > 0:
            more = f"{others:,} more {'is' if others == 1 else 'are'} there"
            yield f"{more} that this home does not know: the proxy's, or of another home."
    for reason, events in reasons.items():
        yield f"Missing: {clean(reason)}"
        for event in sorted(events, key=lambda event: (event.timestamp, event.step)):
            words = (f"step {event.step}", event.type, event.name, event.timestamp, event.key)
            yield "  " + "  ".join(clean(word) for word in words if word)
    for _, sentence in findings:
        yield clean(sentence)


def _report(
    trace_id: str,
    settings: Settings,
    recorded: Recorded,
    there: There,
    missing: list[Missing],
    findings: list[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "trace": trace_id,
        "server": settings.analyse_url,
        "complete": not (missing or findings),
        "known": recorded.total,
        "there": len(there.ids),
        "missing": [
            {
                "stepId": event.step,
                "eventType": event.type,
                "name": event.name,
                "timestamp": event.timestamp,
                "spanId": event.span,
                "idempotencyKey": event.key,
                "cause": cause,
                "reason": reason,
            }
            for event, cause, reason in missing
        ],
        "findings": [{"kind": kind, "message": sentence} for kind, sentence in findings],
    }
