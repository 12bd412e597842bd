"""The builders of events by themselves: what they check, mend and refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyops_trace import InvalidEventError, UnknownOptionError, events
from whyops_trace._checks import MAX_COUNT, MAX_ID, MAX_STEP, check_metadata, check_options, check_text


def test_an_event_knows_nothing_of_its_trace() -> None:
    """Type, content, metadata and options, as Python values."""
    event = events.error("boom", status=500, parent_step_id=3)

    assert event.type == "error"
    assert event.content == {"message": "boom", "status": 500}
    assert event.metadata == {}
    assert event.options == {"parent_step_id": 3}


def test_what_is_not_said_is_not_recorded() -> None:
    """No empty members."""
    assert events.llm_response("m", "p").content == {}
    assert events.llm_response("m", "p", "").content == {"content": ""}
    assert events.llm_response("m", "p", tool_calls=[], finish_reason="", usage={}).content == {}
    assert events.llm_response("m", "p", usage={}).metadata == {"model": "m", "provider": "p"}
    assert events.llm_thinking("hm", signature="").content == {"type": "thinking", "thinking": "hm"}
    assert events.error("x", stack="").content == {"message": "x"}
    assert events.user_message([], metadata=None).metadata == {}


def test_counts_that_are_none_are_left_out() -> None:
    """As providers' clients have them."""
    usage: Any = {"promptTokens": 1, "completionTokens": None, "totalTokens": 2.4}

    assert events.llm_response("m", "p", usage=usage).metadata["usage"] == {
        "promptTokens": 1,
        "totalTokens": 2,
    }


def test_a_long_finish_reason_is_cut() -> None:
    """To what a server stores."""
    assert events.llm_response("m", "p", finish_reason="x" * 101).content["finishReason"] == "x" * 100


@pytest.mark.parametrize(("latency", "expected"), [(0, 0), (12.4, 12), (12.6, 13), (MAX_COUNT, MAX_COUNT)])
def test_a_latency_is_rounded(latency: float, expected: int) -> None:
    """A server stores whole milliseconds."""
    assert events.tool_call_request("t", [], latency_ms=latency).metadata["latencyMs"] == expected


def test_metadata_and_options_are_the_events_own() -> None:
    """Changing what was passed changes nothing."""
    metadata: Any = {"params": {}}
    event = events.user_message([], metadata=metadata)
    metadata["more"] = 1

    assert event.metadata == {"params": {}}


def test_the_bounds_are_inclusive() -> None:
    """One more is refused."""
    check_text("x", "a", MAX_ID)
    check_text("x", "a" * MAX_ID, MAX_ID)

    assert check_options({"step_id": MAX_STEP, "parent_step_id": 1}) == {
        "step_id": MAX_STEP,
        "parent_step_id": 1,
    }
    with pytest.raises(InvalidEventError, match="x has 129 characters; at most 128 are stored"):
        check_text("x", "a" * 129, MAX_ID)


def test_a_naive_datetime_is_local_time() -> None:
    """As everywhere in the standard library."""
    moment = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - on purpose

    assert check_options({"timestamp": moment}) == check_options({"timestamp": moment.astimezone(UTC)})


@pytest.mark.parametrize("key", ["within", "trace", "idempotencyKey"])
def test_metadata_may_not_name_what_the_library_writes(key: str) -> None:
    """Such a key would be recorded twice."""
    with pytest.raises(InvalidEventError, match=f"{key}.*choose another key"):
        check_metadata({key: 1})


def test_metadata_may_not_name_what_its_event_writes() -> None:
    """Each kind of event has keys of its own."""
    assert check_metadata({"tool": 1}) == {"tool": 1}
    with pytest.raises(InvalidEventError, match=r"tool.*choose another key"):
        check_metadata({"tool": 1}, {"tool"})


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
)
NAMES = st.sampled_from(
    ["span_id", "step_id", "parent_step_id", "timestamp", "idempotency_key", "external_user_id", "other"]
)


@given(st.dictionaries(NAMES, ANYTHING, max_size=3))
def test_options_are_taken_or_refused_with_our_errors(options: dict[str, Any]) -> None:
    """Whatever is passed, and what is taken can be recorded."""
    try:
        checked = check_options(options)
    except UnknownOptionError:
        assert "other" in options
    except InvalidEventError as error:
        assert any(name in str(error) for name in options)
    else:
        assert all(0 < len(value) <= 255 for value in checked.values() if isinstance(value, str))
        assert all(1 <= value <= MAX_STEP for value in checked.values() if isinstance(value, int))


BUILDERS: list[tuple[Any, int]] = [
    (events.user_message, 1),
    (events.llm_response, 3),
    (events.llm_thinking, 1),
    (events.embedding_request, 1),
    (events.embedding_response, 4),
    (events.tool_call_request, 2),
    (events.tool_call_response, 4),
    (events.tool_result, 2),
    (events.error, 1),
]


@given(st.sampled_from(BUILDERS), st.lists(ANYTHING | st.just({}), min_size=4, max_size=4))
def test_builders_raise_nothing_but_our_errors(builder: tuple[Any, int], values: list[Any]) -> None:
    """Whatever they are given in place of an argument."""
    build, count = builder
    try:
        event = build(*values[:count])
    except InvalidEventError as error:
        assert "must be" in str(error) or "at most" in str(error)
    else:
        assert event.type == build.__name__


def test_the_price_that_a_seller_told_is_kept_to_the_last_digit() -> None:
    """Counts are whole numbers, a price is not."""
    built = events.llm_response("m", "p", usage={"promptTokens": 3, "cost": 0.00012})

    assert built.metadata["usage"] == {"promptTokens": 3, "cost": 0.00012}


def test_token_counts_under_names_that_nothing_reads_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The event is recorded as it is given, and the warning tells the names that are read."""
    for _ in range(2):
        built = events.llm_response("m", "p", usage={"prompt_tokens": 3})  # type: ignore[arg-type]

    assert built.metadata["usage"] == {"prompt_tokens": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "usage has prompt_tokens, which nothing reads; its names are promptTokens, completionTokens, totalTokens, "
        "cacheReadTokens, cacheCreationTokens, cacheWrite1hTokens, reasoningTokens, cost."
    ]
