"""The Agent Development Kit of Google, besides GenAI's attributes."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import answer_of, read_messages, system_of
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import is_google, read_tokens, with_total
from whyops_trace._shapes import dict_of, dicts_of, list_of

_PREFIX: Final = "gcp.vertex.agent."
#: The span that stands for the results of parallel tools together.
_MERGED: Final = "(merged"
#: The begin of the name of a tool's span.
_TOOL: Final = "execute_tool "


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return span.scope == "gcp.vertex.agent" or "gcp" in roots


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the kit tells."""
    reading.fill(conversation=attributes.text(_PREFIX + "session_id"))
    request, told = (dict_of(attributes.parsed(_PREFIX + name)) for name in ("llm_request", "llm_response"))
    if request or told or span.name == "call_llm":
        reading.fill(kind="llm")
        config = dict_of(request.get("config"))
        tools = [
            each
            for tool in dicts_of(config.get("tools"))
            for each in list_of(tool.get("function_declarations"))
        ]
        system = system_of(_parts(config.get("system_instruction")))
        reading.ask(read_messages(request.get("contents") or []), systemPrompt=system, tools=tools)
        reading.reply(answer_of([dict_of(told.get("content"))] if told.get("content") else []))
    elif attributes.values.get("gen_ai.operation.name") == "execute_tool":
        response = dict_of(attributes.parsed(_PREFIX + "tool_response", "gen_ai.tool.call.result"))
        reading.fill(
            kind="step" if _MERGED in attributes.text("gen_ai.tool.name") + span.name else "tool",
            input=attributes.parsed(_PREFIX + "tool_call_args"),
            output=response["result"] if response.keys() == {"result"} else response,
        )
        reading.is_copy = reading.kind == "step"
    elif not attributes.values and span.name.startswith(_TOOL) and _MERGED not in span.name:
        reading.fill(
            kind="tool", name=span.name.removeprefix(_TOOL)
        )  # as long as it is open it tells nothing else
    _read_tokens(attributes, reading, dict_of(told.get("usage_metadata")))


def _parts(content: Any) -> Any:
    return dict_of(content).get("parts", content)


def _read_tokens(attributes: Attributes, reading: Reading, told: dict[str, Any]) -> None:
    """
    Add the cached tokens, and take the thinking out of the answer's tokens, where it is counted twice.

    Versions before 2 tell of the cached ones in the answer alone. The kit adds the thinking to the answer's tokens, as
    Gemini counts it beside them; models of others have it in them already.
    """
    usage = read_tokens(attributes)
    cached = told.get("cached_content_token_count")
    prompt = usage.get("promptTokens", 0)
    if isinstance(cached, int) and 0 < cached <= prompt and "cacheReadTokens" not in usage:
        usage["promptTokens"], usage["cacheReadTokens"] = prompt - cached, cached
        reading.answer.usage = usage = with_total(usage)
    provider = attributes.text("gen_ai.provider.name", "gen_ai.system")
    reasoning, written = usage.get("reasoningTokens", 0), usage.get("completionTokens", 0)
    if provider and not is_google(attributes) and written >= 2 * reasoning > 0:
        usage["completionTokens"] = written - reasoning
        reading.answer.usage = with_total(usage)
