"""The spans of a trace as a tree in which each turn, tool call and agent is once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from spans import ARGUMENTS, CALL, RESULT, raised, span, tool, turn

from whyops_trace._otel.events import events_of
from whyops_trace._otel.node import Node
from whyops_trace._otel.span import LogRecord, Span
from whyops_trace._otel.trace import read_trace

CALLED = {"id": "call_1", "name": "depth", "arguments": ARGUMENTS}


def outline(roots: list[Node]) -> list[str]:
    """Return each node as its kind and name, two spaces in for each level."""

    def lines(nodes: list[Node], level: int) -> Iterator[str]:
        for node in nodes:
            yield "  " * level + f"{node.kind} {node.reading.name}"
            yield from lines(node.children, level + 1)

    return list(lines(roots, 0))


def only(spans: list[Span], kind: str) -> list[Node]:
    """Return the nodes of one kind, in order."""
    return [node for root in read_trace(spans) for node in root.walk() if node.kind == kind]


def tokens(spans: list[Span]) -> int:
    """Return the sum of the tokens of all turns."""
    return sum(node.reading.answer.usage.get("totalTokens", 0) for node in only(spans, "llm"))


def agent(name: str = "guide", parent: Span | None = None, **more: Any) -> Span:
    """Return the span of an agent's run, with the sum of its tokens."""
    about = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": name,
        "gen_ai.usage.input_tokens": 200,
        "gen_ai.usage.output_tokens": 14,
    }
    return span(f"invoke_agent {name}", parent, took=100, attributes=about, **more)


def openinference_turn(
    parent: Span | None = None, *, at: int = 0, took: int = 20, **attributes: object
) -> Span:
    """Return the span of a turn in OpenInference's attributes."""
    about = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-5",
        "llm.token_count.prompt": 100,
        "llm.token_count.completion": 7,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "Hello",
        **attributes,
    }
    return span("ChatCompletion", parent, at=at, took=took, scope="openinference", attributes=about)


# One turn, one report


def test_the_sum_of_an_agent_s_tokens_is_no_turn() -> None:
    """Many frameworks put it on the spans around the turns."""
    root = agent()
    spans = [root, turn(root, at=1), turn(root, at=20)]

    assert tokens(spans) == 2 * 107


def test_a_client_s_own_span_inside_a_framework_s_is_the_same_turn() -> None:
    """The messages of one, and the provider's id of the other."""
    outer = openinference_turn()
    spans = [outer, turn(outer, at=1, id="chatcmpl-1")]
    (one,) = only(spans, "llm")

    assert tokens(spans) == 107
    assert one.reading.request.messages == [{"role": "user", "content": "Hello"}]
    assert one.reading.answer.id == "chatcmpl-1"
    assert one.reading.answer.content == "310 metres"
    assert [layer.name for layer in one.layers] == ["chat gpt-5"]


def test_two_spans_with_the_same_answer_id_are_one_turn() -> None:
    """Two instrumentors of a client write one beside the other."""
    root = span("app", took=100)
    spans = [root, turn(root, at=1, id="x"), turn(root, at=2, took=5, id="x", scope="other")]

    assert outline(read_trace(spans)) == ["step app", "  llm chat gpt-5"]


def test_two_spans_in_one_place_of_which_one_is_within_the_other_are_one_turn() -> None:
    """If one of them does not tell the id of the answer, the time decides."""
    root = span("app", took=100)
    spans = [root, openinference_turn(root, at=1), turn(root, at=2, id="x")]

    assert tokens(spans) == 107


def test_parallel_turns_of_one_maker_stay_two() -> None:
    """They may begin in the same millisecond."""
    root = span("app", took=100)
    spans = [root, turn(root, at=1), turn(root, at=1)]

    assert tokens(spans) == 2 * 107


def test_an_answer_id_that_comes_back_later_is_another_turn() -> None:
    """A server for tests gives each answer the same id."""
    spans = [turn(at=0, id="x"), turn(at=50, id="x")]

    assert len(only(spans, "llm")) == 2


def test_of_two_counts_of_one_turn_the_more_detailed_one_is_taken_whole() -> None:
    """The prompt of the other includes the cached tokens, so they must not be mixed."""
    outer = openinference_turn()
    spans = [outer, turn(outer, at=1, attributes={"gen_ai.usage.cache_read.input_tokens": 60})]
    (one,) = only(spans, "llm")

    assert one.reading.answer.usage == {
        "promptTokens": 40,
        "completionTokens": 7,
        "cacheReadTokens": 60,
        "totalTokens": 107,
    }


def test_a_turn_that_was_tried_again_has_its_failures_beside_it() -> None:
    """The framework tells of one turn, the client of each try."""
    outer = openinference_turn(took=50)
    refused = span(
        "chat gpt-5",
        outer,
        at=1,
        kind=3,
        error="429",
        attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"},
    )
    turns = only([outer, refused, turn(outer, at=20, id="x")], "llm")

    assert [node.reading.answer.id for node in turns] == ["x", ""]
    assert [node.reading.error is None for node in turns] == [True, False]


def test_a_turn_around_several_answered_ones_is_a_step() -> None:
    """Its tokens are theirs."""
    outer = openinference_turn(took=50)
    spans = [outer, turn(outer, at=1), turn(outer, at=20)]

    assert outline(read_trace(spans)) == ["step ChatCompletion", "  llm chat gpt-5", "  llm chat gpt-5"]
    assert tokens(spans) == 2 * 107


def test_a_span_that_counts_tokens_once_more_adds_none() -> None:
    """AG2 writes one beside each turn."""
    root = span("app", took=100)
    counts = span(
        "usage",
        root,
        at=12,
        attributes={
            "ag2.usage.kind": "model_call",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 7,
        },
    )
    assert tokens([root, turn(root, at=1), counts]) == 107


def test_a_tool_call_seen_by_client_and_server_is_one() -> None:
    """MCP has a span at either end, and the framework one around both."""
    outer = tool(attributes={"gen_ai.tool.call.arguments": json.dumps(ARGUMENTS)})
    client = span(
        "MCP send tools/call depth", outer, at=1, kind=3, attributes={"mcp.method.name": "tools/call"}
    )
    server = span("tools/call depth", client, at=2, kind=2, attributes={"mcp.method.name": "tools/call"})
    (one,) = only([outer, client, server], "tool")

    assert one.reading.input == ARGUMENTS
    assert len(one.layers) == 2


def test_an_agent_in_an_agent_of_its_name_is_a_step() -> None:
    """A graph, and the workflow that it runs as, are one agent."""
    root = agent()
    inner = agent("guide", root, at=1)
    other = agent("helper", inner, at=2)

    assert [node.reading.name for node in only([root, inner, other], "agent")] == ["guide", "helper"]


# Who asked


def test_a_tool_is_asked_for_by_the_turn_with_the_id_of_its_call() -> None:
    """Whatever the times say."""
    spans = [
        turn(at=0, id="one", calls=[{**CALLED, "id": "call_0"}]),
        tool(at=1, attributes={"gen_ai.tool.call.id": "call_1"}),
        turn(at=20, id="two", calls=[CALLED]),
    ]
    (one,) = only(spans, "tool")

    assert one.asked_by is not None
    assert one.asked_by.reading.answer.id == "two"


def test_a_tool_without_an_id_is_asked_for_by_the_turn_with_its_arguments() -> None:
    """It gets the id from there. Equal calls are taken in order."""
    spans = [
        turn(at=0, id="one", calls=[CALLED, {**CALLED, "id": "call_2"}]),
        tool(at=11, attributes={"gen_ai.tool.call.arguments": json.dumps(ARGUMENTS)}),
        tool(at=12, attributes={"gen_ai.tool.call.arguments": json.dumps({**ARGUMENTS, "unit": "m"})}),
        tool(at=13, attributes={"gen_ai.tool.call.arguments": json.dumps({"lake": "Constance"})}),
    ]
    tools = only(spans, "tool")

    assert [node.reading.call_id for node in tools] == ["call_1", "call_2", ""]
    assert [node.asked_by is None for node in tools] == [False, False, True]


def test_a_value_alone_gets_the_name_of_its_parameter_from_the_turn() -> None:
    """Some tell the value of the only argument, and not what it is of."""
    about = {"openinference.span.kind": "TOOL", "input.value": "Geneva"}
    (one,) = only([turn(calls=[CALLED]), span("depth", at=11, attributes=about)], "tool")

    assert one.reading.input == ARGUMENTS


def test_a_step_with_the_name_of_a_tool_that_was_asked_for_is_its_call() -> None:
    """Logfire, and a program's own spans, have functions and no tools."""
    about = {
        "logfire.msg_template": "depth",
        "logfire.json_schema": json.dumps({"type": "object", "properties": {"lake": {}, "return": {}}}),
        "lake": "Geneva",
        "return": json.dumps(RESULT),
    }
    (one,) = only([turn(calls=[CALLED]), span("depth", at=11, scope="logfire", attributes=about)], "tool")

    assert (one.reading.call_id, one.reading.input, one.reading.output) == ("call_1", ARGUMENTS, RESULT)


def test_without_content_the_turn_before_that_stopped_for_tools_asked() -> None:
    """In the same agent. A turn that tells its calls never did."""
    root = agent()
    bare = {"gen_ai.output.messages": "", "gen_ai.response.finish_reasons": ["tool_calls"]}
    asker = turn(root, at=1, id="one", attributes=bare)
    (one,) = only([root, asker, tool(root, at=20)], "tool")

    assert one.asked_by is not None
    assert one.asked_by.reading.answer.id == "one"


def test_the_id_of_a_call_may_come_with_the_request_that_follows() -> None:
    """LiteLLM leaves it out of the answer."""
    about = {"gen_ai.completion.0.function_call.name": "depth", "gen_ai.output.messages": ""}
    about["gen_ai.completion.0.function_call.arguments"] = json.dumps(ARGUMENTS)
    history = json.dumps([{"role": "assistant", "tool_calls": [CALL]}])
    first, _ = only(
        [turn(attributes=about), turn(at=20, attributes={"gen_ai.input.messages": history})], "llm"
    )

    assert first.reading.answer.tool_calls[0]["id"] == "call_1"


def test_a_result_may_come_with_the_request_that_follows() -> None:
    """If the span of the tool has none."""
    history = json.dumps([{"role": "tool", "tool_call_id": "call_1", "content": json.dumps(RESULT)}])
    spans = [
        tool(attributes={"gen_ai.tool.call.id": "call_1"}),
        turn(at=20, attributes={"gen_ai.input.messages": history}),
    ]
    (one,) = only(spans, "tool")

    assert one.reading.output == RESULT


# Failures


def test_a_status_that_was_copied_is_no_failure() -> None:
    """One tool raised; the status of the others is the same text, and nothing else tells of it."""
    root = agent(error="deep")
    spans = [root, tool(root, at=1, error="deep", events=[raised("deep")]), tool(root, at=20, error="deep")]
    failed = [node.reading.name for each in read_trace(spans) for node in each.walk() if node.reading.error]

    assert failed == ["depth"]


def test_a_step_whose_tool_failed_and_whose_agent_went_on_did_not_fail() -> None:
    """It has the failure of the tool once more."""
    root = agent()
    step = span("Step 1", root, at=1, error="Tool: deep", events=[raised("Tool: deep")])
    spans = [root, step, tool(step, at=2, error="deep", events=[raised("deep")])]

    assert [node.reading.error is not None for node in only(spans, "step")] == [False]
    assert [node.reading.error is not None for node in only(spans, "tool")] == [True]


def test_a_failure_that_ended_the_run_is_that_of_all_around_it() -> None:
    """Nothing went on."""
    root = agent(error="deep", events=[raised("deep")])
    spans = [root, tool(root, at=1, error="deep", events=[raised("deep")])]

    assert [node.reading.error is not None for each in read_trace(spans) for node in each.walk()] == [
        True,
        True,
    ]


# The tree


def test_children_may_come_before_their_parents() -> None:
    """A span is sent when it ends, so nearly all do."""
    root = agent()
    inner = turn(root, at=1)

    assert outline(read_trace([inner, root])) == ["agent guide", "  llm chat gpt-5"]


def test_a_span_whose_parent_is_not_there_is_shown() -> None:
    """Its process was killed, or it is on its way."""
    assert outline(read_trace([turn("00000000000000aa")])) == ["llm chat gpt-5"]  # type: ignore[arg-type]


def test_the_same_span_twice_is_one() -> None:
    """The one that has ended."""
    running = turn(took=None, number=1)
    ended = turn(took=30, number=1)
    roots = read_trace([ended, running])

    assert [node.span.end_ns for node in roots] == [ended.end_ns]


def test_an_id_that_is_used_twice_is_two_spans() -> None:
    """They begin at different times."""
    assert len(read_trace([turn(at=0, number=1), turn(at=50, number=1)])) == 2


def test_spans_that_are_each_other_s_parents_have_a_root() -> None:
    """Whatever made them, none is lost, and nothing goes on for ever."""
    one, two = span("one", "00000000000000b2", number=0xB1), span("two", "00000000000000b1", number=0xB2)

    assert sorted(line.strip() for line in outline(read_trace([one, two]))) == ["step one", "step two"]


def test_a_child_of_such_spans_is_in_one_of_them() -> None:
    """Whichever of the three is the first."""
    child = span("child", "00000000000000b1", number=0xB0)
    one, two = (
        span("one", "00000000000000b2", at=1, number=0xB1),
        span("two", "00000000000000b1", at=2, number=0xB2),
    )

    assert sorted(line.strip() for line in outline(read_trace([child, one, two]))) == [
        "step child",
        "step one",
        "step two",
    ]


def test_calls_of_other_services_are_folded_into_what_they_are_in() -> None:
    """With what is in them. At the top, one is a step."""
    request = span("POST /chat", kind=2, took=100, attributes={"http.request.method": "POST"})
    inner = turn(request, at=1)
    http = span("POST", inner, at=2, kind=3, attributes={"http.request.method": "POST"})
    deep = span("depth of a lake", http, at=3)
    (root,) = read_trace([request, inner, http, deep])

    assert outline([root]) == ["step POST /chat", "  llm chat gpt-5", "    step depth of a lake"]
    assert [each.name for each in root.children[0].folded] == ["POST"]


@pytest.mark.parametrize("count", [3_000])
def test_a_chain_of_spans_is_no_deeper_than_memory(count: int) -> None:
    """No recursion limits it."""
    spans = [span("0", number=1)]
    for number in range(2, count + 1):
        spans.append(span(str(number), spans[-1], number=number))
    (root,) = read_trace(spans)

    assert sum(1 for _ in root.walk()) == count


# Agents that work for others


def test_an_agent_in_another_one_stays_an_agent_though_its_span_has_its_name() -> None:
    """A graph of LangGraph is a span of the agent's name."""
    root = agent("desk")
    spans = [root, span("guide", root, at=1, took=50, attributes={
        "openinference.span.kind": "CHAIN", "metadata": json.dumps({"lc_agent_name": "guide"}),
    })]  # fmt: skip

    assert outline(read_trace(spans)) == ["agent desk", "  agent guide"]


def test_an_agent_without_a_name_has_that_of_the_tool_that_it_is() -> None:
    """Agents of Haystack have none of their own."""
    root = agent("desk")
    call = tool(root, at=1, took=50, name="guide")
    spans = [root, call, span("haystack.agent.run", call, at=2, took=40)]

    assert outline(read_trace(spans)) == ["agent desk", "  tool guide", "    agent guide"]


def test_what_is_in_a_call_that_runs_an_agent_is_that_agent_s() -> None:
    """Claude Code and CrewAI tell the agent's name with the call, and have no span for it."""
    root = agent("desk")
    call = span("claude_code.tool", root, at=1, took=50, tool_name="Agent", subagent_type="guide")
    spans = [root, call, turn(call, at=2)]

    assert outline(read_trace(spans)) == [
        "agent desk", "  tool Agent", "    agent guide", "      llm chat gpt-5",
    ]  # fmt: skip


def test_an_agent_that_is_called_like_a_tool_is_asked_for_by_the_turn() -> None:
    """Managed agents of smolagents are on offer as tools, and no span is there for the call."""
    root = agent("desk")
    ask = {"id": "call_9", "name": "guide", "arguments": {"task": "How deep?"}}
    spans = [root, turn(root, at=1, calls=[ask]), agent("guide", root, at=20)]
    (_, guide) = only(spans, "agent")

    assert guide.reading.call_id == "call_9"
    assert guide.asked_by is not None


def test_a_tool_may_be_named_with_capitals_and_blanks() -> None:
    """Models know the tools of CrewAI under plainer names."""
    root = agent("desk")
    ask = {"id": "call_9", "name": "ask_a_guide", "arguments": ARGUMENTS}
    spans = [root, turn(root, at=1, calls=[ask]), tool(root, at=20, name="Ask a guide")]
    (one,) = only(spans, "tool")

    assert one.reading.call_id == "call_9"


# What frameworks tell of their own work


def test_a_span_that_makes_a_request_is_no_turn() -> None:
    """LlamaIndex has one before each turn, of the same kind."""
    root = agent("guide")
    about = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-5",
        "output.value": json.dumps({"messages": ["How deep?"], "tools": []}),
    }
    spans = [root, span("OpenAI._prepare_chat", root, at=1, attributes=about), openinference_turn(root, at=2)]

    assert tokens(spans) == 107
    assert len(only(spans, "llm")) == 1


@pytest.mark.parametrize(
    ("run", "step"),
    [
        ("FunctionAgent.run", "BaseWorkflowAgent.run_agent_step"),
        ("AgentWorkflow.run", "AgentWorkflow.call_tool"),
    ],
)
def test_the_steps_of_an_agent_that_is_a_workflow_are_folded(run: str, step: str) -> None:
    """They are LlamaIndex's own, and tell the name of the agent; of several, that of the first one."""
    scope = "openinference.instrumentation.llama_index"
    about = {"openinference.span.kind": "CHAIN"}
    root = span(run, scope=scope, took=90, attributes=about)
    first, second = (
        span(
            step, root, at=at, took=30, scope=scope,
            attributes={**about, "input.value": f"AgentSetup(input=[], current_agent_name='{name}')"},
        )
        for at, name in ((1, "guide"), (40, "other"))
    )  # fmt: skip

    assert outline(read_trace([root, first, openinference_turn(first, at=2), second])) == [
        "agent guide", "  llm ChatCompletion",
    ]  # fmt: skip


def haystack_invoker(parent: Span | None = None, *, at: int = 0) -> Span:
    """Return the span of the component that ran two tools, one of which failed."""
    results = [
        {
            "result": json.dumps(RESULT),
            "error": False,
            "origin": {"tool_name": "depth", "id": "call_1", "arguments": ARGUMENTS},
        },
        {
            "result": "no lake",
            "error": True,
            "origin": {"tool_name": "depth", "id": "call_2", "arguments": {"lake": "x"}},
        },
    ]
    messages = [{"role": "tool", "content": [{"tool_call_result": each}]} for each in results]
    about = {
        "haystack.component.name": "tool_invoker",
        "haystack.component.type": "ToolInvoker",
        "haystack.component.output": json.dumps({"tool_messages": messages}),
    }
    return span("haystack.component.run", parent, at=at, attributes=about)


def test_tools_that_one_span_tells_of_are_calls_of_their_own() -> None:
    """As those that Haystack's invoker ran, each with the turn that asked for it."""
    root = span("haystack.agent.run", took=90, attributes={"haystack.component.name": "guide"})
    asks = turn(root, at=1, calls=[{"id": "call_1", "name": "depth", "arguments": ARGUMENTS}])
    spans = [root, asks, haystack_invoker(root, at=20)]
    first, second = only(spans, "tool")

    assert (first.reading.name, first.reading.call_id, first.reading.input) == ("depth", "call_1", ARGUMENTS)
    assert (first.reading.output, first.asked_by is not None) == (RESULT, True)
    assert second.reading.error is not None
    assert second.reading.error.message == "no lake"
    assert {event.key for event in events_of(read_trace(spans))} >= {
        f"otel-{spans[2].span_id}-{number}-begin" for number in (1, 2)
    }


def test_a_record_of_claude_code_belongs_to_the_call_that_it_names() -> None:
    """All of them are made in the span of the whole."""
    root = span("claude_code.interaction", took=90)
    asks = span("claude_code.llm_request", root, at=1, request_id="req_1")
    call = span("claude_code.tool", root, at=20, tool_name="depth", tool_use_id="call_1")
    ids: dict[str, Any] = {"trace_id": root.trace_id, "span_id": root.span_id, "time_ns": 1}
    body = {"role": "assistant", "type": "message", "content": [{"type": "text", "text": "deep"}]}
    asked = {"messages": [{"role": "user", "content": "How deep?"}]}
    logs = [
        LogRecord(
            name="api_request_body", body="",
            attributes={"request_body_id": "b", "body": json.dumps(asked)}, **ids,
        ),
        LogRecord(
            name="api_response_body", body="",
            attributes={"request_body_id": "b", "request_id": "req_1", "body": json.dumps(body)}, **ids,
        ),
        LogRecord(
            name="tool_result", body="",
            attributes={
                "tool_use_id": "call_1", "request_id": "req_1", "tool_input": json.dumps(ARGUMENTS),
                "success": "false", "error": "too deep",
            }, **ids,
        ),
    ]  # fmt: skip
    (tree,) = read_trace([root, asks, call], logs)
    told, ran = (node.reading for node in tree.children)

    assert told.request.messages == asked["messages"]
    assert told.answer.content == "deep"
    assert ran.input == ARGUMENTS
    assert ran.error is not None
    assert ran.error.message == "too deep"


def test_a_copy_around_a_turn_that_a_tool_made_stays_where_it_is() -> None:
    """It is no layer of what is further in."""
    copy = span("raw_gen_ai_request", scope="litellm", attributes={"llm.openai.id": "chatcmpl-9"}, took=None)
    inner = tool(copy)
    uncounted = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    spans = [copy, inner, turn(inner, at=3, attributes=uncounted)]

    assert outline(read_trace(spans)) == ["llm raw_gen_ai_request", "  tool depth", "    llm chat gpt-5"]
