"""Tools that a provider ran itself, as they are read from the answers of each."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from whyops_trace._models.provider_tools import ProviderCall, read_blocks, read_executed, read_items

AGENTS = ("function_call", "computer_call", "shell_call")
IMAGE = b"not quite a picture"

ITEMS: list[tuple[list[dict[str, Any]], list[ProviderCall]]] = [
    ([], []),
    ([{"type": "message"}, {"type": "reasoning"}, {"type": "compaction"}, {"type": "function_call_output"}], []),
    (
        [{"type": "web_search_call", "id": "w", "status": "completed",
          "action": {"type": "search", "query": "q", "sources": [{"url": "u"}]}}],
        [ProviderCall("web_search", {"type": "search", "query": "q"}, [{"url": "u"}])],
    ),
    (
        [{"type": "file_search_call", "id": "f", "queries": ["q"], "results": [{"text": "x"}]}],
        [ProviderCall("file_search", {"queries": ["q"]}, [{"text": "x"}])],
    ),
    (
        [{"type": "code_interpreter_call", "id": "c", "code": "1+1", "container_id": "k",
          "outputs": [{"type": "logs", "logs": "2"}]}],
        [ProviderCall("code_interpreter", {"code": "1+1", "container_id": "k"}, [{"type": "logs", "logs": "2"}])],
    ),
    (
        [{"type": "mcp_call", "id": "m", "name": "find", "server_label": "shop", "arguments": '{"q":1}',
          "output": "x", "error": None}],
        [ProviderCall("find", {"q": 1}, "x", server="shop")],
    ),
    (
        [{"type": "mcp_call", "id": "m", "name": "find", "arguments": "cut", "error": "No."}],
        [ProviderCall("find", {"arguments": "cut"}, {"error": {"message": "No."}}, failed=True)],
    ),
    (
        [{"type": "mcp_list_tools", "server_label": "shop", "tools": [{"name": "find"}]}],
        [ProviderCall("mcp_list_tools", {}, [{"name": "find"}], server="shop")],
    ),
    (
        [{"type": "image_generation_call", "id": "i", "status": "completed", "action": "generate", "size": "1x1",
          "result": base64.b64encode(IMAGE).decode()}],
        [ProviderCall("image_generation", {"action": "generate", "size": "1x1"},
                      {"bytes": len(IMAGE), "sha256": hashlib.sha256(IMAGE).hexdigest()})],
    ),
    (
        [{"type": "image_generation_call", "status": "failed", "result": None,
          "error": {"type": "server_error", "message": "No."}}],
        [ProviderCall("image_generation", {}, {"error": {"type": "server_error", "message": "No."}}, failed=True)],
    ),
    # What the agent has to run is its own, unless the answer has the output.
    ([{"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}}], []),
    (
        [{"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}},
         {"type": "computer_call_output", "call_id": "c", "output": {"image_url": "u"}}],
        [ProviderCall("computer", {"type": "screenshot"}, {"image_url": "u"})],
    ),
    (
        [{"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"], "timeout_ms": None}},
         {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "a"}]}],
        [ProviderCall("shell", {"commands": ["ls"]}, [{"stdout": "a"}])],
    ),
    (
        [{"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {"paths": ["crm"]}},
         {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": [{"name": "find"}]}],
        [ProviderCall("tool_search", {"paths": ["crm"]}, [{"name": "find"}])],
    ),
    (
        [{"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {"paths": ["crm"]}},
         {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": [{"name": "find"}]},
         {"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {"paths": ["shop"]}},
         {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": [{"name": "buy"}]}],
        [ProviderCall("tool_search", {"paths": ["crm"]}, [{"name": "find"}]),
         ProviderCall("tool_search", {"paths": ["shop"]}, [{"name": "buy"}])],
    ),
    ([{"type": "tool_search_call", "execution": "client", "call_id": "t", "arguments": {}}], []),
    (
        [{"type": "program", "call_id": "p", "code": "x", "fingerprint": "f"},
         {"type": "program_output", "call_id": "p", "result": "1", "status": "completed"}],
        [ProviderCall("program", {"code": "x"}, "1")],
    ),
    (
        [{"type": "dreaming_call", "depth": 3, "status": "failed"}],
        [ProviderCall("dreaming", {"depth": 3}, failed=True)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("items", "expected"), ITEMS)
def test_calls_are_read_from_the_items_of_a_response(
    items: list[dict[str, Any]], expected: list[ProviderCall]
) -> None:
    """Also those of tools that nobody has heard of yet."""
    assert read_items(items, AGENTS) == expected


BLOCKS: list[tuple[list[dict[str, Any]], list[ProviderCall]]] = [
    ([{"type": "text", "text": "Hi."}, {"type": "tool_use", "id": "t", "name": "find", "input": {}}], []),
    (
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
         {"type": "text", "text": "Well."},
         {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}],
        [ProviderCall("web_search", {"query": "q"}, [{"url": "u"}])],
    ),
    (
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
         {"type": "web_search_tool_result", "tool_use_id": "s",
          "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}}],
        [ProviderCall("web_search", {"query": "q"},
                      {"error": {"type": "web_search_tool_result_error", "error_code": "unavailable"}}, failed=True)],
    ),
    (
        [{"type": "mcp_tool_use", "id": "m", "name": "find", "server_name": "shop", "input": "cut"},
         {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": True, "content": "No."}],
        [ProviderCall("find", {"input": "cut"}, {"error": "No."}, "shop", failed=True)],
    ),
    # The answer was paused, and goes on in the next one.
    ([{"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {}}], [ProviderCall("web_fetch", {})]),
    (
        [{"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content": {"stdout": "2"}}],
        [ProviderCall("bash_code_execution", {}, {"stdout": "2"})],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "expected"), BLOCKS)
def test_calls_are_read_from_the_blocks_of_a_message(
    blocks: list[dict[str, Any]], expected: list[ProviderCall]
) -> None:
    """Each with the result that names it."""
    assert read_blocks(blocks) == expected


def test_calls_are_read_from_the_list_of_a_chat_completion() -> None:
    """As Groq's systems of several models report them."""
    tools = [
        {"index": 0, "type": "search", "arguments": '{"query":"q"}', "output": "x", "search_results": None},
        {"index": 1, "type": "python", "arguments": '{"code":"1"}', "output": "1"},
    ]

    assert read_executed({"content": "Hi.", "executed_tools": tools}) == [
        ProviderCall("search", {"query": "q"}, "x"),
        ProviderCall("python", {"code": "1"}, "1"),
    ]
    assert read_executed({"content": "Hi."}) == []
