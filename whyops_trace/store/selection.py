"""Which traces a list shows: what may be asked for, and its form in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._reading.summary import LOOP

#: Seconds after its last event that a trace counts as running whose process nobody can look at.
QUIET: Final = 300


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which traces: those for which all holds that is not None.

    Attributes:
        agent: The name of the agent.
        user: The user it acted for last.
        tag: One of its tags.
        failed: Whether it ended with an error.
        errors: Whether anything in it failed, be it that the agent got over it.
        looping: Whether a tool was called with the same arguments at least :data:`LOOP` times in a row.
        running: Whether more may come.
        stopped: Whether its process went in the middle of it.
        unanswered: Whether something was asked and neither an answer nor an error came, and nothing more will.
        min_seconds: It took at least as long.
        max_seconds: It took at most as long.
        since: Its latest record is not older, ISO 8601 in UTC.
        until: Its latest record is older, ISO 8601 in UTC.
        ids: It is one of these.
    """

    agent: str | None = None
    user: str | None = None
    tag: str | None = None
    failed: bool | None = None
    errors: bool | None = None
    looping: bool | None = None
    running: bool | None = None
    stopped: bool | None = None
    unanswered: bool | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    since: str | None = None
    until: str | None = None
    ids: Sequence[str] | None = None


class Counts(NamedTuple):
    """
    How many traces there are.

    Attributes:
        total: All of them.
        failed: Those that ended with an error.
        looping: Those that called a tool in a loop.
        stopped: Those whose process went in the middle of them.
        unanswered: Those that were asked something and never answered.
        slow: Those that took longer than 95 of 100 do.
    """

    total: int = 0
    failed: int = 0
    looping: int = 0
    stopped: int = 0
    unanswered: int = 0
    slow: int = 0


def running(now: int) -> str:
    """Return the condition that more may come of a trace, *now* in seconds since the epoch."""
    gone = "process IN (SELECT token FROM processes)"
    return f"(NOT ended AND CASE process WHEN '' THEN stored_at > {now - QUIET} ELSE NOT {gone} END)"


def stopped(now: int) -> str:
    """Return the condition that the process of a trace went in the middle of it."""
    return f"(open_calls > 0 AND NOT ended AND NOT {running(now)})"


def unanswered(now: int) -> str:
    """Return the condition that a trace was asked something, and that it will not answer."""
    return f"(asked <> '' AND ended_with = '' AND NOT {running(now)})"


def seconds() -> str:
    """Return the expression of how long a trace took, to the millisecond."""
    return "round((julianday(last_at) - julianday(started_at)) * 86400.0, 3)"


def conditions(where: Filter | None, now: int) -> tuple[str, list[Any]]:
    """Return a filter as an SQL condition on ``traces``, and the values of its parameters."""
    if where is None:
        return "TRUE", []
    tag = "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)"
    compared = (
        ("agent_name = ?", where.agent),
        ("external_user_id = ?", where.user),
        (tag, where.tag),
        (f"{seconds()} >= ?", where.min_seconds),
        (f"{seconds()} <= ?", where.max_seconds),
        ("last_at >= ?", where.since),
        ("last_at < ?", where.until),
        (
            "trace_id IN (SELECT value FROM json_each(?))",
            None if where.ids is None else msgspec.json.encode(list(where.ids)).decode(),
        ),
    )
    flags = (
        ("failed", where.failed),
        ("(errors > 0)", where.errors),
        (f"(repeated >= {LOOP})", where.looping),
        (running(now), where.running),
        (stopped(now), where.stopped),
        (unanswered(now), where.unanswered),
    )
    parts = [(part, [value]) for part, value in compared if value is not None]
    parts += [(part if holds else f"NOT {part}", []) for part, holds in flags if holds is not None]
    return " AND ".join(part for part, _ in parts) or "TRUE", [
        value for _, values in parts for value in values
    ]
