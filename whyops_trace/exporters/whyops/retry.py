"""
The decision about events that a WhyOps server has not stored: a pure function of its answer.

=========================================  ======================================================================
the server's answer                        the fate of the events
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
without the outcome of the events
=========================================  ======================================================================

:func:`~whyops_trace.exporters.base.backoff` takes up to half off a wait by chance, so that clients that failed
together do not come back together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import msgspec

from whyops_trace.exporters._http import Answer, NoAnswerError, retry_after
from whyops_trace.exporters.base import backoff

#: Seconds between tries if a person has to mend something first.
LONG_WAIT: Final = 60.0
#: Number of 500s in a row that are taken for the server's own fault.
TRIES_OF_500: Final = 3
#: Largest number of characters that are kept of a server's words.
EXCERPT: Final = 500


class Wait(NamedTuple):
    """
    Keep all events, and try again later.

    Attributes:
        seconds: The seconds until then.
        why: The cause and the things to check; the same text for the same cause.
        smaller: True to send fewer events then.
        doubtful: True if it may be the event's own fault. The fate of another event would show that.
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
        which: The server's words about each of them, by its place among those sent.
    """

    which: Mapping[int, str]

    @property
    def why(self) -> str:
        """The server's words about the first of them."""
        return next(iter(self.which.values()))


Decision: TypeAlias = Wait | Split | GiveUp


class Refusal(NamedTuple):
    """
    The words of a WhyOps server about events that it refuses.

    Attributes:
        words: Its words about all of them.
        which: Its words about each event that it names, by the event's place among those sent. It may name none.
    """

    words: str
    which: Mapping[int, str]


def decide(
    answer: Answer | NoAnswerError,
    *,
    attempt: int,
    events: int,
    now: datetime,
    chance: float,
    neighbour_accepted: bool = False,
) -> Decision:
    """
    Return the decision about events that were sent and not stored, by the table in the module's docstring.

    Args:
        answer: The server's answer, or the reason that there is none.
        attempt: Number of times in a row that the server has not stored anything, this time included. It is the same
            for all parts of a split.
        events: Number of events that were sent.
        now: The time, for a ``Retry-After`` that is a date.
        chance: A number from 0 to 1: the share of the random part of a backoff to leave out.
        neighbour_accepted: True if another event was stored since this one failed alone.
    """
    if isinstance(answer, NoAnswerError):
        return Wait(backoff(attempt, chance), f"{answer}.", smaller=answer.timed_out)
    status = answer.status
    details = refusal(answer, events) if status in (400, 409) else None
    if details is not None:
        return _refused(status, details, events)
    if status == 413:
        return Split() if events > 1 else GiveUp({0: "413: the server takes no event of this size"})
    if status == 500:
        return _internal_error(answer, attempt, events, chance, neighbour_accepted)
    if status == 429:
        pause = retry_after(answer, now)
        seconds = backoff(attempt, chance) if pause is None else max(pause, backoff(1, chance))
        return Wait(seconds, "it asks for fewer requests (429).")
    if status >= 500 or status in (408, 425):
        why = f"it is not available at present ({status})."
        return Wait(max(backoff(attempt, chance), retry_after(answer, now) or 0.0), why)
    return Wait(LONG_WAIT, misconfiguration(answer))


def _refused(status: int, details: Refusal, events: int) -> Decision:
    if events == 1:
        return GiveUp({0: f"{status}: {details.words}"})
    if not details.which:
        return Split()
    return GiveUp({place: f"{status}: {words}" for place, words in details.which.items()})


def _internal_error(
    answer: Answer, attempt: int, events: int, chance: float, neighbour_accepted: bool
) -> Decision:
    if attempt > TRIES_OF_500 and events > 1:
        return Split()
    if events == 1 and neighbour_accepted:
        return GiveUp({0: f"500: {_words(answer)}"})
    doubtful = events == 1 and attempt > TRIES_OF_500
    return Wait(backoff(attempt, chance), "it fails with an error of its own (500).", doubtful=doubtful)


def refusal(answer: Answer, events: int) -> Refusal | None:
    """
    Return the refusal of a WhyOps server, None if the answer has another shape and so comes from something else.

    Its shapes are ``{"error": "..."}`` and ``{"error": "...", "details": [{"field": "3.spanId", "message"}]}``. A field
    begins with the place of the event.
    """
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return None
    details = body.get("details")
    by_place: dict[int, list[str]] = {}
    without_place: list[str] = []
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            place, field = _place(str(detail.get("field")), events)
            words = without_place if place is None else by_place.setdefault(place, [])
            words.append(f"{field}: {detail.get('message')}")
    which = (
        {} if without_place else {place: _joined(body["error"], words) for place, words in by_place.items()}
    )
    return Refusal(_joined(body["error"], chain(without_place, *by_place.values())), which)


def _place(field: str, events: int) -> tuple[int | None, str]:
    """Return the place of the event that a field belongs to, None if it names none, and the field of that event."""
    place, _, rest = field.partition(".")
    if place in map(str, range(events)):
        return int(place), rest or "event"
    return None, field


def _joined(error: str, words: Iterable[str]) -> str:
    return "; ".join([error, *words])[:EXCERPT]


def misconfiguration(answer: Answer) -> str:
    """Return the things to check after an answer that no WhyOps server gives to events."""
    status = answer.status
    if status in (401, 403):
        return (
            f"it refuses the API key ({status}). Check api_key (WHYOPS_API_KEY): it begins with whyops_ or YOPS-, "
            "belongs to this server, and has not been revoked."
        )
    reply = f"redirects ({status})" if 300 <= status < 400 else f"answers {status}, as no WhyOps server does,"
    return (
        f"it {reply} where events are taken. Check analyse_base_url (WHYOPS_ANALYSE_URL): it is the URL of the server "
        f"itself with its /api, and nothing before it asks for a login."
    )


def _words(answer: Answer) -> str:
    return answer.body[:EXCERPT].decode(errors="replace").strip()[:100]
