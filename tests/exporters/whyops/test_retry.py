"""What happens to events that a server did not store, by what it said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import STEADY

from whyops_trace.exporters._http import LONGEST_WAIT, Answer, NoAnswerError, retry_after
from whyops_trace.exporters.base import FIRST_BACKOFF, LAST_BACKOFF, backoff
from whyops_trace.exporters.whyops.retry import (
    EXCERPT,
    LONG_WAIT,
    TRIES_OF_500,
    Decision,
    GiveUp,
    Split,
    Wait,
    decide,
)

NOW = datetime(2026, 11, 21, 22, 30, tzinfo=UTC)
LATER = "Sat, 21 Nov 2026 22:31:30 GMT"
HTML = b"<html><body><h1>Bad Request</h1></body></html>"
REFUSED = NoAnswerError("http://127.0.0.1 cannot be reached: Connection refused")
SLOW = NoAnswerError("http://127.0.0.1 does not answer in time", timed_out=True)


def answer(status: int, body: Any = b"", **headers: str) -> Answer:
    """An answer; a body that is no bytes is JSON, a header's underscores are hyphens."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def decided(said: Answer | NoAnswerError, **circumstances: Any) -> Decision:
    """What is decided for ten events at the first attempt, unless told otherwise."""
    return decide(said, **{"attempt": 1, "events": 10, "now": NOW, "chance": 0.0, **circumstances})


def brief(value: object) -> str:
    """A name for a case of a test."""
    return repr(value)[:90]


def named(*fields: str) -> Answer:
    """A 400 that names what is wrong."""
    details = [{"field": field, "message": "Required", "code": "custom"} for field in fields]
    return answer(400, {"error": "Validation failed", "details": details})


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (REFUSED, FIRST_BACKOFF),
        (SLOW, FIRST_BACKOFF),
        (answer(408), FIRST_BACKOFF),
        (answer(425), FIRST_BACKOFF),
        (answer(500), FIRST_BACKOFF),
        (answer(502, HTML), FIRST_BACKOFF),
        (answer(503), FIRST_BACKOFF),
        (answer(504), FIRST_BACKOFF),
        (answer(599), FIRST_BACKOFF),
        (answer(503, retry_after="7"), 7.0),
        (answer(503, retry_after="0"), FIRST_BACKOFF),
        (answer(429), FIRST_BACKOFF),
        (answer(429, retry_after="7"), 7.0),
        (answer(429, retry_after=LATER), 90.0),
        (answer(429, retry_after="soon"), FIRST_BACKOFF),
        (answer(401, {"error": "Unauthorized: Authentication required"}), LONG_WAIT),
        (answer(403), LONG_WAIT),
        (answer(404, {"error": "Not Found"}), LONG_WAIT),
        (answer(405), LONG_WAIT),
        (answer(301, location="https://example.com"), LONG_WAIT),
        (answer(302), LONG_WAIT),
        (answer(200, HTML), LONG_WAIT),
        (answer(201, {"success": True}), LONG_WAIT),
        (answer(202, {"success": True, "accepted": True, "queuedCount": 10}), LONG_WAIT),
        (answer(204), LONG_WAIT),
        (answer(400, HTML), LONG_WAIT),
        (answer(400, {"message": "Bad Request"}), LONG_WAIT),
        (answer(400, {"error": {"code": 3}}), LONG_WAIT),
        (answer(400, ["error"]), LONG_WAIT),
        (answer(400, b"\xff"), LONG_WAIT),
        (answer(400, b"[" * 100_000), LONG_WAIT),
        (answer(409, HTML), LONG_WAIT),
        (answer(418), LONG_WAIT),
        (answer(422, {"error": "no"}), LONG_WAIT),
    ],
    ids=brief,
)
def test_what_is_not_the_fault_of_an_event_is_waited_for(
    said: Answer | NoAnswerError, seconds: float
) -> None:
    """An outage is waited for with backoff, what somebody has to mend for long; nothing is ever given up."""
    for events in (1, 10):
        decision = decided(said, events=events)

        assert isinstance(decision, Wait)
        assert decision.seconds == seconds


def test_only_a_server_that_takes_too_long_gets_fewer_events() -> None:
    """A connection that fails says nothing about how much is sent."""
    assert decided(SLOW) == Wait(FIRST_BACKOFF, f"{SLOW}.", smaller=True)
    assert decided(REFUSED) == Wait(FIRST_BACKOFF, f"{REFUSED}.")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(401), ["refuses the API key (401)", "WHYOPS_API_KEY", "revoked"]),
        (answer(403), ["refuses the API key (403)"]),
        (answer(301), ["redirects (301)", "WHYOPS_ANALYSE_URL"]),
        (answer(404), ["answers 404", "WHYOPS_ANALYSE_URL", "/api"]),
        (answer(200, HTML), ["answers 200", "login"]),
        (answer(429), ["429"]),
        (answer(503), ["503"]),
        (answer(500), ["500"]),
    ],
    ids=brief,
)
def test_a_wait_says_what_is_wrong_and_what_to_check(said: Answer, words: list[str]) -> None:
    """The text is the same for the same cause, so that it is logged once."""
    first = decided(said, events=1)
    later = decided(said, events=1, attempt=5, now=NOW + timedelta(1), chance=1.0)

    assert isinstance(first, Wait)
    assert isinstance(later, Wait)
    assert first.why == later.why
    for word in words:
        assert word in first.why


@pytest.mark.parametrize(
    ("said", "events", "decision"),
    [
        (named("3.spanId"), 10, GiveUp({3: "400: Validation failed; spanId: Required"})),
        (
            named("7.stepId", "3.spanId", "7.metadata.tool"),
            10,
            GiveUp(
                {
                    7: "400: Validation failed; stepId: Required; metadata.tool: Required",
                    3: "400: Validation failed; spanId: Required",
                }
            ),
        ),
        (named("3"), 10, GiveUp({3: "400: Validation failed; event: Required"})),
        (named("", "3.spanId"), 10, Split()),
        (named("10.spanId"), 10, Split()),
        (named("-1.spanId"), 10, Split()),
        (named("spanId"), 10, Split()),
        (named("9" * 5000), 10, Split()),
        (named("\u0663.spanId"), 10, Split()),
        (named(), 10, Split()),
        (answer(400, {"error": "MISSING_MODEL"}), 10, Split()),
        (answer(400, {"error": "No", "details": "3.spanId"}), 10, Split()),
        (answer(400, {"error": "No", "details": ["3.spanId"]}), 10, Split()),
        (answer(400, {"error": "No", "details": [{}]}), 10, Split()),
        (named("0.spanId"), 1, GiveUp({0: "400: Validation failed; spanId: Required"})),
        (named(""), 1, GiveUp({0: "400: Validation failed; : Required"})),
        (answer(400, {"error": "MISSING_MODEL"}), 1, GiveUp({0: "400: MISSING_MODEL"})),
        (answer(409, {"error": "bound"}), 10, Split()),
        (answer(409, {"error": "bound"}), 1, GiveUp({0: "409: bound"})),
        (answer(413, HTML), 10, Split()),
        (answer(413), 2, Split()),
        (answer(413), 1, GiveUp({0: "413: the server takes no event of this size"})),
    ],
)
def test_a_refusal_concerns_the_events_it_names(said: Answer, events: int, decision: Decision) -> None:
    """Those are given up, each with what is said of it; where none is named, or not each time one, they are split."""
    assert decided(said, events=events) == decision


def test_what_a_server_says_is_kept_in_part() -> None:
    """A long text does not fill the log."""
    decision = decided(answer(400, {"error": "x" * 10_000}), events=1)

    assert isinstance(decision, GiveUp)
    assert len(decision.why) == EXCERPT + len("400: ")


def test_a_500_is_the_server_s_own_affair_at_first() -> None:
    """From the fourth time in a row it is looked for which event it is."""
    said = answer(500, {"error": "Failed to save event(s)"})
    decisions = [decided(said, attempt=attempt) for attempt in range(1, TRIES_OF_500 + 2)]

    assert [type(decision) for decision in decisions] == [Wait, Wait, Wait, Split]


@pytest.mark.parametrize("attempt", [1, 4, 100])
def test_a_single_event_is_given_up_for_a_500_only_if_another_is_taken(attempt: int) -> None:
    """Until then it may be its fault, and it waits."""
    said = answer(500, {"error": "Failed to save event(s)"})
    alone = decided(said, events=1, attempt=attempt)
    proven = decided(said, events=1, attempt=attempt, neighbour_accepted=True)

    assert isinstance(alone, Wait)
    assert alone.doubtful == (attempt > TRIES_OF_500)
    assert proven == GiveUp({0: '500: {"error": "Failed to save event(s)"}'})


def test_another_event_that_is_taken_proves_nothing_about_other_answers() -> None:
    """A server that goes away in the middle of a split gives up nothing."""
    for said in (REFUSED, SLOW, answer(502), answer(503), answer(429), answer(401), answer(200, HTML)):
        assert isinstance(decided(said, events=1, attempt=9, neighbour_accepted=True), Wait)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("86400", LONGEST_WAIT),
        ("9" * 5000, LONGEST_WAIT),
        (LATER, 90.0),
        ("Saturday, 21-Nov-26 22:31:30 GMT", 90.0),
        ("Sat, 21 Nov 2026 22:31:30", 90.0),
        ("Sat, 21 Nov 2026 23:31:30 +0100", 90.0),
        ("Sat, 21 Nov 2020 22:31:30 GMT", 0.0),
        ("Sat, 21 Nov 2099 22:31:30 GMT", LONGEST_WAIT),
        ("", None),
        ("-7", None),
        ("1.5", None),
        ("soon", None),
        ("\u0667", None),
        ("Sat, 99 Nov 2026 22:31:30 GMT", None),
        ("Sat, 21 Nov 2026 22:31:30 +99999999999999999999", None),
        ("9007-199", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """Both are bounded; what makes no sense is as if nothing was said."""
    assert retry_after(answer(429, retry_after=value), NOW) == seconds


def test_no_retry_after_is_no_wait_of_its_own() -> None:
    """Backoff then decides."""
    assert retry_after(answer(429), NOW) is None


@pytest.mark.parametrize("value", ["0", "Sat, 21 Nov 2020 22:31:30 GMT"])
def test_a_429_is_never_answered_at_once(value: str) -> None:
    """A server that names a moment which is over is not asked in a loop."""
    decision = decided(answer(429, retry_after=value), chance=1.0)

    assert isinstance(decision, Wait)
    assert decision.seconds == FIRST_BACKOFF / 2


def test_a_429_that_names_its_time_is_not_left_alone_for_longer() -> None:
    """However often it has said so before."""
    decision = decided(answer(429, retry_after="2"), attempt=50)

    assert isinstance(decision, Wait)
    assert decision.seconds == 2.0


def test_backoff_doubles_up_to_a_bound() -> None:
    """However long the outage is."""
    waits = [backoff(attempt, 0.0) for attempt in (1, 2, 3, 4, 10, 10_000)]

    assert waits == [0.5, 1.0, 2.0, 4.0, LAST_BACKOFF, LAST_BACKOFF]


@STEADY
@given(st.integers(1, 10_000), st.floats(0.0, 1.0))
def test_chance_takes_up_to_half_of_a_backoff(attempt: int, chance: float) -> None:
    """Clients that failed together come back at different times, and none at once."""
    assert backoff(attempt, 0.0) / 2 <= backoff(attempt, chance) <= backoff(attempt, 0.0)


json_answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "details", "field", "message"]) | st.text(), inner)
    ),
    max_leaves=8,
)
answers = st.builds(
    answer,
    st.integers(100, 599),
    st.binary(max_size=50) | json_answers,
    retry_after=st.text() | st.integers().map(str) | st.sampled_from([LATER, "1"]),
)


@STEADY
@given(answers, st.integers(1, 20), st.integers(1, 200), st.floats(0.0, 1.0), st.booleans())
def test_every_answer_leads_to_a_decision_that_depends_on_nothing_else(
    said: Answer, attempt: int, events: int, chance: float, accepted: bool
) -> None:
    """It is in bounds, the same for the same answer, and one event is never split."""
    circumstances = {"attempt": attempt, "events": events, "chance": chance, "neighbour_accepted": accepted}
    decision = decided(said, **circumstances)

    assert decision == decided(said, **circumstances)
    match decision:
        case Wait(seconds, why):
            assert 0 < seconds <= LONGEST_WAIT
            assert why
        case Split():
            assert events > 1
        case GiveUp(which):
            assert which
            assert set(which) <= set(range(events))
            assert said.status in (400, 409, 413, 500)
