"""
Requests to a server, and the only module that knows the HTTP library.

It uses a transport of that library and not its client. The client writes a line to the host program's log for each
request, follows redirects and keeps cookies. A server of events needs none of that.
"""

from __future__ import annotations

import codecs
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore  # noqa: F401 - httpx imports it with its first connection
import httpx

from whyops_trace._forks import at_fork
from whyops_trace._version import __version__
from whyops_trace.settings import shown_url

# All that a request needs is imported with this module, in the thread that makes a client. A child that is forked while
# a worker imports a module could never import it, and other packages would take a half-imported httpx for the whole.
codecs.lookup("idna")  # an address is looked up by it

#: Seconds to wait for a connection, and for each part of an answer. A server that stores 200 events one after the other
#: takes three, and six more if it was idle.
CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
#: Largest number of seconds for a whole answer that comes in small pieces, and of bytes in it.
ANSWER_TIMEOUT: Final = 60.0
MAX_ANSWER: Final = 8 << 20
#: Seconds that an idle connection is kept. A Node server closes it after five.
KEEP_ALIVE: Final = 4.0
#: Seconds that a fork waits for connections to be made ready.
FORK_TIMEOUT: Final = 5.0
#: Largest number of seconds that a server is left alone because it asked for it.
LONGEST_WAIT: Final = 600.0


class Answer(NamedTuple):
    """
    The answer of a server.

    Attributes:
        status: The HTTP status.
        headers: The headers, their names in lower case.
        body: The bytes of the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswerError(Exception):
    """
    The server could not be reached, or did not finish its answer. It may have done what was asked, or not.

    Attributes:
        timed_out: True if it took too long, False if the connection failed.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out: bool = timed_out


class Http:
    """
    Requests to one server. Several threads may use it. In a forked child it opens connections of its own.

    The proxies of the environment (``HTTPS_PROXY``, ``NO_PROXY``) and its certificates (``SSL_CERT_FILE``) are obeyed.

    Args:
        base_url: The URL that every path is appended to.
        api_key: The key, which is sent as a bearer token; "" for none.
        read_timeout: Seconds to wait for each part of an answer.
        headers: More headers, which come before the usual ones of the same name.
        trust: The certificates that are trusted and shown, if not the usual ones.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        read_timeout: float = READ_TIMEOUT,
        headers: Mapping[str, str] = {},
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.base_url = base_url
        usual = {
            "Authorization": f"Bearer {api_key}" if api_key else "",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"whyops-trace/{__version__}",
        }
        named = {name.lower() for name in headers}
        self._headers = {
            **{name: value for name, value in usual.items() if value and name.lower() not in named},
            **headers,
        }
        self._trust = trust
        self._timeout = {
            "connect": CONNECT_TIMEOUT,
            "read": read_timeout,
            "write": read_timeout,
            "pool": read_timeout,
        }
        self._transport: httpx.HTTPTransport | None = None
        #: Held while connections are being made ready, during which nobody forks.
        self._lock = threading.Lock()
        self._paused = False
        _all.add(self)

    def prepare(self) -> None:
        """Load the trusted certificates. If that fails here, it fails at a request too."""
        self._connections()

    def post(self, path: str, body: bytes, *, timeout: float | None = None) -> Answer:
        """
        Send a body: JSON, unless the headers say otherwise.

        Args:
            path: The end of the URL.
            body: The body.
            timeout: Seconds to wait for the whole answer, if less than usual.

        Raises:
            NoAnswerError: if there is no complete answer.
        """
        return self._request("POST", path, body=body, timeout=timeout)

    def get(self, path: str, params: Mapping[str, str | int], *, timeout: float | None = None) -> Answer:
        """
        Request JSON.

        Args:
            path: The end of the URL.
            params: The query.
            timeout: As in :meth:`post`.

        Raises:
            NoAnswerError: if there is no complete answer.
        """
        return self._request("GET", path, params=params, timeout=timeout)

    def close(self) -> None:
        """Close the connections. The next request opens a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def pause(self) -> None:
        """Keep connections from being made ready during a fork: OpenSSL would be locked for ever in the child."""
        self._paused = self._lock.acquire(timeout=FORK_TIMEOUT)

    def resume(self) -> None:
        """Go on in the parent of a fork."""
        if self._paused:
            self._paused = False
            self._lock.release()

    def start_over(self) -> None:
        """Leave the connections to the parent of this fork: closing them may wait for a lock of its threads."""
        self._lock = threading.Lock()
        self._paused = False
        if self._transport is not None:
            _parents_transports.append(self._transport)
            self._transport = None

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        timeout: float | None,
    ) -> Answer:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        try:
            request = httpx.Request(
                method,
                self.base_url + path,
                params=params,
                headers=self._headers,
                content=body,
                extensions={"timeout": _Left(self._timeout, deadline)},
            )
            response = self._connections().handle_request(request)
            try:
                return Answer(response.status_code, response.headers, _body(response, deadline))
            finally:
                response.close()
        except httpx.TimeoutException as error:
            raise NoAnswerError(
                f"{shown_url(self.base_url)} does not answer in time", timed_out=True
            ) from error
        except (httpx.TransportError, httpx.InvalidURL, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise NoAnswerError(f"{shown_url(self.base_url)} cannot be reached: {why}") from error

    def _connections(self) -> httpx.HTTPTransport:
        with self._lock:
            if self._transport is None:
                url = urlsplit(self.base_url)
                proxies = {} if proxy_bypass(url.hostname or "") else getproxies()
                proxy = proxies.get(url.scheme) or proxies.get("all")
                self._transport = httpx.HTTPTransport(
                    # Loading the certificates takes longer than all else, and plain HTTP needs none.
                    verify=self._trust or url.scheme == "https" or proxy is not None,
                    proxy=proxy,
                    limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE),
                )
            return self._transport


def retry_after(answer: Answer, now: datetime) -> float | None:
    """Return the seconds that a server asks to be left alone, at most 600; None if it names none that make sense."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_WAIT)


class _Left(dict[str, float]):
    """
    The seconds until a deadline, for each part of a request. The HTTP library asks for them when the part begins.

    Args:
        usual: The most for each part.
        deadline: The :func:`time.monotonic` time.
    """

    def __init__(self, usual: Mapping[str, float], deadline: float) -> None:
        super().__init__(usual)
        self._deadline = deadline

    def get(self, part: str, default: Any = None) -> Any:
        """Return the seconds that are left for a part, at least a millisecond: at 0 nothing would be tried."""
        return min(super().get(part, self._deadline), max(self._deadline - time.monotonic(), 0.001))


def _body(response: httpx.Response, deadline: float) -> bytes:
    deadline = min(deadline, time.monotonic() + ANSWER_TIMEOUT)
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if time.monotonic() > deadline:
            raise NoAnswerError("The answer takes too long.", timed_out=True)
        if len(body) > MAX_ANSWER:
            raise NoAnswerError("The answer is too long for one about events.")
    return bytes(body)


#: Every :class:`Http` alive, for forks.
_all: weakref.WeakSet[Http] = weakref.WeakSet()
#: Connections of a forked child's parent. They are kept until the process is gone, so that nothing warns that they
#: were never closed.
_parents_transports: list[httpx.HTTPTransport] = []


def _before_fork() -> None:
    for http in sorted(_all, key=id):
        http.pause()


def _after_fork_in_parent() -> None:
    for http in _all:
        http.resume()


def _after_fork_in_child() -> None:
    for http in _all:
        http.start_over()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
