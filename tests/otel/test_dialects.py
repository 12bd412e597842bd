"""One turn and one tool call, as each of those who make spans writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from dialects import CHAT_MESSAGE, FAILED, GENAI, GENAI_CONTENT, TOOLS, TOOLS_WITHOUT_ID, TURNS
from spans import ARGUMENTS, CALL, QUESTION, RESULT, USAGE, span

from whyops_trace._otel.dialects import read_span
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import LogRecord, Span


@pytest.mark.parametrize("dialect", TURNS)
def test_a_turn_is_the_same_in_every_dialect(dialect: str) -> None:
    """The question, the call that was asked for, and the tokens without those that were cached."""
    reading = read_span(TURNS[dialect])

    assert reading.kind == "llm"
    assert [(each["role"], each["content"]) for each in reading.request.messages] == [
        tuple(QUESTION.values())
    ]
    assert [_called(call) for call in reading.answer.tool_calls] == [_called(CALL)]
    assert reading.answer.usage == USAGE
    assert reading.answer.model == "gpt-5-2026"


@pytest.mark.parametrize("dialect", sorted(TURNS.keys() - {"langfuse"}))
def test_the_provider_s_id_and_the_reason_to_stop_are_kept(dialect: str) -> None:
    """Langfuse tells neither."""
    answer = read_span(TURNS[dialect]).answer

    assert answer.id == "chatcmpl-1"
    assert answer.finish_reason == "tool_calls"


def _called(call: Any) -> tuple[Any, ...]:
    return call.get("id"), call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("dialect", [*TOOLS, *TOOLS_WITHOUT_ID])
def test_a_tool_call_is_the_same_in_every_dialect(dialect: str) -> None:
    """Its name, its arguments by parameter, and its result, each decoded; and it did not fail."""
    reading = read_span({**TOOLS, **TOOLS_WITHOUT_ID}[dialect])

    assert (reading.kind, reading.name) == ("tool", "depth")
    assert reading.input == ARGUMENTS
    assert reading.output == RESULT
    assert reading.error is None
    assert reading.call_id == ("call_1" if dialect in TOOLS else "")


@pytest.mark.parametrize("way", FAILED)
def test_a_failed_tool_is_known_in_whatever_way_it_is_told(way: str) -> None:
    """Many frameworks give the failure to the model as a result, and their spans have no error in their status."""
    error = read_span(FAILED[way]).error

    assert error is not None
    assert error.message == "deep"


def test_an_answered_turn_did_not_fail_whatever_its_status_says() -> None:
    """Some copy the status of a failed tool to the spans around it."""
    reading = read_span(span("chat", attributes={**GENAI, **GENAI_CONTENT}, error="deep"))

    assert reading.error is None


def test_a_refused_turn_failed() -> None:
    """It has a model and an error, and nothing that the model said."""
    about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5", "error.type": "RateLimitError"}
    reading = read_span(span("chat gpt-5", kind=3, attributes=about, error="429"))

    assert reading.kind == "llm"
    assert reading.error is not None
    assert (reading.error.type, reading.error.message) == ("RateLimitError", "429")


@pytest.mark.parametrize("body_of", [dict, json.dumps])
def test_messages_may_be_in_log_records(body_of: Callable[[dict[str, Any]], Any]) -> None:
    """Before 1.37 each message is a record, whose body is the message, or JSON of it as Semantic Kernel has it."""
    told = span("chat gpt-5", kind=3, attributes=GENAI)
    ids: dict[str, Any] = {"trace_id": told.trace_id, "span_id": told.span_id, "time_ns": 1}
    logs = [
        LogRecord(name="gen_ai.system.message", attributes={}, body=body_of({"content": "Be brief."}), **ids),
        LogRecord(name="gen_ai.user.message", attributes={}, body=body_of(QUESTION), **ids),
        LogRecord(
            name="gen_ai.choice",
            attributes={},
            body=body_of({"message": CHAT_MESSAGE, "finish_reason": "stop"}),
            **ids,
        ),
    ]
    reading = read_span(told, logs)

    assert [each["role"] for each in reading.request.messages] == ["system", "user"]
    assert [_called(call) for call in reading.answer.tool_calls] == [_called(CALL)]


def test_what_no_dialect_knows_is_kept() -> None:
    """So nothing is lost that a newer version tells."""
    reading = read_span(span("chat", attributes={**GENAI, "gen_ai.new.thing": 1, "mine": "x"}))

    assert reading.rest == {"gen_ai.new.thing": 1, "mine": "x"}


def test_the_text_of_a_failure_is_said_and_not_its_code() -> None:
    """Google ADK has the code in the status, and the text in the result."""
    about = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "depth",
        "gen_ai.tool.call.result": json.dumps({"error": "too deep"}),
        "error.type": "TOOL_ERROR",
    }
    error = read_span(span("execute_tool depth", attributes=about, error="TOOL_ERROR")).error

    assert error is not None
    assert (error.type, error.message) == ("TOOL_ERROR", "too deep")


@pytest.mark.parametrize("genai", [{}, {"gen_ai.usage.input_tokens": 105}])
def test_anthropic_s_counts_of_claude_code_exclude_the_cached_ones(genai: dict[str, int]) -> None:
    """All others include them in the input, and so does its count in GenAI's words."""
    about = {
        "span.type": "llm_request",
        "model": "claude-sonnet-5",
        "input_tokens": 5,
        "output_tokens": 7,
        "cache_read_tokens": 90,
        "cache_creation_tokens": 10,
        **genai,
    }
    reading = read_span(span("claude_code.llm_request", attributes=about))

    assert reading.kind == "llm"
    assert reading.answer.usage == {
        "promptTokens": 5,
        "completionTokens": 7,
        "cacheReadTokens": 90,
        "cacheCreationTokens": 10,
        "totalTokens": 112,
    }


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        # Bedrock counts the cached tokens beside the input, and one instrumentation does not add them.
        ("opentelemetry.instrumentation.bedrock", {"gen_ai.usage.input_tokens": 90}),
        # A total tells that they are no part of the input.
        ("strands", {"gen_ai.usage.input_tokens": 90, "gen_ai.usage.total_tokens": 107}),
        # Gemini counts its thinking beside the answer, and the total tells of it.
        (
            "opentelemetry.instrumentation.google_generativeai",
            {
                "gen_ai.provider.name": "gcp.gen_ai",
                "gen_ai.usage.output_tokens": 4,
                "gen_ai.usage.total_tokens": 107,
                "gen_ai.usage.reasoning.output_tokens": 0,
            },
        ),
    ],
)
def test_tokens_are_counted_as_their_provider_counts_them(scope: str, told: dict[str, Any]) -> None:
    """Cached tokens are in no other count, and thinking is a part of the answer."""
    usage = read_span(span("chat gpt-5", scope=scope, kind=3, attributes={**GENAI, **told})).answer.usage

    assert usage == USAGE


def test_openlit_has_the_messages_of_a_turn_as_texts() -> None:
    """The question with the name of who asks, and the answer."""
    about = {**GENAI, "gen_ai.prompt": "user: How deep?", "gen_ai.completion": "310 metres"}
    reading = read_span(span("chat gpt-5", kind=3, attributes=about))

    assert reading.request.messages == [{"role": "user", "content": "user: How deep?"}]
    assert reading.answer.content == "310 metres"


def test_versions_of_adk_before_2_tell_of_cached_tokens_in_the_answer() -> None:
    """The input of the span includes them."""
    about = {
        "gen_ai.system": "gcp.vertex.agent",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gcp.vertex.agent.llm_response": '{"usage_metadata": {"cached_content_token_count": 10}}',
    }
    usage = read_span(span("call_llm", scope="gcp.vertex.agent", attributes=about)).answer.usage

    assert usage == {name: count for name, count in USAGE.items() if name != "reasoningTokens"}


def test_autogen_has_a_text_beside_the_calls_of_an_answer() -> None:
    """Its attributes have the calls alone."""
    about = {
        "openinference.span.kind": "LLM",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "depth",
        "output.value": '{"finish_reason": "function_calls", "content": [{}], "thought": "Let me look."}',
    }
    answer = read_span(span("OpenAIChatCompletionClient.create", attributes=about)).answer

    assert (answer.content, answer.finish_reason) == ("Let me look.", "function_calls")


@pytest.mark.parametrize(
    ("told", "kind", "name"),
    [
        (
            span(
                "invoke_agent x",
                attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "x"},
            ),
            "agent",
            "x",
        ),
        (
            span("create_agent x", attributes={"gen_ai.operation.name": "create_agent"}),
            "step",
            "create_agent x",
        ),
        (span("x.run", attributes={"openinference.span.kind": "AGENT"}), "agent", "x"),
        (span("x", attributes={"openinference.span.kind": "CHAIN"}), "step", "x"),
        (
            span("x", attributes={"openinference.span.kind": "CHAIN", "metadata": '{"lc_agent_name": "x"}'}),
            "agent",
            "x",
        ),
        (span("handoff to x", attributes={"openinference.span.kind": "TOOL"}), "handoff", "x"),
        (span("ReAct.forward", attributes={"openinference.span.kind": "CHAIN"}), "agent", "ReAct"),
        (
            span("x.workflow", attributes={"traceloop.span.kind": "workflow", "traceloop.entity.name": "x"}),
            "step",
            "x",
        ),
        (
            span(
                "Handoff",
                attributes={
                    "logfire.msg_template": "Handoff: {from_agent} → {to_agent}",
                    "from_agent": "y",
                    "to_agent": "x",
                },
            ),
            "handoff",
            "x",
        ),
        (
            span(
                "ai.generateText",
                attributes={"ai.operationId": "ai.generateText", "ai.telemetry.functionId": "x"},
            ),
            "agent",
            "x",
        ),
        (span("claude_code.interaction"), "agent", "claude-code"),
        (
            span("x", attributes={"langsmith.span.kind": "chain", "langsmith.metadata.lc_agent_name": "x"}),
            "agent",
            "x",
        ),
        (
            span(
                "crewai.workflow",
                attributes={
                    "gen_ai.operation.name": "invoke_agent",
                    "crewai.crew.id": "1",
                    "crewai.crew.name": "x",
                },
            ),
            "step",
            "x",
        ),
        (span("haystack.agent.run", attributes={"haystack.component.name": "x"}), "agent", "x"),
        (span("MCP send tools/list", attributes={"mcp.method.name": "tools/list"}), "step", "tools/list"),
        (span("GET", kind=3, attributes={"http.request.method": "GET"}), "", "GET"),
        (span("SELECT", attributes={"db.system": "sqlite"}), "", "SELECT"),
        (span("my own"), "step", "my own"),
        (
            span(
                "finish.__call__",
                scope="openinference.instrumentation.dspy",
                attributes={"openinference.span.kind": "TOOL"},
            ),
            "step",
            "finish",
        ),
        (
            span(
                "execute_tool (merged)",
                scope="gcp.vertex.agent",
                attributes={"gen_ai.operation.name": "execute_tool"},
            ),
            "step",
            "execute_tool (merged)",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Span) else None,
)
def test_a_span_is_what_its_dialect_says(told: Span, kind: str, name: str) -> None:
    """An agent, a handoff, a step; or nothing of an agent's, such as a call of a database."""
    reading = read_span(told)

    assert (reading.kind, reading.name) == (kind, name)


def test_an_embedding_tells_its_texts_and_the_length_of_its_vectors() -> None:
    """In three dialects, without the vectors."""
    openinference = {
        "openinference.span.kind": "EMBEDDING",
        "embedding.model_name": "e",
        "embedding.embeddings.0.embedding.text": "a",
        "embedding.embeddings.0.embedding.vector": [1.0, 2.0],
        "llm.token_count.prompt": 5,
    }
    vercel = {
        "ai.operationId": "ai.embed.doEmbed",
        "ai.model.id": "e",
        "ai.values": ['"a"'],
        "ai.embeddings": ["[1.0, 2.0]"],
        "ai.usage.tokens": 5,
    }
    genai = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "e",
        "gen_ai.embeddings.input": '["a"]',
        "gen_ai.embeddings.dimension.count": 2,
        "gen_ai.usage.input_tokens": 5,
    }

    def told(reading: Reading) -> tuple[Any, ...]:
        return reading.kind, reading.model, reading.input, reading.dimensions, reading.answer.usage

    expected = ("embedding", "e", ["a"], 2, {"promptTokens": 5, "totalTokens": 5})
    assert [told(read_span(span("e", attributes=about))) for about in (openinference, vercel, genai)] == [
        expected
    ] * 3
