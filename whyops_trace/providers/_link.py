"""The connections of a client: to the recorder of its turns, and to the WhyOps proxy or the provider itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from whyops_trace._calls.site import CallSite
from whyops_trace._delivery.worker import Delivery
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._recording.recorder import Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace._values import encoding
from whyops_trace.context import find_scope
from whyops_trace.providers._endpoints import Endpoints, is_served_by_proxy
from whyops_trace.providers._request import is_header

if TYPE_CHECKING:
    from whyops_trace.exporters.whyops import WhyOpsExporter

#: Most seconds that the first request of a process waits until the agent is registered. For an unregistered agent the
#: proxy makes up a version, and the server then refuses the records made here for another version, or to register it.
#: A server with its defaults takes three to seven seconds.
FIRST_WAIT: Final = 10.0
#: Seconds for which a client with a fallback avoids a proxy that failed.
COOL_DOWN: Final = 30.0


class Proxy(NamedTuple):
    """
    The WhyOps proxy.

    Attributes:
        url: Its address, without ``/v1``.
        key: The WhyOps key.
        wait: Most seconds that a request waits for the server to store the newest record before it.
        server: The server behind it.
        delivery: Delivery to that server.
    """

    url: str
    key: str
    wait: float
    server: WhyOpsExporter
    delivery: Delivery

    @guarded("waiting for what was recorded before a request")
    def settle(self, trace: TraceState | None, deadline: float) -> None:
        """
        Wait until the newest record of a trace is stored, so that the proxy's events of a turn come after it.

        Args:
            trace: The trace, None if it begins with the turn.
            deadline: The :func:`time.monotonic` time to stop waiting at.
        """
        self.delivery.start(FIRST_WAIT)
        if trace is None or not self.wait or self.delivery.is_failing:
            return
        line = self.delivery.newest(
            self.server, b'"traceId":%b,' % encoding.string(trace.id), self.server.takes
        )

        def fails() -> bool:
            return self.delivery.is_failing

        if line is None or self.server.store_ahead(line, trace.recorder.token, deadline, fails):
            return
        if not fails():
            warn_once(
                "proxy_wait",
                "A request to a model left for the WhyOps proxy before the server had stored what was recorded before "
                "it, which took longer than %g seconds: if the server keeps the trace, their order there may be wrong, "
                "and that of later ones too, without a word. "
                "A larger proxy_wait (WHYOPS_PROXY_WAIT) waits longer; 0 does not wait.",
                self.wait,
            )

    async def asettle(self, trace: TraceState | None, deadline: float) -> None:
        """Wait as :meth:`settle` does, without blocking the event loop."""
        if not self.delivery.is_started or (trace is not None and self.delivery.is_behind):
            from anyio import CapacityLimiter
            from anyio.to_thread import run_sync

            # A limiter of its own, so that many waits take no place from the host program's own threads.
            await run_sync(self.settle, trace, deadline, abandon_on_cancel=True, limiter=CapacityLimiter(1))


class Pause:
    """
    A pause in the use of a failed proxy, shared by a client and its copies. A copy may be made for each request.

    Attributes:
        until: End of the pause, by :func:`time.monotonic`.
    """

    def __init__(self) -> None:
        self.until = 0.0


class Link:
    """
    The data of a traced client beyond those of its own class.

    Attributes:
        recorder: Recorder of its turns.
        endpoints: Call sites as which its calls are recorded.
        proxy: The WhyOps proxy that it uses, None if it calls the provider itself.
        direct: The same client without the proxy, for requests that the proxy does not serve.
        fallback: True to use *direct* as well if the proxy is down or refuses.
    """

    def __init__(
        self,
        recorder: Recorder,
        endpoints: Endpoints,
        *,
        proxy: Proxy | None = None,
        direct: Any = None,
        fallback: bool = False,
    ) -> None:
        self.recorder = recorder
        self.endpoints = endpoints
        self.proxy = proxy
        self.direct = direct
        self.fallback = fallback
        self._pause = Pause()

    def with_direct(self, direct: Any) -> Link:
        """Return the link of a copy of the client, whose direct client is *direct*."""
        copied = Link(self.recorder, self.endpoints, proxy=self.proxy, direct=direct, fallback=self.fallback)
        copied._pause = self._pause
        return copied

    def goes_direct(self, options: Any, site: CallSite | None) -> bool:
        """Return True if a request must be made without the proxy, although the client has one."""
        if self.proxy is None:
            return False
        if site is None:
            return not is_served_by_proxy(options)
        if time.monotonic() < self._pause.until:
            return True
        scope = find_scope()
        if scope is None or is_header(scope.trace.id):
            return False
        warn_once(
            f"no header: {scope.trace.id}",
            "Trace id %r cannot be sent as an HTTP header, so its requests do not go through the WhyOps proxy; they "
            "are reported from here. Use an id of ASCII characters.",
            scope.trace.id,
        )
        return True

    def is_reported(self, error: BaseException) -> bool:
        """Return True if the proxy reports the failure of a request: it came from the provider, or nobody knows."""
        return not _is_the_proxys(error)

    def falls_back(self, error: BaseException) -> bool:
        """Return True to retry a failed request without the proxy, which is then avoided for a while."""
        if not self.fallback or self.proxy is None or not _is_the_proxys(error):
            return False
        self._pause.until = time.monotonic() + COOL_DOWN
        warn_once(
            "proxy fallback",
            "The WhyOps proxy failed (%s: %s); for %d seconds requests go to the provider directly, and are reported "
            "from here.",
            type(error).__name__,
            error,
            COOL_DOWN,
        )
        return True


def _is_the_proxys(error: BaseException) -> bool:
    """
    Return True if an error comes from the proxy or the way to it, and not from the provider.

    The proxy's own errors have a text under ``error``, or are not JSON. Errors passed on from the provider have an
    object there. A request that timed out may have been accepted, so it is not made again.
    """
    response = getattr(error, "response", None)
    if response is not None:
        body, _ = attempt(response.json)  # the error has it too, but not in every version
        return not isinstance(body.get("error", body) if isinstance(body, dict) else body, dict)
    names = [base.__name__ for base in type(error).__mro__]
    if "APITimeoutError" in names:
        return type(error.__cause__).__name__ == "ConnectTimeout"
    return "APIConnectionError" in names
