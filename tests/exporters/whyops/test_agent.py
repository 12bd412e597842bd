"""What a client is told of its agent: mended where the intent is plain, else refused."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import init_issues
from strategies import STEADY, python_values, texts

from whyops_trace import ConfigurationError, WhyOps
from whyops_trace._values import encoding
from whyops_trace.exporters.whyops.agent import check_metadata


def tool(**members: Any) -> dict[str, Any]:
    """The metadata of an agent with one tool."""
    return {"systemPrompt": "Help.", "tools": [members]}


@pytest.mark.parametrize(
    ("metadata", "checked"),
    [
        ({"systemPrompt": "Help."}, {"systemPrompt": "Help.", "tools": []}),
        ({"systemPrompt": "Help.", "tools": None}, {"systemPrompt": "Help.", "tools": []}),
        ({"systemPrompt": "Help.", "tools": ()}, {"systemPrompt": "Help.", "tools": []}),
        ({"systemPrompt": "Help.", "description": ""}, {"systemPrompt": "Help.", "tools": []}),
        ({"systemPrompt": "Help.", "description": None}, {"systemPrompt": "Help.", "tools": []}),
        (
            {"description": "Answers.", "tools": [], "systemPrompt": "Help."},
            {"systemPrompt": "Help.", "tools": [], "description": "Answers."},
        ),
        (MappingProxyType({"systemPrompt": "Help.", "version": 3}), {"systemPrompt": "Help.", "tools": []}),
    ],
    ids=repr,
)
def test_what_is_missing_is_made(metadata: dict[str, Any], checked: dict[str, Any]) -> None:
    """A server wants a list of tools, and takes nothing that is empty or null."""
    assert check_metadata(metadata) == checked


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, {"description": "search", "inputSchema": "{}", "outputSchema": "{}"}),
        (
            {"description": "Finds.", "inputSchema": "free text", "outputSchema": None},
            {"description": "Finds.", "inputSchema": "free text", "outputSchema": "{}"},
        ),
        (
            {"inputSchema": {"type": "object", "properties": {"password": {"type": "string"}}}},
            {
                "description": "search",
                "inputSchema": '{"type":"object","properties":{"password":{"type":"string"}}}',
                "outputSchema": "{}",
            },
        ),
        (
            {"outputSchema": {}, "strict": True},
            {"description": "search", "inputSchema": "{}", "outputSchema": "{}"},
        ),
        (
            {"description": "", "inputSchema": ""},
            {"description": "search", "inputSchema": "{}", "outputSchema": "{}"},
        ),
    ],
    ids=repr,
)
def test_a_tool_gets_every_member_a_server_wants(given: dict[str, Any], made: dict[str, str]) -> None:
    """Schemas become text, in which nothing is taken for a secret; members it does not know go."""
    assert check_metadata(tool(name="search", **given))["tools"] == [{"name": "search", **made}]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("Help.", "agent_metadata is 'Help.'; it must be a dict with a systemPrompt"),
        ([("systemPrompt", "Help.")], "must be a dict"),
        ({}, "agent_metadata['systemPrompt'] is None"),
        ({"systemPrompt": ""}, "agent_metadata['systemPrompt'] is ''"),
        (
            {"systemPrompt": [{"type": "text", "text": "Help."}]},
            "it must be the agent's system prompt, as text",
        ),
        ({"systemPrompt": b"Help."}, "as text"),
        ({"systemPrompt": "x", "tools": "search"}, "agent_metadata['tools'] is 'search'; it must be a list"),
        ({"systemPrompt": "x", "tools": {"name": "search"}}, "it must be a list of dicts"),
        ({"systemPrompt": "x", "tools": ["search"]}, "agent_metadata['tools'][0] is 'search'"),
        ({"systemPrompt": "x", "tools": [{"name": "a"}, {}]}, "agent_metadata['tools'][1]['name'] is None"),
        (tool(name=""), "['name'] is ''; it must be text that is not empty"),
        (tool(name=3), "['name'] is 3"),
        (tool(name="a", description=3), "['description'] is 3"),
        (tool(name="a", inputSchema=["x"]), "['inputSchema'] is ['x']"),
        (tool(name="a", outputSchema=3), "['outputSchema'] is 3"),
        ({"systemPrompt": "x", "description": 3}, "agent_metadata['description'] is 3"),
    ],
    ids=repr,
)
def test_what_cannot_be_meant_is_refused(metadata: Any, words: str) -> None:
    """The error names the place, shows the value, and says what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        WhyOps("whyops_test", agent_metadata=metadata)

    assert words in str(caught.value)


def test_the_metadata_of_the_user_stays_as_it_is() -> None:
    """What is mended is a copy, and later changes of the original change nothing."""
    original = tool(name="search", inputSchema={"type": "object"})
    checked = check_metadata(original)
    original["tools"][0]["inputSchema"]["type"] = "array"

    assert original == tool(name="search", inputSchema={"type": "array"})
    assert checked["tools"][0]["inputSchema"] == '{"type":"object"}'


nearly_tools = st.fixed_dictionaries(
    {"name": texts.filter(bool)},
    optional={
        "description": st.none() | texts,
        "inputSchema": st.none() | texts | st.dictionaries(texts, python_values, max_size=3),
        "outputSchema": st.none() | texts | st.dictionaries(texts, python_values, max_size=3),
    },
)
nearly_metadata = st.fixed_dictionaries(
    {"systemPrompt": texts.filter(bool)},
    optional={"tools": st.none() | st.lists(nearly_tools, max_size=3), "description": st.none() | texts},
)


@STEADY
@given(nearly_metadata)
def test_what_is_taken_a_server_takes(metadata: dict[str, Any]) -> None:
    """No metadata that a client takes is refused by the schema of the server."""
    body = encoding.encode({"agentName": "shop", "metadata": check_metadata(metadata)})

    assert list(init_issues(json.loads(body))) == []
    assert b"\\u0000" not in body
