"""The failure that a span tells of, which its status alone neither proves nor rules out."""

from __future__ import annotations

from typing import Any

from whyops_trace._otel.reading import Failure, Reading
from whyops_trace._otel.span import ERROR, Span, SpanEvent
from whyops_trace._shapes import dict_of, parsed, text_of


def read_failure(span: Span, reading: Reading) -> Failure | None:
    """
    Return the failure of what a span tells of, None if it did not fail.

    A tool failed if its source says so in a member of its own or in the result, or if its status is an error. A model
    that answered, and a step or an agent with a result, did not fail, whatever the status says. A failure of which
    nothing but the status tells is not sure: some copy the status of one span to others.
    """
    exception = next((event for event in reversed(span.events) if event.name == "exception"), None)
    if reading.kind == "tool":
        if reading.has_failed is False:
            return None
        in_result = _in_result(reading.output)
        if reading.has_failed or in_result:
            return _failure(span, exception, in_result or _text(reading.output), told_so=True)
        if span.status != ERROR:
            return None
        return _failure(span, exception)
    if span.status != ERROR and not reading.has_failed:
        return None
    if reading.kind == "llm":
        is_whole = bool(reading.answer.finish_reason) or (reading.has_answer and exception is None)
        return None if is_whole else _failure(span, exception)
    return None if reading.output is not None else _failure(span, exception)


def _failure(span: Span, exception: SpanEvent | None, told: str = "", *, told_so: bool = False) -> Failure:
    about = exception.attributes if exception is not None else {}
    error = parsed(span.attributes.get("error"))
    kind = text_of(about.get("exception.type")) or text_of(span.attributes.get("error.type"))
    texts = (
        text_of(about.get("exception.message")),
        span.message,
        text_of(span.attributes.get("error.message")),
        text_of(span.attributes.get("exception.message")),
        text_of(span.attributes.get("langfuse.observation.status_message")),
        told,
        error if isinstance(error, str) else text_of(dict_of(error).get("message")),
    )
    return Failure(
        message=next((text for text in texts if text not in ("", kind)), kind or "failed"),
        type=kind,
        stack=text_of(about.get("exception.stacktrace")),
        is_sure=exception is not None or "error.type" in span.attributes or told_so,
    )


def _in_result(result: Any) -> str:
    """Return the text of the failure that a result consists of, "" if it is none."""
    members = dict_of(result)
    if members.get("isError") is True or members.get("is_error") is True or members.get("status") == "error":
        return (
            _text(members.get("content"))
            or _text(members.get("error"))
            or _text(members.get("message"))
            or "failed"
        )
    if members.keys() == {"error"}:
        return _text(members["error"]) or text_of(dict_of(members["error"]).get("message"))
    return ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = next((dict_of(each).get("text") for each in value), "")
    return text_of(value)
