"""The connections of a client: to the recorder of its turns, and to the WhyOps proxy or the provider itself."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from whyops_trace._calls.site import CallSite
from whyops_trace._delivery.worker import Delivery
from whyops_trace._guard import attempt, guarded, warn_once
from whyops_trace._recording.recorder import Recorder
from whyops_trace.context import get_scope
from whyops_trace.providers._endpoints import Endpoints, is_served_by_proxy
from whyops_trace.providers._request import is_header

#: Most seconds that a request waits until the records before it are stored.
WAIT: Final = 0.25
#: The same for the first request of a process, until the agent is registered. For an unregistered agent the proxy makes
#: up a version, and the server then refuses the records made here for another version.
FIRST_WAIT: Final = 3.0
#: Seconds for which a client with a fallback avoids a proxy that failed.
COOL_DOWN: Final = 30.0


class Proxy(NamedTuple):
    """
    The WhyOps proxy.

    Attributes:
        url: Its address, without ``/v1``.
        key: The WhyOps key.
        delivery: Delivery to the server behind it.
    """

    url: str
    key: str
    delivery: Delivery

    @guarded("waiting for what was recorded before a request")
    def settle(self) -> None:
        """Wait until the records before a turn are stored, so that the proxy's events of the turn come after them."""
        self.delivery.start(FIRST_WAIT)
        self.delivery.catch_up(WAIT)

    async def asettle(self) -> None:
        """Wait as :meth:`settle` does, without blocking the event loop."""
        if self.delivery.is_behind or not self.delivery.is_started:
            from anyio.to_thread import run_sync

            await run_sync(self.settle, abandon_on_cancel=True)


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
        scope = get_scope()
        if scope is None or is_header(scope.trace.id):
            return False
        warn_once(
            f"no header: {scope.trace.id}",
            "Trace id %r cannot be sent as an HTTP header, so its requests do not go through the WhyOps proxy; they "
            "are reported from here. Use an id of ASCII characters.",
            scope.trace.id,
        )
        return True

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
