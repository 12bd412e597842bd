"""How a client is connected: to what records its turns, and to the WhyOps proxy or the provider itself."""

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

#: Seconds that a request waits at most until what was recorded before it is stored.
WAIT: Final = 0.25
#: The same for the first one of a process, until the agent is registered: a proxy that is told of an agent nobody has
#: registered makes up a version of it, and the server refuses what is recorded here for another one.
FIRST_WAIT: Final = 3.0
#: Seconds for which a client with a fallback leaves a proxy alone that failed.
COOL_DOWN: Final = 30.0


class Proxy(NamedTuple):
    """
    The WhyOps proxy.

    Attributes:
        url: Its address, without ``/v1``.
        key: The WhyOps key.
        delivery: Delivers to the server behind it.
    """

    url: str
    key: str
    delivery: Delivery

    @guarded("waiting for what was recorded before a request")
    def settle(self) -> None:
        """Wait until what was recorded before a turn is stored, so that the proxy's events of it come after that."""
        self.delivery.start(FIRST_WAIT)
        self.delivery.catch_up(WAIT)

    async def asettle(self) -> None:
        """Wait as :meth:`settle` does, without blocking the event loop."""
        if self.delivery.is_behind or not self.delivery.is_started:
            from anyio.to_thread import run_sync

            await run_sync(self.settle, abandon_on_cancel=True)


class Pause:
    """
    Leaves a proxy that failed alone: a client's and its copies', which may be made for each request.

    Attributes:
        until: Until when, as :func:`time.monotonic` tells it.
    """

    def __init__(self) -> None:
        self.until = 0.0


class Link:
    """
    What a traced client knows beside what its own class does.

    Attributes:
        recorder: Records its turns.
        endpoints: What its calls are recorded as.
        proxy: The WhyOps proxy it goes through; None if it asks the provider itself.
        direct: The same client without the proxy, for requests the proxy does not serve.
        fallback: Whether that is asked as well where the proxy is down or refuses.
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
        """Return the link of a copy of the client, whose direct one is *direct*."""
        copied = Link(self.recorder, self.endpoints, proxy=self.proxy, direct=direct, fallback=self.fallback)
        copied._pause = self._pause
        return copied

    def goes_direct(self, options: Any, site: CallSite | None) -> bool:
        """Tell whether a request has to be made without the proxy, though the client has one."""
        if self.proxy is None:
            return False
        if site is None:
            return not is_served_by_proxy(options)
        if time.monotonic() < self._pause.until:
            return True
        scope = get_scope()
        if scope is None or is_header(scope[0].id):
            return False
        warn_once(
            f"no header: {scope[0].id}",
            "Trace id %r cannot be sent as an HTTP header, so its requests do not go through the WhyOps proxy; they "
            "are reported from here. Use an id of ASCII characters.",
            scope[0].id,
        )
        return True

    def falls_back(self, error: BaseException) -> bool:
        """Tell whether a failed request is to be made again without the proxy, which is then left alone for a while."""
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
    Tell whether an error is the proxy's, or that of the way to it, and not one the provider would raise as well.

    What the proxy says itself has a text under ``error``, or is no JSON; what it passes on from the provider has an
    object there. A request that had no answer in time may have been taken, and so is not made again.
    """
    response = getattr(error, "response", None)
    if response is not None:
        body, _ = attempt(response.json)  # the error has it too, but not in every version
        return not isinstance(body.get("error", body) if isinstance(body, dict) else body, dict)
    names = [base.__name__ for base in type(error).__mro__]
    if "APITimeoutError" in names:
        return type(error.__cause__).__name__ == "ConnectTimeout"
    return "APIConnectionError" in names
