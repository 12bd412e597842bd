"""Arguments and results of tools, in the wrappings of those who record a whole call of a function."""

from __future__ import annotations

from typing import Any

from whyops_trace._otel.attributes import literal
from whyops_trace._otel.messages import plain_result, unwrapped
from whyops_trace._otel.reading import Reading
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of


def arguments_of(value: Any) -> Any:
    """
    Return the arguments of a tool out of what was recorded: of a call by position and by name, of a run of LangChain.

    A value alone, whose parameter is unknown, stays as it is.
    """
    is_object = isinstance(value, str) and value.startswith("{")
    value = unwrapped(literal(value) if is_object else parsed(value))
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("kwargs"), dict) and not value.keys() - {
        "args",
        "kwargs",
        "sanitize_inputs_outputs",
    }:
        given = list_of(value.get("args"))
        return {**value["kwargs"], **({"args": given} if given else {})}
    if "input_str" in value:
        inputs = value.get("inputs")
        return inputs if isinstance(inputs, dict) and inputs else literal(value["input_str"])
    return value


def generation_of(told: dict[str, Any]) -> dict[str, Any]:
    """Return the message in LangChain's result of one or more generations, any other answer as it is."""
    first: Any = next(iter(list_of(told.get("generations"))), None)
    generation = dict_of(first[0] if isinstance(first, list) and first else first)
    return dict_of(generation.get("message")) or told


def read_result(value: Any, reading: Reading) -> None:
    """Fill in the result of a tool, and what the message that it is in tells besides: the call's id, and a failure."""
    value = unwrapped(parsed(value))
    inner = dict_of(value)
    if isinstance(inner.get("output"), (dict, str)) and not inner.keys() - {"output", "kwargs"}:
        value = inner["output"]  # of a run of LangChain
        inner = dict_of(value)
    messages = dicts_of(dict_of(inner.get("update")).get("messages"))
    if len(messages) == 1 and messages[0].get("type") == "tool":
        inner = messages[0]  # of a command of LangGraph
    if inner.get("type") == "tool" and "content" in inner:
        reading.fill(
            call_id=text_of(inner.get("tool_call_id")), output=parsed(plain_result(inner["content"]))
        )
        if reading.has_failed is None and inner.get("status") in ("error", "success"):
            reading.has_failed = inner["status"] == "error"
        return
    if isinstance(inner.get("isError"), bool) and isinstance(inner.get("content"), list):
        reading.fill(output=parsed(plain_result(inner["content"])))
        reading.has_failed = inner["isError"] if reading.has_failed is None else reading.has_failed
        return
    if "raw_output" in inner and isinstance(inner.get("is_error"), bool):
        reading.fill(output=inner["raw_output"])  # of LlamaIndex
        reading.has_failed = inner["is_error"] if reading.has_failed is None else reading.has_failed
        return
    reading.fill(output=value)
