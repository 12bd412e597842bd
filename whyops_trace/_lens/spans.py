"""Members of spans in the forms that products give them, and a batch of the spans that can be shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from whyops_trace._otel.evaluations import result_of
from whyops_trace._otel.span import EVALUATION, Batch, LogRecord, Span, checked

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEX: Final = re.compile(r"[0-9a-f]+")
_KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_STATUSES: Final = {"ok": 1, "error": 2}


def batch_of(items: Iterable[T], read: Callable[[T], Span]) -> Batch:
    """Return the spans of items, with a reason for each that is none."""
    batch = Batch()
    for item in items:
        try:
            batch.spans.append(checked(read(item)))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            batch.refused.append(str(error) or "The item is nested too deep.")
    return batch


def kind_of(name: str) -> int:
    """Return the number of a kind: ``client``, ``Client``, ``SPAN_KIND_CLIENT``; 0 for any other."""
    return _KINDS.get(name.lower().removeprefix("span_kind_"), 0)


def status_of(name: str) -> int:
    """Return the number of a status: ``ERROR``, ``Error``, ``STATUS_CODE_ERROR``; 0 for any other."""
    return _STATUSES.get(name.lower().removeprefix("status_code_"), 0)


def time_ns(value: Any) -> int:
    """
    Return a time in ISO 8601, by default in UTC, in nanoseconds since the epoch; 0 if there is none.

    Raises:
        ValueError: if it is no time.
    """
    if not isinstance(value, str) or not value:
        return 0
    moment = datetime.fromisoformat(value)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1_000


def id_of(text: str, length: int) -> str:
    """Return an id of so many hex digits: the text itself or that of a UUID, with zeros before it, else its hash."""
    digits = text.lower().replace("-", "") if len(text) == 36 else text.lower()
    if len(digits) <= length and _HEX.fullmatch(digits):
        return digits.zfill(length)
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=length // 2).hexdigest() if text else ""


def add_score(
    batch: Batch, span_id: str, time: Any, name: Any, value: Any, label: Any = None, comment: Any = None
) -> None:
    """
    Add a score of a product to what it told of a trace.

    Args:
        batch: The spans of the trace, of which there is one at least.
        span_id: The span that is judged, "" for the trace as a whole.
        time: When it was given, as for :func:`time_ns`.
        name: What is judged.
        value: A number or a thumb.
        label: The judgement in words.
        comment: The reason.
    """
    first = batch.spans[0]
    try:
        moment = time_ns(time)
    except (ValueError, OverflowError):
        moment = 0
    about = result_of(name, value, label, comment)
    batch.logs.append(LogRecord(first.trace_id, span_id, EVALUATION, moment or first.start_ns, about, None))
