"""
Tools that a provider ran itself while its model answered, read from plain data of the answer.

OpenAI's responses have an item for each, Anthropic's messages a block for the call and another one for the result, and
Groq's chat completions a list beside the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of
from whyops_trace._values.attachments import content_of, described

#: Members of an item about the item itself.
_ABOUT: Final = frozenset(
    {
        "call_id",
        "caller",
        "created_by",
        "execution",
        "fingerprint",
        "id",
        "name",
        "server_label",
        "status",
        "type",
    }
)
#: Members of an item that hold what came out; all others are what went in.
_OUTPUTS: Final = ("output", "outputs", "results", "result", "tools", "search_results", "error")
#: Types of items that are calls although their name does not end like one.
_OTHER_CALLS: Final = ("mcp_list_tools", "program")
_RESULT: Final = "_tool_result"


class ProviderCall(msgspec.Struct):
    """
    A call of a tool that the provider ran.

    Attributes:
        name: The tool.
        arguments: Its input by name.
        result: Its output, an empty dict if the answer has none.
        server: The MCP server that has the tool, "" for a tool of the provider's own.
        failed: True if it failed.
    """

    name: str
    arguments: dict[str, Any]
    result: Any = {}
    server: str = ""
    failed: bool = False


def read_items(items: Iterable[dict[str, Any]], agents: Iterable[str]) -> list[ProviderCall]:
    """
    Read the calls from the items of a response of OpenAI.

    Args:
        items: The items.
        agents: Types of the calls that the agent has to run, unless the response has their output too.
    """
    items = list(items)
    outputs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in items:
        if _kind(item).endswith("_output"):
            outputs.setdefault(_key(item), []).append(item)
    calls = []
    for item in items:
        kind = _kind(item)
        if not kind.endswith("_call") and kind not in _OTHER_CALLS:
            continue
        # Calls of some tools have no id: each has the output whose turn it is.
        own = outputs.get(_key(item))
        is_agents = kind in agents or item.get("execution") == "client"
        if own or not is_agents:
            calls.append(_read_item(item, own.pop(0) if own else {}))
    return calls


def _kind(item: dict[str, Any]) -> str:
    return text_of(item.get("type"))


def _base(kind: str) -> str:
    return kind.removesuffix("_output").removesuffix("_call")


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return _base(_kind(item)), text_of(item.get("call_id"))


def _read_item(item: dict[str, Any], output: dict[str, Any]) -> ProviderCall:
    kind = _kind(item)
    members = {name: value for name, value in item.items() if value is not None and name not in _ABOUT}
    action = members.get("action")
    if isinstance(action, dict):  # of a search or a shell; the sources that a search found are in it too
        del members["action"]
        members |= {name: value for name, value in action.items() if value is not None}
        if "sources" in members:
            members["results"] = members.pop("sources")
    results = {name: members.pop(name) for name in _OUTPUTS if name in members}
    results |= {name: output[name] for name in _OUTPUTS if output.get(name) is not None}
    if kind == "image_generation_call":
        results |= {"result": _image(results["result"])} if "result" in results else {}
    error = results.pop("error", None)
    failed = bool(error) or "failed" in (item.get("status"), output.get("status"))
    result = next(iter(results.values())) if len(results) == 1 else results
    return ProviderCall(
        name=text_of(item.get("name")) or _base(kind) or "tool",
        arguments=_arguments(members),
        result={"error": error if isinstance(error, dict) else {"message": error}} if error else result,
        server=text_of(item.get("server_label")),
        failed=failed,
    )


def _arguments(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a call with those of its arguments in their place, which are JSON as a rule."""
    arguments = parsed(members.pop("arguments", {}))
    return {**members, **(arguments if isinstance(arguments, dict) else {"arguments": arguments})}


def _image(encoded: Any) -> Any:
    """Return size and hash in the place of an image in base64."""
    content = content_of(encoded) if isinstance(encoded, str) else None
    return encoded if content is None else described(content)


def read_blocks(blocks: Iterable[dict[str, Any]]) -> list[ProviderCall]:
    """Read the calls from the content blocks of a message of Anthropic. A result may belong to an earlier message."""
    calls: dict[str, ProviderCall] = {}
    for block in blocks:
        kind = _kind(block)
        if kind in ("server_tool_use", "mcp_tool_use"):
            arguments, name = block.get("input"), text_of(block.get("name")) or "tool"
            named = arguments if isinstance(arguments, dict) else {"input": arguments}
            call_id = text_of(block.get("id"))
            calls[call_id] = ProviderCall(name, named, server=text_of(block.get("server_name")))
        elif kind.endswith(_RESULT):
            call_id = text_of(block.get("tool_use_id"))
            call = calls.setdefault(call_id, ProviderCall(kind.removesuffix(_RESULT), {}))
            call.result = block.get("content")
            call.failed = block.get("is_error") is True or _kind(dict_of(call.result)).endswith("_error")
            if call.failed:
                call.result = {"error": call.result}
    return list(calls.values())


def read_executed(message: dict[str, Any]) -> list[ProviderCall]:
    """Read the calls of the message of a chat completion of Groq."""
    return [
        _read_item({**tool, "type": text_of(tool.get("name")) or _kind(tool), "index": None}, {})
        for tool in dicts_of(message.get("executed_tools"))
    ]
