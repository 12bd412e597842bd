"""What a server would silently lose or refuse is stored all the same: from the user's call to the server's row."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from collector import Collector
from hypothesis import given
from hypothesis import strategies as st
from serving import client, dead_letters, tally
from strategies import STEADY, json_values, python_values, texts

from whyops_trace import (
    ConfigurationError,
    InvalidEventError,
    WhyOps,
    step,
    traced_embedding,
    traced_llm,
    traced_tool,
)
from whyops_trace.tracing import Trace


@pytest.fixture
def sdk(collector: Collector) -> WhyOps:
    """A client of it."""
    return client(collector)


@pytest.fixture
def mine(sdk: WhyOps) -> Trace:
    """A trace on it."""
    return sdk.trace("mine")


def rows(sdk: WhyOps, collector: Collector) -> list[dict[str, Any]]:
    """What is stored of all that was recorded, which is everything."""
    ledger = tally(sdk)

    assert dead_letters(sdk.settings.home) == []
    assert (ledger.rejected, ledger.pending, ledger.dropped) == (0, 0, 0)
    assert ledger.delivered == len(collector.stored)
    return collector.stored


@pytest.mark.parametrize("latency", [12.5, 0.4, 7, 2**31 - 1])
def test_latencies_and_counts_are_whole_numbers(
    sdk: WhyOps, mine: Trace, collector: Collector, latency: float
) -> None:
    """A server fails at others."""
    usage: Any = {
        "promptTokens": 3.0,
        "completionTokens": 1.5,
        "cacheReadTokens": None,
        "totalTokens": latency,
    }
    mine.llm_response_sync("gpt-4o", "openai", "Hello", usage=usage, latency_ms=latency)
    tool = mine.tool_call_request_sync("search", [], latency_ms=latency)
    mine.tool_call_response_sync("search", tool, [], {}, latency_ms=latency)
    mine.embedding_response_sync("small", "openai", 1, 3, total_tokens=4, latency_ms=latency)

    assert [row["metadata"]["latencyMs"] for row in rows(sdk, collector)] == [round(latency)] * 4
    assert collector.stored[0]["metadata"]["usage"] == {
        "promptTokens": 3,
        "completionTokens": 2,
        "totalTokens": round(latency),
    }


@pytest.mark.parametrize("latency", [-1, 2**31, math.nan, math.inf, "12ms", True])
def test_a_latency_that_cannot_be_stored_is_refused_at_the_call(mine: Trace, latency: Any) -> None:
    """Where whoever made it can see it."""
    with pytest.raises(InvalidEventError, match="latency_ms"):
        mine.llm_response_sync("gpt-4o", "openai", latency_ms=latency)


def test_texts_that_no_database_takes_are_mended(sdk: WhyOps, collector: Collector) -> None:
    """NUL and lone surrogates, in values, keys and ids."""
    bad, good = "a\0b\ud800c", "a\ufffdb\ufffdc"
    mine = sdk.trace(bad)
    mine.user_message_sync([{"role": "user", "content": bad, bad: 1}], external_user_id=bad)  # type: ignore[misc]
    mine.error_sync(bad, stack=bad, idempotency_key=bad, span_id=bad)
    first, second = rows(sdk, collector)

    assert first["content"] == {"messages": [{"role": "user", "content": good, good: 1}]}
    assert first["sent"]["externalUserId"] == good
    assert second["content"] == {"message": good, "stack": good}
    assert (second["traceId"], second["spanId"], second["metadata"]["idempotencyKey"]) == (good, good, good)


def test_numbers_that_json_cannot_hold_are_texts(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """A server changes or refuses them."""
    mine.tool_result_sync("count", [math.nan, math.inf, -math.inf, 2**53, 2**53 + 1, -(2**70), 1.5])

    assert rows(sdk, collector)[0]["content"]["output"] == [
        "NaN",
        "Infinity",
        "-Infinity",
        2**53,
        str(2**53 + 1),
        str(-(2**70)),
        1.5,
    ]


def test_what_is_none_is_left_out(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """Null is not absent for a server: it refuses the event."""
    nothing: Any = dict.fromkeys(
        ("span_id", "step_id", "parent_step_id", "timestamp", "idempotency_key", "external_user_id")
    )
    mine.user_message_sync([], metadata=None, **nothing)
    mine.llm_response_sync(
        "m", "p", None, tool_calls=None, finish_reason=None, usage=None, latency_ms=None, **nothing
    )
    mine.error_sync("no", status=None, stack=None)

    assert [None in row["sent"].values() for row in rows(sdk, collector)] == [False] * 3


def test_what_is_nested_without_end_is_cut(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """A server fails at a few thousand levels."""
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]
    mine.user_message_sync([deep])
    message: Any = {"deep": deep}
    mine.user_message_sync([message], metadata={"params": message})

    assert len(rows(sdk, collector)) == 2
    assert str(collector.stored[0]["content"]).count("[") < 100


def test_a_model_s_name_that_is_too_long_is_cut_or_refused(
    sdk: WhyOps, mine: Trace, collector: Collector
) -> None:
    """Cut where a model said it, refused where it is an argument of ours."""

    @traced_llm
    def ask(prompt: str) -> dict[str, Any]:
        return {"model": prompt, "content": "Hello", "finish_reason": "f" * 1000}

    with mine:
        ask("x" * 1000)
    with pytest.raises(InvalidEventError, match="model has 201 characters; at most 200"):
        mine.llm_response_sync("m" * 201, "openai")
    mine.llm_response_sync("m" * 200, "p" * 255, finish_reason="f" * 1000)
    answers = [row for row in rows(sdk, collector) if row["eventType"] == "llm_response"]

    assert [row["metadata"]["model"] for row in answers] == ["x" * 200, "m" * 200]
    assert [len(row["content"]["finishReason"]) for row in answers] == [100] * 2


@pytest.mark.parametrize("name", ["model", "provider"])
def test_an_answer_without_a_model_or_provider_is_refused_at_the_call(mine: Trace, name: str) -> None:
    """A server loses it without a word."""
    for value in (None, "", 3):
        arguments: dict[str, Any] = {"model": "gpt-4o", "provider": "openai", name: value}
        with pytest.raises(InvalidEventError, match=name):
            mine.llm_response_sync(**arguments)
        with pytest.raises(InvalidEventError, match=name):
            mine.embedding_response_sync(**arguments, embedding_count=1, first_embedding_dimensions=1)


def test_a_decorated_call_always_names_a_model_and_a_provider(
    sdk: WhyOps, mine: Trace, collector: Collector
) -> None:
    """Unknown ones if nobody says which."""

    @traced_llm
    def ask(model: Any) -> Any:
        return {"model": model, "provider": None, "content": None, "usage": {"prompt_tokens": 1.5}}

    @traced_embedding
    def embed(texts: list[str]) -> Any:
        return {"model": None, "data": [{"embedding": [1.0]}], "usage": {"total_tokens": "many"}}

    with mine:
        for model in (None, 3, ["x"], "vendor/model"):
            ask(model)
        embed(["x"])
    found = [row["metadata"] for row in rows(sdk, collector) if row["eventType"].endswith("_response")]

    assert [(metadata["model"], metadata["provider"]) for metadata in found] == [
        *[("unknown", "unknown")] * 3,
        ("vendor/model", "vendor"),
        ("unknown", "unknown"),
    ]


def test_a_system_prompt_in_blocks_is_stored_as_text(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """As Anthropic's clients take it: on the first event of a trace a server fails at a list."""

    @traced_llm
    def ask(messages: list[Any], system: Any) -> str:
        return "Hello"

    with mine:
        ask(
            [{"role": "user", "content": "Hi"}],
            system=[{"type": "text", "text": "Help.", "cache_control": {"type": "ephemeral"}}],
        )
    prompt = rows(sdk, collector)[0]["metadata"]["systemPrompt"]

    assert isinstance(prompt, str)
    assert "Help." in prompt
    with pytest.raises(InvalidEventError, match="systemPrompt"):
        mine.user_message_sync([], metadata={"systemPrompt": [{"type": "text", "text": "Help."}]})  # type: ignore[arg-type]


EAST = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("timestamp", "stored"),
    [
        (datetime.datetime(2026, 11, 21, 22, 30, tzinfo=EAST), "2026-11-21T20:30:00.000Z"),
        (
            datetime.datetime(2026, 11, 21, 22, 30, 0, 123_999, tzinfo=datetime.UTC),
            "2026-11-21T22:30:00.123Z",
        ),
        ("2026-11-21T22:30:00+02:00", "2026-11-21T20:30:00.000Z"),
        ("2026-11-21T22:30:00", "2026-11-21T22:30:00.000Z"),
        ("2026-11-21 22:30", "2026-11-21T22:30:00.000Z"),
        ("2026-11-21T22:30:00.123456Z", "2026-11-21T22:30:00.123Z"),
        ("2026-11-21", "2026-11-21T00:00:00.000Z"),
    ],
)
def test_a_time_is_stored_as_the_moment_it_names(
    sdk: WhyOps, mine: Trace, collector: Collector, timestamp: Any, stored: str
) -> None:
    """A server takes only one form of it."""
    mine.user_message_sync([], timestamp=timestamp)

    assert rows(sdk, collector)[0]["timestamp"] == stored


def test_a_time_without_a_zone_is_local(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """As everywhere in Python."""
    naive = datetime.datetime(2026, 11, 21, 22, 30)  # noqa: DTZ001
    mine.user_message_sync([], timestamp=naive)
    row = rows(sdk, collector)[0]

    assert datetime.datetime.fromisoformat(row["timestamp"]) == naive.astimezone()


@pytest.mark.parametrize("timestamp", ["yesterday", "", 1_795_300_200, datetime.date(2026, 11, 21)])
def test_what_is_no_time_is_refused_at_the_call(mine: Trace, timestamp: Any) -> None:
    """The error says what a time looks like."""
    with pytest.raises(InvalidEventError, match="ISO 8601"):
        mine.user_message_sync([], timestamp=timestamp)


def test_the_same_again_is_stored_again(sdk: WhyOps, collector: Collector) -> None:
    """A server without a key takes the second one for a repetition, tokens and all."""
    with sdk.trace() as own:
        for _ in range(3):
            own.user_message_sync([{"role": "user", "content": "yes"}])
            own.llm_response_sync("gpt-4o", "openai", "no", usage={"promptTokens": 10})
            own.error_sync("no")

    assert len(rows(sdk, collector)) == 9


def test_a_key_of_the_user_s_own_stores_an_event_once(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """That is what it is for; both count as delivered."""
    for _ in range(2):
        mine.user_message_sync([], idempotency_key="once")

    assert tally(sdk) == (2, 2, 0, 0, 0, 0, {})
    assert len(collector.stored) == 1


# Anything at all


def test_any_value_is_stored(sdk: WhyOps, collector: Collector) -> None:
    """As argument, result, message, output: every event arrives."""
    recorded = 0

    @traced_tool
    def call(value: Any) -> Any:
        return value

    @traced_llm
    def ask(messages: Any) -> Any:
        return messages

    @STEADY
    @given(python_values)
    def record(value: Any) -> None:
        nonlocal recorded
        with sdk.trace() as own:
            call(value)
            ask(value)
            own.tool_result_sync("call", value)
            own.user_message_sync([value])
            tool = own.tool_call_request_sync("call", [value])
            own.tool_call_response_sync("call", tool, [value], {"value": value})
            with step("plan", input=value) as plan:
                plan.set_output(value)
        recorded += 1

    record()

    assert len(rows(sdk, collector)) >= recorded * 8


def test_any_text_is_stored(sdk: WhyOps, collector: Collector) -> None:
    """Wherever an event takes one."""
    some = texts.filter(bool)

    @STEADY
    @given(some, some, texts)
    def record(text: str, other: str, maybe: str) -> None:
        with sdk.trace(f"{text}-{len(collector.stored)}", external_user_id=text, tags=[text]) as mine:
            mine.error_sync(maybe, stack=maybe)
            mine.llm_thinking_sync(maybe, signature=maybe)
            mine.llm_response_sync(text, other, maybe, finish_reason=maybe)
            mine.embedding_request_sync([maybe])
            tool = mine.tool_call_request_sync(text, [{"name": text, "arguments": {other: maybe}}])
            call: Any = {"name": text}
            mine.tool_call_response_sync(text, tool, [call], {maybe: other})
            mine.tool_result_sync(other, maybe)
            mine.user_message_sync([], span_id=text)
            with step(text):
                pass

    record()

    assert len(rows(sdk, collector)) >= 9


def test_any_metadata_is_stored(sdk: WhyOps, collector: Collector) -> None:
    """Of a trace, a step, a message and a decorated function."""
    names = st.sampled_from(["params", "team", "cost", "version"]) | texts
    reserved = ("within", "trace", "idempotencyKey", "latencyMs", "model", "systemPrompt", "usage")
    metadata = st.dictionaries(names.filter(lambda name: name not in reserved), json_values, max_size=3)

    @STEADY
    @given(metadata)
    def record(about: dict[str, Any]) -> None:
        with sdk.trace(metadata=about) as own:
            own.user_message_sync([], metadata=about)  # type: ignore[arg-type]
            with step("plan", metadata={"about": about}):
                pass

    record()

    assert rows(sdk, collector)


EMOJI = "\U0001f600"


def test_ids_are_as_long_as_a_server_counts_them(sdk: WhyOps, collector: Collector) -> None:
    """It counts an emoji twice: what fits by that is stored, what does not is refused at the call."""
    mine = sdk.trace(EMOJI * 64)
    mine.user_message_sync(
        [], span_id=EMOJI * 64, idempotency_key=EMOJI * 64, external_user_id="a" + EMOJI * 127
    )
    long: list[dict[str, Any]] = [
        {"span_id": EMOJI * 65},
        {"external_user_id": EMOJI * 128},
        {"idempotency_key": EMOJI * 65},
    ]
    for wrong in long:
        with pytest.raises(InvalidEventError, match="at most"):
            mine.user_message_sync([], **wrong)
    with pytest.raises(InvalidEventError, match="trace_id has 130 characters"):
        sdk.trace(EMOJI * 65)
    with pytest.raises(ConfigurationError, match="agent_name has 256 characters"):
        WhyOps(agent_name=EMOJI * 128)

    assert len(rows(sdk, collector)) == 1


@pytest.mark.parametrize(
    ("key", "good", "kept"),
    [
        ("model", "gpt-4o", "gpt-4o"),
        ("latencyMs", 12.5, 12),
        ("systemPrompt", "Help.", "Help."),
        ("usage", {"promptTokens": 1.6, "totalTokens": None}, {"promptTokens": 2}),
        ("usage", None, None),
    ],
)
def test_metadata_of_a_name_that_a_server_reads_is_what_it_can_store(
    sdk: WhyOps, mine: Trace, collector: Collector, key: str, good: object, kept: object
) -> None:
    """Whoever gives it, a message, a step or a decorator."""

    @traced_tool(metadata={"team": "x"} if key == "latencyMs" else {key: good})
    def f() -> int:
        return 1

    mine.user_message_sync([], metadata={key: good})  # type: ignore[arg-type]
    with mine:
        f()
        if key != "latencyMs":  # a step writes that itself
            with step("s", metadata={key: good}):
                pass
    stored = [row["metadata"].get(key) for row in rows(sdk, collector)]

    assert stored[0] == kept
    assert set(map(str, stored[1:])) <= {str(kept), "None", "0"}


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("model", 5),
        ("model", "x" * 201),
        ("latencyMs", "12ms"),
        ("systemPrompt", [{"type": "text", "text": "Help."}]),
        ("usage", {"promptTokens": "many"}),
        ("usage", 5),
    ],
)
def test_metadata_that_a_server_would_lose_the_event_for_is_refused_at_the_call(
    mine: Trace, key: str, bad: Any
) -> None:
    """The error names the key."""
    with pytest.raises(InvalidEventError, match=f"metadata\\['{key}'\\]"):
        mine.user_message_sync([], metadata={key: bad})  # type: ignore[arg-type]
    if key != "latencyMs":
        with pytest.raises(InvalidEventError, match=key):
            step("s", metadata={key: bad})


def test_times_long_ago_have_four_digits_of_a_year(sdk: WhyOps, mine: Trace, collector: Collector) -> None:
    """What is no time in UTC is refused at the call."""
    mine.error_sync("old", timestamp=datetime.datetime(999, 1, 2, tzinfo=datetime.UTC))
    with pytest.raises(InvalidEventError, match="timestamp"):
        mine.error_sync("older", timestamp="0001-01-01T00:00:00+10:00")

    assert rows(sdk, collector)[0]["sent"]["timestamp"] == "0999-01-02T00:00:00.000Z"
