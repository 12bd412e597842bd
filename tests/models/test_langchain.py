"""Messages of LangChain and Pydantic AI are turns like any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from recorded import Recorded

from whyops_trace import traced_llm, traced_tool
from whyops_trace._models.frameworks import id_of

USAGE = {
    "input_tokens": 100,
    "output_tokens": 5,
    "total_tokens": 105,
    "input_token_details": {"cache_read": 40, "cache_creation": 10},
    "output_token_details": {"reasoning": 2},
}
COUNTED = {
    "promptTokens": 50,
    "completionTokens": 5,
    "totalTokens": 105,
    "cacheReadTokens": 40,
    "cacheCreationTokens": 10,
    "reasoningTokens": 2,
}
CALL = {"name": "charge", "args": {"amount": 5, "password": "p"}, "id": "c1"}
ASKED = {"function": {"name": "charge", "arguments": '{"amount":5,"password":"[redacted]"}'}, "id": "c1"}
ABOUT = {
    "model_name": "gpt-4o",
    "finish_reason": "tool_calls",
    "model_provider": "openai",
    "id": "chatcmpl-1",
}


def imported(name: str) -> Any:
    """Return a module, or skip the test where it is missing."""
    return pytest.importorskip(name, reason="the session `frameworks` of nox installs it")


@pytest.fixture
def lc() -> Any:
    return imported("langchain_core.messages")


def turn(events: Recorded) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and content of the last answer."""
    answer = [record for record in events.records if record["eventType"] == "llm_response"][-1]
    return answer["metadata"], answer["content"]


def test_a_chat_model_of_langchain_is_a_turn(events: Recorded, lc: Any) -> None:
    """With the messages by role, model, tool calls and tokens, of ``invoke`` and of ``stream``."""
    model = imported("langchain_core.language_models.fake_chat_models").GenericFakeChatModel
    answer = lc.AIMessage("Sure", tool_calls=[CALL], usage_metadata=USAGE, response_metadata=ABOUT)
    ask = traced_llm(model(messages=iter([answer])).invoke)
    stream = traced_llm(model(messages=iter([lc.AIMessage("hello there")])).stream)

    assert ask([lc.SystemMessage("Be brief."), ("human", "Charge me.")]).content == "Sure"
    assert [each.content for each in stream("Hello?")] == ["hello", " ", "there"]
    requests = [record["content"] for record in events.records if record["eventType"] == "user_message"]
    answers = [record for record in events.records if record["eventType"] == "llm_response"]

    assert requests == [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Charge me."}]},
        {"messages": [{"role": "user", "content": "Hello?"}]},
    ]
    assert answers[0]["content"] == {"content": "Sure", "toolCalls": [ASKED], "finishReason": "tool_calls"}
    about = answers[0]["metadata"]
    assert (about["model"], about["provider"], about["usage"]) == ("gpt-4o", "openai", COUNTED)
    assert about["responseId"] == "chatcmpl-1"
    assert answers[1]["content"]["content"] == "hello there"
    assert "responseId" not in answers[1]["metadata"]


def test_the_result_of_a_tool_names_the_tool(events: Recorded, lc: Any) -> None:
    """By the call that asked for it."""

    @traced_llm
    def ask(messages: list[Any]) -> str:
        return "Done."

    ask([lc.HumanMessage("q"), lc.AIMessage("", tool_calls=[CALL]), lc.ToolMessage("ok", tool_call_id="c1")])
    [request, _] = events.records

    assert (request["eventType"], request["content"]["toolName"]) == ("tool_result", "charge")
    assert request["content"]["output"] == "ok"
    assert request["content"]["messages"][1]["tool_calls"] == [
        {"id": "c1", "function": {"name": "charge", "arguments": {"amount": 5, "password": "[redacted]"}}}
    ]


def test_a_prompt_of_langchain_is_its_messages(events: Recorded, lc: Any) -> None:
    """As a template makes it."""
    prompts = imported("langchain_core.prompts")

    @traced_llm
    def ask(prompt: Any) -> str:
        return "Done."

    ask(prompts.ChatPromptTemplate([("system", "s"), ("human", "{q}")]).invoke({"q": "x"}))

    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]
    assert events.records[0]["content"] == {"messages": messages}


def test_a_streamed_tool_call_is_put_together(events: Recorded, lc: Any) -> None:
    """And so are the tokens, of which each piece has its part; also where LangGraph tells more of each."""
    pieces = [
        lc.AIMessageChunk("", usage_metadata={"input_tokens": 100, "output_tokens": 0, "total_tokens": 100}),
        lc.AIMessageChunk(
            "I ", tool_call_chunks=[{"name": "charge", "args": '{"amount', "id": "c1", "index": 0}]
        ),
        lc.AIMessageChunk("do.", tool_call_chunks=[{"name": None, "args": '":5}', "id": None, "index": 0}]),
        lc.AIMessageChunk(
            "",
            usage_metadata={"input_tokens": 0, "output_tokens": 5, "total_tokens": 5},
            response_metadata={"stop_reason": "tool_use", "model": "claude-x"},
        ),
    ]

    @traced_llm
    def ask(prompt: str, beside: bool) -> Iterator[Any]:
        for piece in pieces:
            yield (piece, {"langgraph_node": "agent"}) if beside else piece

    for beside in (False, True):
        assert len(list(ask("q", beside))) == len(pieces)
        metadata, content = turn(events)

        assert content == {
            "content": "I do.",
            "toolCalls": [{"function": {"name": "charge", "arguments": '{"amount":5}'}, "id": "c1"}],
            "finishReason": "tool_use",
        }
        assert metadata["model"] == "claude-x"
        assert metadata["usage"] == {"promptTokens": 100, "completionTokens": 5, "totalTokens": 105}
        assert "timeToFirstTokenMs" in metadata


def test_blocks_of_langchain_are_told_apart(events: Recorded, lc: Any) -> None:
    """Thinking, text and tool calls, whole and in pieces."""
    thought = {"type": "thinking", "thinking": "Hm.", "index": 0}
    whole = lc.AIMessage([thought, {"type": "text", "text": "Hi"}], tool_calls=[CALL])
    pieces = [
        lc.AIMessageChunk([{**thought, "thinking": "H"}]),
        lc.AIMessageChunk([{**thought, "thinking": "m."}]),
        lc.AIMessageChunk([{"type": "text", "text": "H", "index": 1}]),
        lc.AIMessageChunk([{"type": "text", "text": "i", "index": 1}]),
    ]

    @traced_llm
    def ask(prompt: str) -> Any:
        return whole

    @traced_llm
    def stream(prompt: str) -> Iterator[Any]:
        yield from pieces

    ask("q")
    assert turn(events)[1] == {"content": "Hi", "toolCalls": [ASKED]}
    list(stream("q"))
    assert turn(events)[1] == {"content": "Hi"}
    thoughts = [record["content"] for record in events.records if record["eventType"] == "llm_thinking"]
    assert thoughts == [{"type": "thinking", "thinking": "Hm."}] * 2


def test_results_around_a_message_are_answers(events: Recorded, lc: Any) -> None:
    """Of a chat model's ``generate``, and of a graph whose state ends with one."""
    outputs = imported("langchain_core.outputs")
    message = lc.AIMessage("Sure")
    generation = outputs.ChatGeneration(message=message)
    told = {"model_name": "gpt-4o", "token_usage": {"prompt_tokens": 3}}

    @traced_llm
    def ask(result: Any) -> Any:
        return result

    for result in (
        outputs.ChatResult(generations=[generation], llm_output=told),
        outputs.LLMResult(generations=[[generation]], llm_output=told),
        {"messages": [lc.HumanMessage("q"), message]},
        outputs.LLMResult(generations=[[outputs.Generation(text="Sure")]]),
    ):
        ask(result)
        metadata, content = turn(events)

        assert content == {"content": "Sure"}
        if getattr(result, "llm_output", None):
            assert (metadata["model"], metadata["usage"]["promptTokens"]) == ("gpt-4o", 3)


def test_a_tools_messages_keep_their_calls(events: Recorded, lc: Any) -> None:
    """Alone, in lists and in dicts."""

    @traced_tool
    def look() -> Any:
        return {"messages": [lc.AIMessage("Sure", tool_calls=[CALL])]}

    look()
    [message] = events.records[-1]["content"]["toolResults"]["messages"]

    assert message["tool_calls"][0]["args"] == {"amount": 5, "password": "[redacted]"}


def test_messages_of_pydantic_ai_are_a_turn(events: Recorded) -> None:
    """The request by roles, the answer with thinking, tool calls and tokens."""
    pm, usage = imported("pydantic_ai.messages"), imported("pydantic_ai.usage")
    answer = pm.ModelResponse(
        parts=[pm.ThinkingPart("Hm."), pm.TextPart("Sure"), pm.ToolCallPart("charge", CALL["args"], "c1")],
        usage=usage.RequestUsage(
            input_tokens=100, output_tokens=5, cache_read_tokens=40, cache_write_tokens=10
        ),
        model_name="gpt-4o",
        provider_name="openai",
        finish_reason="tool_call",
    )

    @traced_llm
    def ask(messages: list[Any]) -> Any:
        return answer

    first = pm.ModelRequest(parts=[pm.SystemPromptPart("Be brief."), pm.UserPromptPart("Charge me.")])
    ask([first])
    metadata, content = turn(events)
    ask([first, answer, pm.ModelRequest(parts=[pm.ToolReturnPart("charge", "ok", "c1")])])
    requests = [record for record in events.records if record["eventType"] in ("user_message", "tool_result")]

    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Charge me."}]
    assert requests[0]["content"] == {"messages": asked}
    assert content == {"content": "Sure", "toolCalls": [ASKED], "finishReason": "tool_call"}
    assert (metadata["model"], metadata["provider"]) == ("gpt-4o", "openai")
    assert metadata["usage"] == {
        "promptTokens": 50, "completionTokens": 5, "totalTokens": 105, "cacheReadTokens": 40, "cacheCreationTokens": 10,
    }  # fmt: skip
    assert requests[1]["eventType"] == "tool_result"
    assert (requests[1]["content"]["toolName"], requests[1]["content"]["output"]) == ("charge", "ok")
    assert [message["role"] for message in requests[1]["content"]["messages"]][2:] == ["assistant", "tool"]


def test_pairs_of_a_role_and_a_text_are_messages(events: Recorded) -> None:
    """As LangChain takes them, in a list beside others."""

    @traced_llm
    def ask(messages: list[Any]) -> str:
        return "Sure"

    ask([("system", "Be brief."), ("human", "Charge me."), {"role": "user", "content": "Now."}, ("a", "b")])
    (request,) = (record["content"] for record in events.records if record["eventType"] == "user_message")

    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Charge me."},
        {"role": "user", "content": "Now."},
        ["a", "b"],
    ]


def test_the_id_of_a_result_of_generations_is_that_of_its_message() -> None:
    """That of the provider, and not one that LangChain makes."""
    message = {"type": "ai", "content": "Sure", "id": "lc_run-1", "response_metadata": ABOUT}

    assert id_of({"generations": [[{"text": "Sure", "message": message}]]}) == "chatcmpl-1"
    assert id_of({"generations": [[{"text": "Sure"}]]}) == ""
