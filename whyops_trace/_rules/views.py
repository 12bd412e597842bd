"""The records of a trace as rules look at them: each member of a type that can be relied on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from whyops_trace._reading.nodes import recorded_by
from whyops_trace._recording.line import LOCAL
from whyops_trace._shapes import dict_of, text_of


class View(NamedTuple):
    """
    A record.

    Attributes:
        kind: The event type.
        step: Its number, 0 if it has none.
        parent: The step it follows from, 0 if it has none.
        within: The step of the enclosing call, 0 at the top.
        span: Its span id.
        moment: When it was recorded, in whole milliseconds since the epoch; None if that is not known.
        process: The token of the process of this library that recorded it, "" if another program did.
        run: The numbering it belongs to.
        trace_id: The trace it belongs to.
        metadata: Its metadata.
        content: Its content, which may be anything.
    """

    kind: str
    step: int
    parent: int
    within: int
    span: str
    moment: int | None
    process: str
    run: str
    trace_id: str
    metadata: dict[str, Any]
    content: Any

    @property
    def is_local(self) -> bool:
        """Whether no WhyOps server sees it."""
        return self.kind in LOCAL


def views(events: Iterable[Mapping[str, Any]]) -> list[View]:
    """Return the records of a trace in the order in which a WhyOps server reads them: by time, then by step."""
    return sorted(map(_view, events), key=_order)


def _view(event: Mapping[str, Any]) -> View:
    metadata = dict_of(event.get("metadata"))
    return View(
        kind=text_of(event.get("eventType")),
        step=_number(event.get("stepId")),
        parent=_number(event.get("parentStepId")),
        within=_number(metadata.get("within")),
        span=text_of(event.get("spanId")),
        moment=_moment(event.get("timestamp")),
        process=recorded_by(event),
        run=text_of(event.get("run")),
        trace_id=text_of(event.get("traceId")),
        metadata=metadata,
        content=event.get("content"),
    )


def _order(view: View) -> tuple[float, int, bool]:
    # The end of a step or trace repeats the step of its beginning.
    return (-math.inf if view.moment is None else view.moment, view.step, view.is_local)


def _number(thing: object) -> int:
    return thing if type(thing) is int and thing > 0 else 0


def _moment(timestamp: object) -> int | None:
    """Return a timestamp to the millisecond, as a server keeps it: what is finer is cut off."""
    try:
        moment = datetime.fromisoformat(text_of(timestamp))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Half a microsecond mends what the float lost.
    return math.floor(moment.timestamp() * 1000 + 0.0005)
