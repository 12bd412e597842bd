"""Claude Code, with its traces switched on: https://code.claude.com/docs/en/monitoring-usage."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any, Final

from whyops_trace._models.answers import read_response
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import read_messages, system_of
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span, SpanEvent
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, parsed

_PREFIX: Final = "claude_code."
_KINDS: Final[dict[str, Kind]] = {
    "interaction": "agent",
    "llm_request": "llm",
    "tool": "tool",
    "tool.execution": "tool",
}
#: Attributes of a tool that are its arguments, by the parameter that they are of.
_ARGUMENTS: Final = {"full_command": "command", "file_path": "file_path", "subagent_type": "subagent_type"}


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return span.name.startswith(_PREFIX)


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what Claude Code tells. Its counts of tokens are those of Anthropic's API."""
    kind = attributes.text("span.type") or span.name.removeprefix(_PREFIX)
    reading.fill(
        kind=_KINDS.get(kind, "step"),
        conversation=attributes.text("session.id"),
        user=attributes.text("user.id", "user.email"),
        agent="" if attributes.get("agent_id") else "claude-code",
    )
    failed = attributes.get("success") in (False, "false")
    if reading.kind == "llm":
        _read_turn(span, attributes, reading)
    elif reading.kind == "tool":
        _read_tool(span, attributes, reading)
    elif reading.kind == "agent":
        reading.fill(name="claude-code", input=attributes.get("user_prompt"))
    else:
        reading.fill(name=kind)
    if failed:
        reading.has_failed = True


def _read_turn(span: Span, attributes: Attributes, reading: Reading) -> None:
    model = attributes.text("gen_ai.request.model", "model")
    asked = attributes.get("new_context", "user_prompt")
    request = _told(span.events, "api_request_body", "body")
    reading.fill(model=model)
    reading.ask(
        read_messages(asked) or read_messages(request.get("messages")),
        systemPrompt=attributes.text("system_prompt", "system_prompt_preview")
        or system_of(request.get("system")),
        tools=request.get("tools"),
    )
    answer = read_response(_told(span.events, "api_response_body", "body"))
    answer.content = (
        attributes.text("response.model_output")
        or answer.content
        or _told(span.events, "assistant_response").get("response")
    )
    answer.finish_reason = attributes.text("stop_reason", "gen_ai.response.finish_reasons")
    answer.model = model
    answer.provider = attributes.text("gen_ai.system") or "anthropic"
    answer.id = attributes.text("gen_ai.response.id")
    # GenAI's count includes the cached tokens, its own does not.
    answer.usage = read_tokens(attributes, cached_beside="gen_ai.usage.input_tokens" not in attributes.values)
    reading.reply(answer)


def _read_tool(span: Span, attributes: Attributes, reading: Reading) -> None:
    told = _told(span.events, "tool_result")
    arguments = dict_of(attributes.parsed("tool_input", "tool_parameters") or parsed(told.get("tool_input")))
    for name, parameter in _ARGUMENTS.items():
        if (value := attributes.get(name)) is not None:
            arguments.setdefault(parameter, value)
    reading.fill(
        name=attributes.text("tool_name", "gen_ai.tool.name"),
        call_id=attributes.text("tool_use_id", "gen_ai.tool.call.id"),
        input=arguments,
        delegate=attributes.text("subagent_type"),
    )
    result = {
        name: parsed(value)
        for name, value in _told(span.events, "tool.output").items()
        if value not in (None, "")
    }
    reading.fill(output=next(iter(result.values())) if len(result) == 1 else result)
    reading.fill(output=told.get("error"))
    if told.get("success") in (False, "false"):
        reading.has_failed = True


def _told(events: Iterable[SpanEvent], name: str, member: str = "") -> dict[str, Any]:
    """Return the attributes of the last event of a name, or the JSON in a member of them."""
    about: dict[str, Any] = next(
        (event.attributes for event in reversed(list(events)) if event.name == name), {}
    )
    return dict_of(parsed(about.get(member))) if member else about
