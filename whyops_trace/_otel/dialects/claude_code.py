"""Claude Code, with its traces switched on: https://code.claude.com/docs/en/monitoring-usage."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._models.answers import Turn
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import read_messages
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, parsed

_PREFIX: Final = "claude_code."
_KINDS: Final[dict[str, Kind]] = {
    "interaction": "agent",
    "llm_request": "llm",
    "tool": "tool",
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
        agent="claude-code",
    )
    failed = attributes.get("success") in (False, "false")
    if reading.kind == "llm":
        _read_turn(attributes, reading)
    elif reading.kind == "tool":
        _read_tool(span, attributes, reading)
    elif reading.kind == "agent":
        reading.fill(name="claude-code", input=attributes.get("user_prompt"))
    else:
        reading.fill(name=kind)
    if failed:
        reading.has_failed = True


def _read_turn(attributes: Attributes, reading: Reading) -> None:
    model = attributes.text("gen_ai.request.model", "model")
    asked = attributes.get("new_context", "user_prompt")
    reading.fill(model=model)
    reading.ask(read_messages(asked), systemPrompt=attributes.text("system_prompt", "system_prompt_preview"))
    reading.reply(
        Turn(
            content=attributes.text("response.model_output") or None,
            finish_reason=attributes.text("stop_reason", "gen_ai.response.finish_reasons"),
            model=model,
            provider=attributes.text("gen_ai.system") or "anthropic",
            id=attributes.text("gen_ai.response.id"),
            usage=read_tokens(attributes, cached_beside=True),
        )
    )


def _read_tool(span: Span, attributes: Attributes, reading: Reading) -> None:
    arguments = dict_of(attributes.parsed("tool_input", "tool_parameters"))
    for name, parameter in _ARGUMENTS.items():
        if (value := attributes.get(name)) is not None:
            arguments.setdefault(parameter, value)
    reading.fill(
        name=attributes.text("tool_name", "gen_ai.tool.name"),
        call_id=attributes.text("tool_use_id", "gen_ai.tool.call.id"),
        input=arguments,
    )
    for event in span.events:
        if event.name == "tool.output":
            told = {
                name: parsed(value) for name, value in event.attributes.items() if value not in (None, "")
            }
            reading.fill(output=next(iter(told.values())) if len(told) == 1 else told)
