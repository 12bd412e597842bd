"""
The trace processor of the OpenAI Agents SDK: each span that it is told of begins and ends a call.

A span says nothing of arguments and messages when it begins. The run hooks do, so each run gets hooks of ours around
those of its caller.
"""

# pyright: reportMissingImports=false
# The checks of types have no SDK, which brings a package that their other files are not written for.

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, cast

import msgspec
from agents import Agent, FunctionTool, RunConfig, Span, TracingProcessor, add_trace_processor
from agents import Trace as Workflow
from agents.lifecycle import RunHooksBase
from agents.models import get_default_model
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.tracing import get_current_span

from whyops_trace._guard import attempt, guarded
from whyops_trace.client import WhyOps
from whyops_trace.integrations._attachment import Attachment
from whyops_trace.integrations._runs import Run, Runs, Start, call_id_of, metadata_of, model_of, name_of
from whyops_trace.open_calls import STEP_MEMBERS, OpenCall, StepKind
from whyops_trace.providers._endpoints import provider_at
from whyops_trace.tracing import Trace

#: Spans without a call: two that repeat what others say, and a tool until its arguments are told.
_TRANSPARENT: Final = ("function", "task", "turn")
#: Settings of a model that are no parameters of its requests.
_NO_PARAMETERS: Final = frozenset({"retry", "timeout"})


class Question(NamedTuple):
    """
    What a model is asked, as the run hooks tell it just before.

    Attributes:
        span: The id of the span around the call.
        model: The name of the model.
        messages: The conversation.
        request: Instructions, tools and parameters.
    """

    span: str
    model: str
    messages: Any
    request: dict[str, Any]


_question: Final[ContextVar[Question | None]] = ContextVar("whyops_trace_question", default=None)


class Processor(TracingProcessor):
    """Records the spans that it is told of. Its methods run where the SDK runs what they tell of."""

    def __init__(self) -> None:
        self._runs = Runs()

    @guarded("recording a workflow")
    def on_trace_start(self, trace: Workflow) -> None:
        """Begin a workflow."""
        if not _attachments:
            return
        about = metadata_of(getattr(trace, "metadata", None) or {}, STEP_MEMBERS)
        if group_id := getattr(trace, "group_id", None):
            about["groupId"] = group_id
        start = _step(name_of(trace.name, otherwise="workflow"), metadata=about)
        run = self._runs.begin(trace.trace_id, None, start, sdk=_attachments[-1].sdk, about=about)
        if run is not None and run.call is not None:
            run.notes["handled"] = sys.exception()
            run.call.enter()

    @guarded("recording the end of a workflow")
    def on_trace_end(self, trace: Workflow) -> None:
        """End it, with the output of its last agent, or what it raises."""
        run = self._runs.pop(trace.trace_id)
        if run is not None and run.call is not None:
            error = _raised(run)
            private = error is not None and run.notes.get("private")
            run.call.end(run.notes.get("output"), type(error).__name__ if private else error)

    @guarded("recording the begin of a span")
    def on_span_start(self, span: Span[Any]) -> None:
        """Begin what a span tells of."""
        kind, data = span.span_data.type, span.span_data
        if kind == "handoff":  # to whom is told at its end
            return
        start = _step(kind)
        if kind in ("generation", "response"):
            start = _turn(span)
        elif kind == "agent":
            start = _step(name_of(data.name, otherwise=kind), kind="agent")
        elif kind == "guardrail":
            start = _step(name_of(data.name, otherwise=kind), metadata={"guardrail": True})
        elif kind == "mcp_tools":
            start = _step(name_of(f"list tools of {data.server}", otherwise=kind))
        elif kind == "custom":
            start = _step(name_of(data.name, otherwise=kind), input=data.data or None)
        self._begin(span, start, shown=kind not in _TRANSPARENT)

    @guarded("recording the end of a span")
    def on_span_end(self, span: Span[Any]) -> None:
        """End it, with what is known by now."""
        kind, data = span.span_data.type, span.span_data
        run = self._runs.pop(span.span_id)
        if kind == "handoff":
            start = _step(
                name_of(data.to_agent, otherwise=kind), kind="handoff", metadata={"from": data.from_agent}
            )
            run = self._begin(span, start)
        elif kind == "function" and (run is None or run.own_call is None):
            # The hooks did not tell of it: it did not get so far, or this run has none.
            if data.output is None and not span.error:
                return
            run = self._begin(span, _tool(data.name, data.input, None))
        if run is None or run.own_call is None:
            return
        self._runs.pop(span.span_id)
        output: Any = None
        error: BaseException | str | None
        if kind in ("generation", "response"):
            output = _answer_of(data)
        elif kind == "agent":
            output = run.notes.get("output")
        elif kind == "guardrail":
            output = {"triggered": data.triggered}
        elif kind == "mcp_tools":
            output = data.result
        elif kind == "function":
            output = data.output
        elif kind not in ("custom", "handoff"):
            output, _ = attempt(data.export)
        workflow = self._runs.get(span.trace_id)
        private = workflow is None or workflow.notes.get("private")
        error = None if private else _raised(run)
        if isinstance(error, GeneratorExit) and output is not None:
            error = None  # a stream is left once it has all
        if error is None and span.error:
            error = output if kind == "function" and isinstance(output, str) else _words(span.error)
        run.own_call.end(output, error)

    def keep_private(self) -> None:
        """Note that the data of the run that goes on is none for traces."""
        span = get_current_span()
        workflow = None if span is None else self._runs.get(span.trace_id)
        if workflow is not None:
            workflow.notes["private"] = True

    @guarded("recording the arguments of a tool")
    def tool_starts(self, context: Any) -> None:
        """Begin the tool whose span is the current one."""
        span = get_current_span()
        if span is None or span.span_data.type != "function" or self._runs.pop(span.span_id) is None:
            return
        arguments = getattr(context, "tool_arguments", None) or span.span_data.input
        config = getattr(context, "run_config", None)
        if config is not None and not config.trace_include_sensitive_data:
            arguments = None
        call_id = call_id_of(getattr(context, "tool_call_id", None))
        self._begin(span, _tool(span.span_data.name, arguments, call_id))

    @guarded("recording the output of an agent")
    def agent_ends(self, output: Any) -> None:
        """Note the output of the agent that runs."""
        span = get_current_span()
        run = None if span is None else self._runs.get(span.span_id)
        if span is None or run is None:
            return
        for each in (run.notes.get("agent"), self._runs.get(span.trace_id)):
            if each is not None:
                each.notes["output"] = output

    def shutdown(self) -> None:
        """Do nothing: the client delivers what is recorded."""

    def force_flush(self) -> None:
        """Do nothing: what is recorded is on the disk."""

    def _begin(self, span: Span[Any], start: Start, *, shown: bool = True) -> Run | None:
        around = self._runs.get(span.parent_id or span.trace_id)
        if around is None:  # it began before anything was attached
            return None
        run = self._runs.begin(span.span_id, span.parent_id or span.trace_id, start, sdk=None, shown=shown)
        if run is not None:
            run.notes["handled"] = sys.exception()
            run.notes["agent"] = run if span.span_data.type == "agent" else around.notes.get("agent")
            if run.own_call is not None:
                run.own_call.enter()
        return run


def _step(
    name: str, *, kind: StepKind = "step", input: Any = None, metadata: Mapping[str, Any] | None = None
) -> Start:
    def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
        return trace.start_step(name, kind=kind, parent=parent, input=input, metadata=metadata)

    return start


def _tool(name: object, arguments: Any, call_id: str | None) -> Start:
    named, _ = attempt(msgspec.json.decode, arguments or "{}")
    if not isinstance(named, dict):
        named = {"input": arguments}  # of a tool that takes a text, or written wrongly by the model

    def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
        return trace.start_tool_call(name_of(name, otherwise="tool"), named, call_id=call_id, parent=parent)

    return start


def _turn(span: Span[Any]) -> Start:
    data, asked = span.span_data, _question.get()
    if asked is None or asked.span != (span.parent_id or span.trace_id):  # of a model that no agent asked
        asked = Question("", "", data.input or [], {})
    model = model_of(getattr(data, "model", None), asked.model)
    address = (getattr(data, "model_config", None) or {}).get("base_url")
    vendor, _, rest = model.removeprefix("litellm/").partition("/")
    provider = provider_at(address) if address else vendor if rest else "openai"

    def start(trace: Trace, parent: OpenCall | None) -> OpenCall:
        return trace.start_llm_call(
            model, provider, asked.messages, name=data.type, request=asked.request, parent=parent
        )

    return start


def _answer_of(data: Any) -> Any:
    """Return the answer that the span of a turn has, in the form of one of OpenAI's APIs."""
    if data.type == "response":
        return data.response if data.response is not None else {"usage": getattr(data, "usage", None)}
    message: Any = next(iter(data.output or []), {})
    if isinstance(message, dict) and "output" in message:  # a stream was put together as a response
        return {"output": message["output"], "model": message.get("model"), "usage": data.usage}
    return {"choices": [{"message": message}], "model": data.model, "usage": data.usage}


def _raised(run: Run) -> BaseException | None:
    """Return the exception with which a run ends; one that was handled when it began is none of it."""
    error = sys.exception()
    return None if error is run.notes["handled"] else error


def _words(error: Mapping[str, Any]) -> str:
    """Return what a span says of a failure."""
    detail = (error.get("data") or {}).get("error")
    return f"{error['message']}: {detail}" if detail else str(error["message"])


class Hooks(RunHooksBase[Any, Any]):
    """
    The hooks of a run: those of its caller, and what is recorded before three of them.

    The three are no coroutine functions. So they run in the task that goes on to make the call, and not in one of
    their own.

    Args:
        inner: The caller's hooks.
        config: The configuration of the run.
    """

    def __init__(self, inner: RunHooksBase[Any, Any], config: RunConfig) -> None:
        self._inner = inner
        self._config = config
        for name in dir(inner):
            if name.startswith("on_") and name not in Hooks.__dict__:
                setattr(self, name, getattr(inner, name))

    def on_llm_start(
        self, context: Any, agent: Agent[Any], system_prompt: str | None, input_items: list[Any]
    ) -> Any:
        """Note what the model is asked."""
        self._note_question(agent, system_prompt, input_items)
        return self._inner.on_llm_start(context, agent, system_prompt, input_items)

    def on_tool_start(self, context: Any, agent: Any, tool: Any) -> Any:
        """Begin the call of a tool."""
        _PROCESSOR.tool_starts(context)
        return self._inner.on_tool_start(context, agent, tool)

    def on_agent_end(self, context: Any, agent: Any, output: Any) -> Any:
        """Note the output of an agent."""
        if self._config.trace_include_sensitive_data:
            _PROCESSOR.agent_ends(output)
        return self._inner.on_agent_end(context, agent, output)

    @guarded("recording what a model is asked")
    def _note_question(self, agent: Agent[Any], instructions: str | None, items: list[Any]) -> None:
        span, config = get_current_span(), self._config
        if span is None:
            return
        model = config.model or agent.model or get_default_model()
        request: dict[str, Any] = {}
        if config.trace_include_sensitive_data:
            settings = agent.model_settings.resolve(config.model_settings).to_json_dict()
            request = {
                name: value for name, value in settings.items() if value and name not in _NO_PARAMETERS
            }
            request |= {"system": instructions} if instructions else {}
            request |= {"tools": tools} if (tools := _tools_of(agent)) else {}
        else:
            items = []
            _PROCESSOR.keep_private()
        name = model if isinstance(model, str) else str(getattr(model, "model", "unknown"))
        _question.set(Question(span.span_id, name, list(items), request))


def _tools_of(agent: Agent[Any]) -> list[dict[str, Any]]:
    """Return the tools of an agent as a request tells them; none if the SDK adds others to them."""
    if agent.handoffs or agent.mcp_servers or not all(isinstance(tool, FunctionTool) for tool in agent.tools):
        return []
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.params_json_schema,
        }
        for tool in cast("list[FunctionTool]", agent.tools)
        if tool.is_enabled is True
    ]


class Runner:
    """
    The runner of agents with our hooks on each run.

    Args:
        inner: The runner before.
    """

    def __init__(self, inner: AgentRunner) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, *args: Any, **options: Any) -> Any:
        """Run an agent; see ``agents.Runner.run``."""
        return self.inner.run(*args, **(_hooked(options) or options))

    def run_sync(self, *args: Any, **options: Any) -> Any:
        """Run an agent; see ``agents.Runner.run_sync``."""
        return self.inner.run_sync(*args, **(_hooked(options) or options))

    def run_streamed(self, *args: Any, **options: Any) -> Any:
        """Run an agent; see ``agents.Runner.run_streamed``."""
        return self.inner.run_streamed(*args, **(_hooked(options) or options))


@guarded("adding hooks to a run")
def _hooked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run with hooks of ours, unless the SDK will refuse them."""
    hooks, config = options.get("hooks"), options.get("run_config")
    hooks = RunHooksBase() if hooks is None else hooks
    config = RunConfig() if config is None else config
    if not isinstance(hooks, RunHooksBase) or isinstance(hooks, Hooks) or not isinstance(config, RunConfig):
        return options
    return {**options, "hooks": Hooks(hooks, config)}


class _Attachment(Attachment):
    def detach(self) -> None:
        super().detach()
        runner = get_default_agent_runner()
        if not _attachments and isinstance(runner, Runner):
            set_default_agent_runner(runner.inner)


_attachments: list[Attachment] = []
#: The instrumentations that make spans of the same runs.
_SPANS: Final = ("openinference.instrumentation.openai_agents", "opentelemetry.instrumentation.openai_agents")
_PROCESSOR: Final = Processor()
add_trace_processor(_PROCESSOR)


def attach(sdk: WhyOps | None) -> Attachment:
    """Trace every run in the process; see :func:`whyops_trace.integrations.openai_agents.attach`."""
    runner = get_default_agent_runner()
    if not isinstance(runner, Runner):
        set_default_agent_runner(cast("AgentRunner", Runner(runner)))
    return _Attachment(_attachments, sdk, spans_of=_SPANS)
