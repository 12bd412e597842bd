"""The registration of an agent by a client, and its errors, in the form of a WhyOps server."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whyops_trace._checks import MAX_NAME

_Text = Annotated[str, Meta(min_length=1)]

#: Patterns of msgspec's error messages, and of the parts of a path in them.
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_TYPES: Final = re.compile(r"Expected `(\w+)`, got `(\w+)`")
_PART: Final = re.compile(r"\.?(\w+)|\[(\d+)\]")
#: The types of members that are not text.
_MEMBERS: Final = {"metadata": "object", "tools": "array", "samplingRate": "number"}
#: Names of types in JSON.
_JSON_TYPES: Final = {
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "null": "null",
    "array": "array",
    "object": "object",
}


class Tool(msgspec.Struct, rename="camel"):
    """A tool as an agent declares it. The schemas are JSON as text."""

    name: _Text
    input_schema: _Text
    output_schema: _Text
    description: _Text


class Definition(msgspec.Struct, rename="camel"):
    """The definition of a version of an agent, with its members in the order of hashing."""

    system_prompt: _Text
    tools: list[Tool]
    description: str | UnsetType = UNSET


class AgentInit(msgspec.Struct, rename="camel"):
    """The body of a registration."""

    agent_name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    metadata: Definition


class SamplingRate(msgspec.Struct, rename="camel"):
    """The requested share of an agent's traces to keep."""

    sampling_rate: Annotated[float, Meta(ge=0, le=1)]


def issue(error: msgspec.DecodeError) -> dict[str, Any]:
    """Return the body of the answer for an error in a body."""
    message_text, _, path = str(error).partition(" - at `$")
    location: list[str | int] = [name or int(index) for name, index in _PART.findall(path)]
    missing_field, wrong_type = _MISSING.fullmatch(message_text), _TYPES.fullmatch(message_text)
    entry: dict[str, Any]
    if missing_field:
        location.append(missing_field[1])
        expected = _MEMBERS.get(missing_field[1], "string")
        entry = {"code": "invalid_type", "expected": expected, "received": "undefined"}
        entry |= {"path": location, "message": "Required"}
    elif wrong_type:
        expected, received = (_JSON_TYPES.get(name, name) for name in wrong_type.groups())
        message = f"Expected {expected}, received {received}"
        entry = {"code": "invalid_type", "expected": expected, "received": received}
        entry |= {"path": location, "message": message}
    else:
        code = "too_big" if "<=" in message_text else "too_small" if ">=" in message_text else "invalid_json"
        entry = {"code": code, "path": location, "message": message_text.replace("`", "")}
    return {"success": False, "error": {"issues": [entry], "name": "ZodError"}}
