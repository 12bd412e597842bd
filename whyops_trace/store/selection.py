"""The selection of traces for a list: a filter, and its form in SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._reading.summary import LOOP

#: Seconds after its last event that a trace of an unknown process counts as running.
QUIET: Final = 300


#: Members of a trace's metadata that name the thread it belongs to.
THREADS: Final = (
    "thread_id", "threadId", "thread", "session_id", "sessionId", "session", "conversation_id", "conversationId",
    "conversation", "chat_id", "chatId", "group_id", "groupId",
)  # fmt: skip

#: A condition on a score. The name ends before the first sign, and may hold anything else.
_TEST: Final = re.compile(r"([^<>=]*[^<>=\s])\s*(?:(<=|>=|<|>|=)\s*(\S.*))?")
#: The words for a thumb in it.
_THUMBS: Final[dict[str, Any]] = {"up": 1, "down": 0}


class Session(NamedTuple):
    """
    The traces of one user, of one thread, or of one value in their metadata.

    Attributes:
        value: The user, thread or value.
        traces: Number of the traces.
        failed: Number of those that ended with an error.
        started_at: When the first of them began, ISO 8601.
        last_at: When the latest record of any of them was made, ISO 8601.
    """

    value: str
    traces: int
    failed: int
    started_at: str
    last_at: str


class ScoreTest(NamedTuple):
    """
    A condition on the scores of a trace and of its steps, which one of them has to meet.

    Attributes:
        name: The name of the score.
        sign: ``<``, ``<=``, ``>``, ``>=`` or ``=``; "" if any score of that name will do.
        value: A number, ``up`` or ``down`` for a thumb, or a label.
    """

    name: str
    sign: str = ""
    value: float | str = ""

    @classmethod
    def of(cls, text: str) -> ScoreTest:
        """
        Return the condition in a text such as ``correct<0.5``, ``helpful=down``, ``tone=rude`` or ``correct``.

        Raises:
            ValueError: if it is none; the message says what one looks like.
        """
        match = _TEST.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no condition on a score; write NAME, NAME<0.5 or NAME=LABEL.")
        name, sign, value = match[1], match[2] or "", match[3] or ""
        try:
            return cls(name, sign, float(value))
        except ValueError:
            if sign not in ("", "="):
                raise ValueError(f"{text!r} compares with {value!r}, which is no number.") from None
            return cls(name, sign, value)

    @property
    def condition(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and the values of its parameters."""
        values: list[Any] = [self.name]
        part = ""
        if self.sign == "=" and isinstance(self.value, str):
            is_thumb = self.value in _THUMBS
            part = " AND is_thumb AND value = ?" if is_thumb else " AND label = ?"
            values.append(_THUMBS[self.value] if is_thumb else self.value)
        elif self.sign == "=":
            part = " AND (value = ? OR label = ?)"
            values += [self.value, f"{self.value:g}"]
        elif self.sign:
            part = f" AND value {self.sign} ?"
            values.append(self.value)
        return f"trace_id IN (SELECT trace_id FROM scores WHERE name = ?{part})", values  # noqa: S608


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """
    A choice of traces: those that meet every condition that is not None.

    Attributes:
        agent: The name of the agent.
        user: The user that the agent acted for last.
        tag: One of its tags.
        session: The traces that it belongs to: ``user``, ``thread`` or a key of its metadata, and the value of that.
        failed: True if it ended with an error.
        errors: True if any call in it failed or said that it did, even if the agent recovered.
        looping: True if a tool was called with the same arguments at least three times in a row.
        running: True if more may come.
        stopped: True if its process ended in the middle of it.
        unanswered: True if it has a question, but neither an answer nor an error, and nothing more will come.
        min_seconds: Shortest duration.
        max_seconds: Longest duration.
        since: Earliest time of its latest record, ISO 8601 in UTC.
        until: Time before which its latest record is, ISO 8601 in UTC.
        ids: Ids of which it has one.
        scores: Conditions on its scores.
    """

    agent: str | None = None
    user: str | None = None
    tag: str | None = None
    session: tuple[str, str] | None = None
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
    scores: Sequence[ScoreTest] | None = None


class Counts(NamedTuple):
    """
    Numbers of traces.

    Attributes:
        total: All of them.
        failed: Those that ended with an error.
        looping: Those that called a tool in a loop.
        stopped: Those whose process ended in the middle of them.
        unanswered: Those with a question and no answer.
        slow: Those that took longer than 95 of 100 traces.
    """

    total: int = 0
    failed: int = 0
    looping: int = 0
    stopped: int = 0
    unanswered: int = 0
    slow: int = 0


def running(now: int) -> str:
    """Return the SQL condition for a trace that may get more records, *now* in seconds since the epoch."""
    has_ended = "process IN (SELECT token FROM processes)"
    return f"(NOT ended AND CASE process WHEN '' THEN stored_at > {now - QUIET} ELSE NOT {has_ended} END)"


def stopped(now: int) -> str:
    """Return the SQL condition for a trace whose process ended in the middle of it."""
    return f"(open_calls > 0 AND NOT ended AND NOT {running(now)})"


def unanswered(now: int) -> str:
    """Return the SQL condition for a trace that has a question and will not get an answer."""
    return f"(asked <> '' AND ending IN ('', 'call', 'limit') AND NOT {running(now)})"


def seconds() -> str:
    """Return the SQL expression for the duration of a trace in seconds, to the millisecond."""
    return "round((julianday(last_at) - julianday(started_at)) * 86400.0, 3)"


def session_value(by: str) -> tuple[str, list[Any]]:
    """Return the SQL expression for the user, thread or value that a trace belongs to, and its parameters."""
    if by == "user":
        return "external_user_id", []
    names = msgspec.json.encode(THREADS if by == "thread" else [by]).decode()
    value = (
        "(SELECT CAST(value AS TEXT) FROM json_each(metadata) WHERE key IN (SELECT value FROM json_each(?))"
        " AND type IN ('text', 'integer') LIMIT 1)"
    )
    return value, [names]


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
        ("(errors > 0 OR said_failed > 0)", where.errors),
        (f"(repeated >= {LOOP})", where.looping),
        (running(now), where.running),
        (stopped(now), where.stopped),
        (unanswered(now), where.unanswered),
    )
    parts = [(part, [value]) for part, value in compared if value is not None]
    parts += [(part if holds else f"NOT {part}", []) for part, holds in flags if holds is not None]
    if where.session is not None:
        by, value = where.session
        expression, parameters = session_value(by)
        parts.append((f"{expression} = ?", [*parameters, value]))
    parts += [test.condition for test in where.scores or ()]
    return " AND ".join(part for part, _ in parts) or "TRUE", [
        value for _, values in parts for value in values
    ]
