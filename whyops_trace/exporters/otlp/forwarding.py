"""The destination of what a store has and of what a server received: they are sent on, by OTLP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Final

from whyops_trace._guard import attempt
from whyops_trace._otel.packing import unpack_source, unpack_whole, unpack_whole_log
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Outcome
from whyops_trace.exporters.otlp.exporter import OtlpExporter
from whyops_trace.exporters.otlp.passing import log_passed_on, origin_of, passed_on
from whyops_trace.exporters.otlp.posting import Entry, Item, Poster
from whyops_trace.exporters.otlp.span import (
    Origin,
    Span,
    encoded_log,
    encoded_log_json,
    request,
    request_of_logs_json,
)

#: The name that stands for all processes whose records a store has.
_PROCESS: Final = "store"
#: Seconds without a record after which nothing more is expected of a trace, and of a call in it that is open.
QUIET: Final = 60.0
GIVEN_UP: Final = 3_600.0
#: Number of origins of spans that are remembered.
_MAX_ORIGINS: Final = 200


class ForwardExporter(OtlpExporter):
    """
    Sends on what came, to one receiver.

    Args:
        endpoint: As in :class:`OtlpExporter`.
        headers: As there.
        content: As there.
        openinference: As there.
        home: The home of the store.
    """

    _whole = True

    def __init__(
        self,
        endpoint: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bool | None = None,
        openinference: bool | None = None,
        home: Path,
    ) -> None:
        super().__init__(
            endpoint, headers=headers, content=content, openinference=openinference, name="forward", home=home
        )
        is_json = self.settings.protocol == "http/json"
        base, mark, query = self.settings.endpoint.partition("?")
        self._log_poster = Poster(
            self.settings,
            "forward",
            f"{base.removesuffix('/v1/traces')}/v1/logs{mark}{query}",
            request_of_logs_json if is_json else request,
            is_optional=True,
        )
        self._encode_log = encoded_log_json if is_json else encoded_log
        self._origin_of = lru_cache(_MAX_ORIGINS)(_made_origin)
        #: The spans and log records that are on their way, and have not passed yet.
        self._passing: list[Entry] = []
        #: The spans of traces that are quiet, which were made and not sent.
        self._quiet: list[Span] = []

    @property
    def place(self) -> str:
        """A name for the receiver, as files have it. A key that is renewed does not make it another one."""
        return "forward-" + hashlib.sha256(self.settings.endpoint.encode(errors="replace")).hexdigest()[:16]

    def send_records(self, lines: Sequence[bytes]) -> Sequence[Outcome]:
        """
        Send the spans that records of the store complete.

        Returns:
            As :meth:`export`.

        Raises:
            DeliveryError: as :meth:`export`.
        """
        return self.export(Batch(_PROCESS, lines, adopted=True))

    def send_quiet(self, quiet: float, given_up: float) -> None:
        """
        Send traces as a whole that nobody ends, and calls of which no end will be seen.

        Args:
            quiet: Seconds without a record after which nothing more is expected of a trace.
            given_up: The same of a call that is open.

        Raises:
            DeliveryError: if the receiver does not take them. They are sent again next time.
        """
        reader = self._reader(_PROCESS, load=True)
        if self._ahead.get(_PROCESS):
            return  # records that were read wait before them
        now = time.time()
        self._quiet = self._quiet or reader.quiet(now - quiet, now - given_up)
        if self._quiet:
            self._send_last(self._quiet, reader)
            self._quiet = []
            self._state.save(reader, forget=False)

    def send_items(self, items: Sequence[tuple[bytes, bool]]) -> Sequence[Outcome]:
        """
        Send spans and log records that came from elsewhere.

        Args:
            items: Each as it was packed, and True for a log record.

        Returns:
            As :meth:`export`.

        Raises:
            DeliveryError: as :meth:`export`.
        """
        entries, self._passing = self._passing, []
        while entries and entries[0].line != items[0][0]:
            entries.pop(0)  # there was no room for it any more
        entries += [self._entry(data, is_log) for data, is_log in items[len(entries) :]]
        self._passing = entries
        error: DeliveryError | None = None
        try:
            for poster, are_logs in ((self._poster, False), (self._log_poster, True)):
                poster.send_all(
                    [entry for entry, item in zip(entries, items, strict=False) if item[1] is are_logs]
                )
        except DeliveryError as raised:
            error = raised
        outcomes = [entry.outcome for entry in takewhile(lambda entry: entry.outcome is not None, entries)]
        self._passing = entries[len(outcomes) :]
        if error is not None and not outcomes:
            raise error
        return outcomes  # type: ignore[return-value]

    def close(self) -> None:
        """Close the connections and the file of open calls. What is open goes on with the next process."""
        self._log_poster.close()
        super().close()

    def _entry(self, data: bytes, is_log: bool) -> Entry:
        item, _ = attempt(self._log if is_log else self._span, data)
        # What was damaged on the disk will never be taken.
        return Entry(data, [item] if item else [], None if item else Outcome.REJECTED)

    def _span(self, data: bytes) -> Item:
        span, source = unpack_whole(data)
        told = self._poster.encode(passed_on(span, content=self.settings.content))
        return Item(self._origin_of(source), told)

    def _log(self, data: bytes) -> Item:
        log, source = unpack_whole_log(data)
        told = self._encode_log(log_passed_on(log, content=self.settings.content))
        return Item(self._origin_of(source), told)


def _made_origin(source: bytes) -> Origin:
    return origin_of(unpack_source(source))
