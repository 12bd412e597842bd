"""
What to do when a WhyOps server has not stored events: a pure function of what it said.

=========================================  ======================================================================
what the server said                       what happens to the events
=========================================  ======================================================================
no answer: refused, reset, DNS, TLS        wait with backoff, for as long as it takes
no answer in time                          the same, then fewer events at a time
408, 425, 502, 503, 504 and other 5xx      wait with backoff, at least as long as ``Retry-After`` says
429                                        wait as long as ``Retry-After`` says, else with backoff
500                                        wait with backoff; from the fourth time in a row split. A single event is
                                           given up only if another one is accepted, and it fails once more after that
400 and 409 of the shape of WhyOps         give up the events it names, else split; a single event is given up
413                                        split; a single event is given up
401, 403                                   wait long: the key is wrong
anything else: 404, 405, a redirect,       wait long: the URL is wrong, or something stands before the server
a page of a load balancer, a 2xx that
does not say what became of the events
=========================================  ======================================================================

The wait of :func:`~whyops_trace.exporters.base.backoff` is up to half of itself shorter by chance, so that clients
which failed together do not come back together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import msgspec

from whyops_trace.exporters.base import backoff
from whyops_trace.exporters.whyops.http import Answer, NoAnswerError

#: Seconds between tries where somebody has to mend something first.
LONG_WAIT: Final = 60.0
#: The longest time a server is left alone because it asked for it.
LONGEST_WAIT: Final = 600.0
#: Times in a row that a 500 is the server's own affair.
TRIES_OF_500: Final = 3
#: Characters kept of what a server said.
EXCERPT: Final = 500


class Wait(NamedTuple):
    """
    Keep all events, and try again later.

    Attributes:
        seconds: When.
        why: What is wrong and what to check; the same text for the same cause.
        smaller: Whether to send fewer events then.
        doubtful: Whether it may be the event's own fault, which another event's fate would show.
    """

    seconds: float
    why: str
    smaller: bool = False
    doubtful: bool = False


class Split(NamedTuple):
    """Send the first half of the events, then the second."""


class GiveUp(NamedTuple):
    """
    Never send some of the events again.

    Attributes:
        which: Their places among those sent, and the server's words about each.
    """

    which: Mapping[int, str]

    @property
    def why(self) -> str:
        """The server's words about the first of them."""
        return next(iter(self.which.values()))


Decision: TypeAlias = Wait | Split | GiveUp


class Refusal(NamedTuple):
    """
    What a WhyOps server says of events it refuses.

    Attributes:
        words: Its words about all of them.
        which: Its words about each event that it names, by its place; there may be none.
    """

    words: str
    which: Mapping[int, str]


def decide(
    said: Answer | NoAnswerError,
    *,
    attempt: int,
    events: int,
    now: datetime,
    chance: float,
    neighbour_accepted: bool = False,
) -> Decision:
    """
    Return what to do with events that were sent and not stored; the table is in the module's docstring.

    Args:
        said: The server's answer, or why there is none.
        attempt: How many times in a row the server has not stored anything, this time included; the same for all
            parts of a split.
        events: How many events were sent.
        now: The time, for a ``Retry-After`` that is a date.
        chance: From 0 to 1: how much of the random part of a backoff to leave out.
        neighbour_accepted: Whether another event was stored since this one failed alone.
    """
    if isinstance(said, NoAnswerError):
        return Wait(backoff(attempt, chance), f"{said}.", smaller=said.timed_out)
    status = said.status
    refused = refusal(said, events) if status in (400, 409) else None
    if refused is not None:
        return _refused(status, refused, events)
    if status == 413:
        return Split() if events > 1 else GiveUp({0: "413: the server takes no event of this size"})
    if status == 500:
        return _internal_error(said, attempt, events, chance, neighbour_accepted)
    if status == 429:
        asked = retry_after(said, now)
        seconds = backoff(attempt, chance) if asked is None else max(asked, backoff(1, chance))
        return Wait(seconds, "it asks for fewer requests (429).")
    if status >= 500 or status in (408, 425):
        why = f"it is not available at present ({status})."
        return Wait(max(backoff(attempt, chance), retry_after(said, now) or 0.0), why)
    return Wait(LONG_WAIT, misconfiguration(said))


def _refused(status: int, refused: Refusal, events: int) -> Decision:
    if events == 1:
        return GiveUp({0: f"{status}: {refused.words}"})
    if not refused.which:
        return Split()
    return GiveUp({place: f"{status}: {words}" for place, words in refused.which.items()})


def _internal_error(
    said: Answer, attempt: int, events: int, chance: float, neighbour_accepted: bool
) -> Decision:
    if attempt > TRIES_OF_500 and events > 1:
        return Split()
    if events == 1 and neighbour_accepted:
        return GiveUp({0: f"500: {_words(said)}"})
    doubtful = events == 1 and attempt > TRIES_OF_500
    return Wait(backoff(attempt, chance), "it fails with an error of its own (500).", doubtful=doubtful)


def refusal(answer: Answer, events: int) -> Refusal | None:
    """
    Return what a WhyOps server refused, None if the answer is not of its shape: then somebody else gave it.

    Its shapes are ``{"error": "..."}`` and ``{"error": "...", "details": [{"field": "3.spanId", "message"}]}``, where
    a field begins with the place of the event.
    """
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return None
    found = body.get("details")
    details = [detail for detail in found if isinstance(detail, dict)] if isinstance(found, list) else []
    named: dict[int, list[str]] = {}
    nowhere: list[str] = []
    for detail in details:
        place, field = _place(str(detail.get("field")), events)
        words = nowhere if place is None else named.setdefault(place, [])
        words.append(f"{field}: {detail.get('message')}")
    which = {} if nowhere else {place: _joined(body["error"], words) for place, words in named.items()}
    return Refusal(_joined(body["error"], chain(nowhere, *named.values())), which)


def _place(field: str, events: int) -> tuple[int | None, str]:
    """Return the place of the event that a field belongs to, None if it names none, and the field within it."""
    place, _, rest = field.partition(".")
    if place in map(str, range(events)):
        return int(place), rest or "event"
    return None, field


def _joined(error: str, words: Iterable[str]) -> str:
    return "; ".join([error, *words])[:EXCERPT]


def retry_after(answer: Answer, now: datetime) -> float | None:
    """Return the seconds a server asks to be left alone, bounded; None if it does not say, or makes no sense."""
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


def misconfiguration(answer: Answer) -> str:
    """Return what to check where the answer is none that a WhyOps server gives to events."""
    status = answer.status
    if status in (401, 403):
        return (
            f"it refuses the API key ({status}). Check api_key (WHYOPS_API_KEY): it begins with whyops_ or YOPS-, "
            "belongs to this server, and has not been revoked."
        )
    what = f"redirects ({status})" if 300 <= status < 400 else f"answers {status}, as no WhyOps server does,"
    return (
        f"it {what} where events are taken. Check analyse_base_url (WHYOPS_ANALYSE_URL): it is the URL of the server "
        f"itself with its /api, and nothing before it asks for a login."
    )


def _words(answer: Answer) -> str:
    return answer.body[:EXCERPT].decode(errors="replace").strip()[:100]
