"""One request of a client that calls a model, from before it is built to the end of its answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from whyops_trace._calls.call import Call, ModelCall
from whyops_trace._calls.responses import is_read, read_answer, watch
from whyops_trace._checks import MAX_ID, size
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._recording import recorders
from whyops_trace._recording.line import TOP
from whyops_trace._recording.state import UNENDING
from whyops_trace._values import encoding
from whyops_trace.context import OpenTurn, Scope, find_scope, get_scope, mark_wraps, set_scope, turns_around
from whyops_trace.providers._undo import Undo, undo

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite
    from whyops_trace._recording.state import TraceState
    from whyops_trace.exporters.whyops.turns import ProxiedTurn, Report
    from whyops_trace.providers._link import Link, Proxy

TRACE_ID: Final = "X-Trace-ID"
THREAD_ID: Final = "X-Thread-ID"
USER_ID: Final = "X-External-User-Id"
AGENT_NAME: Final = "X-Agent-Name"
#: Headers in which OpenAI and Anthropic, and those that follow them, name a request.
REQUEST_IDS: Final = ("x-request-id", "request-id")
#: Headers that tell when to try again.
RETRY_HEADERS: Final = ("retry-after", "retry-after-ms", "x-should-retry")
#: The members of a request that the proxy reports as its prompt.
_PROMPTS: Final = ("messages", "input", "conversation")


class Request:
    """
    One request. Its turn is recorded while the request is made.

    Attributes:
        site: Call site that records its turn, None if it is not a model call.
        call: Its turn once the request is built, None if nothing is recorded.
        proxy: The WhyOps proxy that it uses and that reports the turn, None without a proxy.
        is_replayed: True if a replay answers it. Then nothing is asked for its credentials.

    Args:
        link: The connections of the client.
        headers: The client's own headers, which every request has.
        options: The options of the request, as the package has them.
    """

    def __init__(self, link: Link, headers: Mapping[str, Any], options: Any) -> None:
        self._link = link
        self._headers = headers
        self.site = link.endpoints.site(options)
        self.call: Call | None = None
        self.proxy = link.proxy
        self.is_replayed = False
        #: The proxied turn once the request is built.
        self._turn: ProxiedTurn | None = None
        #: The scope that the request is made in, in a tuple, once it is known.
        self._here: tuple[Scope | None] | None = None
        #: Time of :func:`time.monotonic` until which the request may wait for the server, over all its tries.
        self._deadline = 0.0
        self._begun = False
        self._watched = False
        self._answer: Any = None
        #: The headers that were added for the proxy.
        self._added: set[str] = set()
        #: The caller's scope, in a tuple, if the request names another trace than that; else None.
        self._elsewhere: tuple[Scope | None] | None = None
        self._outer: Request | None = None

    def __enter__(self) -> Request:
        self._outer = CURRENT.get()
        CURRENT.set(self)
        if self.proxy is not None:
            self.proxy.delivery.expedite()  # records that linger now would come after the proxy's report
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Record the failure of the request. An error before a retry without the proxy is not raised."""
        CURRENT.set(self._outer)
        if self.proxy is not None and not self._watched:
            self.proxy.delivery.relax()
        if error is None:
            return False
        if self.proxy is not None and attempt(self._link.falls_back, error)[0]:
            self._forget_turn(self.proxy)
            self.proxy = None
            if self.call is not None and self.call.model_call is not None:
                self.call.model_call.proxied = False  # so the turn is reported from here
            return True
        self._failed(error)
        return False

    def begin(self, options: Any) -> Iterator[tuple[Proxy, TraceState | None, float]]:
        """
        Record the request to the model, before it is built. A retry is the same request.

        Yields:
            The arguments of :meth:`Proxy.settle`, with the proxy before them, each time the caller must wait.
        """
        if self.site is None:
            return
        if self.proxy is not None:
            self._deadline = self._deadline or time.monotonic() + self.proxy.wait
            scope, _ = attempt(self._place, options)
            yield self.proxy, None if scope is None else scope.trace, self._deadline
        if not self._begun:
            self._begun = True
            self._open(self.site, options)
            if self.proxy is not None and self.call is not None and self._tell_first(options):
                yield self.proxy, self.call.state, self._deadline
        if self.proxy is not None:
            self._begin_turn(self.proxy, options)

    def _place(self, options: Any) -> Scope | None:
        """Return the scope that the request is made in."""
        if self._here is None:
            self._here = (self._scope(find_scope(), self._all_headers(options)),)
        return self._here[0]

    @guarded("noting a turn of the proxy")
    def _begin_turn(self, proxy: Proxy, options: Any) -> None:
        """Let what is recorded from now on wait for the events of the proxy."""
        if self.call is None or not self.call.state.on:
            return
        self._forget_turn(proxy)  # that of a try that failed
        state, body = self.call.state, _body(options)
        asked, _ = attempt(msgspec.json.encode, next(filter(None, map(body.get, _PROMPTS)), None))
        self._turn = proxy.server.turns.begin(
            state.recorder.token,
            encoding.string(state.id),
            self.call.step,
            state.last_ms,
            ("prompt", None if asked is None else hash(asked)),
        )

    @guarded("noting the end of a turn of the proxy")
    def _end_turn(
        self, proxy: Proxy, *, whole: bool | None = True, error: BaseException | None = None
    ) -> None:
        """
        Let what is recorded from now on wait for the other events of the turn.

        Args:
            proxy: The proxy.
            whole: True if the answer came to its end, False if it broke off, None if its reader left it.
            error: What the request failed with.
        """
        call, turn = self.call, self._turn
        if call is None or call.model_call is None or turn is None:
            return
        self._turn = None
        reports: list[Report] = []
        if error is not None:
            response = getattr(error, "response", None)
            content = None if response is None else hash((response.status_code, response.content))
            reports.append(("error", content))
        elif whole is not False:  # of what the provider broke off the proxy says nothing
            reports.append(("answer", call.model_call.answer))
            if self._link.endpoints.family == "anthropic":
                reports += [("thought", thought) for thought in call.model_call.thoughts]
        proxy.server.turns.end(
            turn,
            call.model_call.last_step,
            None if whole is None else call.state.last_ms,
            reports,
        )

    def _forget_turn(self, proxy: Proxy) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            proxy.server.turns.forget(turn)

    @guarded("recording a request to a model")
    def _open(self, site: CallSite, options: Any) -> None:
        """Record the request to the model, in its trace."""
        before = find_scope()
        scope = self._place(options)
        if scope is not before:
            self._elsewhere = (before,)
            set_scope(scope)
        if self.proxy is not None and scope is not None:
            self._link.recorder.make_room(scope.trace)
        try:
            call = self.call = site.open((_body(options), None), Call)
        except BaseException:  # a limit of the trace refuses it
            self._return()
            raise
        if call is None:
            self._return()
            return
        if call.model_call is not None:
            call.model_call.by_client = True
            call.model_call.proxied = self.proxy is not None
            if recorders.has_layers():
                self._name_turn(call.model_call)
        mark_wraps(None if before is None else before.enclosing)

    @staticmethod
    def _name_turn(model_call: ModelCall) -> None:
        """Let whatever tells of the same turn further in know that the client does."""
        scope = get_scope()
        if model_call.turn is None and scope is not None:
            model_call.turn = OpenTurn(scope.enclosing)
            model_call.turn.step = scope.within
            set_scope(Scope(scope.trace, scope.within, scope.parent, model_call.turn))
        if model_call.turn is not None:
            model_call.turn.by_client = True

    @guarded("reporting a request to a model")
    def _tell_first(self, options: Any) -> bool:
        """Report the request from here too if the server needs that to store the proxy's report; return True if so."""
        # The server does not store a trace that begins with a system prompt in blocks, as the proxy reports it.
        if self.call is None or self.call.state.root or isinstance(_body(options).get("system", ""), str):
            return False
        self.call.tell_server(anyhow=True)
        return True

    def _all_headers(self, options: Any) -> dict[str, str]:
        """Return the headers from the client and from the caller of the request."""
        return {**_texts(self._headers), **_texts(options.headers)}

    def _scope(self, open_here: Scope | None, headers: Mapping[str, str]) -> Scope | None:
        """Return the scope of the request: the trace that its headers name, else the one that is open."""
        recorder, trace_id = self._link.recorder, _header(headers, TRACE_ID) or ""
        scope = open_here
        if scope is not None and scope.trace.recorder is not recorder:
            scope = self._scope_of_another(scope)
        if not 0 < size(trace_id) <= MAX_ID or (scope is not None and scope.trace.id == trace_id):
            return scope
        if scope is not None:
            warn_once(
                f"trace ids: {trace_id}",
                "A request has the header %s: %r, while trace %r is open: the events of one workflow end up in two "
                "traces. Leave the header out; requests get the id of the trace that is open.",
                TRACE_ID,
                trace_id,
                scope.trace.id,
            )
        # A caller that names a trace to the proxy has a handle on it, which goes on with the same numbers.
        state = recorder.traces.get(trace_id) or recorder.trace(trace_id)
        state.ended_ms = UNENDING
        return Scope(state, parent=state.last)

    def _scope_of_another(self, scope: Scope) -> Scope | None:
        """Return the scope of a request in the open trace of another client, None if it is not for others."""
        state, other = scope.trace, scope.trace.recorder
        if not state.shared:
            return None
        other.traces_clients = True
        if self.proxy is None:
            return scope
        warn_once(
            f"trace of another client: {other.agent_name}",
            "A request goes through the WhyOps proxy of agent %r, while trace %r of agent %r is open: its turn is in a "
            "trace of its own. Open the trace with the trace() of the client that the request was made with.",
            self._link.recorder.agent_name,
            state.id,
            other.agent_name,
        )
        return None

    def _return(self) -> None:
        """Go back to the caller's scope; the trace that the request named goes on after it."""
        if self._elsewhere is not None:
            scope = find_scope()
            if scope is not None and scope.within == TOP:
                scope.trace.last = scope.parent
            set_scope(*self._elsewhere)

    @guarded("naming the trace to the proxy")
    def name_trace(self, options: Any) -> None:
        """Add the headers that name the trace, the user and the agent to the proxy, unless the caller set them."""
        headers = options.headers if isinstance(options.headers, Mapping) else {}
        if self.proxy is None and self._added:
            # An older package retries with the headers that the request had for the proxy.
            options.headers = {name: value for name, value in headers.items() if name not in self._added}
        scope = find_scope()
        if scope is None or self.proxy is None:
            return
        present, state = self._all_headers(options), scope.trace
        names = {TRACE_ID: state.id, THREAD_ID: state.id, AGENT_NAME: self._link.recorder.agent_name}
        if is_header(state.user):
            names[USER_ID] = state.user
        added = {name: value for name, value in names.items() if value and not _header(present, name)}
        self._added.update(added)
        options.headers = {**added, **headers}

    @guarded("looking at the answer of a model")
    def receive(self, response: Any) -> None:
        """Read an answer: now if its body is there, else while it is read."""
        call = self.call
        if call is None or response is None or not response.is_success:
            return
        if call.model_call is not None:
            ids = (response.headers.get(name) for name in REQUEST_IDS)
            call.model_call.request_id = next(filter(None, ids), "")
        undoes = self.proxy is not None and self._link.endpoints.family == "openai"
        trace_id = str(response.request.headers.get(TRACE_ID, "")) if undoes else ""
        if is_read(response):
            if undoes:
                response._content = undo(response.content, trace_id)
            self._answer = read_answer(response)
        else:
            # The proxy reports the answer when it ends.
            then = None if self.proxy is None else partial(self._stream_ended, self.proxy)
            watch(response, call, partial(Undo, trace_id=trace_id) if undoes else None, then)
            self._watched = True

    def _stream_ended(self, proxy: Proxy, whole: bool | None) -> None:
        proxy.delivery.relax()
        self._end_turn(proxy, whole=whole)

    def answered(self, result: Any) -> Any:
        """Record the answer and return it. The answer of a stream is recorded at its end."""
        self._answered(result)
        return result

    @guarded("recording the answer of a model")
    def _answered(self, result: Any) -> None:
        call = self.call
        if call is None:
            return
        if self._watched:
            call.detach()
        else:
            call.end(result if self._answer is None else self._answer)
            if self.proxy is not None:
                self._end_turn(self.proxy)
        self._return()

    @guarded("recording that a request failed")
    def _failed(self, error: BaseException) -> None:
        if self.call is not None:
            if self.call.model_call is not None:
                self.call.model_call.error_response = _refusal(error)
            self.call.fail(error)
            self._tell_around(error)
            if self.proxy is not None and self._link.is_reported(error):
                self._end_turn(self.proxy, error=error)
            elif self.proxy is not None:
                self._forget_turn(self.proxy)
            self._return()

    def _tell_around(self, error: BaseException) -> None:
        """Let the calls of models around know the failure, which is one with theirs if they fail with it."""
        scope = find_scope()
        model_call = None if self.call is None else self.call.model_call
        if scope is not None and model_call is not None:
            for turn in turns_around(scope.enclosing):
                turn.failure = error, model_call.last_step


def _refusal(error: BaseException) -> dict[str, Any] | None:
    """Return what a provider sent with a status of failure: the status, the headers for retries, and the body."""
    response = getattr(error, "response", None)
    if response is None or not is_read(response):
        return None
    headers = {name: response.headers[name] for name in RETRY_HEADERS if name in response.headers}
    answer = read_answer(response)
    return {
        "status": response.status_code,
        "headers": headers,
        "body": response.text if answer is None else answer,
    }


#: The request in progress in this context.
CURRENT: ContextVar[Request | None] = ContextVar("whyops_trace_request", default=None)


def is_header(value: str) -> bool:
    """Return True if a text can be the value of an HTTP header as it is."""
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def _body(options: Any) -> dict[str, Any]:
    body = options.json_data
    extra = getattr(options, "extra_json", None)
    return {**(body if isinstance(body, Mapping) else {}), **(extra if isinstance(extra, Mapping) else {})}


def _texts(headers: Any) -> dict[str, str]:
    """Return the headers that have a text as value. The packages use other values for headers to omit."""
    mapping = headers if isinstance(headers, Mapping) else {}
    return {name: value for name, value in mapping.items() if isinstance(value, str)}


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
