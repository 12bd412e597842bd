"""Spans of OpenTelemetry that run in the process: what they leave in the store, among calls of our own."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anthropic
import pytest
from integrations.shown import lines, trees
from programs import run, run_code
from provider import Provider

from whyops_trace import ConfigurationError, WhyOps, otel, traced_llm, traced_tool
from whyops_trace.store import Store

sdk: Any = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra [otel] installs it")
api: Any = pytest.importorskip("opentelemetry.trace")

ASKED = [{"id": "call_1", "type": "tool_call", "name": "depth", "arguments": {"lake": "Geneva"}}]
TURN = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.response.id": "resp_1",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 7,
}
ANSWER = {
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "How deep?"}]}]
    ),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": ASKED, "finish_reason": "tool_call"}]
    ),
}
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide"}
TOOL = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "depth",
    "gen_ai.tool.call.id": "call_1",
    "gen_ai.tool.call.arguments": '{"lake": "Geneva"}',
}
REQUEST = {"http.request.method": "POST", "url.full": "http://127.0.0.1"}


@traced_tool
def look(place: str) -> str:
    """Look somewhere."""
    return place


@pytest.fixture
def provider_of_spans(client: WhyOps) -> Iterator[Any]:
    """A tracer provider with the processor."""
    provider = sdk.TracerProvider()
    provider.add_span_processor(otel.WhyOpsSpanProcessor(client))
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(provider_of_spans: Any) -> Any:
    """A tracer whose spans are recorded."""
    return provider_of_spans.get_tracer("framework")


@pytest.fixture
def shown(client: WhyOps, home: Path) -> Callable[[], list[str]]:
    """The lines of all that was recorded."""

    def shown() -> list[str]:
        client.flush_sync()
        return lines(home)

    return shown


def turn(tracer: Any, **more: Any) -> None:
    """Make the span of a turn that asks for a tool."""
    with tracer.start_as_current_span("chat gpt-5", attributes=TURN) as span:
        span.set_attributes({**ANSWER, **more})


def test_the_spans_of_a_framework_are_turns_tools_and_agents(tracer: Any, shown: Any) -> None:
    """Each once, with the turn that asked for a tool; what it does over HTTP is not shown."""
    with tracer.start_as_current_span("invoke_agent guide", attributes=AGENT):
        with tracer.start_as_current_span("chat gpt-5", attributes=TURN) as span:
            with tracer.start_as_current_span("POST", kind=api.SpanKind.CLIENT, attributes=REQUEST):
                pass
            span.set_attributes(ANSWER)
        with tracer.start_as_current_span("execute_tool depth", attributes=TOOL) as span:
            span.set_attribute("gen_ai.tool.call.result", '{"metres": 310}')

    assert shown() == [
        "agent guide",
        "  gpt-5  100/7 -> depth",
        '  depth(lake="Geneva") -> {"metres": 310} asked',
    ]


def test_a_span_outside_any_trace_makes_one_of_its_id(tracer: Any, client: WhyOps, home: Path) -> None:
    """Which ends with it."""
    with tracer.start_as_current_span("plan") as span:
        pass
    client.flush_sync()
    (tree,) = trees(home)

    assert tree.trace_id == f"{span.get_span_context().trace_id:032x}"
    assert tree.running == 0


def test_calls_of_ours_are_in_the_active_span_and_spans_in_our_calls(
    tracer: Any, client: WhyOps, shown: Any
) -> None:
    """Each in the innermost around it, whichever it is."""
    with client.trace("deep"):
        with tracer.start_as_current_span("outer"):
            with client.step("ours"):
                with tracer.start_as_current_span("inner"):
                    look("a")
                look("b")
            look("c")
        look("d")

    assert shown() == [
        "outer",
        "  ours",
        "    inner",
        '      look(place="a") -> "a"',
        '    look(place="b") -> "b"',
        '  look(place="c") -> "c"',
        'look(place="d") -> "d"',
    ]


def test_what_runs_beside_a_span_that_is_not_active_is_not_in_it(
    tracer: Any, client: WhyOps, shown: Any
) -> None:
    """A span that was started, and not made the current one, is around nothing."""
    with client.trace("deep"):
        one = tracer.start_span("one")
        two = tracer.start_span("two")
        look("a")
        with api.use_span(two, end_on_exit=False):
            look("b")
        look("c")
        two.end()
        one.end()

    assert sorted(shown()) == sorted(
        ["one", "two", '  look(place="b") -> "b"', 'look(place="a") -> "a"', 'look(place="c") -> "c"']
    )


def test_a_call_in_a_thread_with_the_context_of_the_span_alone_is_in_it(
    tracer: Any, client: WhyOps, shown: Any
) -> None:
    """As instrumentations carry their context into threads."""
    from opentelemetry import context

    with tracer.start_as_current_span("outer"):
        here = context.get_current()

        def work() -> None:
            token = context.attach(here)
            look("there")
            context.detach(token)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert shown() == ["outer", '  look(place="there") -> "there"']


@pytest.mark.parametrize("has_provider_span", [True, False])
@pytest.mark.parametrize("has_framework_span", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_layers_of_one_turn_are_one_turn(
    tracer: Any,
    client: WhyOps,
    provider: Provider,
    home: Path,
    traced: bool,
    has_framework_span: bool,
    has_provider_span: bool,
) -> None:
    """A client of ours, a framework around it and the client of the provider in it: tokens count once."""
    provider.call_tool("depth", {"lake": "Geneva"})
    plain = anthropic.Anthropic(
        base_url=provider.anthropic_url, api_key=provider.anthropic_key, max_retries=0
    )
    asking: Any = client.anthropic(plain) if traced else plain
    send = plain._client.send

    def sent(*args: Any, **options: Any) -> Any:
        with tracer.start_as_current_span(
            "anthropic.messages.create", kind=api.SpanKind.CLIENT, attributes=TURN
        ) as span:
            answer = send(*args, **options)
            told = answer.json()
            span.set_attribute("gen_ai.response.id", told["id"])
            span.set_attribute("gen_ai.usage.input_tokens", told["usage"]["input_tokens"])
            span.set_attribute("gen_ai.usage.output_tokens", told["usage"]["output_tokens"])
            return answer

    if has_provider_span:
        plain._client.send = sent  # type: ignore[method-assign]
    with client.trace("deep"):
        around = (
            tracer.start_as_current_span("chat", attributes=TURN) if has_framework_span else nullcontext()
        )
        with around as span:
            answer = asking.messages.create(
                model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "How deep?"}]
            )
            if span is not None:
                usage = answer.usage
                span.set_attributes({**ANSWER, "gen_ai.response.id": answer.id})
                span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
    plain.close()
    client.flush_sync()
    found = trees(home)
    is_told = traced or has_framework_span or has_provider_span

    assert [tree.llm_responses for tree in found] == [1] * is_told
    for tree in found:
        (node,) = tree.nodes
        assert tree.tokens.prompt == answer.usage.input_tokens
        assert tree.tokens.completion == answer.usage.output_tokens
        assert node.calls == ("depth" if traced or has_framework_span else "")
        assert ("How deep?" in node.arguments) is (traced or has_framework_span)


def test_the_layers_of_spans_are_one_turn_with_the_best_of_each(tracer: Any, shown: Any) -> None:
    """The outer one tells the messages here, the inner one the tokens."""
    inner = {key: value for key, value in TURN.items() if key != "gen_ai.response.id"}
    with tracer.start_as_current_span("agent", attributes=AGENT):
        with tracer.start_as_current_span(
            "ChatModel", attributes={"gen_ai.operation.name": "chat", **ANSWER}
        ):
            with tracer.start_as_current_span("chat gpt-5", attributes=inner):
                pass

    assert shown() == ["agent guide", "  gpt-5  100/7 -> depth"]


def test_a_span_around_several_turns_is_none(tracer: Any, shown: Any) -> None:
    """But the step that they are in, whatever tokens it counts."""
    with tracer.start_as_current_span("generate", attributes=TURN):
        turn(tracer)
        turn(tracer, **{"gen_ai.response.id": "resp_2"})

    assert shown() == ["generate", "  gpt-5  100/7 -> depth", "  gpt-5  100/7 -> depth"]


def test_the_span_of_a_turn_in_a_traced_function_adds_its_tokens(
    tracer: Any, client: WhyOps, shown: Any
) -> None:
    """The function returns a text, which tells of none."""

    @traced_llm(model="gpt-5", provider="openai")
    def ask(question: str) -> str:
        with tracer.start_as_current_span("chat gpt-5", attributes=TURN):
            return "310 metres"

    with client.trace("deep"):
        ask("How deep?")

    assert shown() == ["ask gpt-5 100/7 -> 310 metres"]


def test_a_tool_that_two_layers_tell_of_is_one(tracer: Any, shown: Any) -> None:
    """Such as a framework's tool that is a call of an MCP server, whose span knows the result."""
    mcp = {"mcp.method.name": "tools/call", "gen_ai.tool.name": "depth", "gen_ai.tool.call.result": '"310"'}
    with tracer.start_as_current_span("agent", attributes=AGENT):
        with tracer.start_as_current_span("execute_tool depth", attributes=TOOL):
            with tracer.start_as_current_span("tools/call depth", kind=api.SpanKind.CLIENT, attributes=mcp):
                pass

    assert shown() == ["agent guide", '  depth(lake="Geneva") -> "310"']


@pytest.mark.parametrize("is_told", [True, False])
def test_a_served_tool_is_a_step_if_its_client_tells_of_its_call(
    tracer: Any, shown: Any, *, is_told: bool
) -> None:
    """Then the tool call is the client's, in another process, and one call is not two."""
    mcp = {"mcp.method.name": "tools/call", "gen_ai.tool.name": "depth", "gen_ai.tool.call.result": '"310"'}
    remote = api.SpanContext(7, 8, is_remote=True, trace_flags=api.TraceFlags(1))
    around = api.set_span_in_context(api.NonRecordingSpan(remote)) if is_told else None
    with tracer.start_as_current_span("tools/call depth", around, kind=api.SpanKind.SERVER, attributes=mcp):
        look("a")

    assert shown() == ["serve depth" if is_told else 'depth(…) -> "310"', '  look(place="a") -> "a"']


def test_a_tool_without_arguments_is_recorded_at_its_start(tracer: Any, shown: Any) -> None:
    """That it was given none is known then, as well as any arguments."""
    span = tracer.start_span("execute_tool depth", attributes={**TOOL, "gen_ai.tool.call.arguments": "{}"})

    assert shown() == ["depth() ->  running"]
    span.end()


def test_a_tool_that_tells_its_arguments_too_late_has_those_that_it_was_asked_with(
    tracer: Any, shown: Any
) -> None:
    """If something in it needs its record before, and the answer asked for it once."""
    late = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "depth"}
    with tracer.start_as_current_span("agent", attributes=AGENT):
        turn(tracer)
        with tracer.start_as_current_span("execute_tool depth", attributes=late) as span:
            look("a")
            span.set_attributes(TOOL)

    assert shown()[-2:] == ['  depth(lake="Geneva") -> … asked', '    look(place="a") -> "a"']


def test_an_agent_that_a_tool_runs_is_in_it(provider_of_spans: Any, shown: Any) -> None:
    """As one of CrewAI to which another delegates, of which no span tells but that of the tool."""
    tracer = provider_of_spans.get_tracer("openinference.instrumentation.crewai")
    told = {"tool.name": "delegate", "input.value": '{"task": "Look.", "coworker": "diver"}'}
    with tracer.start_as_current_span("delegate.run", attributes={"openinference.span.kind": "TOOL"}) as span:
        span.set_attributes(told)
        turn(provider_of_spans.get_tracer("a client"))
        span.set_attribute("output.value", "310 metres")

    assert shown()[:2] == [
        'delegate(task="Look.", coworker="diver") -> "310 metres"',
        "  agent diver",
    ]


def test_tools_that_one_span_tells_of_are_calls_of_their_own(tracer: Any, shown: Any) -> None:
    """As those that Haystack's invoker ran, of which its span tells at its end."""
    origin = {"tool_name": "depth", "arguments": {"lake": "Geneva"}, "id": "call_1"}
    part = {"tool_call_result": {"result": "310", "origin": origin, "error": False}}
    told = {
        "haystack.component.name": "tool_invoker",
        "haystack.component.type": "ToolInvoker",
        "haystack.component.output": json.dumps(
            {"tool_messages": [{"content": [part]}, {"content": [part]}]}
        ),
    }
    with tracer.start_as_current_span("agent", attributes=AGENT):
        with tracer.start_as_current_span("haystack.component.run") as span:
            span.set_attributes(told)

    assert shown() == [
        "agent guide",
        "  tool_invoker",
        '    depth(lake="Geneva") -> 310',
        '    depth(lake="Geneva") -> 310',
    ]


def test_a_failure_is_told_where_it_happened(tracer: Any, shown: Any) -> None:
    """And not once more where it was handled; the exception reaches the program."""
    with tracer.start_as_current_span("agent", attributes=AGENT):
        with tracer.start_as_current_span("step"), pytest.raises(ValueError, match="too deep"):
            with tracer.start_as_current_span("execute_tool depth", attributes=TOOL):
                raise ValueError("too deep")

    assert shown() == [
        "agent guide",
        "  step",
        '    depth(lake="Geneva") -> ValueError: too deep error',
    ]


def test_a_span_may_say_at_its_end_what_it_was(tracer: Any, shown: Any) -> None:
    """An agent, a tool or a turn that something ran in before that is what it says."""
    with tracer.start_as_current_span("run") as run_span:
        with tracer.start_as_current_span("call") as span:
            look("a")
            span.set_attributes({**TOOL, "gen_ai.tool.call.result": '"310"'})
        run_span.set_attributes(AGENT)

    assert shown() == [
        "agent guide",
        "  call",
        '    look(place="a") -> "a"',
        '    depth(lake="Geneva") -> 310',
    ]


def test_a_web_request_without_an_agent_is_no_trace(tracer: Any, shown: Any) -> None:
    """One with something of an agent's in it is the step around that."""
    server = {"http.request.method": "GET", "http.route": "/health"}
    with tracer.start_as_current_span("GET /health", kind=api.SpanKind.SERVER, attributes=server):
        with tracer.start_as_current_span("SELECT", kind=api.SpanKind.CLIENT, attributes={"db.system": "x"}):
            pass
    with tracer.start_as_current_span("GET /ask", kind=api.SpanKind.SERVER, attributes=server):
        look("a")

    assert shown() == ["GET /ask", '  look(place="a") -> "a"']


def test_a_span_that_is_sampled_out_is_not_recorded(client: WhyOps, shown: Any) -> None:
    """It has nothing to tell."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    provider = sdk.TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(otel.WhyOpsSpanProcessor(client))
    with provider.get_tracer("framework").start_as_current_span("plan", attributes=AGENT):
        look("a")

    assert shown() == ['look(place="a") -> "a"']


def test_spans_may_end_in_another_thread_twice_or_never(tracer: Any, shown: Any) -> None:
    """A second end changes nothing, and one that never ends is running."""
    first = tracer.start_span("first", attributes=AGENT)
    thread = threading.Thread(target=first.end)
    thread.start()
    thread.join()
    first.end()
    second = tracer.start_span("second", attributes=AGENT)

    assert shown() == ["agent guide", "agent guide running"]
    second.end()


@pytest.mark.parametrize("moment", [0, 1, 10**18])
def test_a_span_ends_whatever_time_it_tells(
    tracer: Any, client: WhyOps, home: Path, shown: Any, moment: int
) -> None:
    """The beginning of all time, or another one before its start."""
    tracer.start_span("chat gpt-5", attributes=TURN | ANSWER).end(end_time=moment)

    assert shown() == ["gpt-5  100/7 -> depth"]
    assert [tree.running for tree in trees(home)] == [0]


def test_what_the_program_exports_itself_stays_as_it_is(
    tracer: Any, provider_of_spans: Any, client: WhyOps
) -> None:
    """The spans have the attributes that they were given."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider_of_spans.add_span_processor(SimpleSpanProcessor(exporter))
    turn(tracer)
    (span,) = exporter.get_finished_spans()

    assert dict(span.attributes or {}) == TURN | ANSWER
    assert (span.name, span.events) == ("chat gpt-5", ())


def test_a_killed_process_leaves_the_tool_with_its_arguments(home: Path) -> None:
    """What a span tells at its start is on disk then."""
    program = f"""
        import os, signal
        from opentelemetry.sdk.trace import TracerProvider
        from whyops_trace import WhyOps
        from whyops_trace.otel import WhyOpsSpanProcessor
        provider = TracerProvider()
        provider.add_span_processor(WhyOpsSpanProcessor(WhyOps(agent_name="shop")))
        tracer = provider.get_tracer("framework")
        with tracer.start_as_current_span("agent", attributes={AGENT!r}):
            with tracer.start_as_current_span("execute_tool depth", attributes={TOOL!r}):
                os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = run_code(program, home)
    run("-m", "whyops_trace", "journal", "flush", home=home)

    assert killed.returncode == -signal.SIGKILL
    assert [line for line in lines(home) if "depth" in line] == ['  depth(lake="Geneva") ->  running']


def test_a_forked_process_begins_with_no_span_open(tracer: Any, client: WhyOps, shown: Any) -> None:
    """Its own spans are a part of the trace of the same id, at the top; the parent's go on in the parent."""
    with tracer.start_as_current_span("agent", attributes=AGENT):
        child = os.fork()
        if child == 0:
            with tracer.start_as_current_span("child"):
                pass
            client.flush_sync()
            os._exit(0)
        os.waitpid(child, 0)
        look("a")

    assert sorted(shown()) == sorted(["agent guide", '  look(place="a") -> "a"', "child"])


def test_an_attachment_makes_a_provider_only_if_there_is_none(tmp_path: Path) -> None:
    """And goes quiet when it is detached."""
    program = """
        from opentelemetry import trace
        from whyops_trace import WhyOps, otel
        sdk = WhyOps(agent_name="shop")
        with otel.attach(sdk):
            provider = trace.get_tracer_provider()
            with trace.get_tracer("framework").start_as_current_span("first"):
                pass
        with trace.get_tracer("framework").start_as_current_span("second"):
            pass
        with otel.attach():
            assert trace.get_tracer_provider() is provider
            with trace.get_tracer("framework").start_as_current_span("third"):
                pass
        sdk.close_sync()
    """
    done = run_code(program, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert lines(tmp_path) == ["first", "third"]


def test_without_the_sdk_of_opentelemetry_the_extra_is_named(tmp_path: Path) -> None:
    """The module itself can be imported."""
    program = """
        import sys
        sys.modules["opentelemetry.sdk.trace"] = None
        from whyops_trace import ConfigurationError, otel
        for make in (otel.attach, otel.WhyOpsSpanProcessor):
            try:
                make()
            except ConfigurationError as error:
                print(error)
    """
    done = run_code(program, tmp_path)

    assert done.stdout.count("pip install '.[otel]'") == 2


def test_a_provider_without_processors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.setattr(api, "get_tracer_provider", api.NoOpTracerProvider)

    with pytest.raises(ConfigurationError, match="takes no span processors"):
        otel.attach()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_own_spans_of_a_providers_client_are_layers_of_ours(
    provider: Provider, tmp_path: Path, streamed: bool
) -> None:
    """Those of Anthropic's package: traced, not traced, and inside a call that a framework tells of."""
    if not (Path(anthropic.__file__).parent / "_tracing.py").exists():
        pytest.skip("the package emits spans from 2.14 on")
    program = f"""
        import anthropic
        from whyops_trace import WhyOps, otel
        sdk = WhyOps(agent_name="shop")
        plain = anthropic.Anthropic()
        asked = dict(model="claude-test", max_tokens=9, messages=[{{"role": "user", "content": "Hi"}}])
        def ask(client):
            if not {streamed}:
                return client.messages.create(**asked)
            with client.messages.stream(**asked) as stream:
                return stream.get_final_message()
        with otel.attach(sdk):
            with sdk.trace("traced"):
                ask(sdk.anthropic(plain))
            with sdk.trace("not traced"):
                ask(plain)
            with sdk.trace("called") as trace:
                call = trace.start_llm_call("claude-test", "anthropic", "Hi")
                call.enter()
                ask(plain)
                call.end("Hello")
        sdk.close_sync()
    """
    done = run_code(program, tmp_path, **provider.environment)
    found = {tree.trace_id: tree for tree in trees(tmp_path)}

    assert (done.returncode, done.stderr) == (0, "")
    assert {name: tree.llm_responses for name, tree in found.items()} == {
        "traced": 1,
        "not traced": 1,
        "called": 1,
    }
    assert {tree.tokens.prompt for tree in found.values()} == {12}
    assert [len(tree.nodes) for tree in found.values()] == [1, 1, 1]
    assert [node.result for node in found["called"].nodes] == ["Hello"]


def test_results_of_evaluations_on_spans_are_scores(tracer: Any, client: WhyOps, home: Path) -> None:
    """Of the turn they are on, of what a span that stands for one is in, and of the trace if they are on its root."""
    result = "gen_ai.evaluation.result"
    correct = {"gen_ai.evaluation.name": "correct", "gen_ai.evaluation.score.value": 0.5}
    tone = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.label": "polite"}
    fit = {
        "gen_ai.evaluation.name": "fit",
        "gen_ai.evaluation.explanation": "It is the one that was asked for.",
    }
    with tracer.start_as_current_span("invoke_agent guide", attributes=AGENT) as root:
        with tracer.start_as_current_span("chat gpt-5", attributes=TURN) as span:
            span.set_attributes(ANSWER)
            span.add_event(result, correct)
        with tracer.start_as_current_span("execute_tool depth", attributes=TOOL):
            with tracer.start_as_current_span("evaluate", attributes=fit):
                pass
        root.add_event(result, tone)
    client.flush_sync()
    store = Store(home / "traces.db")
    (trace,) = store.traces()
    scores = [(score.line, score.step, score.source) for score in store.scores(trace.trace_id)]
    store.close()

    assert scores == [
        ("tone: polite", 0, "otel"),
        ("correct: 0.5", 2, "otel"),
        ("fit - It is the one that was asked for.", 5, "otel"),
    ]
    assert lines(home) == [
        "agent guide",
        "  gpt-5  100/7 -> depth",
        '  depth(lake="Geneva") -> … asked',
    ]
