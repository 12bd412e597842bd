"""One request of a client that calls a model, from before it is built to the end of its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from whyops_trace._calls.call import Call
from whyops_trace._calls.responses import EVENT_STREAM, is_read, media_type, read_answer, watch
from whyops_trace._checks import MAX_ID, size
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace.context import Scope, get_scope, set_scope
from whyops_trace.providers._undo import Undo, undo

if TYPE_CHECKING:
    from whyops_trace._calls.site import CallSite
    from whyops_trace.providers._link import Link, Proxy

TRACE_ID: Final = "X-Trace-ID"
THREAD_ID: Final = "X-Thread-ID"
USER_ID: Final = "X-External-User-Id"
AGENT_NAME: Final = "X-Agent-Name"


class Request:
    """
    One request, whose turn is recorded while it is made.

    Attributes:
        site: What records its turn; None if it is no call of a model.
        call: Its turn, once the request is built; None if nothing is recorded.
        proxy: The WhyOps proxy that it goes through, which reports the turn; None if it goes through none.

    Args:
        link: How the client is connected.
        headers: The client's own headers, which every request has.
        options: What is requested, as the package has it.
    """

    def __init__(self, link: Link, headers: Mapping[str, Any], options: Any) -> None:
        self._link = link
        self._headers = headers
        self.site = link.endpoints.site(options)
        self.call: Call | None = None
        self.proxy = link.proxy
        self._begun = False
        self._watched = False
        self._answer: Any = None
        #: The headers that were added for the proxy.
        self._added: set[str] = set()
        #: Where the caller stands, if the request names another trace than that.
        self._elsewhere: tuple[Scope | None] | None = None
        self._outer: Request | None = None

    def __enter__(self) -> Request:
        self._outer = CURRENT.get()
        CURRENT.set(self)
        if self.proxy is not None:
            self.proxy.delivery.hurry()  # what lingers now would come after the proxy's report
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        """Record how the request failed; an error that another try follows, without the proxy, is not raised."""
        CURRENT.set(self._outer)
        if self.proxy is not None and not self._watched:
            self.proxy.delivery.calm()
        if error is None:
            return False
        if self.proxy is not None and attempt(self._link.falls_back, error)[0]:
            self.proxy = None
            if self.call is not None and self.call.asked is not None:
                self.call.asked.proxied = False  # so the turn is reported from here
            return True
        self._failed(error)
        return False

    def begin(self, options: Any) -> Iterator[Proxy]:
        """
        Record what the model is asked, before the request is built; a further try is the same request.

        Yields:
            The proxy, wherever it has to be waited until what was recorded so far is stored.
        """
        if self.site is None:
            return
        if self.proxy is not None:
            yield self.proxy
        if not self._begun:
            self._begun = True
            self._open(self.site, options)
            if self.proxy is not None and self._tell_first(options):
                yield self.proxy

    @guarded("recording a request to a model")
    def _open(self, site: CallSite, options: Any) -> None:
        """Record what the model is asked, in the trace it belongs to."""
        before = get_scope()
        scope = self._scope(before, self._given(options))
        if scope is not before:
            self._elsewhere = (before,)
            set_scope(scope)
        if self.proxy is not None and scope is not None:
            self._link.recorder.make_room(scope[0])
        call = self.call = site.open(_body(options), Call)
        if call is None:
            self._return()
            return
        if call.asked is not None:
            call.asked.by_client = True
            call.asked.proxied = self.proxy is not None
        turn = None if before is None else before[3]
        while turn is not None:
            turn.wraps, turn = True, turn.outer

    @guarded("reporting a request to a model")
    def _tell_first(self, options: Any) -> bool:
        """Report the request from here as well, where the server needs that to store the proxy's report; tell if so."""
        # A trace that begins with a system prompt in blocks, as the proxy reports it, is not stored.
        if self.call is None or self.call.state.root or isinstance(_body(options).get("system", ""), str):
            return False
        self.call.tell_server(anyhow=True)
        return True

    def _given(self, options: Any) -> dict[str, str]:
        """Return the headers that the client and whoever makes the request have given it."""
        return {**_texts(self._headers), **_texts(options.headers)}

    def _scope(self, open_here: Scope | None, headers: Mapping[str, str]) -> Scope | None:
        """Return where the request stands: in the trace its headers name, else in this client's that is open."""
        recorder, named = self._link.recorder, _named(headers, TRACE_ID) or ""
        scope = open_here if open_here is not None and open_here[0].recorder is recorder else None
        if not 0 < size(named) <= MAX_ID or (scope is not None and scope[0].id == named):
            return scope
        if scope is not None:
            warn_once(
                f"trace ids: {named}",
                "A request has the header %s: %r, while trace %r is open: the events of one workflow end up in two "
                "traces. Leave the header out; requests get the id of the trace that is open.",
                TRACE_ID,
                named,
                scope[0].id,
            )
        # Whoever names a trace to the proxy has a handle on it, which goes on with the same numbers.
        state = recorder.traces.get(named) or recorder.trace(named)
        return state, 0, state.last, None

    def _return(self) -> None:
        """Go back to where the caller stands; the trace that the request named goes on after it."""
        if self._elsewhere is not None:
            scope = get_scope()
            if scope is not None and not scope[1]:
                scope[0].last = scope[2]
            set_scope(*self._elsewhere)

    @guarded("naming the trace to the proxy")
    def name_trace(self, options: Any) -> None:
        """Give the request the headers that tell the proxy what it belongs to, where nobody else has."""
        headers = options.headers if isinstance(options.headers, Mapping) else {}
        if self.proxy is None and self._added:
            # An older package makes the request again with the headers that it had for the proxy.
            options.headers = {name: value for name, value in headers.items() if name not in self._added}
        scope = get_scope()
        if scope is None or self.proxy is None:
            return
        given, state = self._given(options), scope[0]
        names = {TRACE_ID: state.id, THREAD_ID: state.id, AGENT_NAME: self._link.recorder.agent_name}
        if is_header(state.user):
            names[USER_ID] = state.user
        missing = {name: value for name, value in names.items() if value and not _named(given, name)}
        self._added.update(missing)
        options.headers = {**missing, **headers}

    @guarded("looking at the answer of a model")
    def receive(self, response: Any) -> None:
        """Look at an answer: now if it is there, else while it is read."""
        call = self.call
        if call is None or response is None or not response.is_success:
            return
        undoes = self.proxy is not None and self._link.endpoints.family == "openai"
        if is_read(response):
            if undoes:
                response._content = undo(response.content)
            self._answer = read_answer(response)
        else:
            streams = media_type(response) == EVENT_STREAM
            # The proxy reports the answer when it ends.
            calm = None if self.proxy is None else self.proxy.delivery.calm
            watch(response, call, Undo(streams=streams) if undoes else None, calm)
            self._watched = True

    def answered(self, result: Any) -> Any:
        """Record the answer, that of a stream when it ends; return it."""
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
        self._return()

    @guarded("recording that a request failed")
    def _failed(self, error: BaseException) -> None:
        if self.call is not None:
            self.call.fail(error)
            self._return()


#: The request that is being made here.
CURRENT: ContextVar[Request | None] = ContextVar("whyops_trace_request", default=None)


def is_header(value: str) -> bool:
    """Tell whether a text can be the value of an HTTP header as it is."""
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def _body(options: Any) -> dict[str, Any]:
    body = options.json_data
    extra = getattr(options, "extra_json", None)
    return {**(body if isinstance(body, Mapping) else {}), **(extra if isinstance(extra, Mapping) else {})}


def _texts(headers: Any) -> dict[str, str]:
    """Return the headers that have a value; some only say that there is none."""
    given = headers if isinstance(headers, Mapping) else {}
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _named(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for given, value in headers.items() if given.lower() == name.lower()), None)
