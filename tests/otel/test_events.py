"""The tree of a trace as events of the protocol."""

from __future__ import annotations

import json
from typing import Any

from spans import ARGUMENTS, CALL, RESULT, START, raised, span, tool, turn

from whyops_trace._otel.events import Event, agent_of, events_of
from whyops_trace._otel.span import Span
from whyops_trace._otel.trace import read_trace

CALLED = {"id": "call_1", "name": "depth", "arguments": ARGUMENTS}


def told(spans: list[Span], first: int = 1) -> list[Event]:
    """Return the events of some spans."""
    return events_of(read_trace(spans), first)


def numbers(events: list[Event]) -> list[tuple[str, int, int, int]]:
    """Return type, step, parent and enclosing step of each event."""
    return [(event.type, event.step, event.parent, event.within) for event in events]


def run() -> list[Span]:
    """Return an agent with a turn, the tool that it asked for, and a turn with the answer."""
    root = span(
        "invoke_agent guide",
        took=100,
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "guide",
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": "310 metres"}]}]
            ),
        },
    )
    about = {
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": json.dumps(ARGUMENTS),
        "gen_ai.tool.call.result": json.dumps(RESULT),
    }
    history = [
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(RESULT)},
    ]
    return [
        root,
        turn(root, at=1, calls=[CALLED], id="chatcmpl-1"),
        tool(root, at=20, attributes=about),
        turn(root, at=40, attributes={"gen_ai.input.messages": json.dumps(history)}),
    ]


def test_a_run_is_numbered_in_order_of_time() -> None:
    """A response follows from its request, a request from what it is in; the end of a step repeats its begin."""
    assert numbers(told(run())) == [
        ("llm_thinking", 1, 0, 0),
        ("user_message", 2, 1, 1),
        ("llm_response", 3, 2, 2),
        ("tool_call_request", 4, 1, 1),
        ("tool_call_response", 5, 4, 4),
        ("tool_result", 6, 1, 1),
        ("llm_response", 7, 6, 6),
        ("step_end", 1, 0, 0),
    ]
    assert [event.step for event in told(run(), first=11)] == [11, 12, 13, 14, 15, 16, 17, 11]


def test_a_run_tells_what_happened() -> None:
    """Arguments, results, who asked, tokens, the agent and its output."""
    begin, _, answer, request, response, result, _, end = told(run())

    assert (begin.metadata["step"], begin.metadata["kind"]) == ("guide", "agent")
    assert answer.metadata["responseId"] == "chatcmpl-1"
    assert answer.metadata["usage"] == {"promptTokens": 100, "completionTokens": 7, "totalTokens": 107}
    assert [each["function"]["name"] for each in answer.content["toolCalls"]] == ["depth"]
    assert request.metadata["requestedBy"] == answer.step
    assert request.metadata["callId"] == "call_1"
    assert request.content == {"toolCalls": [{"name": "depth", "arguments": ARGUMENTS}]}
    assert response.content["toolResults"] == RESULT
    assert response.metadata["latencyMs"] == 10
    assert (result.content["toolName"], result.content["output"]) == ("depth", json.dumps(RESULT))
    assert (end.content, end.is_local) == ({"output": "310 metres"}, True)


def test_a_failed_tool_has_an_error_and_a_response() -> None:
    """As a decorated function that raised."""
    _, error, response = told([tool(error="deep", events=[raised("deep")])])

    assert error.content == {"type": "ValueError", "message": "deep", "stack": "ValueError: deep"}
    assert response.metadata["outcome"] == "error"
    assert response.content["toolResults"] == {"error": {"type": "ValueError", "message": "deep"}}


def test_a_failed_turn_ends_with_an_error() -> None:
    """It names the model that was asked."""
    about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"}
    _, error = told([span("chat", kind=3, error="429", attributes=about)])

    assert (error.type, error.metadata["model"], error.content["message"]) == ("error", "gpt-5", "429")


def test_what_has_not_ended_has_no_end() -> None:
    """It is shown as running."""
    assert [event.type for event in told([tool(took=None)])] == ["tool_call_request"]


def test_a_child_whose_clock_is_behind_begins_with_its_parent() -> None:
    """Steps rise and times never fall."""
    root = span("app", at=50, took=100)
    events = told([root, tool(root, at=10, took=5)])

    assert [event.time_ns - START for event in events] == [50_000_000] * 3 + [150_000_000]
    assert [event.step for event in events] == [1, 2, 3, 1]


def test_each_event_has_a_key_of_its_own_that_is_the_same_the_next_time() -> None:
    """So a span that comes twice is stored once, even if its id was used twice."""
    spans = [tool(at=0, number=7), tool(at=50, number=7)]
    keys = [event.key for event in told(spans)]

    assert len(set(keys)) == 4
    assert keys == [event.key for event in told(spans)]


def test_thinking_comes_before_the_answer() -> None:
    """Each block is an event."""
    parts: list[Any] = [{"type": "reasoning", "content": "Deep."}, {"type": "text", "content": "310"}]
    about = {"gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}])}
    _, thought, answer = told([turn(attributes=about)])

    assert thought.content == {"type": "thinking", "thinking": "Deep."}
    assert answer.content["content"] == "310"


def test_an_embedding_is_two_events() -> None:
    """With its texts, and the number and length of its vectors."""
    about = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.embeddings.input": '["a", "b"]',
        "gen_ai.embeddings.dimension.count": 3,
    }
    request, response = told([span("embeddings e", attributes=about)])

    assert request.content == {"input": ["a", "b"]}
    assert (response.content["embeddingCount"], response.content["firstEmbeddingDimensions"]) == (2, 3)


def test_where_an_event_comes_from_is_in_its_metadata() -> None:
    """With what no dialect knows, the other spans that tell of it, and the ones folded into it."""
    root = span("app", took=100, scope="mine", attributes={"colour": "blue"})
    inner = span("GET", root, kind=3, attributes={"http.request.method": "GET"})
    source = told([root, inner])[0].metadata["otel"]

    assert source["scope"] == "mine"
    assert source["attributes"] == {"colour": "blue"}
    assert [each["name"] for each in source["folded"]] == ["GET"]


def test_the_agent_of_a_trace_is_the_outermost_one_or_the_service() -> None:
    """A service that nobody named tells nothing."""
    named = span("app", service="shop")

    assert agent_of(read_trace(run())) == "guide"
    assert agent_of(read_trace([named])) == "shop"
    assert agent_of(read_trace([span("app", service="unknown_service:python")])) == "opentelemetry"
