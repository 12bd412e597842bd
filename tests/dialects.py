"""One turn, one tool call and one failure, as spans in each dialect."""

from __future__ import annotations

import json

from spans import ARGUMENTS, QUESTION, RESULT, happened, raised, span

from whyops_trace._otel.span import Span

ARGUMENTS_TEXT, RESULT_TEXT = json.dumps(ARGUMENTS), json.dumps(RESULT)
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "depth", "arguments": ARGUMENTS_TEXT}}
CHAT_MESSAGE = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "total_tokens": 107,
    "prompt_tokens_details": {"cached_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-2026",
    "choices": [{"index": 0, "finish_reason": "tool_calls", "message": CHAT_MESSAGE}],
    "usage": CHAT_USAGE,
}
GENAI_ASKED = json.dumps([{"role": "user", "parts": [{"type": "text", "content": QUESTION["content"]}]}])
GENAI_ANSWERED = json.dumps(
    [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "call_1", "name": "depth", "arguments": ARGUMENTS}],
            "finish_reason": "tool_call",
        }
    ]
)
GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.response.model": "gpt-5-2026",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ["tool_calls"],
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 10,
    "gen_ai.usage.reasoning.output_tokens": 3,
}
GENAI_CONTENT = {"gen_ai.input.messages": GENAI_ASKED, "gen_ai.output.messages": GENAI_ANSWERED}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-5-2026",
    "llm.provider": "openai",
    "llm.finish_reason": "tool_calls",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": QUESTION["content"],
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "depth",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": ARGUMENTS_TEXT,
    "llm.token_count.prompt": 100,
    "llm.token_count.completion": 7,
    "llm.token_count.prompt_details.cache_read": 10,
    "llm.token_count.completion_details.reasoning": 3,
    "output.value": json.dumps(CHAT),
}
VERCEL = {
    "ai.operationId": "ai.generateText.doGenerate",
    "ai.model.id": "gpt-5",
    "ai.model.provider": "openai.chat",
    "ai.prompt.messages": json.dumps(
        [{"role": "user", "content": [{"type": "text", "text": QUESTION["content"]}]}]
    ),
    "ai.response.toolCalls": json.dumps(
        [{"toolCallId": "call_1", "toolName": "depth", "input": ARGUMENTS_TEXT}]
    ),
    "ai.response.finishReason": "tool_calls",
    "ai.response.model": "gpt-5-2026",
    "ai.response.id": "chatcmpl-1",
    "ai.usage.inputTokens": 100,
    "ai.usage.outputTokens": 7,
    "ai.usage.cachedInputTokens": 10,
    "ai.usage.reasoningTokens": 3,
}
HAYSTACK_REPLY = {
    "role": "assistant",
    "content": [{"tool_call": {"tool_name": "depth", "arguments": ARGUMENTS, "id": "call_1"}}],
    "meta": {"model": "gpt-5-2026", "id": "chatcmpl-1", "finish_reason": "tool_calls", "usage": CHAT_USAGE},
}
LOGFIRE_EVENTS = [
    {"event.name": "gen_ai.user.message", **QUESTION},
    {"event.name": "gen_ai.choice", "message": {"role": "assistant", "tool_calls": [CHAT_CALL]}},
]

TURNS: dict[str, Span] = {
    "genai": span("chat gpt-5", kind=3, attributes={**GENAI, **GENAI_CONTENT}),
    "genai in an event": span(
        "chat gpt-5",
        kind=3,
        attributes=GENAI,
        events=[happened("gen_ai.client.inference.operation.details", **GENAI_CONTENT)],
    ),
    "genai before 1.37": span(
        "chat gpt-5",
        kind=3,
        attributes=GENAI,
        events=[
            happened("gen_ai.user.message", content=QUESTION["content"]),
            happened("gen_ai.choice", index=0, message=json.dumps(CHAT_MESSAGE), finish_reason="tool_calls"),
        ],
    ),
    "openinference": span("ChatOpenAI", attributes=OPENINFERENCE),
    "traceloop": span(
        "openai.chat",
        kind=3,
        attributes={
            **{name: value for name, value in GENAI.items() if name != "gen_ai.operation.name"},
            "llm.request.type": "chat",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": QUESTION["content"],
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.finish_reason": "tool_calls",
            "gen_ai.completion.0.tool_calls.0.id": "call_1",
            "gen_ai.completion.0.tool_calls.0.name": "depth",
            "gen_ai.completion.0.tool_calls.0.arguments": ARGUMENTS_TEXT,
        },
    ),
    "logfire": span(
        "Chat Completion with {request_data[model]!r}",
        scope="logfire.openai",
        attributes={
            **GENAI,
            "logfire.msg_template": "Chat Completion",
            "request_data": json.dumps({"messages": [QUESTION], "model": "gpt-5"}),
            "response_data": json.dumps({"message": CHAT_MESSAGE}),
        },
    ),
    "logfire, a list of events": span(
        "Responses API",
        scope="logfire.openai_agents",
        attributes={**GENAI, "logfire.msg_template": "Responses API", "events": json.dumps(LOGFIRE_EVENTS)},
    ),
    "vercel": span("ai.generateText.doGenerate", scope="ai", attributes=VERCEL),
    "strands": span(
        "chat",
        scope="strands.telemetry.tracer",
        attributes=GENAI,
        events=[
            happened("gen_ai.user.message", content=json.dumps([{"text": QUESTION["content"]}])),
            happened(
                "gen_ai.choice",
                finish_reason="tool_calls",
                message=json.dumps(
                    [{"toolUse": {"toolUseId": "call_1", "name": "depth", "input": ARGUMENTS}}]
                ),
            ),
        ],
    ),
    "adk": span(
        "call_llm",
        scope="gcp.vertex.agent",
        attributes={
            **{name: value for name, value in GENAI.items() if name != "gen_ai.operation.name"},
            "gen_ai.provider.name": "openai",
            "gen_ai.usage.output_tokens": 10,  # the thinking is added to the answer, which has it already
            "gcp.vertex.agent.llm_request": json.dumps(
                {"contents": [{"role": "user", "parts": [{"text": QUESTION["content"]}]}]}
            ),
            "gcp.vertex.agent.llm_response": json.dumps(
                {
                    "content": {
                        "role": "model",
                        "parts": [{"function_call": {"id": "call_1", "name": "depth", "args": ARGUMENTS}}],
                    }
                }
            ),
        },
    ),
    "ag2": span(
        "chat gpt-5",
        attributes={
            **GENAI,
            "ag2.span.type": "llm",
            "gen_ai.input.messages": json.dumps([QUESTION]),
            "gen_ai.output.messages": json.dumps([CHAT_MESSAGE]),
        },
    ),
    "haystack": span(
        "haystack.agent.step.llm",
        attributes={
            "haystack.agent.step.llm.input": json.dumps(
                {"messages": [{"role": "user", "content": [{"text": QUESTION["content"]}]}]}
            ),
            "haystack.agent.step.llm.output": json.dumps({"replies": [HAYSTACK_REPLY]}),
        },
    ),
    "litellm, as sent": span(
        "raw_gen_ai_request",
        scope="litellm",
        attributes={
            "llm.openai.messages": repr([QUESTION]),
            "llm.openai.choices": repr(CHAT["choices"]),
            "llm.openai.usage": repr(CHAT_USAGE),
            "llm.openai.id": "chatcmpl-1",
            "llm.openai.model": "gpt-5-2026",
        },
    ),
    "langfuse": span(
        "OpenAI-generation",
        scope="langfuse-sdk",
        attributes={
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-5-2026",
            "langfuse.observation.input": json.dumps({"messages": [QUESTION]}),
            "langfuse.observation.output": json.dumps(CHAT_MESSAGE),
            "langfuse.observation.usage_details": json.dumps(CHAT_USAGE),
        },
    ),
    "langsmith": span(
        "ChatOpenAI",
        scope="langsmith",
        attributes={
            "langsmith.span.kind": "llm",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-5",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.prompt": json.dumps(
                {"messages": [[{"lc": 1, "kwargs": {"type": "human", "content": QUESTION["content"]}}]]}
            ),
            "gen_ai.completion": json.dumps(
                {
                    "generations": [
                        [
                            {
                                "message": {
                                    "lc": 1,
                                    "kwargs": {
                                        "type": "ai",
                                        "content": "",
                                        "tool_calls": [{"id": "call_1", "name": "depth", "args": ARGUMENTS}],
                                        "response_metadata": {
                                            "id": "chatcmpl-1",
                                            "finish_reason": "tool_calls",
                                            "model_name": "gpt-5-2026",
                                        },
                                        "usage_metadata": {
                                            "input_tokens": 100,
                                            "output_tokens": 7,
                                            "total_tokens": 107,
                                            "input_token_details": {"cache_read": 10},
                                            "output_token_details": {"reasoning": 3},
                                        },
                                    },
                                }
                            }
                        ]
                    ]
                }
            ),
        },
    ),
    "mlflow": span(
        "Completions",
        attributes={
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.spanInputs": json.dumps({"model": "gpt-5", "messages": [QUESTION]}),
            "mlflow.spanOutputs": json.dumps(CHAT),
        },
    ),
    "smolagents": span(
        "OpenAIModel.generate",
        scope="openinference.instrumentation.smolagents",
        attributes={
            **{name: value for name, value in OPENINFERENCE.items() if "details" not in name},
            "output.value": json.dumps(
                {
                    "role": "assistant",
                    "raw": "ChatCompletion(id='chatcmpl-1', choices=[Choice(finish_reason='tool_calls')],"
                    " usage=CompletionUsage(completion_tokens=7, prompt_tokens=100, total_tokens=107,"
                    " completion_tokens_details=CompletionTokensDetails(reasoning_tokens=3),"
                    " prompt_tokens_details=PromptTokensDetails(cached_tokens=10)))",
                }
            ),
        },
    ),
}

TOOLS: dict[str, Span] = {
    "genai": span(
        "execute_tool depth",
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "depth",
            "gen_ai.tool.call.id": "call_1",
            "gen_ai.tool.call.arguments": ARGUMENTS_TEXT,
            "gen_ai.tool.call.result": RESULT_TEXT,
        },
    ),
    "strands": span(
        "execute_tool depth",
        scope="strands.telemetry.tracer",
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "depth",
            "gen_ai.tool.call.id": "call_1",
            "gen_ai.tool.status": "success",
        },
        events=[
            happened("gen_ai.tool.message", role="tool", content=ARGUMENTS_TEXT, id="call_1"),
            happened("gen_ai.choice", message=json.dumps([{"text": RESULT_TEXT}]), id="call_1"),
        ],
    ),
    "strands, with messages": span(
        "execute_tool depth",
        attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "depth"},
        events=[
            happened(
                "gen_ai.client.inference.operation.details",
                gen_ai__input__messages=json.dumps(
                    [
                        {
                            "role": "tool",
                            "parts": [
                                {"type": "tool_call", "id": "call_1", "name": "depth", "arguments": ARGUMENTS}
                            ],
                        }
                    ]
                ),
            ),
            happened(
                "gen_ai.client.inference.operation.details",
                gen_ai__output__messages=json.dumps(
                    [
                        {
                            "role": "tool",
                            "parts": [
                                {
                                    "type": "tool_call_response",
                                    "id": "call_1",
                                    "result": [{"text": RESULT_TEXT}],
                                }
                            ],
                        }
                    ]
                ),
            ),
        ],
    ),
    "openinference of LangChain": span(
        "depth",
        attributes={
            "openinference.span.kind": "TOOL",
            "tool.name": "depth",
            "input.value": ARGUMENTS_TEXT,
            "output.value": json.dumps(
                {
                    "type": "tool",
                    "data": {
                        "content": RESULT_TEXT,
                        "type": "tool",
                        "tool_call_id": "call_1",
                        "status": "success",
                    },
                }
            ),
        },
    ),
    "traceloop of LangChain": span(
        "depth.tool",
        attributes={
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": "depth",
            "traceloop.entity.input": json.dumps({"input_str": repr(ARGUMENTS), "tags": []}),
            "traceloop.entity.output": json.dumps(
                {
                    "output": {
                        "lc": 1,
                        "type": "constructor",
                        "id": ["ToolMessage"],
                        "kwargs": {"content": RESULT_TEXT, "type": "tool", "tool_call_id": "call_1"},
                    },
                    "kwargs": {},
                }
            ),
        },
    ),
    "langsmith": span(
        "depth",
        scope="langsmith",
        attributes={
            "langsmith.span.kind": "tool",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "depth",
            "gen_ai.prompt": ARGUMENTS_TEXT,
            "gen_ai.completion": json.dumps(
                {
                    "output": {
                        "type": "tool",
                        "content": RESULT_TEXT,
                        "tool_call_id": "call_1",
                        "status": "success",
                    }
                }
            ),
        },
    ),
    "traceloop of LlamaIndex": span(
        "BaseWorkflowAgent.task",
        attributes={
            "traceloop.span.kind": "task",
            "traceloop.entity.name": "BaseWorkflowAgent.task",
            "tool.name": "depth",
            "tool.arguments": ARGUMENTS_TEXT,
            "traceloop.entity.output": json.dumps(
                {
                    "tool_name": "depth",
                    "tool_id": "call_1",
                    "tool_output": {"tool_name": "depth", "raw_output": RESULT, "is_error": False},
                }
            ),
        },
    ),
    "vercel": span(
        "ai.toolCall",
        attributes={
            "ai.operationId": "ai.toolCall",
            "ai.toolCall.name": "depth",
            "ai.toolCall.id": "call_1",
            "ai.toolCall.args": ARGUMENTS_TEXT,
            "ai.toolCall.result": RESULT_TEXT,
        },
    ),
    "claude code": span(
        "claude_code.tool",
        events=[happened("tool.output", content=RESULT_TEXT)],
        attributes={
            "span.type": "tool",
            "tool_name": "depth",
            "tool_use_id": "call_1",
            "tool_input": ARGUMENTS_TEXT,
        },
    ),
    "adk": span(
        "execute_tool depth",
        scope="gcp.vertex.agent",
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "depth",
            "gen_ai.tool.call.id": "call_1",
            "gcp.vertex.agent.tool_call_args": ARGUMENTS_TEXT,
            "gcp.vertex.agent.tool_response": RESULT_TEXT,
        },
    ),
    "logfire, of the Agents SDK": span(
        "Function: {name}",
        scope="logfire.openai_agents",
        attributes={
            "logfire.msg_template": "Function: {name}",
            "name": "depth",
            "input": ARGUMENTS_TEXT,
            "output": RESULT_TEXT,
            "gen_ai.tool.call.id": "call_1",
        },
    ),
}
#: Those that do not know the id of the call.
TOOLS_WITHOUT_ID: dict[str, Span] = {
    "openinference of smolagents": span(
        "SimpleTool",
        attributes={
            "openinference.span.kind": "TOOL",
            "tool.name": "depth",
            "input.value": json.dumps({"args": [], "sanitize_inputs_outputs": True, "kwargs": ARGUMENTS}),
            "output.value": RESULT_TEXT,
        },
    ),
    "openinference of DSPy": span(
        "depth.__call__",
        attributes={
            "openinference.span.kind": "TOOL",
            "input.value": json.dumps({"kwargs": ARGUMENTS}),
            "output.value": RESULT_TEXT,
        },
    ),
    "traceloop": span(
        "depth.tool",
        attributes={
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": "depth",
            "traceloop.entity.input": json.dumps({"args": [], "kwargs": ARGUMENTS}),
            "traceloop.entity.output": RESULT_TEXT,
        },
    ),
    "haystack": span(
        "haystack.agent.step.tool",
        attributes={
            "haystack.tool.name": "depth",
            "haystack.agent.step.tool.input": ARGUMENTS_TEXT,
            "haystack.agent.step.tool.output": RESULT_TEXT,
        },
    ),
    "langfuse": span(
        "depth",
        attributes={
            "langfuse.observation.type": "tool",
            "langfuse.observation.input": json.dumps({"args": [], "kwargs": ARGUMENTS}),
            "langfuse.observation.output": RESULT_TEXT,
        },
    ),
    "mlflow": span(
        "depth",
        attributes={
            "mlflow.spanType": '"TOOL"',
            "mlflow.spanInputs": ARGUMENTS_TEXT,
            "mlflow.spanOutputs": RESULT_TEXT,
        },
    ),
    "mcp": span(
        "tools/call depth",
        kind=2,
        attributes={
            "mcp.method.name": "tools/call",
            "gen_ai.tool.call.arguments": ARGUMENTS_TEXT,
            "gen_ai.tool.call.result": json.dumps(
                {"content": [{"type": "text", "text": RESULT_TEXT}], "isError": False}
            ),
        },
    ),
    "pydantic ai, before it spoke genai": span(
        "running tool",
        scope="pydantic-ai",
        attributes={
            "gen_ai.tool.name": "depth",
            "tool_arguments": ARGUMENTS_TEXT,
            "tool_response": RESULT_TEXT,
        },
    ),
}

FAILED: dict[str, Span] = {
    "an exception": span(
        "t", attributes={"gen_ai.operation.name": "execute_tool"}, error="deep", events=[raised("deep")]
    ),
    "its status alone": span("t", attributes={"gen_ai.operation.name": "execute_tool"}, error="deep"),
    "a message of LangChain": span(
        "t",
        attributes={
            "openinference.span.kind": "TOOL",
            "output.value": json.dumps(
                {"type": "tool", "data": {"content": "deep", "type": "tool", "status": "error"}}
            ),
        },
    ),
    "a result of MCP": span(
        "t",
        attributes={
            "mcp.method.name": "tools/call",
            "mcp.tool.result": json.dumps({"content": [{"type": "text", "text": "deep"}], "isError": True}),
        },
    ),
    "a member of Haystack": span(
        "haystack.agent.step.tool",
        attributes={"haystack.tool.error": True, "haystack.agent.step.tool.output": "deep"},
    ),
    "a level of Langfuse": span(
        "t",
        attributes={
            "langfuse.observation.type": "tool",
            "langfuse.observation.level": "ERROR",
            "langfuse.observation.status_message": "deep",
        },
    ),
    "a status of Strands before 0.3": span(
        "Tool: t",
        attributes={
            "gen_ai.tool.name": "t",
            "tool.status": "error",
            "gen_ai.tool.call.result": "deep",
        },
    ),
    "a result of LlamaIndex": span(
        "BaseWorkflowAgent.task",
        attributes={
            "traceloop.span.kind": "task",
            "tool.name": "t",
            "traceloop.entity.output": json.dumps(
                {"tool_name": "t", "tool_output": {"raw_output": "deep", "is_error": True}}
            ),
        },
    ),
    "a status of Strands": span(
        "t",
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.status": "error",
            "gen_ai.tool.call.result": "deep",
        },
    ),
    "an error of the Agents SDK": span(
        "t",
        attributes={
            "logfire.msg_template": "Function: {name}",
            "error": json.dumps({"message": "deep", "data": None}),
        },
    ),
    "an object with an error": span(
        "t",
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.call.result": json.dumps({"error": {"message": "deep"}}),
        },
    ),
    "success of Claude Code": span("claude_code.tool", attributes={"success": False, "error": "deep"}),
}
