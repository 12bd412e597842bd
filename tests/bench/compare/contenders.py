"""
The tools that are compared, each with its default settings, and what it takes to point it at the sink.

A tool is imported where it is started: this module is read by processes that have none of them installed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Function = Callable[..., Any]
#: What the spans are called, which are counted where nothing else is recorded.
SPAN = "compared_tool"


class Tracer(NamedTuple):
    """
    A tool that is ready.

    Attributes:
        tool: Returns a traced function of the same kind.
        model: Returns a traced function that asks a model; None where that is a function like any other.
        trace: Returns a block in which calls belong to one trace.
        flush: Waits until all is sent.
    """

    tool: Callable[[Function], Function]
    trace: Callable[[], AbstractContextManager[Any]] = nullcontext
    flush: Callable[[], Any] = lambda: None
    model: Callable[[Function], Function] | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """
    A tool that is compared.

    Attributes:
        start: Imports it and gets it ready to send to a URL.
        venv: The name of its requirements, and of its environment.
        package: The package whose version is reported, if it is a tool.
        imports: What a program imports to trace a function.
        variables: Environment variables; ``{sink}`` stands for the URL.
        share: The part of the work that it is given, where it would take too long for all of it.
        counts: What tells at the sink that a call arrived: "calls" (its argument and its result), "spans" (their
            names), or "" where nothing is sent.
        generators: Whether it traces them.
    """

    start: Callable[[str], Tracer]
    venv: str
    package: str
    imports: str = "pass"
    variables: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    counts: str = "calls"
    generators: bool = True

    @property
    def converses(self) -> bool:
        """True if it records what a model was asked."""
        return self.counts == "calls" and self.share == 1


CONTENDERS: dict[str, Contender] = {}


def contender(name: str, **about: Any) -> Callable[[Callable[[str], Tracer]], Callable[[str], Tracer]]:
    """Return a decorator of the function that starts a contender; its environment and package are called like it."""

    def register(start: Callable[[str], Tracer]) -> Callable[[str], Tracer]:
        CONTENDERS[name] = Contender(start=start, **{"venv": name, "package": name, **about})
        return start

    return register


@contender("untraced", venv="floor", package="", counts="")
def untraced(sink: str) -> Tracer:
    """Nothing at all."""
    return Tracer(lambda function: function)


@contender("floor", package="", counts="", generators=False)
def floor(sink: str) -> Tracer:
    """A context variable, two clocks and a dict on a deque, which goes nowhere."""
    from .floor import Floor, trace

    least = Floor()
    return Tracer(least.tool, trace, least.queue.clear)


@contender(
    "floor-exporting",
    venv="floor",
    package="",
    imports="import json, threading, http.client",
    generators=False,
)
def floor_exporting(sink: str) -> Tracer:
    """The same with JSON made at the call, and a thread that posts batches."""
    from .floor import ExportingFloor, trace

    least = ExportingFloor(sink)
    return Tracer(least.tool, trace, least.flush)


@contender(
    "whyops-trace",
    imports="from whyops_trace import WhyOps, traced_tool",
    variables={
        "WHYOPS_API_KEY": "whyops_compare",
        "WHYOPS_ANALYSE_URL": "{sink}/api",
        "WHYOPS_PROXY_URL": "{sink}",
    },
)
def whyops_trace(sink: str) -> Tracer:
    """This project, as a user with a key has it."""
    from whyops_trace import WhyOps, traced_llm, traced_tool

    sdk = WhyOps(agent_name="compare", agent_metadata={"systemPrompt": "Compare.", "tools": []})
    model = traced_llm(model="gpt-4o", provider="openai")
    return Tracer(traced_tool, sdk.trace, lambda: sdk.flush_sync(60), model)


OTEL = {
    "venv": "otel",
    "package": "opentelemetry-sdk",
    "imports": (
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider; "
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor; "
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter"
    ),
}


@contender("otel", counts="spans", **OTEL)
def opentelemetry(sink: str) -> Tracer:
    """A span for each call, with nothing in it: what all others are measured by."""
    return _opentelemetry(sink, payload=False)


@contender("otel-payload", **OTEL)
def opentelemetry_with_payload(sink: str) -> Tracer:
    """The same with the arguments and the result as attributes, as one would write it by hand."""
    return _opentelemetry(sink, payload=True)


def _opentelemetry(sink: str, payload: bool) -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces")))
    start = provider.get_tracer("compare").start_as_current_span
    dumps = functools.partial(json.dumps, default=lambda value: value.model_dump())

    def tool(function: Function) -> Function:
        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            with start(SPAN) as span:
                if payload:
                    span.set_attribute("input.value", dumps({"args": args, "kwargs": kwargs}))
                result = function(*args, **kwargs)
                if payload:
                    span.set_attribute("output.value", dumps(result))
                return result

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with start(SPAN) as span:
                if payload:
                    span.set_attribute("input.value", dumps({"args": args, "kwargs": kwargs}))
                result = await function(*args, **kwargs)
                if payload:
                    span.set_attribute("output.value", dumps(result))
                return result

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with start(SPAN) as span:
                if not payload:
                    yield from function(*args, **kwargs)
                    return
                span.set_attribute("input.value", dumps({"args": args, "kwargs": kwargs}))
                items = []
                for item in function(*args, **kwargs):
                    items.append(item)
                    yield item
                span.set_attribute("output.value", dumps(items))

        if inspect.iscoroutinefunction(function):
            return coroutine
        return generator if inspect.isgeneratorfunction(function) else plain

    return Tracer(tool, lambda: start("trace"), lambda: provider.force_flush(30_000))


@contender(
    "langsmith",
    imports="from langsmith import traceable",
    variables={
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": "{sink}",
        "LANGSMITH_API_KEY": "lsv2_pt_compare",
        "LANGSMITH_PROJECT": "compare",
    },
)
def langsmith(sink: str) -> Tracer:
    """LangSmith, ``@traceable``."""
    from langsmith import trace, traceable
    from langsmith.run_trees import get_cached_client

    tool, model = (traceable(run_type=kind, name=SPAN) for kind in ("tool", "llm"))
    return Tracer(tool, lambda: trace("trace"), get_cached_client().flush, model)


@contender(
    "langfuse",
    imports="from langfuse import observe, get_client",
    variables={
        "LANGFUSE_PUBLIC_KEY": "pk-lf-compare",
        "LANGFUSE_SECRET_KEY": "sk-lf-compare",
        "LANGFUSE_HOST": "{sink}",
        "LANGFUSE_BASE_URL": "{sink}",
    },
)
def langfuse(sink: str) -> Tracer:
    """Langfuse, ``@observe``."""
    from langfuse import get_client, observe

    client = get_client()
    model = observe(name=SPAN, as_type="generation")
    return Tracer(observe(name=SPAN), lambda: client.start_as_current_span(name="trace"), client.flush, model)


@contender("logfire", imports="import logfire")
def logfire(sink: str) -> Tracer:
    """Logfire, ``@instrument`` with ``record_return``."""
    import logfire

    advanced = logfire.AdvancedOptions(base_url=sink)
    token = "pylf_v1_us_" + "0" * 32
    logfire.configure(token=token, console=False, inspect_arguments=False, advanced=advanced)

    def tool(function: Function) -> Function:
        generates = inspect.isgeneratorfunction(function)  # the items of which cannot be recorded
        decorate: Any = logfire.instrument(SPAN, record_return=not generates, allow_generator=generates)
        traced: Function = decorate(function)
        return traced

    return Tracer(tool, lambda: logfire.span("trace"), logfire.force_flush)


@contender(
    "braintrust",
    imports="from braintrust import traced, init_logger",
    variables={
        "BRAINTRUST_API_KEY": "sk-compare",
        "BRAINTRUST_APP_URL": "{sink}",
        "BRAINTRUST_API_URL": "{sink}",
    },
)
def braintrust(sink: str) -> Tracer:
    """Braintrust, ``@traced``."""
    from braintrust import flush, init_logger, start_span, traced

    init_logger(project="compare", app_url=sink)
    return Tracer(traced(name=SPAN), lambda: start_span("trace"), flush, traced(name=SPAN, type="llm"))


@contender(
    "mlflow",
    package="mlflow-tracing",
    imports="import mlflow",
    variables={"MLFLOW_TRACKING_URI": "{sink}/mlflow", "MLFLOW_DISABLE_TELEMETRY": "true"},
)
def mlflow(sink: str) -> Tracer:
    """MLflow, ``@trace``."""
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation

    mlflow.tracing.set_destination(MlflowExperimentLocation("0"))
    tool = functools.partial(mlflow.trace, name=SPAN)
    model = functools.partial(mlflow.trace, name=SPAN, span_type="CHAT_MODEL")
    return Tracer(tool, lambda: mlflow.start_span("trace"), mlflow.flush_trace_async_logging, model)


@contender(
    "opik",
    imports="from opik import track",
    variables={
        "OPIK_URL_OVERRIDE": "{sink}/api/",
        "OPIK_API_KEY": "compare",
        "OPIK_WORKSPACE": "default",
        "OPIK_PROJECT_NAME": "compare",
        "OPIK_SENTRY_ENABLE": "false",
        "OPIK_ANALYTICS_ENABLE": "false",
    },
)
def opik(sink: str) -> Tracer:
    """Opik, ``@track``."""
    from opik import flush_tracker, start_as_current_trace, track

    return Tracer(
        track(name=SPAN), lambda: start_as_current_trace("trace"), flush_tracker, track(name=SPAN, type="llm")
    )


@contender(
    "weave",
    imports="import weave",
    variables={
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "{sink}",
        "WF_TRACE_SERVER_URL": "{sink}",
        "WANDB_ENTITY": "compare",
        "WANDB_ERROR_REPORTING": "false",
        "WEAVE_PRINT_CALL_LINK": "false",
    },
)
def weave(sink: str) -> Tracer:
    """Weave, ``@op``."""
    import weave

    client = weave.init("compare/compare")

    @contextlib.contextmanager
    def trace() -> Iterator[None]:
        call = client.create_call("trace", {})
        try:
            yield
        finally:
            client.finish_call(call)

    return Tracer(weave.op, trace, client.flush)


@contender(
    "traceloop",
    package="traceloop-sdk",
    imports="from traceloop.sdk import Traceloop; from traceloop.sdk.decorators import tool",
    variables={"TRACELOOP_TELEMETRY": "false", "TRACELOOP_METRICS_ENABLED": "false"},
)
def traceloop(sink: str) -> Tracer:
    """Traceloop (OpenLLMetry), ``@tool``."""
    from opentelemetry import trace
    from traceloop.sdk import Traceloop
    from traceloop.sdk.decorators import tool

    Traceloop.init(app_name="compare", api_endpoint=sink, api_key="compare", instruments=set())
    provider: Any = trace.get_tracer_provider()
    start = provider.get_tracer("compare").start_as_current_span
    return Tracer(tool(name=SPAN), lambda: start("trace"), provider.force_flush)


@contender(
    "whyops-0.1",
    package="whyops",
    imports="from whyops import WhyOps",
    share=0.01,
    generators=False,
)
def whyops(sink: str) -> Tracer:
    """The package that this one replaces, which posts each event while the caller waits."""
    from whyops import WhyOps

    metadata = {"systemPrompt": "Compare."}
    sdk = WhyOps("whyops_compare", "compare", metadata, proxy_base_url=sink, analyse_base_url=f"{sink}/api")
    current = sdk.trace("none")

    @contextlib.contextmanager
    def trace() -> Iterator[None]:
        nonlocal current
        current = sdk.trace(str(uuid.uuid4()))
        yield

    def tool(function: Function) -> Function:
        names = inspect.getfullargspec(function).args

        @functools.wraps(function)
        def plain(*args: Any) -> Any:
            calls = [{"name": SPAN, "arguments": dict(zip(names, args, strict=False))}]
            span = current.tool_call_request_sync(SPAN, calls)
            result = function(*args)
            current.tool_call_response_sync(SPAN, span, calls, {"result": result})
            return result

        @functools.wraps(function)
        async def coroutine(*args: Any) -> Any:
            calls = [{"name": SPAN, "arguments": dict(zip(names, args, strict=False))}]
            span = await current.tool_call_request(SPAN, calls)
            result = await function(*args)
            await current.tool_call_response(SPAN, span, calls, {"result": result})
            return result

        return coroutine if inspect.iscoroutinefunction(function) else plain

    return Tracer(tool, trace)
