"""
The decision about spans that a receiver has not taken: a pure function of its answer.

=========================================  ======================================================================
the receiver's answer                      the fate of the spans
=========================================  ======================================================================
no answer: refused, reset, DNS, TLS, late  wait with backoff, for as long as it takes
429, 408, 502, 503, 504                    wait with backoff, at least as long as ``Retry-After`` says
500 and other 5xx                          the same; from the fourth time in a row split. A single one is rejected
                                           if others are taken, or after the 20th time
413                                        split; a single one is rejected
400, 422 and other 4xx                     split; a single one is rejected
401, 403, 404, 405, 407, 415, a redirect,  wait long: the key, the address or the protocol is wrong
any other answer
=========================================  ======================================================================
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

import msgspec

from whyops_trace._reading.excerpt import clean, shorten
from whyops_trace._shapes import dict_of, text_of
from whyops_trace.exporters._http import Answer, NoAnswerError, retry_after
from whyops_trace.exporters.base import backoff

#: Seconds between tries if a person has to mend something first.
LONG_WAIT: Final = 60.0
#: Number of 500s in a row that are taken for the receiver's own fault. OTLP says that a 500 is for good, but receivers
#: give it also while what they store to is away, and SDKs try again.
TRIES_OF_500: Final = 3
#: Number of 500s in a row after which what fails by itself is rejected, in about eight minutes.
TRIES_OF_ONE: Final = 20
#: Characters that are kept of a receiver's words.
_WORDS: Final = 300

_WAITING: Final = (408, 429, 502, 503, 504)
_WRONG: Final = (401, 402, 403, 404, 405, 407, 415, 421)


class Wait(NamedTuple):
    """Keep the spans, and try again after some seconds. The cause is the same text for the same cause."""

    seconds: float
    why: str


class Refused(NamedTuple):
    """
    Send the first half of the spans, then the second; reject one that is alone.

    Attributes:
        words: The receiver's.
        is_failure: It says that it failed, which may be its own fault.
    """

    words: str
    is_failure: bool = False


class Taken(NamedTuple):
    """
    The receiver has the spans, but for some.

    Attributes:
        rejected: Number of spans that it will never take.
        words: What it says of them, or of all; "" for nothing.
    """

    rejected: int = 0
    words: str = ""


Decision: TypeAlias = Wait | Refused | Taken


def decide(answer: Answer | NoAnswerError, *, attempt: int, now: datetime, chance: float) -> Decision:
    """
    Return the decision about spans that were sent, by the table in the module's docstring.

    Args:
        answer: The receiver's answer, or the reason that there is none.
        attempt: Number of times in a row that it has not taken anything, this time included.
        now: The time, for a ``Retry-After`` that is a date.
        chance: A number from 0 to 1: the share of the random part of a backoff to leave out.
    """
    if isinstance(answer, NoAnswerError):
        return Wait(backoff(attempt, chance), f"{answer}.")
    status = answer.status
    if 200 <= status < 300:
        return _taken(answer)
    if status in _WRONG or status < 400:
        return Wait(LONG_WAIT, advice(answer))
    if status in _WAITING or (status >= 500 and attempt <= TRIES_OF_500):
        why = (
            "it asks for fewer requests (429)."
            if status == 429
            else f"it is not available at present ({status})."
        )
        return Wait(max(backoff(attempt, chance), retry_after(answer, now) or 0.0), why)
    return Refused(f"{status}: {words_of(answer)}".rstrip(": "), status >= 500)


def advice(answer: Answer) -> str:
    """Return what to check after an answer that no receiver gives to spans."""
    status = answer.status
    if status in (401, 402, 403, 407):
        return (
            f"it refuses the key ({status}). Check OTEL_EXPORTER_OTLP_HEADERS: the header that the receiver asks for,"
            " such as Authorization=Bearer%20KEY, with %20 for a space."
        )
    if status == 415:
        return (
            "it does not take this encoding (415). Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and leave"
            " OTEL_EXPORTER_OTLP_COMPRESSION away."
        )
    says = f"redirects ({status})" if 300 <= status < 400 else f"answers {status}"
    return (
        f"it {says} at this address. Check OTEL_EXPORTER_OTLP_ENDPOINT: it gets /v1/traces at its end, and the port is"
        " that of OTLP over HTTP, usually 4318."
    )


def words_of(answer: Answer) -> str:
    """Return the words of a receiver in a refusal, which OTLP has as a ``google.rpc.Status``."""
    if "json" in answer.headers.get("content-type", ""):
        said = _json(answer.body)
        words = text_of(said.get("message")) or text_of(said.get("detail")) or text_of(said.get("error"))
    elif "protobuf" in answer.headers.get("content-type", ""):
        words = _members(answer.body).get(2, b"").decode(errors="replace")  # type: ignore[union-attr]
    else:
        words = ""
    return shorten(clean(words or answer.body[:_WORDS].decode(errors="replace")), _WORDS)


def _taken(answer: Answer) -> Taken | Wait:
    """Return what an ``ExportTraceServiceResponse`` says."""
    kind = answer.headers.get("content-type", "")
    if "html" in kind:
        return Wait(LONG_WAIT, "a web page answers at this address. Check OTEL_EXPORTER_OTLP_ENDPOINT.")
    if "json" in kind:
        partial = dict_of(_json(answer.body).get("partialSuccess"))
        rejected_items = partial.get("rejectedSpans", partial.get("rejectedLogRecords", 0))
        count, words = str(rejected_items), text_of(partial.get("errorMessage"))
        rejected_spans = int(count[:9]) if count.isascii() and count.isdigit() else 0
        return Taken(rejected_spans, shorten(clean(words), _WORDS))
    inner = _members(answer.body).get(1, b"")
    partial_success = _members(inner) if isinstance(inner, bytes) else {}
    rejected, told = partial_success.get(1, 0), partial_success.get(2, b"")
    return Taken(
        rejected if isinstance(rejected, int) else 0,
        shorten(clean(told.decode(errors="replace")), _WORDS) if isinstance(told, bytes) else "",
    )


def _json(body: bytes) -> dict[str, object]:
    try:
        return dict_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _members(message: bytes) -> dict[int, int | bytes]:
    """Return the numbers and bytes in a message of protobuf by the number of their field; none if it is no such."""
    members: dict[int, int | bytes] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    try:
        while place < len(message):
            tag = number()
            value = number()
            if tag & 7 == 0:
                members[tag >> 3] = value
            elif tag & 7 == 2:
                members[tag >> 3] = message[place : place + value]
                place += value
            else:
                return {}
    except IndexError:
        return {}
    return members
