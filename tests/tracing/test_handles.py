"""The nine manual events of a trace: one builder, two faces, the parameters of the ``whyops`` package."""

from __future__ import annotations

import gc
import inspect
import pickle
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from inspect import Parameter, Signature
from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import (
    SpanId,
    Trace,
    UnknownOptionError,
    WhyOpsTrace,
    step,
    trace,
    traced_tool,
)

CALLS = [{"name": "charge_card", "arguments": {"amount": 4999}}]
MESSAGES = [{"role": "user", "content": "hello"}]
USAGE = {"promptTokens": 10, "completionTokens": 5, "totalTokens": 40, "cacheReadTokens": 25}

#: The parameters of whyops 0.1.1: positional ones, then keyword-only ones with the default None.
SIGNATURES = {
    "user_message": (["messages"], ["metadata"]),
    "llm_response": (
        ["model", "provider", "content=None"],
        ["tool_calls", "finish_reason", "usage", "latency_ms"],
    ),
    "llm_thinking": (["thinking"], ["signature"]),
    "embedding_request": (["inputs"], []),
    "embedding_response": (
        ["model", "provider", "embedding_count", "first_embedding_dimensions"],
        ["total_tokens", "latency_ms"],
    ),
    "tool_call_request": (["tool", "tool_calls"], ["latency_ms", "requested_at"]),
    "tool_call_response": (
        ["tool", "span_id", "tool_calls", "tool_results"],
        ["latency_ms", "responded_at"],
    ),
    "tool_result": (["tool_name", "output"], []),
    "error": (["message"], ["status", "stack"]),
}

#: Keywords that are ours, behind those of the original package.
OURS = {"tool_call_response": ["failed"]}

#: One full call of each method, and the row it records as the first event of a trace.
FULL: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    (
        "user_message",
        (MESSAGES,),
        {"metadata": {"systemPrompt": "Be kind.", "tools": [{"name": "t"}], "params": {"temperature": 0.5}}},
        (
            {"messages": MESSAGES},
            {"systemPrompt": "Be kind.", "tools": [{"name": "t"}], "params": {"temperature": 0.5}},
        ),
    ),
    (
        "llm_response",
        ("openai/gpt-4o", "openai", "Hi."),
        {
            "tool_calls": [{"id": "c1", "function": {"name": "t", "arguments": "{}"}}],
            "finish_reason": "stop",
            "usage": USAGE,
            "latency_ms": 12.5,
        },
        (
            {
                "content": "Hi.",
                "toolCalls": [{"id": "c1", "function": {"name": "t", "arguments": "{}"}}],
                "finishReason": "stop",
            },
            {"model": "openai/gpt-4o", "provider": "openai", "usage": USAGE},
        ),
    ),
    (
        "llm_thinking",
        ("hm",),
        {"signature": "s"},
        ({"type": "thinking", "thinking": "hm", "signature": "s"},),
    ),
    ("embedding_request", (["a", "b"],), {}, ({"input": ["a", "b"]},)),
    (
        "embedding_response",
        ("m", "p", 2, 1536),
        {"total_tokens": 7, "latency_ms": 3},
        (
            {
                "object": "list",
                "embeddingCount": 2,
                "firstEmbeddingDimensions": 1536,
                "encodingFormat": "float",
            },
            {"model": "m", "provider": "p", "usage": {"totalTokens": 7}},
        ),
    ),
    (
        "tool_call_request",
        ("charge_card", CALLS),
        {"latency_ms": 1, "requested_at": "2026-01-31T12:00:00+01:00"},
        ({"toolCalls": CALLS, "requestedAt": "2026-01-31T11:00:00.000Z"},),
    ),
    (
        "tool_call_response",
        ("charge_card", "mine", CALLS, {"ok": True}),
        {"latency_ms": 842, "responded_at": datetime(2026, 1, 31, tzinfo=UTC)},
        ({"toolCalls": CALLS, "toolResults": {"ok": True}, "respondedAt": "2026-01-31T00:00:00.000Z"},),
    ),
    (
        "tool_result",
        ("charge_card", {"ok": True}),
        {},
        ({"toolName": "charge_card", "output": {"ok": True}},),
    ),
    ("error", ("boom",), {"status": 500, "stack": "File x"}, ({"message": "boom", "status": 500},)),
]

IDS = [name for name, *_ in FULL]
OPTIONS = {
    "span_id": "s1",
    "step_id": 41,
    "parent_step_id": 40,
    "timestamp": "2026-11-21T22:30:00Z",
    "idempotency_key": "k1",
    "external_user_id": "u1",
}


def signature_of(name: str) -> list[tuple[str, Any, Any]]:
    """Return the expected parameters of a method, as ``(name, kind, default)``."""
    positional, keywords = SIGNATURES[name]
    return [
        *(
            (
                text.partition("=")[0],
                Parameter.POSITIONAL_OR_KEYWORD,
                None if "=" in text else Parameter.empty,
            )
            for text in positional
        ),
        *((text, Parameter.KEYWORD_ONLY, None) for text in (*keywords, *OURS.get(name, ()))),
        ("options", Parameter.VAR_KEYWORD, Parameter.empty),
    ]


def test_every_event_method_has_both_faces() -> None:
    """Each ``x`` is awaitable, each ``x_sync`` is not, and they differ in nothing else."""
    methods = {
        name: value
        for name, value in vars(Trace).items()
        if inspect.isfunction(value) and not name.startswith(("_", "start_", "score"))
    }

    assert sorted(methods) == sorted([*SIGNATURES, *(f"{name}_sync" for name in SIGNATURES)])
    for name in SIGNATURES:
        plain, waiting = methods[f"{name}_sync"], methods[name]
        assert inspect.iscoroutinefunction(waiting)
        assert not inspect.iscoroutinefunction(plain)
        assert inspect.signature(waiting) == inspect.signature(plain)
        assert waiting.__doc__ == plain.__doc__
        assert waiting.__doc__ is not None
        assert (waiting.__name__, plain.__name__) == (name, f"{name}_sync")
        assert (waiting.__qualname__, plain.__qualname__) == (f"Trace.{name}", f"Trace.{name}_sync")


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_are_those_of_the_original_package(name: str) -> None:
    """Names, order, kinds and defaults, and the value that is returned; what is ours comes behind."""
    shape: Signature = inspect.signature(getattr(trace("t"), name))

    assert [(p.name, p.kind, p.default) for p in shape.parameters.values()] == signature_of(name)
    assert shape.return_annotation == ("SpanId" if name.startswith("tool_call_request") else "int")


def test_the_trace_has_its_old_name_too() -> None:
    """``WhyOpsTrace`` is what the original package calls it."""
    assert WhyOpsTrace is Trace


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "args", "kwargs", "expected"), FULL, ids=IDS)
async def test_both_faces_record_the_same_event(
    events: Recorded, name: str, args: Any, kwargs: Any, expected: Any
) -> None:
    """Everything said is recorded; what is awaited returns what the plain call does."""
    first = getattr(trace("sync"), f"{name}_sync")(*args, **kwargs)
    second = await getattr(trace("async"), name)(*args, **kwargs)
    [row] = events.of("sync")

    assert events.of("async") == [row]
    assert row[0] == name
    assert row[5:] == expected
    if name == "tool_call_request":
        assert isinstance(first, SpanId)
        assert (first.step_id, second.step_id) == (1, 1)
    else:
        assert (first, second) == (1, 1)


@pytest.mark.parametrize(("name", "args", "kwargs", "expected"), FULL, ids=IDS)
def test_latency_is_recorded_in_whole_milliseconds(
    events: Recorded, name: str, args: Any, kwargs: Any, expected: Any
) -> None:
    """A server stores integers."""
    getattr(trace("t"), f"{name}_sync")(*args, **kwargs)
    latency = kwargs.get("latency_ms")

    assert events.records[0]["metadata"].get("latencyMs") == (None if latency is None else round(latency))


@pytest.mark.parametrize(("name", "args", "kwargs", "expected"), FULL, ids=IDS)
def test_every_option_is_recorded(events: Recorded, name: str, args: Any, kwargs: Any, expected: Any) -> None:
    """Numbers the user chose are marked, so that no store shifts them."""
    events.checked = False
    given = {**kwargs, **OPTIONS}
    if name == "tool_call_response":  # where the span id is a parameter
        del given["span_id"]
    getattr(trace("t"), f"{name}_sync")(*args, **given)
    [record] = events.records

    assert record["spanId"] == given.get("span_id", "mine")
    assert record["stepId"] == 41
    assert record["parentStepId"] == 40
    assert record["given"][0] == "stepId"
    assert record["timestamp"] == "2026-11-21T22:30:00.000Z"
    assert record["idempotencyKey"] == "k1"
    assert record["externalUserId"] == "u1"


def test_options_that_are_none_are_left_out(events: Recorded) -> None:
    """As if they were not given."""
    trace("t").error_sync("x", **dict.fromkeys(OPTIONS))  # type: ignore[arg-type]

    assert events.rows == [("error", 1, None, 0, None, {"message": "x"})]


TIMES = [
    ("2026-11-21T22:30:00Z", "2026-11-21T22:30:00.000Z"),
    ("2026-11-21T22:30:00.123456+02:00", "2026-11-21T20:30:00.123Z"),
    ("2026-11-21 22:30:00", "2026-11-21T22:30:00.000Z"),
    (datetime(2026, 11, 21, 22, 30, tzinfo=UTC), "2026-11-21T22:30:00.000Z"),
    (datetime(2026, 11, 21, 22, 30, tzinfo=timezone(timedelta(hours=-5))), "2026-11-22T03:30:00.000Z"),
]


@pytest.mark.parametrize(("given", "expected"), TIMES)
def test_a_timestamp_may_be_text_or_a_datetime(events: Recorded, given: Any, expected: str) -> None:
    """Any offset; text without one is UTC."""
    events.checked = False
    trace("t").error_sync("x", timestamp=given)

    assert events.records[0]["timestamp"] == expected


def test_manual_events_follow_one_another_on_the_handle(events: Recorded) -> None:
    """Outside any block, on each handle of the same id."""
    handle = trace("t")
    steps = [
        handle.user_message_sync(MESSAGES),  # type: ignore[arg-type]
        handle.llm_thinking_sync("hm"),
        trace("t").error_sync("x"),
    ]

    assert steps == [1, 2, 3]
    assert events.wheres() == [
        ("user_message", 1, None, 0, None),
        ("llm_thinking", 2, 1, 0, None),
        ("error", 3, 2, 0, None),
    ]


@traced_tool
def leaf() -> None:
    """Do nothing."""


def test_manual_events_in_a_block_stand_where_the_code_stands(events: Recorded) -> None:
    """Between decorated calls, in steps and in calls."""
    with trace("t") as handle:
        handle.user_message_sync(MESSAGES)  # type: ignore[arg-type]
        leaf()
        handle.llm_thinking_sync("hm")
        with step("plan"):
            handle.error_sync("in plan")
        traced_tool(name="outer")(lambda: handle.error_sync("in outer"))()
        handle.error_sync("end")

    assert events.wheres() == [
        ("user_message", 1, None, 0, None),
        ("tool_call_request", 2, 1, 0, "leaf"),
        ("tool_call_response", 3, 2, 2, "leaf"),
        ("llm_thinking", 4, 3, 0, None),
        ("llm_thinking", 5, 4, 0, "plan"),
        ("error", 6, 5, 5, None),
        ("tool_call_request", 7, 5, 0, "outer"),
        ("error", 8, 7, 7, None),
        ("tool_call_response", 9, 7, 7, "outer"),
        ("error", 10, 9, 0, None),
    ]


def test_manual_events_of_another_trace_leave_the_open_one_alone(events: Recorded) -> None:
    """They are nobody's parent there."""
    other = trace("other")
    with trace("open"), step("plan"):
        leaf()
        other.error_sync("a")
        leaf()
        other.error_sync("b")

    assert events.of("other") == [
        ("error", 1, None, 0, None, {"message": "a"}),
        ("error", 2, 1, 0, None, {"message": "b"}),
    ]
    assert [row[:4] for row in events.of("open")] == [
        ("llm_thinking", 1, None, 0),
        ("tool_call_request", 2, 1, 1),
        ("tool_call_response", 3, 2, 2),
        ("tool_call_request", 4, 1, 1),
        ("tool_call_response", 5, 4, 4),
    ]


def test_a_response_closes_its_request(events: Recorded) -> None:
    """Whatever came between: its parent is the request, and they share a span."""
    handle = trace("t")
    first = handle.tool_call_request_sync("a", CALLS)  # type: ignore[arg-type]
    second = handle.tool_call_request_sync("b", CALLS)  # type: ignore[arg-type]
    handle.tool_call_response_sync("a", first, CALLS, {"ok": 1})  # type: ignore[arg-type]
    handle.tool_call_response_sync("b", str(second), CALLS, {"ok": 2})  # type: ignore[arg-type]
    spans = [record["spanId"] for record in events.records]

    assert [row[:5] for row in events.rows] == [
        ("tool_call_request", 1, None, 0, "a"),
        ("tool_call_request", 2, 1, 0, "b"),
        ("tool_call_response", 3, 1, 0, "a"),
        ("tool_call_response", 4, 2, 0, "b"),
    ]
    assert spans[0] == spans[2] == first
    assert spans[1] == spans[3] == second
    assert first != second


def test_a_response_stands_where_its_request_stood(events: Recorded) -> None:
    """A pair belongs together, wherever the answer comes in."""
    with trace("t") as handle:
        span = handle.tool_call_request_sync("a", CALLS)  # type: ignore[arg-type]
        with step("plan"):
            inner = handle.tool_call_request_sync("b", CALLS)  # type: ignore[arg-type]
            handle.tool_call_response_sync("a", span, CALLS, {})  # type: ignore[arg-type]
        handle.tool_call_response_sync("b", inner, CALLS, {})  # type: ignore[arg-type]

    assert events.wheres() == [
        ("tool_call_request", 1, None, 0, "a"),
        ("llm_thinking", 2, 1, 0, "plan"),
        ("tool_call_request", 3, 2, 2, "b"),
        ("tool_call_response", 4, 1, 0, "a"),
        ("tool_call_response", 5, 3, 2, "b"),
    ]


def test_a_span_id_of_the_users_pairs_as_well(events: Recorded) -> None:
    """It is recorded on both."""
    handle = trace("t")
    span = handle.tool_call_request_sync("a", CALLS, span_id="mine")  # type: ignore[arg-type]
    handle.tool_call_response_sync("a", "mine", CALLS, {})  # type: ignore[arg-type]

    assert span == "mine"
    assert span.step_id == 1
    assert [record["spanId"] for record in events.records] == ["mine", "mine"]
    assert [row[2] for row in events.rows] == [None, 1]


def test_a_span_id_that_pairs_nothing_is_said_once(events: Recorded, said: Callable[[], list[str]]) -> None:
    """The event is recorded all the same."""
    events.checked = False
    handle = trace("t")
    span = handle.tool_call_request_sync("a", CALLS)  # type: ignore[arg-type]
    handle.tool_call_response_sync("a", "wrong", CALLS, {})  # type: ignore[arg-type]
    handle.tool_call_response_sync("a", span, CALLS, {})  # type: ignore[arg-type]
    handle.tool_call_response_sync("a", span, CALLS, {})  # type: ignore[arg-type]

    assert len(events.rows) == 4
    assert len(said()) == 1
    assert "tool_call_response('a') has span_id 'wrong'" in said()[0]
    assert "Pass the span_id that tool_call_request returned" in said()[0]


def test_steps_and_parents_can_be_named(events: Recorded) -> None:
    """What an event method returns names a parent; a chosen step moves the counting on."""
    events.checked = False
    handle = trace("t")
    first = handle.user_message_sync(MESSAGES)  # type: ignore[arg-type]
    handle.error_sync("a")
    handle.error_sync("b", parent_step_id=first)
    assert handle.error_sync("c", step_id=10) == 10
    assert handle.error_sync("d") == 11
    assert handle.error_sync("e", step_id=5) == 5
    assert handle.error_sync("f") == 12

    assert [(row[1], row[2], *row[6:]) for row in events.rows] == [
        (1, None),
        (2, 1),
        (3, 1),
        (10, 3, {"given": ["stepId"]}),
        (11, 10, {"given": ["parentStepId"]}),
        (5, 11, {"given": ["stepId", "parentStepId"]}),
        (12, 5, {"given": ["parentStepId"]}),
    ]


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_unknown_option_is_refused(events: Recorded, name: str) -> None:
    """The error lists those there are."""
    args = next(args for known, args, *_ in FULL if known == name)

    with pytest.raises(
        UnknownOptionError, match=r"no option 'user_id'; an event takes external_user_id, .*span_id"
    ):
        getattr(trace("t"), f"{name}_sync")(*args, user_id="u1")
    assert events.records == []


def test_wrong_arguments_are_a_type_error(events: Recorded) -> None:
    """That names the method."""
    with pytest.raises(
        TypeError, match=r"user_message\(\) missing 1 required positional argument: 'messages'"
    ):
        trace("t").user_message_sync()  # type: ignore[call-arg]
    assert events.records == []


def test_two_span_ids_are_refused() -> None:
    """A response has the one of its request."""
    with pytest.raises(TypeError, match="multiple values for argument 'span_id'"):
        trace("t").tool_call_response_sync("a", "s1", CALLS, {}, span_id="s2")  # type: ignore[arg-type, misc]


def test_a_forgotten_await_is_reported(events: Recorded) -> None:
    """By Python itself; nothing is recorded."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace("t").error("x")  # type: ignore[unused-coroutine]
        gc.collect()

    assert [str(warning.message) for warning in caught] == ["coroutine 'Trace.error' was never awaited"]
    assert events.records == []


def test_secrets_in_manual_events_are_taken_out(events: Recorded) -> None:
    """By the name they stand under, as in decorated calls."""
    handle = trace("t")
    handle.tool_result_sync("login", {"password": "x", "user": "ada"})

    assert events.rows[0][5]["output"] == {"password": "[redacted]", "user": "ada"}


def test_what_is_recorded_is_what_was_said_at_the_call(events: Recorded) -> None:
    """A later mutation changes nothing."""
    messages = [{"role": "user", "content": "hello"}]
    trace("t").user_message_sync(messages)  # type: ignore[arg-type]
    messages[0]["content"] = "changed"

    assert events.rows[0][5] == {"messages": MESSAGES}


def test_a_span_id_is_text_that_knows_its_step() -> None:
    """It survives pickling, for a response in another process."""
    span = SpanId("span_3", 7)
    copied = pickle.loads(pickle.dumps(span))

    assert (copied, copied.step_id, type(copied)) == ("span_3", 7, SpanId)


def test_a_handle_says_which_trace_it_is() -> None:
    """For debugging."""
    assert repr(trace("t")) == "<Trace 't'>"
    assert repr(step("plan")) == "<Step 'plan'>"
