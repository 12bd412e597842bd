"""Spans that a receiver gets: their tree, and what each tells by the conventions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from receiver import Receiver, Span

from whyops_trace import WhyOps, step, trace, traced_embedding, traced_llm, traced_tool
from whyops_trace._calls.kinds import Embedding, Llm, Tool
from whyops_trace._otel.node import Node
from whyops_trace._otel.protobuf import read_spans
from whyops_trace._otel.scores import take_scores
from whyops_trace._otel.trace import read_trace
from whyops_trace._recording.places import w3c_span_id, w3c_trace_id
from whyops_trace.exporters.otlp.conventions import KNOWN
from whyops_trace.exporters.otlp.span import Event as SentEvent
from whyops_trace.exporters.otlp.span import Origin, Value, encoded, request
from whyops_trace.exporters.otlp.span import Span as SentSpan
from whyops_trace.open_calls import STEP_MEMBERS

Make = Callable[..., WhyOps]

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "find", "arguments": '{"id": 7}'},
                    },
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "find", "arguments": '{"id": 8}'},
                    },
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "total_tokens": 1020,
        "prompt_tokens_details": {"cached_tokens": 600},
    },
}


@traced_llm(model="gpt-4o", provider="openai")
def ask(messages: list[Any], **more: Any) -> Any:
    return ANSWER


@traced_tool
def find(id: int) -> Any:
    if id == 8:
        raise LookupError("no order 8")
    return {"order": id}


@traced_tool
def say(text: str) -> str:
    return text


@traced_embedding(model="text-embedding-3-small", provider="openai")
def embed(input: list[str]) -> Any:
    return {"data": [{"embedding": [0.5, 0.25]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def run(question: str = "Where is 7?") -> None:
    """An agent with a turn that asks for two tools, one of which fails."""
    with step("research", kind="agent", input={"about": "orders"}) as research:
        system = {"role": "system", "content": "Be brief."}
        ask([system, {"role": "user", "content": question}], temperature=0.5, tools=[{"name": "find"}])
        find(7)
        with pytest.raises(LookupError):
            find(8)
        research.set_output("found")


def parents(spans: list[Span]) -> list[tuple[str, str]]:
    """Return the name of each span with that of its parent, "" for none."""
    names = {span.id: span.name for span in spans}
    return sorted((span.name, names[span.parent] if span.parent else "") for span in spans)


def test_the_tree_of_a_trace_arrives(receiver: Receiver, client: Make) -> None:
    """A root for the trace, in it steps, in them turns and tools; all with one trace id."""
    sdk = client()
    with trace("order-7"):
        run()
        embed(["tea"])
    ledger = sdk.flush_sync()

    assert parents(receiver.arrived) == [
        ("chat gpt-4o", "invoke_agent research"),
        ("embeddings text-embedding-3-small", "invoke_agent shop"),
        ("execute_tool find", "invoke_agent research"),
        ("execute_tool find", "invoke_agent research"),
        ("invoke_agent research", "invoke_agent shop"),
        ("invoke_agent shop", ""),
    ]
    assert {span.trace_id for span in receiver.arrived} == {w3c_trace_id("order-7")}
    assert len({span.id for span in receiver.arrived}) == 6
    assert ledger["otlp"].emitted == ledger["otlp"].delivered > 0


def test_the_ids_are_those_that_headers_name(receiver: Receiver, client: Make) -> None:
    """They come from the trace, its numbering and the step of the request."""
    sdk = client()
    with trace() as whole:
        find(7)
    sdk.flush_sync()
    root, call = receiver.spans["invoke_agent shop"], receiver.spans["execute_tool find"]

    assert (root.trace_id, root.id) == (whole.id, w3c_span_id(whole.id, None, 0))
    assert (call.id, call.parent) == (w3c_span_id(whole.id, None, 1), root.id)


def test_a_turn_says_what_was_asked_and_answered(receiver: Receiver, client: Make) -> None:
    """Messages in parts, the model, and tokens: those of the input include the cached ones."""
    sdk = client()
    with trace("t"):
        run()
    sdk.flush_sync()
    turn = receiver.spans["chat gpt-4o"]
    told = turn.attributes

    assert turn.kind == 3
    assert {
        name: told[name] for name in told if not name.endswith(("messages", "instructions", "definitions"))
    } == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cost": pytest.approx(0.00195),
        "whyops.step": 2,
    }
    assert json.loads(told["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Where is 7?"}]}
    ]
    assert json.loads(told["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Let me look."},
                {"type": "tool_call", "id": "call_1", "name": "find", "arguments": {"id": 7}},
                {"type": "tool_call", "id": "call_2", "name": "find", "arguments": {"id": 8}},
            ],
            "finish_reason": "tool_calls",
        }
    ]
    assert json.loads(told["gen_ai.tool.definitions"]) == [{"name": "find"}]


def test_a_tool_names_the_call_of_the_model_that_asked_for_it(receiver: Receiver, client: Make) -> None:
    """By the id that the model gave it, told apart by the arguments, and by a link to the turn."""
    sdk = client()
    with trace("t"):
        run()
    sdk.flush_sync()
    ok, failed = [span for span in receiver.arrived if span.name == "execute_tool find"]

    assert ok.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "find",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.call.arguments": '{"id":7}',
        "gen_ai.tool.call.result": '{"order":7}',
        "whyops.step": 4,
    }
    assert failed.attributes["gen_ai.tool.call.id"] == "call_2"
    assert ok.links == failed.links == [receiver.spans["chat gpt-4o"].id]


def test_a_failure_has_its_status_its_type_and_an_event(receiver: Receiver, client: Make) -> None:
    """The event has the message and the stack; the steps around a failure that was handled did not fail."""
    sdk = client()
    with trace("t"):
        run()
    sdk.flush_sync()
    failed = [span for span in receiver.arrived if span.status == 2]
    ((name, event),) = failed[0].events

    assert len(failed) == 1
    assert (failed[0].message, failed[0].attributes["error.type"]) == (
        "LookupError: no order 8",
        "LookupError",
    )
    assert (name, event["exception.type"], event["exception.message"]) == (
        "exception",
        "LookupError",
        "no order 8",
    )
    assert "in find" in event["exception.stacktrace"]


def test_a_tool_that_returns_a_failure_has_failed(receiver: Receiver, client: Make) -> None:
    """Its error type tells it apart from one that raised."""
    sdk = client()
    say("Error: no such order")
    sdk.flush_sync()
    (span,) = receiver.arrived

    assert (span.status, span.message) == (2, "Error: no such order")
    assert span.attributes["error.type"] == "tool_error"


def test_the_root_says_what_the_trace_is_about(receiver: Receiver, client: Make) -> None:
    """User, session, tags, metadata, the question and the last answer."""
    sdk = client()
    with sdk.trace("chat-1", external_user_id="u-9", tags=["vip"], metadata={"plan": "pro", "seats": 3}):
        run("Where is my tea?")
    sdk.flush_sync()

    assert receiver.spans["invoke_agent shop"].attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "shop",
        "gen_ai.conversation.id": "chat-1",
        "whyops.kind": "trace",
        "whyops.trace.id": "chat-1",
        "session.id": "chat-1",
        "user.id": "u-9",
        "whyops.tags": ["vip"],
        "langfuse.trace.tags": ["vip"],
        "whyops.trace.metadata.plan": "pro",
        "whyops.trace.metadata.seats": 3,
        "input.value": "Where is my tea?",
        "output.value": "Let me look.",
    }


def test_a_call_without_a_trace_is_its_own_root(receiver: Receiver, client: Make) -> None:
    """One span, which says what a root says."""
    sdk = client()
    find(7)
    sdk.flush_sync()
    (span,) = receiver.arrived

    assert span.parent == ""
    assert span.attributes["gen_ai.agent.name"] == "shop"


def test_no_content_is_sent_unless_asked(receiver: Receiver, client: Make) -> None:
    """Neither messages nor arguments, results, inputs or outputs, in either convention."""
    sdk = client(content=False, openinference=True)
    with trace("t"):
        run("SECRET-question")
        say("SECRET-words")
        embed(["SECRET-text"])
    sdk.flush_sync()
    told = str([(span.attributes, span.message) for span in receiver.arrived])

    assert "SECRET" not in told and "Let me look" not in told and "Be brief" not in told
    assert "'llm.token_count.prompt': 1000" in told


def test_no_metadata_of_the_library_is_taken_for_the_program_s_own() -> None:
    """Some of it is content."""
    assert Tool.written | Llm.written | Embedding.written | STEP_MEMBERS <= KNOWN


def test_openinference_is_added_on_request(receiver: Receiver, client: Make) -> None:
    """Kinds, messages, tokens and values under its names, beside the others."""
    sdk = client(openinference=True)
    with trace("t"):
        run()
    sdk.flush_sync()
    turn = receiver.spans["chat gpt-4o"].attributes
    tool = next(span.attributes for span in receiver.arrived if span.name == "execute_tool find")
    kinds = {span.name: span.attributes["openinference.span.kind"] for span in receiver.arrived}

    assert kinds == {
        "chat gpt-4o": "LLM",
        "execute_tool find": "TOOL",
        "invoke_agent research": "AGENT",
        "invoke_agent shop": "AGENT",
    }
    assert turn["llm.token_count.prompt"] == 1000
    assert turn["llm.token_count.prompt_details.cache_read"] == 600
    assert turn["llm.token_count.total"] == 1020
    assert turn["llm.input_messages.1.message.content"] == "Where is 7?"
    assert turn["llm.output_messages.0.message.tool_calls.1.tool_call.function.arguments"] == '{"id":8}'
    assert (tool["input.value"], tool["output.value"]) == ('{"id":7}', '{"order":7}')


def test_a_message_without_what_its_type_promises_costs_no_span(receiver: Receiver, client: Make) -> None:
    """A block of text without a text is in the span as it was given."""
    sdk = client(openinference=True)
    ask([{"role": "user", "content": [{"type": "text"}]}])
    ledger = sdk.flush_sync()["otlp"]

    assert ledger.rejected == 0
    assert '{"type":"text"}' in receiver.spans["chat gpt-4o"].attributes["gen_ai.input.messages"]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 70_000])
@pytest.mark.parametrize("letter", ["a", "\N{SNOWMAN}", "\ud800"])
def test_values_of_any_size_are_the_same_to_the_reader_of_protobuf(size: int, letter: str) -> None:
    """Texts around the sizes whose length takes one byte more, without a character that UTF-8 has not."""
    text = size * letter
    about: dict[str, Value] = {
        "text": text,
        "list": [text, size, -size, 0.5, None, {"deep": text}],
        "bytes": bytes(size),
        "no": False,
    }
    made = SentSpan(b"t" * 16, b"s" * 8, b"p" * 8, text, 1, 1, 2, about, [SentEvent(text, 1, about)])
    origin = Origin({"service.name": text}, "scope", "1", "schema")

    (span,) = read_spans(request([(origin, [encoded(made)])])).spans
    told = json.loads(json.dumps(about, default=bytes.hex).replace("\\ud800", "?"))

    assert span.name == told["text"]
    assert [span.attributes["text"], span.attributes["list"]] == [told["text"], told["list"]]
    assert (span.events[0].name, span.events[0].attributes["no"]) == (told["text"], False)
    assert span.source.resource["service.name"] == told["text"]


def test_both_encodings_say_the_same(
    receiver: Receiver, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protobuf and JSON, compressed or not."""

    def told() -> list[Any]:
        return [
            (
                (span.name, span.kind, span.status, span.message, span.events and span.events[0][0]),
                {name: value for name, value in span.attributes.items() if "trace.id" not in name},
            )
            for span in receiver.arrived
        ]

    results = []
    for protocol, compression in (("http/protobuf", "none"), ("http/json", "none"), ("http/json", "gzip")):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        with (
            client(openinference=True) as sdk,
            sdk.trace("t", metadata={"flag": True, "share": 0.25, "down": -3}),
        ):
            run("snow\N{SNOWMAN}man")
        results.append(told())
        receiver.arrived.clear()

    assert results[0] == results[1] == results[2]
    assert results[0][-1][1]["whyops.trace.metadata.down"] == -3


def test_times_are_those_of_the_records(receiver: Receiver, client: Make) -> None:
    """A span is as long as its call took; what is in it is within its bounds."""
    sdk = client()
    with trace("t"):
        run()
    sdk.flush_sync()
    spans = {span.id: span for span in receiver.arrived}

    for span in spans.values():
        assert span.start_ns <= span.end_ns
        if span.parent:
            assert spans[span.parent].start_ns <= span.start_ns


def test_events_by_hand_make_spans(receiver: Receiver, client: Make) -> None:
    """A message and its answer, a tool by its span, thoughts before an answer; the root comes with the close."""
    sdk = client()
    chat = sdk.trace("by-hand")
    chat.user_message_sync([{"role": "user", "content": "Tea?"}])
    chat.llm_thinking_sync("They want tea.")
    chat.llm_response_sync("gpt-4o", "openai", "Yes.", usage={"promptTokens": 5, "completionTokens": 2})
    span = chat.tool_call_request_sync("brew", [{"name": "brew", "arguments": {"cups": 2}}])
    chat.tool_call_response_sync("brew", span, [{"name": "brew", "arguments": {"cups": 2}}], {"ok": True})
    chat.user_message_sync([{"role": "user", "content": "Never answered"}])
    sdk.close_sync()

    assert parents(receiver.arrived) == [
        ("chat gpt-4o", "invoke_agent shop"),
        ("execute_tool brew", "invoke_agent shop"),
        ("invoke_agent shop", ""),
    ]
    assert json.loads(receiver.spans["chat gpt-4o"].attributes["gen_ai.output.messages"])[0]["parts"] == [
        {"type": "reasoning", "content": "They want tea."},
        {"type": "text", "content": "Yes."},
    ]
    assert receiver.spans["execute_tool brew"].attributes["gen_ai.tool.call.arguments"] == '{"cups":2}'


def test_a_trace_that_goes_on_is_told_once_as_a_whole(receiver: Receiver, client: Make) -> None:
    """Each later block of it is a span inside that one."""
    sdk = client()
    for word in ("one", "two"):
        with trace("chat"):
            say(word)
    sdk.flush_sync()
    roots = [span for span in receiver.arrived if not span.parent]
    wholes = [span for span in receiver.arrived if span.name == "invoke_agent shop"]

    assert len(roots) == 1
    assert len({span.id for span in wholes}) == 2
    assert wholes[1].parent == roots[0].id


def test_a_failed_turn_tells_its_error(receiver: Receiver, client: Make) -> None:
    """The status of the provider's answer too."""

    class RateLimitError(Exception):
        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.status_code = 429

    @traced_llm(model="gpt-4o", provider="openai")
    def fail(messages: list[Any]) -> Any:
        raise RateLimitError("slow down")

    sdk = client()
    with trace("t"), pytest.raises(RateLimitError):
        fail([{"role": "user", "content": "Hi"}])
    sdk.flush_sync()
    turn, root = receiver.spans["chat gpt-4o"], receiver.spans["invoke_agent shop"]

    assert turn.status == 2 and turn.attributes["error.type"].endswith("RateLimitError")
    assert turn.attributes["http.response.status_code"] == 429
    assert root.attributes["input.value"] == "Hi"


def test_metadata_of_ones_own_goes_along(receiver: Receiver, client: Make) -> None:
    """Texts and numbers as they are, anything else as JSON."""

    @traced_tool(metadata={"team": "tea", "limits": {"cups": 3}})
    def brew() -> None: ...

    sdk = client()
    brew()
    sdk.flush_sync()
    told = receiver.arrived[0].attributes

    assert (told["whyops.metadata.team"], told["whyops.metadata.limits"]) == ("tea", '{"cups":3}')


def test_a_trace_that_a_foreign_service_calls_is_below_its_span(receiver: Receiver, client: Make) -> None:
    """The span that its headers name is the parent of the root, in one trace."""
    sdk = client()
    with sdk.continue_from({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}):
        find(7)
    sdk.flush_sync()
    root = receiver.spans["invoke_agent shop"]

    assert (root.trace_id, root.parent) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def test_what_a_foreign_span_calls_is_below_it_in_a_trace_that_is_known(
    receiver: Receiver, client: Make
) -> None:
    """Each span that comes back has a root of ours below it, in one process as in several."""
    trace_id, spans = "4bf92f3577b34da6a3ce929d0e0e4736", ["00f067aa0ba902b7", "10f067aa0ba902b7"]
    sdk = client()
    with sdk.trace(trace_id):
        say("hello")
    for span in spans:
        for number in (1, 2):
            headers = {"traceparent": f"00-{trace_id}-{span}-01"}
            with sdk.continue_from(headers, metadata={"number": number}):
                say(span)
    sdk.flush_sync()
    wholes = {span.parent: span.id for span in receiver.arrived if span.name == "invoke_agent shop"}
    calls = [
        (span.parent, span.attributes["gen_ai.tool.call.result"])
        for span in receiver.arrived
        if span.name == "execute_tool say"
    ]

    assert {span.trace_id for span in receiver.arrived} == {trace_id}
    assert {"", *spans} <= wholes.keys()
    assert {(wholes[span], span) for span in spans} | {(wholes[""], "hello")} == set(calls)


def test_a_trace_in_a_span_of_opentelemetry_is_a_part_of_its_trace(receiver: Receiver, client: Make) -> None:
    """With or without a block; a trace with an id of the user's stays one of its own."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("program")
    sdk = client()
    with tracer.start_as_current_span("request") as span:
        find(7)
        with trace(metadata={"cups": 2}):
            say("tea")
        with trace("own"):
            embed(["tea"])
    sdk.flush_sync()
    context = span.get_span_context()
    inside = [each for each in receiver.arrived if each.trace_id == f"{context.trace_id:032x}"]
    roots = [each for each in inside if each.parent == f"{context.span_id:016x}"]

    assert [each.name for each in inside] == ["execute_tool find", "execute_tool say", "invoke_agent shop"]
    assert [each.name for each in roots] == ["execute_tool find", "invoke_agent shop"]
    assert receiver.spans["embeddings text-embedding-3-small"].trace_id == w3c_trace_id("own")


def judge(sdk: WhyOps) -> None:
    """Give a step of a trace a number, and the trace a thumb and a label."""
    with trace("t") as whole:
        with step("research") as research:
            say("tea")
        whole.score("correct", 0.5, comment="half", step=research)
    whole.score("helpful", True)
    whole.score("tone", "polite")
    sdk.flush_sync()


def test_a_score_is_an_evaluation_of_what_it_judges(receiver: Receiver, client: Make) -> None:
    """It comes whenever it is given, below the span of the step, or of the trace."""
    judge(client())
    one, other = receiver.spans["score correct"], receiver.spans["score helpful"]

    assert (one.parent, other.parent) == (
        receiver.spans["research"].id,
        receiver.spans["invoke_agent shop"].id,
    )
    assert one.events == [
        (
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "correct",
                "gen_ai.evaluation.score.value": 0.5,
                "gen_ai.evaluation.explanation": "half",
            },
        )
    ]
    assert other.attributes["gen_ai.evaluation.score.label"] == "true"
    assert receiver.spans["score tone"].attributes["gen_ai.evaluation.score.label"] == "polite"


def test_the_own_receiver_reads_the_same_scores(receiver: Receiver, client: Make) -> None:
    """A thumb, a number and a label, on what they were given to; none of them is a step."""
    judge(client())
    sent = [span for request in receiver.requests for span in read_spans(request.body).spans]
    happened, _, scores = take_scores(sent, [])
    names = {span.span_id: span.name for span in happened}

    assert [(names[score.span_id], score.content) for score in scores] == [
        ("research", {"name": "correct", "value": 0.5, "comment": "half"}),
        ("invoke_agent shop", {"name": "helpful", "value": True}),
        ("invoke_agent shop", {"name": "tone", "label": "polite"}),
    ]
    assert sorted(names.values()) == ["execute_tool say", "invoke_agent shop", "research"]


def test_the_own_receiver_reads_the_same_tree(receiver: Receiver, client: Make) -> None:
    """Kinds, names, inputs, outputs and errors, as they were recorded."""
    sdk = client()
    with trace("t"):
        run()
        embed(["tea"])
    sdk.flush_sync()
    (root,) = read_trace([span for request in receiver.requests for span in read_spans(request.body).spans])

    def outline(node: Node, depth: int = 0) -> list[tuple[Any, ...]]:
        told = node.reading
        line = (depth, node.kind, told.name, told.input, told.output, told.error and told.error.type)
        return [line, *(each for child in node.children for each in outline(child, depth + 1))]

    turn = next(node for node in root.walk() if node.kind == "llm").reading

    assert outline(root) == [
        (0, "agent", "shop", "Where is 7?", "Let me look.", None),
        (1, "agent", "research", {"about": "orders"}, "found", None),
        (2, "llm", "chat gpt-4o", None, None, None),
        (2, "tool", "find", {"id": 7}, {"order": 7}, None),
        (2, "tool", "find", {"id": 8}, None, "LookupError"),
        (1, "embedding", "embeddings text-embedding-3-small", ["tea"], None, None),
    ]
    assert turn.answer.usage["promptTokens"] == 400
    assert [call["id"] for call in turn.answer.tool_calls] == ["call_1", "call_2"]
    assert turn.request.messages == [{"role": "user", "content": "Where is 7?"}]
