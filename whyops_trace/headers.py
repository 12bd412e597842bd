"""
The place in a trace as headers of requests, messages and jobs, by which another program goes on there.

W3C's ``traceparent``, ``tracestate`` and ``baggage`` are understood and written, so programs with OpenTelemetry keep
the chain. Our own place is a member of the baggage, which such programs pass on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, overload
from urllib.parse import unquote

from whyops_trace._checks import MAX_ID, require, size
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._limits import Limits
from whyops_trace._recording import recorders
from whyops_trace._recording.places import Place, RemoteParent, resume, traceparent, w3c_trace_id
from whyops_trace._recording.recorder import Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace.context import Arrival, Enclosing, Scope, find_scope
from whyops_trace.tracing import Trace, trace_on
from whyops_trace.types import ExceptionLike

__all__ = ["Headers", "inject", "suspend"]

#: Headers to read: a mapping, such as a dict, ``httpx.Headers`` or the ``environ`` of WSGI, or pairs of texts or bytes;
#: None for none.
Headers: TypeAlias = Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None
H = TypeVar("H", bound=MutableMapping[Any, Any] | list[Any])

#: The member of the baggage that is our place.
PLACE: Final = "whyops-place"
TRACE_ID: Final = "x-trace-id"
THREAD_ID: Final = "x-thread-id"
#: The names that are read, and how each is written.
_NAMES: Final = {
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "baggage": "baggage",
    TRACE_ID: "X-Trace-ID",
    THREAD_ID: "X-Thread-ID",
}
#: Those that several headers may give the parts of.
_LISTS: Final = ("tracestate", "baggage")
#: Number of headers that are looked at, and of characters in the value of one; W3C lets baggage have as many.
_MAX_HEADERS: Final = 1_000
_MAX_VALUE: Final = 8_192
#: Characters of a ``tracestate`` that are passed on.
_MAX_TRACESTATE: Final = 1_024


class Told(NamedTuple):
    """
    A trace as headers tell of it, within bounds.

    Attributes:
        trace: The trace id, None if they tell none.
        place: The place in it, None if they tell none.
        remote: The span id of the call that made the request, "" if that is not known or is in the place.
        headers: The headers that were understood, by their names in lower case. The baggage is without the place.
    """

    trace: str | None
    place: Place | None
    remote: str
    headers: Mapping[str, str]

    @classmethod
    def read(cls, headers: Headers, secret: bytes) -> Told:
        """
        Return what headers tell, which need not be trusted.

        Args:
            headers: The headers.
            secret: The key that has to have signed the place; empty for any place.
        """
        found = _known(headers)
        place, baggage = None, []
        for member in _members(found.pop("baggage", "")):
            name, _, value = member.partition("=")
            if name.strip() == PLACE:
                place = attempt(Place.read, unquote(value.partition(";")[0].strip()), secret)[0]
            else:
                baggage.append(member)
        if baggage:
            found["baggage"] = ",".join(baggage)
        trace = next(
            (found[name] for name in (TRACE_ID, THREAD_ID) if 0 < size(found.get(name, "")) <= MAX_ID), None
        )
        if place is not None:
            return cls(place.trace, place, "", found)
        parent = RemoteParent.read(found.get("traceparent"))
        if parent is None:
            found.pop("traceparent", None)
            return cls(trace, None, "", found)
        trace = parent.trace if trace is None else trace
        return cls(trace, None, parent.span if w3c_trace_id(trace) == parent.trace else "", found)


def _known(headers: Headers) -> dict[str, str]:
    """Return the headers that are understood, by their names in lower case, without those that are too long."""
    # Some mappings are no Mapping, and some gateways give none where there are no headers.
    items: Iterable[tuple[Any, Any]] = () if headers is None else getattr(headers, "items", lambda: headers)()
    found: dict[str, str] = {}
    for name, value in islice(items, _MAX_HEADERS):
        # The names of WSGI are HTTP_TRACEPARENT and the like.
        name = _text(name).lower().replace("_", "-").removeprefix("http-")  # noqa: PLW2901
        text = _text(value).strip() if name in _NAMES else ""
        if text and text.isprintable() and len(text) <= _MAX_VALUE:
            joined = f"{found[name]},{text}" if name in found and name in _LISTS else text
            found[name] = joined if len(joined) <= _MAX_VALUE else found[name]
    if not found.get("tracestate", "").isascii() or len(found.get("tracestate", "")) > _MAX_TRACESTATE:
        del found["tracestate"]
    if not found.get("baggage", "").isascii():
        del found["baggage"]
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _members(baggage: str) -> Iterator[str]:
    """Yield the members of a baggage."""
    return (member.strip() for member in baggage.split(",") if member.strip())


def _others(baggage: str) -> list[str]:
    """Return the members of a baggage without the place."""
    return [member for member in _members(baggage) if member.partition("=")[0].strip() != PLACE]


def continued(
    recorder: Recorder,
    headers: Headers,
    link: bool,
    external_user_id: str | None,
    metadata: Mapping[str, Any] | None,
    tags: Iterable[str],
    not_errors: Iterable[ExceptionLike],
    limits: Limits | None,
) -> Trace:
    """Return the trace of a recorder that headers tell of; see :func:`whyops_trace.continue_from`."""
    arrived = _arrived(recorder, headers) if link and recorder.links and recorder.on else None
    return trace_on(recorder, None, external_user_id, metadata, tags, not_errors, arrived, limits)


def resumed(
    recorder: Recorder,
    token: str,
    external_user_id: str | None,
    metadata: Mapping[str, Any] | None,
    tags: Iterable[str],
    not_errors: Iterable[ExceptionLike],
) -> Trace:
    """Return the trace of a recorder that a token tells of; see :func:`whyops_trace.resume`."""
    arrived = _resumed(recorder, token) if token and recorder.on else None
    return trace_on(recorder, None, external_user_id, metadata, tags, not_errors, arrived)


@guarded("reading a token")
def _resumed(recorder: Recorder, token: str) -> tuple[TraceState, Arrival] | None:
    place, _ = attempt(Place.read, token)
    if place is None:
        warn_once(
            "token", "resume() got what suspend() never returned: %.80r; the trace is a new one.", token
        )
        return None
    is_signed = (
        attempt(Place.read, token, recorder.secret)[0] is not None
    )  # else the key is another one by now
    if not (place.root and is_signed):
        return recorder.trace(place.trace), Arrival()
    scope = scope_at(place._replace(on=True), recorder)
    scope.trace.on = scope.trace.recorder.keeps(place.trace)
    return scope.trace, Arrival(within=scope.within, parent=scope.parent)


@guarded("reading headers")
def _arrived(recorder: Recorder, headers: Headers) -> tuple[TraceState, Arrival] | None:
    """Return the trace that headers tell of, and the place in it; None if they tell of none."""
    told = Told.read(headers, recorder.secret)
    if told.trace is None:
        return None
    passed_on = [told.headers.get(name, "") for name in ("traceparent", "tracestate", "baggage")]
    if told.place is None:
        return recorder.trace(told.trace, remote=told.remote), Arrival(*passed_on)
    scope = scope_at(told.place._replace(user="", on=True), recorder)
    scope.trace.on = scope.trace.recorder.keeps(told.trace)
    return scope.trace, Arrival(*passed_on, within=scope.within, parent=scope.parent, goes_on=True)


def scope_at(place: Place, recorder: Recorder) -> Scope:
    """Return a place that another process tells, as a scope of the recorder for its agent; *recorder* if none is."""
    if recorder.agent_name != place.agent:
        recorder = next((other for other in recorders.alive if other.agent_name == place.agent), recorder)
    return Scope(resume(recorder, place), place.within, place.parent)


@overload
def inject(headers: None = None, *, waits: bool = True) -> dict[str, str]: ...
@overload
def inject(headers: H, *, waits: bool = True) -> H: ...
def inject(headers: Any = None, *, waits: bool = True) -> Any:
    """
    Add the place in the trace where this code runs to headers; outside any trace, nothing.

    The receiver of the headers goes on there with :func:`continue_from`, or as a program with OpenTelemetry does: its
    calls are inside the call that is open here.

    Args:
        headers: The headers of a request, message or job, to change: a dict or another mutable mapping, or a list of
            pairs of texts or bytes; a new dict if it is left out.
        waits: False for a job that runs later, while this program goes on. Its steps come after those here; otherwise
            before the next one here.

    Returns:
        The headers.

    Raises:
        InvalidEventError: if the headers are something else.

    Example::

        httpx.post(url, json=order, headers=inject())
    """
    headers = {} if headers is None else headers
    require(isinstance(headers, MutableMapping | list), "headers", headers, "a dict or a list of pairs")
    scope = find_scope()
    if scope is not None and scope.trace.recorder.on:
        _inject(headers, scope, waits)
    return headers


def withdraw(headers: MutableMapping[Any, Any]) -> None:
    """Remove from the headers of a request what :func:`inject` wrote at this place: it goes to somebody else."""
    scope = find_scope()
    if scope is None or not scope.trace.recorder.on:
        return
    there, told = _known(headers), _told(scope, waits=True)
    left = _others(there.get("baggage", ""))
    for name in [*headers]:
        known = _text(name).lower()
        if known == "baggage" and not left:
            del headers[name]
        elif known == "baggage":
            headers[name] = ",".join(left)
        elif known in told and there.get(known) == told[known]:
            del headers[name]


def suspend() -> str:
    """
    Return a token for the place in the trace where this code runs, to go on there with :func:`resume`, days later.

    It is a text of at most 4,000 letters, digits and ``.-_``, which a database keeps. It holds ids and no payload, and
    is signed with the API key if there is one. Outside any trace it is empty.

    Example::

        with trace("refund-7"), step("ask a human"):
            database.save(order, token=suspend())
    """
    scope = find_scope()
    return (scope is not None and _suspended(scope)) or ""


@guarded("making a token")
def _suspended(scope: Scope) -> str:
    _share(scope.trace)
    return Place.of(scope.trace, scope.within, scope.parent).text(scope.trace.recorder.secret)


def _share(state: TraceState) -> None:
    """Name the numbering of a trace without a record: whoever records first, steps do not collide."""
    with state.recorder.lock:
        if not state.first and not state.numbering:
            state.recorder.name_numbering(state)


@guarded("writing headers")
def _inject(headers: MutableMapping[Any, Any] | list[Any], scope: Scope, waits: bool) -> None:
    there, arrival = _known(headers), _arrival(scope.enclosing)
    told = _told(scope, waits=waits)
    if there.get("traceparent", arrival.traceparent) != arrival.traceparent:
        place = Told.read(headers, scope.trace.recorder.secret).place  # of headers that are used again
        if place is None or place.traceparent() != there["traceparent"]:
            del told["traceparent"]  # of a span in between
    if arrival.tracestate and "tracestate" not in there:
        told["tracestate"] = arrival.tracestate
    members = [*_members(told.get("baggage", "")), *_others(there.get("baggage", arrival.baggage))]
    while sum(map(len, members)) + len(members) > _MAX_VALUE:
        members.pop()
    if members or "baggage" in there:
        told["baggage"] = ",".join(members)
    _put(headers, told)


def _told(scope: Scope, *, waits: bool) -> dict[str, str]:
    """Return what to tell of a place, by the names of the headers in lower case."""
    state = scope.trace
    _share(state)
    told = {"traceparent": traceparent(state.id, state.numbering, scope.within, on=state.on)}
    if state.id.isascii() and state.id.isprintable() and state.id == state.id.strip():
        told |= {TRACE_ID: state.id, THREAD_ID: state.id}
    if state.on and state.first:
        place = Place.of(state, scope.within, scope.parent, waits=waits)._replace(user="")
        told["baggage"] = f"{PLACE}={place.text(state.recorder.secret)}"
    return told


def _arrival(enclosing: Enclosing | None) -> Arrival:
    """Return the innermost place that another program told around some code; an empty one if none did."""
    while enclosing is not None and not isinstance(enclosing, Arrival):
        enclosing = enclosing.outer
    return enclosing or Arrival()


def _put(headers: MutableMapping[Any, Any] | list[Any], told: Mapping[str, str]) -> None:
    """Set headers, in place of those of the same names."""
    if isinstance(headers, list):
        is_text = bool(headers) and isinstance(headers[0][0], str)
        headers[:] = [pair for pair in headers if _text(pair[0]).lower() not in told]
        pairs = ((_NAMES[name], value) for name, value in told.items())
        headers.extend(
            pairs if is_text else ((name.lower().encode(), value.encode()) for name, value in pairs)
        )
        return
    present = {_text(name).lower(): name for name in headers}
    for name, value in told.items():
        headers[present.get(name, _NAMES[name])] = value
