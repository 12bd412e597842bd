"""
The metadata of an agent for a server: its system prompt and its tools.

A server makes a new version of the agent when they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._values import encoding
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import AgentMetadata, AgentTool

#: Schema of a tool that has none: any JSON value.
ANY_SCHEMA: Final = "{}"


def check_metadata(metadata: Mapping[str, Any]) -> AgentMetadata:
    """
    Return an agent's metadata in the form that a server takes.

    A schema that is a dict becomes JSON text, a missing one the schema of any value. A missing description becomes the
    name.

    Raises:
        ConfigurationError: if it is no dict with a ``systemPrompt`` that is text, or a tool has no name.
    """
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(
            f"agent_metadata is {metadata!r:.80}; it must be a dict with a systemPrompt."
        )
    prompt = metadata.get("systemPrompt")
    if not isinstance(prompt, str) or not prompt:
        raise ConfigurationError(
            f"agent_metadata['systemPrompt'] is {prompt!r:.80}; it must be the agent's system prompt, as text that is "
            "not empty."
        )
    tools = metadata.get("tools") or []
    if not isinstance(tools, (list, tuple)):
        raise ConfigurationError(f"agent_metadata['tools'] is {tools!r:.80}; it must be a list of dicts.")
    checked: AgentMetadata = {
        "systemPrompt": prompt,
        "tools": [_tool(index, tool) for index, tool in enumerate(tools)],
    }
    description = metadata.get("description")
    if description:
        checked["description"] = _text("agent_metadata['description']", description)
    return checked


def _tool(index: int, tool: Any) -> AgentTool:
    where = f"agent_metadata['tools'][{index}]"
    if not isinstance(tool, Mapping):
        raise ConfigurationError(f'{where} is {tool!r:.80}; it must be a dict such as {{"name": "search"}}.')
    name = _text(f"{where}['name']", tool.get("name"))
    return {
        "name": name,
        "description": _text(f"{where}['description']", tool.get("description") or name),
        "inputSchema": _schema(f"{where}['inputSchema']", tool.get("inputSchema")),
        "outputSchema": _schema(f"{where}['outputSchema']", tool.get("outputSchema")),
    }


def _schema(where: str, schema: Any) -> str:
    if isinstance(schema, Mapping):
        return encoding.encode(schema).decode()
    return _text(where, schema or ANY_SCHEMA)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where} is {value!r:.80}; it must be text that is not empty.")
    return value
