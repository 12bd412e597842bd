"""The spans of traces as a whole, and what their roots say of them."""

from __future__ import annotations

from typing import Final

import msgspec

from whyops_trace._recording.places import span_id_bytes
from whyops_trace._shapes import dict_of, list_of, text_of
from whyops_trace.exporters.otlp import openinference
from whyops_trace.exporters.otlp.calls import OpenTrace, Record
from whyops_trace.exporters.otlp.failing import raise_in
from whyops_trace.exporters.otlp.messages import add_values, as_value
from whyops_trace.exporters.otlp.span import INTERNAL, Event, Options, Span, Value

_decode: Final = msgspec.json.Decoder().decode


def root_of(trace: OpenTrace, end: Record | None, options: Options) -> Span:
    """
    Return the span of a trace as a whole.

    Args:
        trace: The trace.
        end: The record of its end; None if there was none.
        options: Options of the spans.
    """
    end_ns = trace.last_ns if end is None else max(end.time_ns, trace.start_ns)
    span = Span(
        trace.trace_id,
        trace.span_id(0),
        bytes.fromhex(trace.remote),
        f"invoke_agent {trace.agent}",
        INTERNAL,
        trace.start_ns,
        end_ns,
        {"gen_ai.operation.name": "invoke_agent", "whyops.kind": "trace"},
        [Event("whyops.thinking", moment, {"whyops.thinking": text}) for moment, text in trace.thoughts]
        if options.content
        else [],
        agent=trace.agent,
    )
    add_whole(span, trace, options)
    _end_whole(span, trace, end)
    if options.openinference:
        openinference.add_chain(span.attributes, "AGENT")
    return span


def again_of(trace: OpenTrace, end: Record, options: Options) -> Span:
    """Return the span of a block of a trace whose span as a whole was made before: it is inside that."""
    latency = end.metadata.get("latencyMs")
    elapsed = latency * 1_000_000 if type(latency) is int else 0
    span = root_of(trace, end, options)
    span.span_id, span.parent_id = trace.span_id(-end.time_ns), trace.span_id(0)
    span.start_ns = end.time_ns - elapsed
    return span


def _end_whole(span: Span, trace: OpenTrace, end: Record | None) -> None:
    content = {} if end is None else dict_of(_decode(end.content))
    if end is not None and end.metadata.get("outcome") == "error":
        raise_in(span, dict_of(content.get("error")))
    elif trace.error:
        error = dict_of(_decode(trace.error))
        about: dict[str, Value] = {
            "exception.type": text_of(error.get("type")) or "error",
            "exception.message": text_of(error.get("message")),
        }
        span.events = [*span.events, Event("exception", trace.last_ns, about)]


def add_whole(span: Span, trace: OpenTrace, options: Options) -> None:
    """Add what is known of a trace as a whole to its root."""
    attributes, about = span.attributes, trace.about
    attributes["gen_ai.agent.name"] = attributes.get("gen_ai.agent.name") or trace.agent
    attributes["gen_ai.conversation.id"] = trace.id
    attributes["whyops.trace.id"] = trace.id
    if trace.run:
        attributes["session.id"] = trace.id
    if trace.user:
        attributes["user.id"] = trace.user
    tags = [tag for tag in list_of(about.get("tags")) if isinstance(tag, str)]
    metadata = dict_of(about.get("metadata"))
    if tags:
        attributes["whyops.tags"] = attributes["langfuse.trace.tags"] = tags
    for name, value in metadata.items():
        attributes[f"whyops.trace.metadata.{name}"] = as_value(value)
    if options.content:
        asked = text_of(attributes.get("input.value")) or trace.input
        add_values(attributes, asked, text_of(attributes.get("output.value")) or trace.output)
    if options.openinference:
        openinference.add_whole(attributes, tags, metadata)


def score_of(record: Record) -> Span:
    """Return the span of a score, below what is judged: it has no length, and an event by the conventions."""
    content = dict_of(_decode(record.content))
    judged = OpenTrace(record.trace_id, record.run, False, 0, 0, 0, "")
    name = text_of(content.get("name"))
    about: dict[str, Value] = {"gen_ai.evaluation.name": name}
    value = content.get("value")
    if label := text_of(content.get("label")) or (str(value).lower() if isinstance(value, bool) else ""):
        about["gen_ai.evaluation.score.label"] = label
    if isinstance(value, (bool, int, float)):
        about["gen_ai.evaluation.score.value"] = float(value)
    if comment := text_of(content.get("comment")):
        about["gen_ai.evaluation.explanation"] = comment
    return Span(
        judged.trace_id,
        span_id_bytes(record.trace_id, record.idempotency_key, 0),
        judged.span_id(record.step_id),
        f"score {name}",
        INTERNAL,
        record.time_ns,
        record.time_ns,
        {**about, "whyops.kind": "score"},
        [Event("gen_ai.evaluation.result", record.time_ns, about)],
        agent=record.agent_name,
    )
