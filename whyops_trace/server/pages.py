"""The first page: a list of traces, its search, and filters for the traces that need attention."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from whyops_trace._reading.excerpt import elapsed
from whyops_trace._reading.summary import LOOP
from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server import trace_url
from whyops_trace.server.assets import Renderer
from whyops_trace.server.query import Query, Term, parse
from whyops_trace.server.search import Index
from whyops_trace.store import Counts, Store, TraceSummary

#: Number of traces on a page.
PAGE: Final = 100
#: Lifetime of the counts, as a multiple of the time to count them.
_WORTH: Final = 10
_MINUTE: Final = 60.0
#: Largest number of bars in the picture of a trace's turns, and their height.
_BARS: Final = 16
_HEIGHT: Final = 14


class Row(NamedTuple):
    """
    A trace in the list.

    Attributes:
        trace: Its summary.
        url: The address of its page; after a search with the text that was found in it.
        at: Time of its latest record, in readable form.
        took: Milliseconds from its beginning to its latest record.
        state: ``running``, ``stopped``, ``failed``, ``unanswered``, or ``ended``.
        loops: True if it called a tool in a loop.
        spark: The tokens of its turns as the path of a small picture, "" for less than two turns.
    """

    trace: TraceSummary
    url: str
    at: str
    took: float
    state: str
    loops: bool
    spark: str


@dataclass(frozen=True, slots=True)
class Saved:
    """
    A filter that is one click away.

    Attributes:
        name: Its name.
        count: Number of traces that it finds among all traces.
        url: Address of the list with the filter added to the query, or removed from it.
        chosen: True if it is part of the query.
        what: Description of the traces that it finds, in a sentence.
    """

    name: str
    count: int
    url: str
    chosen: bool
    what: str


def routes(store: Store, index: Index, renderer: Renderer, home: Path) -> list[Route]:
    """
    Return the route of the list.

    Args:
        store: The store of the traces.
        index: The index of their words.
        renderer: Renderer of the template.
        home: The home of the traces.
    """
    figures = _Figures(store)

    def answer(query: str, after: str, origin: str) -> Response:
        try:
            context = _look(store, index, figures, query, after or None)
        except StoreError as error:
            return renderer.page("problem.html", 503, problem=str(error))
        return renderer.page(
            "list.html", query=query, after=after, home=_short(home), origin=origin, **context
        )

    async def endpoint(request: Request) -> Response:
        params = request.query_params
        origin = f"{request.url.scheme}://{request.headers['host']}"
        return await to_thread.run_sync(answer, params.get("q", "").strip(), params.get("after", ""), origin)

    return [Route("/", endpoint)]


class _Figures:
    """The numbers of traces for each filter. With very many traces counting is slow, and is not repeated each time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = -1
        self._good_until = 0.0
        self._figures = (Counts(), 0.0)

    def get(self) -> tuple[Counts, float]:
        """
        Return the counts of all traces, and the seconds above which a trace is slow.

        Raises:
            StoreError: if the store cannot be read.
        """
        version, started = self._store.version(), time.monotonic()
        # With time a trace may also stop counting as running.
        is_old = version != self._version or started > self._good_until + _MINUTE
        if is_old and started >= self._good_until:
            slow = self._store.slow_seconds()
            self._figures = (self._store.counts(slow=slow), slow)
            self._version, finished = version, time.monotonic()
            # While programs record, at most a tenth of the time goes into counting.
            self._good_until = finished + _WORTH * (finished - started)
        return self._figures


def _look(store: Store, index: Index, figures: _Figures, text: str, after: str | None) -> dict[str, Any]:
    """
    Return the context of the template.

    Raises:
        StoreError: if the store cannot be read.
    """
    query = parse(text)
    where, notes = query.where, list(query.problems)
    behind = False
    if query.terms:
        ids, trouble, behind = _find(index, query)
        where = msgspec.structs.replace(where, ids=ids)
        notes += trouble
    try:
        traces = store.traces(PAGE + 1, after, where=where)
    except TraceNotFoundError:
        notes.append("The trace that this page began after is deleted; these are the latest ones.")
        after, traces = None, store.traces(PAGE + 1, where=where)
    counts, slow = figures.get()
    turns = store.turn_tokens([trace.trace_id for trace in traces[:PAGE]])
    rows = [row(trace, turns.get(trace.trace_id, []), query.terms) for trace in traces[:PAGE]]
    return {
        "rows": rows,
        "notes": notes,
        "behind": behind,
        "total": counts.total,
        "matching": store.counts(where, slow=slow).total if text else counts.total,
        "saved": _saved(text, counts, slow),
        "older": _url(text, traces[PAGE - 1].trace_id) if len(traces) > PAGE else "",
        "newest": _url(text) if after else "",
    }


def _find(index: Index, query: Query) -> tuple[list[str], list[str], bool]:
    """Return the traces with the words of a query, notes about the index, and True if it is incomplete."""
    try:
        result = index.find(query.terms)
    except StoreError as error:  # for example a read-only home; the list works nevertheless
        return [], [f"Words cannot be searched for: {error}"], False
    if not result.behind:
        return result.trace_ids, [], False
    filling = f"it has {result.indexed:,} events so far, and the newest are missing"
    return result.trace_ids, [f"The search index is being filled: {filling}."], True


def row(trace: TraceSummary, turns: Sequence[int], terms: Sequence[Term] = ()) -> Row:
    """
    Return a trace as a row of the list.

    Args:
        trace: Its summary.
        turns: The tokens of its turns.
        terms: The terms of the search that found it.
    """
    if trace.running:
        state = "running"
    elif trace.stopped:
        state = "stopped"
    elif trace.failed:
        state = "failed"
    else:
        state = "unanswered" if trace.asked and not trace.ended_with else "ended"
    took = elapsed(trace.started_at, trace.last_at) or 0.0
    loops = trace.repeated >= LOOP
    return Row(
        trace, _trace_url(trace.trace_id, terms), when(trace.last_at), took, state, loops, spark(turns)
    )


def _trace_url(trace_id: str, terms: Sequence[Term]) -> str:
    """Return the address of a trace, with the first term that is not in its id, for the page to search."""
    sought = [term.text for term in terms if term.text.casefold() not in trace_id.casefold()]
    return trace_url(trace_id) + (f"?{urlencode({'q': sought[0]}, errors='replace')}" if sought else "")


def spark(turns: Sequence[int]) -> str:
    """Return bars for the tokens of turns as the path of a picture 14 high. Of many turns each few share a bar."""
    if len(turns) < 2 or not any(turns):
        return ""
    few = -(-len(turns) // _BARS)
    return bars([max(1, *turns[start : start + few]) for start in range(0, len(turns), few)])


def bars(numbers: Sequence[int]) -> str:
    """Return bars for numbers as the path of a picture 14 high, in which every number but 0 is seen."""
    most = max(numbers, default=0)
    heights = [number and max(1, round(_HEIGHT * number / most)) for number in numbers]
    return "".join(
        f"M{4 * at} {_HEIGHT}v-{height}h3v{height}z" for at, height in enumerate(heights) if height
    )


def when(timestamp: str) -> str:
    """Return a wire timestamp in local time, "" if it is not one: only the time for today, else day and time."""
    try:
        moment = datetime.fromisoformat(timestamp).astimezone()
    except (ValueError, OverflowError):
        return ""
    is_today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M")


def _saved(text: str, counts: Counts, slow: float) -> list[Saved]:
    """Return the filters that are one click away, each with its number of traces."""
    # A slow trace takes longer than these seconds by at least a millisecond.
    offered = (
        ("failed", counts.failed, "failed:yes", "ended with an error"),
        ("slow", counts.slow, f">{slow + 0.001:.3f}s", "took longer than 95 of 100 traces do"),
        (
            "looping",
            counts.looping,
            "looping:yes",
            f"called a tool {LOOP} times or more with the same arguments",
        ),
        (
            "stopped",
            counts.stopped,
            "stopped:yes",
            "have calls or steps that never ended, as their process went",
        ),
        ("no answer", counts.unanswered, "answer:no", "were asked something and never answered"),
    )
    saved = []
    for name, count, filtering, what in offered:
        words = text.split()
        chosen = filtering in words
        rest = [word for word in words if word != filtering] if chosen else [*words, filtering]
        saved.append(Saved(name, count, _url(" ".join(rest)), chosen, f"Traces that {what}"))
    return saved


def _url(text: str, after: str = "") -> str:
    params = {name: value for name, value in (("q", text), ("after", after)) if value}
    return f"/?{urlencode(params, errors='replace')}" if params else "/"


def _short(home: Path) -> str:
    """Return a directory as typed, with ``~`` for the user's own."""
    try:
        return str(Path("~") / home.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(home)
