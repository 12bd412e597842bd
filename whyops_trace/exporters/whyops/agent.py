"""
What a server is told of an agent: its system prompt and its tools.

A server numbers the versions of an agent by what is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._values import encoding
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import AgentMetadata, AgentTool

#: What stands for a schema that a tool does not give: any JSON value.
ANY_SCHEMA: Final = "{}"


def check_metadata(metadata: Mapping[str, Any]) -> AgentMetadata:
    """
    Return an agent's metadata in the form that a server takes.

    Schemas given as dicts become JSON text, missing ones the schema of anything, a missing description the name.

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
