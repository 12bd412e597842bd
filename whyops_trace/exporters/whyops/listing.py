"""The events of a trace as a WhyOps server lists them, as long as it does."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._shapes import text_of
from whyops_trace.exporters._http import Http, NoAnswerError, retry_after
from whyops_trace.exporters.base import backoff

#: Start of the key that a server makes of the content of an event without one, as the proxy's are.
CONTENT_KEY: Final = "hash_"
#: Largest number of events that a server shows at a time.
MOST: Final = 200
#: Failures in a row after which the server is left alone for a while.
FEW: Final = 3
#: Seconds after an answer within which the next one may miss its time: that of a look may be short.
ANSWERED: Final = 5.0


class _About(msgspec.Struct, rename="camel", gc=False):
    idempotency_key: Any = None


class Row(msgspec.Struct, rename="camel", gc=False):
    """An event as a server lists it."""

    event_type: str
    timestamp: str
    step_id: int | None = None
    metadata: _About | None = None

    @property
    def key(self) -> str:
        """Its idempotency key, "" if the server shows none."""
        return text_of(self.metadata.idempotency_key) if self.metadata is not None else ""

    @property
    def is_proxied(self) -> bool:
        """True if the proxy reported it, without a key: then the server makes one of the content."""
        return self.key.startswith(CONTENT_KEY)


class _Rows(msgspec.Struct, gc=False):
    events: list[Row]


_rows: Final = msgspec.json.Decoder(_Rows)


def step_of(http: Http, trace_id: str, key: str, timeout: float) -> int | None:
    """
    Return the step of an event of a trace, None if it is not among the latest ones that the server shows.

    Args:
        http: The server.
        trace_id: The trace id.
        key: The idempotency key of the event.
        timeout: Seconds to wait for the answer.
    """
    query: dict[str, str | int] = {"traceId": trace_id, "limit": MOST, "include": "metadata"}
    try:
        rows = _rows.decode(http.get("/events", query, timeout=timeout).body).events
    except (NoAnswerError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return next((row.step_id for row in rows if row.key == key), None)


class Listing:
    """
    The list of events of a server. Any thread may use it.

    After a few failures in a row it is off for a while, which each further one doubles, or for as long as the server
    asks for. Nobody should wait for it then.

    Args:
        http: The server.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        #: Failures in a row.
        self._failures = 0
        #: Time of :func:`time.monotonic` of the last failure, or of the last events that were shown.
        self._known = 0.0
        #: Time of the last answer, whatever it showed.
        self._answered = -ANSWERED
        self._off_until = 0.0

    @property
    def is_off(self) -> bool:
        """True while the server is left alone."""
        return time.monotonic() < self._off_until

    def latest(self, trace_id: str, limit: int, timeout: float) -> list[Row]:
        """
        Return the latest events of a trace, none if the server does not show them.

        Args:
            trace_id: The trace id.
            limit: Largest number of events, at most 200.
            timeout: Seconds to wait for the answer.
        """
        query: dict[str, str | int] = {"traceId": trace_id, "limit": limit, "include": "metadata"}
        try:
            answer = self._http.get("/events", query, timeout=timeout)
        except NoAnswerError as error:
            if time.monotonic() - self._answered > ANSWERED:
                self._failed(str(error))
            return []
        try:
            rows = _rows.decode(answer.body).events
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._failed(f"it answers {answer.status}", retry_after(answer, datetime.now(UTC)))
            return []
        self._answered = time.monotonic()
        if rows:
            self._failures, self._known = 0, time.monotonic()
        return rows

    def note_vain(self, since: float) -> None:
        """Note that somebody has waited in vain since a time of :func:`time.monotonic`."""
        if self._known < since:
            self._failed("it shows none of the trace")

    def _failed(self, why: str, pause: float | None = None) -> None:
        self._failures += 1
        self._known = time.monotonic()
        if self._failures < FEW and pause is None:
            return
        self._off_until = self._known + max(
            pause or 0.0, backoff(max(self._failures - FEW + 1, 1), chance=0.0)
        )
        warn_once(
            "events of the proxy",
            "The server does not show which events of the WhyOps proxy it has (%s). Nothing waits for them until it "
            "does, so their order on the server may be wrong; it is asked again now and then, without a word.",
            why,
        )
